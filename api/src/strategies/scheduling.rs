//! Priority classes and runtime classes: what pods refer to when they are placed and started.

use serde_json::Value;

use super::{
    common::{immutable, one_of},
    pod_spec::{self, resources},
};
use crate::{
    FieldError, Strategy, WriteContext,
    field::{Errors, Look, Path, PathExt, Touch},
    names,
};

const SYSTEM_PREFIX: &str = "system-";
const SYSTEM_CLASSES: [(&str, i64); 2] =
    [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];
const USER_PRIORITY_MAX: i64 = 1_000_000_000;

/// What is special about priority classes.
pub struct PriorityClass;

impl Strategy for PriorityClass {
    fn set_defaults(&self, object: &mut Value) {
        object.default_text("preemptionPolicy", "PreemptLowerPriority");
    }

    fn tracks_generation(&self) -> bool {
        true
    }

    fn generation_grows(&self, _new: &Value, _old: &Value) -> bool {
        // What a class says is fixed.
        false
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let name = object.dig(&["metadata", "name"]).and_then(Value::as_str).unwrap_or_default();
        let value = object.int("value").unwrap_or_default();
        if name.starts_with(SYSTEM_PREFIX) {
            let why = match SYSTEM_CLASSES.iter().find(|(known, _)| *known == name) {
                None => Some(format!("{name} is not a known system priority class")),
                Some((_, known)) if *known != value => {
                    Some(format!("value of {name} PriorityClass must be {known}"))
                }
                Some(_) if object.flag("globalDefault") => {
                    Some(format!("globalDefault of {name} PriorityClass must be false"))
                }
                Some(_) => None,
            };
            if let Some(why) = why {
                let detail = format!(
                    "priority class names with '{SYSTEM_PREFIX}' prefix are reserved for system use only. error: {why}"
                );
                errors.forbidden(&Path::ROOT.field("metadata.name"), &detail);
            }
        } else if value > USER_PRIORITY_MAX {
            let detail = format!("maximum allowed value of a user defined priority is {USER_PRIORITY_MAX}");
            errors.forbidden(&Path::ROOT.field("value"), &detail);
        }
        let path = Path::ROOT.field("preemptionPolicy");
        one_of(&mut errors, &path, object, &["PreemptLowerPriority", "Never"]);
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, old: &Value, _context: &WriteContext) -> Vec<FieldError> {
        let mut errors = Errors::new();
        if new.int("value") != old.int("value") {
            errors.forbidden(&Path::ROOT.field("value"), "may not be changed in an update.");
        }
        immutable(&mut errors, &Path::ROOT, new, old, &["preemptionPolicy"]);
        errors.into_vec()
    }
}

/// What is special about runtime classes.
pub struct RuntimeClass;

impl Strategy for RuntimeClass {
    fn allows_create_on_update(&self) -> bool {
        true
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let handler = object.text("handler");
        let path = Path::ROOT.field("handler");
        if handler.is_empty() {
            errors.required(&path, "");
        } else {
            errors.invalid_each(&path, handler, names::dns1123_label(handler));
        }
        if let Some(overhead) = object.at("overhead") {
            let path = Path::ROOT.field("overhead.podFixed");
            resources::validate_list(&mut errors, &path, overhead, "podFixed");
        }
        if let Some(scheduling) = object.at("scheduling") {
            let path = Path::ROOT.field("scheduling");
            let selector = path.field("nodeSelector");
            for (key, value) in scheduling.entries("nodeSelector") {
                errors.invalid_each(&selector, key, names::qualified_name(key));
                let value = value.as_str().unwrap_or_default();
                errors.invalid_each(&selector, value, names::label_value(value));
            }
            let tolerations = scheduling.items("tolerations");
            pod_spec::validate_tolerations(&mut errors, &path.field("tolerations"), tolerations);
        }
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, old: &Value, _context: &WriteContext) -> Vec<FieldError> {
        let mut errors = Errors::new();
        immutable(&mut errors, &Path::ROOT, new, old, &["handler"]);
        errors.into_vec()
    }
}
