//! Server-side apply: an applier gets what they apply, a second time changes nothing, who agrees does not conflict, and who
//! leaves takes what is theirs alone.

use std::sync::{Arc, LazyLock};

use schema::Schema;
use schema::apply::{ApplyError, FieldSet, Writer, apply, track_update};
use serde_json::{Value, json};

use crate::trees::trees;

static OPENAPI: LazyLock<Value> = LazyLock::new(|| {
    let word = json!({"type": "string"});
    let item = json!({"type": "object", "required": ["name", "port"], "properties": {
        "name": word, "port": {"type": "integer"}, "value": word,
        "inner": {"type": "array", "x-kubernetes-list-type": "set", "items": word}}});
    json!({"type": "object", "properties": {
        "word": word,
        "map": {"type": "object", "additionalProperties": word},
        "atom": {"type": "object", "x-kubernetes-map-type": "atomic", "properties": {"a": word, "b": word}},
        "list": {"type": "array", "x-kubernetes-list-type": "atomic", "items": word},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": word},
        "items": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name", "port"], "items": item},
        "below": {"type": "object", "properties": {"deep": {"type": "object", "properties": {"a": word, "b": word}}}}}})
});

static SCHEMA: LazyLock<Arc<Schema>> = LazyLock::new(|| {
    let whole = json!({"type": "object", "properties": {"apiVersion": {"type": "string"}, "kind": {"type": "string"},
        "metadata": {"type": "object"}, "spec": *OPENAPI}});
    Arc::new(Schema::from_openapi(&whole).unwrap().with_envelope(&api::schemas::object_meta()))
});

fn by<'a>(manager: &'a str) -> Writer<'a> {
    let now = "2026-01-01T00:00:00Z";
    Writer { manager, api_version: "example.com/v1", subresource: "", now, reset: Default::default() }
}

fn thing(spec: &Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "t"}, "spec": spec})
}

/// What is there, what two appliers want, and what somebody writes in between.
pub fn all(data: &[u8]) {
    let [live, first, second, written] = trees(data, |choices| choices.shaped(&OPENAPI));
    let mut live = thing(&live);
    track_update(&SCHEMA, &Value::Null, &mut live, &by("creator"));
    let first = thing(&first);
    let Some(after_first) = applied(&live, &first, "first") else { return };
    let second = thing(&second);
    let Some(after_second) = applied(&after_first, &second, "second") else { return };
    round_trips(&after_second);

    let mut changed = after_second.clone();
    changed["spec"] = written;
    track_update(&SCHEMA, &after_second, &mut changed, &by("editor"));
    round_trips(&changed);
    let Some(merged) = applied(&changed, &first, "first") else { return };
    leaves(&merged);
}

/// The result of a forced apply, after what has to hold of it.
fn applied(live: &Value, wanted: &Value, manager: &str) -> Option<Value> {
    let gentle = apply(&SCHEMA, live, wanted, &by(manager), false);
    let result = match apply(&SCHEMA, live, wanted, &by(manager), true) {
        Ok(result) => result,
        Err(ApplyError::Conflicts { message, .. }) => panic!("a forced apply conflicts: {message}"),
        Err(_) => return None,
    };
    if let Ok(gentle) = gentle {
        assert_eq!(gentle, result, "force matters only where there are conflicts");
    }
    let again = apply(&SCHEMA, &result, wanted, &by(manager), false)
        .expect("what is applied already is nobody else's");
    assert_eq!(filled(&again), filled(&result), "a second time changes nothing: {wanted}");
    has(&wanted["spec"], &result["spec"], &OPENAPI);
    let agreeing =
        apply(&SCHEMA, &result, wanted, &by("agreeing"), false).expect("who agrees does not conflict");
    assert_eq!(filled(&agreeing["spec"]), filled(&result["spec"]));
    Some(result)
}

/// Without what is empty: as upstream, a map goes when an applier empties it, and comes back with the next apply of `{}`.
fn filled(value: &Value) -> Value {
    let is_empty = |value: &Value| match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    };
    match value {
        Value::Object(map) => {
            let fields = map.iter().map(|(name, value)| (name.clone(), filled(value)));
            fields.filter(|(name, value)| name.starts_with("f:") || !is_empty(value)).collect()
        }
        Value::Array(list) => list.iter().map(filled).collect(),
        other => other.clone(),
    }
}

/// Whether a result has what was applied.
fn has(wanted: &Value, result: &Value, schema: &Value) {
    if filled(wanted) == Value::Null || matches!(&filled(wanted), Value::Object(map) if map.is_empty()) {
        return;
    }
    match (wanted, schema["x-kubernetes-list-type"].as_str(), schema["x-kubernetes-map-type"].as_str()) {
        (Value::Array(items), Some("map"), _) => {
            for item in items {
                let same = |other: &&Value| other["name"] == item["name"] && other["port"] == item["port"];
                let found = result.as_array().into_iter().flatten().find(same).expect("the item is there");
                has(item, found, &schema["items"]);
            }
        }
        (Value::Array(items), Some("set"), _) => {
            assert!(
                items.iter().all(|item| result.as_array().is_some_and(|all| all.contains(item))),
                "{wanted} in {result}"
            );
        }
        (Value::Object(fields), _, None) => {
            for (name, value) in fields {
                let below = schema["properties"].get(name).unwrap_or(&schema["additionalProperties"]);
                has(value, &result[name], below);
            }
        }
        _ => assert_eq!(wanted, result),
    }
}

/// Whether what managers own is the same when it is read and written again.
fn round_trips(object: &Value) {
    for entry in object["metadata"]["managedFields"].as_array().into_iter().flatten() {
        let wire = entry["fieldsV1"].clone();
        let fields = FieldSet::from_wire(wire.clone()).unwrap();
        assert_eq!(fields.clone().into_wire(), wire);
        assert!(fields.difference(&fields).is_empty());
        assert_eq!(fields.intersection(&fields), fields);
        let mut united = fields.clone();
        united.unite(&fields);
        assert_eq!(united, fields);
    }
}

/// Who applies nothing any more does so for good, and takes what is theirs alone.
fn leaves(object: &Value) {
    let left = apply(&SCHEMA, object, &thing(&json!({})), &by("first"), false).unwrap();
    let nothing = apply(&SCHEMA, &left, &thing(&json!({})), &by("first"), false).unwrap();
    assert_eq!(filled(&nothing), filled(&left));
    let entries =
        |object: &Value| object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let after = entries(&left);
    for entry in entries(object) {
        let same = |other: &&Value| ["manager", "operation"].iter().all(|key| other[key] == entry[key]);
        let kept = after.iter().find(same).map_or(Value::Null, |other| other["fieldsV1"].clone());
        match entry["manager"].as_str() {
            Some("first") => {}
            _ => keeps(&entry["fieldsV1"], &kept, Some(object), Some(&left)),
        }
    }
}

/// Whether a manager still owns what it owned, and finds it as it was. As upstream there are two exceptions. An element
/// of a list goes with the last who owns it as such, with all that others have set in it. And a list goes with its last
/// element, and a map with it that has nothing else: field sets know of empty maps, but not of empty lists.
fn keeps(owned: &Value, kept: &Value, before: Option<&Value>, after: Option<&Value>) {
    for (element, below) in owned.as_object().into_iter().flatten().filter(|(element, _)| *element != ".") {
        let is_member = |node: &Value| node.get(".").is_some() || *node == json!({});
        let (old, new) = (step(before, element), step(after, element));
        if new.is_none() && element.starts_with("k:") && !is_member(below) {
            continue;
        }
        let kept = kept.get(element).unwrap_or(&Value::Null);
        let is_atomic = ["f:list", "f:atom"].contains(&element.as_str());
        let is_emptied = new.is_none() && !is_atomic && old.is_some_and(has_list);
        if is_member(below) && !is_emptied {
            assert!(is_member(kept), "{element} is kept: {below} {kept} in {before:?}");
            let is_part = |value: &Value| !is_atomic && (value.is_object() || value.is_array());
            assert!(old == new || old.is_some_and(is_part) && new.is_some(), "{element} stays as it is");
        }
        keeps(below, kept, old, new);
    }
}

fn has_list(value: &Value) -> bool {
    value.is_array() || value.as_object().is_some_and(|map| map.values().any(has_list))
}

/// What an element of a path leads to.
fn step<'v>(from: Option<&'v Value>, element: &str) -> Option<&'v Value> {
    let (kind, name) = element.split_once(':')?;
    let value = || serde_json::from_str::<Value>(name).unwrap();
    match kind {
        "f" => from?.get(name),
        "k" => {
            let keys = value();
            let same =
                |item: &&Value| keys.as_object().unwrap().iter().all(|(key, value)| item[key] == *value);
            from?.as_array()?.iter().find(same)
        }
        _ => from?.as_array()?.iter().find(|item| **item == value()),
    }
}
