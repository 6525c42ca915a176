//! `get`: objects as tables made by the server, or whole.

use anyhow::bail;
use clap::Args;
use futures::StreamExt;
use serde_json::{Value, json};

use crate::AlreadyTold;
use crate::api::is_not_found;
use crate::cli::Selection;
use crate::output;
use crate::output::order;
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
    /// A column for each of these labels
    #[arg(short = 'L', long, value_delimiter = ',', value_name = "LABELS")]
    pub label_columns: Vec<String>,
    /// Names with their kind in front
    #[arg(long)]
    pub show_kind: bool,
    /// In the order of a field: .metadata.creationTimestamp
    #[arg(long, value_name = "PATH")]
    pub sort_by: Option<String>,
    /// What the server answers at a path, as it is
    #[arg(long, value_name = "PATH", conflicts_with = "what")]
    pub raw: Option<String>,
    /// A part of the object with a path of its own: status, scale, …
    #[arg(long, value_name = "NAME")]
    pub subresource: Option<String>,
    /// Also what the server notes about who set what
    #[arg(long)]
    pub show_managed_fields: bool,
    /// Accepted for compatibility; everything is asked for at once
    #[arg(long, hide = true)]
    pub chunk_size: Option<u64>,
    /// Accepted for compatibility; tables are always the server's
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub server_print: Option<bool>,
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
            label_columns: self.label_columns.clone(),
            with_kind: self.show_kind,
        }
    }

    /// Whether the server's kinds have to be known.
    pub fn needs_kinds(&self) -> bool {
        self.raw.is_none()
    }

    /// The path of an object, or of the part of it that is asked for.
    fn path(&self, target: &Target) -> String {
        match &self.subresource {
            Some(name) => format!("{}/{name}", target.path()),
            None => target.path(),
        }
    }

    /// A query for tables: sorting needs the whole objects in the rows.
    fn table_query(&self, query: &str) -> String {
        match (&self.sort_by, query) {
            (None, query) => query.to_string(),
            (Some(_), "") => "includeObject=Object".to_string(),
            (Some(_), query) => format!("{query}&includeObject=Object"),
        }
    }
}

/// Runs the verb.
pub async fn run(session: &Session, options: &Options) -> anyhow::Result<()> {
    if let Some(path) = &options.raw {
        print!("{}", session.api.get_text(path).await?);
        return Ok(());
    }
    let order = options.sort_by.as_deref().map(order::Order::parse).transpose()?;
    let asked = session.asked(&options.what, &options.selection)?;
    if options.watch || options.watch_only {
        return watch(session, options, asked).await;
    }
    if options.wants_table() {
        tables(session, options, asked, order.as_ref()).await
    } else {
        objects(session, options, asked, order.as_ref()).await
    }
}

async fn tables(
    session: &Session,
    options: &Options,
    asked: Asked,
    order: Option<&order::Order>,
) -> anyhow::Result<()> {
    match asked {
        Asked::Named(targets) => {
            let mixed =
                targets.iter().any(|target| Some(&target.resource) != targets.first().map(|t| &t.resource));
            let mut failed = None;
            let mut shown = false;
            for (resource, group) in grouped(targets) {
                let mut rows: Option<Value> = None;
                for target in group {
                    match session
                        .api
                        .get_as(&with_query(&options.path(&target), &options.table_query("")), table::ACCEPT)
                        .await
                    {
                        Ok(table) => join(&mut rows, table),
                        Err(error) if options.ignore_not_found && is_not_found(&error) => {}
                        Err(error) => {
                            eprintln!("{error:#}");
                            failed = Some(());
                        }
                    }
                }
                if let Some(mut table) = rows {
                    if std::mem::replace(&mut shown, true) {
                        println!();
                    }
                    sort_rows(&mut table, order);
                    let style = Style { with_kind: mixed || options.show_kind, ..options.style() };
                    print!(
                        "{}",
                        table::from_server(&table, &style, &kind_prefix(&resource))
                            .render(options.no_headers)
                    );
                }
            }
            if failed.is_some() { Err(AlreadyTold(1).into()) } else { Ok(()) }
        }
        Asked::All { resources, namespace, query } => {
            let several = resources.len() > 1;
            let mut shown = false;
            for resource in &resources {
                let path =
                    with_query(&resource.collection(namespace.as_deref()), &options.table_query(&query));
                let mut table = session.api.get_as(&path, table::ACCEPT).await?;
                sort_rows(&mut table, order);
                let style = Style {
                    with_kind: several || options.show_kind,
                    with_namespace: options.selection.all_namespaces && resource.namespaced,
                    ..options.style()
                };
                let layout = table::from_server(&table, &style, &kind_prefix(resource));
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

fn sort_rows(table: &mut Value, order: Option<&order::Order>) {
    if let (Some(order), Some(rows)) = (order, table["rows"].as_array_mut()) {
        order.sort(rows, |row| &row["object"]);
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

async fn objects(
    session: &Session,
    options: &Options,
    asked: Asked,
    order: Option<&order::Order>,
) -> anyhow::Result<()> {
    let form = options.output.as_deref().unwrap_or("yaml");
    let mut items = Vec::new();
    let single = match asked {
        Asked::Named(targets) => {
            let single = targets.len() == 1;
            for target in targets {
                match session.api.get(&options.path(&target)).await {
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
    if let Some(order) = order {
        order.sort(&mut items, |item| item);
    }
    if !options.show_managed_fields {
        items.iter_mut().for_each(output::hide_managed_fields);
    }
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
        let mut object = object.clone();
        if !options.show_managed_fields {
            output::hide_managed_fields(&mut object);
        }
        return output::print_object(&object, options.output.as_deref().unwrap_or("yaml"));
    }
    let layout: Layout = table::from_server(object, &options.style(), &kind_prefix(resource));
    if !layout.is_empty() {
        print!("{}", layout.render(*no_headers));
        *no_headers = true;
    }
    Ok(())
}
