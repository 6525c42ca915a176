//! One request about a resource, and what it is aimed at.

use std::sync::Arc;

use api::{ApiError, ResourceTable, Row, Scope, ServedVersion, Subresource};
use bytes::Bytes;
use http::HeaderMap;
use parking_lot::Mutex;
use schema::Schema;

use super::no_such_path;
use super::options::{Options, WriteOptions};
use super::system_fields::check_path_segment;
use crate::admission::{AdmissionRequest, Operation};
use crate::audit::Notes;
use crate::auth::UserInfo;
use crate::http::negotiate::Form;
use crate::http::query::Query;
use crate::http::request_info::RequestInfo;
use crate::http::respond::Failure;
use crate::objects::{key_of, prefix_of};

/// One request about a resource, behind authorization.
pub(crate) struct Call {
    pub info: RequestInfo,
    pub query: Query,
    pub headers: HeaderMap,
    pub user: UserInfo,
    pub form: Form,
    /// The time of the request, RFC 3339 with seconds.
    pub now: String,
    /// What strict decoding has against the body itself, before a schema is looked at: its duplicate fields.
    pub duplicates: Mutex<Vec<String>>,
    /// The body of a JSON object, by which what strict decoding finds is put in order.
    pub source: Mutex<Bytes>,
    /// What the sender should hear though the request succeeds.
    pub warnings: Mutex<Vec<String>>,
    /// What the audit log says beside the request.
    pub annotations: Notes,
}

impl Call {
    /// A call that happens now.
    pub fn new(info: RequestInfo, query: Query, headers: HeaderMap, user: UserInfo, form: Form) -> Self {
        Self {
            info,
            query,
            headers,
            user,
            form,
            now: now(),
            duplicates: Mutex::default(),
            source: Mutex::default(),
            warnings: Mutex::default(),
            annotations: Notes::default(),
        }
    }

    /// What admission is asked about a new object, or a POST to a subresource, unless the caller says otherwise.
    pub fn admission<'a>(&'a self, target: &'a Target, options: &'a WriteOptions) -> AdmissionRequest<'a> {
        let about = target.admission(Operation::Create, &self.user, &self.warnings, &self.annotations);
        AdmissionRequest { dry_run: options.dry_run, options: Options::Write(options), ..about }
    }

    /// Adds a warning once.
    pub fn warn(&self, warning: impl Into<String>) {
        let warning = warning.into();
        let mut warnings = self.warnings.lock();
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }

    /// The client's name for itself.
    pub fn user_agent(&self) -> &str {
        self.headers.get(http::header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }
}

/// Now, as the API writes times.
pub(crate) fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// What a request is aimed at.
#[derive(Clone)]
pub(crate) struct Target {
    pub row: Arc<Row>,
    /// `<group>/<plural>` of the stored kind.
    pub row_name: String,
    /// The version that the request speaks.
    pub version: ServedVersion,
    pub namespace: String,
    pub name: String,
    pub subresource: String,
    /// What follows a `proxy` subresource.
    pub remainder: String,
}

impl Target {
    /// Finds the row of a path; 404 when there is none, 400 where a segment would be more than one.
    pub fn find(table: &ResourceTable, info: &RequestInfo) -> Result<Self, Failure> {
        let row = table.resource(&info.group, &info.version, &info.resource).ok_or_else(no_such_path)?;
        for segment in [&info.namespace, &info.name] {
            check_path_segment(segment)?;
        }
        let is_namespace = info.resource == "namespaces" && info.group.is_empty();
        let namespace = if is_namespace { String::new() } else { info.namespace.clone() };
        if row.scope == Scope::Cluster && !namespace.is_empty() {
            return Err(no_such_path());
        }
        let subresource = info.subresource.as_str();
        if !subresource.is_empty() && row.subresource(subresource).is_none() {
            return Err(no_such_path());
        }
        // `namespaces/{ns}/bindings` and its kin have no name; everything else below a namespaced row has a namespace.
        if row.scope == Scope::Namespaced && namespace.is_empty() && !info.name.is_empty() {
            return Err(no_such_path());
        }
        Ok(Self {
            row: row.clone(),
            row_name: row_name(row),
            version: ServedVersion { group: info.group.clone(), version: info.version.clone() },
            namespace,
            name: info.name.clone(),
            subresource: info.subresource.clone(),
            remainder: info.remainder.clone(),
        })
    }

    /// A target for work that the server does by itself.
    pub fn internal(row: &Arc<Row>, namespace: &str, name: &str) -> Self {
        Self {
            row: row.clone(),
            row_name: row_name(row),
            version: row.storage.clone(),
            namespace: namespace.to_string(),
            name: name.to_string(),
            subresource: String::new(),
            remainder: String::new(),
        }
    }

    /// What admission is asked about the target.
    pub fn admission<'a>(
        &'a self,
        operation: Operation,
        user: &'a UserInfo,
        warnings: &'a Mutex<Vec<String>>,
        annotations: &'a Notes,
    ) -> AdmissionRequest<'a> {
        AdmissionRequest {
            operation,
            user,
            row: &self.row,
            version: &self.version,
            subresource: &self.subresource,
            namespace: &self.namespace,
            name: &self.name,
            old: None,
            dry_run: false,
            options: Options::None,
            warnings,
            annotations,
        }
    }

    /// The same object without its subresource.
    pub fn whole_object(&self) -> Self {
        Self { subresource: String::new(), ..self.clone() }
    }

    /// The store's key of an object of this row.
    pub fn key(&self, namespace: &str, name: &str) -> Arc<str> {
        key_of(&self.row_name, namespace, name).into()
    }

    /// What the keys of the target's objects begin with.
    pub fn prefix(&self) -> String {
        prefix_of(&self.row_name, &self.namespace)
    }

    /// The subresource of the row that is aimed at.
    pub fn subresource(&self) -> Option<&Subresource> {
        self.row.subresource(&self.subresource)
    }

    /// The schema of the stored object.
    pub fn schema(&self) -> Arc<Schema> {
        schema_of(&self.row)
    }

    /// 404 for an object.
    pub fn not_found(&self, name: &str) -> ApiError {
        ApiError::not_found(self.row.group(), &self.row.plural, name)
    }

    /// 409 for an object that is not what the request assumes.
    pub fn conflict(&self, name: &str, why: &str) -> ApiError {
        ApiError::conflict(self.row.group(), &self.row.plural, name, why)
    }
}

/// `<group>/<plural>` of the stored kind.
pub(crate) fn row_name(row: &Row) -> String {
    let group = if row.group().is_empty() { "core" } else { row.group() };
    format!("{group}/{}", row.plural)
}

/// The schema of a row's objects in their storage version.
pub(crate) fn schema_of(row: &Row) -> Arc<Schema> {
    if let Some(custom) = &row.custom {
        let version = custom.versions.get(&row.storage.version);
        return version.map_or_else(|| Schema::anything().clone(), |v| v.schema.clone());
    }
    let storage = &row.storage;
    api::schemas::for_kind(&storage.group, &storage.version, &row.kind)
        .unwrap_or_else(|| Schema::anything().clone())
}
