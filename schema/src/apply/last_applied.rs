//! The way from client-side to server-side apply: `kubectl` takes over, without conflicts, what its own annotation says
//! it applied, and keeps the annotation up to date for clients that still read it.

use serde_json::{Map, Value};

use super::Writer;
use super::collect::collect;
use super::compare::compare;
use super::field_set::FieldSet;
use super::managers::Entry;
use crate::Schema;

const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// The only manager that does this.
const KUBECTL: &str = "kubectl";
/// What all annotations together may hold.
const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;

/// The conflicts that are left when those about fields of the last client-side apply are forgiven.
pub(super) fn without_own(
    schema: &Schema,
    live: &Value,
    writer: &Writer<'_>,
    conflicts: Vec<(Entry, FieldSet)>,
) -> Vec<(Entry, FieldSet)> {
    let Some(own) = own_fields(schema, live, writer) else { return conflicts };
    let forgiven = conflicts.into_iter().map(|(entry, fields)| {
        let left = fields.difference(&own);
        (entry, left)
    });
    forgiven.filter(|(_, fields)| !fields.is_empty()).collect()
}

/// The fields that the annotation names and that still hold what it says.
fn own_fields(schema: &Schema, live: &Value, writer: &Writer<'_>) -> Option<FieldSet> {
    if writer.manager != KUBECTL {
        return None;
    }
    let last: Value = serde_json::from_str(annotation(live)?).ok()?;
    if last.get("apiVersion").and_then(Value::as_str) != Some(writer.api_version) {
        return None;
    }
    let diff = compare(schema, &last, live);
    let named = collect(schema, &last);
    Some(named.difference(&diff.modified).difference(&diff.added).difference(&diff.removed))
}

/// Brings the annotation, if there is one, up to what was applied now.
pub(super) fn refresh(object: &mut Value, applied: &Value, writer: &Writer<'_>) {
    if writer.manager != KUBECTL || annotation(object).is_none_or(str::is_empty) {
        return;
    }
    let mut applied = applied.clone();
    if let Some(annotations) = annotations_of(&mut applied) {
        let _itself = annotations.remove(ANNOTATION);
    }
    let Some(annotations) = annotations_of(object) else { return };
    let _old = annotations.insert(ANNOTATION.to_string(), format!("{applied}\n").into());
    let size: usize = annotations.iter().map(|(k, v)| k.len() + v.as_str().map_or(0, str::len)).sum();
    if size > ANNOTATIONS_BYTES_MAX {
        let _too_large = annotations.remove(ANNOTATION);
    }
}

fn annotation(object: &Value) -> Option<&str> {
    object.get("metadata")?.get("annotations")?.get(ANNOTATION)?.as_str()
}

fn annotations_of(object: &mut Value) -> Option<&mut Map<String, Value>> {
    object.get_mut("metadata")?.get_mut("annotations")?.as_object_mut()
}
