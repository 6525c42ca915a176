//! Server-side apply and the tracking of who owns which field.
//!
//! Guarantees: what every write does to `metadata.managedFields` is decided here and nowhere else. Entries remember the
//! `apiVersion` they were written in; fields are taken to have the same paths in all versions of a kind, so nothing is
//! converted between them. Assumes objects that went through [`crate::conform`].
//! Deliberately absent: reconciling old field sets after a schema has changed between atomic and granular.

use serde_json::Value;

use crate::{FieldError, Schema};

mod check;
mod collect;
mod compare;
mod field_set;
mod last_applied;
mod managers;
mod merge;
mod typed;

pub use field_set::FieldSet;

use collect::{collect, remove, with_structures};
use compare::{Diff, compare};
use managers::{Entry, Operation};
use typed::Typed;

/// Fields that nobody comes to own through an endpoint, because it resets them. Paths are dotted: `metadata.labels`.
#[derive(Clone, Copy, Debug, Default)]
pub enum Reset<'a> {
    /// None.
    #[default]
    Nothing,
    /// These, with all below: `["status"]` on writes to the object itself where it has a status subresource.
    Subtrees(&'a [&'a str]),
    /// All but these and what is below: `["status"]` on writes to `/status`.
    AllBut(&'a [&'a str]),
}

/// Who writes, and how.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// The field manager, see [`manager_name`].
    pub manager: &'a str,
    /// The version in which the request speaks: `apps/v1`.
    pub api_version: &'a str,
    /// The subresource written to, or the empty string.
    pub subresource: &'a str,
    /// The time of the request, RFC 3339 with seconds.
    pub now: &'a str,
    /// What the endpoint resets.
    pub reset: Reset<'a>,
}

/// Why an apply fails.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ApplyError {
    /// Others own fields that the request changes: 409 Conflict, with a cause per field (`FieldManagerConflict`).
    /// Retrying with force takes them over.
    #[error("{message}")]
    Conflicts {
        /// For people.
        message: String,
        /// One per field; the reason is `FieldManagerConflict`.
        causes: Vec<FieldError>,
    },
    /// The request is wrong: 400 BadRequest.
    #[error("{0}")]
    Invalid(String),
    /// The configuration does not fit the schema (`.spec.foo: field not declared in schema`). Upstream answers 500
    /// InternalError with this message.
    #[error("failed to create typed patch object ({object}): {why}")]
    NotTyped {
        /// Namespace, name and kind: `default/web; apps/v1, Kind=Deployment`.
        object: String,
        /// What does not fit.
        why: String,
    },
}

/// The manager that a request without `fieldManager` writes as: the client's name from its user agent.
pub fn manager_name(user_agent: &str) -> String {
    let name = user_agent.split('/').next().unwrap_or_default();
    name.chars().filter(|c| !c.is_control()).take(128).collect()
}

/// Merges what the manager applies into the live object (null when there is none) and returns the result, with its
/// new `metadata.managedFields`. `applied` must not carry managed fields. When nothing changes at all, the result
/// equals the live object.
pub fn apply(
    schema: &Schema,
    live: &Value,
    applied: &Value,
    writer: &Writer<'_>,
    force: bool,
) -> Result<Value, ApplyError> {
    check(schema, applied, writer.api_version)?;
    let mut bare = live.clone();
    let managed = managers::take(&mut bare);
    let managed = managers::decode(managed)
        .map_err(|why| ApplyError::Invalid(format!("failed to decode managed fields: {why}")))?;
    let attempt = Attempt { schema, live: &bare, applied, writer };
    let result = match attempt.run(managed.clone(), force) {
        Err(Conflicting(conflicts)) => {
            let serious = last_applied::without_own(schema, &bare, writer, conflicts);
            if !serious.is_empty() {
                return Err(conflict_error(&serious));
            }
            attempt.run(managed, true)
        }
        done => done,
    };
    let (mut merged, mut entries) = result.map_err(|Conflicting(left)| conflict_error(&left))?;
    last_applied::refresh(&mut merged, applied, writer);
    keep_time_of_unchanged(live, &bare, &merged, &mut entries);
    managers::put(&mut merged, entries);
    Ok(merged)
}

/// Sets the managed fields of an object that another verb than apply has changed from `live` (null on create) to
/// `new`.
pub fn track_update(schema: &Schema, live: &Value, new: &mut Value, writer: &Writer<'_>) {
    let given = managers::take(new);
    let managed = if writer.subresource.is_empty() && managers::is_reset(&given) {
        Value::Null
    } else if !writer.subresource.is_empty() || given.is_null() {
        managers::of(live).clone()
    } else {
        given
    };
    let is_update = live.get("metadata").and_then(|m| m.get("uid")).is_some();
    let entries = match managers::decode(managed.clone()) {
        Ok(entries) if !entries.is_empty() => entries,
        _ => managers::decode(if managed.is_null() { Value::Null } else { managers::of(live).clone() })
            .unwrap_or_default(),
    };
    if entries.is_empty() && is_update {
        // Whoever has reset the managers, or never had any, is not tracked until the first apply.
        return;
    }
    let diff = compare(schema, live, new).without(writer.reset);
    let entries = settle_update(entries, &diff, writer);
    managers::put(new, entries);
}

/// What an update makes of the managers: they lose what was changed or removed, the writer owns what it set.
fn settle_update(mut entries: Vec<Entry>, diff: &Diff, writer: &Writer<'_>) -> Vec<Entry> {
    let mut own = diff.set_fields();
    if !diff.is_empty() {
        for entry in &mut entries {
            entry.fields = entry.fields.difference(&own).difference(&diff.removed);
        }
        entries.retain(|entry| !entry.fields.is_empty());
    }
    strip(&mut own);
    if !own.is_empty() {
        let mut entry = Entry::new(writer, Operation::Update, own);
        if let Some(at) = entries.iter().position(|old| old.is_of_same_manager(&entry)) {
            entry.fields.unite(&entries.swap_remove(at).fields);
        }
        entries.push(entry);
    }
    managers::cap(&mut entries);
    entries
}

/// What nobody owns: the envelope that names the object, and what the server sets.
fn strip(fields: &mut FieldSet) {
    const OF_METADATA: [&str; 10] = [
        ".",
        "f:name",
        "f:namespace",
        "f:creationTimestamp",
        "f:selfLink",
        "f:uid",
        "f:clusterName",
        "f:generation",
        "f:managedFields",
        "f:resourceVersion",
    ];
    fields.remove("f:apiVersion");
    fields.remove("f:kind");
    fields.retain_below("f:metadata", |key| !OF_METADATA.contains(&key));
}

/// Fields that others own.
struct Conflicting(Vec<(Entry, FieldSet)>);

struct Attempt<'a> {
    schema: &'a Schema,
    /// Without managed fields.
    live: &'a Value,
    applied: &'a Value,
    writer: &'a Writer<'a>,
}

impl Attempt<'_> {
    fn run(&self, managed: Vec<Entry>, force: bool) -> Result<(Value, Vec<Entry>), Conflicting> {
        let mut entries = managed;
        if entries.is_empty() && !self.live.is_null() {
            let first = Writer { manager: "before-first-apply", ..*self.writer };
            let diff = compare(self.schema, &Value::Null, self.live).without(first.reset);
            entries = settle_update(entries, &diff, &first);
        }
        let typed = Typed::of(self.schema);
        let live = Some(self.live).filter(|live| !live.is_null());
        let merged = merge::merge(typed, live, Some(self.applied)).unwrap_or_default();
        let mut own = collect(self.schema, self.applied);
        self.writer.reset.filter(&mut own);
        let own = Entry::new(self.writer, Operation::Apply, own);
        let at = entries.iter().position(|entry| entry.is_of_same_manager(&own));
        let last = at.map(|at| entries.swap_remove(at));
        let merged = match last.filter(|last| !last.fields.is_empty()) {
            Some(last) => self.prune(merged, &last.fields, &entries, &own.fields),
            None => merged,
        };
        self.take_over(&merged, &mut entries, force)?;
        let mut own = own;
        strip(&mut own.fields);
        if !own.fields.is_empty() {
            entries.push(own);
        }
        Ok((merged, entries))
    }

    /// Removes what this manager applied last time and does not apply now, unless somebody else owns it.
    fn prune(&self, merged: Value, last: &FieldSet, others: &[Entry], own: &FieldSet) -> Value {
        let typed = Typed::of(self.schema);
        let complete = |set: &FieldSet| with_structures(typed, set);
        let cut = |set: &FieldSet| remove(typed, &merged, set).unwrap_or_default();
        let last = complete(last);
        let all = complete(&collect(self.schema, &merged));

        let pruned = cut(&last);
        let mut keep = complete(&collect(self.schema, &pruned));
        let mut owned = own.clone();
        for other in others {
            owned.unite(&other.fields);
        }
        keep.unite(&complete(&owned));
        let pruned = cut(&all.difference(&keep));

        // Only what was this manager's may go.
        let left = complete(&collect(self.schema, &pruned));
        cut(&all.difference(&left).intersection(&last))
    }

    /// Takes from the others what this write changes or removes; without force, changing what is theirs is a conflict.
    fn take_over(&self, merged: &Value, entries: &mut Vec<Entry>, force: bool) -> Result<(), Conflicting> {
        let diff = compare(self.schema, self.live, merged).without(self.writer.reset);
        if diff.is_empty() {
            return Ok(());
        }
        let changed = diff.set_fields();
        let mut conflicts: Vec<(Entry, FieldSet)> = entries
            .iter()
            .map(|entry| (entry, entry.fields.intersection(&changed)))
            .filter(|(_, fields)| !fields.is_empty())
            .map(|(entry, fields)| (entry.clone(), fields))
            .collect();
        if !force && !conflicts.is_empty() {
            conflicts.sort_by_key(|(entry, _)| entry.shown());
            return Err(Conflicting(conflicts));
        }
        for entry in entries.iter_mut() {
            entry.fields = entry.fields.difference(&changed).difference(&diff.removed);
        }
        entries.retain(|entry| !entry.fields.is_empty());
        Ok(())
    }
}

/// A write that changes nothing must not look like one: entries that own what they owned keep their time.
fn keep_time_of_unchanged(live: &Value, bare: &Value, merged: &Value, entries: &mut [Entry]) {
    if bare != merged {
        return;
    }
    let before = managers::decode(managers::of(live).clone()).unwrap_or_default();
    for entry in entries {
        let old = before.iter().find(|old| old.is_of_same_manager(entry) && old.fields == entry.fields);
        if let Some(old) = old {
            entry.time.clone_from(&old.time);
        }
    }
}

/// Whether a configuration can be applied. To be asked before [`crate::conform`] drops what does not fit: unlike the
/// other verbs, apply takes nothing that nobody could own.
pub fn check(schema: &Schema, applied: &Value, api_version: &str) -> Result<(), ApplyError> {
    let text = |name: &str| applied.get(name).and_then(Value::as_str).unwrap_or_default();
    if text("apiVersion") != api_version {
        return Err(ApplyError::Invalid(format!(
            "Incorrect version specified in apply patch. Specified patch version: {}, expected: {}",
            text("apiVersion"),
            api_version
        )));
    }
    if !managers::of(applied).is_null() {
        return Err(ApplyError::Invalid("metadata.managedFields must be nil".to_string()));
    }
    let mut errors = check::faults(schema, applied);
    let why = match errors.len() {
        0 => return Ok(()),
        1 => errors.swap_remove(0),
        _ => format!("errors:\n  {}", errors.join("\n  ")),
    };
    let of = |name: &str| {
        let metadata = applied.get("metadata");
        metadata.and_then(|m| m.get(name)).and_then(Value::as_str).unwrap_or_default()
    };
    let object = format!("{}/{}; {}, Kind={}", of("namespace"), of("name"), text("apiVersion"), text("kind"));
    Err(ApplyError::NotTyped { object, why })
}

fn conflict_error(conflicts: &[(Entry, FieldSet)]) -> ApplyError {
    let mut causes = Vec::new();
    let mut by_manager = Vec::new();
    for (entry, fields) in conflicts {
        let manager = entry.shown();
        by_manager.push(format!("conflicts with {manager}:"));
        for path in fields.paths() {
            by_manager.push(format!("- {path}"));
            let message = format!("conflict with {manager}");
            causes.push(FieldError { reason: "FieldManagerConflict", field: path, message });
        }
    }
    let message = match causes.as_slice() {
        [only] => format!("Apply failed with 1 conflict: {}: {}", only.message, only.field),
        many => format!("Apply failed with {} conflicts: {}", many.len(), by_manager.join("\n")),
    };
    ApplyError::Conflicts { message, causes }
}

#[cfg(test)]
mod tests;
