//! What selectors look at, read from an object's bytes without building its tree.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::pairs::Pairs;

/// How deep selectable fields of built-in kinds lie: `spec.nodeName`.
const DEPTH: u8 = 2;

/// The part of an object that selectors look at.
#[derive(Debug, Default)]
pub(super) struct Outline {
    /// Its labels.
    pub labels: Pairs,
    /// The scalars at its top and one level below; everything else is null. Empty where it was not asked for.
    pub scalars: Value,
}

impl Outline {
    /// Reads an object's bytes, with its scalars where they are asked for.
    pub fn read(bytes: &[u8], with_scalars: bool) -> Result<Self, serde_json::Error> {
        let mut deserializer = serde_json::Deserializer::from_slice(bytes);
        let outline = Top { with_scalars }.deserialize(&mut deserializer)?;
        deserializer.end()?;
        Ok(outline)
    }
}

/// The object itself.
struct Top {
    with_scalars: bool,
}

impl<'de> DeserializeSeed<'de> for Top {
    type Value = Outline;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Outline, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Top {
    type Value = Outline;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Outline, A::Error> {
        let mut outline = Outline::default();
        let mut scalars = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            if key == "metadata" {
                let metadata: Metadata = map.next_value()?;
                outline.labels = metadata.labels;
            } else if self.with_scalars {
                let _first = scalars.insert(key, map.next_value_seed(Scalars { depth: DEPTH - 1 })?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        if self.with_scalars {
            outline.scalars = Value::Object(scalars);
        }
        Ok(outline)
    }
}

#[derive(serde::Deserialize)]
struct Metadata {
    #[serde(default)]
    labels: Pairs,
}

/// A value of which scalars are kept, and the members of objects so many levels down.
#[derive(Clone, Copy)]
struct Scalars {
    depth: u8,
}

impl<'de> DeserializeSeed<'de> for Scalars {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Scalars {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Null)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        if self.depth == 0 {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(Value::Null);
        }
        let mut kept = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let value = map.next_value_seed(Scalars { depth: self.depth - 1 })?;
            if !value.is_null() {
                let _first = kept.insert(key, value);
            }
        }
        Ok(Value::Object(kept))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn scalars_and_labels_should_be_kept_and_nothing_else() {
        let object = json!({"kind": "Pod", "metadata": {"name": "web", "labels": {"b": "2", "a": "1"}, "x": [1]},
            "spec": {"nodeName": "n1", "hostNetwork": true, "containers": [{"name": "c"}], "deep": {"er": 1}},
            "status": {"count": 3, "share": 0.5, "none": null}, "type": "Opaque", "list": [{"a": 1}]});
        let bytes = object.to_string();
        let outline = Outline::read(bytes.as_bytes(), true).unwrap();
        assert_eq!(outline.labels.iter().collect::<Vec<_>>(), [("a", "1"), ("b", "2")]);
        assert_eq!(
            outline.scalars,
            json!({"kind": "Pod", "spec": {"nodeName": "n1", "hostNetwork": true}, "type": "Opaque", "list": null,
                "status": {"count": 3, "share": 0.5}})
        );
        assert!(Outline::read(bytes.as_bytes(), false).unwrap().scalars.is_null());
    }

    #[test]
    fn what_is_no_object_should_be_refused() {
        for text in ["", "[]", "7", "{\"metadata\":7}", "{} {}", "{\"a\":"] {
            assert!(Outline::read(text.as_bytes(), true).is_err(), "{text}");
        }
    }
}
