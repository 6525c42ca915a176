//! `certificate`: requests for certificates, approved or denied.

use anyhow::bail;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::session::Session;
use crate::tree::{items, text};
use crate::writing::Writing;

const COLLECTION: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

/// The decision.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// The certificates may be made
    Approve(Options),
    /// They may not
    Deny(Options),
}

/// Which requests.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The requests' names
    #[arg(required = true)]
    pub names: Vec<String>,
    /// Decide again what is decided
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub writing: Writing,
}

/// Runs the verb.
pub async fn run(session: &Session, command: &Command) -> anyhow::Result<()> {
    let (options, kind, reason, done, message) = match command {
        Command::Approve(options) => (
            options,
            "Approved",
            "CtlApprove",
            "approved",
            "This CSR was approved by ctl certificate approve.",
        ),
        Command::Deny(options) => {
            (options, "Denied", "CtlDeny", "denied", "This CSR was denied by ctl certificate deny.")
        }
    };
    for name in &options.names {
        let name = name.rsplit('/').next().unwrap_or(name);
        let mut request = session.api.get(&format!("{COLLECTION}/{name}")).await?;
        let decided: Vec<&str> =
            items(&request, "/status/conditions").map(|one| text(one, "/type")).collect();
        let other = if kind == "Approved" { "Denied" } else { "Approved" };
        if decided.contains(&other) {
            bail!("error: certificate signing request {name:?} is already {}", other.to_lowercase());
        }
        if !decided.contains(&kind) || options.force {
            let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
            let condition = json!({"type": kind, "status": "True", "reason": reason, "message": message,
                "lastUpdateTime": now, "lastTransitionTime": now});
            let mut conditions: Vec<Value> = items(&request, "/status/conditions")
                .filter(|one| text(one, "/type") != kind)
                .cloned()
                .collect();
            conditions.push(condition);
            request["status"]["conditions"] = conditions.into();
            let path = format!("{COLLECTION}/{name}/approval?{}", options.writing.query("ctl-certificate"));
            if !options.writing.dry_run.is_client() {
                request = session.api.replace(&path, &request).await?;
            }
        }
        options.writing.tell(
            &request,
            &format!("certificatesigningrequest.certificates.k8s.io/{name}"),
            done,
        )?;
    }
    Ok(())
}
