//! Names of everything that the network puts on the host.

use std::hash::{Hash, Hasher};

/// Longest name of a device.
const DEVICE_NAME_MAX: usize = 15;
/// Part of a device's name that stands for the instance.
const DEVICE_PREFIX_MAX: usize = 6;

/// Routes to this node's pods carry this number as their maker.
pub(crate) const POD_ROUTE_PROTOCOL: u8 = 103;
/// Routes to other nodes and to the services carry this one.
pub(crate) const PEER_ROUTE_PROTOCOL: u8 = 104;

/// The names of one instance.
#[derive(Debug, Clone)]
pub struct Names {
    instance: String,
    prefix: String,
}

impl Names {
    /// The names of `instance`.
    #[must_use]
    pub fn new(instance: &str) -> Self {
        let plain =
            instance.len() <= DEVICE_PREFIX_MAX && instance.bytes().all(|b| b.is_ascii_alphanumeric());
        let prefix = if plain {
            instance.to_owned()
        } else {
            let start: String = instance.chars().filter(char::is_ascii_alphanumeric).take(2).collect();
            format!("{start}{:04x}", fnv(&instance) & 0xffff)
        };
        Self { instance: instance.to_owned(), prefix }
    }

    /// The device of a pod's sandbox: always the same for the same id.
    #[must_use]
    pub fn pod_device(&self, id: &str) -> String {
        let mut name = format!("{}-{:08x}", self.prefix, fnv(&id) & 0xffff_ffff);
        name.truncate(DEVICE_NAME_MAX);
        name
    }

    /// The VXLAN device.
    #[must_use]
    pub fn vxlan_device(&self) -> String {
        format!("{}-vx", self.prefix)
    }

    /// What every device's alias starts with.
    #[must_use]
    pub fn alias_prefix(&self) -> String {
        format!("gantry instance={} ", self.instance)
    }

    /// The alias of a pod's device.
    #[must_use]
    pub fn pod_alias(&self, pod: &str, id: &str) -> String {
        let mut alias = format!("{}pod={pod} sandbox={id}", self.alias_prefix());
        alias.truncate(250);
        alias
    }

    /// The nf_tables table of the pod network.
    #[must_use]
    pub fn table(&self) -> String {
        format!("{}-net", self.instance)
    }

    /// The comment of rules in chains that belong to others.
    #[must_use]
    pub fn foreign_rule_comment(&self) -> String {
        format!("gantry instance={}", self.instance)
    }

    /// The label of addresses on the loopback device.
    #[must_use]
    pub fn loopback_label(&self) -> String {
        let mut label = format!("lo:{}", self.prefix);
        label.truncate(DEVICE_NAME_MAX);
        label
    }
}

/// FNV-1a: stable over builds and machines, as names must be.
struct Fnv(u64);

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

fn fnv(value: &impl Hash) -> u64 {
    let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
    value.hash(&mut hasher);
    let hash = hasher.finish();
    hash ^ (hash >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_names_should_fit_and_differ_between_instances_and_sandboxes() {
        let (a, b) = (Names::new("gantry"), Names::new("a-very-long-instance-name"));
        let names =
            [a.pod_device("1"), a.pod_device("2"), b.pod_device("1"), a.vxlan_device(), b.vxlan_device()];
        let distinct: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(distinct.len(), names.len());
        assert!(names.iter().all(|n| n.len() <= 15), "{names:?}");
        assert_eq!(a.pod_device("1"), Names::new("gantry").pod_device("1"));
    }
}
