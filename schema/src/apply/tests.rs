use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::Definitions;

const WRITER: Writer<'static> = Writer {
    manager: "me",
    api_version: "apps/v1",
    subresource: "",
    now: "2026-01-01T00:00:00Z",
    reset: Reset::Subtrees(&["status"]),
};

fn by(manager: &'static str) -> Writer<'static> {
    Writer { manager, ..WRITER }
}

fn schema() -> Arc<Schema> {
    let mut definitions = Definitions::default();
    let mut define = |name: &str, source: Value| definitions.define(name, &source).unwrap();
    define(
        "x.v1.Container",
        json!({"type": "object", "properties": {
            "name": {"type": "string"}, "image": {"type": "string"}, "args": {"type": "array", "items": {"type": "string"},
                "x-kubernetes-list-type": "atomic"},
            "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port", "protocol"],
                "items": {"$ref": "#/x.v1.Port"}}}}),
    );
    define(
        "x.v1.Port",
        json!({"type": "object", "properties": {"port": {"type": "integer", "format": "int32"},
            "protocol": {"type": "string", "default": "TCP"}, "name": {"type": "string"}}}),
    );
    define(
        "x.v1.Spec",
        json!({"type": "object", "properties": {
            "replicas": {"type": "integer", "format": "int32"},
            "paused": {"type": "boolean"},
            "finalizers": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
            "selector": {"type": "object", "additionalProperties": {"type": "string"}, "x-kubernetes-map-type": "atomic"},
            "containers": {"type": "array", "items": {"$ref": "#/x.v1.Container"}, "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"]}}}),
    );
    define(
        "x.v1.Meta",
        json!({"type": "object", "properties": {"name": {"type": "string"}, "namespace": {"type": "string"},
            "uid": {"type": "string"}, "resourceVersion": {"type": "string"},
            "managedFields": {"type": "array", "items": {"type": "object"}},
            "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}}}}),
    );
    define(
        "x.v1.Thing",
        json!({"type": "object", "properties": {"apiVersion": {"type": "string"}, "kind": {"type": "string"},
            "metadata": {"$ref": "#/x.v1.Meta"}, "spec": {"$ref": "#/x.v1.Spec"},
            "status": {"type": "object", "additionalProperties": {"type": "string"}}}}),
    );
    definitions.get("x.v1.Thing").unwrap()
}

fn thing(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Thing", "metadata": {"name": "t", "namespace": "default"}, "spec": spec})
}

fn created(spec: Value, manager: &'static str) -> Value {
    let mut object = thing(spec);
    track_update(&schema(), &Value::Null, &mut object, &by(manager));
    object["metadata"]["uid"] = "u".into();
    object
}

fn updated(live: &Value, manager: &'static str, change: impl FnOnce(&mut Value)) -> Value {
    let mut new = live.clone();
    change(&mut new);
    track_update(&schema(), live, &mut new, &by(manager));
    new
}

fn applied(live: &Value, spec: Value, manager: &'static str, force: bool) -> Result<Value, ApplyError> {
    apply(&schema(), live, &thing(spec), &by(manager), force)
}

fn owners(object: &Value) -> Vec<(String, Value)> {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let named =
        |e: &Value| format!("{} {}", e["operation"].as_str().unwrap(), e["manager"].as_str().unwrap());
    entries.iter().map(|e| (named(e), e["fieldsV1"].clone())).collect()
}

#[test]
fn a_create_should_own_what_it_sets_but_not_the_envelope() {
    let object = created(
        json!({"replicas": 1, "selector": {"a": "b"}, "finalizers": ["f"],
            "containers": [{"name": "c", "image": "i", "ports": [{"port": 80}]}]}),
        "me",
    );
    let fields = json!({"f:spec": {"f:replicas": {}, "f:selector": {}, "f:finalizers": {".": {}, "v:\"f\"": {}},
        "f:containers": {".": {}, "k:{\"name\":\"c\"}": {".": {}, "f:name": {}, "f:image": {},
            "f:ports": {".": {}, "k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}}}}}});
    assert_eq!(owners(&object), [("Update me".to_string(), fields)]);
    let entry = &object["metadata"]["managedFields"][0];
    assert_eq!(entry["time"], "2026-01-01T00:00:00Z");
    assert_eq!(entry["fieldsType"], "FieldsV1");
    assert_eq!(entry["apiVersion"], "apps/v1");
}

#[test]
fn an_update_should_take_what_it_changes_and_drop_what_it_removes() {
    let live = created(json!({"replicas": 1, "paused": true}), "first");
    let new = updated(&live, "second", |o| {
        o["spec"] = json!({"replicas": 2});
    });
    assert_eq!(owners(&new), [("Update second".to_string(), json!({"f:spec": {"f:replicas": {}}}))]);
    // Nothing changed, nothing moves, not even time.
    let later = Writer { now: "2027-01-01T00:00:00Z", ..by("third") };
    let mut same = new.clone();
    track_update(&schema(), &new, &mut same, &later);
    assert_eq!(same, new);
}

#[test]
fn status_writes_should_be_tracked_apart_and_endpoints_should_not_own_what_they_reset() {
    let live = created(json!({"replicas": 1}), "user");
    let mut new = live.clone();
    new["status"] = json!({"phase": "Ready"});
    let status = Writer { subresource: "status", reset: Reset::AllBut(&["status"]), ..by("controller") };
    track_update(&schema(), &live, &mut new, &status);
    let entry = &new["metadata"]["managedFields"][0];
    assert_eq!(entry["manager"], "controller");
    assert_eq!(entry["subresource"], "status");
    assert_eq!(entry["fieldsV1"], json!({"f:status": {".": {}, "f:phase": {}}}));
    let mut ignored = live.clone();
    ignored["status"] = json!({"phase": "Lost"});
    track_update(&schema(), &live, &mut ignored, &by("user"));
    assert_eq!(ignored["metadata"]["managedFields"], live["metadata"]["managedFields"]);
}

#[test]
fn applying_what_another_owns_should_conflict_unless_forced() {
    let live = created(json!({"replicas": 1}), "kubectl-client-side-apply");
    let error = applied(&live, json!({"replicas": 3}), "me", false).unwrap_err();
    let ApplyError::Conflicts { message, causes } = error else { panic!("{error}") };
    assert_eq!(
        message,
        "Apply failed with 1 conflict: conflict with \"kubectl-client-side-apply\" using apps/v1: .spec.replicas"
    );
    assert_eq!(
        causes,
        [FieldError {
            reason: "FieldManagerConflict",
            field: ".spec.replicas".into(),
            message: "conflict with \"kubectl-client-side-apply\" using apps/v1".into()
        }]
    );
    let forced = applied(&live, json!({"replicas": 3}), "me", true).unwrap();
    assert_eq!(forced["spec"]["replicas"], 3);
    assert_eq!(owners(&forced), [("Apply me".to_string(), json!({"f:spec": {"f:replicas": {}}}))]);
    // The same value is no conflict: both own it.
    let shared = applied(&live, json!({"replicas": 1}), "me", false).unwrap();
    assert_eq!(owners(&shared).len(), 2);
}

#[test]
fn what_is_no_longer_applied_should_go_unless_somebody_else_owns_it() {
    let first = applied(
        &Value::Null,
        json!({"replicas": 1, "paused": true, "containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "y"}]}),
        "me",
        false,
    )
    .unwrap();
    let mut first = first;
    first["metadata"]["uid"] = "u".into();
    let both = applied(&first, json!({"paused": true}), "other", false).unwrap();
    let with_update = updated(&both, "controller", |o| o["spec"]["containers"][0]["args"] = json!(["-v"]));
    let second = applied(&with_update, json!({"containers": [{"name": "a"}]}), "me", false).unwrap();
    assert_eq!(second["spec"], json!({"paused": true, "containers": [{"name": "a", "args": ["-v"]}]}));
    let third = applied(&second, json!({}), "other", false).unwrap();
    assert_eq!(third["spec"].get("paused"), None);
}

#[test]
fn keyed_lists_and_sets_should_merge_between_appliers() {
    let first = applied(
        &Value::Null,
        json!({"finalizers": ["a"], "containers": [{"name": "a", "ports": [{"port": 80}]}]}),
        "one",
        false,
    )
    .unwrap();
    let second = applied(
        &first,
        json!({"finalizers": ["b"], "containers": [{"name": "b"}, {"name": "a", "ports": [{"port": 81}]}]}),
        "two",
        false,
    )
    .unwrap();
    assert_eq!(second["spec"]["finalizers"], json!(["a", "b"]));
    assert_eq!(
        second["spec"]["containers"],
        json!([{"name": "b"}, {"name": "a", "ports": [{"port": 80}, {"port": 81}]}])
    );
    let gone = applied(&second, json!({}), "two", false).unwrap();
    assert_eq!(gone["spec"], first["spec"]);
}

#[test]
fn an_apply_that_changes_nothing_should_leave_the_object_as_it_is() {
    let first = applied(&Value::Null, json!({"replicas": 1}), "me", false).unwrap();
    let later = Writer { now: "2027-01-01T00:00:00Z", ..WRITER };
    let again = apply(&schema(), &first, &thing(json!({"replicas": 1})), &later, false).unwrap();
    assert_eq!(again, first);
}

#[test]
fn what_does_not_fit_the_schema_should_be_refused() {
    let error = applied(&Value::Null, json!({"foo": 1}), "me", false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "failed to create typed patch object (default/t; apps/v1, Kind=Thing): .spec.foo: field not declared in schema"
    );
    let error = applied(&Value::Null, json!({"containers": [{"image": "x"}]}), "me", false).unwrap_err();
    assert!(error.to_string().contains("omits key field \"name\""), "{error}");
    let wrong = Writer { api_version: "apps/v2", ..WRITER };
    let error = apply(&schema(), &Value::Null, &thing(json!({})), &wrong, false).unwrap_err();
    assert!(matches!(error, ApplyError::Invalid(_)));
}

#[test]
fn objects_without_managers_should_get_one_at_the_first_apply_and_a_reset_should_forget_them() {
    let live = created(json!({"replicas": 1}), "me");
    let reset = updated(&live, "me", |o| o["metadata"]["managedFields"] = json!([{}]));
    assert_eq!(reset["metadata"].get("managedFields"), None);
    let untracked = updated(&reset, "me", |o| o["spec"]["replicas"] = 2.into());
    assert_eq!(untracked["metadata"].get("managedFields"), None);
    let object = applied(&untracked, json!({"paused": true}), "me", false).unwrap();
    let owners = owners(&object);
    assert_eq!(owners[0].0, "Apply me");
    assert_eq!(owners[1], ("Update before-first-apply".to_string(), json!({"f:spec": {"f:replicas": {}}})));
}

#[test]
fn kubectl_should_take_over_its_own_client_side_applied_fields() {
    let last = thing(json!({"replicas": 1})).to_string();
    let mut live = thing(json!({"replicas": 1}));
    live["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/last-applied-configuration": last});
    track_update(&schema(), &Value::Null, &mut live, &by("kubectl-client-side-apply"));
    let object = applied(&live, json!({"replicas": 2}), "kubectl", false).unwrap();
    assert_eq!(object["spec"]["replicas"], 2);
    let annotation = &object["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"];
    assert!(annotation.as_str().unwrap().contains("\"replicas\":2"));
    assert!(applied(&live, json!({"replicas": 2}), "other", false).is_err());
}

#[test]
fn old_update_entries_should_be_merged_above_the_limit() {
    const NAMES: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
    let mut object = created(json!({}), "start");
    for (index, name) in NAMES.into_iter().enumerate() {
        object = updated(&object, name, |o| o["metadata"]["labels"][format!("l{index}")] = "x".into());
    }
    let owners = owners(&object);
    assert_eq!(owners.len(), 10);
    let merged = owners.iter().find(|(name, _)| name == "Update ancient-changes").unwrap();
    assert_eq!(merged.1["f:metadata"]["f:labels"].as_object().unwrap().len(), 5);
}
