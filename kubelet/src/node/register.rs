//! The node's object: made if it is not there, and brought to carry the labels that every node has.

use std::collections::BTreeMap;
use std::time::Duration;

use client::ErrorExt;
use client::backoff::Backoff;
use k8s_openapi::api::core::v1::{Node, NodeSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::status;
use crate::Error;
use crate::agent_state::Agent;

const ATTACH_ANNOTATION: &str = "volumes.kubernetes.io/controller-managed-attach-detach";

fn labels(agent: &Agent) -> BTreeMap<String, String> {
    let mut labels = agent.config.labels.clone();
    let arch = &agent.machine.architecture;
    for (key, value) in [
        ("kubernetes.io/arch", arch.as_str()),
        ("kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", arch.as_str()),
        ("beta.kubernetes.io/os", "linux"),
    ] {
        labels.insert(key.to_string(), value.to_string());
    }
    labels.insert("kubernetes.io/hostname".to_string(), agent.config.node_name.clone());
    labels
}

/// Registers the node, however long that takes. An error is one that will not go away.
pub async fn register(agent: &Agent, shutdown: &CancellationToken) -> Result<(), Error> {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(7));
    loop {
        match try_register(agent).await {
            Ok(()) => return Ok(()),
            Err(error) if error.is_invalid() => return Err(Error::Register(Box::new(error))),
            Err(error) => {
                tracing::warn!(%error, "the node could not be registered; trying again");
                tokio::select! {
                    () = tokio::time::sleep(backoff.next_delay()) => {}
                    () = shutdown.cancelled() => return Ok(()),
                }
            }
        }
    }
}

async fn try_register(agent: &Agent) -> Result<(), kube::Error> {
    let api = Api::<Node>::all(agent.client.clone());
    let name = &agent.config.node_name;
    let labels = labels(agent);
    if let Some(known) = api.get_opt(name).await? {
        let has = known.metadata.labels.unwrap_or_default();
        let lacks: BTreeMap<_, _> =
            labels.into_iter().filter(|(key, value)| has.get(key) != Some(value)).collect();
        if !lacks.is_empty() {
            let patch = json!({ "metadata": { "labels": lacks } });
            api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        }
        return Ok(());
    }
    let node = Node {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            labels: Some(labels),
            annotations: Some([(ATTACH_ANNOTATION.to_string(), "true".to_string())].into()),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec {
            taints: Some(agent.config.taints.clone()).filter(|taints| !taints.is_empty()),
            ..NodeSpec::default()
        }),
        status: Some(status::first(agent).await),
    };
    match api.create(&PostParams::default(), &node).await {
        Ok(_) => {
            tracing::info!(node = name, "registered the node");
            Ok(())
        }
        Err(error) if error.is_already_exists() => Ok(()),
        Err(error) => Err(error),
    }
}
