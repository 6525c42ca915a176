//! `metrics.k8s.io`: what nodes and pods use, gathered from the agents when somebody asks.
//!
//! Guarantees that however many ask, an agent is asked once in a few seconds, and that one silent node neither delays
//! nor hides the others. Nothing is gathered while nobody asks.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::ApiError;
use api::field::Look;
use futures::{FutureExt, StreamExt};
use http::StatusCode;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::cache::{Cached, encode};
use crate::http::Response;
use crate::http::respond::Failure;
use crate::node::AgentAddress;
use crate::objects::key_of;
use crate::pipeline::{Call, Core, Target, filter, no_such_path};
use crate::present::{IncludeObject, ListMeta, Presenter};
use crate::tree::set;

/// For how long an answer of an agent is good.
const FRESH: Duration = Duration::from_secs(5);
/// How long an agent may take.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// How many agents are asked at once.
const AGENTS_AT_ONCE: usize = 32;

/// The agents' last answers.
#[derive(Default)]
pub(crate) struct Summaries {
    by_node: Mutex<HashMap<String, (Instant, Arc<Value>)>>,
}

impl Summaries {
    /// The fresh answers of these nodes' agents.
    async fn of(core: &Arc<Core>, nodes: &[String]) -> Vec<(String, Arc<Value>)> {
        let asked: Vec<_> = nodes.iter().map(|node| Self::one(core.clone(), node.clone()).boxed()).collect();
        let answers = futures::stream::iter(asked).buffer_unordered(AGENTS_AT_ONCE);
        let mut found: Vec<_> = answers.filter_map(std::future::ready).collect().await;
        found.sort_by(|a, b| a.0.cmp(&b.0));
        found
    }

    async fn one(core: Arc<Core>, node: String) -> Option<(String, Arc<Value>)> {
        if let Some((at, summary)) = core.summaries.by_node.lock().get(&node)
            && at.elapsed() < FRESH
        {
            return Some((node, summary.clone()));
        }
        match tokio::time::timeout(ANSWER_MAX, ask(&core, &node)).await {
            Ok(Ok(summary)) => {
                let summary = Arc::new(summary);
                let mut kept = core.summaries.by_node.lock();
                kept.retain(|_, (at, _)| at.elapsed() < FRESH);
                kept.insert(node.clone(), (Instant::now(), summary.clone()));
                Some((node, summary))
            }
            Ok(Err(error)) => {
                tracing::debug!(node, %error, "no metrics");
                None
            }
            Err(_) => {
                tracing::debug!(node, "the agent does not answer in time");
                None
            }
        }
    }
}

async fn ask(core: &Core, node: &str) -> Result<Value, ApiError> {
    let address = AgentAddress::of(&core.objects, node)?;
    core.agents.get_json(&address, "/stats/summary").await
}

/// Whether the target is served here.
pub(super) fn is_metrics(target: &Target) -> bool {
    target.row.group() == "metrics.k8s.io"
}

/// Answers get and list.
pub(super) async fn answer(core: &Arc<Core>, call: &Call, target: &Target) -> Result<Response, Failure> {
    let objects = match target.row.plural.as_str() {
        "nodes" => nodes(core, target).await,
        "pods" => pods(core, target).await,
        _ => return Err(no_such_path()),
    };
    let include = IncludeObject::parse(call.query.get("includeObject"))?;
    let presenter = Presenter::new(target, call.form, include);
    let mut cached = objects.iter().filter_map(|object| cached(target, object));
    if call.info.verb == "get" {
        let found = cached
            .next()
            .ok_or_else(|| ApiError::not_found(&target.version.group, &target.row.plural, &target.name))?;
        return Ok(presenter.object(StatusCode::OK, &found));
    }
    let filter = filter(call, target)?;
    let selected = cached.filter(|object| filter.matches(object)).map(Arc::new).collect();
    Ok(presenter.list(selected, &ListMeta { revision: core.cache.revision(), ..ListMeta::default() }))
}

pub(super) fn cached(target: &Target, object: &Value) -> Option<Cached> {
    let key = key_of(&target.row_name, api::object::namespace(object), api::object::name(object));
    Cached::with_tree(key.into(), 0, encode(object).into(), object).ok()
}

async fn nodes(core: &Arc<Core>, target: &Target) -> Vec<Value> {
    let wanted: Vec<String> = match target.name.as_str() {
        "" => core.objects.snapshot("core/nodes").objects.values().map(|n| n.name().to_string()).collect(),
        name => vec![name.to_string()],
    };
    let summaries = Summaries::of(core, &wanted).await;
    summaries
        .into_iter()
        .filter_map(|(name, summary)| {
            let usage = usage(summary.get("node")?)?;
            let labels = core.objects.get("core/nodes", "", &name)?.pointer("/metadata/labels").cloned();
            Some(metrics(target, &name, "", labels, summary.get("node")?, json!({"usage": usage})))
        })
        .collect()
}

async fn pods(core: &Arc<Core>, target: &Target) -> Vec<Value> {
    let wanted: Vec<Value> = match target.name.as_str() {
        "" => core.objects.list("core/pods", &target.namespace),
        name => core.objects.get("core/pods", &target.namespace, name).into_iter().collect(),
    };
    let node_of = |pod: &Value| pod.get("spec").map_or("", |s| s.text("nodeName")).to_string();
    let mut nodes: Vec<String> = wanted.iter().map(node_of).filter(|node| !node.is_empty()).collect();
    nodes.sort();
    nodes.dedup();
    let summaries: HashMap<String, Arc<Value>> = Summaries::of(core, &nodes).await.into_iter().collect();
    wanted
        .iter()
        .filter_map(|pod| {
            let summary = summaries.get(&node_of(pod))?;
            let uid = pod.get("metadata")?.text("uid");
            let stats = summary
                .items("pods")
                .iter()
                .find(|p| p.get("podRef").is_some_and(|r| r.text("uid") == uid))?;
            let containers: Vec<Value> = stats
                .items("containers")
                .iter()
                .filter_map(|c| Some(json!({"name": c.text("name"), "usage": usage(c)?})))
                .collect();
            if containers.is_empty() {
                return None;
            }
            let labels = pod.pointer("/metadata/labels").cloned();
            let (name, namespace) = (api::object::name(pod), api::object::namespace(pod));
            let timed = stats.items("containers").first().unwrap_or(stats);
            Some(metrics(target, name, namespace, labels, timed, json!({"containers": containers})))
        })
        .collect()
}

/// CPU and memory as quantities; `None` before the agent has measured both.
fn usage(stats: &Value) -> Option<Value> {
    let cpu = stats.pointer("/cpu/usageNanoCores")?.as_u64()?;
    let memory = stats.pointer("/memory/workingSetBytes")?.as_u64()?;
    Some(json!({"cpu": format!("{cpu}n"), "memory": format!("{}Ki", memory / 1024)}))
}

fn metrics(
    target: &Target,
    name: &str,
    namespace: &str,
    labels: Option<Value>,
    timed: &Value,
    contents: Value,
) -> Value {
    let now = crate::pipeline::now();
    let timestamp = timed.pointer("/cpu/time").and_then(Value::as_str).unwrap_or(&now);
    let mut object = json!({
        "kind": target.row.kind, "apiVersion": target.version.api_version(),
        "metadata": {"name": name, "creationTimestamp": now}, "timestamp": timestamp, "window": "10s",
    });
    if !namespace.is_empty() {
        set(&mut object, &["metadata", "namespace"], namespace);
    }
    if let Some(labels) = labels {
        set(&mut object, &["metadata", "labels"], labels);
    }
    for (field, value) in contents.as_object().into_iter().flatten() {
        set(&mut object, &[field], value.clone());
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_should_be_told_in_quantities() {
        let stats = json!({"cpu": {"usageNanoCores": 1_500_000}, "memory": {"workingSetBytes": 2_097_152}});
        assert_eq!(usage(&stats), Some(json!({"cpu": "1500000n", "memory": "2048Ki"})));
        assert_eq!(usage(&json!({"memory": {"workingSetBytes": 1}})), None);
    }
}
