//! How objects are shown: as they are stored, in another version, as tables, or as their metadata alone.

use std::sync::Arc;

use api::{ApiError, Row, ServedVersion};
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};
use store::Revision;

use crate::cache::Cached;
use crate::http::negotiate::{Encoding, Form, View};
use crate::http::respond::{self, maybe_gzip};
use crate::http::{BoxError, JSON, Response, body};
use crate::pipeline::Target;
use crate::tree::set;

/// Lists are sent in chunks of about this size.
const CHUNK_BYTES: usize = 64 * 1024;

/// What of the object a table's row carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum IncludeObject {
    #[default]
    Metadata,
    None,
    Object,
}

impl IncludeObject {
    /// Reads the query's value.
    pub fn parse(text: Option<&str>) -> Result<Self, ApiError> {
        match text {
            None | Some("" | "Metadata") => Ok(Self::Metadata),
            Some("None") => Ok(Self::None),
            Some("Object") => Ok(Self::Object),
            Some(other) => Err(ApiError::bad_request(format!("unrecognized includeObject value: {other:?}"))),
        }
    }
}

/// What a list says of itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct ListMeta {
    pub revision: Revision,
    pub continue_token: Option<String>,
    pub remaining: Option<usize>,
}

/// Shows objects of one row in one form.
#[derive(Clone)]
pub(crate) struct Presenter {
    row: Arc<Row>,
    version: ServedVersion,
    form: Form,
    include: IncludeObject,
    /// The time that ages are counted from.
    now: jiff::Timestamp,
    /// In a watch only the first table has headings.
    headings_sent: bool,
}

impl Presenter {
    /// For the objects of a target.
    pub fn new(target: &Target, form: Form, include: IncludeObject) -> Self {
        Self {
            row: target.row.clone(),
            version: target.version.clone(),
            form,
            include,
            now: jiff::Timestamp::now(),
            headings_sent: false,
        }
    }

    /// Whether encoded bytes go out as they are. Custom resources come in the version that they are shown in.
    pub fn is_stored_form(&self) -> bool {
        let is_ready = self.version == self.row.storage || self.row.custom.is_some();
        self.form.view == View::Whole && is_ready
    }

    /// The answer that shows one object.
    pub fn object(&self, code: StatusCode, object: &Cached) -> Response {
        if self.is_stored_form() && self.form.encoding == Encoding::Json {
            return maybe_gzip(respond::with_type(code, JSON, body::full(object.whole())), self.form);
        }
        let tree = match self.form.view {
            View::Whole => self.converted(object, object.revision),
            View::Metadata => partial_metadata(&self.converted(object, object.revision)),
            View::Table => self.table(&[self.converted(object, object.revision)], &single(object), true),
        };
        respond::formed(code, &tree, self.form)
    }

    /// The answer that shows a tree of another kind, such as a `Scale`.
    pub fn tree(&self, code: StatusCode, tree: &Value) -> Response {
        respond::formed(code, tree, self.form)
    }

    /// The answer that shows a list.
    pub fn list(&self, objects: Vec<Arc<Cached>>, meta: &ListMeta) -> Response {
        if self.is_stored_form() && self.form.encoding == Encoding::Json {
            return self.stored_list(objects, meta);
        }
        let trees: Vec<Value> = objects.iter().map(|o| self.converted(o, o.revision)).collect();
        let tree = match self.form.view {
            View::Whole => {
                let items = trees.into_iter().map(without_type).collect();
                self.list_tree(&self.row.list_kind, &self.version.api_version(), items, meta)
            }
            View::Metadata => {
                let items = trees.iter().map(partial_metadata).collect();
                self.list_tree("PartialObjectMetadataList", "meta.k8s.io/v1", items, meta)
            }
            View::Table => self.table(&trees, meta, true),
        };
        respond::formed(StatusCode::OK, &tree, self.form)
    }

    fn list_tree(&self, kind: &str, api_version: &str, items: Vec<Value>, meta: &ListMeta) -> Value {
        json!({"kind": kind, "apiVersion": api_version, "metadata": list_metadata(meta), "items": items})
    }

    /// A gather of stored bytes; made while it is sent when it is large.
    fn stored_list(&self, objects: Vec<Arc<Cached>>, meta: &ListMeta) -> Response {
        let head = format!(
            "{{\"kind\":{:?},\"apiVersion\":{:?},\"metadata\":{},\"items\":[",
            self.row.list_kind,
            self.version.api_version(),
            list_metadata(meta)
        );
        let size: usize = objects.iter().map(|o| o.encoded.len() + 40).sum();
        // Custom resources keep kind and API version in lists, built-in kinds lose them, as upstream.
        let typed = self.row.custom.is_some();
        let mut gather =
            Gather { head: Some(head), objects: objects.into_iter(), first: true, typed, done: false };
        let content = if size < CHUNK_BYTES {
            body::full(gather.next_chunk(usize::MAX).unwrap_or_default())
        } else {
            let chunks = std::iter::from_fn(move || gather.next_chunk(CHUNK_BYTES));
            body::stream(futures::stream::iter(chunks.map(Ok::<Bytes, BoxError>)))
        };
        maybe_gzip(respond::with_type(StatusCode::OK, JSON, content), self.form)
    }

    /// Writes the object of a watch event.
    pub fn write_event_object(&mut self, out: &mut Vec<u8>, object: &Cached, revision: Revision) {
        if self.is_stored_form() {
            return object.write_at(out, revision);
        }
        let tree = self.converted(object, revision);
        let shown = match self.form.view {
            View::Whole => tree,
            View::Metadata => partial_metadata(&tree),
            View::Table => {
                self.now = jiff::Timestamp::now();
                let headings = !std::mem::replace(&mut self.headings_sent, true);
                self.table(&[tree], &ListMeta { revision, ..ListMeta::default() }, headings)
            }
        };
        out.extend_from_slice(shown.to_string().as_bytes());
    }

    /// Writes a bookmark event.
    pub fn write_bookmark(&self, out: &mut Vec<u8>, revision: Revision, initial_events_end: bool) {
        let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if initial_events_end {
            set(&mut metadata, &["annotations"], json!({"k8s.io/initial-events-end": "true"}));
        }
        let object = match self.form.view {
            View::Whole => {
                json!({"kind": self.row.kind, "apiVersion": self.version.api_version(), "metadata": metadata})
            }
            View::Metadata => json!({
                "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
            }),
            View::Table => json!({
                "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
                "columnDefinitions": null,
                "rows": [{"cells": [], "object": {
                    "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
                }}],
            }),
        };
        let event = json!({"type": "BOOKMARK", "object": object});
        out.extend_from_slice(event.to_string().as_bytes());
        out.push(b'\n');
    }

    fn converted(&self, object: &Cached, revision: Revision) -> Value {
        let mut tree = object.tree_at(revision);
        if self.version != self.row.storage && self.row.custom.is_none() {
            api::convert::convert(&self.row, &mut tree, &self.row.storage, &self.version);
        }
        tree
    }

    fn table(&self, trees: &[Value], meta: &ListMeta, headings: bool) -> Value {
        let columns = api::columns::for_row(&self.row, &self.version);
        let rows: Vec<Value> = trees
            .iter()
            .map(|tree| {
                let mut row = json!({"cells": columns.cells(tree, self.now)});
                match self.include {
                    IncludeObject::None => {}
                    IncludeObject::Metadata => set(&mut row, &["object"], partial_metadata(tree)),
                    IncludeObject::Object => set(&mut row, &["object"], tree.clone()),
                }
                row
            })
            .collect();
        let definitions = if headings { columns.definitions() } else { Value::Null };
        json!({
            "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": list_metadata(meta),
            "columnDefinitions": definitions, "rows": rows,
        })
    }
}

struct Gather {
    head: Option<String>,
    objects: std::vec::IntoIter<Arc<Cached>>,
    first: bool,
    typed: bool,
    done: bool,
}

impl Gather {
    fn next_chunk(&mut self, size: usize) -> Option<Bytes> {
        if self.done {
            return None;
        }
        let mut out = self.head.take().unwrap_or_default().into_bytes();
        while out.len() < size {
            let Some(object) = self.objects.next() else {
                out.extend_from_slice(b"]}\n");
                self.done = true;
                break;
            };
            if !std::mem::replace(&mut self.first, false) {
                out.push(b',');
            }
            if self.typed {
                object.write_whole(&mut out);
            } else {
                object.write_item(&mut out);
            }
        }
        Some(out.into())
    }
}

fn single(object: &Cached) -> ListMeta {
    ListMeta { revision: object.revision, ..ListMeta::default() }
}

fn list_metadata(meta: &ListMeta) -> Value {
    let mut metadata = json!({"resourceVersion": meta.revision.to_string()});
    if let Some(token) = &meta.continue_token {
        set(&mut metadata, &["continue"], token.as_str());
    }
    if let Some(remaining) = meta.remaining {
        set(&mut metadata, &["remainingItemCount"], remaining);
    }
    metadata
}

fn without_type(mut tree: Value) -> Value {
    if let Some(map) = tree.as_object_mut() {
        map.remove("kind");
        map.remove("apiVersion");
    }
    tree
}

/// The metadata of an object as an object of its own.
pub(crate) fn partial_metadata(tree: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
        "metadata": tree.get("metadata").cloned().unwrap_or_default(),
    })
}
