//! The columns of tables: what `get` shows of an object, and what more of it `get -o wide` shows.
//!
//! All columns come with every table; those with a priority above 0 are for wide output, and whoever prints chooses.
//! Kinds without columns of their own show name and creation time; custom resources show what their definition says.

mod cluster;
mod custom;
mod network;
mod pod;
mod storage;
mod workload;

use std::borrow::Cow;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{CustomVersion, Row, ServedVersion, convert, field::Look, humanize};

/// One column, and what it shows of an object.
#[derive(Clone, Copy, Debug)]
struct Column {
    name: &'static str,
    column_type: &'static str,
    format: &'static str,
    priority: u8,
    cell: Cell,
}

type Cell = fn(&Subject) -> Value;

const fn column(name: &'static str, column_type: &'static str, priority: u8, cell: Cell) -> Column {
    Column { name, column_type, format: "", priority, cell }
}

const fn text(name: &'static str, cell: Cell) -> Column {
    column(name, "string", 0, cell)
}

const fn integer(name: &'static str, cell: Cell) -> Column {
    column(name, "integer", 0, cell)
}

const fn boolean(name: &'static str, cell: Cell) -> Column {
    column(name, "boolean", 0, cell)
}

/// For wide output only.
const fn wide(name: &'static str, cell: Cell) -> Column {
    column(name, "string", 1, cell)
}

/// Names the object.
const fn named(priority: u8, cell: Cell) -> Column {
    Column { name: "Name", column_type: "string", format: "name", priority, cell }
}

const NAME: Column = named(0, |s| s.name().into());
const AGE: Column = text("Age", |s| s.since(s.str("metadata.creationTimestamp")).into());

/// The columns of a kind.
type Kind = &'static [Column];

fn fill(kind: Kind, subject: &Subject) -> Vec<Value> {
    kind.iter().map(|column| (column.cell)(subject)).collect()
}

/// An object whose cells are made.
struct Subject<'a> {
    object: &'a Value,
    now: Timestamp,
}

static NULL: Value = Value::Null;

/// Where the fields of a dotted path lead, or null.
fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    path.split('.').try_fold(value, |value, name| value.get(name)).unwrap_or(&NULL)
}

impl<'a> Subject<'a> {
    fn name(&self) -> &'a str {
        self.str("metadata.name")
    }

    fn at(&self, path: &str) -> &'a Value {
        at(self.object, path)
    }

    fn spec(&self) -> &'a Value {
        self.at("spec")
    }

    fn status(&self) -> &'a Value {
        self.at("status")
    }

    fn str(&self, path: &str) -> &'a str {
        self.at(path).as_str().unwrap_or_default()
    }

    /// The elements of a list.
    fn list(&self, path: &str) -> &'a [Value] {
        self.at(path).as_array().map(Vec::as_slice).unwrap_or_default()
    }

    fn annotation(&self, key: &str) -> &'a str {
        self.at("metadata.annotations").text(key)
    }

    fn condition(&self, kind: &str) -> Option<&'a Value> {
        self.list("status.conditions").iter().find(|c| c.text("type") == kind)
    }

    /// A cell with the text at a path.
    fn text(&self, path: &str) -> Value {
        self.str(path).into()
    }

    /// A cell with the text at a path, or what stands for none.
    fn or_none(&self, path: &str) -> Value {
        or_none(self.str(path)).into()
    }

    /// A cell with the number at a path, 0 when absent.
    fn count(&self, path: &str) -> Value {
        self.number(path).into()
    }

    fn number(&self, path: &str) -> i64 {
        self.at(path).as_i64().unwrap_or_default()
    }

    /// A cell that says whether something is so.
    fn flag(&self, path: &str) -> Value {
        self.at(path).as_bool().unwrap_or_default().into()
    }

    /// How long ago; an empty time is unknown.
    fn since(&self, time: &str) -> String {
        humanize::since(Some(time).filter(|t| !t.is_empty()), self.now)
    }
}

/// Text, or what stands for none.
fn or<'a>(text: &'a str, otherwise: &'a str) -> &'a str {
    if text.is_empty() { otherwise } else { text }
}

fn or_none(text: &str) -> &str {
    or(text, "<none>")
}

/// A whole number, 0 when absent.
fn count(parent: &Value, field: &str) -> i64 {
    parent.int(field).unwrap_or_default()
}

/// `a,b + 2 more...`
fn shortened(list: &[String], most: usize, otherwise: &str) -> String {
    let shown = list.get(..most.min(list.len())).unwrap_or_default().join(",");
    match list.len().saturating_sub(most) {
        0 if shown.is_empty() => otherwise.to_string(),
        0 => shown,
        more => format!("{shown} + {more} more..."),
    }
}

/// The columns of a row in one of its versions.
pub struct Columns<'a> {
    row: &'a Row,
    version: &'a ServedVersion,
    source: Source<'a>,
}

enum Source<'a> {
    BuiltIn(Kind),
    Custom(&'a CustomVersion),
    Plain,
}

/// The columns for objects of a row in the given version.
pub fn for_row<'a>(row: &'a Row, version: &'a ServedVersion) -> Columns<'a> {
    let source = match &row.custom {
        Some(custom) => match custom.versions.get(&version.version) {
            Some(described) if !described.columns.is_empty() => Source::Custom(described),
            _ => Source::BuiltIn(AGE_ONLY),
        },
        None => built_in(row).map_or(Source::Plain, Source::BuiltIn),
    };
    Columns { row, version, source }
}

impl Columns<'_> {
    /// The cells of one object in this version.
    pub fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        match &self.source {
            Source::BuiltIn(kind) => {
                let stored = self.in_storage_version(object);
                fill(kind, &Subject { object: &stored, now })
            }
            Source::Custom(version) => custom::cells(version, &Subject { object, now }),
            Source::Plain => {
                let metadata = object.get("metadata").unwrap_or(&NULL);
                vec![metadata.text("name").into(), metadata.text("creationTimestamp").into()]
            }
        }
    }

    /// `columnDefinitions`
    pub fn definitions(&self) -> Value {
        match &self.source {
            Source::BuiltIn(columns) => columns
                .iter()
                .map(|c| {
                    json!({
                        "name": c.name, "type": c.column_type, "format": c.format, "description": c.name,
                        "priority": c.priority,
                    })
                })
                .collect(),
            Source::Custom(version) => custom::definitions(version),
            Source::Plain => json!([
                {"name": "Name", "type": "string", "format": "name", "description": "Name", "priority": 0},
                {"name": "Created At", "type": "date", "format": "", "description": "Created At", "priority": 0},
            ]),
        }
    }

    fn in_storage_version<'o>(&self, object: &'o Value) -> Cow<'o, Value> {
        if *self.version == self.row.storage {
            return Cow::Borrowed(object);
        }
        let mut stored = object.clone();
        convert::convert(self.row, &mut stored, self.version, &self.row.storage);
        Cow::Owned(stored)
    }
}

const AGE_ONLY: Kind = &[NAME, AGE];

/// The columns of a built-in kind.
#[rustfmt::skip]
fn built_in(row: &Row) -> Option<Kind> {
    Some(match (row.group(), row.kind.as_str()) {
        ("", "Pod") => pod::POD,
        ("", "PodTemplate") => pod::POD_TEMPLATE,
        ("apps", "Deployment") => workload::DEPLOYMENT,
        ("apps", "ReplicaSet") => workload::REPLICA_SET,
        ("", "ReplicationController") => workload::REPLICATION_CONTROLLER,
        ("apps", "DaemonSet") => workload::DAEMON_SET,
        ("apps", "StatefulSet") => workload::STATEFUL_SET,
        ("apps", "ControllerRevision") => workload::CONTROLLER_REVISION,
        ("batch", "Job") => workload::JOB,
        ("batch", "CronJob") => workload::CRON_JOB,
        ("autoscaling", "HorizontalPodAutoscaler") => workload::AUTOSCALER,
        ("policy", "PodDisruptionBudget") => workload::DISRUPTION_BUDGET,
        ("", "Service") => network::SERVICE,
        ("", "Endpoints") => network::ENDPOINTS,
        ("discovery.k8s.io", "EndpointSlice") => network::ENDPOINT_SLICE,
        ("networking.k8s.io", "Ingress") => network::INGRESS,
        ("networking.k8s.io", "IngressClass") => network::INGRESS_CLASS,
        ("networking.k8s.io", "NetworkPolicy") => network::NETWORK_POLICY,
        ("networking.k8s.io", "ServiceCIDR") => network::SERVICE_CIDR,
        ("networking.k8s.io", "IPAddress") => network::IP_ADDRESS,
        ("", "Node") => cluster::NODE,
        ("", "Namespace") => cluster::NAMESPACE,
        ("", "Event") => cluster::EVENT,
        ("", "ConfigMap") => cluster::CONFIG_MAP,
        ("", "Secret") => cluster::SECRET,
        ("", "ServiceAccount") => AGE_ONLY,
        ("", "ResourceQuota") => cluster::RESOURCE_QUOTA,
        ("", "ComponentStatus") => cluster::COMPONENT_STATUS,
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => cluster::ROLE_BINDING,
        ("certificates.k8s.io", "CertificateSigningRequest") => cluster::SIGNING_REQUEST,
        ("coordination.k8s.io", "Lease") => cluster::LEASE,
        ("scheduling.k8s.io", "PriorityClass") => cluster::PRIORITY_CLASS,
        ("node.k8s.io", "RuntimeClass") => cluster::RUNTIME_CLASS,
        ("flowcontrol.apiserver.k8s.io", "FlowSchema") => cluster::FLOW_SCHEMA,
        ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration") => cluster::PRIORITY_LEVEL,
        ("admissionregistration.k8s.io", "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration") => cluster::WEBHOOKS,
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy") => cluster::VALIDATING_POLICY,
        ("admissionregistration.k8s.io", "MutatingAdmissionPolicy") => cluster::MUTATING_POLICY,
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding" | "MutatingAdmissionPolicyBinding") => cluster::POLICY_BINDING,
        ("apiregistration.k8s.io", "APIService") => cluster::API_SERVICE,
        ("", "PersistentVolume") => storage::VOLUME,
        ("", "PersistentVolumeClaim") => storage::CLAIM,
        ("storage.k8s.io", "StorageClass") => storage::CLASS,
        ("storage.k8s.io", "VolumeAttributesClass") => storage::ATTRIBUTES_CLASS,
        ("storage.k8s.io", "VolumeAttachment") => storage::ATTACHMENT,
        ("storage.k8s.io", "CSIDriver") => storage::DRIVER,
        ("storage.k8s.io", "CSINode") => storage::NODE,
        ("storage.k8s.io", "CSIStorageCapacity") => storage::CAPACITY,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ResourceTable;

    #[test]
    fn every_row_should_fill_each_of_its_columns() {
        let now: Timestamp = "2026-01-01T01:00:00Z".parse().unwrap();
        let object = json!({"metadata": {"name": "x", "creationTimestamp": "2026-01-01T00:00:00Z"}});
        for row in ResourceTable::built_in().rows() {
            for version in &row.served {
                let columns = for_row(row, version);
                let cells = columns.cells(&object, now);
                let definitions = columns.definitions();
                assert_eq!(cells.len(), definitions.as_array().unwrap().len(), "{row:?}");
                assert!(cells.contains(&json!("x")), "{row:?}");
            }
        }
    }
}
