//! `top`: what nodes and pods use now.

use api::quantity::Quantity;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::Value;

use crate::api::is_not_found;
use crate::output::table::Layout;
use crate::session::{Session, escape, with_query};
use crate::tree::{items, text};

const ROOT: &str = "/apis/metrics.k8s.io/v1beta1";

/// Whose use.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Of nodes
    #[command(visible_alias = "nodes", alias = "no")]
    Node(NodeOptions),
    /// Of pods
    #[command(visible_alias = "pods", alias = "po")]
    Pod(PodOptions),
}

/// By what is sorted, the largest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// CPU
    Cpu,
    /// Memory
    Memory,
}

/// The flags of `top node`.
#[derive(Args, Clone, Debug)]
pub struct NodeOptions {
    /// One node
    pub name: Option<String>,
    /// The nodes that a selector names
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub selector: Option<String>,
    /// The largest first
    #[arg(long, value_enum, value_name = "COLUMN")]
    pub sort_by: Option<By>,
    /// No heading
    #[arg(long)]
    pub no_headers: bool,
    /// Of everything the node has, not of what it offers to pods
    #[arg(long)]
    pub show_capacity: bool,
}

/// The flags of `top pod`.
#[derive(Args, Clone, Debug)]
pub struct PodOptions {
    /// One pod
    pub name: Option<String>,
    /// The pods that a selector names
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub selector: Option<String>,
    /// The pods that a field selector names
    #[arg(long, value_name = "SELECTOR")]
    pub field_selector: Option<String>,
    /// In all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Each container
    #[arg(long)]
    pub containers: bool,
    /// The largest first
    #[arg(long, value_enum, value_name = "COLUMN")]
    pub sort_by: Option<By>,
    /// A last line with the sum
    #[arg(long)]
    pub sum: bool,
    /// No heading
    #[arg(long)]
    pub no_headers: bool,
}

/// CPU in thousandths and memory in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Usage {
    cpu: i64,
    memory: i64,
}

impl Usage {
    fn read(tree: &Value) -> Self {
        let amount = |name: &str| Quantity::from_json(&tree[name]).ok();
        Self {
            cpu: amount("cpu").map(|cpu| cpu.milli_value()).unwrap_or_default(),
            memory: amount("memory").map(|memory| memory.value()).unwrap_or_default(),
        }
    }

    fn plus(self, other: Self) -> Self {
        Self { cpu: self.cpu + other.cpu, memory: self.memory + other.memory }
    }

    fn key(self, by: By) -> i64 {
        match by {
            By::Cpu => self.cpu,
            By::Memory => self.memory,
        }
    }

    fn cells(self) -> [String; 2] {
        [format!("{}m", self.cpu), format!("{}Mi", self.memory / (1024 * 1024))]
    }
}

/// Runs the verb.
pub async fn run(session: &Session, command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Node(options) => nodes(session, options).await,
        Command::Pod(options) => pods(session, options).await,
    }
}

/// The metrics of a collection, or of one object as a list.
async fn metrics(
    session: &Session,
    collection: &str,
    name: Option<&String>,
    query: &str,
) -> anyhow::Result<Vec<Value>> {
    let answer = match name {
        Some(name) => session.api.get(&format!("{collection}/{name}")).await.map(|one| vec![one]),
        None => session
            .api
            .get(&with_query(collection, query))
            .await
            .map(|list| items(&list, "/items").cloned().collect()),
    };
    match answer {
        Err(error) if is_not_found(&error) && name.is_none() => {
            anyhow::bail!("error: Metrics API not available: the server has no {ROOT}")
        }
        other => other,
    }
}

fn query(selector: Option<&String>, fields: Option<&String>) -> String {
    let labels = selector.map(|text| format!("labelSelector={}", escape(text)));
    let fields = fields.map(|text| format!("fieldSelector={}", escape(text)));
    labels.into_iter().chain(fields).collect::<Vec<_>>().join("&")
}

async fn nodes(session: &Session, options: &NodeOptions) -> anyhow::Result<()> {
    let query = query(options.selector.as_ref(), None);
    let metrics = metrics(session, &format!("{ROOT}/nodes"), options.name.as_ref(), &query).await?;
    let known = session.api.get(&with_query("/api/v1/nodes", &query)).await?;
    let field = if options.show_capacity { "capacity" } else { "allocatable" };
    let mut rows: Vec<(String, Usage)> = metrics
        .iter()
        .map(|one| (text(one, "/metadata/name").to_string(), Usage::read(&one["usage"])))
        .collect();
    sort(&mut rows, options.sort_by);
    let mut layout = Layout::new(&["NAME", "CPU(cores)", "CPU(%)", "MEMORY(bytes)", "MEMORY(%)"]);
    for (name, usage) in &rows {
        let node = items(&known, "/items").find(|node| text(node, "/metadata/name") == name);
        let offer = node.map(|node| Usage::read(&node["status"][field])).unwrap_or_default();
        let share = |part: i64, whole: i64| {
            if whole > 0 { format!("{}%", part * 100 / whole) } else { "<unknown>".into() }
        };
        let [cpu, memory] = usage.cells();
        layout.row(vec![
            name.clone(),
            cpu,
            share(usage.cpu, offer.cpu),
            memory,
            share(usage.memory, offer.memory),
        ]);
    }
    if rows.is_empty() {
        anyhow::bail!("error: metrics not available yet");
    }
    for node in items(&known, "/items") {
        let name = text(node, "/metadata/name");
        let asked = options.name.as_ref().is_none_or(|wanted| wanted == name);
        if asked && !rows.iter().any(|(known, _)| known == name) {
            let unknown = || "<unknown>".to_string();
            layout.row(vec![name.to_string(), unknown(), unknown(), unknown(), unknown()]);
        }
    }
    print!("{}", layout.render(options.no_headers));
    Ok(())
}

fn sort(rows: &mut [(String, Usage)], by: Option<By>) {
    match by {
        Some(by) => rows.sort_by_key(|(_, usage)| std::cmp::Reverse(usage.key(by))),
        None => rows.sort_by(|a, b| a.0.cmp(&b.0)),
    }
}

async fn pods(session: &Session, options: &PodOptions) -> anyhow::Result<()> {
    let collection = if options.all_namespaces {
        format!("{ROOT}/pods")
    } else {
        format!("{ROOT}/namespaces/{}/pods", session.namespace)
    };
    let query = query(options.selector.as_ref(), options.field_selector.as_ref());
    let mut metrics = metrics(session, &collection, options.name.as_ref(), &query).await?;
    if metrics.is_empty() {
        if options.all_namespaces {
            eprintln!("No resources found");
        } else {
            eprintln!("No resources found in {} namespace.", session.namespace);
        }
        return Ok(());
    }
    metrics.sort_by_key(|pod| {
        let key = options.sort_by.map(|by| std::cmp::Reverse(of_pod(pod).key(by)));
        (key, text(pod, "/metadata/namespace").to_string(), text(pod, "/metadata/name").to_string())
    });
    let mut headings = vec![if options.containers { "POD" } else { "NAME" }, "CPU(cores)", "MEMORY(bytes)"];
    if options.containers {
        headings.insert(1, "NAME");
    }
    if options.all_namespaces {
        headings.insert(0, "NAMESPACE");
    }
    let mut layout = Layout::new(&headings);
    let mut sum = Usage::default();
    for pod in &metrics {
        let mut add = |container: Option<&str>, usage: Usage| {
            let namespace = options.all_namespaces.then(|| text(pod, "/metadata/namespace").to_string());
            let names = [Some(text(pod, "/metadata/name").to_string()), container.map(str::to_string)];
            layout
                .row(namespace.into_iter().chain(names.into_iter().flatten()).chain(usage.cells()).collect());
            sum = sum.plus(usage);
        };
        if options.containers {
            for container in items(pod, "/containers") {
                add(Some(text(container, "/name")), Usage::read(&container["usage"]));
            }
        } else {
            add(None, of_pod(pod));
        }
    }
    if options.sum {
        let blank = headings.len() - 2;
        let [cpu, memory] = ["________", "________"];
        layout.row(std::iter::repeat_n(String::new(), blank).chain([cpu.into(), memory.into()]).collect());
        layout.row(std::iter::repeat_n(String::new(), blank).chain(sum.cells()).collect());
    }
    print!("{}", layout.render(options.no_headers));
    Ok(())
}

fn of_pod(pod: &Value) -> Usage {
    items(pod, "/containers")
        .map(|container| Usage::read(&container["usage"]))
        .fold(Usage::default(), Usage::plus)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_uses_what_its_containers_use() {
        let pod = json!({"containers": [{"usage": {"cpu": "1500000n", "memory": "2Mi"}}, {"usage": {"cpu": "10m", "memory": "1024Ki"}}]});
        assert_eq!(of_pod(&pod).cells(), ["12m".to_string(), "3Mi".to_string()]);
    }
}
