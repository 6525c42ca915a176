//! Roles and what binds them to subjects. Whether a writer may grant what is in them is not decided here.

use serde_json::{Value, json};

use crate::{
    FieldError, Strategy, WriteContext,
    field::{Errors, Look, Path, PathExt, Touch},
    names::{self, NameRule},
    selector,
};

const GROUP: &str = "rbac.authorization.k8s.io";

/// Roles and cluster roles.
pub struct Role {
    /// Whether it is a role of a namespace.
    pub is_namespaced: bool,
}

impl Strategy for Role {
    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn set_defaults(&self, object: &mut Value) {
        // Readers expect the list, even when it is empty.
        object.default_to("rules", json!([]));
    }

    fn allows_create_on_update(&self) -> bool {
        true
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let rules = Path::ROOT.field("rules");
        for (index, rule) in object.items("rules").iter().enumerate() {
            policy_rule(&mut errors, &rules.index(index), rule, self.is_namespaced);
        }
        if let Some(aggregation) = object.at("aggregationRule") {
            let path = Path::ROOT.field("aggregationRule.clusterRoleSelectors");
            let selectors = aggregation.items("clusterRoleSelectors");
            if selectors.is_empty() {
                let detail = "at least one clusterRoleSelector required if aggregationRule is non-nil";
                errors.required(&path, detail);
            }
            for (index, selector) in selectors.iter().enumerate() {
                selector::validate_object(&mut errors, &path.index(index), selector);
            }
        }
        errors.into_vec()
    }
}

fn policy_rule(errors: &mut Errors, path: &Path, rule: &Value, is_namespaced: bool) {
    if rule.items("verbs").is_empty() {
        errors.required(&path.field("verbs"), "verbs must contain at least one value");
    }
    let urls = rule.items("nonResourceURLs");
    if urls.is_empty() {
        for (name, detail) in [
            ("apiGroups", "resource rules must supply at least one api group"),
            ("resources", "resource rules must supply at least one resource"),
        ] {
            if rule.items(name).is_empty() {
                errors.required(&path.field(name), detail);
            }
        }
        return;
    }
    let path = path.field("nonResourceURLs");
    if is_namespaced {
        errors.invalid(&path, urls.to_vec(), "namespaced rules cannot apply to non-resource URLs");
    }
    if ["apiGroups", "resources", "resourceNames"].iter().any(|name| !rule.items(name).is_empty()) {
        let detail = "rules cannot apply to both regular resources and non-resource URLs";
        errors.invalid(&path, urls.to_vec(), detail);
    }
}

/// Role bindings and cluster role bindings.
pub struct Binding {
    /// Whether it binds within a namespace.
    pub is_namespaced: bool,
}

impl Strategy for Binding {
    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn set_defaults(&self, object: &mut Value) {
        if let Some(role) = object.get_mut("roleRef").filter(|r| r.is_object()) {
            role.default_text("apiGroup", GROUP);
        }
        for subject in object.items_mut("subjects") {
            if ["User", "Group"].contains(&subject.text("kind")) {
                subject.default_text("apiGroup", GROUP);
            }
        }
    }

    fn allows_create_on_update(&self) -> bool {
        true
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Errors::new();
        let path = Path::ROOT.field("roleRef");
        let role = object.get("roleRef").unwrap_or(&Value::Null);
        if role.text("apiGroup") != GROUP {
            errors.not_supported(&path.field("apiGroup"), role.text("apiGroup"), &[GROUP]);
        }
        let kinds: &[&str] = if self.is_namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
        if !kinds.contains(&role.text("kind")) {
            errors.not_supported(&path.field("kind"), role.text("kind"), kinds);
        }
        let name = role.text("name");
        if name.is_empty() {
            errors.required(&path.field("name"), "");
        } else {
            errors.invalid_each(&path.field("name"), name, names::path_segment(name));
        }
        let subjects = Path::ROOT.field("subjects");
        for (index, subject) in object.items("subjects").iter().enumerate() {
            self.subject(&mut errors, &subjects.index(index), subject);
        }
        errors.into_vec()
    }

    fn validate_update(&self, new: &Value, old: &Value, _context: &WriteContext) -> Vec<FieldError> {
        let mut errors = Errors::new();
        if new.get("roleRef") != old.get("roleRef") {
            let role = new.get("roleRef").cloned().unwrap_or_default();
            errors.invalid(&Path::ROOT.field("roleRef"), role, "cannot change roleRef");
        }
        errors.into_vec()
    }
}

impl Binding {
    fn subject(&self, errors: &mut Errors, path: &Path, subject: &Value) {
        let (name, group) = (subject.text("name"), subject.text("apiGroup"));
        if name.is_empty() {
            errors.required(&path.field("name"), "");
        }
        match subject.text("kind") {
            "ServiceAccount" => {
                if !name.is_empty() {
                    errors.invalid_each(&path.field("name"), name, names::dns1123_subdomain(name));
                }
                if !group.is_empty() {
                    errors.not_supported(&path.field("apiGroup"), group, &[""]);
                }
                if !self.is_namespaced && subject.text("namespace").is_empty() {
                    errors.required(&path.field("namespace"), "");
                }
            }
            "User" | "Group" if group != GROUP => {
                errors.not_supported(&path.field("apiGroup"), group, &[GROUP]);
            }
            "User" | "Group" => {}
            other => errors.not_supported(&path.field("kind"), other, &["ServiceAccount", "User", "Group"]),
        }
    }
}
