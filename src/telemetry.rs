//! Logging: to standard error, one line per event, levels by part.

use anyhow::Context;
use tracing_subscriber::EnvFilter;

/// Starts logging; `level` is a level or a list such as `info,kubelet=debug`.
pub fn start(level: &str) -> anyhow::Result<()> {
    let filter =
        EnvFilter::try_new(level).with_context(|| format!("--log-level {level} is not understood"))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
    Ok(())
}
