//! Pods: what their state is in one word, and templates.

use serde_json::Value;

use super::{AGE, Kind, NAME, Subject, count, or_none, text, wide, workload::containers_of};
use crate::field::Look;

pub(super) const POD: Kind = &[
    NAME,
    text("Ready", |s| {
        let state = state(s);
        format!("{}/{}", state.ready, state.total).into()
    }),
    text("Status", |s| state(s).reason.into()),
    text("Restarts", |s| match state(s) {
        State { restarts: 0, .. } => "0".into(),
        State { restarts, last_restart: "", .. } => restarts.to_string().into(),
        State { restarts, last_restart, .. } => format!("{restarts} ({} ago)", s.since(last_restart)).into(),
    }),
    AGE,
    wide("IP", |s| {
        let first = s.list("status.podIPs").first();
        or_none(first.map_or(s.str("status.podIP"), |ip| ip.text("ip"))).into()
    }),
    wide("Node", |s| s.or_none("spec.nodeName")),
    wide("Nominated Node", |s| s.or_none("status.nominatedNodeName")),
    wide("Readiness Gates", |s| readiness_gates(s).into()),
];

pub(super) const POD_TEMPLATE: Kind = &[
    NAME,
    text("Containers", |s| containers_of(s, "template.spec", "name")),
    text("Images", |s| containers_of(s, "template.spec", "image")),
    text("Pod Labels", |s| super::workload::labels(s.at("template.metadata"), "labels").into()),
];

/// What a pass over the containers' states found.
struct State<'a> {
    reason: String,
    restarts: i64,
    last_restart: &'a str,
    ready: i64,
    total: i64,
}

/// The word that `get pods` shows as status.
fn state<'a>(subject: &Subject<'a>) -> State<'a> {
    let (spec, status) = (subject.spec(), subject.status());
    let phase = status.text("phase");
    let mut state = State {
        reason: if status.text("reason").is_empty() { phase } else { status.text("reason") }.to_string(),
        restarts: 0,
        last_restart: "",
        ready: 0,
        total: i64::try_from(spec.items("containers").len()).unwrap_or_default()
            + spec.items("initContainers").iter().map(|c| i64::from(is_sidecar(c))).sum::<i64>(),
    };
    let conditions = status.items("conditions");
    if conditions.iter().any(|c| c.text("type") == "PodScheduled" && c.text("reason") == "SchedulingGated") {
        state.reason = "SchedulingGated".to_string();
    }
    let sidecars = init_containers(&mut state, spec, status);
    let is_initialized =
        conditions.iter().any(|c| c.text("type") == "Initialized" && c.text("status") == "True");
    if sidecars.is_initialized || is_initialized {
        state.restarts = sidecars.restarts;
        state.last_restart = sidecars.last_restart;
        containers(&mut state, status);
    }
    if !subject.at("metadata.deletionTimestamp").is_null() {
        if status.text("reason") == "NodeLost" {
            state.reason = "Unknown".to_string();
        } else if !["Succeeded", "Failed"].contains(&phase) {
            state.reason = "Terminating".to_string();
        }
    }
    state
}

struct Sidecars<'a> {
    is_initialized: bool,
    restarts: i64,
    last_restart: &'a str,
}

fn is_sidecar(container: &Value) -> bool {
    container.text("restartPolicy") == "Always"
}

fn last_termination(container: &Value) -> &str {
    container.dig(&["lastState", "terminated", "finishedAt"]).and_then(Value::as_str).unwrap_or_default()
}

fn init_containers<'a>(state: &mut State<'a>, spec: &Value, status: &'a Value) -> Sidecars<'a> {
    let mut sidecars = Sidecars { is_initialized: true, restarts: 0, last_restart: "" };
    let described = spec.items("initContainers");
    for (index, container) in status.items("initContainerStatuses").iter().enumerate() {
        let restarts = count(container, "restartCount");
        state.restarts += restarts;
        // Times in RFC 3339 with seconds and Z sort as text.
        state.last_restart = state.last_restart.max(last_termination(container));
        let sidecar = described.iter().any(|c| c.text("name") == container.text("name") && is_sidecar(c));
        if sidecar {
            sidecars.restarts += restarts;
            sidecars.last_restart = sidecars.last_restart.max(last_termination(container));
        }
        let terminated = container.dig(&["state", "terminated"]);
        let waiting =
            container.dig(&["state", "waiting", "reason"]).and_then(Value::as_str).unwrap_or_default();
        if terminated.is_some_and(|t| count(t, "exitCode") == 0) {
            continue;
        }
        if sidecar && container.flag("started") {
            state.ready += i64::from(container.flag("ready"));
            continue;
        }
        state.reason = match terminated {
            Some(terminated) => format!("Init:{}", exit_reason(terminated)),
            None if !waiting.is_empty() && waiting != "PodInitializing" => format!("Init:{waiting}"),
            None => format!("Init:{index}/{}", described.len()),
        };
        sidecars.is_initialized = false;
        break;
    }
    sidecars
}

fn exit_reason(terminated: &Value) -> String {
    match (terminated.text("reason"), count(terminated, "signal")) {
        ("", 0) => format!("ExitCode:{}", count(terminated, "exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_string(),
    }
}

fn containers<'a>(state: &mut State<'a>, status: &'a Value) {
    let (mut has_running, mut error) = (false, String::new());
    for container in status.items("containerStatuses").iter().rev() {
        state.restarts += count(container, "restartCount");
        state.last_restart = state.last_restart.max(last_termination(container));
        let waiting =
            container.dig(&["state", "waiting", "reason"]).and_then(Value::as_str).unwrap_or_default();
        if !waiting.is_empty() {
            state.reason = waiting.to_string();
        } else if let Some(terminated) = container.dig(&["state", "terminated"]) {
            state.reason = exit_reason(terminated);
            if count(terminated, "exitCode") != 0 {
                error.clone_from(&state.reason);
            }
        } else if container.flag("ready") && container.dig(&["state", "running"]).is_some() {
            has_running = true;
            state.ready += 1;
        }
    }
    if state.reason == "Completed" {
        let is_ready = status
            .items("conditions")
            .iter()
            .any(|c| c.text("type") == "Ready" && c.text("status") == "True");
        if has_running && is_ready {
            state.reason = "Running".to_string();
        } else if !error.is_empty() {
            state.reason = error;
        } else if has_running {
            state.reason = "NotReady".to_string();
        }
    }
}

fn readiness_gates(subject: &Subject) -> String {
    let gates = subject.list("spec.readinessGates");
    if gates.is_empty() {
        return "<none>".to_string();
    }
    let is_open = |gate: &&Value| {
        let condition = subject.condition(gate.text("conditionType"));
        condition.is_some_and(|c| c.text("status") == "True")
    };
    format!("{}/{}", gates.iter().filter(is_open).count(), gates.len())
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::{super::fill, *};

    fn shown(object: &Value) -> Vec<String> {
        let now: Timestamp = "2026-01-01T00:10:00Z".parse().unwrap();
        fill(POD, &Subject { object, now })
            .iter()
            .take(5)
            .map(|cell| cell.as_str().unwrap_or_default().to_string())
            .collect()
    }

    fn with(spec: Value, status: Value) -> Value {
        json!({"metadata": {"name": "p", "creationTimestamp": "2026-01-01T00:09:55Z"}, "spec": spec, "status": status})
    }

    #[test]
    fn states_should_read_as_upstream_writes_them() {
        let two = json!({"containers": [{"name": "a"}, {"name": "b"}]});
        let running = json!({"name": "a", "ready": true, "restartCount": 0, "state": {"running": {}}});
        let crashing = json!({"name": "b", "restartCount": 3,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:09:30Z"}}});
        let done = |code: i64, reason: &str| json!({"name": "b", "state": {"terminated": {"exitCode": code, "reason": reason}}});
        for (status, ready, word, restarts) in [
            (json!({"phase": "Pending"}), "0/2", "Pending", "0"),
            (json!({"phase": "Running", "containerStatuses": [running, running]}), "2/2", "Running", "0"),
            (
                json!({"phase": "Running", "containerStatuses": [running, crashing]}),
                "1/2",
                "CrashLoopBackOff",
                "3 (30s ago)",
            ),
            (
                json!({"phase": "Succeeded", "containerStatuses": [done(0, "Completed")]}),
                "0/2",
                "Completed",
                "0",
            ),
            (
                json!({"phase": "Running", "containerStatuses": [done(0, "Completed"), running],
                       "conditions": [{"type": "Ready", "status": "True"}]}),
                "1/2",
                "Running",
                "0",
            ),
            (
                json!({"phase": "Running", "containerStatuses": [done(0, "Completed"), running]}),
                "1/2",
                "NotReady",
                "0",
            ),
            (json!({"phase": "Failed", "containerStatuses": [done(7, "")]}), "0/2", "ExitCode:7", "0"),
            (json!({"phase": "Failed", "reason": "Evicted"}), "0/2", "Evicted", "0"),
            (
                json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"running": {}}}]}),
                "0/2",
                "Init:0/0",
                "0",
            ),
            (
                json!({"phase": "Pending", "initContainerStatuses":
                    [{"name": "i", "restartCount": 1, "state": {"waiting": {"reason": "ErrImagePull"}}}]}),
                "0/2",
                "Init:ErrImagePull",
                "1",
            ),
        ] {
            let cells = shown(&with(two.clone(), status.clone()));
            assert_eq!(cells, ["p", ready, word, restarts, "5s"], "{status}");
        }
    }

    #[test]
    fn pods_that_go_should_be_terminating_unless_they_have_ended() {
        let mut pod = with(json!({"containers": [{}]}), json!({"phase": "Running"}));
        pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:09:59Z".into();
        assert_eq!(shown(&pod)[2], "Terminating");
        pod["status"]["phase"] = "Succeeded".into();
        assert_eq!(shown(&pod)[2], "Succeeded");
    }
}
