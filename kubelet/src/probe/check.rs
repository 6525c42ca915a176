//! One look at a container: by a command in it, or over HTTP, TCP or gRPC.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::grpc;
use crate::agent_state::Agent;
use crate::http_get;

/// Asks; an error is what the event says.
pub async fn run(
    agent: &Agent,
    container: &Container,
    container_id: &str,
    ip: &str,
    probe: &Probe,
    limit: Duration,
) -> Result<(), String> {
    if let Some(action) = &probe.exec {
        return exec(agent, container_id, action.command.clone().unwrap_or_default(), limit).await;
    }
    if let Some(action) = &probe.http_get {
        let answer = http_get::get(container, action, ip, limit).await?;
        return if (200..400).contains(&answer.code) {
            Ok(())
        } else {
            Err(format!("HTTP probe failed with statuscode: {}", answer.code))
        };
    }
    if let Some(action) = &probe.tcp_socket {
        let port = http_get::port(container, &action.port)?;
        let host = action.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(ip);
        return match tokio::time::timeout(limit, http_get::connect(host, port)).await {
            Ok(connected) => connected.map(drop),
            Err(_) => Err(format!("dial tcp {host}:{port}: i/o timeout")),
        };
    }
    if let Some(action) = &probe.grpc {
        let port = http_get::port(container, &IntOrString::Int(action.port))?;
        return grpc::check(ip, port, action.service.as_deref().unwrap_or_default(), limit).await;
    }
    Ok(())
}

async fn exec(
    agent: &Agent,
    container_id: &str,
    command: Vec<String>,
    limit: Duration,
) -> Result<(), String> {
    match agent.cri.exec_sync(container_id, command, limit).await {
        Ok(reply) if reply.exit_code == 0 => Ok(()),
        Ok(reply) => {
            let output = [reply.stdout, reply.stderr].concat();
            let output: String = String::from_utf8_lossy(&output).chars().take(10 << 10).collect();
            Err(output)
        }
        Err(error) if error.code == tonic::Code::DeadlineExceeded => {
            Err(format!("command timed out after {}s", limit.as_secs()))
        }
        Err(error) => Err(error.to_string()),
    }
}
