//! Role-based access control: rights from Role, ClusterRole and their bindings.
//!
//! The four rows are compiled into an index by subject, rebuilt only when one of them has changed. A ClusterRole that
//! aggregates others grants the union of their rules, whether or not its stored `rules` have been brought up to date.
//! Roles and bindings that were written before a request count for it: a refusal is checked against the newest state.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use api::selector::LabelSelector;
use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};
use serde::Deserialize;
use serde_json::Value;
use store::Revision;

use super::{Attributes, Authorizer, Decision};
use crate::auth::UserInfo;
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
        if !has(&self.verbs, info.authorized_verb()) {
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

/// Rules that a binding gives to a subject.
#[derive(Clone)]
struct Grant {
    /// `None` is the whole cluster.
    namespace: Option<Arc<str>>,
    rules: Arc<[Rule]>,
    why: Arc<str>,
}

impl Grant {
    fn reaches(&self, namespace: &str) -> bool {
        self.namespace.as_deref().is_none_or(|place| !namespace.is_empty() && place == namespace)
    }
}

/// All grants, by whom the bindings name, and the rules of all roles.
#[derive(Default)]
struct Index {
    users: HashMap<String, Vec<Grant>>,
    groups: HashMap<String, Vec<Grant>>,
    cluster_roles: HashMap<String, Arc<[Rule]>>,
    /// By namespace and name.
    roles: HashMap<(String, String), Arc<[Rule]>>,
}

/// The authorizer.
pub struct Rbac {
    objects: Objects,
    index: RwLock<([Revision; 4], Arc<Index>)>,
    /// Held by the one that builds a new index.
    building: Mutex<()>,
}

impl Rbac {
    /// Reads roles and bindings from the cache.
    pub fn new(objects: Objects) -> Self {
        Self { objects, index: RwLock::new(([0; 4], Arc::default())), building: Mutex::new(()) }
    }

    /// Every rule that a user has in a namespace, for `SelfSubjectRulesReview` and for escalation checks.
    pub fn rules_of(&self, user: &UserInfo, namespace: &str) -> Vec<Rule> {
        let index = self.index();
        let here = index.grants_of(user).filter(|grant| grant.reaches(namespace));
        here.flat_map(|grant| grant.rules.iter().cloned()).collect()
    }

    /// The rules of a role by its kind; `None` when there is no such role.
    pub fn rules_of_role(&self, kind: &str, namespace: &str, name: &str) -> Option<Arc<[Rule]>> {
        let index = self.index();
        match kind {
            "Role" => index.roles.get(&(namespace.to_string(), name.to_string())).cloned(),
            _ => index.cluster_roles.get(name).cloned(),
        }
    }

    /// Waits until the index can know what was committed before the call.
    pub async fn catch_up(&self) {
        self.objects.catch_up().await;
    }

    fn revisions(&self) -> [Revision; 4] {
        [ROLES, ROLE_BINDINGS, CLUSTER_ROLES, CLUSTER_ROLE_BINDINGS].map(|row| self.objects.revision_of(row))
    }

    fn index(&self) -> Arc<Index> {
        let now = self.revisions();
        let fresh = |kept: &([Revision; 4], Arc<Index>)| (kept.0 == now).then(|| kept.1.clone());
        if let Some(index) = fresh(&self.index.read()) {
            return index;
        }
        let _one_at_a_time = self.building.lock();
        if let Some(index) = fresh(&self.index.read()) {
            return index;
        }
        let now = self.revisions();
        let built = Arc::new(Index::build(&self.objects));
        *self.index.write() = (now, built.clone());
        built
    }

    fn allows(&self, attributes: &Attributes<'_>) -> Option<String> {
        let index = self.index();
        let info = attributes.info;
        let namespace = if info.is_resource { info.namespace.as_str() } else { "" };
        let mut here = index.grants_of(attributes.user).filter(|grant| grant.reaches(namespace));
        let grant = here.find(|grant| grant.rules.iter().any(|rule| rule.allows(info)))?;
        Some(format!("RBAC: allowed by {}", grant.why))
    }
}

#[async_trait]
impl Authorizer for Rbac {
    async fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        if let Some(why) = self.allows(attributes) {
            return Decision::Allow(why);
        }
        // A role or binding may have been made a moment ago. Only refusals wait for that.
        let known = self.revisions();
        self.catch_up().await;
        if known != self.revisions()
            && let Some(why) = self.allows(attributes)
        {
            return Decision::Allow(why);
        }
        Decision::NoOpinion(String::new())
    }
}

impl Index {
    fn build(objects: &Objects) -> Self {
        let mut index = Self::default();
        let cluster_roles = objects.list(CLUSTER_ROLES, "");
        for role in &cluster_roles {
            let mut rules = Vec::new();
            gather(role, &cluster_roles, &mut HashSet::new(), &mut rules);
            index.cluster_roles.insert(api::object::name(role).to_string(), rules.into());
        }
        for role in objects.list(ROLES, "") {
            let key = (api::object::namespace(&role).to_string(), api::object::name(&role).to_string());
            index.roles.insert(key, own_rules(&role).into());
        }
        for binding in objects.list(CLUSTER_ROLE_BINDINGS, "") {
            let role = role_name(&binding);
            if let Some(rules) = index.cluster_roles.get(role).cloned() {
                let name = api::object::name(&binding);
                let why = format!("ClusterRoleBinding {name:?} of ClusterRole {role:?}");
                index.grant(&binding, None, &rules, &why);
            }
        }
        for binding in objects.list(ROLE_BINDINGS, "") {
            let (namespace, role) = (api::object::namespace(&binding), role_name(&binding));
            let kind = binding.pointer("/roleRef/kind").and_then(Value::as_str).unwrap_or_default();
            let found = match kind {
                "Role" => index.roles.get(&(namespace.to_string(), role.to_string())),
                _ => index.cluster_roles.get(role),
            };
            if let Some(rules) = found.cloned() {
                let name = api::object::name(&binding);
                let why = format!("RoleBinding \"{name}/{namespace}\" of {kind} {role:?}");
                index.grant(&binding, Some(namespace.into()), &rules, &why);
            }
        }
        index
    }

    fn grants_of<'a>(&'a self, user: &'a UserInfo) -> impl Iterator<Item = &'a Grant> {
        let by_group = user.groups.iter().filter_map(|group| self.groups.get(group)).flatten();
        self.users.get(&user.name).into_iter().flatten().chain(by_group)
    }

    fn grant(&mut self, binding: &Value, namespace: Option<Arc<str>>, rules: &Arc<[Rule]>, why: &str) {
        for subject in binding.get("subjects").and_then(Value::as_array).into_iter().flatten() {
            let text = |field: &str| subject.get(field).and_then(Value::as_str).unwrap_or_default();
            let (map, name) = match text("kind") {
                "User" => (&mut self.users, text("name").to_string()),
                "Group" => (&mut self.groups, text("name").to_string()),
                "ServiceAccount" => {
                    let place = match text("namespace") {
                        "" => namespace.as_deref().unwrap_or_default(),
                        place => place,
                    };
                    (&mut self.users, format!("system:serviceaccount:{place}:{}", text("name")))
                }
                _ => continue,
            };
            let why = format!("{why} to {} {:?}", text("kind"), shown(subject));
            let grant = Grant { namespace: namespace.clone(), rules: rules.clone(), why: why.into() };
            map.entry(name).or_default().push(grant);
        }
    }
}

/// A subject's name as reasons show it.
fn shown(subject: &Value) -> String {
    let text = |field: &str| subject.get(field).and_then(Value::as_str).unwrap_or_default();
    match text("namespace") {
        "" => text("name").to_string(),
        namespace => format!("{}/{namespace}", text("name")),
    }
}

fn role_name(binding: &Value) -> &str {
    binding.pointer("/roleRef/name").and_then(Value::as_str).unwrap_or_default()
}

fn own_rules(role: &Value) -> Vec<Rule> {
    rules_in(role.get("rules"))
}

/// The rules of a role's `rules` field.
pub(crate) fn rules_in(rules: Option<&Value>) -> Vec<Rule> {
    let rules = rules.and_then(Value::as_array).into_iter().flatten();
    rules.filter_map(|rule| Rule::deserialize(rule).ok()).collect()
}

/// A role's own rules; or, when it aggregates others, theirs, whatever its stored `rules` still say.
fn gather<'a>(role: &'a Value, all: &'a [Value], seen: &mut HashSet<&'a str>, rules: &mut Vec<Rule>) {
    if !seen.insert(api::object::name(role)) {
        return;
    }
    let Some(aggregation) = role.get("aggregationRule").filter(|rule| !rule.is_null()) else {
        return rules.extend(own_rules(role));
    };
    let selectors = aggregation.get("clusterRoleSelectors").and_then(Value::as_array).into_iter().flatten();
    for selector in selectors.filter_map(|value| LabelSelector::from_object(Some(value)).ok()) {
        for other in all.iter().filter(|other| selector.matches_object(other)) {
            gather(other, all, seen, rules);
        }
    }
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
