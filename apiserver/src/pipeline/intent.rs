//! From what the client sent to the object it asks for: shaped by the schema, patched or applied, in the storage version.

use api::field::{Errors, Path, PathExt};
use api::{ApiError, ServedVersion};
use schema::apply::{self, ApplyError, Writer};
use schema::patch::{self, PatchError};
use schema::{Schema, conform, decode};
use serde_json::Value;

use super::Core;
use super::call::{Call, Target};
use super::change::Change;
use super::endpoint::Endpoint;
use super::options::{FieldValidation, WriteOptions};
use super::system_fields::fit_to_path;
use crate::custom;
use crate::http::respond::Failure;

/// Whether the change makes a new object; 404 or 409 when it cannot.
pub(super) fn creates(
    target: &Target,
    endpoint: Endpoint,
    change: &Change,
    live: Option<&Value>,
) -> Result<bool, ApiError> {
    match (change, live) {
        (Change::Create(_), _) => Ok(true),
        (_, Some(_)) => Ok(false),
        (Change::Apply { .. }, None) if endpoint == Endpoint::Object => Ok(true),
        (Change::Replace(_), None) if endpoint == Endpoint::Object && target.row.created_by_update => {
            Ok(true)
        }
        _ => Err(target.not_found(&target.name)),
    }
}

/// Checks and shapes the object that the client sent, once for all attempts.
pub(super) fn prepare_body(
    call: &Call,
    target: &Target,
    endpoint: Endpoint,
    change: &mut Change,
    options: &WriteOptions,
) -> Result<(), Failure> {
    let (api_version, kind) = endpoint.kind(target);
    let creates = matches!(change, Change::Create(_));
    let object = match change {
        Change::Create(object) | Change::Replace(object) => {
            super::decode::check_kind(object, &api_version, &kind)?;
            let validation = options.field_validation;
            typed(call, &endpoint.body_schema(target), (&api_version, &kind), object, validation)?;
            object
        }
        Change::Apply { object, .. } => {
            super::decode::check_kind(object, &api_version, &kind)?;
            let written = apply::check(&endpoint.body_schema(target), object, &api_version);
            written.map_err(apply_error)?;
            shape(&endpoint.body_schema(target), object).map_err(ApiError::bad_request)?;
            let found = call.duplicates.lock().clone();
            strict(call, options.field_validation, found).map_err(|why| {
                let why = why.trim_start_matches(STRICT);
                ApiError::bad_request(format!("error strict decoding YAML: {why}"))
            })?;
            object
        }
        _ => return Ok(()),
    };
    fit_to_path(object, target)?;
    let version = api::object::metadata(object, "resourceVersion").unwrap_or_default();
    if creates && version.parse().is_ok_and(|version: u64| version != 0) {
        let why = "resourceVersion should not be set on objects to be created";
        return Err(ApiError::bad_request(why).into());
    }
    Ok(())
}

/// What begins every complaint of strict decoding.
const STRICT: &str = "strict decoding error: ";

/// Checks a whole object against its schema and says what strict decoding has against it.
pub(crate) fn typed(
    call: &Call,
    schema: &Schema,
    (api_version, kind): (&str, &str),
    object: &mut Value,
    validation: FieldValidation,
) -> Result<(), ApiError> {
    let version = api_version.rsplit('/').next().unwrap_or_default();
    let refused = |why: String| {
        let what = format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {why}");
        ApiError::bad_request(what)
    };
    let mut found = shape(schema, object).map_err(refused)?;
    found.splice(0..0, call.duplicates.lock().iter().cloned());
    if found.len() > 1 && schema.is_built_in() {
        put_in_order(&mut found, &call.source.lock());
    }
    strict(call, validation, found).map_err(refused)
}

/// Drops what the schema does not know, and says so; an error for what cannot be decoded at all.
fn shape(schema: &Schema, object: &mut Value) -> Result<Vec<String>, String> {
    let conformed = conform::conform(schema, object).map_err(|e| e.to_string())?;
    Ok(conformed.unknown.iter().map(|path| format!("unknown field \"{path}\"")).collect())
}

/// What becomes of unknown and duplicate fields.
fn strict(call: &Call, validation: FieldValidation, found: Vec<String>) -> Result<(), String> {
    if found.is_empty() {
        return Ok(());
    }
    match validation {
        FieldValidation::Ignore => Ok(()),
        FieldValidation::Warn => {
            found.into_iter().for_each(|text| call.warn(text));
            Ok(())
        }
        FieldValidation::Strict => Err(format!("{STRICT}{}", found.join(", "))),
    }
}

/// Upstream's decoder of built-in kinds finds faults as it reads: an unknown field where it stands, a duplicate one
/// where it stands again.
fn put_in_order(found: &mut [String], source: &[u8]) {
    let fields = decode::fields_in_order(source);
    found.sort_by_cached_key(|fault| {
        let path = decode::mark(fault.split('"').nth(1).unwrap_or_default());
        let again = usize::from(fault.starts_with("duplicate"));
        fields.iter().enumerate().filter(|(_, field)| **field == path).nth(again).map(|(at, _)| at)
    });
}

impl Core {
    /// The object that the change asks for, in the storage version.
    pub(super) async fn intended(
        &self,
        call: &Call,
        target: &Target,
        endpoint: Endpoint,
        change: &Change,
        live: Option<&Value>,
        options: &WriteOptions,
    ) -> Result<Value, Failure> {
        let (asked, stored) = (&target.version, &target.row.storage);
        let live_object = || live.ok_or_else(|| target.not_found(&target.name));
        match change {
            Change::Create(object) | Change::Replace(object) => {
                self.convert(target, endpoint, object.clone(), asked, stored).await
            }
            Change::Apply { object, force } => {
                let view = match live {
                    Some(live) => {
                        let view = endpoint.view(live, target)?;
                        self.convert(target, endpoint, view, stored, asked).await?
                    }
                    None => Value::Null,
                };
                let merged = applied(call, target, endpoint, object, *force, &view, options)?;
                self.convert(target, endpoint, merged, asked, stored).await
            }
            Change::Edit(edit) => Ok(edit(live_object()?)?),
            Change::JsonPatch(_) | Change::MergePatch(_) | Change::StrategicPatch(_) => {
                let view = endpoint.view(live_object()?, target)?;
                let view = self.convert(target, endpoint, view, stored, asked).await?;
                let patched = patched(call, target, endpoint, change, view, options)?;
                self.convert(target, endpoint, patched, asked, stored).await
            }
        }
    }

    /// From one version of the target's kind to another.
    async fn convert(
        &self,
        target: &Target,
        endpoint: Endpoint,
        mut object: Value,
        from: &ServedVersion,
        to: &ServedVersion,
    ) -> Result<Value, Failure> {
        if from == to || endpoint == Endpoint::Scale {
            return Ok(object);
        }
        if target.row.custom.is_none() {
            api::convert::convert(&target.row, &mut object, from, to);
            return Ok(object);
        }
        let converted = custom::convert(&self.objects, &target.row, vec![object], to).await?;
        Ok(converted.into_iter().next().unwrap_or_default())
    }
}

/// What a patch makes of the object, in the version of the request.
fn patched(
    call: &Call,
    target: &Target,
    endpoint: Endpoint,
    change: &Change,
    mut view: Value,
    options: &WriteOptions,
) -> Result<Value, Failure> {
    let outcome = match change {
        Change::JsonPatch(patch) => patch.apply(&mut view),
        Change::StrategicPatch(patch) => {
            patch::strategic::apply(&endpoint.body_schema(target), patch, &mut view)
        }
        Change::MergePatch(patch) => {
            patch::merge::apply(patch, &mut view);
            Ok(())
        }
        _ => Ok(()),
    };
    outcome.map_err(|error| patch_error(target, error))?;
    if !view.is_object() {
        return Err(ApiError::bad_request("the patch leaves no object").into());
    }
    let (api_version, kind) = endpoint.kind(target);
    super::decode::check_kind(&mut view, &api_version, &kind)?;
    let patched = view.clone();
    let refused = |why: String| unfit_patch(change, &patched, &why);
    let found = shape(&endpoint.body_schema(target), &mut view).map_err(refused)?;
    let found = call.duplicates.lock().iter().cloned().chain(found).collect();
    strict(call, options.field_validation, found).map_err(refused)?;
    fit_to_path(&mut view, target)?;
    Ok(view)
}

/// What applying makes of the object (null when there is none), in the version of the request.
fn applied(
    call: &Call,
    target: &Target,
    endpoint: Endpoint,
    applied: &Value,
    force: bool,
    view: &Value,
    options: &WriteOptions,
) -> Result<Value, Failure> {
    let schema = endpoint.body_schema(target);
    let api_version = target.version.api_version();
    let writer = writer(call, target, endpoint, options, &api_version);
    apply::apply(&schema, view, applied, &writer, force).map_err(apply_error)
}

fn apply_error(error: ApplyError) -> Failure {
    match error {
        ApplyError::Conflicts { message, causes } => {
            let causes: Vec<Value> = causes
                .iter()
                .map(|c| serde_json::json!({"reason": c.reason, "message": c.message, "field": c.field}))
                .collect();
            let mut error = ApiError::new(api::Reason::Conflict, message);
            error.details = Some(Box::new(serde_json::json!({"causes": causes})));
            Failure::from(error)
        }
        // Upstream answers a fault of the second kind with 500; it is the client's all the same.
        ApplyError::Invalid(_) | ApplyError::NotTyped { .. } => {
            ApiError::bad_request(error.to_string()).into()
        }
    }
}

/// A patch after which the object cannot be decoded, or not strictly: 422 that shows the patched object, or of a
/// strategic merge patch the patch.
fn unfit_patch(change: &Change, patched: &Value, why: &str) -> ApiError {
    let shown = match change {
        Change::StrategicPatch(patch) => go_text(patch),
        _ => patched.to_string(),
    };
    let mut errors = Errors::new();
    errors.invalid(&Path::ROOT.field("patch"), shown, why);
    ApiError::invalid("", "", "", &errors.into_vec())
}

/// A tree as Go's `%+v` prints it.
fn go_text(value: &Value) -> String {
    let joined = |parts: Vec<String>| parts.join(" ");
    match value {
        Value::Null => "<nil>".to_string(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", joined(items.iter().map(go_text).collect())),
        Value::Object(map) => {
            format!(
                "map[{}]",
                joined(map.iter().map(|(key, value)| format!("{key}:{}", go_text(value))).collect())
            )
        }
        other => other.to_string(),
    }
}

/// Writes down who owns what the change has changed.
pub(super) fn own_fields(
    call: &Call,
    target: &Target,
    endpoint: Endpoint,
    change: &Change,
    options: &WriteOptions,
    live: Option<&Value>,
    new: &mut Value,
) {
    if matches!(change, Change::Apply { .. }) && endpoint != Endpoint::Scale {
        return;
    }
    let api_version = target.version.api_version();
    let writer = writer(call, target, endpoint, options, &api_version);
    apply::track_update(&target.schema(), live.unwrap_or(&Value::Null), new, &writer);
}

fn writer<'a>(
    call: &'a Call,
    target: &'a Target,
    endpoint: Endpoint,
    options: &'a WriteOptions,
    api_version: &'a str,
) -> Writer<'a> {
    let manager = match &options.field_manager {
        Some(manager) => manager.as_str(),
        None => call.user_agent().split('/').next().unwrap_or_default(),
    };
    Writer {
        manager,
        api_version,
        subresource: &target.subresource,
        now: &call.now,
        reset: endpoint.reset(target),
    }
}

pub(crate) fn patch_error(target: &Target, error: PatchError) -> ApiError {
    match error {
        PatchError::Malformed(message) => ApiError::bad_request(message),
        PatchError::Unprocessable(message) => {
            let mut failure = ApiError::new(api::Reason::Invalid, message);
            failure.details =
                Some(Box::new(serde_json::json!({"name": target.name, "kind": target.row.plural})));
            failure
        }
        PatchError::TooManyOperations { .. } => {
            ApiError::new(api::Reason::RequestEntityTooLarge, error.to_string())
        }
    }
}
