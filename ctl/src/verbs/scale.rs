//! `scale`: the number of replicas, through the scale subresource.

use anyhow::bail;
use clap::Args;
use serde_json::json;

use crate::api::PatchKind;
use crate::cli::Selection;
use crate::session::Session;

/// The flags of `scale`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Kinds and names
    pub what: Vec<String>,
    #[command(flatten)]
    pub selection: Selection,
    /// The number wanted
    #[arg(long, value_name = "NUMBER")]
    pub replicas: u32,
    /// Only if the number is this one now
    #[arg(long, value_name = "NUMBER")]
    pub current_replicas: Option<u32>,
}

/// Runs the verb.
pub async fn run(session: &Session, options: &Options) -> anyhow::Result<()> {
    let targets = session.targets(&options.what, &options.selection).await?;
    if targets.is_empty() {
        bail!("error: no objects passed to scale");
    }
    for target in targets {
        if !target.resource.subresources.iter().any(|name| name == "scale") {
            bail!("error: {} cannot be scaled", target.reported());
        }
        let path = format!("{}/scale", target.path());
        if let Some(expected) = options.current_replicas {
            let now = session.api.get(&path).await?["spec"]["replicas"].as_u64().unwrap_or_default();
            if now != u64::from(expected) {
                bail!("error: Expected replicas to be {expected}, was {now}");
            }
        }
        let patch = json!({"spec": {"replicas": options.replicas}});
        session.api.patch(&format!("{path}?fieldManager=ctl"), PatchKind::Merge, &patch).await?;
        println!("{} scaled", target.reported());
    }
    Ok(())
}
