//! How much the audit log says of which request: upstream's `audit.k8s.io/v1 Policy`, of which the first rule that matches
//! decides. A request that no rule matches is not logged.

use schema::decode::{Limits, yaml};
use serde::Deserialize;

use crate::auth::UserInfo;
use crate::http::request_info::RequestInfo;

/// A policy that cannot be used. It has to be corrected.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct AuditPolicyError(String);

/// How much is said.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
pub enum AuditLevel {
    /// Nothing.
    None,
    /// Who, what, when, and how it ended.
    Metadata,
    /// What was sent, too.
    Request,
    /// What was answered, too.
    RequestResponse,
}

/// A moment in a request's life.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub(crate) enum Stage {
    RequestReceived,
    ResponseStarted,
    ResponseComplete,
    Panic,
}

/// A policy.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuditPolicy {
    api_version: String,
    kind: String,
    #[serde(rename = "metadata", default)]
    _metadata: serde_json::Value,
    rules: Vec<Rule>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: bool,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    level: AuditLevel,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<Resources>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: Option<bool>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Resources {
    #[serde(default)]
    group: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
}

/// What a policy says about one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    pub level: AuditLevel,
    pub omitted: Vec<Stage>,
    pub omit_managed_fields: bool,
}

impl AuditPolicy {
    /// Reads a policy file.
    pub fn read(text: &str) -> Result<Self, AuditPolicyError> {
        let fault = |why: &dyn std::fmt::Display| AuditPolicyError(why.to_string());
        let tree = yaml(text.as_bytes(), &Limits::default()).map_err(|error| fault(&error))?;
        let policy: Self = serde_json::from_value(tree.value).map_err(|error| fault(&error))?;
        if policy.kind != "Policy" || policy.api_version != "audit.k8s.io/v1" {
            return Err(fault(&"it is no Policy of audit.k8s.io/v1"));
        }
        if policy.rules.is_empty() {
            return Err(fault(&"it has no rules, so that nothing would be logged"));
        }
        Ok(policy)
    }

    /// What is said of a request.
    pub(crate) fn decide(&self, user: &UserInfo, info: &RequestInfo) -> Decision {
        let rule = self.rules.iter().find(|rule| rule.matches(user, info));
        let mut omitted = self.omit_stages.clone();
        omitted.extend(rule.iter().flat_map(|rule| rule.omit_stages.iter().copied()));
        Decision {
            level: rule.map_or(AuditLevel::None, |rule| rule.level),
            omitted,
            omit_managed_fields: rule
                .and_then(|rule| rule.omit_managed_fields)
                .unwrap_or(self.omit_managed_fields),
        }
    }
}

/// Whether a list that says nothing, or the wanted, is there.
fn open_or_has(list: &[String], wanted: &str) -> bool {
    list.is_empty() || list.iter().any(|item| item == wanted)
}

impl Rule {
    fn matches(&self, user: &UserInfo, info: &RequestInfo) -> bool {
        let groups = self.user_groups.is_empty() || self.user_groups.iter().any(|group| user.is_in(group));
        let about_paths = !self.non_resource_urls.is_empty();
        let about_resources = !self.resources.is_empty() || !self.namespaces.is_empty();
        let what = match info.is_resource {
            true => {
                !about_paths
                    && open_or_has(&self.namespaces, &info.namespace)
                    && (self.resources.is_empty() || self.resources.iter().any(|r| r.matches(info)))
            }
            false => {
                let covers = |url: &String| match url.strip_suffix('*') {
                    Some(prefix) => info.path.starts_with(prefix),
                    None => *url == info.path,
                };
                !about_resources && (!about_paths || self.non_resource_urls.iter().any(covers))
            }
        };
        what && groups && open_or_has(&self.users, &user.name) && open_or_has(&self.verbs, info.verb)
    }
}

impl Resources {
    fn matches(&self, info: &RequestInfo) -> bool {
        let resource = |pattern: &String| match pattern.split_once('/') {
            None => pattern == "*" || info.subresource.is_empty() && *pattern == info.resource,
            Some((resource, subresource)) => {
                (resource == "*" || resource == info.resource)
                    && (subresource == "*" && !info.subresource.is_empty() || subresource == info.subresource)
            }
        };
        self.group == info.group
            && (self.resources.is_empty() || self.resources.iter().any(resource))
            && open_or_has(&self.resource_names, &info.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  users: ["system:kube-proxy"]
  verbs: [watch]
- level: Metadata
  resources: [{group: "", resources: [secrets, "pods/*"]}]
- level: Request
  resources: [{group: apps, resources: [deployments], resourceNames: [web]}]
  omitManagedFields: true
- level: None
  nonResourceURLs: ["/healthz*", /version]
- level: RequestResponse
  namespaces: [team]
  userGroups: [developers]
- level: Metadata
  omitStages: [ResponseStarted]
"#;

    fn ask(verb: &'static str, group: &str, resource: &str, name: &str) -> RequestInfo {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        RequestInfo {
            is_resource: true,
            verb,
            group: group.into(),
            resource: resource.into(),
            subresource: subresource.into(),
            name: name.into(),
            namespace: "team".into(),
            ..RequestInfo::default()
        }
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let policy = AuditPolicy::read(POLICY).unwrap();
        let dev = UserInfo::new("ada", &["developers"]);
        let other = UserInfo::new("system:kube-proxy", &[]);
        let path = |path: &str| RequestInfo { verb: "get", path: path.into(), ..RequestInfo::default() };
        for (user, info, level) in [
            (&other, ask("watch", "", "services", ""), AuditLevel::None),
            (&other, ask("list", "", "services", ""), AuditLevel::Metadata),
            (&dev, ask("get", "", "secrets", "s"), AuditLevel::Metadata),
            (&dev, ask("create", "", "pods/exec", "p"), AuditLevel::Metadata),
            (&dev, ask("get", "", "pods", "p"), AuditLevel::RequestResponse),
            (&dev, ask("patch", "apps", "deployments", "web"), AuditLevel::Request),
            (&other, ask("patch", "apps", "deployments", "api"), AuditLevel::Metadata),
            (&dev, path("/healthz/etcd"), AuditLevel::None),
            (&dev, path("/version/x"), AuditLevel::Metadata),
        ] {
            assert_eq!(policy.decide(user, &info).level, level, "{info:?}");
        }
        let said = policy.decide(&other, &path("/x"));
        assert_eq!(said.omitted, [Stage::RequestReceived, Stage::ResponseStarted]);
        assert!(policy.decide(&dev, &ask("patch", "apps", "deployments", "web")).omit_managed_fields);
    }

    #[test]
    fn a_policy_that_says_nothing_or_nonsense_is_refused() {
        for (text, told) in [
            ("{kind: Policy, apiVersion: audit.k8s.io/v1, rules: []}", "no rules"),
            ("{kind: Pod, apiVersion: v1, rules: [{level: None}]}", "no Policy"),
            ("{kind: Policy, apiVersion: audit.k8s.io/v1, rules: [{level: Everything}]}", "unknown variant"),
            (
                "{kind: Policy, apiVersion: audit.k8s.io/v1, rules: [{level: None, user: [a]}]}",
                "unknown field",
            ),
        ] {
            let error = AuditPolicy::read(text).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }
}
