//! How objects are shown: as they are stored, in another version, as tables, or as their metadata alone.

use std::sync::Arc;

use api::{ApiError, Row, ServedVersion};
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};
use store::Revision;

use crate::cache::Cached;
use crate::http::negotiate::{Encoding, Form, View};
use crate::http::respond::{self, Failure, maybe_gzip};
use crate::http::{BoxError, JSON, Response, body};
use crate::pipeline::Target;
use crate::tree::set;

/// The version of tables and of objects' metadata.
const META: &str = "meta.k8s.io/v1";
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
            View::Table => self.table(&self.converted(object, object.revision), &single(object), true),
        };
        respond::formed(code, &tree, self.form)
    }

    /// The answer that shows a tree of another kind, such as a `Scale`.
    pub fn tree(&self, code: StatusCode, tree: &Value) -> Response {
        respond::formed(code, tree, self.form)
    }

    /// The answer that shows a list: a gather of what is stored or made of it, while it is sent when it is large.
    pub fn list(&self, objects: Vec<Arc<Cached>>, meta: &ListMeta) -> Response {
        let size: usize = objects.iter().map(|o| o.encoded.len() + 40).sum();
        let (presenter, objects) = (self.clone(), objects.into_iter());
        let mut gather =
            Gather { presenter, head: Some(self.list_head(meta)), objects, first: true, done: false };
        if self.form.encoding != Encoding::Json {
            let whole = gather.next_chunk(usize::MAX).unwrap_or_default();
            return match serde_json::from_slice(&whole) {
                Ok(tree) => respond::formed(StatusCode::OK, &tree, self.form),
                Err(error) => {
                    Failure::from(ApiError::internal(error.to_string())).into_response(Encoding::Json)
                }
            };
        }
        let content = if size < CHUNK_BYTES {
            body::full(gather.next_chunk(usize::MAX).unwrap_or_default())
        } else {
            let chunks = std::iter::from_fn(move || gather.next_chunk(CHUNK_BYTES));
            body::stream(futures::stream::iter(chunks.map(Ok::<Bytes, BoxError>)))
        };
        maybe_gzip(respond::with_type(StatusCode::OK, JSON, content), self.form)
    }

    /// A list up to its first item.
    fn list_head(&self, meta: &ListMeta) -> String {
        let api_version = self.version.api_version();
        let (kind, api_version) = match self.form.view {
            View::Whole => (self.row.list_kind.as_str(), &*api_version),
            View::Metadata => ("PartialObjectMetadataList", META),
            View::Table => ("Table", META),
        };
        let metadata = list_metadata(meta);
        let begin = format!("{{\"kind\":{kind:?},\"apiVersion\":{api_version:?},\"metadata\":{metadata},");
        match self.form.view {
            View::Table => {
                let columns = api::columns::for_row(&self.row, &self.version).definitions();
                format!("{begin}\"columnDefinitions\":{columns},\"rows\":[")
            }
            _ => format!("{begin}\"items\":["),
        }
    }

    /// Writes an item of a list.
    fn write_item(&self, out: &mut Vec<u8>, object: &Cached) {
        let shown = match self.form.view {
            // Custom resources keep kind and API version in lists, built-in kinds lose them, as upstream.
            View::Whole if self.is_stored_form() && self.row.custom.is_some() => {
                return object.write_whole(out);
            }
            View::Whole if self.is_stored_form() => return object.write_item(out),
            View::Whole => without_type(self.converted(object, object.revision)),
            View::Metadata => partial_metadata(&self.converted(object, object.revision)),
            View::Table => self.table_row(&self.converted(object, object.revision)),
        };
        out.extend_from_slice(shown.to_string().as_bytes());
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
                self.table(&tree, &ListMeta { revision, ..ListMeta::default() }, headings)
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
                "kind": "PartialObjectMetadata", "apiVersion": META, "metadata": metadata,
            }),
            View::Table => json!({
                "kind": "Table", "apiVersion": META, "metadata": metadata,
                "columnDefinitions": null,
                "rows": [{"cells": [], "object": {
                    "kind": "PartialObjectMetadata", "apiVersion": META, "metadata": metadata,
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

    /// A table of one object.
    fn table(&self, tree: &Value, meta: &ListMeta, headings: bool) -> Value {
        let columns = api::columns::for_row(&self.row, &self.version);
        let definitions = if headings { columns.definitions() } else { Value::Null };
        json!({
            "kind": "Table", "apiVersion": META, "metadata": list_metadata(meta),
            "columnDefinitions": definitions, "rows": [self.table_row(tree)],
        })
    }

    fn table_row(&self, tree: &Value) -> Value {
        let mut row = json!({"cells": api::columns::for_row(&self.row, &self.version).cells(tree, self.now)});
        match self.include {
            IncludeObject::None => {}
            IncludeObject::Metadata => set(&mut row, &["object"], partial_metadata(tree)),
            IncludeObject::Object => set(&mut row, &["object"], tree.clone()),
        }
        row
    }
}

struct Gather {
    presenter: Presenter,
    head: Option<String>,
    objects: std::vec::IntoIter<Arc<Cached>>,
    first: bool,
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
            self.presenter.write_item(&mut out, &object);
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
