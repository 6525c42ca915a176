//! Figures in Prometheus' text form.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::response::{IntoResponse, Response};

use super::Refusal;
use super::routes::Shared;
use super::stats::{self, ContainerUsage, Usage};

const TEXT: [(&str, &str); 1] = [("content-type", "text/plain; version=0.0.4; charset=utf-8")];

/// Writes families of figures.
#[derive(Default)]
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.0.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    fn figure(&mut self, name: &str, labels: &str, value: f64, at_nanoseconds: i64) {
        self.0.push_str(&if at_nanoseconds > 0 {
            format!("{name}{labels} {value} {}\n", at_nanoseconds / 1_000_000)
        } else {
            format!("{name}{labels} {value}\n")
        });
    }
}

fn seconds(usage: &Usage) -> f64 {
    usage.cpu_nanoseconds as f64 / 1e9
}

/// `/metrics/resource`: what the metrics API is made from.
pub(super) async fn resource(State(agent): Shared) -> Result<Response, Refusal> {
    let all = stats::containers(&agent).await?;
    let mut text = Text::default();
    let labels = |c: &ContainerUsage| {
        format!("{{container=\"{}\",namespace=\"{}\",pod=\"{}\"}}", c.container, c.namespace, c.pod)
    };
    let name = "container_cpu_usage_seconds_total";
    text.family(name, "counter", "Cumulative cpu time consumed by the container in core-seconds");
    for c in &all {
        text.figure(name, &labels(c), seconds(&c.usage), c.usage.at);
    }
    let name = "container_memory_working_set_bytes";
    text.family(name, "gauge", "Current working set of the container in bytes");
    for c in &all {
        text.figure(name, &labels(c), c.usage.working_set_bytes as f64, c.usage.at);
    }
    let node = stats::node();
    let name = "node_cpu_usage_seconds_total";
    text.family(name, "counter", "Cumulative cpu time consumed by the node in core-seconds");
    text.figure(name, "", seconds(&node), node.at);
    let name = "node_memory_working_set_bytes";
    text.family(name, "gauge", "Current working set of the node in bytes");
    text.figure(name, "", node.working_set_bytes as f64, node.at);
    pods(&mut text, all);
    let name = "resource_scrape_error";
    text.family(name, "gauge", "1 if there was an error while getting container metrics, 0 otherwise");
    text.figure(name, "", 0.0, 0);
    Ok((TEXT, text.0).into_response())
}

fn pods(text: &mut Text, all: Vec<ContainerUsage>) {
    let mut pods: BTreeMap<(String, String), Vec<ContainerUsage>> = BTreeMap::new();
    for usage in all {
        pods.entry((usage.namespace.clone(), usage.pod.clone())).or_default().push(usage);
    }
    let labels = |(namespace, pod): &(String, String)| format!("{{namespace=\"{namespace}\",pod=\"{pod}\"}}");
    let name = "pod_cpu_usage_seconds_total";
    text.family(name, "counter", "Cumulative cpu time consumed by the pod in core-seconds");
    for (key, all) in &pods {
        let sum = stats::sum(all);
        text.figure(name, &labels(key), seconds(&sum), sum.at);
    }
    let name = "pod_memory_working_set_bytes";
    text.family(name, "gauge", "Current working set of the pod in bytes");
    for (key, all) in &pods {
        let sum = stats::sum(all);
        text.figure(name, &labels(key), sum.working_set_bytes as f64, sum.at);
    }
}

/// `/metrics`: the agent's own.
pub(super) async fn own(State(agent): Shared) -> Response {
    let mut text = Text::default();
    let mut running = 0;
    for mailbox in agent.mailboxes() {
        let pod = mailbox.latest();
        let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
        let runs = |c: &&k8s_openapi::api::core::v1::ContainerStatus| {
            c.state.as_ref().is_some_and(|s| s.running.is_some())
        };
        running += statuses.into_iter().flatten().filter(runs).count();
    }
    text.family("kubelet_node_name", "gauge", "The node's name. The count is always 1.");
    text.figure("kubelet_node_name", &format!("{{node=\"{}\"}}", agent.config.node_name), 1.0, 0);
    text.family("kubelet_running_pods", "gauge", "Number of pods that the agent has");
    text.figure("kubelet_running_pods", "", agent.pod_count.load(Ordering::Relaxed) as f64, 0);
    text.family("kubelet_running_containers", "gauge", "Number of containers currently running");
    text.figure("kubelet_running_containers", "{container_state=\"running\"}", running as f64, 0);
    (TEXT, text.0).into_response()
}
