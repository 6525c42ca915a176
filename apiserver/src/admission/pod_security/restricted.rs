//! What the restricted level forbids beyond the baseline: whatever a hardened pod does not need.

use api::field::Look;
use serde_json::Value;

use super::baseline::{adds_other_than, any_proc_mount};
use super::checks::{Found, Subject, Violation, is_unconfined, named, plural, quoted, violation};

const VOLUMES: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

pub(super) fn privilege_escalation(pod: &Subject<'_>) -> Option<Violation> {
    if pod.is_windows() {
        return None;
    }
    let bad = pod.containers_that(|container| {
        container.dig(&["securityContext", "allowPrivilegeEscalation"]).is_none_or(|allowed| allowed != false)
    });
    if bad.is_empty() {
        return None;
    }
    let detail =
        format!("{} must set securityContext.allowPrivilegeEscalation=false", named("container", &bad));
    violation("allowPrivilegeEscalation != false", detail)
}

pub(super) fn capabilities(pod: &Subject<'_>) -> Option<Violation> {
    if pod.is_windows() {
        return None;
    }
    let keeps = pod.containers_that(|container| {
        let capabilities = container.dig(&["securityContext", "capabilities"]);
        !capabilities.is_some_and(|all| all.items("drop").iter().any(|name| name == "ALL"))
    });
    let mut found = Found::new();
    let adds = pod.containers_that(|container| adds_other_than(container, &["NET_BIND_SERVICE"], &mut found));
    let mut faults = Vec::new();
    if !keeps.is_empty() {
        let keeps = named("container", &keeps);
        faults.push(format!("{keeps} must set securityContext.capabilities.drop=[\"ALL\"]"));
    }
    if !adds.is_empty() {
        let adds = named("container", &adds);
        faults
            .push(format!("{adds} must not include {} in securityContext.capabilities.add", quoted(&found)));
    }
    if faults.is_empty() { None } else { violation("unrestricted capabilities", faults.join("; ")) }
}

pub(super) fn proc_mount(pod: &Subject<'_>) -> Option<Violation> {
    any_proc_mount(pod)
}

pub(super) fn volumes(pod: &Subject<'_>) -> Option<Violation> {
    let mut types = Found::new();
    let mut names = Vec::new();
    for volume in pod.spec.items("volumes") {
        let sources = volume.as_object().into_iter().flatten();
        let mut sources =
            sources.filter(|(field, value)| *field != "name" && !value.is_null()).map(|(field, _)| field);
        let first = sources.next();
        if first.is_some_and(|source| VOLUMES.contains(&source.as_str())) {
            continue;
        }
        names.push(volume.text("name"));
        types.insert(first.map_or_else(|| "unknown".to_string(), String::clone));
    }
    if names.is_empty() {
        return None;
    }
    let verb = if names.len() == 1 { "uses" } else { "use" };
    let what = plural("restricted volume type", types.len());
    let detail = format!("{} {verb} {what} {}", named("volume", &names), quoted(&types));
    violation("restricted volume types", detail)
}

pub(super) fn run_as_non_root(pod: &Subject<'_>) -> Option<Violation> {
    if pod.has_user_namespace() {
        return None;
    }
    let reason = "runAsNonRoot != true";
    let says = |context: &Value| context.at("runAsNonRoot").and_then(Value::as_bool);
    if let Some(setters) = pod.setters(|context| says(context) == Some(false)) {
        return violation(reason, format!("{setters} must not set securityContext.runAsNonRoot=false"));
    }
    if pod.security_context().and_then(says) == Some(true) {
        return None;
    }
    let silent = pod.containers_that(|container| container.at("securityContext").and_then(says).is_none());
    if silent.is_empty() {
        return None;
    }
    let silent = named("container", &silent);
    violation(reason, format!("pod or {silent} must set securityContext.runAsNonRoot=true"))
}

pub(super) fn run_as_user(pod: &Subject<'_>) -> Option<Violation> {
    if pod.has_user_namespace() {
        return None;
    }
    let setters = pod.setters(|context| context.int("runAsUser") == Some(0))?;
    violation("runAsUser=0", format!("{setters} must not set runAsUser=0"))
}

pub(super) fn seccomp(pod: &Subject<'_>) -> Option<Violation> {
    if pod.is_windows() {
        return None;
    }
    let mut found = Found::new();
    if let Some(setters) = pod.setters(|context| is_unconfined(context, "seccompProfile", &mut found)) {
        let detail =
            format!("{setters} must not set securityContext.seccompProfile.type to {}", quoted(&found));
        return violation("seccompProfile", detail);
    }
    let says = |context: &Value| context.at("seccompProfile").is_some();
    if pod.security_context().is_some_and(says) {
        return None;
    }
    let silent = pod.containers_that(|container| !container.at("securityContext").is_some_and(says));
    if silent.is_empty() {
        return None;
    }
    let detail = format!(
        "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
        named("container", &silent)
    );
    violation("seccompProfile", detail)
}
