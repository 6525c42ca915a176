//! Containers from image to exit, for real: needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod helpers;

use std::time::{Duration, Instant};

use helpers::{Node, can_run, shell};
use k8s_cri::v1::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_should_run_log_and_exit_with_its_code() {
    if !can_run() {
        return;
    }
    let mut node = Node::with_busybox().await;
    let sandbox = node.sandbox("logs").await;
    let id = node.run(&sandbox, "echo out; echo err >&2; echo $FROM_IMAGE; exit 7").await;
    let status = node.exited(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (7, "Error"));
    assert!(status.started_at > 0 && status.finished_at >= status.started_at);
    let mut log = node.log(&id).await;
    log.sort();
    assert_eq!(log, ["stderr F err", "stdout F out", "stdout F yes"]);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_should_be_running_well_within_a_tenth_of_a_second() {
    if !can_run() {
        return;
    }
    let mut node = Node::with_busybox().await;
    node.sandbox("warm").await;
    let started = Instant::now();
    let sandbox = node.sandbox("fast").await;
    let made = started.elapsed();
    let id = node.create(&sandbox, shell("sleep 1000")).await.unwrap();
    let created = started.elapsed();
    node.start_container(&id).await.unwrap();
    let elapsed = started.elapsed();
    eprintln!("sandbox {made:?}, created {created:?}, running {elapsed:?}");
    assert_eq!(node.status(&id).await.state(), ContainerState::ContainerRunning);
    // Tests run in parallel, unoptimised, on busy machines.
    assert!(elapsed < Duration::from_secs(1), "{elapsed:?}");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_should_run_in_a_container_as_its_own_user_and_time_out() {
    if !can_run() {
        return;
    }
    let mut node = Node::with_busybox().await;
    let sandbox = node.sandbox("exec").await;
    let mut config = shell("sleep 1000");
    let security = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
    security.run_as_username = "web".into();
    let id = node.run_with(&sandbox, config).await;
    assert_eq!(
        node.sh(&id, "id -u; id -g; id -G; hostname; echo $HOME; pwd").await,
        "33\n34\n34 50\nexec\n/var/www\n/"
    );
    assert_eq!(node.exec(&id, &["sh", "-c", "exit 42"]).await.exit_code, 42);
    let output = node.exec(&id, &["sh", "-c", "echo no >&2; kill -9 $$"]).await;
    assert_eq!((output.exit_code, output.stderr.as_slice()), (137, &b"no\n"[..]));
    let request = |cmd: &[&str]| ExecSyncRequest {
        container_id: id.clone(),
        cmd: cmd.iter().map(|arg| (*arg).to_owned()).collect(),
        timeout: 1,
    };
    let missing = node.cri.exec_sync(request(&["no-such-program"])).await.unwrap_err();
    assert!(missing.message().contains("executable file not found in $PATH"), "{missing:?}");
    let late = node.cri.exec_sync(request(&["sleep", "100"])).await.unwrap_err();
    assert_eq!(late.code(), tonic::Code::DeadlineExceeded);
    // What did not end in time has been killed, and nothing in the background holds up the answer.
    assert_eq!(node.sh(&id, "ps | grep -c '[s]leep 100$'; true").await, "0");
    let started = Instant::now();
    assert_eq!(node.sh(&id, "sleep 5 & echo there").await, "there");
    assert!(started.elapsed() < Duration::from_secs(4));
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_should_use_the_signal_of_the_image_and_then_kill() {
    if !can_run() {
        return;
    }
    let mut node = Node::with_busybox().await;
    let sandbox = node.sandbox("stop").await;
    let polite = node.run(&sandbox, "trap 'echo quit; exit 3' QUIT; while true; do sleep 0.1; done").await;
    let stubborn = node.run(&sandbox, "trap '' QUIT TERM; while true; do sleep 0.1; done").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let started = Instant::now();
    node.cri
        .stop_container(StopContainerRequest { container_id: polite.clone(), timeout: 20 })
        .await
        .unwrap();
    assert!(started.elapsed() < Duration::from_secs(10));
    assert_eq!(node.status(&polite).await.exit_code, 3);
    assert_eq!(node.log(&polite).await, ["stdout F quit"]);
    node.cri
        .stop_container(StopContainerRequest { container_id: stubborn.clone(), timeout: 1 })
        .await
        .unwrap();
    assert_eq!(node.status(&stubborn).await.exit_code, 137);
    // All of it again, and of what does not exist.
    for id in [polite.as_str(), "does-not-exist"] {
        node.cri.stop_container(StopContainerRequest { container_id: id.into(), timeout: 1 }).await.unwrap();
        node.cri.remove_container(RemoveContainerRequest { container_id: id.into() }).await.unwrap();
        node.cri.remove_container(RemoveContainerRequest { container_id: id.into() }).await.unwrap();
    }
    for _ in 0..2 {
        node.cri.stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: sandbox.clone() }).await.unwrap();
    }
    for _ in 0..2 {
        node.cri
            .remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: sandbox.clone() })
            .await
            .unwrap();
    }
    assert!(
        node.cri
            .list_containers(ListContainersRequest { filter: None })
            .await
            .unwrap()
            .into_inner()
            .containers
            .is_empty()
    );
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_should_run_on_while_the_runtime_is_away_and_never_start_twice() {
    if !can_run() {
        return;
    }
    let mut node = Node::with_busybox().await;
    let sandbox = node.sandbox("recovery").await;
    let steady = node.run(&sandbox, "echo started; sleep 1000").await;
    let brief = node.run(&sandbox, "echo started; sleep 0.5; exit 9").await;
    let created = node.create(&sandbox, shell("echo started")).await.unwrap();
    let before = node.status(&steady).await;
    node.restart().await;
    let after = node.status(&steady).await;
    assert_eq!((after.state(), after.started_at), (ContainerState::ContainerRunning, before.started_at));
    assert_eq!(node.log(&steady).await, ["stdout F started"]);
    assert_eq!(node.exited(&brief).await.exit_code, 9);
    assert_eq!(node.status(&created).await.state(), ContainerState::ContainerCreated);
    node.start_container(&created).await.unwrap();
    assert_eq!(node.exited(&created).await.exit_code, 0);
    assert!(node.start_container(&created).await.is_err());
    assert_eq!(node.sh(&steady, "echo still here").await, "still here");
    // An exit that happens while nobody is there is known afterwards.
    node.restart().await;
    assert_eq!(node.status(&brief).await.exit_code, 9);
    assert_eq!(node.status(&created).await.state(), ContainerState::ContainerExited);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_of_a_killed_shim_should_be_seen_as_exited() {
    if !can_run() {
        return;
    }
    let mut node = Node::with_busybox().await;
    let (first, second) = (node.sandbox("orphan").await, node.sandbox("away").await);
    let watched = node.run(&first, "sleep 1000").await;
    let unwatched = node.run(&second, "sleep 1000").await;
    kill_shim(&node, &first);
    assert_eq!(node.exited(&watched).await.exit_code, 137);
    let request = PodSandboxStatusRequest { pod_sandbox_id: first, verbose: false };
    let status = node.cri.pod_sandbox_status(request).await.unwrap().into_inner().status.unwrap();
    assert_eq!(status.state(), PodSandboxState::SandboxNotready);
    assert_eq!(node.status(&unwatched).await.state(), ContainerState::ContainerRunning);
    node.restart().await;
    kill_shim(&node, &second);
    node.restart().await;
    assert_eq!(node.exited(&unwatched).await.state(), ContainerState::ContainerExited);
    node.finish().await;
}

fn kill_shim(node: &Node, sandbox: &str) {
    let pid =
        std::fs::read_to_string(node.config.state.join("sandboxes").join(sandbox).join("shim.pid")).unwrap();
    let pid = nix::unistd::Pid::from_raw(pid.trim().parse().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_does_not_exist_should_fail_the_start_with_words() {
    if !can_run() {
        return;
    }
    let mut node = Node::with_busybox().await;
    let sandbox = node.sandbox("missing").await;
    let config = ContainerConfig { command: vec!["/no/such/program".into()], ..shell("") };
    let id = node.create(&sandbox, config).await.unwrap();
    let error = node.start_container(&id).await.unwrap_err();
    assert!(error.message().contains("/no/such/program"), "{error:?}");
    let status = node.status(&id).await;
    assert_eq!((status.state(), status.exit_code), (ContainerState::ContainerExited, 128));
    assert!(status.message.contains("/no/such/program"));
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_crash_left_half_made_should_be_gone_after_a_restart() {
    if !can_run() {
        return;
    }
    let mut node = Node::with_busybox().await;
    let sandbox = node.sandbox("whole").await;
    let id = node.run(&sandbox, "sleep 1000").await;
    let state = node.config.state.clone();
    // A sandbox whose making was cut short: its record says so. Its shim runs, its namespace is there.
    let broken = node.sandbox("half").await;
    let path = state.join("sandboxes").join(&broken).join("sandbox.json");
    let record = std::fs::read_to_string(&path).unwrap().replace("\"complete\":true", "\"complete\":false");
    std::fs::write(&path, record).unwrap();
    // Directories without records, a namespace of nobody, layers on their way.
    std::fs::create_dir(state.join("containers/stray")).unwrap();
    std::fs::create_dir(state.join("sandboxes/stray")).unwrap();
    std::fs::write(state.join("netns/stray"), "").unwrap();
    std::fs::create_dir_all(node.config.root.join("containers/stray/upper")).unwrap();
    std::fs::create_dir_all(node.config.root.join("ingest/stray/fs")).unwrap();
    node.restart().await;
    for path in [
        "containers/stray",
        "sandboxes/stray",
        "netns/stray",
        &format!("sandboxes/{broken}"),
        &format!("netns/{broken}"),
    ] {
        assert!(!state.join(path).exists(), "{path}");
    }
    for path in ["containers/stray", "ingest/stray"] {
        assert!(!node.config.root.join(path).exists(), "{path}");
    }
    let items =
        node.cri.list_pod_sandbox(ListPodSandboxRequest { filter: None }).await.unwrap().into_inner().items;
    assert_eq!(items.iter().map(|item| item.id.as_str()).collect::<Vec<_>>(), [sandbox.as_str()]);
    assert_eq!(node.sh(&id, "echo fine").await, "fine");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shims_should_be_made_again_after_their_maker_has_died_and_share_its_memory() {
    if !can_run() {
        return;
    }
    let mut node = Node::with_busybox().await;
    let first = node.sandbox("first").await;
    let id = node.run(&first, "sleep 1000").await;
    let maker = makers(&node);
    assert_eq!(maker.len(), 1);
    let kill =
        |pid: i32| nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    kill(maker[0]).unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let second = node.sandbox("second").await;
    assert_eq!(node.sh(&id, "echo fine").await, "fine");
    let status = PodSandboxStatusRequest { pod_sandbox_id: second.clone(), verbose: false };
    let status = node.cri.pod_sandbox_status(status).await.unwrap().into_inner().status.unwrap();
    assert_eq!(status.state(), PodSandboxState::SandboxReady);
    let shim =
        std::fs::read_to_string(node.config.state.join("sandboxes").join(&second).join("shim.pid")).unwrap();
    let memory = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", shim.trim())).unwrap();
    let own = memory.lines().find_map(|line| line.strip_prefix("Private_Dirty:")).unwrap().trim().to_owned();
    let own_kib: u64 = own.trim_end_matches(" kB").parse().unwrap();
    eprintln!("a shim has {own_kib} KiB of its own");
    assert!(own_kib < 2048, "{memory}");
    // It ends with the agent, the shims do not.
    node.restart().await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(makers(&node).is_empty());
    assert_eq!(node.sh(&id, "echo fine").await, "fine");
    node.finish().await;
}

fn makers(node: &Node) -> Vec<i32> {
    let state = node.config.state.display().to_string();
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    processes
        .filter(|process| {
            let read = |file: &str| std::fs::read_to_string(process.path().join(file)).unwrap_or_default();
            read("comm").trim() == "gantry-shims" && read("cmdline").contains(&state)
        })
        .filter_map(|process| process.file_name().to_string_lossy().parse().ok())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn much_use_should_leave_nothing_open_and_nobody_dead() {
    if !can_run() {
        return;
    }
    let mut node = Node::with_busybox().await;
    let sandbox = node.sandbox("busy").await;
    let id = node.run(&sandbox, "sleep 1000").await;
    let shim =
        std::fs::read_to_string(node.config.state.join("sandboxes").join(&sandbox).join("shim.pid")).unwrap();
    let open = |pid: &str| std::fs::read_dir(format!("/proc/{}/fd", pid.trim())).unwrap().count();
    let use_it = async |node: &mut Node, times: usize| {
        for _ in 0..times {
            assert_eq!(node.exec(&id, &["true"]).await.exit_code, 0);
            let brief = node.run(&sandbox, "echo x").await;
            node.exited(&brief).await;
            node.cri.remove_container(RemoveContainerRequest { container_id: brief }).await.unwrap();
        }
        // Ends are told before they are tidied up after.
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    use_it(&mut node, 3).await;
    let before = open(&shim);
    use_it(&mut node, 25).await;
    assert_eq!(open(&shim), before);
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", shim.trim())).unwrap();
    assert_eq!(children.split_whitespace().count(), 1, "only the container is left: {children}");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_should_start_with_no_signal_ignored_or_blocked() {
    if !can_run() {
        return;
    }
    let mut node = Node::with_busybox().await;
    let sandbox = node.sandbox("signals").await;
    // Signals 32 and 33 are the C library's own, which nobody can set.
    let script = "grep -E 'Sig(Blk|Ign)' /proc/self/status | busybox sed 's/[0-9a-f]\\{8\\}$/ &/; s/\\t.* /:/'; yes | head -n 1";
    let id = node.run(&sandbox, &format!("{script}; sleep 1000")).await;
    let expected = "SigBlk::00000000\nSigIgn::00000000\ny";
    let standard = |text: String| text.replace(":80000000", ":00000000");
    assert_eq!(standard(node.sh(&id, script).await), expected);
    for _ in 0..100 {
        if node.log(&id).await.len() == 3 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let log = node.log(&id).await.iter().map(|line| line[9..].to_owned()).collect::<Vec<_>>();
    assert_eq!(standard(log.join("\n")), expected);
    node.finish().await;
}
