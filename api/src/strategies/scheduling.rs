//! Priority classes and runtime classes: what pods refer to when they are placed and started.

use serde_json::Value;

use super::{
    common::name_of,
    pod_spec::{self, resources},
};
use crate::{
    Strategy, WriteContext,
    at::At,
    field::{Look, Touch},
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

    fn generation_grows(&self, _new: &Value, _old: &Value) -> bool {
        // What a class says is fixed.
        false
    }

    fn check(&self, object: &At) {
        let (name, value) = (name_of(object), object.field("value"));
        if name.starts_with(SYSTEM_PREFIX) {
            let why = match SYSTEM_CLASSES.iter().find(|(known, _)| *known == name) {
                None => Some(format!("{name} is not a known system priority class")),
                Some((_, known)) if *known != value.number() => {
                    Some(format!("value of {name} PriorityClass must be {known}"))
                }
                Some(_) if object.flag("globalDefault") => {
                    Some(format!("globalDefault of {name} PriorityClass must be false"))
                }
                Some(_) => None,
            };
            if let Some(why) = why {
                object.field("metadata.name").forbidden(&format!(
                    "priority class names with '{SYSTEM_PREFIX}' prefix are reserved for system use only. error: {why}"
                ));
            }
        } else if value.number() > USER_PRIORITY_MAX {
            let detail = format!("maximum allowed value of a user defined priority is {USER_PRIORITY_MAX}");
            value.forbidden(&detail);
        }
        object.field("preemptionPolicy").one_of(&["PreemptLowerPriority", "Never"]);
    }

    fn check_update(&self, new: &At, old: &Value, _context: &WriteContext) {
        if new.int("value") != old.int("value") {
            new.field("value").forbidden("may not be changed in an update.");
        }
        new.fixed(old, &["preemptionPolicy"]);
    }
}

/// What is special about runtime classes.
pub struct RuntimeClass;

impl Strategy for RuntimeClass {
    fn check(&self, object: &At) {
        object.field("handler").name(names::dns1123_label);
        resources::check_list(&object.field("overhead.podFixed"));
        object.field("scheduling.nodeSelector").labels();
        pod_spec::check_tolerations(&object.field("scheduling.tolerations"));
    }

    fn check_update(&self, new: &At, old: &Value, _context: &WriteContext) {
        new.fixed(old, &["handler"]);
    }
}
