//! What containers must not be able to do, tried for real: needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod helpers;

use std::time::Duration;

use helpers::{Member, Node, can_run, shell};
use k8s_cri::v1::*;

fn security(config: &mut ContainerConfig) -> &mut LinuxContainerSecurityContext {
    config.linux.as_mut().unwrap().security_context.as_mut().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_default_seccomp_profile_should_bind_containers_and_programs_run_in_them() {
    if !can_run() {
        return;
    }
    let mut node = Node::with_busybox().await;
    let sandbox = node.sandbox("seccomp").await;
    let script = "grep Seccomp: /proc/self/status; unshare -U true 2>/dev/null && echo made a namespace || echo denied";
    let (_, filtered) = node.output_of(&sandbox, shell(script)).await;
    assert_eq!(filtered, "Seccomp:\t2\ndenied");
    let mut unconfined = shell(script);
    security(&mut unconfined).seccomp = None;
    let (_, free) = node.output_of(&sandbox, unconfined).await;
    assert_eq!(free, "Seccomp:\t0\nmade a namespace");
    // The same with no_new_privs, where the filter goes in at another moment.
    let mut strict = shell("sleep 1000");
    security(&mut strict).no_new_privs = true;
    let strict = node.run_with(&sandbox, strict).await;
    let usual = node.run(&sandbox, "sleep 1000").await;
    for id in [strict, usual] {
        assert_eq!(node.sh(&id, script).await, "Seccomp:\t2\ndenied");
    }
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_profile_of_the_node_should_be_enforced() {
    if !can_run() {
        return;
    }
    let mut node = Node::with_busybox().await;
    let sandbox = node.sandbox("localhost").await;
    let profile = node.directory.path().join("no-mkdir.json");
    let rules = serde_json::json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38 }],
    });
    std::fs::write(&profile, rules.to_string()).unwrap();
    let mut config = shell("busybox mkdir /tmp/x 2>/dev/null && echo made || echo denied");
    security(&mut config).seccomp = Some(SecurityProfile {
        profile_type: security_profile::ProfileType::Localhost.into(),
        localhost_ref: profile.display().to_string(),
    });
    assert_eq!(node.output_of(&sandbox, config.clone()).await.1, "denied");
    // Programs run later as well, with the error that the profile names (38: there is no such call).
    let mut steady = config.clone();
    steady.command = vec!["sleep".into(), "1000".into()];
    let steady = node.run_with(&sandbox, steady).await;
    let output = node.exec(&steady, &["busybox", "mkdir", "/tmp/y"]).await;
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(output.exit_code == 1 && words.contains("Function not implemented"), "{words}");
    security(&mut config).seccomp.as_mut().unwrap().localhost_ref = "/no/such/profile".into();
    assert!(node.create(&sandbox, config).await.unwrap_err().message().contains("/no/such/profile"));
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn capabilities_should_be_the_default_ones_dropped_and_added_as_asked() {
    if !can_run() {
        return;
    }
    let mut node = Node::with_busybox().await;
    let sandbox = node.sandbox("caps").await;
    let script = "grep -E 'Cap(Eff|Bnd|Amb)|NoNewPrivs' /proc/self/status";
    let (_, usual) = node.output_of(&sandbox, shell(script)).await;
    assert_eq!(
        usual,
        "CapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000\nNoNewPrivs:\t0"
    );
    let mut dropped = shell(script);
    security(&mut dropped).no_new_privs = true;
    security(&mut dropped).run_as_user = Some(Int64Value { value: 1000 });
    security(&mut dropped).capabilities = Some(Capability {
        drop_capabilities: vec!["ALL".into()],
        add_capabilities: vec!["NET_BIND_SERVICE".into()],
        ..Capability::default()
    });
    let (_, dropped) = node.output_of(&sandbox, dropped).await;
    assert_eq!(
        dropped,
        "CapEff:\t0000000000000000\nCapBnd:\t0000000000000400\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1"
    );
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_root_and_masked_paths_should_hold() {
    if !can_run() {
        return;
    }
    let mut node = Node::with_busybox().await;
    let sandbox = node.sandbox("readonly").await;
    let mut config = shell(
        "touch /x 2>/dev/null || echo root; echo 1 2>/dev/null >/proc/sys/vm/drop_caches || echo sysctl; \
         wc -c </proc/interrupts; wc -c </proc/timer_list; ls /sys/firmware | wc -l; touch /dev/shm/y && echo shm",
    );
    security(&mut config).readonly_rootfs = true;
    let (_, output) = node.output_of(&sandbox, config).await;
    assert_eq!(output, "root\nsysctl\n0\n0\n0\nshm");
    node.finish().await;
}

/// The shape of CVE-2025-31133 and CVE-2025-52881: the image makes `/dev/null`, `/proc` or what is masked a link, so that
/// masking or a write to `/proc` goes elsewhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_in_an_image_should_not_redirect_masks_nor_writes_to_proc() {
    if !can_run() {
        return;
    }
    let mut node = Node::start().await;
    let victim = node.directory.path().join("victim");
    std::fs::write(&victim, "untouched").unwrap();
    let victim_path = victim.display().to_string();
    let attacks: Vec<Vec<(&str, Member<'_>)>> = vec![
        vec![("dev", Member::Directory), ("dev/null", Member::Link("/proc/sys/kernel/core_pattern"))],
        vec![("proc", Member::Link("/tmp"))],
        vec![("proc", Member::Link(&victim_path))],
        vec![("sys", Member::Link("/")), ("dev", Member::Link("/proc"))],
        vec![
            ("dev", Member::Directory),
            ("dev/shm", Member::Link("/proc/self")),
            ("dev/pts", Member::Link("/")),
        ],
    ];
    for (number, members) in attacks.iter().enumerate() {
        let archive = helpers::archive_named(&format!("attack:v{number}"), &clone_members(members));
        node.runtime.as_ref().unwrap().load(std::io::Cursor::new(archive)).await.unwrap();
    }
    let core_pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let sandbox = node.sandbox("attack").await;
    for number in 0..attacks.len() {
        let mut config = shell(
            "echo pwned 2>/dev/null >/proc/sys/kernel/core_pattern; echo pwned 2>/dev/null >/dev/null; \
             wc -c </proc/timer_list; ls /proc/1/root/bin >/dev/null && echo proc is proc",
        );
        config.image = Some(ImageSpec { image: format!("attack:v{number}"), ..ImageSpec::default() });
        let id = node.create(&sandbox, config).await.unwrap();
        // Either it is refused, or it runs with everything in its place.
        if node.start_container(&id).await.is_ok() {
            node.exited(&id).await;
            let log = node.log(&id).await;
            assert_eq!(log, ["stdout F 0", "stdout F proc is proc"], "attack {number}");
        }
        assert_eq!(
            std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(),
            core_pattern,
            "attack {number}"
        );
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "untouched", "attack {number}");
    }
    node.finish().await;
}

fn clone_members<'a>(members: &[(&'a str, Member<'a>)]) -> Vec<(&'a str, Member<'a>)> {
    members
        .iter()
        .map(|(path, member)| {
            let member = match member {
                Member::File(content) => Member::File(content),
                Member::Link(target) => Member::Link(target),
                Member::Directory => Member::Directory,
            };
            (*path, member)
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_to_accounts_should_not_lead_to_those_of_the_host() {
    if !can_run() {
        return;
    }
    let mut node = Node::start().await;
    let hostile = [
        ("etc/passwd", Member::Link("/../../../../etc/passwd")),
        ("etc/group", Member::Link("/proc/1/environ")),
    ];
    let archive = helpers::archive_named("accounts:v1", &hostile);
    node.runtime.as_ref().unwrap().load(std::io::Cursor::new(archive)).await.unwrap();
    let sandbox = node.sandbox("accounts").await;
    let mut config = shell("true");
    config.image = Some(ImageSpec { image: "accounts:v1".into(), ..ImageSpec::default() });
    security(&mut config).run_as_username = "daemon".into();
    let error = node.create(&sandbox, config).await.unwrap_err();
    assert!(error.message().contains("unable to find user daemon"), "{error:?}");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_run_later_should_see_nothing_of_the_host() {
    if !can_run() {
        return;
    }
    let mut node = Node::with_busybox().await;
    let sandbox = node.sandbox("inside").await;
    let id = node.run(&sandbox, "sleep 1000").await;
    // Only the standard streams (and the listing's own) are open, and only the container's processes are there.
    assert_eq!(node.sh(&id, "ls /proc/self/fd").await, "0\n1\n2\n3");
    assert_eq!(node.sh(&id, "cat /proc/1/cmdline").await.replace('\0', " ").trim(), "sleep 1000");
    let cgroup = node.sh(&id, "cat /proc/self/cgroup | grep memory || cat /proc/self/cgroup").await;
    assert!(cgroup.contains(&id), "{cgroup}");
    node.finish().await;
}

/// The shape of CVE-2019-5736: the program that runs the containers must not be writable through a container, nor its
/// secrets readable to others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shims_program_and_files_should_be_out_of_reach() {
    if !can_run() {
        return;
    }
    use std::os::unix::fs::PermissionsExt;
    let mut node = Node::with_busybox().await;
    let sandbox = node.sandbox("shim").await;
    let pid =
        std::fs::read_to_string(node.config.state.join("sandboxes").join(&sandbox).join("shim.pid")).unwrap();
    let executable = format!("/proc/{}/exe", pid.trim());
    // Busy now, and on a read-only mount for when nobody runs it any more.
    assert!(std::fs::OpenOptions::new().write(true).open(&executable).is_err());
    let mount = nix::sys::statvfs::statvfs(&std::fs::read_link(&executable).unwrap()).unwrap();
    assert!(mount.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY));
    assert_eq!(std::fs::read(format!("/proc/{}/environ", pid.trim())).unwrap(), b"");
    for directory in [&node.config.state, &node.config.root] {
        assert_eq!(std::fs::metadata(directory).unwrap().permissions().mode() & 0o777, 0o700);
    }
    let id = node.run(&sandbox, "umask; sleep 1000").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(node.log(&id).await, ["stdout F 0022"]);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_done_should_be_refused_rather_than_passed_over() {
    if !can_run() {
        return;
    }
    let mut node = Node::with_busybox().await;
    let mut config = helpers::sandbox_config("users", node.directory.path());
    let options =
        config.linux.as_mut().unwrap().security_context.as_mut().unwrap().namespace_options.as_mut();
    options.unwrap().userns_options =
        Some(UserNamespace { mode: NamespaceMode::Pod.into(), uids: Vec::new(), gids: Vec::new() });
    let request = RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() };
    let error = node.cri.run_pod_sandbox(request).await.unwrap_err();
    assert!(
        error.code() == tonic::Code::InvalidArgument && error.message().contains("user namespaces"),
        "{error:?}"
    );
    let sandbox = node.sandbox("mounts").await;
    let mount = Mount {
        container_path: "/x".into(),
        host_path: "/tmp".into(),
        readonly: true,
        recursive_read_only: true,
        ..Mount::default()
    };
    let error =
        node.create(&sandbox, ContainerConfig { mounts: vec![mount], ..shell("true") }).await.unwrap_err();
    assert!(error.message().contains("recursive read-only mounts"), "{error:?}");
    node.finish().await;
}
