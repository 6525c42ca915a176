//! The ends of the pipeline that are views of one object: the object itself and those of its subresources that are
//! read and written like it. An endpoint says what of the object a client sees and which part it may change.

use std::sync::Arc;

use api::field::{Look, Touch};
use api::{ApiError, Row, ServedVersion};
use schema::Schema;
use schema::apply::Reset;
use serde_json::{Map, Value};

use super::call::{Target, schema_of};
use crate::subresource::scale;

/// A view of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// All but `status`, where that is a subresource of its own.
    Object,
    /// `status` alone.
    Status,
    /// `autoscaling/v1 Scale`
    Scale,
    /// `spec.ephemeralContainers` of a pod, which only grows.
    EphemeralContainers,
    /// The resources of a pod's containers.
    Resize,
    /// `spec.finalizers` of a namespace.
    Finalize,
    /// The approval conditions of a certificate signing request.
    Approval,
}

impl Endpoint {
    /// The endpoint of a target; `None` for subresources that are no views.
    pub fn of(target: &Target) -> Option<Self> {
        match target.subresource.as_str() {
            "" => Some(Self::Object),
            "status" => Some(Self::Status),
            "scale" => Some(Self::Scale),
            "ephemeralcontainers" => Some(Self::EphemeralContainers),
            "resize" => Some(Self::Resize),
            "finalize" => Some(Self::Finalize),
            "approval" => Some(Self::Approval),
            _ => None,
        }
    }

    /// API version and kind of the body, in the version of the request.
    pub fn kind(self, target: &Target) -> (String, String) {
        match self {
            Self::Scale => ("autoscaling/v1".to_string(), "Scale".to_string()),
            _ => (target.version.api_version().into_owned(), target.row.kind.clone()),
        }
    }

    /// The schema of the body, in the version of the request.
    pub fn body_schema(self, target: &Target) -> Arc<Schema> {
        if self == Self::Scale {
            return api::schemas::for_kind("autoscaling", "v1", "Scale")
                .unwrap_or_else(|| Schema::anything().clone());
        }
        if let Some(custom) = &target.row.custom {
            let version = custom.versions.get(&target.version.version);
            return version.map_or_else(|| Schema::anything().clone(), |v| v.schema.clone());
        }
        let ServedVersion { group, version } = &target.version;
        api::schemas::for_kind(group, version, &target.row.kind).unwrap_or_else(|| schema_of(&target.row))
    }

    /// What a client sees of a stored object. Still in the storage version.
    pub fn view(self, live: &Value, target: &Target) -> Result<Value, ApiError> {
        match self {
            Self::Scale => scale::of(live, &target.row),
            _ => Ok(live.clone()),
        }
    }

    /// The object after a client has written `submitted` over `live`.
    pub fn merge(self, live: &Value, submitted: Value, target: &Target) -> Result<Value, ApiError> {
        let has_status = target.row.subresource("status").is_some();
        match self {
            Self::Object if has_status => Ok(with_field_of(submitted, live, "status")),
            Self::Object => Ok(submitted),
            Self::Status => Ok(status_written(live, submitted, &target.row)),
            Self::Scale => scale::written(live, &submitted, &target.row),
            Self::EphemeralContainers => Ok(with_path(live, &submitted, &["spec", "ephemeralContainers"])),
            Self::Resize => Ok(resized(live, &submitted)),
            Self::Finalize => Ok(with_path(live, &submitted, &["spec", "finalizers"])),
            Self::Approval => {
                let approved = with_path(live, &submitted, &["status", "conditions"]);
                Ok(with_metadata(
                    &approved,
                    &submitted,
                    &["annotations", "finalizers", "labels", "ownerReferences"],
                ))
            }
        }
    }

    /// What nobody comes to own through the endpoint.
    pub fn reset(self, target: &Target) -> Reset<'static> {
        match self {
            Self::Object if target.row.subresource("status").is_some() => Reset::Subtrees(&["status"]),
            Self::Status | Self::Approval => Reset::AllBut(&["status"]),
            _ => Reset::Nothing,
        }
    }

    /// Whether a write here can change the desired state.
    pub fn writes_spec(self) -> bool {
        !matches!(self, Self::Status | Self::Approval | Self::Finalize)
    }
}

fn with_field_of(mut object: Value, source: &Value, field: &str) -> Value {
    if let Some(map) = object.as_object_mut() {
        match source.get(field) {
            Some(value) => map.insert(field.to_string(), value.clone()),
            None => map.remove(field),
        };
    }
    object
}

/// A write to `/status` brings its status, and of most kinds what clients may write of the metadata.
fn status_written(live: &Value, submitted: Value, row: &Row) -> Value {
    let brought: &[&str] = match (row.group(), row.plural.as_str()) {
        _ if row.custom.is_some() => &[],
        ("flowcontrol.apiserver.k8s.io", _) => &[],
        (
            "admissionregistration.k8s.io" | "networking.k8s.io" | "resource.k8s.io" | "storage.k8s.io",
            "validatingadmissionpolicies" | "servicecidrs" | "resourceclaims" | "volumeattachments",
        ) => &[],
        ("apps", "deployments") => &["annotations", "finalizers", "ownerReferences"],
        ("", "pods") => &["annotations", "finalizers", "labels"],
        _ => &["annotations", "finalizers", "labels", "ownerReferences"],
    };
    with_metadata(&with_field_of(live.clone(), &submitted, "status"), &submitted, brought)
}

/// `live` with what `submitted` has at a path of two fields; resource version and managed fields come along.
fn with_path(live: &Value, submitted: &Value, path: &[&str; 2]) -> Value {
    let mut new = with_metadata(live, submitted, &[]);
    let [outer, inner] = path;
    let value = submitted.dig(path).cloned();
    if let Some(map) = new.as_object_mut() {
        let parent = map.entry((*outer).to_string()).or_insert_with(|| Value::Object(Map::new()));
        if let Some(parent) = parent.as_object_mut() {
            match value {
                Some(value) => parent.insert((*inner).to_string(), value),
                None => parent.remove(*inner),
            };
        }
    }
    new
}

/// `live` with fields of the metadata that `submitted` has; resource version and managed fields come along.
fn with_metadata(live: &Value, submitted: &Value, fields: &[&str]) -> Value {
    let mut new = live.clone();
    if let Some(metadata) = new.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in ["managedFields", "resourceVersion", "uid"].iter().chain(fields) {
            match submitted.get("metadata").and_then(|m| m.at(field)) {
                Some(value) => metadata.insert((*field).to_string(), value.clone()),
                None => metadata.remove(*field),
            };
        }
    }
    new
}

/// `live` with the resources that `submitted` gives to its containers. Other containers than `live` has come along, for
/// validation to refuse.
fn resized(live: &Value, submitted: &Value) -> Value {
    let mut new = with_metadata(live, submitted, &[]);
    let Some(spec) = new.get_mut("spec") else { return new };
    for list in ["containers", "initContainers"] {
        let wanted = submitted.get("spec").map_or(&[][..], |spec| spec.items(list));
        let names =
            |list: &[Value]| -> Vec<String> { list.iter().map(|c| c.text("name").to_string()).collect() };
        if names(wanted) != names(spec.items(list)) {
            spec.put(list, wanted.to_vec());
            continue;
        }
        for (container, wanted) in spec.items_mut(list).iter_mut().zip(wanted) {
            for field in ["resources", "resizePolicy"] {
                match wanted.get(field) {
                    Some(value) => container.put(field, value.clone()),
                    None => container.drop_field(field),
                }
            }
        }
    }
    new
}
