//! Role-based access control: rights from Role, ClusterRole and their bindings.
//!
//! The four rows are compiled into an index by subject, rebuilt only when one of them has changed. A ClusterRole that
//! aggregates others grants the union of their rules, whether or not its stored `rules` have been brought up to date.

use std::collections::HashMap;
use std::sync::Arc;

use api::selector::LabelSelector;
use async_trait::async_trait;
use parking_lot::RwLock;
use serde::Deserialize;
use serde_json::Value;
use store::Revision;

use super::{Attributes, Authorizer, Decision};
use crate::http::request_info::RequestInfo;
use crate::objects::Objects;

const ROLES: &str = "rbac.authorization.k8s.io/roles";
const ROLE_BINDINGS: &str = "rbac.authorization.k8s.io/rolebindings";
const CLUSTER_ROLES: &str = "rbac.authorization.k8s.io/clusterroles";
const CLUSTER_ROLE_BINDINGS: &str = "rbac.authorization.k8s.io/clusterrolebindings";

/// One rule of a role.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    /// `get`, `list`, … or `*`.
    pub verbs: Vec<String>,
    /// API groups or `*`.
    pub api_groups: Vec<String>,
    /// `pods`, `pods/log`, `*/scale` or `*`.
    pub resources: Vec<String>,
    /// Names; none means any.
    pub resource_names: Vec<String>,
    /// `/healthz`, `/apis/*` or `*`.
    #[serde(rename = "nonResourceURLs")]
    pub non_resource_urls: Vec<String>,
}

impl Rule {
    /// Whether the rule grants what is asked.
    pub fn allows(&self, info: &RequestInfo) -> bool {
        if !has(&self.verbs, info.verb) {
            return false;
        }
        if !info.is_resource {
            return self.non_resource_urls.iter().any(|url| covers_path(url, &info.path));
        }
        has(&self.api_groups, &info.group)
            && self.resources.iter().any(|resource| covers_resource(resource, info))
            && (self.resource_names.is_empty()
                || self.resource_names.iter().any(|name| name == info.authorized_name()))
    }
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == "*" || item == wanted)
}

fn covers_resource(pattern: &str, info: &RequestInfo) -> bool {
    if pattern == "*" {
        return true;
    }
    match pattern.split_once('/') {
        None => info.subresource.is_empty() && pattern == info.resource,
        Some((resource, subresource)) => {
            (resource == "*" || resource == info.resource) && subresource == info.subresource
        }
    }
}

fn covers_path(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => pattern == path,
    }
}

/// Whom a binding names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Subject {
    User(String),
    Group(String),
}

/// Rules that a binding gives to a subject.
#[derive(Clone)]
struct Grant {
    /// `None` is the whole cluster.
    namespace: Option<Arc<str>>,
    rules: Arc<[Rule]>,
    why: Arc<str>,
}

/// All grants, by subject.
#[derive(Default)]
struct Index {
    grants: HashMap<Subject, Vec<Grant>>,
}

/// The authorizer.
pub struct Rbac {
    objects: Objects,
    index: RwLock<([Revision; 4], Arc<Index>)>,
}

impl Rbac {
    /// Reads roles and bindings from the cache.
    pub fn new(objects: Objects) -> Self {
        Self { objects, index: RwLock::new(([0; 4], Arc::default())) }
    }

    /// Every rule that a user has in a namespace, for `SelfSubjectRulesReview` and for escalation checks.
    pub fn rules_of(&self, user: &crate::auth::UserInfo, namespace: &str) -> Vec<Rule> {
        let index = self.index();
        let grants = subjects_of(user).filter_map(|subject| index.grants.get(&subject)).flatten();
        let here = grants.filter(|grant| grant.namespace.as_deref().is_none_or(|place| place == namespace));
        here.flat_map(|grant| grant.rules.iter().cloned()).collect()
    }

    fn index(&self) -> Arc<Index> {
        let now = [ROLES, ROLE_BINDINGS, CLUSTER_ROLES, CLUSTER_ROLE_BINDINGS]
            .map(|row| self.objects.revision_of(row));
        {
            let kept = self.index.read();
            if kept.0 == now {
                return kept.1.clone();
            }
        }
        let built = Arc::new(Index::build(&self.objects));
        *self.index.write() = (now, built.clone());
        built
    }
}

#[async_trait]
impl Authorizer for Rbac {
    async fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        let index = self.index();
        let info = attributes.info;
        for subject in subjects_of(attributes.user) {
            for grant in index.grants.get(&subject).into_iter().flatten() {
                let here = grant.namespace.as_deref().is_none_or(|place| {
                    info.is_resource && !info.namespace.is_empty() && place == info.namespace
                });
                if here && grant.rules.iter().any(|rule| rule.allows(info)) {
                    return Decision::Allow(format!("RBAC: allowed by {}", grant.why));
                }
            }
        }
        Decision::NoOpinion(String::new())
    }
}

fn subjects_of(user: &crate::auth::UserInfo) -> impl Iterator<Item = Subject> + '_ {
    std::iter::once(Subject::User(user.name.clone())).chain(user.groups.iter().cloned().map(Subject::Group))
}

impl Index {
    fn build(objects: &Objects) -> Self {
        let cluster_roles = objects.list(CLUSTER_ROLES, "");
        let mut rules: HashMap<String, Arc<[Rule]>> = HashMap::new();
        for role in &cluster_roles {
            rules.insert(api::object::name(role).to_string(), effective_rules(role, &cluster_roles).into());
        }
        let mut roles: HashMap<(String, String), Arc<[Rule]>> = HashMap::new();
        for role in objects.list(ROLES, "") {
            let key = (api::object::namespace(&role).to_string(), api::object::name(&role).to_string());
            roles.insert(key, own_rules(&role).into());
        }
        let mut index = Self::default();
        for binding in objects.list(CLUSTER_ROLE_BINDINGS, "") {
            let role = role_name(&binding);
            if let Some(rules) = rules.get(role) {
                let why =
                    format!("ClusterRoleBinding {:?} of ClusterRole {role:?}", api::object::name(&binding));
                index.grant(&binding, None, rules, &why);
            }
        }
        for binding in objects.list(ROLE_BINDINGS, "") {
            let (namespace, role) = (api::object::namespace(&binding), role_name(&binding));
            let kind = binding.pointer("/roleRef/kind").and_then(Value::as_str).unwrap_or_default();
            let found = match kind {
                "Role" => roles.get(&(namespace.to_string(), role.to_string())),
                _ => rules.get(role),
            };
            if let Some(rules) = found {
                let name = api::object::name(&binding);
                let why = format!("RoleBinding \"{name}/{namespace}\" of {kind} {role:?}");
                index.grant(&binding, Some(namespace.into()), rules, &why);
            }
        }
        index
    }

    fn grant(&mut self, binding: &Value, namespace: Option<Arc<str>>, rules: &Arc<[Rule]>, why: &str) {
        let why: Arc<str> = why.into();
        for subject in binding.get("subjects").and_then(Value::as_array).into_iter().flatten() {
            let text = |field: &str| subject.get(field).and_then(Value::as_str).unwrap_or_default();
            let subject = match text("kind") {
                "User" => Subject::User(text("name").to_string()),
                "Group" => Subject::Group(text("name").to_string()),
                "ServiceAccount" => {
                    let place = match text("namespace") {
                        "" => namespace.as_deref().unwrap_or_default(),
                        place => place,
                    };
                    Subject::User(format!("system:serviceaccount:{place}:{}", text("name")))
                }
                _ => continue,
            };
            let grant = Grant { namespace: namespace.clone(), rules: rules.clone(), why: why.clone() };
            self.grants.entry(subject).or_default().push(grant);
        }
    }
}

fn role_name(binding: &Value) -> &str {
    binding.pointer("/roleRef/name").and_then(Value::as_str).unwrap_or_default()
}

fn own_rules(role: &Value) -> Vec<Rule> {
    let rules = role.get("rules").and_then(Value::as_array).into_iter().flatten();
    rules.filter_map(|rule| Rule::deserialize(rule).ok()).collect()
}

/// A role's own rules and those of the roles that it aggregates.
fn effective_rules(role: &Value, all: &[Value]) -> Vec<Rule> {
    let mut rules = own_rules(role);
    let selectors = role.pointer("/aggregationRule/clusterRoleSelectors").and_then(Value::as_array);
    for selector in
        selectors.into_iter().flatten().filter_map(|value| LabelSelector::from_object(Some(value)).ok())
    {
        for other in all.iter().filter(|other| api::object::name(other) != api::object::name(role)) {
            if selector.matches_object(other) {
                rules.extend(own_rules(other));
            }
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(verbs: &[&str], groups: &[&str], resources: &[&str]) -> Rule {
        let texts = |list: &[&str]| list.iter().map(|text| text.to_string()).collect();
        Rule {
            verbs: texts(verbs),
            api_groups: texts(groups),
            resources: texts(resources),
            ..Rule::default()
        }
    }

    fn ask(verb: &'static str, resource: &str, subresource: &str) -> RequestInfo {
        RequestInfo {
            is_resource: true,
            verb,
            resource: resource.into(),
            subresource: subresource.into(),
            ..RequestInfo::default()
        }
    }

    #[test]
    fn a_resource_does_not_include_its_subresources() {
        let pods = rule(&["get"], &[""], &["pods"]);
        assert!(pods.allows(&ask("get", "pods", "")));
        assert!(!pods.allows(&ask("get", "pods", "log")));
        assert!(rule(&["get"], &[""], &["pods/log"]).allows(&ask("get", "pods", "log")));
        assert!(rule(&["update"], &["*"], &["*/scale"]).allows(&ask("update", "pods", "scale")));
    }

    #[test]
    fn names_limit_a_rule_and_groups_too() {
        let mut named = rule(&["get"], &["apps"], &["deployments"]);
        named.resource_names = vec!["web".into()];
        let mut asked = ask("get", "deployments", "");
        asked.group = "apps".into();
        assert!(!named.allows(&asked));
        asked.name = "web".into();
        assert!(named.allows(&asked));
        asked.group = "extensions".into();
        assert!(!named.allows(&asked));
    }

    #[test]
    fn paths_are_matched_by_prefix_only_with_a_star() {
        let rule = Rule {
            verbs: vec!["get".into()],
            non_resource_urls: vec!["/apis/*".into(), "/healthz".into()],
            ..Rule::default()
        };
        let path = |path: &str| RequestInfo { verb: "get", path: path.into(), ..RequestInfo::default() };
        assert!(rule.allows(&path("/apis/apps")));
        assert!(rule.allows(&path("/healthz")));
        assert!(!rule.allows(&path("/healthz/etcd")));
    }
}
