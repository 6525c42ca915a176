//! `autoscale`: as many pods as the load asks for.

use anyhow::bail;
use clap::Args;
use serde_json::json;

use crate::cli::Selection;
use crate::session::Session;
use crate::writing::Writing;

/// The flags of `autoscale`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Kinds and names
    pub what: Vec<String>,
    #[command(flatten)]
    pub selection: Selection,
    /// At least so many pods
    #[arg(long, value_name = "NUMBER")]
    pub min: Option<u32>,
    /// At most so many pods
    #[arg(long, value_name = "NUMBER")]
    pub max: u32,
    /// The CPU that pods should take on average, in percent of what they ask for
    #[arg(long, alias = "cpu", value_name = "PERCENT", value_parser = percent)]
    pub cpu_percent: Option<u32>,
    /// The memory that pods should take on average, in percent of what they ask for
    #[arg(long = "memory", value_name = "PERCENT", value_parser = percent)]
    pub memory_percent: Option<u32>,
    /// The autoscaler's name; by default the workload's
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    #[command(flatten)]
    pub writing: Writing,
}

fn percent(text: &str) -> Result<u32, String> {
    text.trim_end_matches('%').parse().map_err(|_| format!("{text:?} is not a percentage"))
}

/// Runs the verb.
pub async fn run(session: &Session, options: &Options) -> anyhow::Result<()> {
    if options.min.is_some_and(|min| min > options.max) {
        bail!("error: --max={} must not be less than --min={}", options.max, options.min.unwrap_or_default());
    }
    let targets = session.chosen(&options.what, &options.selection, false).await?;
    if targets.is_empty() {
        bail!("error: name a workload to scale");
    }
    for target in targets {
        if !target.resource.subresources.iter().any(|name| name == "scale") {
            bail!("error: cannot autoscale a {}: it cannot be scaled", target.resource.kind);
        }
        session.api.get(&target.path()).await?;
        let name = options.name.as_deref().unwrap_or(&target.name);
        let mut object = json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": name},
            "spec": {
                "maxReplicas": options.max,
                "scaleTargetRef": {"apiVersion": target.resource.api_version(), "kind": target.resource.kind, "name": target.name},
            },
        });
        if let Some(min) = options.min {
            object["spec"]["minReplicas"] = min.into();
        }
        let wanted = [("cpu", options.cpu_percent), ("memory", options.memory_percent)];
        let metrics: Vec<_> = wanted
            .into_iter()
            .filter_map(|(name, percent)| {
                percent.map(|percent| {
                    json!({"type": "Resource", "resource": {"name": name,
                        "target": {"type": "Utilization", "averageUtilization": percent}}})
                })
            })
            .collect();
        if !metrics.is_empty() {
            object["spec"]["metrics"] = metrics.into();
        }
        let reported = format!("horizontalpodautoscaler.autoscaling/{name}");
        if options.writing.dry_run.is_client() {
            options.writing.tell(&object, &reported, "autoscaled")?;
            continue;
        }
        let namespace = target.namespace.as_deref().unwrap_or(&session.namespace);
        let path = format!(
            "/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers?{}",
            options.writing.query("ctl-autoscale")
        );
        let created = session.api.create(&path, &object).await?;
        options.writing.tell(&created, &reported, "autoscaled")?;
    }
    Ok(())
}
