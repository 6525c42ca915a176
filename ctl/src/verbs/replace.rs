//! `replace`: whole objects from files; with `--force` deleted and made anew.

use anyhow::bail;
use clap::Args;
use serde_json::{Value, json};

use crate::AlreadyTold;
use crate::api::is_not_found;
use crate::cli::Validate;
use crate::manifest::{self, Document};
use crate::session::{Session, Target};
use crate::verbs::apply::explain;
use crate::verbs::delete;
use crate::writing::Writing;

/// The flags of `replace`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Files and directories with manifests; `-` is standard input
    #[arg(short, long, value_delimiter = ',', required = true, value_name = "FILE")]
    pub filename: Vec<String>,
    /// Directories with everything below them
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// Delete the objects and make them anew
    #[arg(long)]
    pub force: bool,
    /// With --force: how long the objects get to end by themselves, in seconds
    #[arg(long, default_value_t = -1, allow_negative_numbers = true, value_name = "SECONDS")]
    pub grace_period: i64,
    /// A part of the object with a path of its own: status, scale, …
    #[arg(long, value_name = "NAME")]
    pub subresource: Option<String>,
    /// What becomes of unknown fields
    #[arg(long, value_enum, default_value_t, num_args = 0..=1, default_missing_value = "strict", require_equals = true)]
    pub validate: Validate,
    #[command(flatten)]
    pub writing: Writing,
}

/// Runs the verb.
pub async fn run(session: &Session, options: &Options) -> anyhow::Result<()> {
    let documents = manifest::read_all(&options.filename, options.recursive)?;
    let mut failed = false;
    for document in &documents {
        if let Err(error) = replace_one(session, options, document).await {
            eprintln!("{}", explain(document, &error));
            failed = true;
        }
    }
    if failed { Err(AlreadyTold(1).into()) } else { Ok(()) }
}

async fn replace_one(session: &Session, options: &Options, document: &Document) -> anyhow::Result<()> {
    let resource = session.resources.of_object(&document.object)?.clone();
    let namespace = session.namespace_of(&resource, &document.object)?;
    let Some(name) = document.object.pointer("/metadata/name").and_then(Value::as_str) else {
        bail!("the object has no metadata.name");
    };
    let target = Target { namespace, name: name.to_string(), resource };
    let query =
        format!("{}&fieldValidation={}", options.writing.query("ctl-replace"), options.validate.query());
    let mut object = document.object.clone();
    if options.writing.dry_run.is_client() {
        return options.writing.tell(&object, &target.reported(), "replaced");
    }
    let done = if options.force {
        remove(session, options, &target).await?;
        let collection = target.resource.collection(target.namespace.as_deref());
        session.api.create(&format!("{collection}?{query}"), &object).await?
    } else {
        let below = options.subresource.as_ref().map(|name| format!("/{name}")).unwrap_or_default();
        // A manifest without a version replaces whatever is there now.
        if object["metadata"]["resourceVersion"].is_null() {
            let now = session.api.get(&target.path()).await?;
            object["metadata"]["resourceVersion"] = now["metadata"]["resourceVersion"].clone();
        }
        session.api.replace(&format!("{}{below}?{query}", target.path()), &object).await?
    };
    options.writing.tell(&done, &target.reported(), "replaced")
}

async fn remove(session: &Session, options: &Options, target: &Target) -> anyhow::Result<()> {
    let seconds = if options.grace_period >= 0 { options.grace_period } else { 0 };
    let body = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background", "gracePeriodSeconds": seconds});
    match session.api.delete(&target.path(), &body).await {
        Err(error) if is_not_found(&error) => Ok(()),
        Err(error) => Err(error),
        Ok(answer) => {
            let uid =
                answer.pointer("/metadata/uid").or(answer.pointer("/details/uid")).and_then(Value::as_str);
            println!("{} deleted", delete::quoted(target));
            delete::until_gone(session, target, uid.unwrap_or_default(), None).await
        }
    }
}
