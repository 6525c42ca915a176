//! Name and age of any object, and conversions that change the API version alone: what the server shows until `api`
//! has columns and conversions for each kind.

use api::{Row, ServedVersion};
use jiff::Timestamp;
use serde_json::{Value, json};

pub(crate) struct Columns;

pub(crate) fn for_row(_row: &Row, _version: &ServedVersion) -> Columns {
    Columns
}

impl Columns {
    pub fn cells(&self, object: &Value, _now: Timestamp) -> Vec<Value> {
        let at = |field: &str| object.pointer(&format!("/metadata/{field}")).cloned().unwrap_or(Value::Null);
        vec![at("name"), at("creationTimestamp")]
    }

    pub fn definitions(&self) -> Value {
        json!([
            {"name": "Name", "type": "string", "format": "name", "description": "Name of the object.", "priority": 0},
            {"name": "Created At", "type": "date", "format": "", "description": "When it was created.", "priority": 0},
        ])
    }
}

pub(crate) fn convert(_row: &Row, object: &mut Value, _from: &ServedVersion, to: &ServedVersion) {
    if let Some(map) = object.as_object_mut() {
        map.insert("apiVersion".to_string(), to.api_version().into_owned().into());
    }
}
