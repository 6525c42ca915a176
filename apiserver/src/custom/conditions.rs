//! What a definition's status says. Pure.

use api::field::Look;
use serde_json::{Value, json};

use crate::tree::set as set_at;

/// Whether the definition's names are its own, so that its resource is served.
pub(super) fn is_accepted(definition: &Value) -> bool {
    is(definition, "NamesAccepted")
}

fn is(definition: &Value, condition: &str) -> bool {
    let conditions = definition.get("status").map(|s| s.items("conditions")).unwrap_or_default();
    conditions.iter().any(|c| c.text("type") == condition && c.text("status") == "True")
}

/// The status of a definition.
pub(super) fn status(
    definition: &Value,
    taken: Option<&str>,
    fault: Option<&str>,
    established: bool,
    now: &str,
) -> Value {
    let mut status = definition.get("status").cloned().unwrap_or_else(|| json!({}));
    if !status.is_object() {
        status = json!({});
    }
    let names = definition.pointer("/spec/names").cloned().unwrap_or_default();
    match taken {
        Some(why) => set(&mut status, "NamesAccepted", false, "NotAccepted", why, now),
        None => {
            set_at(&mut status, &["acceptedNames"], accepted_names(names));
            set(&mut status, "NamesAccepted", true, "NoConflicts", "no conflicts found", now);
        }
    }
    match (taken, fault) {
        (None, None) if established => {
            let message = "the initial names have been accepted";
            set(&mut status, "Established", true, "InitialNamesAccepted", message, now);
        }
        (None, None) => {}
        (_, Some(why)) => set(&mut status, "Established", false, "Invalid", why, now),
        (Some(_), None) => {
            let message = "not all names are accepted";
            set(&mut status, "Established", false, "NotAccepted", message, now);
        }
    }
    let versions = definition.get("spec").map(|s| s.items("versions")).unwrap_or_default();
    let storage = versions.iter().find(|v| v.flag("storage")).map(|v| v.text("name")).unwrap_or_default();
    let mut stored = status.items("storedVersions").to_vec();
    if !stored.iter().any(|v| v == storage) {
        stored.push(storage.into());
    }
    set_at(&mut status, &["storedVersions"], stored);
    status
}

fn accepted_names(mut names: Value) -> Value {
    let kind = names.text("kind").to_string();
    if names.text("singular").is_empty() {
        set_at(&mut names, &["singular"], kind.to_lowercase());
    }
    if names.text("listKind").is_empty() {
        set_at(&mut names, &["listKind"], format!("{kind}List"));
    }
    names
}

fn set(status: &mut Value, condition: &str, is_true: bool, reason: &str, message: &str, now: &str) {
    let value = if is_true { "True" } else { "False" };
    let mut list = status.get("conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let since = list
        .iter()
        .find(|c| c.text("type") == condition && c.text("status") == value)
        .map_or(now, |c| c.text("lastTransitionTime"))
        .to_string();
    let new = json!({"type": condition, "status": value, "reason": reason, "message": message, "lastTransitionTime": since});
    match list.iter_mut().find(|c| c.text("type") == condition) {
        Some(old) => *old = new,
        None => list.push(new),
    }
    set_at(status, &["conditions"], list);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_should_be_established_after_its_names_are_accepted() {
        let mut definition = json!({"spec": {"names": {"kind": "Widget", "plural": "widgets"},
            "versions": [{"name": "v1", "served": true, "storage": true}]}});
        definition["status"] = status(&definition, None, None, false, "t1");
        assert!(is_accepted(&definition) && !is(&definition, "Established"));
        assert_eq!(definition["status"]["acceptedNames"]["listKind"], "WidgetList");
        definition["status"] = status(&definition, None, None, true, "t2");
        assert!(is(&definition, "Established"));
        assert_eq!(
            definition["status"]["conditions"][0]["lastTransitionTime"], "t1",
            "what stays keeps its time"
        );
        assert_eq!(definition["status"]["storedVersions"], json!(["v1"]));
        let refused = status(&definition, Some("taken"), None, true, "t3");
        assert_eq!(refused["conditions"][0]["status"], "False");
    }
}
