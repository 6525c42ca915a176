//! Which requests a webhook, a policy or a binding is about: rules, exceptions from them, and selectors.
//!
//! Rules are looked at first, as they cost nothing. A namespace is judged by its own labels; what lives in none is
//! always chosen, and so is what lives in a namespace that is not there any more.

use std::sync::OnceLock;

use api::field::Look;
use api::selector::LabelSelector;
use api::{Row, Scope, ServedVersion};
use serde_json::Value;

use super::{AdmissionRequest, Operation};
use crate::objects::Objects;

/// What is chosen.
#[derive(Debug)]
pub(super) struct Matching {
    rules: Vec<Rule>,
    excluded: Vec<Rule>,
    /// Whether everything is chosen where there are no rules.
    is_open: bool,
    /// `None` where it cannot be read: then nothing is chosen.
    namespaces: Option<LabelSelector>,
    objects: Option<LabelSelector>,
    /// Whether other versions of the same kind are left alone.
    is_exact: bool,
}

#[derive(Debug)]
struct Rule {
    groups: Vec<String>,
    versions: Vec<String>,
    operations: Vec<String>,
    resources: Vec<String>,
    /// None means any.
    names: Vec<String>,
    scope: String,
}

/// A request, with the object as it is to become.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    pub request: &'a AdmissionRequest<'a>,
    pub object: Option<&'a Value>,
    pub namespace: &'a NamespaceOf<'a>,
}

/// The namespace of a request, looked up when somebody wants to know.
pub(super) struct NamespaceOf<'a> {
    objects: &'a Objects,
    name: &'a str,
    found: OnceLock<Option<Value>>,
}

impl<'a> NamespaceOf<'a> {
    pub fn new(objects: &'a Objects, request: &'a AdmissionRequest<'_>) -> Self {
        Self { objects, name: request.namespace, found: OnceLock::new() }
    }

    /// The namespace; `None` for what lives in none.
    pub fn get(&self) -> Option<&Value> {
        let name = Some(self.name).filter(|name| !name.is_empty())?;
        self.found.get_or_init(|| self.objects.get("core/namespaces", "", name)).as_ref()
    }
}

impl Matching {
    /// What a webhook says: without rules it is about nothing.
    pub fn of_webhook(hook: &Value) -> Self {
        Self { rules: rules(hook, "rules"), is_open: false, ..Self::of_policy(hook) }
    }

    /// What a policy or a binding says: without rules it is about everything.
    pub fn of_policy(resources: &Value) -> Self {
        let selector = |field: &str| match resources.at(field) {
            None => Some(LabelSelector::everything()),
            Some(selector) => LabelSelector::from_object(Some(selector)).ok(),
        };
        Self {
            rules: rules(resources, "resourceRules"),
            excluded: rules(resources, "excludeResourceRules"),
            is_open: true,
            namespaces: selector("namespaceSelector"),
            objects: selector("objectSelector"),
            is_exact: resources.text("matchPolicy") == "Exact",
        }
    }

    /// The version in which the rules speak of the request; `None` when it is not chosen.
    pub fn version(&self, subject: &Subject<'_>) -> Option<ServedVersion> {
        let Subject { request, object, namespace } = *subject;
        let version = match self.matched(&self.rules, request) {
            None if self.is_open && self.rules.is_empty() => request.version.clone(),
            matched => matched?,
        };
        if self.matched(&self.excluded, request).is_some() {
            return None;
        }
        let namespaces = self.namespaces.as_ref()?;
        if !namespaces.is_everything() {
            let judged = if is_namespace(request.row) { object.or(request.old) } else { namespace.get() };
            if judged.is_some_and(|namespace| !namespaces.matches_object(namespace)) {
                return None;
            }
        }
        let objects = self.objects.as_ref()?;
        let chosen = [object, request.old].into_iter().flatten().any(|object| objects.matches_object(object));
        (objects.is_everything() || chosen).then_some(version)
    }

    /// The version in which one of the rules covers the request: if any does, the one that the request speaks.
    fn matched(&self, rules: &[Rule], request: &AdmissionRequest<'_>) -> Option<ServedVersion> {
        let others = request.row.served.iter().filter(|_| !self.is_exact);
        let mut versions = std::iter::once(request.version).chain(others);
        versions.find(|version| rules.iter().any(|rule| rule.covers(request, version))).cloned()
    }
}

pub(super) fn is_namespace(row: &Row) -> bool {
    row.plural == "namespaces" && row.storage.group.is_empty()
}

fn rules(parent: &Value, field: &str) -> Vec<Rule> {
    parent.items(field).iter().map(Rule::read).collect()
}

impl Rule {
    fn read(rule: &Value) -> Self {
        let list = |field: &str| -> Vec<String> {
            rule.items(field).iter().filter_map(|item| item.as_str().map(str::to_string)).collect()
        };
        Self {
            groups: list("apiGroups"),
            versions: list("apiVersions"),
            operations: list("operations"),
            resources: list("resources"),
            names: list("resourceNames"),
            scope: rule.text("scope").to_string(),
        }
    }

    fn covers(&self, request: &AdmissionRequest<'_>, version: &ServedVersion) -> bool {
        let has = |list: &[String], wanted: &str| list.iter().any(|item| item == "*" || item == wanted);
        let in_scope = match self.scope.as_str() {
            "Namespaced" => request.row.scope == Scope::Namespaced,
            "Cluster" => request.row.scope == Scope::Cluster,
            _ => true,
        };
        let resource = |pattern: &String| {
            let (resource, subresource) = pattern.split_once('/').unwrap_or((pattern, ""));
            (resource == "*" || resource == request.row.plural)
                && (subresource == "*" || subresource == request.subresource)
        };
        in_scope
            && has(&self.operations, request.operation.word())
            && has(&self.groups, &version.group)
            && has(&self.versions, &version.version)
            && self.resources.iter().any(resource)
            && (self.names.is_empty() || self.names.iter().any(|name| name == request.name))
    }
}

impl Operation {
    /// As rules and reviews write it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}
