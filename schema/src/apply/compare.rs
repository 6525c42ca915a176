//! What changed between two objects, as sets of fields.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Reset;
use super::field_set::FieldSet;
use super::typed::{Shape, Typed, fields, is_hollow, items, zip};
use crate::Schema;

/// No field is in more than one of the sets.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Diff {
    pub added: FieldSet,
    pub modified: FieldSet,
    pub removed: FieldSet,
}

/// What happened to a node itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Same,
    Added,
    Modified,
    Removed,
}

/// Compares two objects; null is the object that does not exist.
pub(super) fn compare(schema: &Schema, old: &Value, new: &Value) -> Diff {
    let exists = |value: &&Value| !value.is_null();
    let (_, diff) = node(Typed::of(schema), Some(old).filter(exists), Some(new).filter(exists));
    diff
}

impl Diff {
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }

    /// Forgets what the endpoint resets.
    pub fn without(mut self, reset: Reset<'_>) -> Diff {
        for set in [&mut self.added, &mut self.modified, &mut self.removed] {
            reset.filter(set);
        }
        self
    }

    /// The fields that now hold something they did not.
    pub fn set_fields(&self) -> FieldSet {
        let mut fields = self.modified.clone();
        fields.unite(&self.added);
        fields
    }

    fn put(&mut self, element: impl FnOnce() -> String, change: Change, below: Diff) {
        if change == Change::Same && below.is_empty() {
            return;
        }
        let element = element();
        self.added.put(element.clone(), change == Change::Added, below.added);
        self.modified.put(element.clone(), change == Change::Modified, below.modified);
        self.removed.put(element, change == Change::Removed, below.removed);
    }
}

impl Reset<'_> {
    /// Takes out what is reset.
    pub(super) fn filter(self, set: &mut FieldSet) {
        match self {
            Reset::Nothing => {}
            Reset::Subtrees(paths) => {
                for path in paths {
                    set.remove_subtree(&path.split('.').collect::<Vec<_>>());
                }
            }
            Reset::AllBut(paths) => *set = set.only_subtrees(paths),
        }
    }
}

fn node(typed: Typed<'_>, old: Option<&Value>, new: Option<&Value>) -> (Change, Diff) {
    let shape = typed.shape([old, new]);
    if shape == Shape::Leaf || (is_hollow(old) && is_hollow(new)) {
        let change = match (old, new) {
            (None, None) => Change::Same,
            (None, Some(_)) => Change::Added,
            (Some(_), None) => Change::Removed,
            (Some(old), Some(new)) if old == new => Change::Same,
            (Some(_), Some(_)) => Change::Modified,
        };
        return (change, Diff::default());
    }
    let below = if shape == Shape::Map { map(typed, old, new) } else { list(typed, old, new) };
    let change = match (old, new) {
        (None, _) => Change::Added,
        (_, None) => Change::Removed,
        _ => Change::Same,
    };
    (change, below)
}

fn map(typed: Typed<'_>, old: Option<&Value>, new: Option<&Value>) -> Diff {
    let mut diff = Diff::default();
    for (key, old, new) in zip(&fields(old), &fields(new)) {
        let (mut change, below) = node(typed.field(key), old, new);
        if change == Change::Added && !below.is_empty() && typed.is_structure(key) {
            change = Change::Same;
        }
        diff.put(|| format!("f:{key}"), change, below);
    }
    diff
}

fn list(typed: Typed<'_>, old: Option<&Value>, new: Option<&Value>) -> Diff {
    let mut diff = Diff::default();
    if old == new {
        return diff;
    }
    let mut both: BTreeMap<String, [Vec<&Value>; 2]> = BTreeMap::new();
    for item in items(old) {
        both.entry(typed.name_of(item)).or_default()[0].push(item);
    }
    for item in items(new) {
        both.entry(typed.name_of(item)).or_default()[1].push(item);
    }
    for (name, [old, new]) in both {
        match (old.as_slice(), new.as_slice()) {
            ([_, _, ..], [_, _, ..]) => {
                let change = if old == new { Change::Same } else { Change::Modified };
                diff.put(|| name, change, Diff::default());
            }
            // Elements that share their name are owned as one, without a look inside.
            ([_, _, ..], new) => {
                let (_, below) = node(typed.item(), None, new.first().copied());
                diff.put(|| name, Change::Removed, below);
            }
            (old, [_, _, ..]) => {
                let (_, below) = node(typed.item(), old.first().copied(), None);
                diff.put(|| name, Change::Added, below);
            }
            (old, new) => {
                let (change, below) = node(typed.item(), old.first().copied(), new.first().copied());
                diff.put(|| name, change, below);
            }
        }
    }
    diff
}
