//! The node's heartbeat: its lease in `kube-node-lease`.

use std::sync::Arc;
use std::time::Duration;

use client::ErrorExt;
use client::backoff::Backoff;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::Api;
use kube::api::PostParams;
use tokio_util::sync::CancellationToken;

use crate::agent_state::Agent;

const NAMESPACE: &str = "kube-node-lease";

/// Renews the lease until shutdown. A lease that is gone is made anew.
pub async fn keep_lease(agent: Arc<Agent>, shutdown: CancellationToken) {
    let api = Api::<Lease>::namespaced(agent.client.clone(), NAMESPACE);
    let mut known: Option<Lease> = None;
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(7));
    loop {
        let pause = match renew(&agent, &api, known.take()).await {
            Ok(lease) => {
                known = Some(lease);
                backoff.reset();
                agent.config.lease_interval
            }
            Err(error) if error.is_conflict() => Duration::ZERO,
            Err(error) => {
                tracing::warn!(%error, "the node's lease could not be renewed; trying again");
                backoff.next_delay()
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

async fn renew(agent: &Agent, api: &Api<Lease>, known: Option<Lease>) -> Result<Lease, kube::Error> {
    let name = &agent.config.node_name;
    let known = match known {
        Some(lease) => Some(lease),
        None => api.get_opt(name).await?,
    };
    let Some(mut lease) = known else {
        let mut lease = Lease {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(NAMESPACE.to_string()),
                owner_references: owner(agent).await?.map(|owner| vec![owner]),
                ..ObjectMeta::default()
            },
            spec: None,
        };
        lease.spec = Some(spec(agent));
        return api.create(&PostParams::default(), &lease).await;
    };
    if lease.metadata.owner_references.as_ref().is_none_or(Vec::is_empty) {
        lease.metadata.owner_references = owner(agent).await?.map(|owner| vec![owner]);
    }
    lease.spec = Some(spec(agent));
    match api.replace(name, &PostParams::default(), &lease).await {
        Err(error) if error.is_not_found() => {
            lease.metadata.resource_version = None;
            lease.metadata.uid = None;
            lease.metadata.creation_timestamp = None;
            api.create(&PostParams::default(), &lease).await
        }
        other => other,
    }
}

fn spec(agent: &Agent) -> LeaseSpec {
    LeaseSpec {
        holder_identity: Some(agent.config.node_name.clone()),
        lease_duration_seconds: i32::try_from(agent.config.lease_duration.as_secs()).ok(),
        renew_time: Some(MicroTime(Timestamp::now())),
        ..LeaseSpec::default()
    }
}

/// With its node goes its lease.
async fn owner(agent: &Agent) -> Result<Option<OwnerReference>, kube::Error> {
    let node = Api::<Node>::all(agent.client.clone()).get_opt(&agent.config.node_name).await?;
    Ok(node.and_then(|node| {
        Some(OwnerReference {
            api_version: "v1".to_string(),
            kind: "Node".to_string(),
            name: node.metadata.name?,
            uid: node.metadata.uid?,
            ..OwnerReference::default()
        })
    }))
}
