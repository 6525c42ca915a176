//! `create token`: a token of a service account.

use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;

use crate::cli::Span;
use crate::output;
use crate::session::Session;
use crate::writing::Writing;

/// The flags of `create token`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The service account
    name: String,
    /// For whom it is valid; by default the API server
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    audience: Vec<String>,
    /// How long it is valid
    #[arg(long, value_name = "TIME")]
    duration: Option<Span>,
    /// The kind of the object with which it ends: Pod, Secret or Node
    #[arg(long, value_name = "KIND", requires = "bound_object_name")]
    bound_object_kind: Option<String>,
    /// That object's name
    #[arg(long, value_name = "NAME", requires = "bound_object_kind")]
    bound_object_name: Option<String>,
    /// That object's uid
    #[arg(long, value_name = "UID", requires = "bound_object_kind")]
    bound_object_uid: Option<String>,
}

/// Runs the verb.
pub async fn run(session: &Session, options: &Options, writing: &Writing) -> anyhow::Result<()> {
    let mut request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": options.audience}});
    if let Some(duration) = options.duration {
        request["spec"]["expirationSeconds"] = duration.0.as_secs().into();
    }
    if let (Some(kind), Some(name)) = (&options.bound_object_kind, &options.bound_object_name) {
        if !["Pod", "Secret", "Node"].contains(&kind.as_str()) {
            bail!("error: supported --bound-object-kind values are Node, Pod, Secret");
        }
        let mut bound = json!({"apiVersion": "v1", "kind": kind, "name": name});
        if let Some(uid) = &options.bound_object_uid {
            bound["uid"] = uid.as_str().into();
        }
        request["spec"]["boundObjectRef"] = bound;
    }
    let path = format!("/api/v1/namespaces/{}/serviceaccounts/{}/token", session.namespace, options.name);
    let failed = || format!("error: failed to create token for serviceaccount/{}", options.name);
    let answer = session.api.create(&path, &request).await.with_context(failed)?;
    match writing.output.as_deref() {
        Some(form) if !form.is_empty() => output::print_object(&answer, form),
        _ => {
            let token = answer.pointer("/status/token").and_then(|token| token.as_str());
            println!("{}", token.context("error: the server made no token")?);
            Ok(())
        }
    }
}
