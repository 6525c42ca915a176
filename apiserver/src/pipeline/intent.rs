//! From what the client sent to the object it asks for: shaped by the schema, patched or applied, in the storage version.

use api::ApiError;
use schema::apply::{self, ApplyError, Writer};
use schema::conform;
use schema::patch::{self, PatchError};
use serde_json::Value;

use super::call::{Call, Target};
use super::change::Change;
use super::endpoint::Endpoint;
use super::options::{FieldValidation, WriteOptions};
use super::system_fields::fit_to_path;
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
        (Change::Replace(_), None)
            if endpoint == Endpoint::Object && target.row.strategy.allows_create_on_update() =>
        {
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
    let (Change::Create(object) | Change::Replace(object) | Change::Apply { object, .. }) = change else {
        return Ok(());
    };
    let (api_version, kind) = endpoint.kind(target);
    super::decode::check_kind(object, &api_version, &kind)?;
    shape(call, target, endpoint, object, options)?;
    fit_to_path(object, target)?;
    Ok(())
}

/// Drops what the schema does not know, and says so.
fn shape(
    call: &Call,
    target: &Target,
    endpoint: Endpoint,
    object: &mut Value,
    options: &WriteOptions,
) -> Result<(), ApiError> {
    let (api_version, kind) = endpoint.kind(target);
    let version = api_version.rsplit('/').next().unwrap_or_default();
    let refused = |why: &str| {
        ApiError::bad_request(format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {why}"))
    };
    let conformed = conform::conform(&endpoint.body_schema(target), object)
        .map_err(|error| refused(&error.to_string()))?;
    let mut found = call.duplicates.lock().clone();
    found.extend(conformed.unknown.iter().map(|path| format!("unknown field \"{path}\"")));
    strict(call, options.field_validation, found).map_err(|error| refused(&error.message))
}

/// What becomes of unknown and duplicate fields.
fn strict(call: &Call, validation: FieldValidation, found: Vec<String>) -> Result<(), ApiError> {
    if found.is_empty() {
        return Ok(());
    }
    match validation {
        FieldValidation::Ignore => Ok(()),
        FieldValidation::Warn => {
            found.into_iter().for_each(|text| call.warn(text));
            Ok(())
        }
        FieldValidation::Strict => {
            let message = format!("strict decoding error: {}", found.join(", "));
            Err(ApiError::bad_request(message))
        }
    }
}

/// The object that the change asks for, in the storage version.
pub(super) fn intended(
    call: &Call,
    target: &Target,
    endpoint: Endpoint,
    change: &Change,
    live: Option<&Value>,
    options: &WriteOptions,
) -> Result<Value, Failure> {
    let patched = |apply: &dyn Fn(&mut Value) -> Result<(), PatchError>| -> Result<Value, Failure> {
        let live = live.ok_or_else(|| target.not_found(&target.name))?;
        let mut view = from_storage(endpoint.view(live, target)?, target, endpoint);
        apply(&mut view).map_err(|error| patch_error(target, error))?;
        if !view.is_object() {
            return Err(ApiError::bad_request("the patch leaves no object").into());
        }
        let (api_version, kind) = endpoint.kind(target);
        super::decode::check_kind(&mut view, &api_version, &kind)?;
        shape(call, target, endpoint, &mut view, options)?;
        fit_to_path(&mut view, target)?;
        Ok(to_storage(view, target, endpoint))
    };
    match change {
        Change::Create(object) | Change::Replace(object) => Ok(to_storage(object.clone(), target, endpoint)),
        Change::JsonPatch(patch) => patched(&|view| patch.apply(view)),
        Change::MergePatch(patch) => patched(&|view| {
            patch::merge::apply(patch, view);
            Ok(())
        }),
        Change::StrategicPatch(patch) => {
            let schema = endpoint.body_schema(target);
            patched(&|view| patch::strategic::apply(&schema, patch, view))
        }
        Change::Apply { object, force } => applied(call, target, endpoint, object, *force, live, options),
        Change::Edit(edit) => {
            let live = live.ok_or_else(|| target.not_found(&target.name))?;
            Ok(edit(live)?)
        }
    }
}

fn applied(
    call: &Call,
    target: &Target,
    endpoint: Endpoint,
    object: &Value,
    force: bool,
    live: Option<&Value>,
    options: &WriteOptions,
) -> Result<Value, Failure> {
    if object.pointer("/metadata/managedFields").is_some_and(|m| !m.is_null()) {
        return Err(ApiError::bad_request("metadata.managedFields must be nil").into());
    }
    let applied = to_storage(object.clone(), target, endpoint);
    let view = live.map(|live| endpoint.view(live, target)).transpose()?.unwrap_or(Value::Null);
    let schema = if endpoint == Endpoint::Scale { endpoint.body_schema(target) } else { target.schema() };
    let api_version = target.version.api_version();
    let writer = writer(call, target, endpoint, options, &api_version);
    apply::apply(&schema, &view, &applied, &writer, force).map_err(|error| match error {
        ApplyError::Conflicts { message, causes } => {
            let causes: Vec<Value> = causes
                .iter()
                .map(|c| serde_json::json!({"reason": c.reason, "message": c.message, "field": c.field}))
                .collect();
            let mut error = ApiError::new(api::Reason::Conflict, message);
            error.details = Some(Box::new(serde_json::json!({"causes": causes})));
            Failure::from(error)
        }
        ApplyError::Invalid(message) => ApiError::bad_request(message).into(),
        ApplyError::NotTyped { .. } => ApiError::internal(error.to_string()).into(),
    })
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

fn patch_error(target: &Target, error: PatchError) -> ApiError {
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

/// From the version of the request to the one in which the kind is stored.
fn to_storage(object: Value, target: &Target, endpoint: Endpoint) -> Value {
    if endpoint == Endpoint::Scale {
        return object;
    }
    convert(object, target, &target.version, &target.row.storage)
}

/// From the storage version to the one that the request speaks.
fn from_storage(object: Value, target: &Target, endpoint: Endpoint) -> Value {
    if endpoint == Endpoint::Scale {
        return object;
    }
    convert(object, target, &target.row.storage, &target.version)
}

fn convert(mut object: Value, target: &Target, from: &api::ServedVersion, to: &api::ServedVersion) -> Value {
    if from != to {
        api::convert::convert(&target.row, &mut object, from, to);
    }
    object
}
