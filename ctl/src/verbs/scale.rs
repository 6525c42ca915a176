//! `scale`: the number of replicas, through the scale subresource.

use anyhow::bail;
use clap::Args;
use serde_json::json;

use crate::api::PatchKind;
use crate::cli::Selection;
use crate::session::Session;
use crate::writing::Writing;

/// The flags of `scale`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Kinds and names
    pub what: Vec<String>,
    #[command(flatten)]
    pub selection: Selection,
    /// Every object of the kind in the namespace
    #[arg(long)]
    pub all: bool,
    /// The number wanted
    #[arg(long, value_name = "NUMBER")]
    pub replicas: u32,
    /// Only if the number is this one now
    #[arg(long, value_name = "NUMBER")]
    pub current_replicas: Option<u32>,
    #[command(flatten)]
    pub writing: Writing,
}

/// Runs the verb.
pub async fn run(session: &Session, options: &Options) -> anyhow::Result<()> {
    let targets = session.chosen(&options.what, &options.selection, options.all).await?;
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
        let after = if options.writing.dry_run.is_client() {
            session.api.get(&path).await?
        } else {
            let path = format!("{path}?{}", options.writing.query("ctl-scale"));
            session.api.patch(&path, PatchKind::Merge, &patch).await?.0
        };
        options.writing.tell(&after, &target.reported(), "scaled")?;
    }
    Ok(())
}
