//! Writing into JSON trees without a panic when something is not what it should be.

use serde_json::{Map, Value};

/// Sets the field at the end of a path; whatever stands in the way becomes an object.
pub(crate) fn set(tree: &mut Value, path: &[&str], value: impl Into<Value>) {
    let mut here = tree;
    for name in path {
        if !here.is_object() {
            *here = Value::Object(Map::new());
        }
        let Some(map) = here.as_object_mut() else { return };
        here = map.entry((*name).to_string()).or_insert(Value::Null);
    }
    *here = value.into();
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_stands_in_the_way_should_become_an_object() {
        let mut tree = json!({"a": 1});
        set(&mut tree, &["a", "b"], 2);
        set(&mut tree, &["c"], "x");
        assert_eq!(tree, json!({"a": {"b": 2}, "c": "x"}));
    }
}
