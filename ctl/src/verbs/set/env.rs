//! `set env`: variables of containers, set with `A=b` and removed with `A-`.

use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Value, json};

use super::{Containers, change};
use crate::cli::Selection;
use crate::session::Session;
use crate::tree::{fields, items, plain, text};
use crate::writing::Writing;

/// The flags of `set env`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Kinds and names, then KEY=VALUE to set and KEY- to remove
    #[arg(required = true)]
    pub words: Vec<String>,
    #[command(flatten)]
    pub selection: Selection,
    /// Every object of the kind in the namespace
    #[arg(long)]
    pub all: bool,
    /// The containers; `*` is every one
    #[arg(short, long, default_value = "*", value_name = "NAME")]
    pub containers: String,
    /// Variables also as KEY=VALUE here
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub env: Vec<String>,
    /// Every key of a configmap/NAME or secret/NAME
    #[arg(long, value_name = "KIND/NAME")]
    pub from: Option<String>,
    /// What the keys are to begin with
    #[arg(long, default_value = "", value_name = "TEXT")]
    pub prefix: String,
    /// Only these keys
    #[arg(long, value_delimiter = ',', value_name = "KEYS")]
    pub keys: Vec<String>,
    /// Show what is there
    #[arg(long)]
    pub list: bool,
    #[command(flatten)]
    pub writing: Writing,
}

/// Runs the verb.
pub async fn run(session: &Session, options: &Options) -> anyhow::Result<()> {
    let is_change = |word: &String| word.contains('=') || word.ends_with('-');
    let first = options.words.iter().position(is_change).unwrap_or(options.words.len());
    let (what, changes) = options.words.split_at(first);
    let mut wanted: Vec<Value> = Vec::new();
    if let Some(from) = &options.from {
        wanted.extend(references(session, options, from).await?);
    }
    for word in changes.iter().chain(&options.env) {
        wanted.push(match word.split_once('=') {
            Some((name, value)) => json!({"name": name, "value": value, "valueFrom": null}),
            None => json!({"name": word.trim_end_matches('-'), "$patch": "delete"}),
        });
    }
    if wanted.is_empty() && !options.list {
        bail!("error: at least one environment variable must be provided");
    }
    let containers = Containers::parse(&options.containers);
    for target in session.chosen(what, &options.selection, options.all).await? {
        if options.list {
            list(session, &target, &containers).await?;
            continue;
        }
        change(session, &target, &containers, &options.writing, "env updated", |container| {
            let known = |name: &Value| items(container, "/env").any(|variable| variable["name"] == *name);
            let useful: Vec<Value> =
                wanted.iter().filter(|one| one["$patch"].is_null() || known(&one["name"])).cloned().collect();
            (!useful.is_empty()).then(|| json!({"env": useful}))
        })
        .await?;
    }
    Ok(())
}

async fn list(
    session: &Session,
    target: &crate::session::Target,
    containers: &Containers,
) -> anyhow::Result<()> {
    let object = session.api.get(&target.path()).await?;
    let spec = object.pointer(super::pod_spec(&target.resource.kind)).unwrap_or(&Value::Null);
    for container in items(spec, "/containers").filter(|container| containers.mean(text(container, "/name")))
    {
        println!("# {}, container {}", target.reported(), text(container, "/name"));
        for variable in items(container, "/env") {
            let name = text(variable, "/name");
            match ["secretKeyRef", "configMapKeyRef"].map(|kind| &variable["valueFrom"][kind]) {
                [secret, _] if secret.is_object() => {
                    println!("# {name} from secret {}, key {}", text(secret, "/name"), text(secret, "/key"));
                }
                [_, map] if map.is_object() => {
                    println!("# {name} from configmap {}, key {}", text(map, "/name"), text(map, "/key"));
                }
                _ => println!("{name}={}", plain(&variable["value"])),
            }
        }
    }
    Ok(())
}

/// Variables that refer to the keys of a config map or a secret.
async fn references(session: &Session, options: &Options, from: &str) -> anyhow::Result<Vec<Value>> {
    let (kind, name) =
        from.split_once('/').context("error: --from is of the form configmap/NAME or secret/NAME")?;
    let (plural, reference) = match kind {
        "configmap" | "configmaps" | "cm" => ("configmaps", "configMapKeyRef"),
        "secret" | "secrets" => ("secrets", "secretKeyRef"),
        _ => bail!("error: --from: {kind:?} is neither configmap nor secret"),
    };
    let object =
        session.api.get(&format!("/api/v1/namespaces/{}/{plural}/{name}", session.namespace)).await?;
    let keys = fields(&object, "/data").into_iter().map(|(key, _)| key);
    let wanted =
        keys.filter(|key| options.keys.is_empty() || options.keys.iter().any(|wanted| wanted == key));
    let variable = |key: &str| {
        let name_of: String = key
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' })
            .collect();
        json!({"name": format!("{}{name_of}", options.prefix), "valueFrom": {reference: {"name": name, "key": key}}})
    };
    Ok(wanted.map(variable).collect())
}
