//! Gantry: a Kubernetes-compatible orchestrator in one binary.

fn main() -> anyhow::Result<()> {
    Ok(())
}
