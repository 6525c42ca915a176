//! The entries of `metadata.managedFields`.

use serde_json::{Map, Value, json};

use super::Writer;
use super::field_set::FieldSet;

/// More entries of non-apply writers than this are merged, the oldest first.
const UPDATE_ENTRIES_MAX: usize = 10;
/// Who owns what merged entries owned.
const MERGED_MANAGER: &str = "ancient-changes";

/// How a manager came to own its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Apply,
    Update,
}

/// One manager and what it owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub manager: String,
    pub operation: Operation,
    pub api_version: String,
    pub subresource: String,
    pub time: Option<String>,
    pub fields: FieldSet,
}

impl Entry {
    pub fn new(writer: &Writer<'_>, operation: Operation, fields: FieldSet) -> Self {
        let manager = if writer.manager.is_empty() { "unknown" } else { writer.manager };
        Self {
            manager: manager.to_string(),
            operation,
            api_version: writer.api_version.to_string(),
            subresource: writer.subresource.to_string(),
            time: Some(writer.now.to_string()),
            fields,
        }
    }

    /// Whether both are the same manager's: an applier is one whatever version it applies in.
    pub fn is_of_same_manager(&self, other: &Entry) -> bool {
        self.manager == other.manager
            && self.operation == other.operation
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }

    /// The manager as messages show it.
    pub fn shown(&self) -> String {
        let mut text = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if self.operation == Operation::Update {
            text.push_str(&format!(" using {}", self.api_version));
        }
        text
    }

    fn decode(entry: Value) -> Result<Self, String> {
        let Value::Object(mut entry) = entry else { return Err("an entry must be an object".to_string()) };
        let mut text = |name: &str| match entry.get_mut(name).map(Value::take) {
            Some(Value::String(text)) => text,
            _ => String::new(),
        };
        let operation = match text("operation").as_str() {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return Err("operation must be `Apply` or `Update`".to_string()),
        };
        if text("fieldsType") != "FieldsV1" {
            return Err("invalid fieldsType in managed fields entry".to_string());
        }
        let api_version = text("apiVersion");
        if api_version.is_empty() {
            return Err("apiVersion must not be empty".to_string());
        }
        let (manager, subresource, time) = (text("manager"), text("subresource"), text("time"));
        let fields = FieldSet::from_wire(entry.remove("fieldsV1").unwrap_or_default())?;
        let time = Some(time).filter(|time| !time.is_empty());
        Ok(Self { manager, operation, api_version, subresource, time, fields })
    }

    fn encode(self) -> Value {
        let mut entry = json!({
            "apiVersion": self.api_version,
            "fieldsType": "FieldsV1",
            "fieldsV1": self.fields.into_wire(),
            "manager": self.manager,
            "operation": match self.operation { Operation::Apply => "Apply", Operation::Update => "Update" },
        });
        if let (Value::Object(map), Some(time)) = (&mut entry, self.time) {
            let _absent = map.insert("time".to_string(), time.into());
        }
        if let (Value::Object(map), false) = (&mut entry, self.subresource.is_empty()) {
            let _absent = map.insert("subresource".to_string(), self.subresource.into());
        }
        entry
    }
}

/// Takes the managed fields out of an object; null when there are none.
pub(super) fn take(object: &mut Value) -> Value {
    let metadata = object.get_mut("metadata").and_then(Value::as_object_mut);
    metadata.and_then(|metadata| metadata.remove("managedFields")).unwrap_or_default()
}

/// The managed fields of an object; null when there are none.
pub(super) fn of(object: &Value) -> &Value {
    object.get("metadata").and_then(|metadata| metadata.get("managedFields")).unwrap_or(&Value::Null)
}

/// Reads all entries.
pub(super) fn decode(managed: Value) -> Result<Vec<Entry>, String> {
    match managed {
        Value::Null => Ok(Vec::new()),
        Value::Array(list) => list.into_iter().map(Entry::decode).collect(),
        _ => Err("managedFields must be a list".to_string()),
    }
}

/// Whether a client asks to forget all managers: an empty list, or one empty entry.
pub(super) fn is_reset(managed: &Value) -> bool {
    match managed.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([only]) => only.as_object().is_some_and(Map::is_empty),
        _ => false,
    }
}

/// Puts the entries into the object, in upstream's order.
pub(super) fn put(object: &mut Value, mut entries: Vec<Entry>) {
    entries.sort_by(|a, b| {
        (a.operation, &a.time, &a.manager, &a.api_version, &a.subresource).cmp(&(
            b.operation,
            &b.time,
            &b.manager,
            &b.api_version,
            &b.subresource,
        ))
    });
    let encoded: Vec<Value> = entries.into_iter().map(Entry::encode).collect();
    put_encoded(object, if encoded.is_empty() { Value::Null } else { encoded.into() });
}

/// Puts encoded entries into the object; null puts none.
pub(super) fn put_encoded(object: &mut Value, managed: Value) {
    if managed.is_null() {
        return;
    }
    let Value::Object(map) = object else { return };
    let metadata = map.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(metadata) = metadata {
        let _absent = metadata.insert("managedFields".to_string(), managed);
    }
}

/// Merges the oldest entries of non-apply writers, version by version, until there are few enough.
pub(super) fn cap(entries: &mut Vec<Entry>) {
    let mut updaters: Vec<Entry> = Vec::new();
    let is_update = |entry: &Entry| entry.operation == Operation::Update;
    let count = entries.iter().filter(|entry| is_update(entry)).count();
    if count <= UPDATE_ENTRIES_MAX {
        return;
    }
    let (updates, appliers): (Vec<Entry>, Vec<Entry>) = entries.drain(..).partition(is_update);
    updaters.extend(updates);
    updaters.sort_by(|a, b| {
        (&a.time, &a.manager, &a.api_version, &a.subresource).cmp(&(
            &b.time,
            &b.manager,
            &b.api_version,
            &b.subresource,
        ))
    });
    let mut kept: Vec<Entry> = Vec::new();
    let mut left = count;
    for entry in updaters {
        let oldest = kept.iter_mut().find(|k| k.api_version == entry.api_version);
        match oldest.filter(|_| left > UPDATE_ENTRIES_MAX) {
            Some(bucket) => {
                bucket.manager = MERGED_MANAGER.to_string();
                bucket.subresource.clear();
                bucket.fields.unite(&entry.fields);
                bucket.time = entry.time;
                left -= 1;
            }
            None => kept.push(entry),
        }
    }
    *entries = appliers;
    entries.extend(kept);
}
