//! Which objects of a row a list or watch is about.

use std::fmt;
use std::sync::Arc;

use api::selector::{FieldSelector, FieldTerm, LabelSelector};
use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use super::watcher::EventType;
use super::{Cached, RowEvent};

/// A selection of objects.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    /// What the keys begin with.
    pub prefix: String,
    /// By labels.
    pub labels: LabelSelector,
    /// By fields.
    pub fields: FieldSelector,
    /// Whether fields are looked up in the object itself: those of a custom resource come and go with its definition,
    /// so that nothing is kept of them beside the object.
    pub by_path: bool,
}

impl Filter {
    /// Whether nothing but the prefix selects.
    pub fn is_prefix_only(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }

    /// Whether the object is selected.
    pub fn matches(&self, object: &Cached) -> bool {
        object.key.starts_with(&self.prefix)
            && self.labels.matches(&object.labels)
            && (self.fields.is_everything() || self.matches_fields(object))
    }

    /// Whether the content of objects selects them, which depends on the version that they are in.
    pub fn looks_inside(&self) -> bool {
        self.fields.terms.iter().any(|term| !self.is_at_hand(term))
    }

    /// Whether the object is selected as far as can be told in any version.
    pub fn may_match(&self, object: &Cached) -> bool {
        object.key.starts_with(&self.prefix)
            && self.labels.matches(&object.labels)
            && self.matches_at_hand(object)
    }

    /// What the key tells needs no look into the object.
    fn is_at_hand(&self, term: &FieldTerm) -> bool {
        !self.by_path || term.field.starts_with("metadata.")
    }

    fn matches_at_hand(&self, object: &Cached) -> bool {
        let mut terms = self.fields.terms.iter().filter(|term| self.is_at_hand(term));
        terms.all(|term| holds(term, field_of(object, &term.field)))
    }

    fn matches_fields(&self, object: &Cached) -> bool {
        let mut inside = self.fields.terms.iter().filter(|term| !self.is_at_hand(term));
        self.matches_at_hand(object) && inside.all(|term| holds(term, &text_at(&object.encoded, &term.field)))
    }

    /// What an event is to somebody who sees only the selected objects, and the object to show.
    pub fn transition<'a>(&self, event: &'a RowEvent) -> Option<(EventType, &'a Arc<Cached>)> {
        let old = event.old.as_ref().filter(|object| self.matches(object));
        let new = event.new.as_ref().filter(|object| self.matches(object));
        match (old, new) {
            (None, Some(new)) => Some((EventType::Added, new)),
            (Some(_), Some(new)) => Some((EventType::Modified, new)),
            // Gone, or no longer selected: as upstream, its last selected state.
            (Some(old), None) => Some((EventType::Deleted, old)),
            (None, None) => None,
        }
    }
}

fn holds(term: &FieldTerm, text: &str) -> bool {
    (term.value == text) == term.equal
}

/// The scalar at a path; nothing where there is none. Reads past everything else.
fn text_at(encoded: &[u8], path: &str) -> String {
    let mut document = serde_json::Deserializer::from_slice(encoded);
    match At(path).deserialize(&mut document) {
        Ok(Some(Value::String(text))) => text,
        Ok(Some(scalar @ (Value::Bool(_) | Value::Number(_)))) => scalar.to_string(),
        _ => String::new(),
    }
}

/// Decodes what is at a path.
struct At<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for At<'_> {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, document: D) -> Result<Option<Value>, D::Error> {
        if self.0.is_empty() {
            return Value::deserialize(document).map(Some);
        }
        document.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for At<'_> {
    type Value = Option<Value>;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<Value>, A::Error> {
        let (name, rest) = self.0.split_once('.').unwrap_or((self.0, ""));
        let mut found = None;
        while let Some(key) = map.next_key::<String>()? {
            if key == name {
                found = map.next_value_seed(At(rest))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

fn field_of<'a>(object: &'a Cached, field: &str) -> &'a str {
    match field {
        "metadata.name" => object.name(),
        "metadata.namespace" => object.namespace(),
        _ => object.fields.get(field).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_are_found_by_their_path_and_nothing_else_is() {
        let object =
            br#"{"kind":"W","metadata":{"name":"a"},"spec":{"other":{"color":"x"},"size":7,"on":true,
            "color":"b\"lue","list":[1],"deep":{"er":{"it":"is"}}}}"#;
        for (path, text) in [
            ("spec.color", "b\"lue"),
            ("spec.size", "7"),
            ("spec.on", "true"),
            ("spec.deep.er.it", "is"),
            ("spec.deep.er", ""),
            ("spec.list", ""),
            ("spec.color.more", ""),
            ("spec.none", ""),
            ("status.phase", ""),
        ] {
            assert_eq!(text_at(object, path), text, "{path}");
        }
        assert_eq!(text_at(b"broken", "spec.color"), "");
    }
}
