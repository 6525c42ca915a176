//! Lifecycle hooks: postStart and preStop.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler};

use crate::agent_state::Agent;
use crate::http_get;

/// Runs a hook in or at a container; an error is what the event says.
pub async fn run(
    agent: &Agent,
    container: &Container,
    container_id: &str,
    pod_ip: &str,
    hook: &LifecycleHandler,
    limit: Option<Duration>,
) -> Result<(), String> {
    if let Some(action) = &hook.exec {
        let command = action.command.clone().unwrap_or_default();
        let shown = format!("{command:?}");
        let limit = limit.unwrap_or_default();
        let reply = agent.cri.exec_sync(container_id, command, limit).await;
        return match reply {
            Ok(reply) if reply.exit_code == 0 => Ok(()),
            Ok(reply) => Err(format!(
                "Exec lifecycle hook ({shown}) for Container \"{}\" failed: command exited with {}: {}",
                container.name,
                reply.exit_code,
                String::from_utf8_lossy(&reply.stderr).trim_end()
            )),
            Err(error) => Err(error.to_string()),
        };
    }
    if let Some(action) = &hook.http_get {
        let limit = limit.unwrap_or(Duration::from_secs(30));
        return http_get::get(container, action, pod_ip, limit).await.map(|_| ());
    }
    if let Some(action) = &hook.sleep {
        let seconds = Duration::from_secs(u64::try_from(action.seconds).unwrap_or(0));
        tokio::time::sleep(seconds.min(limit.unwrap_or(seconds))).await;
    }
    // tcpSocket was never implemented upstream either and does nothing.
    Ok(())
}
