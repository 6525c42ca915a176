//! JSON trees as the values that expressions see.

use std::collections::HashMap;
use std::sync::Arc;

use cel::objects::{Key, Map};
use schema::{Schema, Type};
use serde_json::Value;

/// A tree under its schema: numbers are integers or doubles as the schema says, and described fields have names that an
/// expression can write.
pub(crate) fn of_json(schema: &Schema, value: &Value) -> cel::Value {
    match value {
        Value::Null => cel::Value::Null,
        Value::Bool(flag) => cel::Value::Bool(*flag),
        Value::String(text) => cel::Value::String(Arc::new(text.clone())),
        Value::Number(number) => match number.as_i64() {
            Some(whole) if schema.value_type != Type::Number => cel::Value::Int(whole),
            _ => cel::Value::Float(number.as_f64().unwrap_or_default()),
        },
        Value::Array(items) => {
            let described = schema.items.as_ref().map_or_else(|| &**Schema::anything(), |link| link.get());
            cel::Value::List(Arc::new(items.iter().map(|item| of_json(described, item)).collect()))
        }
        Value::Object(fields) => {
            let entry = |(name, value): (&String, &Value)| {
                let written = if schema.property(name).is_some() { escaped(name) } else { name.clone() };
                let described = schema.field(name).unwrap_or_else(|| Schema::anything());
                (Key::String(Arc::new(written)), of_json(described, value))
            };
            let map: HashMap<Key, cel::Value> = fields.iter().map(entry).collect();
            cel::Value::Map(Map { map: Arc::new(map) })
        }
    }
}

/// A field's name as expressions write it: what CEL cannot spell, or means something else by, is spelled out.
pub(super) fn escaped(name: &str) -> String {
    const RESERVED: [&str; 21] = [
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ];
    if RESERVED.contains(&name) {
        return format!("__{name}__");
    }
    let mut out = name.replace("__", "__underscores__");
    for (sign, spelled) in [(".", "__dot__"), ("-", "__dash__"), ("/", "__slash__")] {
        out = out.replace(sign, spelled);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_should_be_spelled_as_upstream_spells_them() {
        for (name, spelled) in [
            ("plain", "plain"),
            ("namespace", "__namespace__"),
            ("x-y", "x__dash__y"),
            ("a.b/c", "a__dot__b__slash__c"),
            ("a__b", "a__underscores__b"),
        ] {
            assert_eq!(escaped(name), spelled);
        }
    }
}
