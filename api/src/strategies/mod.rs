//! What is special about each built-in kind: one file per kind or family.

pub mod apps;
pub mod batch;
mod common;
pub mod core;
pub mod pod;
pub mod pod_spec;

use std::sync::Arc;

use crate::Strategy;

/// Nothing is special.
pub struct Plain;

impl Strategy for Plain {}

/// The strategy of a built-in kind.
pub fn for_kind(group: &str, kind: &str) -> Arc<dyn Strategy> {
    match (group, kind) {
        ("", "ConfigMap") => Arc::new(core::ConfigMap),
        ("", "Endpoints") => Arc::new(core::Endpoints),
        ("", "Event") => Arc::new(core::Event),
        ("", "LimitRange") => Arc::new(core::LimitRange),
        ("", "Namespace") => Arc::new(core::Namespace),
        ("", "Node") => Arc::new(core::Node),
        ("", "PersistentVolume") => Arc::new(core::PersistentVolume),
        ("", "PersistentVolumeClaim") => Arc::new(core::PersistentVolumeClaim),
        ("", "Pod") => Arc::new(pod::Pod),
        ("", "ReplicationController") => Arc::new(apps::ReplicationController),
        ("", "ResourceQuota") => Arc::new(core::ResourceQuota),
        ("", "Secret") => Arc::new(core::Secret),
        ("", "Service") => Arc::new(core::Service),
        ("", "ServiceAccount") => Arc::new(core::ServiceAccount),
        ("apps", "ControllerRevision") => Arc::new(apps::ControllerRevision),
        ("apps", "DaemonSet") => Arc::new(apps::DaemonSet),
        ("apps", "Deployment") => Arc::new(apps::Deployment),
        ("apps", "ReplicaSet") => Arc::new(apps::ReplicaSet),
        ("apps", "StatefulSet") => Arc::new(apps::StatefulSet),
        ("batch", "CronJob") => Arc::new(batch::CronJob),
        ("batch", "Job") => Arc::new(batch::Job),
        _ => Arc::new(Plain),
    }
}
