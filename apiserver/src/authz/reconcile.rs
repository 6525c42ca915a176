//! Brings the standard roles and bindings of an older cluster up to what this version starts with. Pure.
//!
//! As upstream: what is missing is added, what somebody has added stays, and whoever sets the annotation
//! `rbac.authorization.kubernetes.io/autoupdate` to `false` keeps the object as it is. A binding whose role is another is
//! left alone too: a role reference cannot be changed, and taking rights away is not for a start to do.

use api::field::Look;
use serde_json::Value;

use super::escalation::missing_rules;
use super::rbac::rules_in;

const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// The object with what it lacks of the standard one; `None` when it lacks nothing.
pub(crate) fn reconciled(object: &Value, standard: &Value) -> Option<Value> {
    if object.dig(&["metadata", "annotations", AUTOUPDATE]).is_some_and(|value| value == "false") {
        return None;
    }
    let mut new = object.clone();
    for field in ["labels", "annotations"] {
        for (key, value) in
            standard.dig(&["metadata", field]).and_then(Value::as_object).into_iter().flatten()
        {
            if object.dig(&["metadata", field, key]).is_none() {
                crate::tree::set(&mut new, &["metadata", field, key], value.clone());
            }
        }
    }
    if standard.at("roleRef").is_some() {
        if object.at("roleRef") == standard.at("roleRef") {
            add_missing(&mut new, &["subjects"], standard.items("subjects"));
        }
    } else if let Some(aggregation) = standard.at("aggregationRule") {
        let path = ["aggregationRule", "clusterRoleSelectors"];
        add_missing(&mut new, &path, aggregation.items("clusterRoleSelectors"));
    } else if object.at("aggregationRule").is_none() {
        let missing = missing_rules(&rules_in(object.get("rules")), &rules_in(standard.get("rules")));
        let missing: Vec<Value> = missing.into_iter().map(|rule| rule.to_json()).collect();
        add_missing(&mut new, &["rules"], &missing);
    }
    (new != *object).then_some(new)
}

fn add_missing(object: &mut Value, path: &[&str], wanted: &[Value]) {
    let mut list = object.dig(path).and_then(Value::as_array).cloned().unwrap_or_default();
    let missing: Vec<Value> = wanted.iter().filter(|one| !list.contains(one)).cloned().collect();
    if !missing.is_empty() {
        list.extend(missing);
        crate::tree::set(object, path, list);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn role(rules: Value) -> Value {
        json!({"kind": "ClusterRole", "metadata": {"name": "r", "annotations": {AUTOUPDATE: "true"}}, "rules": rules})
    }

    #[test]
    fn missing_rules_are_added_and_others_stay() {
        let standard =
            role(json!([{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "nodes"]}]));
        let older = role(json!([{"verbs": ["get", "eat"], "apiGroups": [""], "resources": ["pods"]}]));
        let new = reconciled(&older, &standard).unwrap();
        let expected = json!([
            {"verbs": ["get", "eat"], "apiGroups": [""], "resources": ["pods"]},
            {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["nodes"]},
            {"verbs": ["list"], "apiGroups": [""], "resources": ["pods"]},
        ]);
        assert_eq!(new["rules"], expected);
        assert_eq!(reconciled(&new, &standard), None, "once is enough");
        let wider = role(json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]));
        assert_eq!(reconciled(&wider, &standard), None);
    }

    #[test]
    fn who_opts_out_is_left_alone() {
        let mut older = role(json!([]));
        older["metadata"]["annotations"][AUTOUPDATE] = "false".into();
        let standard = role(json!([{"verbs": ["get"], "nonResourceURLs": ["/healthz"]}]));
        assert_eq!(reconciled(&older, &standard), None);
    }

    #[test]
    fn bindings_get_their_subjects_back_but_never_another_role() {
        let binding = |role: &str, subjects: Value| json!({"metadata": {"name": "b"}, "roleRef": {"name": role}, "subjects": subjects});
        let standard = binding("view", json!([{"kind": "User", "name": "a"}, {"kind": "User", "name": "b"}]));
        let new = reconciled(&binding("view", json!([{"kind": "User", "name": "c"}])), &standard).unwrap();
        let names: Vec<&str> = new.items("subjects").iter().map(|subject| subject.text("name")).collect();
        assert_eq!(names, ["c", "a", "b"]);
        assert_eq!(reconciled(&binding("edit", json!([])), &standard), None);
    }

    #[test]
    fn aggregating_roles_get_selectors_labels_and_no_rules() {
        let standard = json!({"metadata": {"name": "edit", "labels": {"l": "1"}}, "rules": [{"verbs": ["get"]}],
            "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"to-edit": "true"}}]}});
        let new = reconciled(&json!({"metadata": {"name": "edit"}, "rules": []}), &standard).unwrap();
        assert_eq!(new["aggregationRule"], standard["aggregationRule"]);
        assert_eq!((&new["metadata"]["labels"]["l"], &new["rules"]), (&json!("1"), &json!([])));
    }
}
