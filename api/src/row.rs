//! A row of the resource table: one kind with all the versions it is served in.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use schema::Schema;
use serde_json::Value;

use crate::{Strategy, WriteContext, field::Touch, names::NameRule};

/// Whether objects live in namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One per cluster.
    Cluster,
    /// One per namespace.
    Namespaced,
}

impl Scope {
    /// As discovery writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cluster => "Cluster",
            Self::Namespaced => "Namespaced",
        }
    }
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

impl Verb {
    /// As discovery and RBAC write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
            Self::Get => "get",
            Self::List => "list",
            Self::Patch => "patch",
            Self::Update => "update",
            Self::Watch => "watch",
        }
    }
}

/// A subresource of a row. Those that are a view of the object (status, scale, …) go through the one pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subresource {
    /// `status`, `scale`, `binding`, `log`, …
    pub name: &'static str,
    /// Group, version and kind of the body, as discovery shows them (`autoscaling/v1 Scale`).
    /// `None`: the body is the row's own kind in the version of the request.
    pub body: Option<(&'static str, &'static str, &'static str)>,
    /// What it can do.
    pub verbs: &'static [Verb],
}

/// A field that selectors may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selectable {
    /// Its name in selectors.
    pub label: &'static str,
    /// Where its value is, and where else when it is not there.
    pub paths: [&'static str; 2],
    /// What stands for none.
    pub otherwise: &'static str,
}

impl Selectable {
    fn value(&self, object: &Value) -> String {
        let found = self.paths.iter().find_map(|path| {
            match path.split('.').try_fold(object, |value, name| value.get(name))? {
                Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
                scalar @ (Value::Bool(_) | Value::Number(_)) => Some(scalar.to_string()),
                _ => None,
            }
        });
        found.unwrap_or_else(|| self.otherwise.to_string())
    }
}

/// A group and version in which a row is served.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServedVersion {
    /// The API group; empty for core.
    pub group: String,
    /// `v1`, …
    pub version: String,
}

impl ServedVersion {
    /// A group and version.
    pub fn new(group: &str, version: &str) -> Self {
        Self { group: group.to_string(), version: version.to_string() }
    }

    /// The `apiVersion` of objects: `v1`, `apps/v1`.
    pub fn api_version(&self) -> Cow<'_, str> {
        if self.group.is_empty() {
            Cow::Borrowed(&self.version)
        } else {
            Cow::Owned(format!("{}/{}", self.group, self.version))
        }
    }
}

/// One kind. Built-in rows are made at start; a CRD adds one at run time.
#[derive(Clone)]
pub struct Row {
    /// `Deployment`
    pub kind: String,
    /// `DeploymentList`
    pub list_kind: String,
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
    /// Whether objects are kept. Reviews and metrics are answered and forgotten.
    pub stored: bool,
    /// Whether any part of the system acts on the kind; a write to one that nothing acts on is answered with a
    /// warning that says so.
    pub acted_on: bool,
    /// Whether `metadata.generation` counts the changes of the desired state. It is 1 on create.
    pub counts_generation: bool,
    /// Whether an update of an object that does not exist creates it.
    pub created_by_update: bool,
    /// Whether an update has to say which `metadata.resourceVersion` it replaces.
    pub versioned_update: bool,
    /// The status of a new object, whatever its writer says of it; `None` leaves that to the strategy.
    pub first_status: Option<fn() -> Value>,
    /// What names the kind admits.
    pub name_rule: NameRule,
    /// What field selectors may name beyond `metadata.name` and `metadata.namespace`.
    pub selectable: &'static [Selectable],
    /// What is special about the kind.
    pub strategy: Arc<dyn Strategy>,
    /// What a CustomResourceDefinition says about it; `None` for built-in kinds.
    pub custom: Option<Arc<CustomResource>>,
}

impl Row {
    /// Whether the row is served in this group and version.
    pub fn serves(&self, group: &str, version: &str) -> bool {
        self.served.iter().any(|s| s.group == group && s.version == version)
    }

    /// The subresource of that name.
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }

    /// Whether objects live in namespaces.
    pub fn is_namespaced(&self) -> bool {
        self.scope == Scope::Namespaced
    }

    /// Whether it can do that.
    pub fn can(&self, verb: Verb) -> bool {
        self.verbs.contains(&verb)
    }

    /// The values of the fields that selectors may name. Of the object only scalars need to be there, its own and those
    /// of its members.
    pub fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        self.selectable.iter().map(|field| (field.label, field.value(object))).collect()
    }

    /// Brings a new object into its first state.
    pub fn prepare_for_create(&self, object: &mut Value, context: &WriteContext) {
        if let Some(status) = self.first_status {
            object.put("status", status());
        }
        self.strategy.prepare_for_create(object, context);
    }

    /// The group under which the row is stored, which errors and events name.
    pub fn group(&self) -> &str {
        &self.storage.group
    }
}

impl std::fmt::Debug for Row {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Row({}/{})", self.storage.api_version(), self.plural)
    }
}

/// What a CustomResourceDefinition says about its kind, version by version.
#[derive(Clone, Debug, Default)]
pub struct CustomResource {
    /// By version.
    pub versions: BTreeMap<String, CustomVersion>,
    /// The definition's own resource version: objects written after it fit it.
    pub revision: u64,
    /// The program that turns objects of one version into another, as `spec.conversion.webhook` describes it; without
    /// one the versions differ in name alone.
    pub converter: Option<Value>,
}

/// One version of a custom resource.
#[derive(Clone, Debug)]
pub struct CustomVersion {
    /// Its schema, with the envelope.
    pub schema: Arc<Schema>,
    /// `additionalPrinterColumns`.
    pub columns: Vec<PrinterColumn>,
    /// `selectableFields`, as field selectors name them: `spec.color`.
    pub selectable: Vec<String>,
    /// The JSON paths of `subresources.scale`.
    pub scale: Option<ScalePaths>,
    /// What a request that uses this version is warned of.
    pub deprecation_warning: Option<String>,
}

/// One entry of `additionalPrinterColumns`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrinterColumn {
    /// The heading.
    pub name: String,
    /// `string`, `integer`, `number`, `boolean`, `date`.
    pub column_type: String,
    /// `int32`, `date-time`, …
    pub format: String,
    /// For people.
    pub description: String,
    /// Above 0: shown with `-o wide` only.
    pub priority: i64,
    /// Where the value is: `.spec.replicas`.
    pub json_path: String,
}

/// Where a custom resource keeps what `Scale` shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScalePaths {
    /// `.spec.replicas`
    pub spec_replicas: String,
    /// `.status.replicas`
    pub status_replicas: String,
    /// `.status.selector`
    pub label_selector: Option<String>,
}
