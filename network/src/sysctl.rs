//! Kernel settings of the network, under `/proc/sys/net`.
//!
//! A refusal (a read-only `/proc/sys` in a container) is logged with what it means and never fatal: the setting may be right
//! for other reasons, and what does not work then says so itself.

use std::fs;
use std::path::Path;

/// Sets `net.<path>` unless it has the value already. `consequence` says what a refusal means.
pub(crate) fn set(path: &str, value: &str, consequence: &str) {
    let file = Path::new("/proc/sys/net").join(path);
    if fs::read_to_string(&file).is_ok_and(|current| current.trim() == value) {
        return;
    }
    if let Err(error) = fs::write(&file, value) {
        tracing::warn!(setting = %file.display(), value, %error, "cannot set a kernel parameter: {consequence}");
    }
}

/// Settings of the host that pods need.
pub(crate) fn prepare_host() {
    set("ipv4/ip_forward", "1", "pods cannot reach other nodes, services or the outside");
    set("ipv4/conf/all/route_localnet", "1", "host ports and node ports do not answer on 127.0.0.1");
}

/// Settings of one of our devices: answers may come back on another path than a strict check expects.
pub(crate) fn prepare_device(device: &str) {
    let path = format!("ipv4/conf/{device}/rp_filter");
    set(&path, "2", "packets of pods may be dropped by the reverse path filter");
    let path = format!("ipv6/conf/{device}/disable_ipv6");
    if Path::new("/proc/sys/net").join(&path).exists() {
        set(&path, "1", "the device takes part in IPv6 neighbour discovery for nothing");
    }
}
