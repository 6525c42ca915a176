//! A policy's status: whether its expressions go together with the types of what it is about.
//!
//! Found out when the policy is written and stored with it, so that there is no time without. As upstream, types are
//! those of rules without wildcards, at most ten of each; what does not go together is told and is no reason to refuse.
//! Deliberately absent: the type of CustomResourceDefinition, whose schemas hold schemas without an end.

use api::field::Look;
use api::{ResourceTable, Row, ServedVersion};
use cel::{Type, structural};
use serde_json::{Value, json};

use super::definition::{ParameterKind, Policy};
use crate::admission::expressions::Compiled;
use crate::tree::set;

/// So many types of one rule are looked at.
const TYPES_MAX: usize = 10;

/// Writes the status of a policy.
pub(crate) fn tell_status(table: &ResourceTable, policy: &mut Value) {
    let checked = match warnings(table, policy) {
        none if none.is_empty() => json!({}),
        some => json!({"expressionWarnings": some}),
    };
    let generation = policy.dig(&["metadata", "generation"]).cloned();
    set(policy, &["status", "observedGeneration"], generation.unwrap_or_default());
    set(policy, &["status", "typeChecking"], checked);
}

fn warnings(table: &ResourceTable, policy: &Value) -> Vec<Value> {
    let params = policy.dig(&["spec", "paramKind"]).map(ParameterKind::read).and_then(|kind| {
        let row = table.kind(&kind.version.group, &kind.version.version, &kind.kind)?;
        type_of(row, &kind.version)
    });
    let read: Vec<(String, Policy)> = types(table, policy)
        .into_iter()
        .map(|(name, object)| (name, Policy::read_as(policy, object, params.clone().unwrap_or(Type::Dyn))))
        .collect();
    let first = read.iter().take(1).flat_map(|(_, policy)| policy.validated());
    let warning = |(index, expression): (usize, &Compiled)| {
        let said = read.iter().filter_map(|(name, policy)| {
            let fault = policy.validated().nth(index)?.fault()?;
            Some(format!("{name}: {fault}\n"))
        });
        let said: Vec<String> = said.collect();
        (!said.is_empty()).then(|| json!({"fieldRef": expression.place, "warning": said.join("\n")}))
    };
    first.enumerate().filter_map(warning).collect()
}

/// The types that a policy's rules name.
fn types(table: &ResourceTable, policy: &Value) -> Vec<(String, Type)> {
    let texts = |rule: &Value, field: &str| -> Vec<String> {
        rule.items(field).iter().filter_map(Value::as_str).map(str::to_string).collect()
    };
    let mut types = Vec::new();
    let constraints = policy.dig(&["spec", "matchConstraints"]).unwrap_or(&Value::Null);
    for rule in constraints.items("resourceRules") {
        let (groups, versions) = (texts(rule, "apiGroups"), texts(rule, "apiVersions"));
        let wild = groups.iter().chain(&versions).any(|name| name.contains('*'));
        let mut resources = texts(rule, "resources");
        resources.retain(|name| !name.contains(['*', '/']) && !wild);
        let versions = groups.iter().flat_map(|group| {
            versions.iter().map(|version| ServedVersion { group: group.clone(), version: version.clone() })
        });
        let found = versions.flat_map(|version| {
            let rows =
                resources.iter().filter_map(|name| table.resource(&version.group, &version.version, name));
            let named = rows.filter_map(|row| {
                Some((format!("{}, Kind={}", version.api_version(), row.kind), type_of(row, &version)?))
            });
            named.collect::<Vec<_>>()
        });
        types.extend(found.take(TYPES_MAX));
    }
    types.sort_by(|(one, _), (other, _)| one.cmp(other));
    types.dedup_by(|(one, _), (other, _)| one == other);
    types
}

fn type_of(row: &Row, version: &ServedVersion) -> Option<Type> {
    let schema = match &row.custom {
        None if row.kind == "CustomResourceDefinition" => return None,
        Some(custom) => custom.versions.get(&version.version)?.schema.clone(),
        None => api::schemas::for_kind(&version.group, &version.version, &row.kind)?,
    };
    Some(Type::of(&structural::shape(&schema, false)?, &row.kind))
}
