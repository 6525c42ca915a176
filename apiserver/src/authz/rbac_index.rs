//! Who is bound to which role, and what each role grants, kept up to date change by change.
//!
//! Bindings are kept by whom they name and point to their role by name: a new role costs nothing but its own rules, a new
//! binding nothing but its own subjects. Only roles that aggregate others are gathered anew when a cluster role changes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use api::field::Look;
use api::selector::LabelSelector;
use serde_json::Value;

use super::rbac::{Rule, rules_in};
use crate::auth::UserInfo;
use crate::cache::{Cached, Follower, Step};
use crate::objects::Objects;

pub(super) const ROWS: [&str; 4] = [
    "rbac.authorization.k8s.io/clusterroles",
    "rbac.authorization.k8s.io/roles",
    "rbac.authorization.k8s.io/clusterrolebindings",
    "rbac.authorization.k8s.io/rolebindings",
];

/// What a binding says.
struct Binding {
    key: Arc<str>,
    name: String,
    /// `None` is the whole cluster.
    namespace: Option<String>,
    role_kind: String,
    role: String,
}

/// A binding, for one of its subjects.
pub(super) struct Grant {
    binding: Arc<Binding>,
    /// As reasons show it: `User "vera"`.
    subject: Box<str>,
}

/// The rules of a cluster role.
struct ClusterRole {
    labels: Value,
    own: Arc<[Rule]>,
    /// Which roles it aggregates, if it does.
    selectors: Option<Vec<LabelSelector>>,
    /// What it grants: its own rules, or those that it aggregates, whatever its stored `rules` still say.
    granted: Arc<[Rule]>,
}

type ByName = HashMap<String, Vec<Grant>>;

/// The grants of the index, while they are changed.
struct Grants<'a> {
    users: &'a mut ByName,
    groups: &'a mut ByName,
}

/// All roles and bindings.
#[derive(Default)]
pub(super) struct Index {
    users: ByName,
    groups: ByName,
    cluster_roles: HashMap<String, ClusterRole>,
    /// By namespace and name.
    roles: HashMap<String, HashMap<String, Arc<[Rule]>>>,
    followers: [Follower; 4],
}

impl Grant {
    /// Whether it counts in a namespace; the empty one is the cluster.
    pub fn reaches(&self, namespace: &str) -> bool {
        self.binding.namespace.as_deref().is_none_or(|place| !namespace.is_empty() && place == namespace)
    }

    /// The words in which a decision names it.
    pub fn why(&self) -> String {
        let Binding { name, namespace, role_kind, role, .. } = &*self.binding;
        match namespace {
            None => format!("ClusterRoleBinding {name:?} of {role_kind} {role:?} to {}", self.subject),
            Some(place) => {
                format!("RoleBinding \"{name}/{place}\" of {role_kind} {role:?} to {}", self.subject)
            }
        }
    }
}

impl Index {
    /// Takes over what has changed since the last time.
    pub fn follow(&mut self, objects: &Objects) {
        let Self { users, groups, cluster_roles, roles, followers } = self;
        let [of_cluster_roles, of_roles, of_cluster_bindings, of_bindings] = followers;
        let [cluster_role_row, role_row, cluster_binding_row, binding_row] = ROWS.map(|row| objects.row(row));

        let mut is_stale = false;
        of_cluster_roles.follow(&cluster_role_row, |step| {
            is_stale = true;
            match step {
                Step::Restart => cluster_roles.clear(),
                Step::Change { new: Some(role), .. } => {
                    cluster_roles.insert(role.name().to_string(), ClusterRole::read(&role.tree()));
                }
                Step::Change { old, new: None } => {
                    old.and_then(|role| cluster_roles.remove(role.name()));
                }
            }
        });
        if is_stale {
            gather(cluster_roles);
        }
        of_roles.follow(&role_row, |step| match step {
            Step::Restart => roles.clear(),
            Step::Change { new: Some(role), .. } => {
                let here = roles.entry(role.namespace().to_string()).or_default();
                here.insert(role.name().to_string(), rules_in(role.tree().get("rules")).into());
            }
            Step::Change { old, new: None } => {
                old.and_then(|role| roles.get_mut(role.namespace())?.remove(role.name()));
            }
        });
        let mut grants = Grants { users, groups };
        of_cluster_bindings.follow(&cluster_binding_row, |step| grants.take(true, step));
        of_bindings.follow(&binding_row, |step| grants.take(false, step));
    }

    /// What is bound to a user, with the rules of it.
    pub fn grants_of<'a>(&'a self, user: &'a UserInfo) -> impl Iterator<Item = (&'a Grant, &'a Arc<[Rule]>)> {
        let by_group = user.groups.iter().filter_map(|group| self.groups.get(group)).flatten();
        let grants = self.users.get(&user.name).into_iter().flatten().chain(by_group);
        grants.filter_map(|grant| {
            let Binding { namespace, role_kind, role, .. } = &*grant.binding;
            Some((grant, self.rules_of_role(role_kind, namespace.as_deref().unwrap_or_default(), role)?))
        })
    }

    /// The rules of a role by its kind; `None` when there is no such role.
    pub fn rules_of_role(&self, kind: &str, namespace: &str, name: &str) -> Option<&Arc<[Rule]>> {
        match kind {
            "Role" => self.roles.get(namespace)?.get(name),
            _ => self.cluster_roles.get(name).map(|role| &role.granted),
        }
    }
}

impl Grants<'_> {
    /// Takes over a change of one of the two kinds of bindings.
    fn take(&mut self, is_cluster_wide: bool, step: Step<'_>) {
        match step {
            Step::Restart => {
                for grants in self.users.values_mut().chain(self.groups.values_mut()) {
                    grants.retain(|grant| grant.binding.namespace.is_none() != is_cluster_wide);
                }
            }
            Step::Change { old, new } => {
                if let Some(old) = old {
                    for subject in subjects(&old.tree(), old.namespace()) {
                        let map = self.map(&subject);
                        if let Some(grants) = map.get_mut(&subject.name) {
                            grants.retain(|grant| grant.binding.key != old.key);
                            if grants.is_empty() {
                                map.remove(&subject.name);
                            }
                        }
                    }
                }
                if let Some(new) = new {
                    let tree = new.tree();
                    let binding = Arc::new(Binding::read(new, &tree, is_cluster_wide));
                    for subject in subjects(&tree, new.namespace()) {
                        let grants = self.map(&subject).entry(subject.name).or_default();
                        grants.push(Grant { binding: binding.clone(), subject: subject.shown.into() });
                    }
                }
            }
        }
    }

    fn map(&mut self, subject: &Subject) -> &mut ByName {
        if subject.is_group { self.groups } else { self.users }
    }
}

impl Binding {
    fn read(object: &Cached, tree: &Value, is_cluster_wide: bool) -> Self {
        let role = |field| tree.at("roleRef").map(|role| role.text(field)).unwrap_or_default().to_string();
        Self {
            key: object.key.clone(),
            name: object.name().to_string(),
            namespace: (!is_cluster_wide).then(|| object.namespace().to_string()),
            role_kind: role("kind"),
            role: role("name"),
        }
    }
}

impl ClusterRole {
    fn read(tree: &Value) -> Self {
        let own: Arc<[Rule]> = rules_in(tree.get("rules")).into();
        let selectors = tree.at("aggregationRule").map(|aggregation| {
            let selectors = aggregation.items("clusterRoleSelectors").iter();
            selectors.filter_map(|selector| LabelSelector::from_object(Some(selector)).ok()).collect()
        });
        let labels = tree.dig(&["metadata", "labels"]).cloned().unwrap_or_default();
        Self { labels, granted: own.clone(), own, selectors }
    }
}

/// Whom a binding names.
struct Subject {
    is_group: bool,
    /// As authenticators tell it.
    name: String,
    /// As reasons show it.
    shown: String,
}

fn subjects(binding: &Value, namespace: &str) -> Vec<Subject> {
    let read = |subject: &Value| {
        let (kind, name) = (subject.text("kind"), subject.text("name"));
        let known_as = match (kind, subject.text("namespace")) {
            ("User" | "Group", _) => name.to_string(),
            ("ServiceAccount", "") => format!("system:serviceaccount:{namespace}:{name}"),
            ("ServiceAccount", place) => format!("system:serviceaccount:{place}:{name}"),
            _ => return None,
        };
        let shown = match subject.text("namespace") {
            "" => format!("{kind} {name:?}"),
            place => format!("{kind} \"{name}/{place}\""),
        };
        Some(Subject { is_group: kind == "Group", name: known_as, shown })
    };
    binding.items("subjects").iter().filter_map(read).collect()
}

/// Gives every aggregating role what it aggregates, directly or by way of another.
fn gather(roles: &mut HashMap<String, ClusterRole>) {
    let names = roles.iter().filter(|(_, role)| role.selectors.is_some()).map(|(name, _)| name.clone());
    for name in names.collect::<Vec<_>>() {
        let mut rules = Vec::new();
        gather_one(&name, roles, &mut HashSet::new(), &mut rules);
        if let Some(role) = roles.get_mut(&name) {
            role.granted = rules.into();
        }
    }
}

fn gather_one<'a>(
    name: &'a str,
    roles: &'a HashMap<String, ClusterRole>,
    seen: &mut HashSet<&'a str>,
    rules: &mut Vec<Rule>,
) {
    let Some(role) = roles.get(name).filter(|_| seen.insert(name)) else { return };
    let Some(selectors) = &role.selectors else { return rules.extend_from_slice(&role.own) };
    for (other, _) in roles.iter().filter(|(_, other)| selectors.iter().any(|s| s.matches(&other.labels))) {
        gather_one(other, roles, seen, rules);
    }
}
