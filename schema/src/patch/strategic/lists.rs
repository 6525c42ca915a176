//! How a strategic merge patch merges lists: by merge key or as sets, in an order that honours the patch first, then
//! the live list.

use std::collections::{HashMap, HashSet};

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
            let gone = Places::of(&patch, None);
            return Ok(live.into_iter().filter(|value| gone.find(value).is_none()).collect());
        }
        let mut seen = HashSet::new();
        let both = live.iter().chain(&patch);
        let merged = both.filter(|value| seen.insert(value.to_string())).cloned().collect();
        return Ok(in_order(merged, &patch, &live, None));
    }
    let Some(key) = merge_key else {
        let name = items.name.as_deref().unwrap_or("object");
        return Err(PatchError::Malformed(format!("cannot merge lists without merge key for {name}")));
    };
    let (live, patch) = follow_directives(live, patch, key)?;
    let mut merged = live.clone();
    let mut places = Places::of(&merged, Some(key));
    for item in &patch {
        let Value::Object(map) = item else { continue };
        let _present = identity(map, key)?;
        match places.find(item).and_then(|at| merged.get_mut(at)) {
            Some(Value::Object(old)) => merge_map(items, map.clone(), old)?,
            _ => {
                places.add(item, merged.len());
                merged.extend(clean(item.clone()));
            }
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
    let mut gone = HashSet::new();
    let mut replaces = false;
    for item in patch {
        let Some(directive) = item.get(DIRECTIVE) else {
            plain.push(item);
            continue;
        };
        let Value::Object(map) = &item else { continue };
        match directive.as_str() {
            Some("delete") => {
                let _again = gone.insert(identity(map, key)?.clone());
            }
            Some("replace") => replaces = true,
            Some("merge") => {
                let why = "merging lists cannot yet be specified in the patch";
                return Err(PatchError::Malformed(why.to_string()));
            }
            _ => return Err(unknown_directive(directive, map)),
        }
    }
    live.retain(|old| old.get(key).is_none_or(|identity| !gone.contains(identity)));
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
    let places = Places::of(order, key);
    let mut next = 0;
    for item in patched.iter().filter(|item| item.get(DIRECTIVE).is_none()) {
        match places.find(item).filter(|at| *at >= next) {
            Some(at) => next = at + 1,
            None => {
                let (patched, order) = (Value::from(patched), Value::from(order));
                return Err(PatchError::Unprocessable(format!(
                    "The order in patch list:\n{patched}\n doesn't match $setElementOrder list:\n{order}\n"
                )));
            }
        }
    }
    Ok(())
}

/// Where in a list what stands.
struct Places<'k> {
    key: Option<&'k str>,
    by_identity: HashMap<String, usize>,
}

impl<'k> Places<'k> {
    fn of(list: &[Value], key: Option<&'k str>) -> Self {
        let mut places = Self { key, by_identity: HashMap::with_capacity(list.len()) };
        for (at, item) in list.iter().enumerate() {
            places.add(item, at);
        }
        places
    }

    /// The first one of an identity counts.
    fn add(&mut self, item: &Value, at: usize) {
        if let Some(identity) = self.identity(item) {
            let _first = self.by_identity.entry(identity).or_insert(at);
        }
    }

    fn find(&self, item: &Value) -> Option<usize> {
        self.by_identity.get(&self.identity(item)?).copied()
    }

    fn identity(&self, item: &Value) -> Option<String> {
        match self.key {
            None => Some(item.to_string()),
            Some(key) => item.get(key).map(Value::to_string),
        }
    }
}

/// What the patch names comes in the patch's order, the rest in the live order; where both have a place in the live
/// list, that decides how they mix.
fn in_order(merged: Vec<Value>, order: &[Value], live: &[Value], key: Option<&str>) -> Vec<Value> {
    let (named_places, live_places) = (Places::of(order, key), Places::of(live, key));
    let (mut named, mut others): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| named_places.find(item).is_some());
    named.sort_by_cached_key(|item| named_places.find(item));
    others.sort_by_cached_key(|item| live_places.find(item).unwrap_or(usize::MAX));
    let mut all = Vec::with_capacity(named.len() + others.len());
    let mut others = others.into_iter().peekable();
    for item in named {
        if let Some(own_place) = live_places.find(&item) {
            let goes_before = |other: &Value| live_places.find(other).is_some_and(|place| place < own_place);
            while let Some(other) = others.next_if(goes_before) {
                all.push(other);
            }
        }
        all.push(item);
    }
    all.extend(others);
    all
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
