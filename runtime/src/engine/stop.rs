//! Stopping containers: the image's signal, time to end, and then no more time.

use std::{sync::Arc, time::Duration};

use nix::sys::signal::Signal;

use super::Engine;
use crate::{
    error::Error,
    record::{ContainerEntry, Phase},
    shim::protocol::Request,
    shim_client::{self, ShimError},
};

/// How long a killed container may take to be gone. Longer, and the kernel is in trouble.
const KILL_TIMEOUT: Duration = Duration::from_secs(20);

impl Engine {
    pub(crate) async fn stop_container(&self, id: &str, timeout: Duration) -> Result<(), Error> {
        // One that does not exist is stopped.
        let Ok(entry) = self.container(id) else { return Ok(()) };
        self.stop_container_entry(&entry, timeout).await
    }

    pub(super) async fn stop_container_entry(
        &self,
        entry: &Arc<ContainerEntry>,
        timeout: Duration,
    ) -> Result<(), Error> {
        if !matches!(entry.phase(), Phase::Running { .. }) {
            return Ok(());
        }
        if !timeout.is_zero() {
            let signal = stop_signal(entry.record.read().stop_signal.as_deref());
            self.signal(entry, signal).await?;
            if ended_within(entry, timeout).await {
                return Ok(());
            }
        }
        self.signal(entry, Signal::SIGKILL).await?;
        if ended_within(entry, KILL_TIMEOUT).await {
            Ok(())
        } else {
            Err(Error::Internal(format!("container {:?} was killed but does not end", entry.id)))
        }
    }

    async fn signal(&self, entry: &Arc<ContainerEntry>, signal: Signal) -> Result<(), Error> {
        let directory = self.sandbox_directory(&entry.sandbox_id);
        let request = Request::Signal { container: entry.id.clone(), signal: signal as i32 };
        match shim_client::ask(&directory, &request).await {
            Ok(_) => Ok(()),
            Err(ShimError::Failed(reason)) => Err(Error::Internal(reason)),
            // It has ended in the meantime.
            Err(ShimError::NotRunning | ShimError::Start(_)) => Ok(()),
            Err(ShimError::Gone(_)) => {
                // Without its shim nobody else can tell the container's end.
                let sandbox = self.sandbox(&entry.sandbox_id)?;
                self.end_without_shim(&sandbox, entry).await
            }
        }
    }
}

async fn ended_within(entry: &ContainerEntry, timeout: Duration) -> bool {
    let mut phase = entry.phase.subscribe();
    let ended = phase.wait_for(|phase| matches!(phase, Phase::Exited { .. }));
    tokio::time::timeout(timeout, ended).await.is_ok()
}

/// The signal that an image asks for, by name or number.
fn stop_signal(wanted: Option<&str>) -> Signal {
    let Some(wanted) = wanted.map(str::trim).filter(|wanted| !wanted.is_empty()) else {
        return Signal::SIGTERM;
    };
    if let Some(signal) = wanted.parse().ok().and_then(|number: i32| Signal::try_from(number).ok()) {
        return signal;
    }
    let upper = wanted.to_ascii_uppercase();
    let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    name.parse().unwrap_or(Signal::SIGTERM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_signals_should_be_understood_in_all_spellings() {
        for (text, signal) in [
            ("SIGQUIT", Signal::SIGQUIT),
            ("quit", Signal::SIGQUIT),
            ("3", Signal::SIGQUIT),
            ("", Signal::SIGTERM),
            ("nonsense", Signal::SIGTERM),
        ] {
            assert_eq!(stop_signal(Some(text)), signal, "{text}");
        }
    }
}
