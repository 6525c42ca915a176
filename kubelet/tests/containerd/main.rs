//! The agent between a real API server and a real containerd: what users see of a pod's life, and what is left after it.

#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, clippy::expect_used)]

mod archives;
mod harness;

use std::time::Duration;

use futures::{AsyncBufReadExt, TryStreamExt};
use harness::Harness;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{DeleteParams, LogParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

fn container(status: &Value, index: usize) -> &Value {
    &status["containerStatuses"][index]
}

fn is_ready(status: &Value) -> bool {
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

fn waiting_reason(status: &Value) -> &str {
    container(status, 0)["state"]["waiting"]["reason"].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_live_and_end_as_users_expect_and_leave_nothing() {
    let Some(mut harness) = Harness::start().await else { return };
    harness.load_image(archives::image("localhost/pause:1", &["sleep", "1000000"])).await;
    let loaded = harness.load_image(archives::image("box:v1", &["sh"])).await;
    assert_eq!(loaded["images"][0], "docker.io/library/box:v1");

    a_pod_with_volumes_and_variables_runs_and_refreshes(&harness).await;
    what_ends_is_told_and_what_fails_says_why(&harness).await;
    containers_outlive_the_agent_and_orphans_do_not(&mut harness).await;
    large_logs_are_rotated_under_their_readers(&mut harness).await;
    a_node_short_of_memory_says_so_and_evicts(&mut harness).await;

    harness.eventually("nothing to be left", async |h| h.containers().is_empty()).await;
    assert_eq!(harness.leftovers(), Vec::<String>::new());
    harness.finish().await;
}

async fn a_pod_with_volumes_and_variables_runs_and_refreshes(harness: &Harness) {
    let maps = Api::<ConfigMap>::namespaced(harness.client.clone(), "default");
    let map = |mode: &str| -> ConfigMap {
        serde_json::from_value(json!({"metadata": {"name": "settings"}, "data": {"mode": mode}})).unwrap()
    };
    let script = "echo $MODE on $NODE; cat /etc/settings/mode > /shared/seen; touch /shared/ok; \
                  until [ \"$(cat /etc/settings/mode)\" = slow ]; do sleep 0.1; done; echo changed; \
                  trap 'echo bye > /dev/termination-log; exit 3' TERM; while true; do sleep 0.1; done";
    harness
        .create(
            "full",
            json!({
                "initContainers": [{"name": "first", "image": "box:v1", "command": ["sh", "-c", "echo 1 > /shared/first"],
                    "volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}],
                "containers": [{"name": "main", "image": "box:v1", "command": ["sh", "-c", script],
                    "env": [{"name": "MODE", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "mode"}}},
                            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
                    "readinessProbe": {"exec": {"command": ["cat", "/shared/ok", "/shared/first"]}, "periodSeconds": 1},
                    "volumeMounts": [{"name": "shared", "mountPath": "/shared"}, {"name": "settings", "mountPath": "/etc/settings"}]}],
                "volumes": [{"name": "shared", "emptyDir": {"medium": "Memory"}}, {"name": "settings", "configMap": {"name": "settings"}}],
            }),
        )
        .await;
    // Nothing can run before its volume's object is there; it comes, and the pod goes on by itself.
    harness.wait_for("full", "to be initializing", |s| waiting_reason(s) == "PodInitializing").await;
    maps.create(&PostParams::default(), &map("fast")).await.unwrap();
    let status = harness.wait_for("full", "to be ready", is_ready).await;
    assert_eq!(status["phase"], "Running");
    assert_eq!(status["qosClass"], "BestEffort");
    assert_eq!(status["initContainerStatuses"][0]["state"]["terminated"]["reason"], "Completed");

    maps.patch("settings", &PatchParams::default(), &Patch::Merge(map("slow"))).await.unwrap();
    harness
        .eventually("the volume to change", async |h| {
            let logs = h.pods().logs("full", &LogParams::default()).await.unwrap();
            logs == "fast on n1\nchanged\n"
        })
        .await;
    harness.delete("full").await;
    assert_eq!(harness.leftovers(), Vec::<String>::new());
}

async fn what_ends_is_told_and_what_fails_says_why(harness: &Harness) {
    let sh = |script: &str| json!({"name": "a", "image": "box:v1", "command": ["sh", "-c", script]});
    let job = json!({"restartPolicy": "Never", "containers": [sh("echo last > /dev/termination-log")]});
    harness.create("job", job).await;
    let failing = json!({"restartPolicy": "Never", "containers": [sh("exit 3")]});
    harness.create("failing", failing).await;
    harness.create("crashing", json!({"containers": [sh("exit 4")]})).await;
    let mut missing = sh("true");
    missing["image"] = json!("localhost:1/nothing:v1");
    harness.create("missing", json!({"containers": [missing]})).await;
    let mut sick = sh("sleep 100");
    sick["livenessProbe"] =
        json!({"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1});
    harness.create("sick", json!({"terminationGracePeriodSeconds": 1, "containers": [sick]})).await;

    let status = harness.wait_for("job", "to succeed", |s| s["phase"] == "Succeeded").await;
    assert_eq!(container(&status, 0)["state"]["terminated"]["message"], "last\n");
    let status = harness.wait_for("failing", "to fail", |s| s["phase"] == "Failed").await;
    assert_eq!(container(&status, 0)["state"]["terminated"]["exitCode"], 3);
    let status = harness.wait_for("crashing", "to wait", |s| waiting_reason(s) == "CrashLoopBackOff").await;
    assert_eq!(container(&status, 0)["lastState"]["terminated"]["exitCode"], 4);
    let message = container(&status, 0)["state"]["waiting"]["message"].as_str().unwrap().to_string();
    assert!(
        message.starts_with("back-off 10s restarting failed container=a pod=crashing_default("),
        "{message}"
    );
    harness.wait_for("missing", "to wait for its image", |s| waiting_reason(s) == "ImagePullBackOff").await;
    harness
        .wait_for("sick", "to be restarted", |s| container(s, 0)["restartCount"].as_i64() >= Some(1))
        .await;
    for name in ["job", "failing", "crashing", "missing", "sick"] {
        harness.delete(name).await;
    }
}

async fn containers_outlive_the_agent_and_orphans_do_not(harness: &mut Harness) {
    let sleeper = json!({"containers": [{"name": "a", "image": "box:v1", "command": ["sleep", "1000"]}]});
    harness.create("kept", sleeper.clone()).await;
    harness.create("orphan", sleeper).await;
    let before = harness.wait_for("kept", "to be ready", is_ready).await;
    harness.wait_for("orphan", "to be ready", is_ready).await;
    harness.stop_agent().await;
    let running = harness.containers();
    assert_eq!(running.len(), 4, "two sandboxes and two containers run on");
    let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    harness.pods().delete("orphan", &now).await.unwrap();

    harness.start_agent();
    harness.eventually("the orphan to be ended", async |h| h.containers().len() == 2).await;
    let after = harness.wait_for("kept", "to be ready", is_ready).await;
    assert_eq!(container(&before, 0)["containerID"], container(&after, 0)["containerID"]);
    assert_eq!(container(&after, 0)["restartCount"], 0);
    assert!(harness.containers().iter().all(|id| running.contains(id)));
    harness.delete("kept").await;
}

async fn large_logs_are_rotated_under_their_readers(harness: &mut Harness) {
    harness.stop_agent().await;
    harness.start_agent_with(|config| config.container_log_max_bytes = 8 << 10);
    let script = "i=0; while [ $i -lt 1500 ]; do i=$((i+1)); echo line $i; sleep 0.01; done; sleep 1000";
    let talker = json!({"containers": [{"name": "a", "image": "box:v1", "command": ["sh", "-c", script]}]});
    let pod = harness.create("talker", talker).await;
    harness.wait_for("talker", "to run", |s| s["phase"] == "Running").await;
    let following = LogParams { follow: true, ..LogParams::default() };
    let mut lines = harness.pods().log_stream("talker", &following).await.unwrap().lines();
    let reading = async {
        for number in 1..=1500 {
            let line = lines.try_next().await.unwrap();
            assert!(
                line.is_some(),
                "the log ended before line {number}: {:#?}",
                harness.pods().get("talker").await
            );
            let line = line.unwrap();
            assert_eq!(line, format!("line {number}"), "no line is lost or doubled over a rotation");
        }
    };
    tokio::time::timeout(Duration::from_secs(60), reading).await.unwrap();
    let uid = pod.metadata.uid.unwrap();
    let logs = harness.directory.path().join("logs").join(format!("default_talker_{uid}")).join("a");
    let files = std::fs::read_dir(logs).unwrap().count();
    assert!(files > 1, "the log was rotated");
    harness.delete("talker").await;
}

async fn a_node_short_of_memory_says_so_and_evicts(harness: &mut Harness) {
    let sleeper = json!({"containers": [{"name": "a", "image": "box:v1", "command": ["sleep", "1000"]}]});
    harness.create("victim", sleeper).await;
    harness.wait_for("victim", "to be ready", is_ready).await;
    harness.stop_agent().await;
    harness.start_agent_with(|config| {
        config.eviction.thresholds.memory = kubelet::Threshold::Amount(1 << 60);
        config.eviction.interval = Duration::from_millis(200);
        config.eviction.transition = Duration::ZERO;
    });
    harness.eventually("memory pressure", async |h| h.node_has("MemoryPressure").await).await;
    let status = harness.wait_for("victim", "to be evicted", |s| s["phase"] == "Failed").await;
    assert_eq!(status["reason"], "Evicted");
    let disrupted = status["conditions"].as_array().unwrap().iter().any(|c| c["type"] == "DisruptionTarget");
    assert!(disrupted, "its controller forgives the failure: {status:#}");
    harness.stop_agent().await;
    harness.start_agent();
    harness.delete("victim").await;
}
