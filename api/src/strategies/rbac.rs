//! Roles and what binds them to subjects. Whether a writer may grant what is in them is not decided here.

use serde_json::{Value, json};

use crate::{
    Strategy, WriteContext,
    at::At,
    field::{Look, Touch},
    names, selector,
};

const GROUP: &str = "rbac.authorization.k8s.io";

/// Roles and cluster roles.
pub struct Role {
    /// Whether it is a role of a namespace.
    pub is_namespaced: bool,
}

impl Strategy for Role {
    fn set_defaults(&self, object: &mut Value) {
        // Readers expect the list, even when it is empty.
        object.default_to("rules", json!([]));
    }

    fn check(&self, object: &At) {
        object.each("rules", |rule| policy_rule(rule, self.is_namespaced));
        if object.at("aggregationRule").is_some() {
            let selectors = object.field("aggregationRule.clusterRoleSelectors");
            selectors.filled("at least one clusterRoleSelector required if aggregationRule is non-nil");
            selectors.elements().for_each(|selector| selector::check(&selector));
        }
    }
}

fn policy_rule(rule: &At, is_namespaced: bool) {
    rule.field("verbs").filled("verbs must contain at least one value");
    let urls = rule.field("nonResourceURLs");
    if urls.is_empty() {
        rule.field("apiGroups").filled("resource rules must supply at least one api group");
        return rule.field("resources").filled("resource rules must supply at least one resource");
    }
    if is_namespaced {
        urls.invalid("namespaced rules cannot apply to non-resource URLs");
    }
    if ["apiGroups", "resources", "resourceNames"].iter().any(|name| !rule.items(name).is_empty()) {
        urls.invalid("rules cannot apply to both regular resources and non-resource URLs");
    }
}

/// Role bindings and cluster role bindings.
pub struct Binding {
    /// Whether it binds within a namespace.
    pub is_namespaced: bool,
}

impl Strategy for Binding {
    fn set_defaults(&self, object: &mut Value) {
        object.inside("roleRef", |role| role.default_text("apiGroup", GROUP));
        object.each_inside("subjects", |subject| {
            if ["User", "Group"].contains(&subject.text("kind")) {
                subject.default_text("apiGroup", GROUP);
            }
        });
    }

    fn check(&self, object: &At) {
        let role = object.field("roleRef");
        role.field("apiGroup").among(&[GROUP]);
        role.field("kind").among(if self.is_namespaced {
            &["Role", "ClusterRole"]
        } else {
            &["ClusterRole"]
        });
        role.field("name").name(names::path_segment);
        object.each("subjects", |subject| self.subject(subject));
    }

    fn check_update(&self, new: &At, old: &Value, _context: &WriteContext) {
        if new.get("roleRef") != old.get("roleRef") {
            new.field("roleRef").invalid("cannot change roleRef");
        }
    }
}

impl Binding {
    fn subject(&self, subject: &At) {
        let (kind, name, group) = (subject.field("kind"), subject.field("name"), subject.field("apiGroup"));
        name.filled("");
        match kind.str() {
            "ServiceAccount" => {
                name.name_or_none(names::dns1123_subdomain);
                group.among(&[""]);
                if !self.is_namespaced {
                    subject.field("namespace").filled("");
                }
            }
            "User" | "Group" => group.among(&[GROUP]),
            _ => kind.not_supported(&["ServiceAccount", "User", "Group"]),
        }
    }
}
