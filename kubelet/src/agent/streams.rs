//! exec, attach and port-forward: the client's upgrade goes on to the runtime's streaming server.
//!
//! Our own runtime speaks whatever the client speaks, so bytes pass through. Others may know SPDY only: for them WebSocket
//! sessions end here and go on as SPDY.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use http::{StatusCode, Uri};
use k8s_cri::v1::{AttachRequest, ExecRequest, PortForwardRequest};
use k8s_openapi::api::core::v1::Pod;
use streaming::command::CommandOptions;
use streaming::translate::{Purpose, translate};

use super::Refusal;
use super::routes::{Shared, find};
use crate::agent_state::Agent;
use crate::cri::{PodRuntime, RunState};
use crate::pod::PodExt;

/// What our own runtime calls itself.
const OWN_RUNTIME: &str = "gantry";

type ContainerPath = Path<(String, String, String)>;
type UidPath = Path<(String, String, String, String)>;

/// A container that runs, by name.
pub(super) async fn running(
    agent: &Agent,
    namespace: &str,
    pod: &str,
    container: &str,
) -> Result<(Arc<Pod>, String), Refusal> {
    let pod = find(agent, namespace, pod)?;
    let runtime = observe(agent, &pod).await?;
    let record = runtime.latest(container).filter(|record| record.state == RunState::Running);
    let record = record.ok_or_else(|| {
        Refusal::new(StatusCode::NOT_FOUND, format!("container not found (\"{container}\")"))
    })?;
    Ok((pod, record.id.clone()))
}

pub(super) async fn observe(agent: &Agent, pod: &Pod) -> Result<PodRuntime, Refusal> {
    let seen = PodRuntime::observe(&agent.cri, pod.uid(), &PodRuntime::default()).await;
    seen.map_err(|error| Refusal::runtime(&error))
}

pub(super) async fn exec(
    State(agent): Shared,
    Path((namespace, pod, container)): ContainerPath,
    request: Request,
) -> Result<Response, Refusal> {
    let (_, id) = running(&agent, &namespace, &pod, &container).await?;
    let options = CommandOptions::from_query(request.uri().query());
    let cmd = values(request.uri(), "command");
    if cmd.is_empty() {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "you must specify a command"));
    }
    let url = agent
        .cri
        .exec(ExecRequest {
            container_id: id,
            cmd,
            tty: options.tty,
            stdin: options.stdin,
            stdout: options.stdout,
            stderr: options.stderr && !options.tty,
        })
        .await;
    pass_on(&agent, request, url, Purpose::Command(options)).await
}

pub(super) async fn exec_by_uid(
    agent: Shared,
    Path((namespace, pod, _, container)): UidPath,
    request: Request,
) -> Result<Response, Refusal> {
    exec(agent, Path((namespace, pod, container)), request).await
}

pub(super) async fn attach(
    State(agent): Shared,
    Path((namespace, pod, container)): ContainerPath,
    request: Request,
) -> Result<Response, Refusal> {
    let (pod, id) = running(&agent, &namespace, &pod, &container).await?;
    let mut options = CommandOptions::from_query(request.uri().query());
    // Whether there is a terminal is the container's affair.
    options.tty = pod.container(&container).is_some_and(|c| c.tty == Some(true));
    options.stderr &= !options.tty;
    let url = agent
        .cri
        .attach(AttachRequest {
            container_id: id,
            stdin: options.stdin,
            tty: options.tty,
            stdout: options.stdout,
            stderr: options.stderr,
        })
        .await;
    pass_on(&agent, request, url, Purpose::Command(options)).await
}

pub(super) async fn attach_by_uid(
    agent: Shared,
    Path((namespace, pod, _, container)): UidPath,
    request: Request,
) -> Result<Response, Refusal> {
    attach(agent, Path((namespace, pod, container)), request).await
}

pub(super) async fn port_forward(
    State(agent): Shared,
    Path((namespace, pod)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Refusal> {
    let pod = find(&agent, &namespace, &pod)?;
    let runtime = observe(&agent, &pod).await?;
    let sandbox = runtime.ready_sandbox();
    let sandbox = sandbox.ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, "the pod does not run"))?;
    let port = ["port", "ports"]
        .into_iter()
        .flat_map(|name| values(request.uri(), name))
        .collect::<Vec<_>>()
        .iter()
        .flat_map(|list| list.split(','))
        .filter_map(|p| p.parse().ok())
        .collect();
    let url = agent.cri.port_forward(PortForwardRequest { pod_sandbox_id: sandbox.id.clone(), port }).await;
    // Over WebSockets it is the query of the very request that names the ports.
    let query = request.uri().query().filter(|_| agent.runtime_name == OWN_RUNTIME);
    let url = url.map(|url| match query {
        Some(query) if !url.contains('?') => format!("{url}?{query}"),
        _ => url,
    });
    pass_on(&agent, request, url, Purpose::PortForward).await
}

pub(super) async fn port_forward_by_uid(
    agent: Shared,
    Path((namespace, pod, _)): ContainerPath,
    request: Request,
) -> Result<Response, Refusal> {
    port_forward(agent, Path((namespace, pod)), request).await
}

async fn pass_on(
    agent: &Agent,
    request: Request,
    url: Result<String, crate::cri::CriError>,
    purpose: Purpose,
) -> Result<Response, Refusal> {
    let url = url.map_err(|error| Refusal::runtime(&error))?;
    let backend: Uri = url.parse().map_err(|_| {
        Refusal::new(StatusCode::BAD_GATEWAY, format!("the runtime's streaming address is no URL: {url}"))
    })?;
    if !streaming::is_upgrade(request.headers()) {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "Upgrade request required"));
    }
    let reply = if agent.runtime_name == OWN_RUNTIME {
        let passed = streaming::proxy_to(request, &backend).await;
        passed.map_err(|error| Refusal::new(StatusCode::BAD_GATEWAY, error.to_string()))?
    } else {
        translate(request, &backend, purpose).await
    };
    Ok(reply.map(Body::new).into_response())
}

/// All values of a query parameter, decoded.
pub(super) fn values(uri: &Uri, name: &str) -> Vec<String> {
    let pairs = uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(|(key, _)| *key == name).map(|(_, value)| decode(value)).collect()
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let mut ahead = rest.clone();
                let digit = |byte: Option<u8>| byte.and_then(|b| char::from(b).to_digit(16));
                match (digit(ahead.next()), digit(ahead.next())) {
                    (Some(high), Some(low)) => {
                        bytes.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
                        rest = ahead;
                    }
                    _ => bytes.push(byte),
                }
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_keep_their_order_and_their_odd_characters() {
        let uri: Uri =
            "/exec/a/b/c?command=sh&command=-c&tty=true&command=echo+%22a%26b%22%20100%25".parse().unwrap();
        assert_eq!(values(&uri, "command"), ["sh", "-c", "echo \"a&b\" 100%"]);
    }
}
