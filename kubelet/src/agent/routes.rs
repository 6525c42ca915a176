//! The agent API's paths.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use http::StatusCode;
use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;
use serde_json::json;

use super::access::Access;
use super::{Refusal, answer, images, logs, metrics, stats, streams};
use crate::agent_state::Agent;
use crate::pod::PodExt;

pub(super) type Shared = State<Arc<Agent>>;

pub(super) fn router(agent: Arc<Agent>, access: Arc<Access>) -> Router {
    Router::new()
        .route("/containerLogs/{namespace}/{pod}/{container}", get(logs::serve))
        .route("/exec/{namespace}/{pod}/{container}", any(streams::exec))
        .route("/exec/{namespace}/{pod}/{uid}/{container}", any(streams::exec_by_uid))
        .route("/attach/{namespace}/{pod}/{container}", any(streams::attach))
        .route("/attach/{namespace}/{pod}/{uid}/{container}", any(streams::attach_by_uid))
        .route("/portForward/{namespace}/{pod}", any(streams::port_forward))
        .route("/portForward/{namespace}/{pod}/{uid}", any(streams::port_forward_by_uid))
        .route("/run/{namespace}/{pod}/{container}", post(run))
        .route("/run/{namespace}/{pod}/{uid}/{container}", post(run_by_uid))
        .route("/pods", get(pods))
        .route("/pods/", get(pods))
        .route("/runningpods/", get(pods))
        .route("/stats/summary", get(stats::summary))
        .route("/metrics", get(metrics::own))
        .route("/metrics/resource", get(metrics::resource))
        .route("/healthz", get(|| async { "ok" }))
        .route("/healthz/{check}", get(|| async { "ok" }))
        .route("/configz", get(configz))
        .route("/gantry/images", get(images::list).post(images::load).delete(images::remove))
        .layer(axum::extract::DefaultBodyLimit::disable())
        .layer(middleware::from_fn_with_state(access, Access::check))
        .with_state(agent)
}

/// A pod by its name.
pub(super) fn find(agent: &Agent, namespace: &str, name: &str) -> Result<Arc<Pod>, Refusal> {
    let pods = agent.mailboxes().into_iter().map(|mailbox| mailbox.latest());
    let mut found: Vec<_> = pods.filter(|pod| pod.namespace() == namespace && pod.name() == name).collect();
    // One that ends may share its name with the one after it.
    found.sort_by_key(|pod| pod.is_deleted());
    let message = || format!("pod \"{name}\" not found in namespace \"{namespace}\"");
    found.into_iter().next().ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, message()))
}

async fn pods(State(agent): Shared) -> Response {
    let items: Vec<_> = agent.mailboxes().into_iter().map(|mailbox| mailbox.latest()).collect();
    answer(json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items }))
}

async fn configz(State(agent): Shared) -> Response {
    let config = &agent.config;
    answer(json!({ "kubeletconfig": {
        "kind": "KubeletConfiguration",
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "clusterDomain": config.cluster_domain,
        "clusterDNS": config.cluster_dns,
        "maxPods": config.max_pods,
        "containerRuntimeEndpoint": config.runtime_endpoint,
        "containerLogMaxSize": format!("{}Mi", config.container_log_max_bytes >> 20),
        "containerLogMaxFiles": config.container_log_max_files,
        "nodeStatusUpdateFrequency": format!("{}s", config.status_interval.as_secs()),
        "nodeLeaseDurationSeconds": config.lease_duration.as_secs(),
        "imageGCHighThresholdPercent": config.image_gc.high_percent,
        "imageGCLowThresholdPercent": config.image_gc.low_percent,
    }}))
}

#[derive(Deserialize)]
struct Command {
    #[serde(default)]
    cmd: String,
}

type ContainerPath = Path<(String, String, String)>;

async fn run(
    State(agent): Shared,
    Path((namespace, pod, container)): ContainerPath,
    Query(command): Query<Command>,
) -> Result<Response, Refusal> {
    let (_, id) = streams::running(&agent, &namespace, &pod, &container).await?;
    let words = command.cmd.split_whitespace().map(str::to_string).collect();
    let reply = agent.cri.exec_sync(&id, words, std::time::Duration::ZERO).await;
    let reply = reply.map_err(|error| Refusal::runtime(&error))?;
    Ok([reply.stdout, reply.stderr].concat().into_response())
}

async fn run_by_uid(
    agent: Shared,
    Path((namespace, pod, _uid, container)): Path<(String, String, String, String)>,
    command: Query<Command>,
) -> Result<Response, Refusal> {
    run(agent, Path((namespace, pod, container)), command).await
}
