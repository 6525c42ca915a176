//! OpenAPI documents: pure functions over the rows and their schemas.
//!
//! Guarantees: definitions carry upstream's names, descriptions and extensions, so that `kubectl explain`, `kubectl
//! apply` and client-side validation work from them; operations name their kinds, parameters and bodies. Documents are
//! written piece by piece: at no time does a whole one exist as a tree.
//! Assumes that the caller keeps (and compresses) what it asked for until the rows change.
//! Deliberately absent: the deprecated `/watch/` paths, the roots of groups, HEAD and OPTIONS of proxies, examples, and
//! documents for `/version`, `/logs` and the like.

use std::sync::Arc;

use serde_json::Value;

use crate::{Row, ServedVersion};

mod definitions;
mod gnostic;
mod operations;
mod parameters;
mod protobuf;
mod shape;
mod v2;
mod v3;

/// What documents are made of.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// The resource table's rows.
    pub rows: &'a [Arc<Row>],
    /// The `openAPIV3Schema` of a custom resource in one version, as its CustomResourceDefinition has it.
    pub custom_schema: &'a dyn Fn(&Row, &ServedVersion) -> Option<Value>,
}

/// The content type of [`v2_protobuf`]. Clients also ask for it with an `@` before the second version, which must not be
/// in a media type: those that parse the answer's type fail on it.
pub const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// The whole API as Swagger 2.0, in JSON.
pub fn v2_json(source: &Source<'_>) -> Vec<u8> {
    v2::json(source)
}

/// The whole API as Swagger 2.0, as the protobuf message `openapi.v2.Document`.
pub fn v2_protobuf(source: &Source<'_>) -> Vec<u8> {
    v2::protobuf(source)
}

/// One group and version as OpenAPI 3.0, in JSON; `None` when nothing is served in it.
pub fn v3_json(source: &Source<'_>, group: &str, version: &str) -> Option<Vec<u8>> {
    let served = ServedVersion::new(group, version);
    source.rows.iter().any(|row| row.served.contains(&served)).then(|| v3::json(source, &served))
}

/// `api/v1`, `apis/apps/v1`.
fn root_of(served: &ServedVersion) -> String {
    let api = if served.group.is_empty() { "api" } else { "apis" };
    format!("{api}/{}", served.api_version())
}

/// Every group and version, once, in order.
fn served<'a>(source: &Source<'a>) -> Vec<&'a ServedVersion> {
    let mut all: Vec<&ServedVersion> = source.rows.iter().flat_map(|row| &row.served).collect();
    all.sort();
    all.dedup();
    all
}

#[cfg(test)]
mod tests;
