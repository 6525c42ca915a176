//! `image`: images on the nodes, without a registry.

use std::path::Path;

use anyhow::bail;
use clap::{Args, Subcommand};
use futures::future::join_all;
use http::Method;
use kube::client::Body;
use serde_json::Value;

use crate::AlreadyTold;
use crate::output::table::Layout;
use crate::session::{Session, escape};
use crate::upload;

/// What can be done with images.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Load archives made by `docker save`, or OCI layouts, into the nodes
    Load(LoadOptions),
    /// Show the images on the nodes
    #[command(visible_alias = "list")]
    Ls(NodeOptions),
    /// Remove an image from the nodes
    Rm(RemoveOptions),
}

/// Which nodes.
#[derive(Args, Clone, Debug)]
pub struct NodeOptions {
    /// These nodes only; by default all that are ready
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub node: Vec<String>,
}

/// The flags of `image load`.
#[derive(Args, Clone, Debug)]
pub struct LoadOptions {
    /// The archives
    #[arg(required = true)]
    pub archives: Vec<String>,
    #[command(flatten)]
    pub nodes: NodeOptions,
}

/// The flags of `image rm`.
#[derive(Args, Clone, Debug)]
pub struct RemoveOptions {
    /// The image
    pub image: String,
    #[command(flatten)]
    pub nodes: NodeOptions,
}

/// Runs the verb.
pub async fn run(session: &Session, command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Load(options) => load(session, options).await,
        Command::Ls(options) => list(session, options).await,
        Command::Rm(options) => {
            for node in nodes(session, &options.nodes).await? {
                let path = format!("{}?image={}", images_path(&node), escape(&options.image));
                session.api.send_body(Method::DELETE, &path, "application/json", Body::empty()).await?;
                println!("{} removed from {node}", options.image);
            }
            Ok(())
        }
    }
}

/// Sends every archive to every node, to all nodes at once. Where one fails the others go on.
async fn load(session: &Session, options: &LoadOptions) -> anyhow::Result<()> {
    let nodes = nodes(session, &options.nodes).await?;
    let mut failed = false;
    for archive in &options.archives {
        if !Path::new(archive).is_file() {
            bail!("error: {archive} is not a file; make one with `docker save -o {archive} IMAGE`");
        }
        let sending = nodes.iter().map(|node| async move {
            let path = images_path(node);
            (node, upload::post_file(&session.config, &path, "application/x-tar", Path::new(archive)).await)
        });
        for (node, outcome) in join_all(sending).await {
            match outcome {
                Ok(answer) => names(&answer).iter().for_each(|image| println!("{image} loaded into {node}")),
                Err(error) => {
                    eprintln!("error: cannot load {archive} into {node}: {error:#}");
                    failed = true;
                }
            }
        }
    }
    if failed { Err(AlreadyTold(1).into()) } else { Ok(()) }
}

async fn list(session: &Session, options: &NodeOptions) -> anyhow::Result<()> {
    let mut layout = Layout::new(&["NODE", "IMAGE", "ID", "SIZE"]);
    for node in nodes(session, options).await? {
        let answer = session.api.get(&images_path(&node)).await?;
        for image in answer["images"].as_array().into_iter().flatten() {
            let id = image["id"].as_str().unwrap_or_default().trim_start_matches("sha256:");
            let size = image["size"].as_u64().unwrap_or_default() as f64 / 1e6;
            for name in names(image) {
                layout.row(vec![node.clone(), name, id.chars().take(12).collect(), format!("{size:.1}MB")]);
            }
        }
    }
    print!("{}", layout.render(false));
    Ok(())
}

fn names(answer: &Value) -> Vec<String> {
    let names = answer["images"].as_array().or(answer["names"].as_array()).into_iter().flatten();
    names.filter_map(Value::as_str).map(str::to_string).collect()
}

fn images_path(node: &str) -> String {
    format!("/api/v1/nodes/{node}/proxy/gantry/images")
}

/// The nodes meant: those named, or all that are ready.
async fn nodes(session: &Session, options: &NodeOptions) -> anyhow::Result<Vec<String>> {
    if !options.node.is_empty() {
        return Ok(options.node.clone());
    }
    let list = session.api.get("/api/v1/nodes").await?;
    let ready = |node: &&Value| {
        let conditions = node.pointer("/status/conditions").and_then(Value::as_array);
        conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
    };
    let all = list["items"].as_array().into_iter().flatten().filter(ready);
    let names: Vec<String> =
        all.filter_map(|node| node.pointer("/metadata/name")?.as_str()).map(str::to_string).collect();
    if names.is_empty() {
        bail!("error: no node is ready");
    }
    Ok(names)
}
