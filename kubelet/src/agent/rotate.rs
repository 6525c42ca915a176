//! Rotates container logs that have grown too large, and drops the oldest.
//!
//! A rotated file is the log's name with the time of its rotation, as upstream names it. Deliberately absent: compression.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::agent_state::Agent;

/// How often sizes are looked at, as upstream.
const INTERVAL: Duration = Duration::from_secs(10);

/// A log's rotated files, the oldest first.
pub fn rotated(path: &Path) -> Vec<PathBuf> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name().and_then(|n| n.to_str())) else {
        return Vec::new();
    };
    let prefix = format!("{name}.");
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let is_rotated = |name: &str| {
        name.strip_prefix(&prefix)
            .is_some_and(|time| time.len() == 15 && time.chars().all(|c| c.is_ascii_digit() || c == '-'))
    };
    let mut files: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().to_str().is_some_and(is_rotated))
        .map(|entry| entry.path())
        .collect();
    files.sort();
    files
}

/// Rotates until shutdown; sleeps while there are no pods.
pub async fn rotate_logs(agent: Arc<Agent>, shutdown: CancellationToken) {
    loop {
        let changed = agent.pods_changed.notified();
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = changed, if agent.pods.lock().is_empty() => {}
            () = tokio::time::sleep(INTERVAL), if !agent.pods.lock().is_empty() => {}
        }
        let logs = running_logs(&agent);
        for (id, path) in logs {
            let size = tokio::fs::metadata(&path).await.map_or(0, |metadata| metadata.len());
            if size > agent.config.container_log_max_bytes
                && let Err(error) = rotate(&agent, &id, &path).await
            {
                tracing::warn!(path = %path.display(), error, "a log could not be rotated");
            }
        }
    }
}

/// Id and log of every container that runs, as the workers see them.
fn running_logs(agent: &Agent) -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    for mailbox in agent.mailboxes() {
        let pod = mailbox.latest();
        let dir = crate::pod::config::log_dir(&agent.config, &pod);
        let status = pod.status.as_ref();
        let all = status.iter().flat_map(|s| {
            s.container_statuses.iter().flatten().chain(s.init_container_statuses.iter().flatten())
        });
        for status in all.filter(|c| c.state.as_ref().is_some_and(|state| state.running.is_some())) {
            let id = status.container_id.as_deref().and_then(|id| id.rsplit('/').next());
            let path = dir.join(&status.name).join(format!("{}.log", status.restart_count));
            found.extend(id.map(|id| (id.to_string(), path)));
        }
    }
    found
}

async fn rotate(agent: &Agent, id: &str, path: &Path) -> Result<(), String> {
    let mut old = rotated(path);
    let keep = usize::try_from(agent.config.container_log_max_files).unwrap_or(5).saturating_sub(2);
    while old.len() > keep {
        tokio::fs::remove_file(old.remove(0)).await.map_err(|error| error.to_string())?;
    }
    let time = jiff::Timestamp::now().to_string();
    let digits: String = time.chars().take(19).filter(char::is_ascii_digit).collect();
    let (day, clock) = digits.split_at_checked(8).unwrap_or((&digits, ""));
    let target = PathBuf::from(format!("{}.{day}-{clock}", path.display()));
    tokio::fs::rename(path, &target).await.map_err(|error| error.to_string())?;
    if let Err(error) = agent.cri.reopen_log(id).await {
        // Without a new file the container's output would be lost: the old name comes back.
        tokio::fs::rename(&target, path).await.map_err(|error| error.to_string())?;
        return Err(error.to_string());
    }
    Ok(())
}
