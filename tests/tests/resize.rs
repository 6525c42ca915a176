//! Resources of containers that change while they run, read back from the kernel.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tests::{Cluster, NodeOptions, eventually};

const MI: i64 = 1 << 20;

/// One container's resources: CPU and memory, requests and limits; empty where there are none.
type Sizes = [&'static str; 4];

fn resources([cpu, cpu_limit, memory, memory_limit]: Sizes) -> Value {
    let map = |cpu: &str, memory: &str| {
        let both = [("cpu", cpu), ("memory", memory)].into_iter().filter(|(_, amount)| !amount.is_empty());
        Value::Object(both.map(|(name, amount)| (name.to_string(), amount.into())).collect())
    };
    let mut resources = json!({"requests": map(cpu, memory), "limits": map(cpu_limit, memory_limit)});
    resources.as_object_mut().unwrap().retain(|_, map| map.as_object().is_some_and(|map| !map.is_empty()));
    resources
}

fn containers(sizes: &[Sizes]) -> Vec<Value> {
    let one = |(index, sizes): (usize, &Sizes)| {
        json!({"name": format!("c{index}"), "image": "busybox:latest", "imagePullPolicy": "IfNotPresent",
            "command": ["sleep", "3600"], "resources": resources(*sizes)})
    };
    sizes.iter().enumerate().map(one).collect()
}

fn run(cluster: &Cluster, name: &str, spec: &Value) {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec});
    pod["spec"]["terminationGracePeriodSeconds"] = json!(0);
    pod["spec"]["nodeName"] = json!("n2");
    let manifest = cluster.manifest(&format!("{name}.json"), &pod.to_string());
    cluster.ctl(&["apply", "-f", &manifest]).ok();
}

fn wait_ready(cluster: &Cluster, name: &str) -> Value {
    cluster.ctl(&["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=60s"]).ok();
    pod(cluster, name).unwrap()
}

fn pod(cluster: &Cluster, name: &str) -> Result<Value, String> {
    cluster.get(&["pod", name])
}

fn patch(list: &str, sizes: &[(&str, Value)]) -> String {
    let one = |(name, resources): &(&str, Value)| json!({"name": name, "resources": resources});
    json!({"spec": {list: sizes.iter().map(one).collect::<Vec<_>>()}}).to_string()
}

fn resize(cluster: &Cluster, name: &str, patch: &str) {
    cluster.ctl(&["patch", "pod", name, "--subresource", "resize", "-p", patch]).ok();
}

fn resize_conditions(pod: &Value) -> Vec<&Value> {
    let all = pod["status"]["conditions"].as_array().into_iter().flatten();
    all.filter(|condition| condition["type"].as_str().unwrap().starts_with("PodResize")).collect()
}

/// Waits until the pod is as it is asked to be.
fn wait_resized(cluster: &Cluster, name: &str) -> Value {
    eventually(60, &format!("{name} is resized"), || {
        let pod = pod(cluster, name)?;
        let seen = pod["status"]["observedGeneration"] == pod["metadata"]["generation"];
        let lists = [("containers", "containerStatuses"), ("initContainers", "initContainerStatuses")];
        let is_told = lists.iter().all(|(asked, told)| {
            let asked = pod["spec"][asked].as_array().into_iter().flatten();
            let mut told = pod["status"][told].as_array().into_iter().flatten();
            asked.into_iter().all(|asked| {
                let told = told.next();
                told.is_some_and(|told| {
                    told["resources"] == asked["resources"]
                        && told["allocatedResources"] == asked["resources"]["requests"]
                })
            })
        });
        if seen && is_told && resize_conditions(&pod).is_empty() {
            Ok(pod)
        } else {
            Err(pod["status"].to_string())
        }
    })
}

fn wait_condition(cluster: &Cluster, name: &str, kind: &str, reason: &str) -> Value {
    eventually(60, &format!("{name}: {kind} {reason}"), || {
        let pod = pod(cluster, name)?;
        let found = resize_conditions(&pod).into_iter().any(|c| c["type"] == kind && c["reason"] == reason);
        if found { Ok(pod) } else { Err(pod["status"]["conditions"].to_string()) }
    })
}

fn status<'a>(pod: &'a Value, name: &str) -> &'a Value {
    let lists = ["containerStatuses", "initContainerStatuses"].into_iter();
    let mut all = lists.flat_map(|list| pod["status"][list].as_array().into_iter().flatten());
    all.find(|status| status["name"] == name).unwrap()
}

fn group_named(directory: &Path, name: &str) -> Option<PathBuf> {
    let below: Vec<_> = std::fs::read_dir(directory).ok()?.flatten().collect();
    let below: Vec<_> = below.into_iter().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    let own = below.iter().find(|path| path.file_name().is_some_and(|own| own == name)).cloned();
    own.or_else(|| below.iter().find_map(|path| group_named(path, name)))
}

/// What the kernel has of a container, or of its whole pod: shares, quota, memory. `None` with version 2 of cgroups.
fn kernel(pod: &Value, container: Option<&str>) -> Option<[i64; 3]> {
    if !Path::new("/sys/fs/cgroup/cpu/cpu.shares").exists() {
        eprintln!("not compared with the kernel's files: this machine has cgroup version 2");
        return None;
    }
    let group = match container {
        Some(name) => status(pod, name)["containerID"].as_str()?.split_once("://")?.1.to_string(),
        None => format!("pod{}", pod["metadata"]["uid"].as_str()?),
    };
    let read = |controller: &str, file: &str| -> i64 {
        let directory = group_named(&Path::new("/sys/fs/cgroup").join(controller), &group).unwrap();
        std::fs::read_to_string(directory.join(file)).unwrap().trim().parse().unwrap()
    };
    Some([
        read("cpu", "cpu.shares"),
        read("cpu", "cpu.cfs_quota_us"),
        read("memory", "memory.limit_in_bytes"),
    ])
}

#[track_caller]
fn assert_kernel(pod: &Value, container: Option<&str>, expected: [i64; 3]) {
    if let Some(found) = kernel(pod, container) {
        assert_eq!(found, expected, "of {container:?}");
    }
}

fn identities(pod: &Value) -> Vec<(Value, Value)> {
    let statuses = pod["status"]["containerStatuses"].as_array().unwrap().iter();
    statuses.map(|status| (status["containerID"].clone(), status["restartCount"].clone())).collect()
}

#[test]
fn resources_change_while_containers_run() {
    let mut cluster = Cluster::start();
    cluster.join(NodeOptions::default());
    cluster.load_images(&["busybox:latest"]);
    every_combination_is_applied_and_taken_back(&cluster);
    the_door_for_resizes_shows_and_replaces_the_pod(&cluster);
    init_containers_and_sidecars_change_too(&cluster);
    a_container_is_started_anew_where_it_asks_for_that(&cluster);
    a_limit_below_what_is_in_use_is_told_and_taken_back(&cluster);
    what_the_node_has_no_room_for_waits_also_through_a_restart_of_the_agent(&mut cluster);
    cluster.finish();
}

fn every_combination_is_applied_and_taken_back(cluster: &Cluster) {
    let combinations: [(&str, Vec<Sizes>, Vec<Sizes>); 4] = [
        (
            "net-increase",
            vec![
                ["20m", "20m", "35Mi", "35Mi"],
                ["22m", "22m", "37Mi", "37Mi"],
                ["24m", "24m", "39Mi", "39Mi"],
            ],
            vec![
                ["25m", "25m", "40Mi", "40Mi"],
                ["27m", "27m", "42Mi", "42Mi"],
                ["19m", "19m", "34Mi", "34Mi"],
            ],
        ),
        (
            "net-decrease",
            vec![["20m", "20m", "35Mi", "35Mi"], ["22m", "22m", "37Mi", "37Mi"]],
            vec![["15m", "15m", "40Mi", "40Mi"], ["17m", "17m", "32Mi", "32Mi"]],
        ),
        (
            "burstable",
            vec![["20m", "", "", ""], ["", "", "35Mi", ""], ["20m", "", "35Mi", ""], ["", "", "35Mi", ""]],
            vec![
                ["25m", "35m", "", ""],
                ["", "", "30Mi", "50Mi"],
                ["15m", "", "30Mi", ""],
                ["20m", "", "40Mi", ""],
            ],
        ),
        ("equivalent", vec![["2m", "10m", "", ""]], vec![["1m", "5m", "", ""]]),
    ];
    for (name, before, after) in combinations {
        run(cluster, name, &json!({"containers": containers(&before)}));
        let started = wait_ready(cluster, name);
        let sized = |sizes: &[Sizes]| -> Vec<(String, Value)> {
            sizes.iter().enumerate().map(|(i, sizes)| (format!("c{i}"), resources(*sizes))).collect()
        };
        let mut ways = vec![after];
        // What was added cannot be taken away again.
        ways.extend(Some(before).filter(|_| name != "burstable"));
        for sizes in ways {
            let named = sized(&sizes);
            let named: Vec<(&str, Value)> =
                named.iter().map(|(name, r)| (name.as_str(), r.clone())).collect();
            resize(cluster, name, &patch("containers", &named));
            let resized = wait_resized(cluster, name);
            assert_eq!(identities(&resized), identities(&started), "{name}");
            for (index, sizes) in sizes.iter().enumerate() {
                let millis = |text: &str| text.trim_end_matches('m').parse::<i64>().ok();
                let mebibytes = |text: &str| text.trim_end_matches("Mi").parse::<i64>().ok();
                let shares = millis(sizes[0]).map_or(2, |cpu| (cpu * 1024 / 1000).max(2));
                let quota = millis(sizes[1]).map_or(-1, |cpu| (cpu * 100).max(1000));
                let container = format!("c{index}");
                let found = kernel(&resized, Some(&container)).unwrap_or([shares, quota, 0]);
                assert_eq!(found[..2], [shares, quota], "{name} {container}");
                if let (Some(memory), true) = (mebibytes(sizes[3]), found[2] != 0) {
                    assert_eq!(found[2], memory * MI, "{name} {container}");
                }
            }
        }
        if name == "net-increase" {
            assert_kernel(&pod(cluster, name).unwrap(), None, [67, 6600, 111 * MI]);
        }
        cluster.ctl(&["delete", "pod", name]).ok();
    }
}

fn the_door_for_resizes_shows_and_replaces_the_pod(cluster: &Cluster) {
    run(cluster, "door", &json!({"containers": containers(&[["20m", "", "35Mi", ""]])}));
    let mut wanted = wait_ready(cluster, "door");
    assert_eq!(wanted["metadata"]["generation"], 1);
    wanted["spec"]["containers"][0]["resources"]["requests"] = json!({"cpu": "25m", "memory": "40Mi"});
    let manifest = cluster.manifest("door.json", &wanted.to_string());
    cluster.ctl(&["replace", "--subresource", "resize", "-f", &manifest]).ok();
    let resized = wait_resized(cluster, "door");
    assert_eq!(resized["metadata"]["generation"], 2);
    let shown = cluster.ctl(&["get", "--raw", "/api/v1/namespaces/default/pods/door/resize"]).ok();
    let raw = cluster.ctl(&["get", "--raw", "/api/v1/namespaces/default/pods/door"]).ok();
    assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), serde_json::from_str::<Value>(&raw).unwrap());
    let reasons: Vec<String> = eventually(20, "the resize is told as events", || {
        let events = cluster.get(&["events", "--field-selector", "involvedObject.name=door"])?;
        let events = events["items"].as_array().cloned().unwrap_or_default();
        let reasons: Vec<String> = events.iter().map(|e| e["reason"].as_str().unwrap().to_string()).collect();
        let both =
            ["ResizeStarted", "ResizeCompleted"].iter().all(|wanted| reasons.iter().any(|r| r == wanted));
        if both { Ok(reasons) } else { Err(reasons.join(", ")) }
    });
    assert!(!reasons.iter().any(|reason| reason == "ResizeError"), "{reasons:?}");
    cluster.ctl(&["delete", "pod", "door"]).ok();
}

fn init_containers_and_sidecars_change_too(cluster: &Cluster) {
    let small = ["20m", "20m", "35Mi", "35Mi"];
    let mut init = containers(&[small, small]);
    init[0]["restartPolicy"] = json!("Always");
    init[1]["command"] = json!(["sh", "-c", "until [ -e /tmp/go ]; do sleep 0.1; done"]);
    let mut main = containers(&[small]);
    main[0]["name"] = json!("main");
    run(cluster, "init", &json!({"initContainers": init, "containers": main}));
    eventually(60, "the init container runs", || {
        let pod = pod(cluster, "init")?;
        let statuses = &pod["status"]["initContainerStatuses"];
        if statuses[1]["state"]["running"].is_null() { Err(statuses.to_string()) } else { Ok(()) }
    });
    let large = resources(["40m", "40m", "45Mi", "45Mi"]);
    resize(cluster, "init", &patch("initContainers", &[("c0", large.clone()), ("c1", large)]));
    let resized = wait_resized_running(cluster);
    for name in ["c0", "c1"] {
        assert_kernel(&resized, Some(name), [40, 4000, 45 * MI]);
        assert_eq!(status(&resized, name)["restartCount"], 0);
    }
    cluster.ctl(&["exec", "init", "-c", "c1", "--", "touch", "/tmp/go"]).ok();
    wait_ready(cluster, "init");
    cluster.ctl(&["delete", "pod", "init"]).ok();
}

/// The main container does not run yet and has no resources to tell of.
fn wait_resized_running(cluster: &Cluster) -> Value {
    eventually(60, "both init containers are resized", || {
        let pod = pod(cluster, "init")?;
        let statuses = pod["status"]["initContainerStatuses"].as_array().cloned().unwrap_or_default();
        let is_large = statuses.iter().all(|status| status["resources"]["limits"]["cpu"] == "40m");
        if is_large && resize_conditions(&pod).is_empty() { Ok(pod) } else { Err(pod["status"].to_string()) }
    })
}

fn a_container_is_started_anew_where_it_asks_for_that(cluster: &Cluster) {
    let mut both = containers(&[["20m", "30m", "35Mi", "45Mi"], ["20m", "30m", "35Mi", "45Mi"]]);
    // It ends well when it is told to, which would be the end of it for any other reason.
    both[0]["command"] = json!(["sh", "-c", "trap 'exit 0' TERM; while true; do sleep 0.1; done"]);
    both[0]["resizePolicy"] = json!([{"resourceName": "cpu", "restartPolicy": "NotRequired"},
        {"resourceName": "memory", "restartPolicy": "RestartContainer"}]);
    run(cluster, "anew", &json!({"restartPolicy": "OnFailure", "containers": both}));
    let before = wait_ready(cluster, "anew");
    let with_cpu = resources(["25m", "35m", "35Mi", "45Mi"]);
    resize(cluster, "anew", &patch("containers", &[("c0", with_cpu.clone()), ("c1", with_cpu)]));
    assert_eq!(identities(&wait_resized(cluster, "anew")), identities(&before));
    let with_both = resources(["25m", "35m", "40Mi", "50Mi"]);
    for (round, sizes) in [with_both, resources(["20m", "30m", "35Mi", "45Mi"])].into_iter().enumerate() {
        resize(cluster, "anew", &patch("containers", &[("c0", sizes.clone()), ("c1", sizes)]));
        let after = eventually(60, "it is started anew", || {
            let pod = wait_resized(cluster, "anew");
            let ready = status(&pod, "c0")["ready"] == true;
            if ready { Ok(pod) } else { Err(pod["status"].to_string()) }
        });
        assert_eq!(status(&after, "c0")["restartCount"], round + 1);
        assert_eq!(status(&after, "c1")["restartCount"], 0);
        let kernel = if round == 0 { [25, 3500, 50 * MI] } else { [20, 3000, 45 * MI] };
        assert_kernel(&after, Some("c0"), kernel);
        assert_kernel(&after, Some("c1"), kernel);
    }
    cluster.ctl(&["delete", "pod", "anew"]).ok();
}

fn a_limit_below_what_is_in_use_is_told_and_taken_back(cluster: &Cluster) {
    let sizes = ["20m", "", "60Mi", "60Mi"];
    let mut one = containers(&[sizes]);
    let hold = "x=$(head -c 20000000 /dev/zero | tr '\\0' x); touch /tmp/held; while true; do sleep 1; done";
    one[0]["command"] = json!(["sh", "-c", hold]);
    one[0]["readinessProbe"] = json!({"exec": {"command": ["cat", "/tmp/held"]}, "periodSeconds": 1});
    run(cluster, "full", &json!({"containers": one}));
    let before = wait_ready(cluster, "full");
    let to = |memory| patch("containers", &[("c0", resources(["20m", "", memory, memory]))]);
    resize(cluster, "full", &to("10Mi"));
    let stuck = wait_condition(cluster, "full", "PodResizeInProgress", "Error");
    let message = resize_conditions(&stuck)[0]["message"].as_str().unwrap();
    assert!(message.contains("memory limit (10485760) below current usage ("), "{message}");
    assert_eq!(status(&stuck, "c0")["resources"]["limits"]["memory"], "60Mi");
    assert_eq!(status(&stuck, "c0")["allocatedResources"]["memory"], "10Mi");
    resize(cluster, "full", &to("60Mi"));
    let after = wait_resized(cluster, "full");
    assert_eq!(identities(&after), identities(&before));
    if let Some([_, _, memory]) = kernel(&after, Some("c0")) {
        assert_eq!(memory, 60 * MI);
    }
    cluster.ctl(&["delete", "pod", "full"]).ok();
}

fn what_the_node_has_no_room_for_waits_also_through_a_restart_of_the_agent(cluster: &mut Cluster) {
    let node = cluster.get(&["node", "n2"]).unwrap();
    let cores: i64 = node["status"]["allocatable"]["cpu"].as_str().unwrap().parse().unwrap();
    let millis = |millis: i64| json!({"requests": {"cpu": format!("{millis}m")}});
    run(cluster, "small", &json!({"containers": containers(&[["50m", "", "", ""]])}));
    let mut filler = containers(&[["50m", "", "", ""]]);
    filler[0]["resources"] = millis(cores * 1000 - 300);
    run(cluster, "filler", &json!({"containers": filler}));
    wait_ready(cluster, "small");
    wait_ready(cluster, "filler");
    let to = |cpu: i64| patch("containers", &[("c0", millis(cpu))]);
    let refused =
        cluster.ctl(&["patch", "pod", "small", "--subresource", "resize", "-p", &to(cores * 1000 + 1)]);
    assert!(
        refused.stderr.contains("node didn't have enough allocatable resources: cpu"),
        "{}",
        refused.stderr
    );

    resize(cluster, "small", &to(500));
    let waiting = wait_condition(cluster, "small", "PodResizePending", "Deferred");
    let message = resize_conditions(&waiting)[0]["message"].clone();
    assert!(message.as_str().unwrap().contains("cpu, requested: 500, used:"), "{message}");
    // The agent that comes after knows what was granted, and does not take the wish for it.
    cluster.nodes[1].kill();
    cluster.nodes[1].spawn();
    resize(cluster, "filler", &to(cores * 1000 - 301));
    wait_resized(cluster, "filler");
    let waiting = wait_condition(cluster, "small", "PodResizePending", "Deferred");
    assert_eq!(status(&waiting, "c0")["allocatedResources"]["cpu"], "50m");
    if let Some([shares, ..]) = kernel(&waiting, Some("c0")) {
        assert_eq!(shares, 51);
    }
    // What others give back goes to those who wait.
    resize(cluster, "filler", &to(100));
    let given = wait_resized(cluster, "small");
    assert_eq!(identities(&given), identities(&waiting));
    // What was asked for while no agent was there is done by the next.
    cluster.nodes[1].kill();
    resize(cluster, "small", &to(250));
    cluster.nodes[1].spawn();
    let given = wait_resized(cluster, "small");
    assert_eq!(identities(&given), identities(&waiting));
    if let Some([shares, ..]) = kernel(&given, Some("c0")) {
        assert_eq!(shares, 256);
    }
    cluster.ctl(&["delete", "pod", "small", "filler"]).ok();
}
