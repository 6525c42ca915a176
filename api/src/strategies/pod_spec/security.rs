//! Checks of security contexts.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Seen, one_of, volumes::descending_path};
use crate::{
    field::{Errors, Look, Path, PathExt},
    names,
};

const ID_MAX: i64 = i32::MAX as i64;
const SYSCTL_LENGTH_MAX: usize = 253;
const SYSCTL_PATTERN: &str = "^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";

/// Checks the pod's security context and the namespaces that it shares with the host.
pub(super) fn validate_pod(errors: &mut Errors, path: &Path, spec: &Value) {
    if spec.at("hostUsers") == Some(&Value::Bool(false)) {
        // Upstream writes the names of its internal fields.
        for (name, said) in [("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
            if spec.flag(name) {
                errors.forbidden(&path.field(said), "when `hostUsers` is false");
            }
        }
    }
    let path = path.field("securityContext");
    if spec.flag("shareProcessNamespace") && spec.flag("hostPID") {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.invalid(&path.field("shareProcessNamespace"), true, detail);
    }
    let Some(context) = spec.at("securityContext") else { return };
    for name in ["fsGroup", "runAsUser", "runAsGroup"] {
        id(errors, &path.field(name), context.int(name));
    }
    let groups = path.field("supplementalGroups");
    for (index, group) in context.items("supplementalGroups").iter().enumerate() {
        id(errors, &groups.index(index), group.as_i64());
    }
    sysctls(errors, &path.field("sysctls"), context);
    for (name, words) in [
        ("fsGroupChangePolicy", ["Always", "OnRootMismatch"]),
        ("supplementalGroupsPolicy", ["Merge", "Strict"]),
        ("seLinuxChangePolicy", ["MountOption", "Recursive"]),
    ] {
        if context.at(name).is_some() {
            one_of(errors, &path.field(name), context, &words);
        }
    }
    profiles(errors, &path, context);
}

/// Checks a container's security context.
pub(super) fn validate_container(errors: &mut Errors, path: &Path, container: &Value, spec: &Value) {
    let Some(context) = container.at("securityContext") else { return };
    for name in ["runAsUser", "runAsGroup"] {
        id(errors, &path.field(name), context.int(name));
    }
    if context.at("procMount").is_some() {
        let path = path.field("procMount");
        one_of(errors, &path, context, &["Default", "Unmasked"]);
        let has_host_users = spec.at("hostUsers") != Some(&Value::Bool(false));
        if has_host_users && context.text("procMount") == "Unmasked" {
            errors.invalid(&path, "Unmasked", "`hostUsers` must be false to use `Unmasked`");
        }
    }
    if context.at("allowPrivilegeEscalation") == Some(&Value::Bool(false)) {
        if context.flag("privileged") {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.invalid(path, context.clone(), detail);
        }
        let added = context.at("capabilities").map(|c| c.items("add")).unwrap_or_default();
        if added.iter().any(|capability| capability == "CAP_SYS_ADMIN") {
            let detail =
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.invalid(path, context.clone(), detail);
        }
    }
    profiles(errors, path, context);
}

fn id(errors: &mut Errors, path: &Path, value: Option<i64>) {
    if let Some(value) = value.filter(|v| !(0..=ID_MAX).contains(v)) {
        errors.invalid(path, value, names::between(0, ID_MAX));
    }
}

fn sysctls(errors: &mut Errors, path: &Path, context: &Value) {
    let mut seen = Seen::default();
    for (index, sysctl) in context.items("sysctls").iter().enumerate() {
        let item = path.index(index);
        let path = item.field("name");
        let name = sysctl.text("name");
        if name.is_empty() {
            errors.required(&path, "");
        } else if name.len() > SYSCTL_LENGTH_MAX || !is_sysctl(name) {
            let detail =
                format!("must have at most {SYSCTL_LENGTH_MAX} characters and match regex {SYSCTL_PATTERN}");
            errors.invalid(&path, name, detail);
        } else if !seen.is_new(name) {
            errors.duplicate(&path, name);
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

fn profiles(errors: &mut Errors, path: &Path, context: &Value) {
    for (field, named) in [("seccompProfile", "seccomp"), ("appArmorProfile", "AppArmor")] {
        let Some(profile) = context.at(field) else { continue };
        let path = path.field(field);
        one_of(errors, &path.field("type"), profile, &["Localhost", "RuntimeDefault", "Unconfined"]);
        let local_path = path.field("localhostProfile");
        let local = profile.at("localhostProfile").and_then(Value::as_str);
        match (profile.text("type") == "Localhost", local) {
            (true, None) => {
                errors.required(&local_path, &format!("must be set when {named} type is Localhost"));
            }
            (true, Some(local)) if field == "seccompProfile" => descending_path(errors, &local_path, local),
            (false, Some(_)) => {
                let detail = format!("can only be set when {named} type is Localhost");
                errors.invalid(&local_path, profile.clone(), detail);
            }
            _ => {}
        }
    }
    let capabilities = context.get("capabilities").unwrap_or(&Value::Null);
    let capabilities_path = path.field("capabilities");
    for list in ["add", "drop"] {
        let mut seen = BTreeSet::new();
        let list_path = capabilities_path.field(list);
        for (index, name) in capabilities.items(list).iter().filter_map(Value::as_str).enumerate() {
            // Upstream lets duplicates pass; an empty name is a fault of the runtime that would come late.
            if name.is_empty() && seen.insert(name) {
                errors.required(&list_path.index(index), "");
            }
        }
    }
}
