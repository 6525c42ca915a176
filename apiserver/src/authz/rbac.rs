//! Role-based access control: rights from Role, ClusterRole and their bindings.
//!
//! Decisions come from an index by subject that takes over what changes in the four rows. A ClusterRole that aggregates
//! others grants the union of their rules, whether or not its stored `rules` have been brought up to date.
//! Roles and bindings that were written before a request count for it: a refusal is checked against the newest state.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::{RwLock, RwLockWriteGuard};
use serde::Deserialize;
use serde_json::Value;
use store::Revision;

use super::rbac_index::{Index, ROWS};
use super::{Attributes, Authorizer, Decision};
use crate::auth::UserInfo;
use crate::http::request_info::RequestInfo;
use crate::objects::Objects;

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
    /// The rule as roles and reviews hold it: without the lists that say nothing.
    pub(crate) fn to_json(&self) -> Value {
        let fields = [
            ("verbs", &self.verbs),
            ("apiGroups", &self.api_groups),
            ("resources", &self.resources),
            ("resourceNames", &self.resource_names),
            ("nonResourceURLs", &self.non_resource_urls),
        ];
        let said = fields.into_iter().filter(|(name, list)| *name == "verbs" || !list.is_empty());
        said.map(|(name, list)| (name.to_string(), Value::from(list.clone()))).collect()
    }

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

/// The authorizer.
pub struct Rbac {
    objects: Objects,
    index: RwLock<([Revision; 4], Index)>,
}

impl Rbac {
    /// Reads roles and bindings from the cache.
    pub fn new(objects: Objects) -> Self {
        Self { objects, index: RwLock::default() }
    }

    /// Every rule that a user has in a namespace, for `SelfSubjectRulesReview` and for escalation checks.
    pub fn rules_of(&self, user: &UserInfo, namespace: &str) -> Vec<Rule> {
        self.ask(|index| {
            let here = index.grants_of(user).filter(|(grant, _)| grant.reaches(namespace));
            here.flat_map(|(_, rules)| rules.iter().cloned()).collect()
        })
    }

    /// The rules of a role by its kind; `None` when there is no such role.
    pub fn rules_of_role(&self, kind: &str, namespace: &str, name: &str) -> Option<Arc<[Rule]>> {
        self.ask(|index| index.rules_of_role(kind, namespace, name).cloned())
    }

    /// Waits until the index can know what was committed before the call.
    pub async fn catch_up(&self) {
        self.objects.catch_up().await;
    }

    fn revisions(&self) -> [Revision; 4] {
        ROWS.map(|row| self.objects.revision_of(row))
    }

    /// Puts a question to the index, which is brought up to date first.
    fn ask<T>(&self, question: impl FnOnce(&Index) -> T) -> T {
        let now = self.revisions();
        let kept = self.index.read();
        if kept.0 == now {
            return question(&kept.1);
        }
        drop(kept);
        let mut kept = self.index.write();
        // Read before the changes: what comes in between is taken over once more, which does no harm.
        kept.0 = self.revisions();
        kept.1.follow(&self.objects);
        question(&RwLockWriteGuard::downgrade(kept).1)
    }

    fn allows(&self, attributes: &Attributes<'_>) -> Option<String> {
        let info = attributes.info;
        let namespace = if info.is_resource { info.namespace.as_str() } else { "" };
        self.ask(|index| {
            let mut here = index.grants_of(attributes.user).filter(|(grant, _)| grant.reaches(namespace));
            let (grant, _) = here.find(|(_, rules)| rules.iter().any(|rule| rule.allows(info)))?;
            Some(format!("RBAC: allowed by {}", grant.why()))
        })
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

/// The rules of a role's `rules` field.
pub(crate) fn rules_in(rules: Option<&Value>) -> Vec<Rule> {
    let rules = rules.and_then(Value::as_array).into_iter().flatten();
    rules.filter_map(|rule| Rule::deserialize(rule).ok()).collect()
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
