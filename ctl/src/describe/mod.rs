//! Objects as pages for people: what they are, how they are, and what happened to them.

mod certificate_request;
mod containers;
pub mod events;
mod generic;
mod network;
mod node;
pub mod page;
mod plain;
mod pod;
mod policy;
mod volumes;
mod workloads;

use serde_json::Value;

use crate::session::Session;
use page::Page;

/// Kinds to which nothing happens that an event would tell.
const WITHOUT_EVENTS: &[&str] = &[
    "ClusterRole",
    "ClusterRoleBinding",
    "LimitRange",
    "Namespace",
    "NetworkPolicy",
    "ResourceQuota",
    "Role",
    "RoleBinding",
    "Secret",
];

/// The page of an object. Its kind decides the form; kinds without one of their own are shown field by field.
pub async fn page(session: &Session, object: &Value, with_events: bool) -> String {
    let mut page = Page::default();
    write(session, object, &mut page).await;
    if with_events && !WITHOUT_EVENTS.contains(&object["kind"].as_str().unwrap_or_default()) {
        events::write(session, object, &mut page).await;
    }
    page.finish()
}

/// The pod template of a workload's version, as `rollout history --revision` shows it.
pub fn template(template: &Value) -> String {
    let mut page = Page::default();
    pod::template(template, &mut page);
    page.unaligned()
}

async fn write(session: &Session, object: &Value, page: &mut Page) {
    let api_version = object["apiVersion"].as_str().unwrap_or_default();
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    match (group, object["kind"].as_str().unwrap_or_default()) {
        ("", "Pod") => pod::write(object, page),
        ("apps", "Deployment") => workloads::deployment(session, object, page).await,
        ("apps", "ReplicaSet") | ("", "ReplicationController") => {
            workloads::replica_set(session, object, page).await;
        }
        ("apps", "DaemonSet") => workloads::daemon_set(session, object, page).await,
        ("apps", "StatefulSet") => workloads::stateful_set(session, object, page).await,
        ("batch", "Job") => workloads::job(object, page),
        ("batch", "CronJob") => workloads::cron_job(object, page),
        ("autoscaling", "HorizontalPodAutoscaler") => workloads::autoscaler(object, page),
        ("policy", "PodDisruptionBudget") => workloads::disruption_budget(object, page),
        ("", "Service") => network::service(session, object, page).await,
        ("discovery.k8s.io", "EndpointSlice") => network::endpoint_slice(object, page),
        ("networking.k8s.io", "NetworkPolicy") => policy::network_policy(object, page),
        ("certificates.k8s.io", "CertificateSigningRequest") => certificate_request::write(object, page),
        ("networking.k8s.io", "Ingress") => network::ingress(session, object, page).await,
        ("", "Node") => node::write(session, object, page).await,
        ("", "ConfigMap") => plain::config_map(object, page),
        ("", "Secret") => plain::secret(object, page),
        ("", "ServiceAccount") => plain::service_account(object, page),
        ("", "Namespace") => plain::namespace(session, object, page).await,
        ("", "ResourceQuota") => plain::quota(object, page),
        ("", "LimitRange") => plain::limit_range(object, page),
        ("", "PersistentVolume") => plain::volume(object, page),
        ("", "PersistentVolumeClaim") => plain::claim(session, object, page).await,
        ("rbac.authorization.k8s.io", "Role" | "ClusterRole") => plain::role(object, page),
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => plain::binding(object, page),
        ("scheduling.k8s.io", "PriorityClass") => plain::priority_class(object, page),
        ("storage.k8s.io", "StorageClass") => plain::storage_class(object, page),
        _ => generic::write(object, page),
    }
}
