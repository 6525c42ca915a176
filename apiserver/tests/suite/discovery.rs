//! The discovery walk: what upstream's discovery says against what this server says and does, row by row.
//!
//! Upstream's document is read where it stands beside the repository; elsewhere the walk says that it was not made.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::server::TestServer;

const FACTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/spec/");
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// One row of discovery: a resource, or a subresource of one, in one version.
#[derive(Debug)]
struct Row<'a> {
    group: &'a str,
    version: &'a str,
    resource: &'a Value,
    subresource: Option<&'a Value>,
}

impl Row<'_> {
    fn name(&self) -> String {
        let resource = self.resource["resource"].as_str().unwrap();
        let sub = self.subresource.map(|s| format!("/{}", s["subresource"].as_str().unwrap()));
        format!("{}/{} {resource}{}", self.group, self.version, sub.unwrap_or_default())
    }

    fn described(&self) -> &Value {
        self.subresource.unwrap_or(self.resource)
    }

    fn verbs(&self) -> BTreeSet<&str> {
        self.described()["verbs"].as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect()
    }

    fn path(&self) -> String {
        let root = if self.group.is_empty() { "/api".to_string() } else { format!("/apis/{}", self.group) };
        let place = if self.resource["scope"] == "Namespaced" { "namespaces/default/" } else { "" };
        format!("{root}/{}/{place}{}", self.version, self.resource["resource"].as_str().unwrap())
    }
}

fn rows(document: &Value) -> Vec<Row<'_>> {
    let mut rows = Vec::new();
    for group in document["items"].as_array().unwrap() {
        let name = group["metadata"]["name"].as_str().unwrap_or_default();
        for version in group["versions"].as_array().unwrap() {
            for resource in version["resources"].as_array().unwrap() {
                let row = |subresource| Row {
                    group: name,
                    version: version["version"].as_str().unwrap(),
                    resource,
                    subresource,
                };
                rows.push(row(None));
                rows.extend(resource["subresources"].as_array().into_iter().flatten().map(|s| row(Some(s))));
            }
        }
    }
    rows
}

async fn ours(test: &TestServer, path: &str) -> Value {
    let request = http::Request::builder().uri(path).header("accept", AGGREGATED).body(Vec::new()).unwrap();
    test.client.request(request).await.unwrap()
}

/// What is known of upstream, where it stands.
fn facts(name: &str) -> Option<Value> {
    let path = format!("{FACTS}{name}");
    match std::fs::read(&path) {
        Ok(text) => Some(serde_json::from_slice(&text).unwrap()),
        Err(_) => {
            eprintln!("not walked: {path} is not there");
            None
        }
    }
}

/// What of a row must be the same. Storage version hashes name stored types and are each server's own.
fn compared(row: &Row<'_>) -> Value {
    let described = row.described();
    let mut kind = described["responseKind"].clone();
    if row.subresource.is_none() {
        kind = json!({"kind": kind["kind"]});
    }
    json!({
        "verbs": row.verbs(), "kind": kind, "scope": row.resource["scope"], "shortNames": row.resource["shortNames"],
        "categories": row.resource["categories"], "singular": row.resource["singularResource"],
    })
}

#[tokio::test]
async fn every_row_of_a_stable_version_should_be_described_as_upstream_describes_it() {
    let Some(upstream) = facts("discovery-v1.36.json") else { return };
    let test = TestServer::start().await;
    let groups = ours(&test, "/apis").await;
    let served = rows(&groups);
    let (mut walked, mut beyond, mut lacks) = (0, 0, Vec::new());
    for row in &rows(&upstream) {
        if !matches!(row.version, "v1" | "v2") {
            beyond += 1;
            continue;
        }
        walked += 1;
        match served.iter().find(|ours| ours.name() == row.name()) {
            None => lacks.push(format!("{}: not there", row.name())),
            Some(ours) if compared(ours) != compared(row) => {
                lacks.push(format!("{}: {}\n  upstream {}", row.name(), compared(ours), compared(row)));
            }
            Some(_) => {}
        }
    }
    eprintln!(
        "{walked} stable rows walked, {} lacking; {beyond} rows of other versions not asked for",
        lacks.len()
    );
    assert!(lacks.is_empty(), "{} of {walked}:\n{}", lacks.len(), lacks.join("\n"));
    assert!(walked > 70, "only {walked}");
}

/// The core group is not in upstream's document of `/apis`; its paths, like all others, are in OpenAPI. Our document
/// leaves out the deprecated watch paths, the roots of groups and bare HEAD and OPTIONS: those are asked for instead.
#[tokio::test]
async fn every_path_of_a_stable_version_should_be_published_or_served() {
    let Some(upstream) = facts("paths-v1.36.json") else { return };
    let test = TestServer::start().await;
    let published = test.get("/openapi/v2").await.expect(200);
    let (mut walked, mut lacks) = (0, Vec::new());
    for (path, methods) in upstream.as_object().unwrap() {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let version = match parts.as_slice() {
            ["api", version, ..] | ["apis", _, version, ..] => *version,
            // A file server for the machine's logs, which upstream itself switches off.
            ["logs", ..] => continue,
            // The root of a group that has no stable version.
            ["apis", group] if !upstream.as_object().unwrap().contains_key(&format!("/apis/{group}/v1/")) => {
                continue;
            }
            _ => "v1",
        };
        if !matches!(version, "v1" | "v2") {
            continue;
        }
        for method in methods.as_array().unwrap().iter().map(|m| m.as_str().unwrap()) {
            walked += 1;
            let is_there = if parts.contains(&"watch") {
                let concrete = path.replace("{namespace}", "default").replace("{name}", "x");
                test.status(&format!("{concrete}?timeoutSeconds=1")).await == 200
            } else if path.ends_with('/') {
                test.status(path).await == 200
            } else {
                let named = if matches!(method, "head" | "options") { "get" } else { method };
                published["paths"][path].get(named).is_some()
            };
            if !is_there {
                lacks.push(format!("{method} {path}"));
            }
        }
    }
    eprintln!("{walked} paths and methods walked, {} lacking", lacks.len());
    assert!(lacks.is_empty(), "{} of {walked}:\n{}", lacks.len(), lacks.join("\n"));
    assert!(walked > 500, "only {walked}");
}

/// What discovery says can be done is done: every verb reaches its object (or the lack of it), none ends at the door.
#[tokio::test]
async fn every_verb_of_every_row_should_be_answered() {
    let test = TestServer::start().await;
    let (groups, core) = (ours(&test, "/apis").await, ours(&test, "/api").await);
    let mut faults = Vec::new();
    for row in rows(&core).iter().chain(&rows(&groups)) {
        let sub = row.subresource.map(|s| format!("/{}", s["subresource"].as_str().unwrap()));
        let named = format!("{}/198.51.100.7{}", row.path(), sub.clone().unwrap_or_default());
        for verb in row.verbs() {
            let (method, path, fine): (_, _, &[u16]) = match (verb, &sub) {
                // Without an object these speak of the object, with its name.
                ("get", _) => ("GET", named.clone(), &[404]),
                ("delete", _) => ("DELETE", named.clone(), &[404]),
                ("update", _) => ("PUT", format!("{named}?dryRun=All"), &[201, 400, 404, 422]),
                ("patch", _) => ("PATCH", named.clone(), &[404]),
                ("create", Some(_)) => ("POST", named.clone(), &[400, 403, 404, 422]),
                ("create", None) => ("POST", format!("{}?dryRun=All", row.path()), &[201, 400, 403, 422]),
                ("list", _) => ("GET", row.path(), &[200]),
                ("deletecollection", _) => ("DELETE", format!("{}?dryRun=All", row.path()), &[200]),
                ("watch", _) => {
                    // Only whether it begins: what follows is the watches' own matter.
                    test.watch(&format!("{}?watch=true&timeoutSeconds=5", row.path())).await;
                    continue;
                }
                (other, _) => panic!("{}: {other}", row.name()),
            };
            let body = if method == "GET" { String::new() } else { "{}".to_string() };
            let media_type =
                if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
            let answer = test.send(method, &path, media_type, body).await;
            let at_the_door = answer.body["message"] == "the server could not find the requested resource";
            if !fine.contains(&answer.code) || at_the_door {
                faults.push(format!("{} {verb}: {} {}", row.name(), answer.code, answer.body));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[tokio::test]
async fn plain_and_aggregated_discovery_should_say_the_same() {
    let test = TestServer::start().await;
    let (groups, core) = (ours(&test, "/apis").await, ours(&test, "/api").await);
    for row in rows(&core).iter().chain(&rows(&groups)) {
        let root = if row.group.is_empty() { "/api".to_string() } else { format!("/apis/{}", row.group) };
        let list = test.get(&format!("{root}/{}", row.version)).await.expect(200);
        let name = row.name().split_once(' ').unwrap().1.to_string();
        let entry = list["resources"].as_array().unwrap().iter().find(|r| r["name"] == name.as_str());
        let entry = entry.unwrap_or_else(|| panic!("{name} is not in {root}/{}", row.version));
        assert_eq!(entry["verbs"], row.described()["verbs"], "{name}");
        assert_eq!(entry["kind"], row.described()["responseKind"]["kind"], "{name}");
        assert_eq!(entry["namespaced"], row.resource["scope"] == "Namespaced", "{name}");
    }
}

#[tokio::test]
async fn component_statuses_should_tell_what_was_seen() {
    let test = TestServer::start().await;
    let listed = test.get("/api/v1/componentstatuses").await;
    assert_eq!(listed.warnings, ["299 - \"v1 ComponentStatus is deprecated in v1.19+\""]);
    let listed = listed.expect(200);
    assert_eq!(listed["items"][0]["metadata"]["name"], "store");
    assert_eq!(listed["items"][0]["conditions"][0]["status"], "True");
    assert_eq!(listed["items"].as_array().unwrap().len(), 1, "nobody holds a lease here");
    test.get("/api/v1/componentstatuses/store").await.expect(200);
    test.get("/api/v1/componentstatuses/nothing").await.expect(404);
}
