//! Discovery documents: what the server serves, as pure functions of the table.
//!
//! Every function makes the whole body; whoever serves it keeps the bytes until the table changes.

use base64::Engine as _;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::ResourceTable;
use crate::{Row, Subresource, Verb};

/// The groups that are always there in upstream's order of priority; others follow.
const GROUP_ORDER: &[&str] = &[
    "",
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
    "resource.k8s.io",
    "flowcontrol.apiserver.k8s.io",
];

/// The body of `/api`. `address` is where clients reach the server: `10.0.0.1:6443`.
pub fn api_versions(table: &ResourceTable, address: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": table.versions(""),
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    })
}

/// The body of `/apis`.
pub fn api_group_list(table: &ResourceTable) -> Value {
    let groups: Vec<Value> = named_groups(table).into_iter().map(|name| group_entry(table, name)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// The body of `/apis/<group>`.
pub fn api_group(table: &ResourceTable, group: &str) -> Option<Value> {
    if group.is_empty() || table.versions(group).is_empty() {
        return None;
    }
    let mut body = json!({"kind": "APIGroup", "apiVersion": "v1"});
    if let (Some(body), Value::Object(entry)) = (body.as_object_mut(), group_entry(table, group)) {
        body.extend(entry);
    }
    Some(body)
}

/// The body of `/api/v1` and of `/apis/<group>/<version>`.
pub fn api_resource_list(table: &ResourceTable, group: &str, version: &str) -> Option<Value> {
    if !table.versions(group).contains(&version) {
        return None;
    }
    let mut resources: Vec<Value> = Vec::new();
    for row in rows_of(table, group, version) {
        resources.push(resource(row));
        resources.extend(row.subresources.iter().map(|sub| subresource(row, sub)));
    }
    let mut body = json!({
        "kind": "APIResourceList", "groupVersion": group_version(group, version), "resources": resources,
    });
    if !group.is_empty()
        && let Some(body) = body.as_object_mut()
    {
        body.insert("apiVersion".into(), "v1".into());
    }
    Some(body)
}

/// The aggregated body of `/api`, in `apidiscovery.k8s.io/v2`.
pub fn aggregated_core(table: &ResourceTable) -> Value {
    aggregated(table, &[""])
}

/// The aggregated body of `/apis`, in `apidiscovery.k8s.io/v2`.
pub fn aggregated_groups(table: &ResourceTable) -> Value {
    aggregated(table, &named_groups(table))
}

/// What tells clients that two resources are stored as the same kind.
pub fn storage_version_hash(row: &Row) -> String {
    let id = format!("{}/{}/{}", row.storage.group, row.storage.version, row.kind);
    let digest = Sha256::digest(id.as_bytes());
    base64::engine::general_purpose::STANDARD.encode(digest.get(..8).unwrap_or_default())
}

fn named_groups(table: &ResourceTable) -> Vec<&str> {
    let mut groups: Vec<&str> = table.groups().into_iter().filter(|g| !g.is_empty()).collect();
    groups.sort_by_key(|g| GROUP_ORDER.iter().position(|o| o == g).unwrap_or(GROUP_ORDER.len()));
    groups
}

fn rows_of<'a>(table: &'a ResourceTable, group: &str, version: &str) -> Vec<&'a Row> {
    let mut rows: Vec<&Row> =
        table.rows().iter().map(AsRef::as_ref).filter(|row| row.serves(group, version)).collect();
    rows.sort_by(|a, b| a.plural.cmp(&b.plural));
    rows
}

fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_string() } else { format!("{group}/{version}") }
}

fn group_entry(table: &ResourceTable, group: &str) -> Value {
    let versions: Vec<Value> = table
        .versions(group)
        .into_iter()
        .map(|version| json!({"groupVersion": group_version(group, version), "version": version}))
        .collect();
    json!({"name": group, "preferredVersion": versions.first(), "versions": versions})
}

fn resource(row: &Row) -> Value {
    let mut entry = json!({
        "name": row.plural, "singularName": row.singular, "namespaced": row.is_namespaced(), "kind": row.kind,
        "verbs": verbs(&row.verbs),
    });
    if let Some(entry) = entry.as_object_mut() {
        put_names(entry, row);
        if row.stored {
            entry.insert("storageVersionHash".into(), storage_version_hash(row).into());
        }
    }
    entry
}

fn subresource(row: &Row, sub: &Subresource) -> Value {
    let mut entry = json!({
        "name": format!("{}/{}", row.plural, sub.name), "singularName": "", "namespaced": row.is_namespaced(),
        "kind": sub.body.map_or(row.kind.as_str(), |(_, _, kind)| kind), "verbs": verbs(sub.verbs),
    });
    // Bodies of the same group are not repeated.
    if let (Some((group, version, _)), Some(entry)) = (sub.body, entry.as_object_mut())
        && group != row.storage.group
    {
        entry.insert("group".into(), group.into());
        entry.insert("version".into(), version.into());
    }
    entry
}

fn aggregated(table: &ResourceTable, groups: &[&str]) -> Value {
    let items: Vec<Value> = groups
        .iter()
        .map(|group| {
            let versions: Vec<Value> = table
                .versions(group)
                .into_iter()
                .map(|version| {
                    let resources: Vec<Value> =
                        rows_of(table, group, version).into_iter().map(aggregated_resource).collect();
                    json!({"version": version, "freshness": "Current", "resources": resources})
                })
                .collect();
            let metadata = if group.is_empty() { json!({}) } else { json!({"name": group}) };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items,
    })
}

fn aggregated_resource(row: &Row) -> Value {
    let mut entry = json!({
        "resource": row.plural, "responseKind": response_kind(row, None), "scope": row.scope.as_str(),
        "singularResource": row.singular, "verbs": verbs(&row.verbs),
    });
    if let Some(entry) = entry.as_object_mut() {
        put_names(entry, row);
        let subresources: Vec<Value> = row
            .subresources
            .iter()
            .map(|sub| {
                json!({
                    "subresource": sub.name, "responseKind": response_kind(row, Some(sub)),
                    "verbs": verbs(sub.verbs),
                })
            })
            .collect();
        if !subresources.is_empty() {
            entry.insert("subresources".into(), subresources.into());
        }
    }
    entry
}

fn response_kind(row: &Row, sub: Option<&Subresource>) -> Value {
    match sub.and_then(|s| s.body) {
        Some((group, version, kind)) if group != row.storage.group => {
            json!({"group": group, "version": version, "kind": kind})
        }
        Some((_, _, kind)) => json!({"group": "", "version": "", "kind": kind}),
        None => json!({"group": "", "version": "", "kind": row.kind}),
    }
}

fn put_names(entry: &mut Map<String, Value>, row: &Row) {
    if !row.short_names.is_empty() {
        entry.insert("shortNames".into(), row.short_names.clone().into());
    }
    if !row.categories.is_empty() {
        entry.insert("categories".into(), row.categories.clone().into());
    }
}

fn verbs(list: &[Verb]) -> Vec<&'static str> {
    list.iter().map(|verb| verb.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(list: &Value, wanted: impl Fn(&Value) -> bool) -> &Value {
        list.as_array().unwrap().iter().find(|v| wanted(v)).unwrap_or(&Value::Null)
    }

    #[test]
    fn core_should_have_its_subresources() {
        let list = api_resource_list(&ResourceTable::built_in(), "", "v1").unwrap();
        let names: Vec<&str> =
            list["resources"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
        assert_eq!(names.len(), 39);
        for name in ["pods/log", "pods/resize", "nodes/proxy", "namespaces/finalize", "serviceaccounts/token"]
        {
            assert!(names.contains(&name), "{name}");
        }
        let eviction = find(&list["resources"], |r| r["name"] == "pods/eviction");
        assert_eq!((&eviction["group"], &eviction["version"]), (&json!("policy"), &json!("v1")));
        assert_eq!(find(&list["resources"], |r| r["name"] == "pods")["storageVersionHash"], "xPOwRZ+Yhw8=");
    }

    #[test]
    fn groups_should_be_listed_with_their_preferred_version() {
        let table = ResourceTable::built_in();
        assert_eq!(api_group(&table, "autoscaling").unwrap()["preferredVersion"]["version"], "v2");
        assert!(api_group(&table, "example.com").is_none());
        assert!(api_resource_list(&table, "apps", "v1beta1").is_none());
        let list = api_group_list(&table);
        assert_eq!(list["groups"][0]["name"], "apiregistration.k8s.io");
        assert!(find(&list["groups"], |g| g["name"] == "").is_null());
    }
}
