//! Roles and who has them.

use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Value, json};

use super::{Made, bare};
use crate::session::Session;

const ROOT: &str = "/apis/rbac.authorization.k8s.io/v1";
const VERSION: &str = "rbac.authorization.k8s.io/v1";

/// The flags of `create role` and `create clusterrole`.
#[derive(Args, Clone, Debug)]
pub struct RoleOptions {
    /// The name
    name: String,
    /// What may be done: get,list,watch
    #[arg(long, value_delimiter = ',', value_name = "VERBS")]
    verb: Vec<String>,
    /// With what: pods,deployments.apps,pods/log
    #[arg(long, value_delimiter = ',', value_name = "KINDS")]
    resource: Vec<String>,
    /// Only with objects of these names
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    resource_name: Vec<String>,
    /// For cluster roles: paths that are no objects
    #[arg(long = "non-resource-url", value_delimiter = ',', value_name = "PATHS")]
    non_resource_url: Vec<String>,
    /// For cluster roles: the rules of all roles with these labels
    #[arg(long, value_name = "LABELS")]
    aggregation_rule: Option<String>,
}

impl RoleOptions {
    /// The object.
    pub fn make(&self, session: &Session, of_cluster: bool) -> anyhow::Result<Made> {
        let mut object = bare(VERSION, if of_cluster { "ClusterRole" } else { "Role" }, &self.name);
        object["rules"] = json!([]);
        if let Some(labels) = self.aggregation_rule.as_ref().filter(|_| of_cluster) {
            let mut selector = json!({});
            for pair in labels.split(',') {
                let (key, value) = pair
                    .split_once('=')
                    .with_context(|| format!("error: {pair:?} is not of the form key=value"))?;
                selector[key] = value.into();
            }
            object["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": selector}]});
        } else {
            if self.verb.is_empty() {
                bail!("error: at least one verb must be specified");
            }
            let rules = self.rules(session)?;
            if rules.is_empty() {
                bail!("error: at least one resource must be specified");
            }
            object["rules"] = rules.into();
        }
        Ok(if of_cluster {
            Made::of_cluster(ROOT, "clusterroles", object)
        } else {
            Made::namespaced(ROOT, "roles", object)
        })
    }

    /// One rule per API group.
    fn rules(&self, session: &Session) -> anyhow::Result<Vec<Value>> {
        let mut groups: Vec<(String, Vec<String>)> = Vec::new();
        for word in &self.resource {
            let (kind, below) =
                word.split_once('/').map_or((word.as_str(), None), |(kind, below)| (kind, Some(below)));
            let (group, plural) = if kind == "*" {
                ("*".to_string(), "*".to_string())
            } else {
                let resource = session.one_resource(kind)?;
                (resource.group, resource.plural)
            };
            let plural = below.map_or(plural.clone(), |below| format!("{plural}/{below}"));
            match groups.iter_mut().find(|(known, _)| *known == group) {
                Some((_, plurals)) => plurals.push(plural),
                None => groups.push((group, vec![plural])),
            }
        }
        let mut rules = Vec::new();
        for (group, plurals) in groups {
            let mut rule = json!({"apiGroups": [group], "resources": plurals, "verbs": self.verb});
            if !self.resource_name.is_empty() {
                rule["resourceNames"] = json!(self.resource_name);
            }
            rules.push(rule);
        }
        if !self.non_resource_url.is_empty() {
            rules.push(json!({"nonResourceURLs": self.non_resource_url, "verbs": self.verb}));
        }
        Ok(rules)
    }
}

/// The flags of `create rolebinding` and `create clusterrolebinding`.
#[derive(Args, Clone, Debug)]
pub struct BindingOptions {
    /// The name
    name: String,
    /// The cluster role
    #[arg(long, value_name = "NAME", required_unless_present = "role", conflicts_with = "role")]
    clusterrole: Option<String>,
    /// The role
    #[arg(long, value_name = "NAME")]
    role: Option<String>,
    /// Users who get it; may be written as --user
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    subject_user: Vec<String>,
    /// Groups that get it
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    group: Vec<String>,
    /// Service accounts that get it: NAMESPACE:NAME
    #[arg(long, value_delimiter = ',', value_name = "ACCOUNTS")]
    serviceaccount: Vec<String>,
}

impl BindingOptions {
    /// The object.
    pub fn make(&self, of_cluster: bool) -> anyhow::Result<Made> {
        if of_cluster && self.role.is_some() {
            bail!("error: a cluster role binding binds a cluster role; give --clusterrole");
        }
        let kind = if of_cluster { "ClusterRoleBinding" } else { "RoleBinding" };
        let mut object = bare(VERSION, kind, &self.name);
        let (role_kind, role) = match (&self.clusterrole, &self.role) {
            (Some(role), _) => ("ClusterRole", role),
            (None, Some(role)) => ("Role", role),
            (None, None) => bail!("error: exactly one of clusterrole or role must be specified"),
        };
        object["roleRef"] = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": role_kind, "name": role});
        let mut subjects = Vec::new();
        for (kind, names) in [("User", &self.subject_user), ("Group", &self.group)] {
            for name in names {
                subjects.push(json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}));
            }
        }
        for account in &self.serviceaccount {
            let (namespace, name) = account
                .split_once(':')
                .filter(|(namespace, name)| !namespace.is_empty() && !name.is_empty())
                .context("error: serviceaccount must be <namespace>:<name>")?;
            subjects.push(json!({"kind": "ServiceAccount", "name": name, "namespace": namespace}));
        }
        object["subjects"] = subjects.into();
        Ok(if of_cluster {
            Made::of_cluster(ROOT, "clusterrolebindings", object)
        } else {
            Made::namespaced(ROOT, "rolebindings", object)
        })
    }
}
