//! `wait`: until objects are as wanted, or gone.

use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;
use futures::StreamExt;
use serde_json::Value;

use crate::api::{Refusal, is_not_found};
use crate::cli::{Selection, Span};
use crate::output::jsonpath::Template;
use crate::output::table::text_of;
use crate::session::{Session, Target, with_query};
use crate::tree::text;
use crate::writing::Writing;

/// Between tries to reach a server that is gone.
const RETRY: Duration = Duration::from_millis(250);

/// The flags of `wait`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Kinds and names
    pub what: Vec<String>,
    #[command(flatten)]
    pub selection: Selection,
    /// Every object of the kind in the namespace
    #[arg(long)]
    pub all: bool,
    /// condition=Ready, condition=Ready=false, jsonpath={.status.phase}=Running, create or delete
    #[arg(long = "for", value_name = "WHAT")]
    pub wanted: String,
    /// How long to wait; 0 looks once
    #[arg(long, default_value = "30s", value_name = "TIME")]
    pub timeout: Span,
    /// Show each object as it is then: json, yaml, name, jsonpath=TEMPLATE
    #[arg(short, long, value_name = "FORM")]
    pub output: Option<String>,
}

enum Wanted {
    Created,
    Deleted,
    Condition { kind: String, status: String },
    Path { template: Template, value: Option<String> },
}

impl Wanted {
    fn parse(text: &str) -> anyhow::Result<Self> {
        if let Some(condition) = text.strip_prefix("condition=") {
            let (kind, status) = condition.split_once('=').unwrap_or((condition, "True"));
            return Ok(Self::Condition { kind: kind.to_string(), status: status.to_string() });
        }
        if let Some(rest) = text.strip_prefix("jsonpath=") {
            let rest = rest.trim_matches('\'');
            let (path, value) = match rest.rsplit_once("}=") {
                Some((path, value)) => {
                    (format!("{path}}}"), Some(value.trim_matches(['"', '\'']).to_string()))
                }
                None => (rest.to_string(), None),
            };
            return Ok(Self::Path { template: Template::parse(&path)?, value });
        }
        match text {
            "delete" => Ok(Self::Deleted),
            "create" => Ok(Self::Created),
            _ => bail!(
                "error: unrecognized condition: {text:?}; known are condition=, jsonpath=, create and delete"
            ),
        }
    }

    fn holds(&self, object: Option<&Value>) -> bool {
        match (self, object) {
            (Self::Deleted, object) => object.is_none(),
            (Self::Created, object) => object.is_some(),
            (_, None) => false,
            (Self::Condition { kind, status }, Some(object)) => {
                let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
                conditions.into_iter().flatten().any(|condition| {
                    let is = |field: &str, wanted: &str| {
                        condition[field].as_str().is_some_and(|text| text.eq_ignore_ascii_case(wanted))
                    };
                    is("type", kind) && is("status", status)
                })
            }
            (Self::Path { template, value }, Some(object)) => {
                let found = template.values(object);
                match value {
                    None => !found.is_empty(),
                    Some(value) => found.first().is_some_and(|found| text_of(found) == *value),
                }
            }
        }
    }
}

/// Runs the verb.
pub async fn run(session: &Session, options: &Options) -> anyhow::Result<()> {
    let wanted = Wanted::parse(&options.wanted)?;
    let deadline = Instant::now() + options.timeout.0;
    let targets = match session.chosen(&options.what, &options.selection, options.all).await {
        Err(error) if is_not_found(&error) => Vec::new(),
        found => found?,
    };
    if targets.is_empty() && !matches!(wanted, Wanted::Deleted) {
        bail!("error: no matching resources found");
    }
    for target in targets {
        // What is not there when the waiting begins is not told about.
        if matches!(wanted, Wanted::Deleted) && !is_there(session, &target).await? {
            continue;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let mut object = match tokio::time::timeout(left, until(session, &target, &wanted)).await {
            Ok(outcome) => outcome?,
            Err(_) => bail!(
                "error: timed out waiting for the condition on {}/{}",
                target.resource.plural,
                target.name
            ),
        };
        // Of an object that was gone before anybody looked there is nothing to show.
        let output = options.output.clone().filter(|_| object.is_object());
        if output.is_some() {
            // The items of a list do not say what they are.
            object["apiVersion"] = target.resource.api_version().into();
            object["kind"] = target.resource.kind.as_str().into();
        }
        Writing { output, ..Writing::default() }.tell(&object, &target.reported(), "condition met")?;
    }
    Ok(())
}

async fn is_there(session: &Session, target: &Target) -> anyhow::Result<bool> {
    match session.api.get(&target.path()).await {
        Err(error) if is_not_found(&error) => Ok(false),
        found => found.map(|_| true),
    }
}

/// Waits for one object and gives it as it is then, or null. A server that is gone is waited for too, until it has refused
/// or the time is over.
async fn until(session: &Session, target: &Target, wanted: &Wanted) -> anyhow::Result<Value> {
    let mut begun = None;
    loop {
        match follow(session, target, wanted, &mut begun).await {
            Ok(Some(object)) => return Ok(object),
            Ok(None) => {}
            Err(error) if begun.is_none() || error.is::<Refusal>() => return Err(error),
            Err(_) => tokio::time::sleep(RETRY).await,
        }
    }
}

/// Follows an object until it is as wanted, or until the watch ends without that. An object that goes, other than as
/// wanted, will not become it: whatever comes in its place is another one.
async fn follow(
    session: &Session,
    target: &Target,
    wanted: &Wanted,
    begun: &mut Option<Value>,
) -> anyhow::Result<Option<Value>> {
    let collection = target.resource.collection(target.namespace.as_deref());
    let only_this = format!("fieldSelector=metadata.name%3D{}", target.name);
    let list = session.api.get(&with_query(&collection, &only_this)).await?;
    let object = list["items"].as_array().and_then(|items| items.first());
    let uid = object.map_or(Value::Null, |object| object["metadata"]["uid"].clone());
    let before = begun.get_or_insert_with(|| uid.clone());
    let is_another = !before.is_null() && *before != uid;
    if wanted.holds(object.filter(|_| !is_another)) {
        return Ok(Some(object.cloned().unwrap_or_default()));
    }
    if is_another || (object.is_none() && !matches!(wanted, Wanted::Created)) {
        return Err(target.not_found());
    }
    let version = text(&list, "/metadata/resourceVersion");
    let query = format!("{only_this}&watch=true&resourceVersion={version}");
    let mut events = Box::pin(session.api.watch(&with_query(&collection, &query), "application/json").await?);
    while let Some(event) = events.next().await {
        let mut event = event?;
        match event["type"].as_str() {
            Some("ERROR") => break,
            Some("DELETED") if wanted.holds(None) => return Ok(Some(event["object"].take())),
            Some("DELETED") => return Err(target.not_found()),
            _ if wanted.holds(Some(&event["object"])) => return Ok(Some(event["object"].take())),
            _ => {}
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_waited_for_is_read_as_users_write_it() {
        let pod =
            json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        for (text, holds) in [
            ("condition=Ready", true),
            ("condition=ready=false", false),
            ("jsonpath={.status.phase}=Running", true),
            ("jsonpath='{.status.phase}'=Pending", false),
            ("jsonpath={.status.podIP}", false),
            ("create", true),
            ("delete", false),
        ] {
            assert_eq!(Wanted::parse(text).unwrap().holds(Some(&pod)), holds, "{text}");
        }
    }
}
