//! One object as the cache holds it.

use std::io::Write;
use std::sync::{Arc, OnceLock};

use api::Row;
use bytes::Bytes;
use serde_json::Value;
use store::{Entry, Revision};

use super::outline::Outline;
use super::pairs::Pairs;

/// An object: its stored bytes, shared with the store, and the few parsed fields that selectors look at.
#[derive(Debug)]
pub(crate) struct Cached {
    /// The store's key.
    pub key: Arc<str>,
    /// Of the last write.
    pub revision: Revision,
    /// What is stored.
    pub encoded: Bytes,
    /// Where `"metadata":` begins.
    metadata_at: usize,
    /// Where the first member of metadata begins.
    splice_at: usize,
    /// Its labels.
    pub labels: Pairs,
    /// Selectable fields beyond name and namespace.
    pub fields: Pairs,
    /// See [`Cached::kept_tree`].
    kept: OnceLock<Arc<Value>>,
}

/// Stored bytes that are no object.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MalformedObject {
    #[error("{0} does not hold JSON: {1}")]
    Json(Arc<str>, serde_json::Error),
    #[error("{0} does not hold an object with metadata")]
    NoMetadata(Arc<str>),
}

const METADATA: &[u8] = b"\"metadata\":{";

impl Cached {
    /// Reads an entry of the store. Only what selectors look at is decoded.
    pub fn read(entry: &Entry, row: Option<&Row>) -> Result<Self, MalformedObject> {
        let (key, bytes) = (&entry.key, &entry.value);
        let broken = |error| MalformedObject::Json(key.clone(), error);
        // A kind whose fields can be selected has some of an object without anything in it, too.
        let selects = row.filter(|row| !row.selectable.is_empty());
        let outline = Outline::read(bytes, selects.is_some()).map_err(broken)?;
        let fields = selects.map(|row| row.selectable_fields(&outline.scalars)).unwrap_or_default();
        Self::build(key.clone(), entry.mod_revision, bytes.clone(), outline.labels, fields)
    }

    /// An object whose tree is at hand, to be shown.
    pub fn with_tree(
        key: Arc<str>,
        revision: Revision,
        encoded: Bytes,
        tree: &Value,
    ) -> Result<Self, MalformedObject> {
        let labels = tree.pointer("/metadata/labels").and_then(Value::as_object).into_iter().flatten();
        let labels = labels.filter_map(|(name, value)| Some((name, value.as_str()?)));
        Self::build(key, revision, encoded, labels.collect(), Vec::new())
    }

    fn build(
        key: Arc<str>,
        revision: Revision,
        encoded: Bytes,
        labels: Pairs,
        fields: Vec<(&'static str, String)>,
    ) -> Result<Self, MalformedObject> {
        // Kind and API version come first and cannot hold a quote, so that the first occurrence is the member itself.
        let metadata_at = encoded
            .windows(METADATA.len())
            .position(|window| window == METADATA)
            .ok_or_else(|| MalformedObject::NoMetadata(key.clone()))?;
        Ok(Self {
            labels,
            fields: fields.into_iter().collect(),
            kept: OnceLock::new(),
            splice_at: metadata_at + METADATA.len(),
            metadata_at,
            key,
            revision,
            encoded,
        })
    }

    /// The last part of the key.
    pub fn name(&self) -> &str {
        self.key.rsplit('/').next().unwrap_or_default()
    }

    /// The part of the key between resource and name; empty for cluster-scoped kinds.
    pub fn namespace(&self) -> &str {
        let mut parts = self.key.rsplit('/');
        let (_name, namespace, rest) = (parts.next(), parts.next(), parts.count());
        // `/registry/<group>/<plural>/<namespace>/<name>` has five parts behind the first slash.
        if rest == 4 { namespace.unwrap_or_default() } else { "" }
    }

    /// Whether it is stored in a version.
    pub fn is_in(&self, api_version: &str) -> bool {
        let head = self.encoded.get(..self.metadata_at).unwrap_or_default();
        head.ends_with(format!("\"apiVersion\":\"{api_version}\",").as_bytes())
    }

    /// Writes the whole object, as a get answers it.
    pub fn write_whole(&self, out: &mut Vec<u8>) {
        self.write_at(out, self.revision);
    }

    /// Writes the whole object with the revision of an event.
    pub fn write_at(&self, out: &mut Vec<u8>, revision: Revision) {
        self.write_from(out, 0, revision);
    }

    /// Writes the object as an element of a list: without kind and API version, as upstream does.
    pub fn write_item(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        self.write_from(out, self.metadata_at, self.revision);
    }

    fn write_from(&self, out: &mut Vec<u8>, start: usize, revision: Revision) {
        out.extend_from_slice(self.encoded.get(start..self.splice_at).unwrap_or_default());
        let rest = self.encoded.get(self.splice_at..).unwrap_or_default();
        let comma = if rest.first() == Some(&b'}') { "" } else { "," };
        // A dry run has no revision. Writing to memory cannot fail.
        if revision > 0 {
            let _ignored = write!(out, "\"resourceVersion\":\"{revision}\"{comma}");
        }
        out.extend_from_slice(rest);
    }

    /// The whole object's bytes.
    pub fn whole(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.encoded.len() + 40);
        self.write_whole(&mut out);
        out
    }

    /// The object as a tree, with its resource version.
    pub fn tree(&self) -> Value {
        self.tree_at(self.revision)
    }

    /// The same tree for everybody who asks, from the first time on. It takes several times the memory of the bytes: only
    /// for the few small objects that every other request looks at.
    pub fn kept_tree(&self) -> Arc<Value> {
        self.kept.get_or_init(|| Arc::new(self.tree())).clone()
    }

    /// The object as a tree, with the resource version of an event.
    pub fn tree_at(&self, revision: Revision) -> Value {
        // The bytes were parsed when the entry was read.
        let mut tree: Value = serde_json::from_slice(&self.encoded).unwrap_or_default();
        if let Some(metadata) = tree.get_mut("metadata").and_then(Value::as_object_mut)
            && revision > 0
        {
            metadata.insert("resourceVersion".to_string(), revision.to_string().into());
        }
        tree
    }

    /// How much memory it takes, roughly.
    pub fn size(&self) -> usize {
        self.encoded.len() + 256
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cached(object: &Value) -> Cached {
        let bytes = crate::cache::encode(object);
        Cached::with_tree("/registry/core/pods/ns/web".into(), 42, bytes.into(), object).unwrap()
    }

    #[test]
    fn the_resource_version_should_be_spliced_in() {
        let object = json!({"apiVersion": "v1", "kind": "Pod", "spec": {"metadata": {"a": 1}},
            "metadata": {"name": "web", "namespace": "ns", "resourceVersion": "7", "labels": {"b": "2", "a": "1"}}});
        let cached = cached(&object);
        let whole: Value = serde_json::from_slice(&cached.whole()).unwrap();
        let mut expected = object;
        expected["metadata"]["resourceVersion"] = "42".into();
        assert_eq!(whole, expected);
        assert_eq!((cached.namespace(), cached.name()), ("ns", "web"));
        assert!(cached.is_in("v1") && !cached.is_in("g/v1"));

        let mut item = Vec::new();
        cached.write_item(&mut item);
        let item: Value = serde_json::from_slice(&item).unwrap();
        assert_eq!((item.get("kind"), &item["metadata"]["resourceVersion"]), (None, &json!("42")));
    }

    #[test]
    fn empty_metadata_should_stay_valid_json() {
        let whole = cached(&json!({"apiVersion": "v1", "kind": "Pod"})).whole();
        assert_eq!(
            whole,
            br#"{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"42"}}"#.as_slice()
        );
    }
}
