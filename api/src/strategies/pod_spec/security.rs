//! Checks of security contexts.

use std::collections::BTreeSet;

use serde_json::Value;

use super::volumes::check_descending_path;
use crate::{at::At, field::Look, names};

const ID_MAX: i64 = i32::MAX as i64;
const SYSCTL_LENGTH_MAX: usize = 253;
const SYSCTL_PATTERN: &str = "^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";

/// Checks the pod's security context and the namespaces that it shares with the host.
pub(super) fn check_pod(spec: &At) {
    if !has_host_users(spec) {
        // Upstream writes the names of its internal fields.
        for (name, said) in [("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
            if spec.flag(name) {
                spec.field(said).forbidden("when `hostUsers` is false");
            }
        }
    }
    let context = spec.field("securityContext");
    if spec.flag("shareProcessNamespace") && spec.flag("hostPID") {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        context.field("shareProcessNamespace").invalid_value(true, detail);
    }
    if !context.is_given() {
        return;
    }
    for name in ["fsGroup", "runAsUser", "runAsGroup"] {
        check_id(&context.field(name));
    }
    context.each("supplementalGroups", check_id);
    check_sysctls(&context.field("sysctls"));
    for (name, words) in [
        ("fsGroupChangePolicy", ["Always", "OnRootMismatch"]),
        ("supplementalGroupsPolicy", ["Merge", "Strict"]),
        ("seLinuxChangePolicy", ["MountOption", "Recursive"]),
    ] {
        context.optional(name, |policy| policy.one_of(&words));
    }
    check_profiles(&context);
}

/// Checks a container's security context.
pub(super) fn check_container(context: &At, spec: &Value) {
    for name in ["runAsUser", "runAsGroup"] {
        check_id(&context.field(name));
    }
    context.optional("procMount", |mount| {
        mount.one_of(&["Default", "Unmasked"]);
        if mount.str() == "Unmasked" && has_host_users(spec) {
            mount.invalid("`hostUsers` must be false to use `Unmasked`");
        }
    });
    if context.at("allowPrivilegeEscalation") == Some(&Value::Bool(false)) {
        if context.flag("privileged") {
            context.invalid("cannot set `allowPrivilegeEscalation` to false and `privileged` to true");
        }
        if context.field("capabilities.add").list().iter().any(|capability| capability == "CAP_SYS_ADMIN") {
            context.invalid(
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN",
            );
        }
    }
    check_profiles(context);
}

fn has_host_users(spec: &Value) -> bool {
    spec.at("hostUsers") != Some(&Value::Bool(false))
}

fn check_id(id: &At) {
    if id.as_i64().is_some_and(|id| !(0..=ID_MAX).contains(&id)) {
        id.invalid(names::between(0, ID_MAX));
    }
}

fn check_sysctls(sysctls: &At) {
    let mut seen = BTreeSet::new();
    for sysctl in sysctls.elements() {
        let name = sysctl.field("name");
        if name.is_empty() {
            name.required("");
        } else if name.str().len() > SYSCTL_LENGTH_MAX || !is_sysctl(name.str()) {
            name.invalid(format!(
                "must have at most {SYSCTL_LENGTH_MAX} characters and match regex {SYSCTL_PATTERN}"
            ));
        } else {
            name.unique(&mut seen);
        }
    }
}

fn is_sysctl(name: &str) -> bool {
    let is_end = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    name.split(['.', '/']).all(|part| {
        let bytes = part.as_bytes();
        is_end(bytes.first())
            && is_end(bytes.last())
            && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(b))
    })
}

fn check_profiles(context: &At) {
    for (field, named) in [("seccompProfile", "seccomp"), ("appArmorProfile", "AppArmor")] {
        context.optional(field, |profile| {
            let (kind, local) = (profile.field("type"), profile.field("localhostProfile"));
            kind.one_of(&["Localhost", "RuntimeDefault", "Unconfined"]);
            match (kind.str() == "Localhost", local.is_given()) {
                (true, false) => local.required(&format!("must be set when {named} type is Localhost")),
                (true, true) if field == "seccompProfile" => check_descending_path(&local),
                (false, true) => local.invalid_value(
                    profile.value().clone(),
                    format!("can only be set when {named} type is Localhost"),
                ),
                _ => {}
            }
        });
    }
    for list in ["capabilities.add", "capabilities.drop"] {
        // An empty name is a fault of the runtime that would come late.
        let list = context.field(list);
        list.elements().find(At::is_empty).iter().for_each(|name| name.required(""));
    }
}
