//! `cordon`, `uncordon` and `drain`: a node takes nothing new, and gives away what it has.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;
use serde_json::{Value, json};

use crate::api::{PatchKind, Refusal, is_not_found};
use crate::cli::{Selection, Span};
use crate::session::{Session, Target, escape};

const RETRY: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(200);
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Which nodes.
#[derive(Args, Clone, Debug)]
pub struct Nodes {
    /// The nodes' names
    pub names: Vec<String>,
    /// The nodes that a selector names
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub selector: Option<String>,
}

/// The flags of `drain`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    #[command(flatten)]
    pub nodes: Nodes,
    /// Leave the pods of daemon sets, which would come back at once
    #[arg(long)]
    pub ignore_daemonsets: bool,
    /// Go on though pods lose what they keep in emptyDir volumes
    #[arg(long, alias = "delete-local-data")]
    pub delete_emptydir_data: bool,
    /// Go on though nobody will replace pods without a controller
    #[arg(long)]
    pub force: bool,
    /// How long the pods get to end by themselves, in seconds; -1 is as long as they ask for
    #[arg(long, default_value_t = -1, allow_negative_numbers = true, value_name = "SECONDS")]
    pub grace_period: i64,
    /// How long to try; 0 is as long as it takes
    #[arg(long, default_value = "0", value_name = "TIME")]
    pub timeout: Span,
    /// Delete rather than evict: disruption budgets are passed over
    #[arg(long)]
    pub disable_eviction: bool,
    /// Only pods that a selector names
    #[arg(long, value_name = "SELECTOR")]
    pub pod_selector: Option<String>,
}

/// Runs `cordon` or `uncordon`.
pub async fn cordon(session: &Session, nodes: &Nodes, unschedulable: bool) -> anyhow::Result<()> {
    for node in targets(session, nodes).await? {
        set_unschedulable(session, &node, unschedulable).await?;
    }
    Ok(())
}

/// Runs `drain`.
pub async fn drain(session: &Session, options: &Options) -> anyhow::Result<()> {
    for node in targets(session, &options.nodes).await? {
        set_unschedulable(session, &node, true).await?;
        let pods = pods_to_evict(session, options, &node).await?;
        let deadline = (!options.timeout.0.is_zero()).then(|| Instant::now() + options.timeout.0);
        for pod in &pods {
            evict(session, options, pod, deadline).await?;
        }
        wait_until_gone(session, &pods, deadline).await?;
        println!("{} drained", node.reported());
    }
    Ok(())
}

async fn targets(session: &Session, nodes: &Nodes) -> anyhow::Result<Vec<Target>> {
    let mut words = vec!["nodes".to_string()];
    words.extend(nodes.names.iter().map(|name| name.trim_start_matches("node/").to_string()));
    if nodes.names.is_empty() && nodes.selector.is_none() {
        bail!("error: name a node, or select nodes with -l");
    }
    session.targets(&words, &Selection { selector: nodes.selector.clone(), ..Selection::default() }).await
}

async fn set_unschedulable(session: &Session, node: &Target, wanted: bool) -> anyhow::Result<()> {
    let done = if wanted { "cordoned" } else { "uncordoned" };
    let object = session.api.get(&node.path()).await?;
    if (object["spec"]["unschedulable"] == true) == wanted {
        println!("{} already {done}", node.reported());
        return Ok(());
    }
    let value = if wanted { json!(true) } else { Value::Null };
    let patch = json!({"spec": {"unschedulable": value}});
    session.api.patch(&format!("{}?fieldManager=ctl-drain", node.path()), PatchKind::Merge, &patch).await?;
    println!("{} {done}", node.reported());
    Ok(())
}

async fn pods_to_evict(session: &Session, options: &Options, node: &Target) -> anyhow::Result<Vec<Value>> {
    let selector = options.pod_selector.as_ref().map(|text| format!("&labelSelector={}", escape(text)));
    let path =
        format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{}{}", node.name, selector.unwrap_or_default());
    let list = session.api.get(&path).await?;
    let mut evicted = Vec::new();
    let mut problems = Vec::new();
    for pod in list["items"].as_array().into_iter().flatten() {
        let metadata = &pod["metadata"];
        let name = name_of(pod);
        let finished = ["Succeeded", "Failed"].contains(&pod["status"]["phase"].as_str().unwrap_or_default());
        let owners = metadata["ownerReferences"].as_array();
        let controller = owners.into_iter().flatten().find(|owner| owner["controller"] == true);
        let keeps_data = pod["spec"]["volumes"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|volume| volume["emptyDir"].is_object());
        if metadata["annotations"][MIRROR].is_string() {
            continue;
        }
        if controller.is_some_and(|owner| owner["kind"] == "DaemonSet") && !finished {
            if !options.ignore_daemonsets {
                problems.push(format!("{name} is of a daemon set; pass it over with --ignore-daemonsets"));
            }
            continue;
        }
        if controller.is_none() && !finished && !options.force {
            problems
                .push(format!("{name} has no controller and would not come back; delete it with --force"));
        }
        if keeps_data && !finished && !options.delete_emptydir_data {
            problems
                .push(format!("{name} keeps data in an emptyDir; give it up with --delete-emptydir-data"));
        }
        evicted.push(pod.clone());
    }
    if !problems.is_empty() {
        bail!("error: unable to drain node \"{}\":\n  {}", node.name, problems.join("\n  "));
    }
    Ok(evicted)
}

fn name_of(pod: &Value) -> String {
    let text = |field: &str| pod["metadata"][field].as_str().unwrap_or_default();
    format!("{}/{}", text("namespace"), text("name"))
}

fn path_of(pod: &Value) -> String {
    let text = |field: &str| pod["metadata"][field].as_str().unwrap_or_default();
    format!("/api/v1/namespaces/{}/pods/{}", text("namespace"), text("name"))
}

/// Asks again while a disruption budget does not allow it.
async fn evict(
    session: &Session,
    options: &Options,
    pod: &Value,
    deadline: Option<Instant>,
) -> anyhow::Result<()> {
    println!("evicting pod {}", name_of(pod));
    let mut delete = json!({"apiVersion": "v1", "kind": "DeleteOptions"});
    if options.grace_period >= 0 {
        delete["gracePeriodSeconds"] = options.grace_period.into();
    }
    loop {
        let outcome = if options.disable_eviction {
            session.api.delete(&path_of(pod), &delete).await
        } else {
            let metadata =
                json!({"name": pod["metadata"]["name"], "namespace": pod["metadata"]["namespace"]});
            let eviction = json!({
                "apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata, "deleteOptions": delete});
            session.api.create(&format!("{}/eviction", path_of(pod)), &eviction).await
        };
        match outcome {
            Ok(_) => return Ok(()),
            Err(error) if is_not_found(&error) => return Ok(()),
            Err(error) => {
                let budget = error.downcast_ref::<Refusal>().is_some_and(|refusal| refusal.code == 429);
                if !budget || deadline.is_some_and(|deadline| Instant::now() > deadline) {
                    return Err(error);
                }
                eprintln!("{error:#} (will be tried again)");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn wait_until_gone(session: &Session, pods: &[Value], deadline: Option<Instant>) -> anyhow::Result<()> {
    let mut left: HashSet<usize> = (0..pods.len()).collect();
    while !left.is_empty() {
        for (index, pod) in pods.iter().enumerate() {
            if !left.contains(&index) {
                continue;
            }
            let gone = match session.api.get(&path_of(pod)).await {
                Ok(now) => now["metadata"]["uid"] != pod["metadata"]["uid"],
                Err(error) if is_not_found(&error) => true,
                Err(error) => return Err(error),
            };
            if gone {
                left.remove(&index);
            }
        }
        if deadline.is_some_and(|deadline| Instant::now() > deadline) {
            bail!("error: timed out; {} pods are still there", left.len());
        }
        if !left.is_empty() {
            tokio::time::sleep(POLL).await;
        }
    }
    Ok(())
}
