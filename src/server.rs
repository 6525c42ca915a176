//! `gantry server`: the control plane and, unless told otherwise, an agent, in one process.

use anyhow::Context;
use jiff::Timestamp;
use pki::NodePki;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::control_plane::ControlPlane;
use crate::node::{self, NodeAccess};
use crate::roles::{Ended, Parts, stop_or_renew};
use crate::settings::Settings;
use crate::{identities, join, preflight, service};

pub async fn run(settings: Settings, no_agent: bool) -> anyhow::Result<Ended> {
    leave_session();
    if !no_agent {
        preflight::check_node()?;
    }
    preflight::raise_file_limit();
    let claim = preflight::claim_data_dir(&settings)?;
    preflight::check_port((settings.bind_address, settings.secure_port).into(), "--secure-port")?;
    let control_plane = ControlPlane::build(&settings).await?;
    // Two stages: everybody who talks to the API server ends before it does.
    let serving = CancellationToken::new();
    let mut parts = Parts::new();
    control_plane.start_reconcilers(&settings, &mut parts);
    let access = (!no_agent).then(|| local_access(&settings, &control_plane)).transpose()?;
    let mut api = tokio::spawn(control_plane.serve(serving.clone()));
    if let Some(access) = access {
        node::start(&settings, access, &mut parts).await?;
    }
    info!(instance = settings.instance, url = settings.local_url(), "gantry serves");
    let ended = tokio::select! {
        outcome = parts.run_until(stop_or_renew(settings.pki_dir())) => outcome,
        outcome = &mut api => {
            outcome.context("the API server panicked")??;
            anyhow::bail!("the API server ended by itself")
        }
    };
    serving.cancel();
    let served = api.await.context("the API server panicked")?;
    drop(claim);
    served.and(ended)
}

/// What the server's own agent needs: identities in this process, and a serving certificate.
fn local_access(settings: &Settings, control_plane: &ControlPlane) -> anyhow::Result<NodeAccess> {
    let leaf = join::serving_leaf(settings);
    let store = NodePki::new(settings.pki_dir());
    let now = Timestamp::now();
    let serving_pair = match store.load("kubelet-serving", &leaf, now)? {
        Some(pair) => pair,
        None => {
            let pair = control_plane.pki.authority.issue(&leaf, now)?;
            store.store("kubelet-serving", &pair)?;
            pair
        }
    };
    Ok(NodeAccess {
        client: control_plane.client(&identities::node_user(&settings.node_name), &[identities::NODES_GROUP]),
        authority_pem: control_plane.pki.authority.certificate_pem().to_string(),
        serving_pair,
    })
}

/// A detached server must not end with the terminal that started it.
fn leave_session() {
    if std::env::var_os(service::DETACHED).is_some()
        && let Err(error) = nix::unistd::setsid()
    {
        tracing::debug!(%error, "already leads a session");
    }
}
