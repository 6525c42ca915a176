//! How a strategic merge patch merges lists: by merge key or as sets, in an order that honours the patch first, then
//! the live list.

use serde_json::{Map, Value};

use super::{DIRECTIVE, ELEMENT_ORDER, Field, PatchError, clean, merge_map, unknown_directive};
use crate::Schema;

/// Merges a list of the patch into the live one.
pub(super) fn merge(
    items: &Schema,
    live: Vec<Value>,
    patch: Vec<Value>,
    merge_key: Option<&str>,
    deletes: bool,
) -> Result<Vec<Value>, PatchError> {
    if live.is_empty() && patch.is_empty() {
        return Ok(live);
    }
    if !are_objects(&live, &patch)? {
        if deletes {
            return Ok(live.into_iter().filter(|value| !patch.contains(value)).collect());
        }
        let mut merged = live.clone();
        for value in &patch {
            if !merged.contains(value) {
                merged.push(value.clone());
            }
        }
        return Ok(in_order(merged, &patch, &live, None));
    }
    let Some(key) = merge_key else {
        let name = items.name.as_deref().unwrap_or("object");
        return Err(PatchError::Malformed(format!("cannot merge lists without merge key for {name}")));
    };
    let (live, patch) = follow_directives(live, patch, key)?;
    let mut merged = live.clone();
    for item in &patch {
        let Value::Object(item) = item else { continue };
        let identity = identity(item, key)?;
        match merged.iter_mut().find(|old| old.get(key) == Some(identity)) {
            Some(Value::Object(old)) => merge_map(items, item.clone(), old)?,
            _ => merged.extend(clean(Value::Object(item.clone()))),
        }
    }
    require_key(&merged, key)?;
    Ok(in_order(merged, &patch, &live, Some(key)))
}

/// Carries out the directives among the elements of the patch; returns both lists without them.
fn follow_directives(
    mut live: Vec<Value>,
    patch: Vec<Value>,
    key: &str,
) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
    let mut plain = Vec::with_capacity(patch.len());
    let mut replaces = false;
    for item in patch {
        let Some(directive) = item.get(DIRECTIVE) else {
            plain.push(item);
            continue;
        };
        let Value::Object(map) = &item else { continue };
        match directive.as_str() {
            Some("delete") => {
                let identity = identity(map, key)?;
                live.retain(|old| old.get(key) != Some(identity));
            }
            Some("replace") => replaces = true,
            Some("merge") => {
                let why = "merging lists cannot yet be specified in the patch";
                return Err(PatchError::Malformed(why.to_string()));
            }
            _ => return Err(unknown_directive(directive, map)),
        }
    }
    Ok(if replaces { (plain, Vec::new()) } else { (live, plain) })
}

/// Carries out all `$setElementOrder` directives with the lists that they order, and takes both out of the patch.
pub(super) fn order_elements(
    schema: &Schema,
    patch: &mut Map<String, Value>,
    target: &mut Map<String, Value>,
) -> Result<(), PatchError> {
    let directives: Vec<String> =
        patch.keys().filter(|key| key.starts_with(ELEMENT_ORDER)).cloned().collect();
    for directive in directives {
        let name = directive.strip_prefix(ELEMENT_ORDER).unwrap_or_default();
        let order = list(patch.remove(&directive).unwrap_or_default())?;
        let live = target.get(name).cloned().map(list).transpose()?;
        let patched = patch.remove(name).map(list).transpose()?;
        let field = Field::of(schema, name)?;
        let key = field.merge_key();
        if let Some(patched) = &patched {
            check_order(patched, &order, key)?;
        }
        let merged = match (&live, patched) {
            (None, None) => continue,
            (Some(live), None) => live.clone(),
            (None, Some(patched)) => patched.into_iter().filter_map(clean).collect(),
            (Some(live), Some(patched)) if field.merges_lists() => {
                merge(field.items(), live.clone(), patched, key, false)?
            }
            (Some(_), Some(patched)) => patched.into_iter().filter_map(clean).collect(),
        };
        if let Some(key) = key {
            require_key(&merged, key)?;
        }
        let ordered = in_order(merged, &order, &live.unwrap_or_default(), key);
        let _old = target.insert(name.to_string(), ordered.into());
    }
    Ok(())
}

/// The elements of the patch have to stand in the order that the patch sets.
fn check_order(patched: &[Value], order: &[Value], key: Option<&str>) -> Result<(), PatchError> {
    let mut rest = order.iter();
    for item in patched.iter().filter(|item| item.get(DIRECTIVE).is_none()) {
        if !rest.any(|ordered| is_same(ordered, item, key)) {
            let (patched, order) = (Value::from(patched), Value::from(order));
            return Err(PatchError::Unprocessable(format!(
                "The order in patch list:\n{patched}\n doesn't match $setElementOrder list:\n{order}\n"
            )));
        }
    }
    Ok(())
}

/// What the patch names comes in the patch's order, the rest in the live order; where both have a place in the live
/// list, that decides how they mix.
fn in_order(merged: Vec<Value>, order: &[Value], live: &[Value], key: Option<&str>) -> Vec<Value> {
    let place = |list: &[Value], item: &Value| list.iter().position(|other| is_same(other, item, key));
    let (mut named, mut others): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| place(order, item).is_some());
    named.sort_by_key(|item| place(order, item));
    others.sort_by_key(|item| place(live, item).unwrap_or(usize::MAX));
    let mut all = Vec::with_capacity(named.len() + others.len());
    let mut others = others.into_iter().peekable();
    for item in named {
        let own_place = place(live, &item);
        while let Some(other) = others.next_if(|other| place(live, other) < own_place && own_place.is_some())
        {
            all.push(other);
        }
        all.push(item);
    }
    all.extend(others);
    all
}

fn is_same(a: &Value, b: &Value, key: Option<&str>) -> bool {
    match key {
        None => a == b,
        Some(key) => a.get(key).is_some() && a.get(key) == b.get(key),
    }
}

/// Whether both lists hold objects, rather than scalars.
fn are_objects(live: &[Value], patch: &[Value]) -> Result<bool, PatchError> {
    let mut all = live.iter().chain(patch);
    let objects = all.clone().all(Value::is_object);
    if all.clone().any(Value::is_array) {
        return Err(PatchError::Unprocessable("lists of lists are not supported".to_string()));
    }
    if !objects && all.any(Value::is_object) {
        return Err(PatchError::Malformed("invalid patch format of primitive list".to_string()));
    }
    Ok(objects)
}

fn identity<'a>(item: &'a Map<String, Value>, key: &str) -> Result<&'a Value, PatchError> {
    item.get(key).ok_or_else(|| no_key(&Value::Object(item.clone()), key))
}

fn require_key(list: &[Value], key: &str) -> Result<(), PatchError> {
    match list.iter().find(|item| item.get(key).is_none()) {
        Some(item) => Err(no_key(item, key)),
        None => Ok(()),
    }
}

fn no_key(item: &Value, key: &str) -> PatchError {
    PatchError::Malformed(format!("map: {item} does not contain declared merge key: {key}"))
}

fn list(value: Value) -> Result<Vec<Value>, PatchError> {
    match value {
        Value::Array(list) => Ok(list),
        other => Err(PatchError::Malformed(format!("expected a list, but received {other}"))),
    }
}
