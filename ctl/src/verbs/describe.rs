//! `describe`: objects as pages for people.

use clap::Args;
use serde_json::Value;

use crate::AlreadyTold;
use crate::api::is_not_found;
use crate::cli::Selection;
use crate::describe;
use crate::session::{Asked, Session, Target, with_query};

/// The flags of `describe`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Kinds and names, or the beginnings of names
    pub what: Vec<String>,
    #[command(flatten)]
    pub selection: Selection,
    /// Also what happened to the objects
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", require_equals = true, action = clap::ArgAction::Set)]
    pub show_events: bool,
    /// Accepted for compatibility
    #[arg(long, hide = true)]
    pub chunk_size: Option<u64>,
}

/// Runs the verb.
pub async fn run(session: &Session, options: &Options) -> anyhow::Result<()> {
    let mut failed = false;
    let mut objects = Vec::new();
    match session.asked(&options.what, &options.selection)? {
        Asked::Named(targets) => {
            for target in targets {
                match named(session, &target).await {
                    Ok(found) => objects.extend(found),
                    Err(error) => {
                        eprintln!("{error:#}");
                        failed = true;
                    }
                }
            }
        }
        Asked::All { resources, namespace, query } => {
            for resource in resources {
                let list =
                    session.api.get(&with_query(&resource.collection(namespace.as_deref()), &query)).await?;
                for mut item in list["items"].as_array().cloned().unwrap_or_default() {
                    item["apiVersion"] = resource.api_version().into();
                    item["kind"] = resource.kind.as_str().into();
                    objects.push(item);
                }
            }
            if objects.is_empty() {
                match namespace {
                    Some(namespace) => eprintln!("No resources found in {namespace} namespace."),
                    None => eprintln!("No resources found"),
                }
            }
        }
    }
    for (index, object) in objects.iter().enumerate() {
        if index > 0 {
            println!("\n");
        }
        print!("{}", describe::page(session, object, options.show_events).await);
    }
    if failed { Err(AlreadyTold(1).into()) } else { Ok(()) }
}

/// The object of that name, or else those whose names begin so.
async fn named(session: &Session, target: &Target) -> anyhow::Result<Vec<Value>> {
    let error = match session.api.get(&target.path()).await {
        Ok(object) => return Ok(vec![object]),
        Err(error) if is_not_found(&error) => error,
        Err(error) => return Err(error),
    };
    let list = session.api.get(&target.resource.collection(target.namespace.as_deref())).await?;
    let mut found = Vec::new();
    for item in list["items"].as_array().into_iter().flatten() {
        let name = item["metadata"]["name"].as_str().unwrap_or_default();
        if name.starts_with(&target.name) {
            let mut item = item.clone();
            item["apiVersion"] = target.resource.api_version().into();
            item["kind"] = target.resource.kind.as_str().into();
            found.push(item);
        }
    }
    if found.is_empty() { Err(error) } else { Ok(found) }
}
