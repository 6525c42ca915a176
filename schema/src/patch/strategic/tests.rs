use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::Definitions;

fn schema() -> Arc<Schema> {
    let mut definitions = Definitions::default();
    let container = json!({"type": "object", "properties": {
        "name": {"type": "string"}, "image": {"type": "string"},
        "args": {"type": "array", "items": {"type": "string"}},
        "env": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"},
            "value": {"type": "string"}}}, "x-kubernetes-patch-strategy": "merge", "x-kubernetes-patch-merge-key": "name"}}});
    let spec = json!({"type": "object", "properties": {
        "replicas": {"type": "integer"},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "finalizers": {"type": "array", "items": {"type": "string"}, "x-kubernetes-patch-strategy": "merge"},
        "strategy": {"$ref": "#/x.v1.Strategy", "x-kubernetes-patch-strategy": "retainKeys"},
        "selector": {"type": "object", "additionalProperties": {"type": "string"}, "x-kubernetes-patch-strategy": "replace"},
        "containers": {"type": "array", "items": {"$ref": "#/x.v1.Container"},
            "x-kubernetes-patch-strategy": "merge", "x-kubernetes-patch-merge-key": "name"}}});
    let strategy = json!({"type": "object", "properties": {"type": {"type": "string"},
        "rolling": {"type": "object", "properties": {"surge": {"type": "integer"}}}}});
    definitions.define("x.v1.Container", &container).unwrap();
    definitions.define("x.v1.Strategy", &strategy).unwrap();
    definitions.define("x.v1.Spec", &spec).unwrap();
    definitions.get("x.v1.Spec").unwrap()
}

fn patched(target: Value, patch: Value) -> Result<Value, PatchError> {
    let mut value = target;
    apply(&schema(), &patch, &mut value)?;
    Ok(value)
}

#[test]
fn lists_with_a_merge_key_should_merge_and_others_should_be_replaced() {
    let live = json!({"containers": [{"name": "a", "image": "1", "args": ["x"], "env": [{"name": "A", "value": "1"}]},
        {"name": "b", "image": "1"}]});
    let patch = json!({"containers": [{"name": "b", "image": "2"}, {"name": "a", "args": ["y"],
        "env": [{"name": "B", "value": "2"}]}, {"name": "c", "image": null}], "labels": {"k": "v", "gone": null}});
    // The patch's own order rules among what it names.
    assert_eq!(
        patched(live, patch).unwrap(),
        json!({"containers": [{"name": "b", "image": "2"},
            {"name": "a", "image": "1", "args": ["y"], "env": [{"name": "B", "value": "2"}, {"name": "A", "value": "1"}]},
            {"name": "c"}], "labels": {"k": "v"}})
    );
}

#[test]
fn directives_should_delete_replace_and_retain() {
    let live = json!({"containers": [{"name": "a"}, {"name": "b"}], "strategy": {"type": "R", "rolling": {"surge": 1}},
        "selector": {"a": "b"}, "labels": {"x": "y"}});
    let patch = json!({"containers": [{"name": "a", "$patch": "delete"}],
        "strategy": {"$retainKeys": ["type"], "type": "Recreate"}, "selector": {"c": "d"},
        "labels": {"$patch": "replace", "z": "1"}});
    assert_eq!(
        patched(live.clone(), patch).unwrap(),
        json!({"containers": [{"name": "b"}], "strategy": {"type": "Recreate"}, "selector": {"c": "d"},
            "labels": {"z": "1"}})
    );
    let patch = json!({"containers": [{"$patch": "replace"}, {"name": "c"}], "labels": {"$patch": "delete"}});
    let result = patched(live.clone(), patch).unwrap();
    assert_eq!(result["containers"], json!([{"name": "c"}]));
    assert_eq!(result["labels"], json!({}));
    assert!(patched(live.clone(), json!({"labels": {"$patch": "grow"}})).is_err());
    assert!(patched(live, json!({"strategy": {"$retainKeys": ["type"], "rolling": {}}})).is_err());
}

#[test]
fn lists_of_scalars_should_merge_as_sets_and_lose_what_is_named() {
    let live = json!({"finalizers": ["a", "b"]});
    let patch = json!({"finalizers": ["b", "c"]});
    assert_eq!(patched(live.clone(), patch).unwrap(), json!({"finalizers": ["a", "b", "c"]}));
    let patch = json!({"$deleteFromPrimitiveList/finalizers": ["a"]});
    assert_eq!(patched(live.clone(), patch).unwrap(), json!({"finalizers": ["b"]}));
    let patch = json!({"$deleteFromPrimitiveList/finalizers": ["a"], "$setElementOrder/finalizers": ["c", "b"],
        "finalizers": ["c"]});
    assert_eq!(patched(live, patch).unwrap(), json!({"finalizers": ["c", "b"]}));
}

#[test]
fn the_element_order_that_kubectl_sends_should_be_honoured() {
    let live = json!({"containers": [{"name": "a", "image": "1"}, {"name": "server-only"}, {"name": "b"}]});
    let patch = json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}, {"name": "c"}],
        "containers": [{"name": "a", "image": "2"}, {"name": "c"}]});
    assert_eq!(
        patched(live.clone(), patch).unwrap(),
        json!({"containers": [{"name": "server-only"}, {"name": "b"}, {"name": "a", "image": "2"}, {"name": "c"}]})
    );
    let wrong = json!({"$setElementOrder/containers": [{"name": "b"}], "containers": [{"name": "a"}]});
    assert!(matches!(patched(live.clone(), wrong), Err(PatchError::Unprocessable(_))));
    let only_order = json!({"$setElementOrder/containers": [{"name": "a"}], "replicas": 2});
    assert_eq!(patched(live.clone(), only_order).unwrap()["containers"], live["containers"]);
}

#[test]
fn patches_that_cannot_be_merged_should_say_why() {
    let live = json!({"containers": [{"name": "a"}]});
    let error = patched(live.clone(), json!({"containers": [{"image": "x"}]})).unwrap_err();
    assert_eq!(error.to_string(), "map: {\"image\":\"x\"} does not contain declared merge key: name");
    assert!(patched(live.clone(), json!([])).is_err());
    assert!(patched(live, json!({"$setElementOrder/unknown": []})).is_err());
}
