//! What is special about each built-in kind: one file per kind or family.

pub mod admission;
pub mod apps;
pub mod autoscaling;
pub mod batch;
pub mod certificates;
mod common;
pub mod coordination;
pub mod core;
pub mod discovery;
pub mod extension;
pub mod flow_control;
pub mod networking;
pub mod pod;
pub mod pod_spec;
pub mod policy;
pub mod rbac;
pub mod resource;
pub mod scheduling;
pub mod storage;
mod structural;

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
        ("", "PodTemplate") => Arc::new(core::PodTemplate),
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
        ("admissionregistration.k8s.io", kind) => admission::for_kind(kind),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => Arc::new(extension::CustomResourceDefinition),
        ("apiregistration.k8s.io", "APIService") => Arc::new(extension::ApiService),
        ("autoscaling", "HorizontalPodAutoscaler") => Arc::new(autoscaling::HorizontalPodAutoscaler),
        ("certificates.k8s.io", "CertificateSigningRequest") => {
            Arc::new(certificates::CertificateSigningRequest)
        }
        ("coordination.k8s.io", "Lease") => Arc::new(coordination::Lease),
        ("discovery.k8s.io", "EndpointSlice") => Arc::new(discovery::EndpointSlice),
        ("flowcontrol.apiserver.k8s.io", "FlowSchema") => Arc::new(flow_control::FlowSchema),
        ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration") => {
            Arc::new(flow_control::PriorityLevelConfiguration)
        }
        ("networking.k8s.io", "Ingress") => Arc::new(networking::Ingress),
        ("networking.k8s.io", "IngressClass") => Arc::new(networking::IngressClass),
        ("networking.k8s.io", "IPAddress") => Arc::new(networking::IpAddress),
        ("networking.k8s.io", "NetworkPolicy") => Arc::new(networking::NetworkPolicy),
        ("networking.k8s.io", "ServiceCIDR") => Arc::new(networking::ServiceCidr),
        ("node.k8s.io", "RuntimeClass") => Arc::new(scheduling::RuntimeClass),
        ("policy", "PodDisruptionBudget") => Arc::new(policy::PodDisruptionBudget),
        ("rbac.authorization.k8s.io", "Role") => Arc::new(rbac::Role { is_namespaced: true }),
        ("rbac.authorization.k8s.io", "ClusterRole") => Arc::new(rbac::Role { is_namespaced: false }),
        ("rbac.authorization.k8s.io", "RoleBinding") => Arc::new(rbac::Binding { is_namespaced: true }),
        ("rbac.authorization.k8s.io", "ClusterRoleBinding") => {
            Arc::new(rbac::Binding { is_namespaced: false })
        }
        ("scheduling.k8s.io", "PriorityClass") => Arc::new(scheduling::PriorityClass),
        ("resource.k8s.io", "DeviceClass") => Arc::new(resource::DeviceClass),
        ("resource.k8s.io", "ResourceClaim") => Arc::new(resource::ResourceClaim),
        ("resource.k8s.io", "ResourceClaimTemplate") => Arc::new(resource::ResourceClaimTemplate),
        ("resource.k8s.io", "ResourceSlice") => Arc::new(resource::ResourceSlice),
        ("storage.k8s.io", "CSIDriver") => Arc::new(storage::CsiDriver),
        ("storage.k8s.io", "CSINode") => Arc::new(storage::CsiNode),
        ("storage.k8s.io", "CSIStorageCapacity") => Arc::new(storage::CsiStorageCapacity),
        ("storage.k8s.io", "StorageClass") => Arc::new(storage::StorageClass),
        ("storage.k8s.io", "VolumeAttachment") => Arc::new(storage::VolumeAttachment),
        ("storage.k8s.io", "VolumeAttributesClass") => Arc::new(storage::VolumeAttributesClass),
        _ => Arc::new(Plain),
    }
}
