//! What a write is refused for: assumptions of the client that do not hold, and objects that are not valid.

use api::{ApiError, FieldError, WriteContext};
use schema::validate;
use serde_json::Value;

use super::call::{Call, Target};
use super::change::Change;
use super::endpoint::Endpoint;
use crate::custom;

/// What the client assumes of the object: its resource version and UID.
pub(super) fn check_preconditions(
    target: &Target,
    change: &Change,
    new: &Value,
    live: &Value,
) -> Result<(), ApiError> {
    let said = |field| api::object::metadata(new, field).filter(|v| !v.is_empty());
    let is = |field| api::object::metadata(live, field).unwrap_or_default();
    let name = api::object::name(live);
    if let Some(uid) = said("uid")
        && uid != is("uid")
    {
        let why =
            format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", is("uid"));
        return Err(target.conflict(name, &why));
    }
    match said("resourceVersion") {
        Some(version) if version != is("resourceVersion") => {
            let why =
                "the object has been modified; please apply your changes to the latest version and try again";
            Err(target.conflict(name, why))
        }
        None if matches!(change, Change::Replace(_)) && target.row.versioned_update => {
            let error = FieldError {
                reason: "FieldValueInvalid",
                field: "metadata.resourceVersion".to_string(),
                message: "Invalid value: 0: must be specified for an update".to_string(),
            };
            Err(ApiError::invalid(target.row.group(), &target.row.kind, name, &[error]))
        }
        _ => Ok(()),
    }
}

/// Validates, and gathers what the user should know.
pub(super) fn check(
    call: &Call,
    target: &Target,
    endpoint: Endpoint,
    new: &Value,
    live: Option<&Value>,
    name: &str,
) -> Result<(), ApiError> {
    let strategy = &target.row.strategy;
    let mut errors: Vec<FieldError> = match live {
        None => api::meta::validate(new, &target.row),
        Some(live) => api::meta::validate_update(new, live),
    };
    let is_custom = target.row.custom.is_some();
    let mut structural = if endpoint == Endpoint::Status && !is_custom {
        Vec::new()
    } else {
        validate::validate(&target.schema(), new)
    };
    if let Some(live) = live.filter(|_| is_custom) {
        structural.retain(|error| !custom::is_old(error, new, live));
    }
    // Structural faults would make the kind's own rules speak of what is not there.
    let is_sound = structural.is_empty();
    errors.extend(structural.into_iter().filter(|error| !api::meta::checks(&error.field)));
    if is_sound && endpoint != Endpoint::Status {
        errors.extend(strategy.validate(new));
        if live.is_none() {
            errors.extend(strategy.validate_create(new));
        }
        if target.row_name == custom::DEFINITIONS {
            errors.extend(custom::faults_of_rules(new, live));
        }
        errors.extend(crate::admission::faults(&target.row_name, new, live));
    }
    if let Some(live) = live
        && is_sound
    {
        errors.extend(strategy.validate_update(new, live, &write_context(call, target)));
    }
    if !errors.is_empty() {
        return Err(ApiError::invalid(target.row.group(), &target.row.kind, name, &errors));
    }
    strategy.warnings(new, live).into_iter().for_each(|text| call.warn(text));
    if !target.row.acted_on && target.row.custom.is_none() && endpoint == Endpoint::Object {
        call.warn(format!(
            "{} objects are stored, but nothing in this cluster acts on them yet",
            target.row.kind
        ));
    }
    Ok(())
}

pub(super) fn write_context<'a>(call: &'a Call, target: &'a Target) -> WriteContext<'a> {
    let subresource = (!target.subresource.is_empty()).then_some(target.subresource.as_str());
    WriteContext {
        now: &call.now,
        user: &call.user.name,
        uid: &call.user.uid,
        groups: &call.user.groups,
        extra: Some(&call.user.extra),
        subresource,
    }
}
