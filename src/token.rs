//! `gantry token`: the tokens that let nodes join.

use std::collections::BTreeMap;

use anyhow::Context;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams};
use pki::{BootstrapToken, JoinToken};

use crate::cli::{TokenAction, TokenOptions};
use crate::identities;
use crate::settings::Settings;

/// The type of the secrets that hold tokens.
const TOKEN_TYPE: &str = "bootstrap.kubernetes.io/token";

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
        TokenAction::List { common } => {
            print!("{}", workers.block_on(list(&Settings::resolve(common)?, Timestamp::now()))?);
            Ok(())
        }
        TokenAction::Delete { ids, common } => {
            let settings = Settings::resolve(common)?;
            ids.iter().try_for_each(|id| {
                workers.block_on(delete(&settings, id))?;
                println!("token {id} deleted");
                Ok(())
            })
        }
    }
}

/// A line per token: its id, the hours that are left, and when it ends.
async fn list(settings: &Settings, now: Timestamp) -> anyhow::Result<String> {
    let tokens = ListParams::default().fields(&format!("type={TOKEN_TYPE}"));
    let secrets = secrets(settings).await?.list(&tokens).await.context("cannot list the tokens")?;
    let mut lines = format!("{:<8}{:<7}EXPIRES\n", "ID", "HOURS");
    for secret in secrets {
        let value = |key: &str| {
            let bytes = secret.data.as_ref().and_then(|data| data.get(key));
            bytes.map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned()).unwrap_or_default()
        };
        let (id, expires) = (value("token-id"), value("expiration"));
        let left = match expires.parse::<Timestamp>() {
            Ok(end) => end.duration_since(now).as_hours().max(0).to_string(),
            Err(_) => "-".to_string(),
        };
        lines.push_str(&format!("{id:<8}{left:<7}{}\n", if expires.is_empty() { "never" } else { &expires }));
    }
    Ok(lines)
}

async fn delete(settings: &Settings, id: &str) -> anyhow::Result<()> {
    let name = format!("bootstrap-token-{id}");
    let deleted = secrets(settings).await?.delete(&name, &DeleteParams::default()).await;
    deleted.map(|_| ()).with_context(|| format!("cannot delete the token {id}"))
}

async fn secrets(settings: &Settings) -> anyhow::Result<Api<Secret>> {
    let client = identities::client_of_kubeconfig(&settings.admin_kubeconfig(), "gantry").await?;
    Ok(Api::namespaced(client, "kube-system"))
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
        type_: Some(TOKEN_TYPE.to_string()),
        string_data: Some(BTreeMap::from(values.map(|(key, value)| (key.to_string(), value)))),
        ..Default::default()
    };
    let created = secrets(settings).await?.create(&PostParams::default(), &secret).await;
    created.context("the server did not take the token")?;
    Ok(JoinToken { authority_hash: pki::fingerprint_of_pem(&authority_pem)?, bootstrap })
}
