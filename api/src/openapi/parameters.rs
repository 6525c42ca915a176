//! The query and path parameters of operations.

use serde_json::{Value, json};

use super::shape::Flavour;

/// One parameter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parameter {
    name: &'static str,
    /// `query` or `path`.
    place: &'static str,
    value_type: &'static str,
    about: &'static str,
}

const fn query(name: &'static str, value_type: &'static str, about: &'static str) -> Parameter {
    Parameter { name, place: "query", value_type, about }
}

const fn path(name: &'static str, about: &'static str) -> Parameter {
    Parameter { name, place: "path", value_type: "string", about }
}

pub(super) const NAME: Parameter = path("name", "name of the object");
pub(super) const NAMESPACE: Parameter = path("namespace", "namespace of the object");
pub(super) const PATH: Parameter = path("path", "path of the proxied request");
pub(super) const PRETTY: Parameter = query("pretty", "string", "If 'true', the output is indented.");

const DRY_RUN: Parameter =
    query("dryRun", "string", "With 'All', the request is worked through but nothing is kept.");
const MANAGER: Parameter =
    query("fieldManager", "string", "Who owns the fields that this request sets. Required for apply.");
const VALIDATION: Parameter = query(
    "fieldValidation",
    "string",
    "What happens with unknown and duplicate fields: 'Ignore' drops them, 'Warn' (the default) says so, 'Strict' refuses.",
);
const FORCE: Parameter = query("force", "boolean", "For apply: take over fields that others own.");
const GRACE: Parameter =
    query("gracePeriodSeconds", "integer", "How long the object has to end by itself. 0 deletes it at once.");
const ORPHAN: Parameter = query(
    "orphanDependents",
    "boolean",
    "Deprecated in favour of propagationPolicy: whether dependents stay.",
);
const PROPAGATION: Parameter = query(
    "propagationPolicy",
    "string",
    "What becomes of dependents: 'Orphan', 'Background' or 'Foreground'.",
);
const READ_ERROR: Parameter = query(
    "ignoreStoreReadErrorWithClusterBreakingPotential",
    "boolean",
    "Delete an object that cannot be read, without finalizers and preconditions.",
);
const LABELS: Parameter = query("labelSelector", "string", "Only objects with these labels.");
const FIELDS: Parameter = query("fieldSelector", "string", "Only objects with these fields.");
const LIMIT: Parameter = query("limit", "integer", "At most so many objects in one response.");
const CONTINUE: Parameter = query("continue", "string", "Where the response before this one ended.");
const REVISION: Parameter =
    query("resourceVersion", "string", "The state of the data that the response may or must reflect.");
const REVISION_MATCH: Parameter =
    query("resourceVersionMatch", "string", "How resourceVersion is meant: 'Exact' or 'NotOlderThan'.");
const INITIAL: Parameter =
    query("sendInitialEvents", "boolean", "Whether a watch begins with the objects that exist.");
const TIMEOUT: Parameter = query("timeoutSeconds", "integer", "How long a list or watch may take.");
const WATCH: Parameter = query("watch", "boolean", "Watch the objects instead of listing them.");
const BOOKMARKS: Parameter = query(
    "allowWatchBookmarks",
    "boolean",
    "Whether the watch may send bookmarks with the current revision.",
);

/// For lists and watches.
pub(super) const FOR_LIST: &[Parameter] =
    &[BOOKMARKS, CONTINUE, FIELDS, LABELS, LIMIT, REVISION, REVISION_MATCH, INITIAL, TIMEOUT, WATCH];
/// For POST and PUT.
pub(super) const FOR_WRITE: &[Parameter] = &[DRY_RUN, MANAGER, VALIDATION];
/// For PATCH.
pub(super) const FOR_PATCH: &[Parameter] = &[DRY_RUN, MANAGER, VALIDATION, FORCE];
/// For DELETE of one object.
pub(super) const FOR_DELETE: &[Parameter] = &[DRY_RUN, GRACE, READ_ERROR, ORPHAN, PROPAGATION];
/// For DELETE of a collection.
pub(super) const FOR_DELETE_COLLECTION: &[Parameter] = &[
    CONTINUE,
    DRY_RUN,
    FIELDS,
    GRACE,
    READ_ERROR,
    LABELS,
    LIMIT,
    ORPHAN,
    PROPAGATION,
    REVISION,
    REVISION_MATCH,
    TIMEOUT,
];

impl Parameter {
    /// As the document has it.
    pub fn describe(&self, flavour: Flavour) -> Value {
        let mut described = json!({"name": self.name, "in": self.place, "description": self.about});
        if let Value::Object(map) = &mut described {
            if self.place == "path" {
                let _absent = map.insert("required".to_string(), true.into());
            }
            let kind = json!({"type": self.value_type, "uniqueItems": true});
            match (flavour, kind) {
                (Flavour::V2, Value::Object(kind)) => map.extend(kind),
                (_, kind) => {
                    let _absent = map.insert("schema".to_string(), kind);
                }
            }
        }
        described
    }
}
