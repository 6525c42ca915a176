//! What the baseline level forbids: known ways to gain rights over the node.

use api::field::Look;
use serde_json::Value;

use super::checks::{Found, Subject, Violation, is_unconfined, named, plural, quoted, violation};

const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Settings that are the pod's alone, with the version since which they may be set.
const SYSCTLS: [(u16, &str); 12] = [
    (0, "kernel.shm_rmid_forced"),
    (0, "net.ipv4.ip_local_port_range"),
    (0, "net.ipv4.tcp_syncookies"),
    (0, "net.ipv4.ping_group_range"),
    (0, "net.ipv4.ip_unprivileged_port_start"),
    (27, "net.ipv4.ip_local_reserved_ports"),
    (29, "net.ipv4.tcp_keepalive_time"),
    (29, "net.ipv4.tcp_fin_timeout"),
    (29, "net.ipv4.tcp_keepalive_intvl"),
    (29, "net.ipv4.tcp_keepalive_probes"),
    (32, "net.ipv4.tcp_rmem"),
    (32, "net.ipv4.tcp_wmem"),
];

const APP_ARMOR_ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";
const SECCOMP_POD_ANNOTATION: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_ANNOTATION: &str = "container.seccomp.security.alpha.kubernetes.io/";

pub(super) fn app_armor(pod: &Subject<'_>) -> Option<Violation> {
    let mut found = Found::new();
    let mut setters: Vec<String> =
        pod.setters(|context| is_unconfined(context, "appArmorProfile", &mut found)).into_iter().collect();
    let annotations = pod.annotations.as_object().into_iter().flatten();
    let mut bad: Vec<String> = annotations
        .filter_map(|(key, value)| Some((key, value.as_str()?)))
        .filter(|(key, value)| {
            let allowed = value.is_empty() || *value == "runtime/default" || value.starts_with("localhost/");
            key.starts_with(APP_ARMOR_ANNOTATION) && !allowed
        })
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    bad.sort();
    if !bad.is_empty() {
        setters.push(plural("annotation", bad.len()));
    }
    let values: Vec<String> = found.into_iter().chain(bad).collect();
    if setters.is_empty() {
        return None;
    }
    let detail =
        format!("{} must not set AppArmor profile type to {}", setters.join(" and "), quoted(&values));
    violation(&plural("forbidden AppArmor profile", values.len()), detail)
}

pub(super) fn capabilities(pod: &Subject<'_>) -> Option<Violation> {
    let mut found = Found::new();
    let bad = pod.containers_that(|container| adds_other_than(container, &CAPABILITIES, &mut found));
    if bad.is_empty() {
        return None;
    }
    let bad = named("container", &bad);
    let detail = format!("{bad} must not include {} in securityContext.capabilities.add", quoted(&found));
    violation("non-default capabilities", detail)
}

/// Whether a container adds capabilities that it must not, noting which.
pub(super) fn adds_other_than(container: &Value, allowed: &[&str], found: &mut Found) -> bool {
    let capabilities = container.dig(&["securityContext", "capabilities"]);
    let added = capabilities.map(|capabilities| capabilities.items("add")).unwrap_or_default();
    let bad = added.iter().filter_map(Value::as_str).filter(|name| !allowed.contains(name));
    let before = bad.clone().count();
    found.extend(bad.map(str::to_string));
    before > 0
}

pub(super) fn host_namespaces(pod: &Subject<'_>) -> Option<Violation> {
    let fields = ["hostNetwork", "hostPID", "hostIPC"].into_iter().filter(|field| pod.spec.flag(field));
    let set: Vec<String> = fields.map(|field| format!("{field}=true")).collect();
    if set.is_empty() { None } else { violation("host namespaces", set.join(", ")) }
}

pub(super) fn host_path_volumes(pod: &Subject<'_>) -> Option<Violation> {
    let bad = pod.spec.items("volumes").iter().filter(|volume| volume.at("hostPath").is_some());
    let names: Vec<&str> = bad.map(|volume| volume.text("name")).collect();
    if names.is_empty() { None } else { violation("hostPath volumes", named("volume", &names)) }
}

pub(super) fn host_ports(pod: &Subject<'_>) -> Option<Violation> {
    let mut found = Found::new();
    let bad = pod.containers_that(|container| {
        let ports = container.items("ports").iter().filter_map(|port| port.int("hostPort"));
        let ports: Vec<String> = ports.filter(|port| *port != 0).map(|port| port.to_string()).collect();
        let uses = !ports.is_empty();
        found.extend(ports);
        uses
    });
    let all: Vec<&str> = found.iter().map(String::as_str).collect();
    uses(&bad, &plural("hostPort", found.len()), &all.join(", "), "hostPort")
}

/// `container "c" uses hostPort 80`
fn uses(bad: &[&str], what: &str, which: &str, reason: &str) -> Option<Violation> {
    if bad.is_empty() {
        return None;
    }
    let verb = if bad.len() == 1 { "uses" } else { "use" };
    violation(reason, format!("{} {verb} {what} {which}", named("container", bad)))
}

pub(super) fn probe_hosts(pod: &Subject<'_>) -> Option<Violation> {
    const HANDLERS: [&[&str]; 5] = [
        &["livenessProbe"],
        &["readinessProbe"],
        &["startupProbe"],
        &["lifecycle", "postStart"],
        &["lifecycle", "preStop"],
    ];
    let mut found = Found::new();
    let mut bad = pod.containers_that(|container| {
        let handlers = HANDLERS.iter().filter_map(|path| container.dig(path));
        let actions = handlers.flat_map(|handler| [handler.at("httpGet"), handler.at("tcpSocket")]).flatten();
        let hosts: Vec<&str> =
            actions.map(|action| action.text("host")).filter(|host| !host.is_empty()).collect();
        found.extend(hosts.iter().map(|host| (*host).to_string()));
        !hosts.is_empty()
    });
    bad.sort_unstable();
    uses(&bad, &plural("probe or lifecycle host", found.len()), &quoted(&found), "probe or lifecycle host")
}

pub(super) fn privileged(pod: &Subject<'_>) -> Option<Violation> {
    let bad =
        pod.containers_that(|c| c.at("securityContext").is_some_and(|context| context.flag("privileged")));
    if bad.is_empty() {
        return None;
    }
    violation(
        "privileged",
        format!("{} must not set securityContext.privileged=true", named("container", &bad)),
    )
}

pub(super) fn proc_mount(pod: &Subject<'_>) -> Option<Violation> {
    if pod.has_user_namespace() { None } else { any_proc_mount(pod) }
}

/// The check without regard to user namespaces.
pub(super) fn any_proc_mount(pod: &Subject<'_>) -> Option<Violation> {
    let mut found = Found::new();
    let bad = pod.containers_that(|container| {
        let mount = container.dig(&["securityContext", "procMount"]).and_then(Value::as_str);
        let mount = mount.filter(|mount| *mount != "Default");
        found.extend(mount.map(str::to_string));
        mount.is_some()
    });
    if bad.is_empty() {
        return None;
    }
    let bad = named("container", &bad);
    violation("procMount", format!("{bad} must not set securityContext.procMount to {}", quoted(&found)))
}

pub(super) fn se_linux(pod: &Subject<'_>) -> Option<Violation> {
    let mut types = Found::new();
    let (mut sets_user, mut sets_role) = (false, false);
    let setters = pod.setters(|context| {
        let Some(options) = context.at("seLinuxOptions") else { return false };
        let bad_type = match options.text("type") {
            "" | "container_t" | "container_init_t" | "container_kvm_t" => false,
            "container_engine_t" if pod.minor >= 31 => false,
            other => {
                types.insert(other.to_string());
                true
            }
        };
        let (user, role) = (!options.text("user").is_empty(), !options.text("role").is_empty());
        sets_user |= user;
        sets_role |= role;
        bad_type || user || role
    })?;
    let mut faults = Vec::new();
    if !types.is_empty() {
        faults.push(format!("{} {}", plural("type", types.len()), quoted(&types)));
    }
    faults.extend(sets_user.then(|| "user may not be set".to_string()));
    faults.extend(sets_role.then(|| "role may not be set".to_string()));
    let detail = format!("{setters} set forbidden securityContext.seLinuxOptions: {}", faults.join("; "));
    violation("seLinuxOptions", detail)
}

pub(super) fn seccomp(pod: &Subject<'_>) -> Option<Violation> {
    if pod.minor < 19 {
        return seccomp_annotations(pod);
    }
    let mut found = Found::new();
    let setters = pod.setters(|context| is_unconfined(context, "seccompProfile", &mut found))?;
    let detail = format!("{setters} must not set securityContext.seccompProfile.type to {}", quoted(&found));
    violation("seccompProfile", detail)
}

/// How profiles were chosen before there were fields for them.
fn seccomp_annotations(pod: &Subject<'_>) -> Option<Violation> {
    let of_containers =
        pod.containers().map(|container| format!("{SECCOMP_ANNOTATION}{}", container.text("name")));
    let keys = std::iter::once(SECCOMP_POD_ANNOTATION.to_string()).chain(of_containers);
    let bad = keys.filter_map(|key| {
        let value = pod.annotations.at(&key)?.as_str()?;
        let allowed =
            ["runtime/default", "docker/default"].contains(&value) || value.starts_with("localhost/");
        (!allowed).then(|| format!("{key}={value:?}"))
    });
    let found: Found = bad.collect();
    if found.is_empty() {
        return None;
    }
    let all: Vec<&str> = found.iter().map(String::as_str).collect();
    let detail = format!("forbidden {} {}", plural("annotation", found.len()), all.join(", "));
    violation("seccompProfile", detail)
}

pub(super) fn sysctls(pod: &Subject<'_>) -> Option<Violation> {
    let set = pod.security_context()?.items("sysctls").iter().map(|sysctl| sysctl.text("name"));
    let is_safe = |name: &str| SYSCTLS.iter().any(|(since, safe)| pod.minor >= *since && *safe == name);
    let bad: Vec<&str> = set.filter(|name| !is_safe(name)).collect();
    if bad.is_empty() { None } else { violation("forbidden sysctls", bad.join(", ")) }
}

pub(super) fn windows_host_process(pod: &Subject<'_>) -> Option<Violation> {
    let is_set =
        |context: &Value| context.at("windowsOptions").is_some_and(|options| options.flag("hostProcess"));
    let setters = pod.setters(is_set)?;
    violation(
        "hostProcess",
        format!("{setters} must not set securityContext.windowsOptions.hostProcess=true"),
    )
}
