//! To which priority level a request belongs, and to which flow in it: the flow schemas, in the order of their precedence.

use std::sync::Arc;

use api::field::Look;
use serde_json::Value;

use super::tally::Tally;
use crate::auth::UserInfo;
use crate::http::request_info::RequestInfo;

/// A flow schema.
#[derive(Debug)]
pub(super) struct Schema {
    pub name: String,
    pub uid: String,
    /// The priority level.
    pub level: String,
    /// What is counted of its requests.
    pub tally: Arc<Tally>,
    precedence: i64,
    flows: Flows,
    rules: Vec<Rule>,
}

/// What sets the flows of a schema apart.
#[derive(Debug)]
enum Flows {
    One,
    ByUser,
    ByNamespace,
}

#[derive(Debug)]
struct Rule {
    subjects: Vec<Subject>,
    resources: Vec<ResourceRule>,
    paths: Vec<(Vec<String>, Vec<String>)>,
}

#[derive(Debug)]
enum Subject {
    User(String),
    Group(String),
    /// As authenticators name it, or the beginning of that.
    Account(String),
    AccountsOf(String),
}

#[derive(Debug)]
struct ResourceRule {
    verbs: Vec<String>,
    groups: Vec<String>,
    resources: Vec<String>,
    namespaces: Vec<String>,
    cluster: bool,
}

/// All schemas, the first to match first. Those that were there before go on counting.
pub(super) fn read_all(schemas: &[Value], before: &[Schema]) -> Vec<Schema> {
    let mut all: Vec<Schema> = schemas.iter().map(|schema| Schema::read(schema, before)).collect();
    all.sort_by(|one, other| (one.precedence, &one.name).cmp(&(other.precedence, &other.name)));
    all
}

fn texts(value: &Value, field: &str) -> Vec<String> {
    value.items(field).iter().filter_map(|item| item.as_str().map(str::to_string)).collect()
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == "*" || item == wanted)
}

impl Schema {
    fn read(object: &Value, before: &[Self]) -> Self {
        let name = api::object::name(object);
        let known = before.iter().find(|schema| schema.name == name);
        let spec = object.get("spec").unwrap_or(&Value::Null);
        let inner =
            |field: &str, name: &str| spec.at(field).map(|v| v.text(name).to_string()).unwrap_or_default();
        Self {
            name: name.to_string(),
            tally: known.map(|known| known.tally.clone()).unwrap_or_default(),
            uid: api::object::metadata(object, "uid").unwrap_or_default().to_string(),
            level: inner("priorityLevelConfiguration", "name"),
            precedence: spec.int("matchingPrecedence").unwrap_or(1000),
            flows: match inner("distinguisherMethod", "type").as_str() {
                "ByUser" => Flows::ByUser,
                "ByNamespace" => Flows::ByNamespace,
                _ => Flows::One,
            },
            rules: spec.items("rules").iter().map(Rule::read).collect(),
        }
    }

    pub fn matches(&self, user: &UserInfo, info: &RequestInfo) -> bool {
        self.rules.iter().any(|rule| rule.matches(user, info))
    }

    /// The flow of a request.
    pub fn flow_of(&self, user: &UserInfo, info: &RequestInfo) -> String {
        let by = match self.flows {
            Flows::One => "",
            Flows::ByUser => user.name.as_str(),
            Flows::ByNamespace => info.namespace.as_str(),
        };
        format!("{}/{by}", self.name)
    }
}

impl Rule {
    fn read(rule: &Value) -> Self {
        let resource = |rule: &Value| ResourceRule {
            verbs: texts(rule, "verbs"),
            groups: texts(rule, "apiGroups"),
            resources: texts(rule, "resources"),
            namespaces: texts(rule, "namespaces"),
            cluster: rule.flag("clusterScope"),
        };
        Self {
            subjects: rule.items("subjects").iter().filter_map(Subject::read).collect(),
            resources: rule.items("resourceRules").iter().map(resource).collect(),
            paths: rule
                .items("nonResourceRules")
                .iter()
                .map(|rule| (texts(rule, "verbs"), texts(rule, "nonResourceURLs")))
                .collect(),
        }
    }

    fn matches(&self, user: &UserInfo, info: &RequestInfo) -> bool {
        if !self.subjects.iter().any(|subject| subject.is(user)) {
            return false;
        }
        if info.is_resource {
            return self.resources.iter().any(|rule| rule.matches(info));
        }
        // As upstream: a path covers what is below it, with or without a star at the end.
        let covers = |url: &String| {
            let place = url.trim_end_matches('*').trim_end_matches('/');
            let below = info.path.strip_prefix(place).filter(|below| below.starts_with('/'));
            url == "*" || *url == info.path || below.is_some()
        };
        self.paths.iter().any(|(verbs, urls)| has(verbs, info.authorized_verb()) && urls.iter().any(covers))
    }
}

impl Subject {
    fn read(subject: &Value) -> Option<Self> {
        let name = |field: &str| subject.at(field).map(|v| v.text("name").to_string());
        match subject.text("kind") {
            "User" => name("user").map(Self::User),
            "Group" => name("group").map(Self::Group),
            "ServiceAccount" => {
                let account = subject.at("serviceAccount")?;
                let place = format!("system:serviceaccount:{}:", account.text("namespace"));
                Some(match account.text("name") {
                    "*" => Self::AccountsOf(place),
                    name => Self::Account(place + name),
                })
            }
            _ => None,
        }
    }

    fn is(&self, user: &UserInfo) -> bool {
        match self {
            Self::User(name) => name == "*" || *name == user.name,
            Self::Group(name) => name == "*" || user.is_in(name),
            Self::Account(name) => *name == user.name,
            Self::AccountsOf(place) => user.name.starts_with(place.as_str()),
        }
    }
}

impl ResourceRule {
    fn matches(&self, info: &RequestInfo) -> bool {
        let resource = |pattern: &String| match pattern.split_once('/') {
            None => pattern == "*" || info.subresource.is_empty() && *pattern == info.resource,
            Some((resource, subresource)) => resource == info.resource && subresource == info.subresource,
        };
        let place =
            if info.namespace.is_empty() { self.cluster } else { has(&self.namespaces, &info.namespace) };
        place
            && has(&self.verbs, info.authorized_verb())
            && has(&self.groups, &info.group)
            && self.resources.iter().any(resource)
    }
}

#[cfg(test)]
mod tests {
    use super::super::bootstrap;
    use super::*;

    fn ask(verb: &'static str, group: &str, resource: &str, namespace: &str) -> RequestInfo {
        RequestInfo {
            is_resource: true,
            verb,
            group: group.into(),
            resource: resource.into(),
            namespace: namespace.into(),
            ..RequestInfo::default()
        }
    }

    #[test]
    fn the_first_cluster_sorts_requests_as_upstream_does() {
        let schemas: Vec<Value> =
            bootstrap::objects().into_iter().filter(|o| o["kind"] == "FlowSchema").collect();
        let schemas = read_all(&schemas, &[]);
        let chosen = |user: &UserInfo, info: &RequestInfo| {
            let schema = schemas.iter().find(|schema| schema.matches(user, info)).unwrap();
            (schema.name.clone(), schema.flow_of(user, info))
        };
        let who = |name: &str, groups: &[&str]| UserInfo::new(name, groups).authenticated();
        let pods = ask("list", "", "pods", "team");
        let lease = ask("update", "coordination.k8s.io", "leases", "kube-system");
        let path = |path: &str| RequestInfo { verb: "get", path: path.into(), ..RequestInfo::default() };
        let (healthz, below, beside) = (path("/healthz"), path("/readyz/etcd"), path("/healthzz"));
        for (user, info, schema, flow) in [
            (who("admin", &["system:masters"]), &pods, "exempt", "exempt/"),
            (UserInfo::anonymous(), &healthz, "probes", "probes/"),
            (UserInfo::anonymous(), &below, "probes", "probes/"),
            (UserInfo::anonymous(), &beside, "global-default", "global-default/system:anonymous"),
            (
                who("system:kube-scheduler", &[]),
                &lease,
                "system-leader-election",
                "system-leader-election/system:kube-scheduler",
            ),
            (who("system:kube-scheduler", &[]), &pods, "kube-scheduler", "kube-scheduler/team"),
            (who("system:node:n1", &["system:nodes"]), &pods, "system-nodes", "system-nodes/system:node:n1"),
            (
                who("system:node:n1", &["system:nodes"]),
                &ask("patch", "", "nodes", ""),
                "system-node-high",
                "system-node-high/system:node:n1",
            ),
            (
                who("system:serviceaccount:kube-system:x", &["system:serviceaccounts"]),
                &pods,
                "kube-system-service-accounts",
                "kube-system-service-accounts/team",
            ),
            (
                who("system:serviceaccount:team:x", &["system:serviceaccounts"]),
                &pods,
                "service-accounts",
                "service-accounts/system:serviceaccount:team:x",
            ),
            (who("ada", &[]), &pods, "global-default", "global-default/ada"),
        ] {
            assert_eq!(chosen(&user, info), (schema.to_string(), flow.to_string()));
        }
    }
}
