//! `/containerLogs`: which log is meant, and from where.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use k8s_cri::v1::ContainerState;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::follow::{self, Selection};
use super::routes::{Shared, find};
use super::{Refusal, streams};
use crate::agent_state::Agent;
use crate::cri::{ContainerRecord, Cri, RunState};
use crate::pod::{Mailbox, PodExt};

/// Chunks on their way to the client.
const CHUNKS: usize = 8;

/// What of a log is asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Options {
    follow: Option<String>,
    previous: Option<String>,
    timestamps: Option<String>,
    tail_lines: Option<u64>,
    limit_bytes: Option<u64>,
    since_seconds: Option<i64>,
    since_time: Option<String>,
    stream: Option<String>,
}

fn is_set(flag: Option<&String>) -> bool {
    flag.is_some_and(|flag| matches!(flag.as_str(), "true" | "1" | ""))
}

pub(super) async fn serve(
    State(agent): Shared,
    Path((namespace, name, container)): Path<(String, String, String)>,
    Query(options): Query<Options>,
) -> Result<Response, Refusal> {
    let pod = find(&agent, &namespace, &name)?;
    if pod.container(&container).is_none() {
        let message = format!("container \"{container}\" not found in pod \"{name}\"");
        return Err(Refusal::new(StatusCode::NOT_FOUND, message));
    }
    let record = choose(&agent, &pod, &container, is_set(options.previous.as_ref())).await?;
    let since =
        match (&options.since_time, options.since_seconds) {
            (Some(time), _) => Some(time.parse::<Timestamp>().map_err(|error| {
                Refusal::new(StatusCode::BAD_REQUEST, format!("invalid sinceTime: {error}"))
            })?),
            (None, Some(seconds)) => Timestamp::now().checked_sub(SignedDuration::from_secs(seconds)).ok(),
            (None, None) => None,
        };
    let selection = Selection {
        tail_lines: options.tail_lines,
        limit_bytes: options.limit_bytes,
        since: since.map(|since| since.to_string().into_bytes()),
        timestamps: is_set(options.timestamps.as_ref()),
        stream: options.stream.filter(|stream| stream != "All").map(|s| s.to_lowercase().into_bytes()),
    };
    let follow = is_set(options.follow.as_ref()) && record.state != RunState::Exited;
    let mailbox = agent.pods.lock().get(pod.uid()).cloned();
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(CHUNKS);
    let path = PathBuf::from(&record.log_path);
    tokio::spawn(async move {
        let ended = async move {
            if let Some(mailbox) = mailbox.filter(|_| follow) {
                container_ended(&agent.cri, mailbox, &record.id).await;
            }
        };
        let sent = follow::send(&path, &selection, follow, ended, &sender).await;
        if let Err(error) = sent
            && !sender.is_closed()
        {
            tracing::warn!(path = %path.display(), %error, "a log could not be sent to its end");
            // The client is told by a broken stream: an orderly end would mean that this was all.
            sender.send(Err(error)).await.ok();
        }
    });
    let body = Body::from_stream(ReceiverStream::new(receiver));
    Ok(([("content-type", "text/plain")], body).into_response())
}

/// The container whose log is meant: the newest, or the one before it.
async fn choose(agent: &Agent, pod: &Pod, name: &str, previous: bool) -> Result<ContainerRecord, Refusal> {
    let runtime = streams::observe(agent, pod).await?;
    let mut records =
        runtime.containers.into_iter().filter(|c| c.name == name && c.state != RunState::Created);
    let pod_name = pod.name();
    if !previous {
        return records.next().ok_or_else(|| {
            let reason = waiting_reason(pod, name).unwrap_or_else(|| "ContainerCreating".to_string());
            let message = if matches!(reason.as_str(), "ErrImagePull" | "ImagePullBackOff" | "ErrImageNeverPull" | "InvalidImageName") {
                format!("container \"{name}\" in pod \"{pod_name}\" is waiting to start: trying and failing to pull image")
            } else {
                format!("container \"{name}\" in pod \"{pod_name}\" is waiting to start: {reason}")
            };
            Refusal::new(StatusCode::BAD_REQUEST, message)
        });
    }
    let mut ended = records.filter(|c| c.state == RunState::Exited);
    let current_ended =
        status_of(pod, name).is_none_or(|s| s.last_state.as_ref().is_none_or(|l| l.terminated.is_none()));
    let message = format!("previous terminated container \"{name}\" in pod \"{pod_name}\" not found");
    let last = status_of(pod, name).and_then(|s| s.last_state.clone()).and_then(|s| s.terminated);
    let wanted = last.and_then(|t| t.container_id).and_then(|id| id.rsplit('/').next().map(str::to_string));
    let found = ended.find(|c| wanted.as_ref().is_none_or(|wanted| *wanted == c.id));
    found.filter(|_| !current_ended).ok_or_else(|| Refusal::new(StatusCode::BAD_REQUEST, message))
}

fn status_of<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let init = status.init_container_statuses.iter().flatten();
    let mains = status.container_statuses.iter().flatten();
    let debugging = status.ephemeral_container_statuses.iter().flatten();
    init.chain(mains).chain(debugging).find(|c| c.name == name)
}

fn waiting_reason(pod: &Pod, name: &str) -> Option<String> {
    status_of(pod, name)?.state.as_ref()?.waiting.as_ref()?.reason.clone()
}

/// Returns when the container does not run any more: as its pod's worker sees it, and the runtime confirms.
async fn container_ended(cri: &Cri, mailbox: Arc<Mailbox>, id: &str) {
    let mut versions = mailbox.versions();
    // The versions end with the pod's worker, which this must not keep.
    drop(mailbox);
    while versions.wait_for(|pod| !runs(pod, id)).await.is_ok() {
        let running = ContainerState::ContainerRunning as i32;
        if !matches!(cri.container_status(id).await, Ok(Some(status)) if status.state == running) {
            return;
        }
        if versions.changed().await.is_err() {
            return;
        }
    }
}

/// Whether the worker takes this container to run, or has not seen it yet.
fn runs(pod: &Pod, id: &str) -> bool {
    let suffix = format!("://{id}");
    let status = pod.status.as_ref();
    let mut all = status.iter().flat_map(|s| {
        let mains = s.container_statuses.iter().flatten();
        let init = s.init_container_statuses.iter().flatten();
        mains.chain(init).chain(s.ephemeral_container_statuses.iter().flatten())
    });
    match all.find(|c| c.container_id.as_deref().is_some_and(|known| known.ends_with(&suffix))) {
        Some(status) => status.state.as_ref().is_some_and(|state| state.running.is_some()),
        None => {
            status.is_none_or(|s| !matches!(s.phase.as_deref(), Some("Succeeded" | "Failed")))
                && !moved_on(pod, id)
        }
    }
}

/// Whether a later container has taken this one's place.
fn moved_on(pod: &Pod, id: &str) -> bool {
    let status = pod.status.as_ref();
    let all = status.iter().flat_map(|s| s.container_statuses.iter().flatten());
    all.into_iter().any(|c| {
        let last = c.last_state.as_ref().and_then(|s| s.terminated.as_ref());
        last.and_then(|t| t.container_id.as_ref()).is_some_and(|last| last.ends_with(id))
    })
}
