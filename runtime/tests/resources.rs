//! Limits, namespaces, mounts, statistics and events, for real: needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod helpers;

use std::time::{Duration, Instant};

use helpers::{BUSYBOX, Member, Node, can_run, sandbox_config, shell};
use k8s_cri::v1::*;

fn with_resources(mut config: ContainerConfig, resources: LinuxContainerResources) -> ContainerConfig {
    config.linux.as_mut().unwrap().resources = Some(resources);
    config
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_over_its_memory_should_be_killed_and_say_so() {
    if !can_run() {
        return;
    }
    let mut node = Node::with_busybox().await;
    let sandbox = node.sandbox("oom").await;
    let limit =
        LinuxContainerResources { memory_limit_in_bytes: 32 << 20, oom_score_adj: 900, ..Default::default() };
    let hungry = with_resources(shell("exec tail /dev/zero"), limit);
    let id = node.run_with(&sandbox, hungry).await;
    let status = node.exited(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"));
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_should_be_set_and_changed_while_running() {
    if !can_run() {
        return;
    }
    let mut node = Node::with_busybox().await;
    let sandbox = node.sandbox("limits").await;
    let limits = LinuxContainerResources {
        cpu_shares: 512,
        cpu_quota: 50_000,
        cpu_period: 100_000,
        memory_limit_in_bytes: 64 << 20,
        ..Default::default()
    };
    let id = node.run_with(&sandbox, with_resources(shell("sleep 1000"), limits)).await;
    let group = |file: &str| {
        let v1 = format!(
            "/sys/fs/cgroup/{}/{}-pods/{id}/{file}",
            file.split('.').next().unwrap(),
            node.config.instance
        );
        std::fs::read_to_string(v1).map(|text| text.trim().to_owned())
    };
    if group("cpu.shares").is_err() {
        eprintln!("not checked: this host has cgroup version 2");
    } else {
        assert_eq!(group("cpu.shares").unwrap(), "512");
        assert_eq!(group("cpu.cfs_quota_us").unwrap(), "50000");
        assert_eq!(group("memory.limit_in_bytes").unwrap(), (64u64 << 20).to_string());
    }
    let changed =
        LinuxContainerResources { cpu_quota: 80_000, memory_limit_in_bytes: 96 << 20, ..Default::default() };
    let request = UpdateContainerResourcesRequest {
        container_id: id.clone(),
        linux: Some(changed),
        ..Default::default()
    };
    let mut cri = node.cri.clone();
    cri.update_container_resources(request).await.unwrap();
    if group("cpu.shares").is_ok() {
        assert_eq!(group("cpu.cfs_quota_us").unwrap(), "80000");
        assert_eq!(group("memory.limit_in_bytes").unwrap(), (96u64 << 20).to_string());
    }
    let resources = node.status(&id).await.resources.unwrap().linux.unwrap();
    assert_eq!((resources.cpu_shares, resources.cpu_quota), (512, 80_000));
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_of_a_pod_should_share_what_pods_share() {
    if !can_run() {
        return;
    }
    let mut node = Node::with_busybox().await;
    let mut config = sandbox_config("shared", node.directory.path());
    let linux = config.linux.as_mut().unwrap();
    linux.security_context.as_mut().unwrap().namespace_options =
        Some(NamespaceOption { pid: NamespaceMode::Pod.into(), ..NamespaceOption::default() });
    linux.sysctls.insert("net.ipv4.ip_unprivileged_port_start".into(), "0".into());
    linux.sysctls.insert("kernel.shm_rmid_forced".into(), "1".into());
    let sandbox = node.sandbox_with(config).await;
    let in_pod = |script: &str| {
        let mut config = shell(script);
        let security = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
        security.namespace_options =
            Some(NamespaceOption { pid: NamespaceMode::Pod.into(), ..Default::default() });
        config
    };
    let first =
        node.run_with(&sandbox, in_pod("touch /dev/shm/here; echo hello | nc -l -p 7000; sleep 1000")).await;
    let second = node.run_with(&sandbox, in_pod("sleep 2000")).await;
    assert_eq!(node.sh(&second, "ls /dev/shm; hostname; cat /etc/hostname").await, "here\nshared\nshared");
    assert_eq!(
        node.sh(
            &second,
            "for i in $(seq 50); do nc 127.0.0.1 7000 2>/dev/null </dev/null && break; usleep 100000; done"
        )
        .await,
        "hello"
    );
    let processes = node.sh(&first, "ps").await;
    assert!(processes.contains("sleep 2000") && processes.contains("sleep 1000"), "{processes}");
    assert_eq!(node.sh(&first, "cat /proc/1/comm").await, "pause");
    // Nothing is to be had from the first process, not even by one who may trace it.
    let mut tracer =
        in_pod("ls /proc/1/root/ && grep -E '^(Uid|CapEff|NoNewPrivs)' /proc/1/status && ls /proc/1/fd");
    let security = tracer.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    security.capabilities =
        Some(Capability { add_capabilities: vec!["SYS_PTRACE".into()], ..Capability::default() });
    let (code, seen) = node.output_of(&sandbox, tracer).await;
    assert_eq!(code, 0, "{seen}");
    assert_eq!(seen, "Uid:\t65535\t65535\t65535\t65535\nCapEff:\t0000000000000000\nNoNewPrivs:\t1");
    assert_eq!(
        node.sh(&first, "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shm_rmid_forced")
            .await,
        "0\n1"
    );
    let resolv = node.sh(&first, "cat /etc/resolv.conf").await;
    assert_eq!(resolv, "search svc.cluster.local\nnameserver 10.96.0.10\noptions ndots:5");
    // The end of one leaves the other alone.
    node.cri.stop_container(StopContainerRequest { container_id: first.clone(), timeout: 0 }).await.unwrap();
    assert_eq!(node.sh(&second, "echo alive").await, "alive");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mounts_should_be_where_and_as_they_are_asked_for() {
    if !can_run() {
        return;
    }
    let mut node = Node::with_busybox().await;
    let sandbox = node.sandbox("mounts").await;
    let volume = node.directory.path().join("volume");
    std::fs::create_dir_all(volume.join("inner")).unwrap();
    std::fs::write(volume.join("file"), "content").unwrap();
    let mount = |container: &str, host: &std::path::Path, readonly: bool| Mount {
        container_path: container.into(),
        host_path: host.display().to_string(),
        readonly,
        ..Mount::default()
    };
    let mut config = shell(
        "cat /v/file /etc/hosts; echo new >/v/written; echo x 2>/dev/null >/v/ro/x || echo readonly; ls /v/made",
    );
    std::fs::write(node.directory.path().join("hosts"), "\nhosts\n").unwrap();
    config.mounts = vec![
        mount("/v/ro", &volume.join("inner"), true),
        mount("/v", &volume, false),
        mount("/etc/hosts", &node.directory.path().join("hosts"), true),
        mount("/v/made", &node.directory.path().join("did-not-exist"), false),
    ];
    config.working_dir = "/not/there/yet".into();
    let (code, output) = node.output_of(&sandbox, config).await;
    assert_eq!((code, output.as_str()), (0, "content\nhosts\nreadonly"));
    assert_eq!(std::fs::read_to_string(volume.join("written")).unwrap(), "new\n");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_should_be_mounted_as_volumes_that_nobody_writes_to_or_gets_out_of() {
    if !can_run() {
        return;
    }
    let mut node = Node::with_busybox().await;
    std::fs::write(node.directory.path().join("secret"), "of the host").unwrap();
    let secret = node.directory.path().join("secret").display().to_string();
    let model = [
        ("data", Member::Directory),
        ("data/model", Member::File("weights")),
        ("data/link", Member::Link("/data/model")),
        ("data/out", Member::Link(&secret)),
    ];
    let archive = helpers::archive_named("model:v1", &model);
    node.runtime.as_ref().unwrap().load(std::io::Cursor::new(archive)).await.unwrap();
    let sandbox = node.sandbox("images").await;
    let image = |part: &str| {
        let part = Some(("gantry.image-sub-path".to_string(), part.to_string())).filter(|_| !part.is_empty());
        Some(ImageSpec {
            image: "docker.io/library/model:v1".into(),
            annotations: part.into_iter().collect(),
            ..ImageSpec::default()
        })
    };
    let mount = |path: &str, part: &str| Mount {
        container_path: path.into(),
        image: image(part),
        ..Mount::default()
    };
    let mut config = shell(
        "cat /whole/data/model /part/model /file /linked; touch /whole/x 2>/dev/null || touch /part/x 2>/dev/null || echo readonly; sleep 1000",
    );
    config.mounts = vec![
        mount("/whole", ""),
        mount("/part", "data"),
        mount("/file", "data/model"),
        mount("/linked", "data/link"),
    ];
    let id = node.run_with(&sandbox, config.clone()).await;
    while node.log(&id).await.is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(node.sh(&id, "cat /file; ls /whole/data").await, "weightslink\nmodel\nout");
    // What the image is removed under goes on being there.
    let image_spec = ImageSpec { image: "docker.io/library/model:v1".into(), ..ImageSpec::default() };
    let remove = RemoveImageRequest { image: Some(image_spec) };
    node.images.remove_image(remove).await.unwrap();
    assert_eq!(node.sh(&id, "cat /whole/data/model").await, "weights");
    let said = node.log(&id).await;
    assert!(said.last().unwrap().ends_with(" weightsweightsweightsweightsreadonly"), "{said:?}");
    config.mounts = vec![mount("/gone", "")];
    let error = node.create(&sandbox, config.clone()).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::NotFound, "{error:?}");
    let archive = helpers::archive_named("model:v1", &model);
    node.runtime.as_ref().unwrap().load(std::io::Cursor::new(archive)).await.unwrap();
    for part in ["nowhere", "data/out"] {
        config.mounts = vec![mount("/x", part)];
        let error = node.create(&sandbox, config.clone()).await.unwrap_err();
        assert!(error.message().contains(&format!("the image has no {part:?}")), "{error:?}");
    }
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_privileged_pod_on_the_host_should_see_the_host() {
    if !can_run() {
        return;
    }
    let mut node = Node::with_busybox().await;
    let host = NamespaceOption {
        network: NamespaceMode::Node.into(),
        pid: NamespaceMode::Node.into(),
        ipc: NamespaceMode::Node.into(),
        ..NamespaceOption::default()
    };
    let mut config = sandbox_config("host", node.directory.path());
    config.linux.as_mut().unwrap().security_context.as_mut().unwrap().namespace_options = Some(host.clone());
    let sandbox = node.sandbox_with(config).await;
    let mut config = shell(
        "readlink /proc/self/ns/net /proc/self/ns/pid /proc/self/ns/ipc; [ -e /dev/tty0 -o -e /dev/vda -o -e /dev/kmsg ] && echo devices",
    );
    let security = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    security.privileged = true;
    security.namespace_options = Some(host);
    config.command = vec![
        "busybox".into(),
        "sh".into(),
        "-c".into(),
        config.command[2].replace("readlink", "busybox readlink"),
    ];
    // One at a time: busybox prints only the first.
    config.command[3] = config.command[3].replace(
        "busybox readlink /proc/self/ns/net /proc/self/ns/pid /proc/self/ns/ipc",
        "for n in net pid ipc; do busybox readlink /proc/self/ns/$n; done",
    );
    let (_, output) = node.output_of(&sandbox, config).await;
    let own = |name: &str| std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap().display().to_string();
    assert_eq!(output, format!("{}\n{}\n{}\ndevices", own("net"), own("pid"), own("ipc")));
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_pods_at_once_should_not_wait_for_each_other() {
    if !can_run() {
        return;
    }
    let mut node = Node::with_busybox().await;
    let started = Instant::now();
    let pods = (0..50).map(|number| {
        let (mut cri, directory) = (node.cri.clone(), node.directory.path().to_owned());
        async move {
            let config = Some(sandbox_config(&format!("many-{number}"), &directory));
            let run = RunPodSandboxRequest { config, runtime_handler: String::new() };
            let pod_sandbox_id = cri.run_pod_sandbox(run).await.unwrap().into_inner().pod_sandbox_id;
            let create = CreateContainerRequest {
                pod_sandbox_id,
                config: Some(shell("sleep 1000")),
                sandbox_config: None,
            };
            let container_id = cri.create_container(create).await.unwrap().into_inner().container_id;
            cri.start_container(StartContainerRequest { container_id }).await.unwrap();
        }
    });
    futures::future::join_all(pods).await;
    let elapsed = started.elapsed();
    eprintln!("50 pods running after {elapsed:?}");
    assert!(elapsed < Duration::from_secs(15), "{elapsed:?}");
    let running = ListContainersRequest {
        filter: Some(ContainerFilter {
            state: Some(ContainerStateValue { state: ContainerState::ContainerRunning.into() }),
            ..ContainerFilter::default()
        }),
    };
    assert_eq!(node.cri.list_containers(running).await.unwrap().into_inner().containers.len(), 50);
    let started = Instant::now();
    node.restart().await;
    eprintln!("taken over after {:?}", started.elapsed());
    let started = Instant::now();
    node.runtime.take().unwrap().destroy_all().await.unwrap();
    eprintln!("destroyed after {:?}", started.elapsed());
    node.assert_nothing_left();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_should_tell_a_containers_life_and_statistics_its_use() {
    if !can_run() {
        return;
    }
    let mut node = Node::with_busybox().await;
    let mut events = node.cri.get_container_events(GetEventsRequest {}).await.unwrap().into_inner();
    let sandbox = node.sandbox("events").await;
    let id = node.run(&sandbox, "dd if=/dev/zero of=/written bs=1M count=3 2>/dev/null; sleep 1000").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let request = ContainerStatsRequest { container_id: id.clone() };
    let stats = node.cri.container_stats(request).await.unwrap().into_inner().stats.unwrap();
    assert!(stats.cpu.unwrap().usage_core_nano_seconds.unwrap().value > 0);
    assert!(stats.memory.unwrap().working_set_bytes.unwrap().value > 0);
    assert!(stats.writable_layer.unwrap().used_bytes.unwrap().value >= 3 << 20);
    let pods = node
        .cri
        .list_pod_sandbox_stats(ListPodSandboxStatsRequest { filter: None })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(pods.stats[0].linux.as_ref().unwrap().containers.len(), 1);
    node.cri.stop_container(StopContainerRequest { container_id: id.clone(), timeout: 0 }).await.unwrap();
    node.cri.remove_container(RemoveContainerRequest { container_id: id.clone() }).await.unwrap();
    let mut seen = Vec::new();
    while seen.last() != Some(&ContainerEventType::ContainerDeletedEvent) {
        let event =
            tokio::time::timeout(Duration::from_secs(5), events.message()).await.unwrap().unwrap().unwrap();
        if event.container_id == id {
            seen.push(event.container_event_type());
        }
    }
    use ContainerEventType as Event;
    assert_eq!(
        seen,
        [
            Event::ContainerCreatedEvent,
            Event::ContainerStartedEvent,
            Event::ContainerStoppedEvent,
            Event::ContainerDeletedEvent
        ]
    );
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_should_be_listed_and_removed_with_their_layers() {
    if !can_run() {
        return;
    }
    let mut node = Node::with_busybox().await;
    let spec = |image: &str| Some(ImageSpec { image: image.into(), ..ImageSpec::default() });
    for name in ["busybox:test", BUSYBOX] {
        let status =
            node.images.image_status(ImageStatusRequest { image: spec(name), verbose: false }).await.unwrap();
        assert_eq!(status.into_inner().image.unwrap().repo_tags, [BUSYBOX]);
    }
    let missing = ImageStatusRequest { image: spec("nothing:here"), verbose: false };
    assert!(node.images.image_status(missing).await.unwrap().into_inner().image.is_none());
    let sandbox = node.sandbox("images").await;
    let id = node.run(&sandbox, "sleep 1000").await;
    node.images.remove_image(RemoveImageRequest { image: spec(BUSYBOX) }).await.unwrap();
    node.images.remove_image(RemoveImageRequest { image: spec(BUSYBOX) }).await.unwrap();
    let layers = || std::fs::read_dir(node.config.root.join("layers")).unwrap().count();
    assert_eq!(layers(), 1, "a running container keeps its layers");
    assert_eq!(node.sh(&id, "echo fine").await, "fine");
    node.cri.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: sandbox }).await.unwrap();
    node.restart().await;
    assert_eq!(std::fs::read_dir(node.config.root.join("layers")).unwrap().count(), 0);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_should_be_rotated_without_losing_a_line() {
    if !can_run() {
        return;
    }
    let mut node = Node::with_busybox().await;
    let sandbox = node.sandbox("rotate").await;
    let id = node.run(&sandbox, "for i in $(seq 1 300); do echo line $i; usleep 3000; done").await;
    let path = node.status(&id).await.log_path;
    for turn in 1..4 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        std::fs::rename(&path, format!("{path}.{turn}")).unwrap();
        node.cri.reopen_container_log(ReopenContainerLogRequest { container_id: id.clone() }).await.unwrap();
    }
    node.exited(&id).await;
    let mut lines = Vec::new();
    for name in [format!("{path}.1"), format!("{path}.2"), format!("{path}.3"), path.clone()] {
        let text = std::fs::read_to_string(name).unwrap();
        lines.extend(text.lines().map(|line| line.rsplit(' ').next().unwrap().parse::<u32>().unwrap()));
    }
    assert_eq!(lines, (1..=300).collect::<Vec<_>>());
    node.finish().await;
}
