//! `gantry token`: the tokens that let nodes join.

use std::collections::BTreeMap;

use anyhow::Context;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use pki::{BootstrapToken, JoinToken};

use crate::cli::{TokenAction, TokenOptions};
use crate::identities;
use crate::settings::Settings;

pub fn run(options: &TokenOptions) -> anyhow::Result<()> {
    let workers = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match &options.action {
        TokenAction::Create { hours, common } => {
            let settings = Settings::resolve(common)?;
            let token = workers.block_on(create(&settings, *hours))?;
            println!("{token}");
            let server =
                format!("https://{}", std::net::SocketAddr::new(settings.node_ip, settings.secure_port));
            eprintln!(
                "\nOn the machine that is to join, within {hours} h:\n  gantry agent --server {server} --token {token}"
            );
            Ok(())
        }
    }
}

async fn create(settings: &Settings, hours: u32) -> anyhow::Result<JoinToken> {
    let authority = settings.pki_dir().join("ca.crt");
    let authority_pem = std::fs::read_to_string(&authority).with_context(|| {
        format!("cannot read {}; is this the server, and was it started?", authority.display())
    })?;
    let bootstrap = BootstrapToken::generate();
    let expiration = Timestamp::now()
        .checked_add(SignedDuration::from_hours(i64::from(hours)))
        .with_context(|| format!("--hours {hours} is too long"))?;
    let values = [
        ("token-id", bootstrap.id.clone()),
        ("token-secret", bootstrap.secret.clone()),
        ("expiration", expiration.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
        ("usage-bootstrap-authentication", "true".to_string()),
        ("usage-bootstrap-signing", "true".to_string()),
        ("auth-extra-groups", "system:bootstrappers:gantry:agents".to_string()),
    ];
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(format!("bootstrap-token-{}", bootstrap.id)),
            ..Default::default()
        },
        type_: Some("bootstrap.kubernetes.io/token".to_string()),
        string_data: Some(BTreeMap::from(values.map(|(key, value)| (key.to_string(), value)))),
        ..Default::default()
    };
    let client = identities::client_of_kubeconfig(&settings.admin_kubeconfig()).await?;
    Api::<Secret>::namespaced(client, "kube-system")
        .create(&PostParams::default(), &secret)
        .await
        .context("the server did not take the token")?;
    Ok(JoinToken { authority_hash: pki::fingerprint_of_pem(&authority_pem)?, bootstrap })
}
