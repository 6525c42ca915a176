//! `get`: objects as tables made by the server, or whole.

use anyhow::bail;
use clap::Args;
use futures::StreamExt;
use serde_json::{Value, json};

use crate::AlreadyTold;
use crate::api::is_not_found;
use crate::cli::Selection;
use crate::output;
use crate::output::table::{self, Layout, Style};
use crate::resources::Resource;
use crate::session::{Asked, Session, Target, with_query};

/// The flags of `get`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Kinds and names: `pods`, `deploy/web`, `pod a b`, `pods,services`
    pub what: Vec<String>,
    #[command(flatten)]
    pub selection: Selection,
    /// json, yaml, name or wide
    #[arg(short, long, value_name = "FORM")]
    pub output: Option<String>,
    /// Go on showing changes
    #[arg(short, long)]
    pub watch: bool,
    /// Show changes only, not what is there
    #[arg(long)]
    pub watch_only: bool,
    /// No heading
    #[arg(long)]
    pub no_headers: bool,
    /// A column with the labels
    #[arg(long)]
    pub show_labels: bool,
    /// Nothing and no error where there is no such object
    #[arg(long)]
    pub ignore_not_found: bool,
}

impl Options {
    fn wants_table(&self) -> bool {
        matches!(self.output.as_deref(), None | Some("" | "wide"))
    }

    fn style(&self) -> Style {
        Style {
            wide: self.output.as_deref() == Some("wide"),
            with_namespace: self.selection.all_namespaces,
            show_labels: self.show_labels,
            with_kind: false,
        }
    }
}

/// Runs the verb.
pub async fn run(session: &Session, options: &Options) -> anyhow::Result<()> {
    let asked = session.asked(&options.what, &options.selection)?;
    if options.watch || options.watch_only {
        return watch(session, options, asked).await;
    }
    if options.wants_table() {
        tables(session, options, asked).await
    } else {
        objects(session, options, asked).await
    }
}

async fn tables(session: &Session, options: &Options, asked: Asked) -> anyhow::Result<()> {
    match asked {
        Asked::Named(targets) => {
            let mixed =
                targets.iter().any(|target| Some(&target.resource) != targets.first().map(|t| &t.resource));
            let mut failed = None;
            for (resource, group) in grouped(targets) {
                let mut rows: Option<Value> = None;
                for target in group {
                    match session.api.get_as(&target.path(), table::ACCEPT).await {
                        Ok(table) => join(&mut rows, table),
                        Err(error) if options.ignore_not_found && is_not_found(&error) => {}
                        Err(error) => {
                            eprintln!("{error:#}");
                            failed = Some(());
                        }
                    }
                }
                if let Some(table) = rows {
                    let style = Style { with_kind: mixed, ..options.style() };
                    print!(
                        "{}",
                        table::from_server(&table, style, &kind_prefix(&resource)).render(options.no_headers)
                    );
                }
            }
            if failed.is_some() { Err(AlreadyTold(1).into()) } else { Ok(()) }
        }
        Asked::All { resources, namespace, query } => {
            let several = resources.len() > 1;
            let mut shown = false;
            for resource in &resources {
                let path = with_query(&resource.collection(namespace.as_deref()), &query);
                let table = session.api.get_as(&path, table::ACCEPT).await?;
                let style = Style {
                    with_kind: several,
                    with_namespace: options.selection.all_namespaces && resource.namespaced,
                    ..options.style()
                };
                let layout = table::from_server(&table, style, &kind_prefix(resource));
                if !layout.is_empty() {
                    if shown {
                        println!();
                    }
                    print!("{}", layout.render(options.no_headers));
                    shown = true;
                }
            }
            if !shown {
                nothing_found(session, options, &resources);
            }
            Ok(())
        }
    }
}

fn nothing_found(session: &Session, options: &Options, resources: &[Resource]) {
    if options.ignore_not_found {
        return;
    }
    let namespaced = resources.iter().any(|resource| resource.namespaced);
    if namespaced && !options.selection.all_namespaces {
        eprintln!("No resources found in {} namespace.", session.namespace);
    } else {
        eprintln!("No resources found");
    }
}

fn kind_prefix(resource: &Resource) -> String {
    if resource.group.is_empty() {
        resource.singular.clone()
    } else {
        format!("{}.{}", resource.singular, resource.group)
    }
}

fn grouped(targets: Vec<Target>) -> Vec<(Resource, Vec<Target>)> {
    let mut groups: Vec<(Resource, Vec<Target>)> = Vec::new();
    for target in targets {
        match groups.iter_mut().find(|(resource, _)| *resource == target.resource) {
            Some((_, group)) => group.push(target),
            None => groups.push((target.resource.clone(), vec![target])),
        }
    }
    groups
}

fn join(rows: &mut Option<Value>, mut table: Value) {
    match rows.as_mut().and_then(|rows| rows["rows"].as_array_mut()) {
        Some(all) => all.append(table["rows"].as_array_mut().unwrap_or(&mut Vec::new())),
        None => *rows = Some(table),
    }
}

async fn objects(session: &Session, options: &Options, asked: Asked) -> anyhow::Result<()> {
    let form = options.output.as_deref().unwrap_or("yaml");
    let mut items = Vec::new();
    let single = match asked {
        Asked::Named(targets) => {
            let single = targets.len() == 1;
            for target in targets {
                match session.api.get(&target.path()).await {
                    Ok(object) => items.push(object),
                    Err(error) if options.ignore_not_found && is_not_found(&error) => {}
                    Err(error) => return Err(error),
                }
            }
            single
        }
        Asked::All { resources, namespace, query } => {
            for resource in &resources {
                let path = with_query(&resource.collection(namespace.as_deref()), &query);
                let list = session.api.get(&path).await?;
                for item in list["items"].as_array().into_iter().flatten() {
                    // The items of a list do not repeat what they are.
                    let mut item = item.clone();
                    item["apiVersion"] = resource.api_version().into();
                    item["kind"] = resource.kind.as_str().into();
                    items.push(item);
                }
            }
            false
        }
    };
    match (single, items.pop()) {
        (true, None) => Ok(()),
        (true, Some(only)) => output::print_object(&only, form),
        (false, last) => {
            items.extend(last);
            let list = json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": items});
            output::print_object(&list, form)
        }
    }
}

async fn watch(session: &Session, options: &Options, asked: Asked) -> anyhow::Result<()> {
    let (path, query, resource) = match asked {
        Asked::Named(targets) => match targets.as_slice() {
            [one] => (
                one.resource.collection(one.namespace.as_deref()),
                format!("fieldSelector=metadata.name%3D{}", one.name),
                one.resource.clone(),
            ),
            _ => bail!("error: you may only specify a single resource to watch"),
        },
        Asked::All { resources, namespace, query } => match resources.as_slice() {
            [one] => (one.collection(namespace.as_deref()), query, one.clone()),
            _ => bail!("error: you may only watch a single kind"),
        },
    };
    let accept = if options.wants_table() { table::ACCEPT } else { "application/json" };
    let list = session.api.get_as(&with_query(&path, &query), accept).await?;
    let mut no_headers = options.no_headers;
    if !options.watch_only {
        show(&list, options, &resource, &mut no_headers)?;
    }
    let version = list.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or_default();
    let and = if query.is_empty() { "" } else { "&" };
    let follow = with_query(&path, &format!("{query}{and}watch=true&resourceVersion={version}"));
    let mut events = Box::pin(session.api.watch(&follow, accept).await?);
    while let Some(event) = events.next().await {
        let event = event?;
        if event["type"] == "ERROR" {
            bail!("error: the watch ended: {}", event["object"]["message"].as_str().unwrap_or_default());
        }
        show(&event["object"], options, &resource, &mut no_headers)?;
    }
    Ok(())
}

fn show(object: &Value, options: &Options, resource: &Resource, no_headers: &mut bool) -> anyhow::Result<()> {
    if !options.wants_table() {
        return output::print_object(object, options.output.as_deref().unwrap_or("yaml"));
    }
    let layout: Layout = table::from_server(object, options.style(), &kind_prefix(resource));
    if !layout.is_empty() {
        print!("{}", layout.render(*no_headers));
        *no_headers = true;
    }
    Ok(())
}
