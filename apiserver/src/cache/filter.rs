//! Which objects of a row a list or watch is about.

use std::sync::Arc;

use api::selector::{FieldSelector, LabelSelector, Labels};
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

/// The labels of a cached object, sorted by name.
struct CachedLabels<'a>(&'a Cached);

impl Labels for CachedLabels<'_> {
    fn label(&self, key: &str) -> Option<&str> {
        let labels = &self.0.labels;
        let index = labels.binary_search_by(|(name, _)| (**name).cmp(key)).ok()?;
        labels.get(index).map(|(_, value)| &**value)
    }
}

impl Filter {
    /// Whether nothing but the prefix selects.
    pub fn is_prefix_only(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }

    /// Whether the object is selected.
    pub fn matches(&self, object: &Cached) -> bool {
        object.key.starts_with(&self.prefix)
            && self.labels.matches(&CachedLabels(object))
            && (self.fields.is_everything() || self.matches_fields(object))
    }

    fn matches_fields(&self, object: &Cached) -> bool {
        if !self.by_path {
            return self.fields.matches(|field| field_of(object, field));
        }
        let tree = object.tree();
        let texts: Vec<(&str, String)> =
            self.fields.terms.iter().map(|term| (term.field.as_str(), text_at(&tree, &term.field))).collect();
        let text_of = |field: &str| texts.iter().find(|(name, _)| *name == field);
        self.fields.matches(|field| text_of(field).map_or("", |(_, text)| text))
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

/// The scalar at a path; nothing where there is none.
fn text_at(tree: &Value, path: &str) -> String {
    match path.split('.').try_fold(tree, |here, name| here.get(name)) {
        Some(Value::String(text)) => text.clone(),
        Some(scalar @ (Value::Bool(_) | Value::Number(_))) => scalar.to_string(),
        _ => String::new(),
    }
}

fn field_of<'a>(object: &'a Cached, field: &str) -> &'a str {
    match field {
        "metadata.name" => object.name(),
        "metadata.namespace" => object.namespace(),
        _ => object.fields.iter().find(|(name, _)| name == field).map_or("", |(_, value)| value),
    }
}
