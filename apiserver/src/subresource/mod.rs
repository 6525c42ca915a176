//! From verb and subresource to what the pipeline does. Everything that is a view of an object goes one way; the few
//! subresources that are actions have a file each.

mod binding;
mod component_status;
mod eviction;
mod metrics;
mod review;
pub(crate) mod scale;
mod token;

pub(crate) use metrics::Summaries;

use std::sync::Arc;

use api::{ServedVersion, Verb};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use http::StatusCode;
use schema::decode::Decoded;
use schema::patch::json::JsonPatch;
use serde_json::{Value, json};

use crate::cache::Cached;
use crate::http::respond::{self, Failure};
use crate::http::{RequestBody, Response, body};
use crate::pipeline::{
    Call, Change, Core, DeleteOptions, Deleted, Endpoint, Target, WriteOptions, code_of, content_type,
    decode, delete_options, list_options, patch_error, typed, write_options,
};

/// How many objects of a collection are deleted at once.
const DELETIONS_AT_ONCE: usize = 32;

/// What older clients still send, as upstream still reads it, and what it is called now.
const OLDER: [(&str, &str); 1] = [("policy/v1beta1", "policy/v1")];

/// Answers a request; `None` when the resource cannot do that.
pub(crate) async fn answer(
    core: &Arc<Core>,
    call: &Call,
    target: &Target,
    content: RequestBody,
) -> Option<Result<Response, Failure>> {
    if !can(call, target) {
        return None;
    }
    match (target.subresource.as_str(), call.info.verb) {
        ("binding", "create") | ("", "create") if binding::is_binding(target) => {
            return Some(binding::create(core, call, target, content).await);
        }
        ("eviction", "create") => return Some(eviction::create(core, call, target, content).await),
        ("token", "create") => return Some(token::create(core, call, target, content).await),
        _ => {}
    }
    if metrics::is_metrics(target) {
        return Some(metrics::answer(core, call, target).await);
    }
    if component_status::is_component_status(target) {
        return Some(component_status::answer(core, call, target).await);
    }
    if !target.row.stored {
        return Some(review::create(core, call, target, content).await);
    }
    Endpoint::of(target)?;
    Some(match call.info.verb {
        "get" => core.get(call, target).await,
        "list" => core.list(call, target).await,
        "watch" => core.watch(call, target).await,
        "create" => create(core, call, target, content).await,
        "update" => update(core, call, target, content).await,
        "patch" => patch(core, call, target, content).await,
        "delete" => delete(core, call, target, content).await,
        "deletecollection" => delete_collection(core, call, target, content).await,
        _ => return None,
    })
}

/// Whether the row, or its subresource, offers the verb.
fn can(call: &Call, target: &Target) -> bool {
    let verb = match call.info.verb {
        "get" => Verb::Get,
        "list" => Verb::List,
        "watch" => Verb::Watch,
        "create" => Verb::Create,
        "update" => Verb::Update,
        "patch" => Verb::Patch,
        "delete" => Verb::Delete,
        "deletecollection" => Verb::DeleteCollection,
        _ => return false,
    };
    match target.subresource() {
        Some(subresource) => subresource.verbs.contains(&verb),
        None => {
            let about_one = matches!(verb, Verb::Get | Verb::Update | Verb::Patch | Verb::Delete);
            let about_many = matches!(verb, Verb::Create | Verb::DeleteCollection);
            let named = !target.name.is_empty();
            target.row.can(verb) && (named || !about_one) && !(about_many && named)
        }
    }
}

/// Decodes the object of a write and reports its duplicate fields.
async fn body_object(
    call: &Call,
    content: RequestBody,
    kind: &str,
) -> Result<(Value, WriteOptions), Failure> {
    let options = write_options(&call.query, kind, false)?;
    let bytes = body::read_limited(content).await?;
    let decoded = decode::object(&call.headers, &bytes)?;
    *call.duplicates.lock() = duplicates(&decoded);
    *call.source.lock() = bytes;
    Ok((decoded.value, options))
}

/// Decodes what an action is asked for: an object of a kind that is stored nowhere.
pub(crate) async fn action_body(
    call: &Call,
    content: RequestBody,
    (group, version, kind): (&str, &str, &str),
) -> Result<(Value, WriteOptions), Failure> {
    let (mut object, options) = body_object(call, content, "CreateOptions").await?;
    let served = ServedVersion { group: group.to_string(), version: version.to_string() };
    let of_kind = served.api_version();
    let said = object.get("apiVersion").and_then(Value::as_str);
    if let Some((_, now)) = OLDER.iter().find(|(older, now)| said == Some(older) && of_kind == **now) {
        crate::tree::set(&mut object, &["apiVersion"], *now);
    }
    decode::check_kind(&mut object, &of_kind, kind)?;
    if let Some(schema) = api::schemas::for_kind(group, version, kind) {
        typed(call, &schema, (&of_kind, kind), &mut object, options.field_validation)?;
    }
    Ok((object, options))
}

/// Duplicate fields as strict decoding tells them. What becomes of them is decided together with the unknown ones.
fn duplicates(decoded: &Decoded) -> Vec<String> {
    match (decoded.duplicate_line, decoded.duplicates.first()) {
        (Some(line), Some(path)) => {
            let key = path.rsplit('.').next().unwrap_or_default();
            let what = format!("line {line}: key {key:?} already set in map");
            vec![format!("error converting YAML to JSON: yaml: unmarshal errors:\n  {what}")]
        }
        _ => decoded.duplicates.iter().map(|path| format!("duplicate field \"{path}\"")).collect(),
    }
}

/// What strict decoding has against the operations of a JSON patch.
fn of_json_patch(decoded: &Decoded) -> Vec<String> {
    let operations = decoded.value.as_array().into_iter().flatten().enumerate();
    let unknown = operations.flat_map(|(index, operation)| {
        let names = operation.as_object().into_iter().flatten().map(|(name, _)| name.as_str());
        let unknown = names.filter(|name| !["op", "path", "from", "value"].contains(name));
        unknown.map(move |name| format!("unknown field \"[{index}].{name}\"")).collect::<Vec<_>>()
    });
    duplicates(decoded).into_iter().chain(unknown).map(|fault| format!("json patch {fault}")).collect()
}

async fn create(
    core: &Arc<Core>,
    call: &Call,
    target: &Target,
    content: RequestBody,
) -> Result<Response, Failure> {
    let (object, options) = body_object(call, content, "CreateOptions").await?;
    let written = core.change(call, target, Change::Create(object), &options).await?;
    core.show(call, target, StatusCode::CREATED, written.object).await
}

async fn update(
    core: &Arc<Core>,
    call: &Call,
    target: &Target,
    content: RequestBody,
) -> Result<Response, Failure> {
    let (object, options) = body_object(call, content, "UpdateOptions").await?;
    let written = core.change(call, target, Change::Replace(object), &options).await?;
    core.show(call, target, code_of(written.created), written.object).await
}

async fn patch(
    core: &Arc<Core>,
    call: &Call,
    target: &Target,
    content: RequestBody,
) -> Result<Response, Failure> {
    let media_type = content_type(&call.headers).to_string();
    let is_apply =
        matches!(media_type.as_str(), "application/apply-patch+yaml" | "application/apply-patch+json");
    let is_json_patch = media_type == "application/json-patch+json";
    let is_custom = target.row.custom.is_some();
    let known = is_apply
        || matches!(media_type.as_str(), "application/json-patch+json" | "application/merge-patch+json")
        || media_type == "application/strategic-merge-patch+json" && !is_custom;
    if !known {
        let strategic = if is_custom { "" } else { ", application/strategic-merge-patch+json" };
        let accepted = format!(
            "application/json-patch+json, application/merge-patch+json{strategic}, application/apply-patch+yaml"
        );
        return Err(decode::unsupported(&accepted).into());
    }
    let options = write_options(&call.query, "PatchOptions", is_apply)?;
    let bytes = body::read_limited(content).await?;
    let decoded = if is_apply { decode::applied(&bytes)? } else { decode::patch(&bytes)? };
    *call.duplicates.lock() = if is_json_patch { of_json_patch(&decoded) } else { duplicates(&decoded) };
    let change = match media_type.as_str() {
        "application/json-patch+json" => {
            Change::JsonPatch(JsonPatch::parse(&decoded.value).map_err(|error| patch_error(target, error))?)
        }
        "application/merge-patch+json" => Change::MergePatch(decoded.value),
        "application/strategic-merge-patch+json" => Change::StrategicPatch(decoded.value),
        _ => Change::Apply { object: decoded.value, force: options.force == Some(true) },
    };
    let written = core.change(call, target, change, &options).await?;
    core.show(call, target, code_of(written.created), written.object).await
}

async fn delete(
    core: &Arc<Core>,
    call: &Call,
    target: &Target,
    content: RequestBody,
) -> Result<Response, Failure> {
    let bytes = body::read_limited(content).await?;
    let options = delete_options(&call.query, decode::deletion(&call.headers, &bytes)?.as_ref())?;
    match core.delete(call, target, &options).await? {
        Deleted::Pending(object) => core.show(call, target, StatusCode::OK, object).await,
        Deleted::Gone(object) if returns_deleted(target) => {
            core.show(call, target, StatusCode::OK, object).await
        }
        Deleted::Gone(object) => {
            let tree = object.tree();
            let uid = api::object::metadata(&tree, "uid").unwrap_or_default();
            let mut details = json!({"name": target.name, "kind": target.row.plural, "uid": uid});
            if !target.row.group().is_empty() {
                crate::tree::set(&mut details, &["group"], target.row.group());
            }
            let status = json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details,
            });
            Ok(respond::value(StatusCode::OK, &status, call.form.encoding))
        }
    }
}

/// The kinds whose deletion answers with the object instead of a `Status`, as upstream's registries have it.
fn returns_deleted(target: &Target) -> bool {
    target.row.group().is_empty()
        && matches!(
            target.row.plural.as_str(),
            "pods"
                | "podtemplates"
                | "persistentvolumes"
                | "persistentvolumeclaims"
                | "resourcequotas"
                | "serviceaccounts"
                | "services"
        )
}

async fn delete_collection(
    core: &Arc<Core>,
    call: &Call,
    target: &Target,
    content: RequestBody,
) -> Result<Response, Failure> {
    let bytes = body::read_limited(content).await?;
    let options = delete_options(&call.query, decode::deletion(&call.headers, &bytes)?.as_ref())?;
    let page = core.page(target, &list_options(call, target)?).await?;
    // Several at once share a commit of the store.
    let deletions: Vec<BoxFuture<'_, Result<Deleted, Failure>>> =
        page.objects.iter().map(|object| delete_one(core, call, target, &options, object).boxed()).collect();
    let mut outcomes = futures::stream::iter(deletions).buffered(DELETIONS_AT_ONCE);
    let mut deleted = Vec::with_capacity(page.objects.len());
    while let Some(outcome) = outcomes.next().await {
        match outcome {
            Ok(Deleted::Gone(object) | Deleted::Pending(object)) => deleted.push(object),
            Err(failure) if failure.error.reason == api::Reason::NotFound => {}
            Err(failure) => return Err(failure),
        }
    }
    drop(outcomes);
    let presenter = crate::present::Presenter::new(target, call.form, Default::default());
    let deleted = crate::custom::shown(&core.objects, &target.row, &target.version, deleted).await?;
    Ok(presenter.list(deleted, &page.meta))
}

async fn delete_one(
    core: &Arc<Core>,
    call: &Call,
    target: &Target,
    options: &DeleteOptions,
    object: &Cached,
) -> Result<Deleted, Failure> {
    let one = Target {
        namespace: object.namespace().to_string(),
        name: object.name().to_string(),
        ..target.clone()
    };
    core.delete(call, &one, options).await
}
