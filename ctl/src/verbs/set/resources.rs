//! `set resources`: what containers ask for and are held to. `set serviceaccount`: as whom pods run.

use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Value, json};

use super::{Containers, change, pod_spec, wrapped};
use crate::api::PatchKind;
use crate::cli::Selection;
use crate::session::Session;
use crate::writing::Writing;

/// The flags of `set resources`.
#[derive(Args, Clone, Debug)]
pub struct ResourcesOptions {
    /// Kinds and names
    pub what: Vec<String>,
    #[command(flatten)]
    pub selection: Selection,
    /// Every object of the kind in the namespace
    #[arg(long)]
    pub all: bool,
    /// The containers; `*` is every one
    #[arg(short, long, default_value = "*", value_name = "NAME")]
    pub containers: String,
    /// What they are held to: cpu=200m,memory=512Mi
    #[arg(long, value_name = "AMOUNTS")]
    pub limits: Option<String>,
    /// What they ask for: cpu=100m,memory=256Mi
    #[arg(long, value_name = "AMOUNTS")]
    pub requests: Option<String>,
    #[command(flatten)]
    pub writing: Writing,
}

/// The flags of `set serviceaccount`.
#[derive(Args, Clone, Debug)]
pub struct ServiceAccountOptions {
    /// Kinds and names, then the service account
    #[arg(required = true)]
    pub words: Vec<String>,
    #[command(flatten)]
    pub selection: Selection,
    /// Every object of the kind in the namespace
    #[arg(long)]
    pub all: bool,
    #[command(flatten)]
    pub writing: Writing,
}

/// Runs `set resources`.
pub async fn run(session: &Session, options: &ResourcesOptions) -> anyhow::Result<()> {
    let mut wanted = json!({});
    for (field, text) in [("limits", &options.limits), ("requests", &options.requests)] {
        if let Some(text) = text {
            wanted[field] = amounts(field, text)?;
        }
    }
    if wanted.as_object().is_none_or(|map| map.is_empty()) {
        bail!("error: you must specify an update to requests or limits (in the form of --requests/--limits)");
    }
    let containers = Containers::parse(&options.containers);
    for target in session.chosen(&options.what, &options.selection, options.all).await? {
        change(session, &target, &containers, &options.writing, "resource requirements updated", |_| {
            Some(json!({"resources": wanted}))
        })
        .await?;
    }
    Ok(())
}

fn amounts(flag: &str, text: &str) -> anyhow::Result<Value> {
    let mut all = json!({});
    for pair in text.split(',') {
        let (name, amount) = pair
            .split_once('=')
            .with_context(|| format!("error: --{flag}: {pair:?} is not of the form cpu=100m"))?;
        // Zero takes the amount away.
        let quantity = amount
            .parse::<api::quantity::Quantity>()
            .map_err(|error| anyhow::anyhow!("error: --{flag}: {name}={amount}: {error}"))?;
        all[name] = if quantity.is_zero() { Value::Null } else { amount.into() };
    }
    Ok(all)
}

/// Runs `set serviceaccount`.
pub async fn service_account(session: &Session, options: &ServiceAccountOptions) -> anyhow::Result<()> {
    let Some((account, what)) = options
        .words
        .split_last()
        .filter(|(_, what)| !what.is_empty() || !options.selection.filename.is_empty())
    else {
        bail!("error: name workloads, and then the service account");
    };
    for target in session.chosen(what, &options.selection, options.all).await? {
        let patch = wrapped(
            pod_spec(&target.resource.kind),
            json!({"serviceAccountName": account, "serviceAccount": account}),
        );
        let path = format!("{}?{}", target.path(), options.writing.query("ctl-set"));
        let after = if options.writing.dry_run.is_client() {
            session.api.get(&target.path()).await?
        } else {
            session.api.patch(&path, PatchKind::Merge, &patch).await?.0
        };
        options.writing.tell(&after, &target.reported(), "serviceaccount updated")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_checked_before_anything_is_sent() {
        assert_eq!(amounts("limits", "cpu=200m,memory=0").unwrap(), json!({"cpu": "200m", "memory": null}));
        assert!(amounts("limits", "cpu=lots").unwrap_err().to_string().contains("cpu=lots"));
        assert!(amounts("limits", "cpu").is_err());
    }
}
