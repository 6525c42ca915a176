//! Strategic merge patch: a merge patch that knows from the schema how lists are merged, with directives.
//!
//! Directives: `$patch: delete|replace|merge`, `$retainKeys`, `$setElementOrder/<list>`,
//! `$deleteFromPrimitiveList/<list>`. Merging, its order and its errors follow upstream.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::PatchError;
use crate::Schema;
use crate::node::{Additional, Patch};

mod lists;

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const ELEMENT_ORDER: &str = "$setElementOrder/";
const DELETE_FROM_LIST: &str = "$deleteFromPrimitiveList/";

/// Applies a strategic merge patch. On an error the target is half-changed and has to be dropped. Custom resources do
/// not take this patch type: the caller answers 415 for them.
pub fn apply(schema: &Schema, patch: &Value, target: &mut Value) -> Result<(), PatchError> {
    let Value::Object(patch) = patch else {
        return Err(PatchError::Malformed("a strategic merge patch is an object".to_string()));
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else { return Ok(()) };
    merge_map(schema, patch.clone(), target)
}

/// What a field of an object is and how it is patched.
struct Field<'s> {
    schema: &'s Schema,
    patch: Option<&'s Patch>,
}

impl<'s> Field<'s> {
    fn of(schema: &'s Schema, name: &str) -> Result<Self, PatchError> {
        if let Some(property) = schema.property(name) {
            return Ok(Self { schema: property.schema.get(), patch: property.patch.as_deref() });
        }
        match &schema.additional {
            Additional::Schema(link) => Ok(Self { schema: link.get(), patch: None }),
            Additional::Any => Ok(Self { schema: Schema::anything(), patch: None }),
            Additional::Unknown => {
                let structure = schema.name.as_deref().unwrap_or("object");
                Err(PatchError::Malformed(format!(
                    "unable to find api field in struct {structure} for the json field {name:?}"
                )))
            }
        }
    }

    fn merges_lists(&self) -> bool {
        self.patch.is_some_and(|patch| patch.merge)
    }

    fn replaces(&self) -> bool {
        self.patch.is_some_and(|patch| patch.replace)
    }

    fn merge_key(&self) -> Option<&'s str> {
        self.patch.and_then(|patch| patch.merge_key.as_deref())
    }

    fn items(&self) -> &'s Schema {
        self.schema.items.as_ref().map_or_else(|| &**Schema::anything(), |link| link.get())
    }
}

fn merge_map(
    schema: &Schema,
    mut patch: Map<String, Value>,
    target: &mut Map<String, Value>,
) -> Result<(), PatchError> {
    if let Some(directive) = patch.remove(DIRECTIVE) {
        match directive.as_str() {
            Some("replace") => *target = patch,
            Some("delete") => target.clear(),
            _ => return Err(unknown_directive(&directive, &patch)),
        }
        return Ok(());
    }
    retain_keys(&mut patch, target)?;
    lists::order_elements(schema, &mut patch, target)?;
    for (key, value) in patch {
        let (name, deletes) = match key.strip_prefix(DELETE_FROM_LIST) {
            Some(name) => (name, true),
            None => (key.as_str(), false),
        };
        merge_field(schema, name, value, deletes, target)?;
    }
    Ok(())
}

fn merge_field(
    schema: &Schema,
    name: &str,
    value: Value,
    deletes: bool,
    target: &mut Map<String, Value>,
) -> Result<(), PatchError> {
    if value.is_null() {
        let _gone = target.remove(name);
        return Ok(());
    }
    match (target.get_mut(name), value) {
        (Some(Value::Object(old)), Value::Object(new)) => {
            let field = Field::of(schema, name)?;
            if field.replaces() {
                *old = new;
                return Ok(());
            }
            merge_map(field.schema, new, old)
        }
        (Some(Value::Array(old)), Value::Array(new)) => {
            let field = Field::of(schema, name)?;
            if field.merges_lists() || deletes {
                let (items, key) = (field.items(), field.merge_key());
                *old = lists::merge(items, std::mem::take(old), new, key, deletes)?;
            } else {
                *old = match clean(Value::Array(new)) {
                    Some(Value::Array(new)) => new,
                    _ => Vec::new(),
                };
            }
            Ok(())
        }
        _ if deletes => Ok(()),
        (_, value) => {
            match clean(value) {
                Some(value) => target.insert(name.to_string(), value),
                None => target.remove(name),
            };
            Ok(())
        }
    }
}

/// `$retainKeys`: drops what it does not list; it has to list all that the patch sets.
fn retain_keys(patch: &mut Map<String, Value>, target: &mut Map<String, Value>) -> Result<(), PatchError> {
    let Some(directive) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let malformed = || PatchError::Malformed("invalid patch format of retainKeys".to_string());
    let listed = directive.as_array().ok_or_else(malformed)?;
    let listed: HashSet<&str> = listed.iter().filter_map(Value::as_str).collect();
    let is_listed = |key: &str| listed.contains(key);
    let is_directive = |key: &str| key.starts_with(DELETE_FROM_LIST) || key.starts_with(ELEMENT_ORDER);
    if patch.iter().any(|(key, value)| !value.is_null() && !is_directive(key) && !is_listed(key)) {
        return Err(malformed());
    }
    target.retain(|key, _| is_listed(key));
    Ok(())
}

/// A value of the patch that becomes part of the object: without nulls and directives. Nothing, when it is a directive
/// altogether.
fn clean(value: Value) -> Option<Value> {
    match value {
        Value::Object(map) if map.contains_key(DIRECTIVE) => None,
        Value::Object(map) => {
            let is_directive = |key: &str| {
                key == RETAIN_KEYS || key.starts_with(ELEMENT_ORDER) || key.starts_with(DELETE_FROM_LIST)
            };
            let kept = map.into_iter().filter(|(key, value)| !value.is_null() && !is_directive(key));
            Some(Value::Object(kept.filter_map(|(key, value)| Some((key, clean(value)?))).collect()))
        }
        Value::Array(list) => Some(Value::Array(list.into_iter().filter_map(clean).collect())),
        other => Some(other),
    }
}

fn unknown_directive(directive: &Value, within: &Map<String, Value>) -> PatchError {
    let within = Value::Object(within.clone());
    PatchError::Malformed(format!("unknown patch type: {directive} in map: {within}"))
}

#[cfg(test)]
mod tests;
