//! `gantry agent`: a node that joins a server.

use anyhow::Context;
use tracing::info;

use crate::join;
use crate::node::{self, NodeAccess};
use crate::roles::{Ended, Parts, stop_or_renew};
use crate::settings::Settings;
use crate::{identities, preflight};

pub async fn run(settings: Settings, server: String, token: Option<String>) -> anyhow::Result<Ended> {
    preflight::check_node()?;
    preflight::raise_file_limit();
    let claim = preflight::claim_data_dir(&settings)?;
    let member = join::ensure_membership(&settings, &server, token.as_deref())
        .await
        .with_context(|| format!("cannot join {server}"))?;
    let client = identities::client_of_certificate(&server, &member.authority_pem, &member.client_pair)?;
    let access =
        NodeAccess { client, authority_pem: member.authority_pem, serving_pair: member.serving_pair };
    let mut parts = Parts::new();
    node::start(&settings, access, &mut parts).await?;
    info!(node = settings.node_name, server, "the agent runs");
    let outcome = parts.run_until(stop_or_renew(settings.pki_dir())).await;
    drop(claim);
    outcome
}
