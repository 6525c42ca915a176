//! The overlay: what `k8s-openapi`'s schemas lack, merged into them as the OpenAPI extensions that say the same.

use std::collections::HashMap;
use std::sync::OnceLock;

use serde_json::{Map, Value};

const TEXT: &str = include_str!("overlay.txt");
const COMMON_PREFIX: &str = "io.k8s.api.";

type Lines = Vec<&'static str>;

fn sections() -> &'static HashMap<&'static str, Lines> {
    static SECTIONS: OnceLock<HashMap<&'static str, Lines>> = OnceLock::new();
    SECTIONS.get_or_init(|| {
        let mut sections: HashMap<&str, Lines> = HashMap::new();
        let mut head = "";
        for line in TEXT.lines().filter(|line| !line.starts_with('#')) {
            match line.strip_prefix("  ") {
                Some(line) => sections.entry(head).or_default().push(line),
                None => head = line,
            }
        }
        sections
    })
}

/// Completes the definition of that name. Lines for fields that it does not have are passed over.
pub(super) fn complete(name: &str, definition: &mut Value) {
    let Some(definition) = definition.as_object_mut() else { return };
    // The structs hold metadata by value, so the source takes it for required wherever it appears at the top.
    set_required(definition, "metadata", false);
    let short = name.strip_prefix(COMMON_PREFIX).unwrap_or(name);
    for line in sections().get(short).into_iter().flatten() {
        let (field, words) = line.split_once(' ').unwrap_or((line, ""));
        if field == "." {
            annotate(definition, words);
            continue;
        }
        let (words, default) = match words.split_once("default ") {
            Some((words, default)) => (words, serde_json::from_str(default).ok()),
            None => (words, None),
        };
        for word in words.split_whitespace().filter(|w| matches!(*w, "required" | "optional")) {
            set_required(definition, field, word == "required");
        }
        let property = definition.get_mut("properties").and_then(|p| p.get_mut(field));
        let Some(property) = property.and_then(Value::as_object_mut) else { continue };
        annotate(property, words);
        if let Some(default) = default {
            let _absent: Option<Value> = property.insert("default".to_string(), default);
        }
    }
}

fn set_required(definition: &mut Map<String, Value>, field: &str, required: bool) {
    let mut list = match definition.remove("required") {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    };
    list.retain(|name| name != field);
    if required {
        list.push(field.into());
    }
    if !list.is_empty() {
        let _absent: Option<Value> = definition.insert("required".to_string(), list.into());
    }
}

fn annotate(node: &mut Map<String, Value>, words: &str) {
    if let Some(unions) = words.strip_prefix("unions ") {
        put(node, "unions", serde_json::from_str(unions).unwrap_or_default());
        return;
    }
    for word in words.split_whitespace() {
        let (name, arguments) = match word.strip_suffix(')').and_then(|w| w.split_once('(')) {
            Some((name, arguments)) => (name, Some(arguments)),
            None => (word, None),
        };
        match name {
            "atomic" | "set" | "map" => {
                put(node, "list-type", name.into());
                if let Some(keys) = arguments {
                    put(node, "list-map-keys", keys.split(',').map(Value::from).collect());
                }
            }
            "atomic-map" => put(node, "map-type", "atomic".into()),
            "granular-map" => put(node, "map-type", "granular".into()),
            "required" | "optional" => {}
            strategy => {
                put(node, "patch-strategy", strategy.into());
                if let Some(key) = arguments {
                    put(node, "patch-merge-key", key.into());
                }
            }
        }
    }
}

fn put(node: &mut Map<String, Value>, extension: &str, value: Value) {
    let _absent: Option<Value> = node.insert(format!("x-kubernetes-{extension}"), value);
}
