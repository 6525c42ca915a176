//! Merging an applied configuration into the live object.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::typed::{Shape, Typed, fields, is_hollow, items, zip};

/// The live value with what is applied: leaves are replaced, maps and keyed lists are merged part by part.
pub(super) fn merge(typed: Typed<'_>, live: Option<&Value>, applied: Option<&Value>) -> Option<Value> {
    let shape = typed.shape([live, applied]);
    if shape == Shape::Leaf || (is_hollow(live) && is_hollow(applied)) {
        return applied.or(live).cloned();
    }
    if shape == Shape::List {
        let merged = list(typed, items(live), items(applied));
        return (!merged.is_empty()).then_some(Value::Array(merged));
    }
    let mut merged = Map::new();
    for (key, live, applied) in zip(&fields(live), &fields(applied)) {
        if let Some(value) = merge(typed.field(key), live, applied) {
            let _absent = merged.insert(key.clone(), value);
        }
    }
    (!merged.is_empty()).then_some(Value::Object(merged))
}

/// The applied order rules among the elements that are applied; live elements keep their places between them.
fn list(typed: Typed<'_>, live: &[Value], applied: &[Value]) -> Vec<Value> {
    let live_names: Vec<String> = live.iter().map(|item| typed.name_of(item)).collect();
    let applied_names: Vec<String> = applied.iter().map(|item| typed.name_of(item)).collect();
    let mut live_by_name: HashMap<&str, Option<&Value>> = HashMap::new();
    for (name, item) in live_names.iter().zip(live) {
        // Elements that share their name are not merged with what is applied: it replaces the first of them.
        live_by_name.entry(name).and_modify(|seen| *seen = None).or_insert(Some(item));
    }
    let is_applied: HashSet<&str> = applied_names.iter().map(String::as_str).collect();
    let mut shared = applied_names.iter().filter(|name| live_by_name.contains_key(name.as_str())).peekable();
    let mut done: HashSet<&str> = HashSet::new();
    let mut merged = Vec::with_capacity(live.len().max(applied.len()));
    let mut lives = live_names.iter().zip(live).peekable();
    let mut applies = applied_names.iter().zip(applied).peekable();
    loop {
        if let (Some((live_name, _)), Some((applied_name, _))) = (lives.peek(), applies.peek()) {
            let is_same = live_name == applied_name;
            let waits = !is_same && is_applied.contains(live_name.as_str());
            if waits && shared.peek().is_some_and(|next| next != live_name) {
                // It is applied too, but later: its turn comes with the applied order.
                let _skipped = lives.next();
                continue;
            }
        }
        if let Some((name, item)) = lives.peek().copied() {
            if !is_applied.contains(name.as_str()) {
                merged.extend(merge(typed.item(), Some(item), None));
                let _taken = lives.next();
                continue;
            }
            let next_is_same = applies.peek().is_some_and(|(applied, _)| *applied == name);
            if next_is_same || done.contains(name.as_str()) {
                let _taken_with_the_applied_one = lives.next();
            }
        }
        match applies.next() {
            Some((name, item)) => {
                done.insert(name);
                let old = live_by_name.get(name.as_str()).copied().flatten();
                merged.extend(merge(typed.item(), old, Some(item)));
                if shared.peek() == Some(&name) {
                    let _advanced = shared.next();
                }
            }
            None if lives.peek().is_none() => return merged,
            None => {
                let _already_merged = lives.next();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Schema;

    fn merged(live: Value, applied: Value) -> Value {
        let schema = Schema::from_openapi(&json!({"type": "array", "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["n"], "items": {"type": "object", "properties": {
                "n": {"type": "string"}, "a": {"type": "integer"}, "b": {"type": "integer"}}}}))
        .unwrap();
        merge(Typed::of(&schema), Some(&live), Some(&applied)).unwrap()
    }

    fn names(list: &str) -> Value {
        list.chars().map(|c| json!({"n": c.to_string()})).collect()
    }

    #[test]
    fn keyed_lists_should_merge_by_key_and_keep_what_is_not_applied() {
        assert_eq!(
            merged(json!([{"n": "x", "a": 1}, {"n": "y"}]), json!([{"n": "x", "b": 2}])),
            json!([{"n": "x", "a": 1, "b": 2}, {"n": "y"}])
        );
    }

    #[test]
    fn the_applied_order_should_rule_where_it_says_something() {
        for (live, applied, result) in [
            ("ab", "ab", "ab"),
            ("ab", "ba", "ba"),
            ("abc", "b", "abc"),
            ("a", "xay", "xay"),
            ("abc", "cxa", "bcxa"),
            ("", "ab", "ab"),
            ("abcd", "dcba", "dcba"),
        ] {
            assert_eq!(merged(names(live), names(applied)), names(result), "{live} + {applied}");
        }
    }
}
