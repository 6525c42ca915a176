//! Events of core/v1 and of events.k8s.io: the same fields under other names.

use serde_json::Value;

const NAMES: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

pub(super) fn to_events_group(object: &mut Value) {
    rename(object, NAMES.into_iter());
}

pub(super) fn to_core(object: &mut Value) {
    rename(object, NAMES.into_iter().map(|(core, events)| (events, core)));
}

fn rename(object: &mut Value, names: impl Iterator<Item = (&'static str, &'static str)>) {
    let Some(fields) = object.as_object_mut() else { return };
    for (from, to) in names {
        if let Some(value) = fields.remove(from) {
            fields.insert(to.to_string(), value);
        }
    }
}
