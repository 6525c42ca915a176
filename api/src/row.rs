//! A row of the resource table: one stored kind with all the versions it is served in.

use std::sync::Arc;

use crate::Strategy;

/// Whether objects live in namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One per cluster.
    Cluster,
    /// One per namespace.
    Namespaced,
}

/// What can be done with a resource, in the words of discovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Verb {
    Create,
    Delete,
    DeleteCollection,
    Get,
    List,
    Patch,
    Update,
    Watch,
}

/// A subresource of a row. Those that are a view of the object (status, scale, …) go through the one pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subresource {
    /// `status`, `scale`, `binding`, `log`, …
    pub name: &'static str,
    /// Group, version and kind of the body, as discovery shows them (`autoscaling/v1 Scale`).
    pub kind: (&'static str, &'static str, &'static str),
    /// What it can do.
    pub verbs: &'static [Verb],
}

/// A group and version in which a row is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedVersion {
    /// The API group; empty for core.
    pub group: String,
    /// `v1`, …
    pub version: String,
}

/// One stored kind. Built-in rows are made at start; a CRD adds one at run time.
#[derive(Clone)]
pub struct Row {
    /// `Deployment`
    pub kind: String,
    /// `deployments`
    pub plural: String,
    /// `deployment`
    pub singular: String,
    /// `deploy`
    pub short_names: Vec<String>,
    /// `all`
    pub categories: Vec<String>,
    /// Whether objects live in namespaces.
    pub scope: Scope,
    /// What can be done with it.
    pub verbs: Vec<Verb>,
    /// Every group and version it is served in, the preferred one first.
    pub served: Vec<ServedVersion>,
    /// The one in which it is stored.
    pub storage: ServedVersion,
    /// What hangs below an object.
    pub subresources: Vec<Subresource>,
    /// What is special about the kind.
    pub strategy: Arc<dyn Strategy>,
}
