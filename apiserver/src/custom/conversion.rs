//! Custom resources in another version than the one they are stored in, or stored under an older definition.
//!
//! Guarantees that a read shows an object as its definition has it now: in the version asked for, without fields that the
//! schema does not know, with the defaults of the version that it was stored in. What is stored stays as it is until it is
//! next written. Objects that were written under the definition as it is, in the version asked for, cost nothing.
//!
//! A converter may change labels, annotations and everything beside metadata; what else it does to metadata is undone,
//! and an answer about another object is refused.

use std::sync::Arc;
use std::time::Duration;

use api::field::{Look, Touch};
use api::{ApiError, CustomResource, Row, ServedVersion};
use schema::{conform, defaults};
use serde_json::{Value, json};

use crate::cache::{Cached, RowEvent, encode};
use crate::http::webhook_client::WebhookClient;
use crate::objects::Objects;
use crate::pipeline::Target;

/// How long a converter may take, as upstream.
const PATIENCE: Duration = Duration::from_secs(30);

/// Stored objects as a version of their kind shows them. Objects of built-in kinds come back as they are.
pub(crate) async fn shown(
    objects: &Objects,
    row: &Row,
    to: &ServedVersion,
    mut held: Vec<Arc<Cached>>,
) -> Result<Vec<Arc<Cached>>, ApiError> {
    let Some(custom) = &row.custom else { return Ok(held) };
    let api_version = to.api_version();
    let is_stale = |object: &Arc<Cached>| object.revision <= custom.revision || !object.is_in(&api_version);
    let stale: Vec<&mut Arc<Cached>> = held.iter_mut().filter(|object| is_stale(object)).collect();
    let trees = stale.iter().map(|object| as_defined(custom, object.tree())).collect();
    for (object, tree) in stale.into_iter().zip(convert(objects, row, trees, to).await?) {
        let encoded = encode(&tree).into();
        let shown = Cached::with_tree(object.key.clone(), object.revision, encoded, &tree);
        *object = Arc::new(shown.map_err(|error| ApiError::internal(error.to_string()))?);
    }
    Ok(held)
}

/// Shows what a watch sees, for as long as it lasts, as the definition was when it began.
pub(crate) struct Forms {
    objects: Objects,
    row: Arc<Row>,
    version: ServedVersion,
}

impl Forms {
    /// Those of a target.
    pub fn of(objects: &Objects, target: &Target) -> Self {
        Self { objects: objects.clone(), row: target.row.clone(), version: target.version.clone() }
    }

    /// Events with the objects that they show; `None` when they cannot be shown, which ends the watch.
    pub async fn of_events(&self, mut events: Vec<Arc<RowEvent>>) -> Option<Vec<Arc<RowEvent>>> {
        for event in &mut events {
            let held: Vec<_> = [&event.old, &event.new].into_iter().flatten().cloned().collect();
            let shown = shown(&self.objects, &self.row, &self.version, held.clone()).await;
            let shown =
                shown.inspect_err(|error| tracing::warn!(%error, "a watch cannot go on and is ended"));
            let mut shown = shown.ok()?.into_iter();
            // What is shown as it is held keeps the frame that all watchers share.
            if !shown.as_slice().iter().zip(&held).all(|(shown, held)| Arc::ptr_eq(shown, held)) {
                let old = event.old.as_ref().and_then(|_| shown.next());
                *event = Arc::new(RowEvent::new(event.revision, old, shown.next()));
            }
        }
        Some(events)
    }
}

/// Drops what the schema does not know and fills in what it has by default.
fn as_defined(custom: &CustomResource, mut tree: Value) -> Value {
    let version = tree.text("apiVersion").rsplit('/').next().unwrap_or_default();
    if let Some(version) = custom.versions.get(version) {
        // What does not fit the schema any more is shown as it is.
        let _misfit = conform::conform(&version.schema, &mut tree);
        defaults::fill(&version.schema, &mut tree);
    }
    tree
}

/// Custom resources, each in any version, in one version.
pub(crate) async fn convert(
    objects: &Objects,
    row: &Row,
    mut trees: Vec<Value>,
    to: &ServedVersion,
) -> Result<Vec<Value>, ApiError> {
    let api_version = to.api_version();
    let mut others: Vec<&mut Value> =
        trees.iter_mut().filter(|tree| tree.text("apiVersion") != api_version).collect();
    let converter = row.custom.as_ref().and_then(|custom| custom.converter.as_ref());
    let (Some(converter), Some(first)) = (converter, others.first()) else {
        others.iter_mut().for_each(|tree| tree.put("apiVersion", api_version.to_string()));
        return Ok(trees);
    };
    let kind = format!("{}, Kind={}", first.text("apiVersion"), row.kind);
    let failed = |why: String| ApiError::internal(format!("conversion webhook for {kind} failed: {why}"));
    let asked: Vec<Value> = others.iter().map(|tree| (**tree).clone()).collect();
    let answered = ask(objects, converter, asked, &api_version).await.map_err(failed)?;
    for (tree, answer) in others.into_iter().zip(answered) {
        *tree = accepted(tree, answer, &api_version).map_err(failed)?;
    }
    Ok(trees)
}

/// Asks the converter for as many objects as it is given.
async fn ask(
    objects: &Objects,
    converter: &Value,
    asked: Vec<Value>,
    api_version: &str,
) -> Result<Vec<Value>, String> {
    let reviews = converter.items("conversionReviewVersions").iter().filter_map(Value::as_str);
    let review = reviews.into_iter().find(|version| ["v1", "v1beta1"].contains(version));
    let review = review.ok_or("it accepts no known ConversionReview version (v1, v1beta1)")?;
    let (uid, count) = (uuid::Uuid::new_v4().to_string(), asked.len());
    let question = json!({
        "kind": "ConversionReview", "apiVersion": format!("apiextensions.k8s.io/{review}"),
        "request": {"uid": uid, "desiredAPIVersion": api_version, "objects": asked},
    });
    let client = WebhookClient::read(converter.get("clientConfig").unwrap_or(&Value::Null));
    let mut answer = client.ask(objects, PATIENCE, &question).await?;
    let response = answer.get_mut("response").ok_or("the answer holds no response")?;
    if response.text("uid") != uid {
        return Err(format!("expected response.uid={uid:?}, got {:?}", response.text("uid")));
    }
    let result = response.get("result").unwrap_or(&Value::Null);
    if result.text("status") != "Success" {
        return Err(result.text("message").to_string());
    }
    match response.get_mut("convertedObjects").map(Value::take) {
        Some(Value::Array(converted)) if converted.len() == count => Ok(converted),
        other => {
            let got = other.as_ref().and_then(Value::as_array).map_or(0, Vec::len);
            Err(format!("expected {count} converted objects, got {got}"))
        }
    }
}

/// The converter's object with the metadata that is not its to change.
fn accepted(original: &Value, mut converted: Value, api_version: &str) -> Result<Value, String> {
    if converted.text("apiVersion") != api_version || converted.text("kind") != original.text("kind") {
        let (version, kind) = (converted.text("apiVersion"), converted.text("kind"));
        return Err(format!(
            "invalid converted object: {version}, Kind={kind} instead of {api_version}, Kind={}",
            original.text("kind")
        ));
    }
    let null = Value::Null;
    let theirs = converted.get("metadata").filter(|metadata| metadata.is_object());
    let theirs = theirs.ok_or("invalid metadata of the converted object: it is missing")?;
    let mut ours = original.get("metadata").unwrap_or(&null).clone();
    for field in ["name", "namespace", "uid"] {
        if theirs.text(field) != ours.text(field) {
            return Err(format!("the converted object must have the same metadata.{field}"));
        }
    }
    for field in ["labels", "annotations"] {
        match theirs.at(field) {
            Some(value) => ours.put(field, value.clone()),
            None => ours.drop_field(field),
        }
    }
    converted.put("metadata", ours);
    Ok(converted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(metadata: &Value) -> Value {
        json!({"apiVersion": "g/v1", "kind": "K", "metadata": metadata})
    }

    #[test]
    fn a_converter_should_change_labels_and_annotations_and_nothing_else_of_metadata() {
        let original = object(&json!({"name": "a", "uid": "1", "generation": 3, "labels": {"a": "1"}}));
        let theirs = json!({"name": "a", "uid": "1", "generation": 9, "annotations": {"b": "2"}});
        let accepted = accepted(&original, object(&theirs), "g/v1").unwrap();
        let expected = json!({"name": "a", "uid": "1", "generation": 3, "annotations": {"b": "2"}});
        assert_eq!(accepted["metadata"], expected);
    }

    #[test]
    fn an_answer_about_another_object_should_be_refused() {
        let original = object(&json!({"name": "a", "uid": "1"}));
        for theirs in [json!({"name": "b", "uid": "1"}), json!({"name": "a", "uid": "2"}), json!(null)] {
            assert!(accepted(&original, object(&theirs), "g/v1").is_err(), "{theirs}");
        }
        let fine = json!({"name": "a", "uid": "1"});
        assert!(accepted(&original, object(&fine), "g/v2").is_err());
    }
}
