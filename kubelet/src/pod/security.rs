//! Security contexts: the pod's and the container's become the runtime's.

use k8s_cri::v1::security_profile::ProfileType;
use k8s_cri::v1::{
    Capability, Int64Value, LinuxContainerSecurityContext, LinuxSandboxSecurityContext, NamespaceMode,
    NamespaceOption, SeLinuxOption, SecurityProfile, SupplementalGroupsPolicy,
};
use k8s_openapi::api::core::v1::{
    AppArmorProfile, Container, Pod, PodSecurityContext, SELinuxOptions, SeccompProfile, SecurityContext,
};

use super::spec::PodExt;

/// What containers do not see of /proc and /sys, unless they ask for it all.
const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
    "/proc/interrupts",
];
/// What they see and cannot change.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

fn pod_context(pod: &Pod) -> PodSecurityContext {
    pod.spec().security_context.clone().unwrap_or_default()
}

/// The namespaces that a pod's containers share.
pub fn namespaces(pod: &Pod) -> NamespaceOption {
    let spec = pod.spec();
    let node = |flag: Option<bool>, other: NamespaceMode| {
        if flag == Some(true) { NamespaceMode::Node } else { other }
    };
    let pid = if spec.share_process_namespace == Some(true) {
        NamespaceMode::Pod
    } else {
        NamespaceMode::Container
    };
    NamespaceOption {
        network: node(spec.host_network, NamespaceMode::Pod) as i32,
        pid: node(spec.host_pid, pid) as i32,
        ipc: node(spec.host_ipc, NamespaceMode::Pod) as i32,
        target_id: String::new(),
        userns_options: None,
    }
}

/// Lets a container see the processes of another one.
pub fn join_processes(security: &mut LinuxContainerSecurityContext, container_id: String) {
    if let Some(namespaces) = &mut security.namespace_options {
        namespaces.pid = NamespaceMode::Target as i32;
        namespaces.target_id = container_id;
    }
}

/// The groups that all of a pod's processes are in.
pub fn supplemental_groups(pod: &Pod) -> Vec<i64> {
    let context = pod_context(pod);
    let mut groups = context.supplemental_groups.unwrap_or_default();
    groups.extend(context.fs_group.filter(|group| !groups.contains(group)));
    groups
}

/// The sandbox's context.
pub fn of_sandbox(pod: &Pod, seccomp_root: &str) -> LinuxSandboxSecurityContext {
    let context = pod_context(pod);
    let privileged =
        pod.all_containers().any(|c| c.security_context.as_ref().and_then(|s| s.privileged) == Some(true));
    LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(pod)),
        selinux_options: context.se_linux_options.as_ref().map(selinux),
        run_as_user: context.run_as_user.map(|value| Int64Value { value }),
        run_as_group: context.run_as_user.and(context.run_as_group).map(|value| Int64Value { value }),
        supplemental_groups: supplemental_groups(pod),
        supplemental_groups_policy: groups_policy(&context),
        privileged,
        // The pause process needs no more than the runtime's default, whatever its pod asks for.
        seccomp: Some(SecurityProfile {
            profile_type: ProfileType::RuntimeDefault as i32,
            localhost_ref: String::new(),
        })
        .filter(|_| context.seccomp_profile.is_none())
        .or_else(|| Some(seccomp(context.seccomp_profile.as_ref(), seccomp_root))),
        ..LinuxSandboxSecurityContext::default()
    }
}

fn groups_policy(context: &PodSecurityContext) -> i32 {
    if context.supplemental_groups_policy.as_deref() == Some("Strict") {
        SupplementalGroupsPolicy::Strict as i32
    } else {
        SupplementalGroupsPolicy::Merge as i32
    }
}

/// Whom a container runs as, when its spec says so.
pub fn run_as_user(pod: &Pod, container: &Container) -> Option<i64> {
    let own = container.security_context.as_ref().and_then(|context| context.run_as_user);
    own.or_else(|| pod_context(pod).run_as_user)
}

/// Whether a container must not run as root.
pub fn must_not_be_root(pod: &Pod, container: &Container) -> bool {
    let own = container.security_context.as_ref().and_then(|context| context.run_as_non_root);
    own.or_else(|| pod_context(pod).run_as_non_root).unwrap_or(false)
}

/// One container's context. `image_user` is what the image says for a container whose spec says nothing.
pub fn of_container(
    pod: &Pod,
    container: &Container,
    image_user: (Option<i64>, &str),
    seccomp_root: &str,
) -> LinuxContainerSecurityContext {
    let pod_wide = pod_context(pod);
    let own: SecurityContext = container.security_context.clone().unwrap_or_default();
    let privileged = own.privileged.unwrap_or(false);
    let run_as_user = run_as_user(pod, container);
    let run_as_group = own.run_as_group.or(pod_wide.run_as_group);
    let unmasked = privileged || own.proc_mount.as_deref() == Some("Unmasked");
    let paths = |list: &[&str]| {
        if unmasked { Vec::new() } else { list.iter().map(ToString::to_string).collect() }
    };
    let (uid, name) = match run_as_user {
        Some(uid) => (Some(uid), String::new()),
        None => (image_user.0, if image_user.0.is_some() { String::new() } else { image_user.1.to_string() }),
    };
    LinuxContainerSecurityContext {
        capabilities: own.capabilities.as_ref().map(|capabilities| Capability {
            add_capabilities: capabilities.add.clone().unwrap_or_default(),
            drop_capabilities: capabilities.drop.clone().unwrap_or_default(),
            add_ambient_capabilities: Vec::new(),
        }),
        privileged,
        namespace_options: Some(namespaces(pod)),
        selinux_options: own.se_linux_options.as_ref().or(pod_wide.se_linux_options.as_ref()).map(selinux),
        run_as_user: uid.map(|value| Int64Value { value }),
        // A group without a user is an error to runtimes.
        run_as_group: run_as_group
            .filter(|_| uid.is_some() || !name.is_empty())
            .map(|value| Int64Value { value }),
        run_as_username: name,
        readonly_rootfs: own.read_only_root_filesystem.unwrap_or(false),
        supplemental_groups: supplemental_groups(pod),
        supplemental_groups_policy: groups_policy(&pod_wide),
        no_new_privs: own.allow_privilege_escalation == Some(false) && !privileged,
        masked_paths: paths(&MASKED),
        readonly_paths: paths(&READ_ONLY),
        seccomp: Some(seccomp(
            own.seccomp_profile.as_ref().or(pod_wide.seccomp_profile.as_ref()),
            seccomp_root,
        )),
        apparmor: own.app_armor_profile.as_ref().or(pod_wide.app_armor_profile.as_ref()).map(apparmor),
        ..LinuxContainerSecurityContext::default()
    }
}

fn selinux(options: &SELinuxOptions) -> SeLinuxOption {
    SeLinuxOption {
        user: options.user.clone().unwrap_or_default(),
        role: options.role.clone().unwrap_or_default(),
        r#type: options.type_.clone().unwrap_or_default(),
        level: options.level.clone().unwrap_or_default(),
    }
}

/// Without a profile there is no filter, as upstream's default has it.
fn seccomp(profile: Option<&SeccompProfile>, root: &str) -> SecurityProfile {
    let kind = profile.map_or("Unconfined", |profile| profile.type_.as_str());
    let (profile_type, localhost_ref) = match kind {
        "RuntimeDefault" => (ProfileType::RuntimeDefault, String::new()),
        "Localhost" => {
            let path = profile.and_then(|profile| profile.localhost_profile.as_deref()).unwrap_or_default();
            (ProfileType::Localhost, format!("{root}/{path}"))
        }
        _ => (ProfileType::Unconfined, String::new()),
    };
    SecurityProfile { profile_type: profile_type as i32, localhost_ref }
}

fn apparmor(profile: &AppArmorProfile) -> SecurityProfile {
    let (profile_type, localhost_ref) = match profile.type_.as_str() {
        "Localhost" => (ProfileType::Localhost, profile.localhost_profile.clone().unwrap_or_default()),
        "Unconfined" => (ProfileType::Unconfined, String::new()),
        _ => (ProfileType::RuntimeDefault, String::new()),
    };
    SecurityProfile { profile_type: profile_type as i32, localhost_ref }
}
