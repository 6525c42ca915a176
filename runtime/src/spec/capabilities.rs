//! Which capabilities a container gets.

use std::{collections::BTreeSet, fs};

use k8s_cri::v1::LinuxContainerSecurityContext;

use super::SpecError;

/// By the kernel's numbers.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What every container has unless it drops it.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// The capabilities of a container, by their full names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Capabilities {
    pub(super) bounding: BTreeSet<String>,
    pub(super) ambient: BTreeSet<String>,
}

impl Capabilities {
    pub(super) fn has(&self, name: &str) -> bool {
        self.bounding.contains(name)
    }
}

pub(super) fn choose(security: &LinuxContainerSecurityContext) -> Result<Capabilities, SpecError> {
    let available = available();
    if security.privileged {
        return Ok(Capabilities { bounding: available, ambient: BTreeSet::new() });
    }
    let mut bounding: BTreeSet<String> = DEFAULT.iter().map(|name| full(name)).collect();
    let mut ambient = BTreeSet::new();
    if let Some(changes) = &security.capabilities {
        // "ALL" comes first, whatever the order: dropping all and adding some leaves some.
        if changes.add_capabilities.iter().any(|name| is_all(name)) {
            bounding = available.clone();
        }
        if changes.drop_capabilities.iter().any(|name| is_all(name)) {
            bounding.clear();
        }
        for name in changes.add_capabilities.iter().filter(|name| !is_all(name)) {
            bounding.insert(known(name)?);
        }
        for name in changes.drop_capabilities.iter().filter(|name| !is_all(name)) {
            bounding.remove(&known(name)?);
        }
        for name in &changes.add_ambient_capabilities {
            let name = known(name)?;
            bounding.insert(name.clone());
            ambient.insert(name);
        }
    }
    // What this process may not do itself it cannot give: root without some capability is common in nested set-ups.
    let (bounding, withheld): (BTreeSet<_>, BTreeSet<_>) =
        bounding.into_iter().partition(|name| available.contains(name));
    if !withheld.is_empty() {
        tracing::info!(?withheld, "capabilities that this host does not give are left out");
    }
    let ambient = ambient.intersection(&bounding).cloned().collect();
    Ok(Capabilities { bounding, ambient })
}

fn is_all(name: &str) -> bool {
    name.eq_ignore_ascii_case("ALL")
}

fn full(name: &str) -> String {
    format!("CAP_{name}")
}

fn known(name: &str) -> Result<String, SpecError> {
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if NAMES.contains(&short) { Ok(full(short)) } else { Err(SpecError::Capability(name.to_owned())) }
}

/// What this process itself may do.
fn available() -> BTreeSet<String> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("CapBnd:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or_default();
    let numbered = NAMES.iter().enumerate();
    numbered.filter(|(number, _)| mask & (1 << number) != 0).map(|(_, name)| full(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_cri::v1::Capability;

    #[test]
    fn dropping_all_and_adding_some_should_leave_some() {
        let capabilities = Capability {
            add_capabilities: vec!["NET_BIND_SERVICE".into()],
            drop_capabilities: vec!["ALL".into()],
            ..Capability::default()
        };
        let security = LinuxContainerSecurityContext {
            capabilities: Some(capabilities),
            ..LinuxContainerSecurityContext::default()
        };
        let chosen = choose(&security).unwrap();
        assert!(chosen.bounding.iter().all(|name| name == "CAP_NET_BIND_SERVICE"));
    }

    #[test]
    fn a_capability_that_does_not_exist_should_be_refused() {
        assert!(known("cap_net_admin").is_ok());
        assert!(matches!(known("FLY"), Err(SpecError::Capability(_))));
    }
}
