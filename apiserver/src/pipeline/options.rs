//! The options of writes, from the query and, for deletions, the body.

use api::{ApiError, FieldError};
use serde_json::{Map, Value, json};

use super::call::Target;
use crate::http::query::Query;

/// What happens with fields that are unknown or given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

/// The options of create, update and patch.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct WriteOptions {
    pub dry_run: bool,
    pub field_manager: Option<String>,
    pub force: Option<bool>,
    pub field_validation: FieldValidation,
}

/// What becomes of an object's dependents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Propagation {
    Background,
    Foreground,
    Orphan,
}

/// The options of deletions.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct DeleteOptions {
    pub dry_run: bool,
    pub grace_period_seconds: Option<i64>,
    pub propagation: Option<Propagation>,
    pub uid: Option<String>,
    pub resource_version: Option<String>,
}

impl DeleteOptions {
    /// 409 for another object than the one that was meant.
    pub fn check_preconditions(&self, target: &Target, live: &Value) -> Result<(), ApiError> {
        let pairs =
            [("UID", "uid", &self.uid), ("ResourceVersion", "resourceVersion", &self.resource_version)];
        for (label, field, wanted) in pairs {
            let is = api::object::metadata(live, field).unwrap_or_default();
            if let Some(wanted) = wanted
                && wanted != is
            {
                let why = format!(
                    "Precondition failed: {label} in precondition: {wanted}, {label} in object meta: {is}"
                );
                return Err(target.conflict(api::object::name(live), &why));
            }
        }
        Ok(())
    }
}

/// The options of a request, as admission tells them to others.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Options<'a> {
    /// A stream has none.
    #[default]
    None,
    Write(&'a WriteOptions),
    Delete(&'a DeleteOptions),
}

impl Options<'_> {
    /// The fields that say something.
    pub fn told(self) -> Map<String, Value> {
        let mut told = match self {
            Self::None => json!({}),
            Self::Write(options) => {
                let validation = match options.field_validation {
                    FieldValidation::Ignore => Some("Ignore"),
                    FieldValidation::Strict => Some("Strict"),
                    FieldValidation::Warn => None,
                };
                let dry_run = options.dry_run.then_some(["All"]);
                json!({"dryRun": dry_run, "fieldManager": options.field_manager, "fieldValidation": validation})
            }
            Self::Delete(options) => {
                let (uid, version) = (&options.uid, &options.resource_version);
                let preconditions = json!({"uid": uid, "resourceVersion": version});
                json!({
                    "dryRun": options.dry_run.then_some(["All"]), "gracePeriodSeconds": options.grace_period_seconds,
                    "propagationPolicy": options.propagation.map(|policy| format!("{policy:?}")),
                    "preconditions": Some(preconditions).filter(|_| uid.is_some() || version.is_some()),
                })
            }
        };
        let mut told = told.as_object_mut().map(std::mem::take).unwrap_or_default();
        told.retain(|_, value| !value.is_null());
        told
    }
}

/// Reads the options of a write; `kind` names them in errors.
pub(crate) fn write_options(query: &Query, kind: &str, is_apply: bool) -> Result<WriteOptions, ApiError> {
    let mut errors = Vec::new();
    let dry_run = dry_run(query.all("dryRun"), &mut errors);
    let field_manager = query.get_nonempty("fieldManager").map(str::to_string);
    if let Some(manager) = &field_manager {
        check_manager(manager, &mut errors);
    }
    let force = query.flag_option("force");
    if is_apply && field_manager.is_none() {
        errors.push(field_error(
            "FieldValueRequired",
            "fieldManager",
            "Required value: is required for apply patch".to_string(),
        ));
    }
    if !is_apply && kind == "PatchOptions" && force.is_some() {
        errors.push(field_error(
            "FieldValueForbidden",
            "force",
            "Forbidden: may not be specified for non-apply patch".to_string(),
        ));
    }
    let field_validation = match query.get("fieldValidation") {
        None | Some("" | "Warn") => FieldValidation::Warn,
        Some("Ignore") => FieldValidation::Ignore,
        Some("Strict") => FieldValidation::Strict,
        Some(other) => {
            errors.push(field_error(
                "FieldValueNotSupported",
                "fieldValidation",
                format!("Unsupported value: \"{other}\": supported values: \"Ignore\", \"Strict\", \"Warn\""),
            ));
            FieldValidation::Warn
        }
    };
    refuse("meta.k8s.io", kind, &errors)?;
    Ok(WriteOptions { dry_run, field_manager, force, field_validation })
}

/// Reads the options of a deletion. The body, if there is one, is a `DeleteOptions`; the query fills in what it lacks.
pub(crate) fn delete_options(query: &Query, body: Option<&Value>) -> Result<DeleteOptions, ApiError> {
    let mut errors = Vec::new();
    let null = Value::Null;
    let body = body.unwrap_or(&null);
    let listed = body.get("dryRun").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let dry_run = dry_run(query.all("dryRun").chain(listed), &mut errors);
    let grace_period_seconds = match body.get("gracePeriodSeconds").and_then(Value::as_i64) {
        Some(seconds) => Some(seconds),
        None => match query.get_nonempty("gracePeriodSeconds") {
            Some(text) => Some(text.parse().map_err(|_| {
                ApiError::bad_request(format!("gracePeriodSeconds: {text:?} is not a number"))
            })?),
            None => None,
        },
    };
    let policy =
        body.get("propagationPolicy").and_then(Value::as_str).or(query.get_nonempty("propagationPolicy"));
    let orphan =
        body.get("orphanDependents").and_then(Value::as_bool).or(query.flag_option("orphanDependents"));
    let propagation = propagation(policy, orphan, &mut errors);
    refuse("meta.k8s.io", "DeleteOptions", &errors)?;
    let precondition =
        |name| body.pointer("/preconditions").and_then(|p| p.get(name)).and_then(Value::as_str);
    Ok(DeleteOptions {
        dry_run,
        grace_period_seconds,
        propagation,
        uid: precondition("uid").map(str::to_string),
        resource_version: precondition("resourceVersion").map(str::to_string),
    })
}

fn propagation(
    policy: Option<&str>,
    orphan: Option<bool>,
    errors: &mut Vec<FieldError>,
) -> Option<Propagation> {
    if policy.is_some() && orphan.is_some() {
        errors.push(field_error(
            "FieldValueInvalid",
            "propagationPolicy",
            "Invalid value: orphanDependents and deletionPropagation cannot be both set".to_string(),
        ));
    }
    match policy {
        Some("Background") => Some(Propagation::Background),
        Some("Foreground") => Some(Propagation::Foreground),
        Some("Orphan") => Some(Propagation::Orphan),
        Some(other) => {
            errors.push(field_error(
                "FieldValueNotSupported",
                "propagationPolicy",
                format!(
                    "Unsupported value: \"{other}\": supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\""
                ),
            ));
            None
        }
        None => orphan.map(|o| if o { Propagation::Orphan } else { Propagation::Background }),
    }
}

fn dry_run<'a>(values: impl Iterator<Item = &'a str>, errors: &mut Vec<FieldError>) -> bool {
    let mut asked = false;
    for value in values.filter(|v| !v.is_empty()) {
        if value == "All" {
            asked = true;
        } else {
            errors.push(field_error(
                "FieldValueNotSupported",
                "dryRun",
                format!("Unsupported value: \"{value}\": supported values: \"All\""),
            ));
        }
    }
    asked
}

fn check_manager(manager: &str, errors: &mut Vec<FieldError>) {
    if manager.len() > 128 {
        errors.push(field_error(
            "FieldValueTooLong",
            "fieldManager",
            "Too long: may not be more than 128 bytes".to_string(),
        ));
    }
    if manager.chars().any(char::is_control) {
        errors.push(field_error(
            "FieldValueInvalid",
            "fieldManager",
            format!("Invalid value: {manager:?}: should only contain printable characters"),
        ));
    }
}

fn field_error(reason: &'static str, field: &str, message: String) -> FieldError {
    FieldError { reason, field: field.to_string(), message }
}

fn refuse(group: &str, kind: &str, errors: &[FieldError]) -> Result<(), ApiError> {
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid(group, kind, "", errors)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_apply_without_a_manager_should_be_refused() {
        let error = write_options(&Query::default(), "PatchOptions", true).unwrap_err();
        assert_eq!(error.reason.code(), 422);
        assert!(error.message.contains("fieldManager: Required value"), "{}", error.message);
        assert!(write_options(&Query::parse("force=true"), "PatchOptions", false).is_err());
    }

    #[test]
    fn deletions_should_read_body_and_query() {
        let body = json!({"propagationPolicy": "Orphan", "preconditions": {"uid": "u"}, "dryRun": ["All"]});
        let options = delete_options(&Query::parse("gracePeriodSeconds=5"), Some(&body)).unwrap();
        assert_eq!(
            options,
            DeleteOptions {
                dry_run: true,
                grace_period_seconds: Some(5),
                propagation: Some(Propagation::Orphan),
                uid: Some("u".to_string()),
                resource_version: None
            }
        );
        assert!(delete_options(&Query::parse("dryRun=Some"), None).is_err());
    }
}
