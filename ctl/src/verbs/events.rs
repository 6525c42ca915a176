//! `events`: what happened, in the order in which it happened.

use clap::Args;
use futures::StreamExt;
use serde_json::Value;

use crate::describe::events::{interval, last_seen};
use crate::output;
use crate::output::table::Layout;
use crate::session::{Session, escape, with_query};
use crate::tree::{items, text};

/// The flags of `events`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// About one object: pod/web-1
    #[arg(long = "for", value_name = "KIND/NAME")]
    pub about: Option<String>,
    /// In all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Normal or Warning
    #[arg(long, value_delimiter = ',', value_name = "TYPES")]
    pub types: Vec<String>,
    /// Go on showing what happens
    #[arg(short, long)]
    pub watch: bool,
    /// json or yaml
    #[arg(short, long, value_name = "FORM")]
    pub output: Option<String>,
    /// No heading
    #[arg(long)]
    pub no_headers: bool,
}

/// Runs the verb.
pub async fn run(session: &Session, options: &Options) -> anyhow::Result<()> {
    let collection = if options.all_namespaces {
        "/api/v1/events".to_string()
    } else {
        format!("/api/v1/namespaces/{}/events", session.namespace)
    };
    let mut query = String::new();
    if let Some(about) = &options.about {
        let (kind, name) = about
            .split_once('/')
            .ok_or_else(|| anyhow::anyhow!("error: --for must be in resource/name form, not {about:?}"))?;
        let kind = session.one_resource(kind)?.kind;
        query = format!(
            "fieldSelector={}",
            escape(&format!("involvedObject.kind={kind},involvedObject.name={name}"))
        );
    }
    let list = session.api.get(&with_query(&collection, &query)).await?;
    let wanted = |event: &&Value| {
        options.types.is_empty()
            || options.types.iter().any(|kind| kind.eq_ignore_ascii_case(text(event, "/type")))
    };
    let mut events: Vec<&Value> = items(&list, "/items").filter(wanted).collect();
    events.sort_by_key(|event| last_seen(event).to_string());
    if let Some(form) = options.output.as_deref().filter(|form| !form.is_empty()) {
        let list =
            serde_json::json!({"apiVersion": "v1", "kind": "EventList", "metadata": {}, "items": events});
        return output::print_object(&list, form);
    }
    if events.is_empty() && !options.watch {
        if options.all_namespaces {
            eprintln!("No events found.");
        } else {
            eprintln!("No events found in {} namespace.", session.namespace);
        }
        return Ok(());
    }
    print!("{}", layout(&events, options.all_namespaces).render(options.no_headers));
    if options.watch {
        let and = if query.is_empty() { "" } else { "&" };
        let query =
            format!("{query}{and}watch=true&resourceVersion={}", text(&list, "/metadata/resourceVersion"));
        let mut changes =
            Box::pin(session.api.watch(&with_query(&collection, &query), "application/json").await?);
        while let Some(change) = changes.next().await {
            let change = change?;
            let event = &change["object"];
            if change["type"] != "DELETED" && wanted(&event) {
                print!("{}", layout(&[event], options.all_namespaces).render(true));
            }
        }
    }
    Ok(())
}

fn layout(events: &[&Value], with_namespace: bool) -> Layout {
    let mut headings = vec!["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"];
    if with_namespace {
        headings.insert(0, "NAMESPACE");
    }
    let mut layout = Layout::new(&headings);
    for event in events {
        let object =
            format!("{}/{}", text(event, "/involvedObject/kind"), text(event, "/involvedObject/name"));
        let namespace = with_namespace.then(|| text(event, "/metadata/namespace").to_string());
        let cells = [
            interval(event),
            text(event, "/type").to_string(),
            text(event, "/reason").to_string(),
            object,
            text(event, "/message").trim().replace('\n', " "),
        ];
        layout.row(namespace.into_iter().chain(cells).collect());
    }
    layout
}
