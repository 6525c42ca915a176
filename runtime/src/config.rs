//! What the runtime needs to be told.

use std::{net::SocketAddr, path::PathBuf};

use crate::image::Registries;

/// Settings of the runtime, checked when it opens.
#[derive(Clone, Debug)]
pub struct Config {
    /// Images, and what containers write: `<data-dir>/runtime`. Must be on a file system that overlayfs can use.
    pub root: PathBuf,
    /// Running sandboxes and containers: `/run/<instance>/runtime`. Kept short (sockets are in it); lost with a reboot,
    /// like what it describes.
    pub state: PathBuf,
    /// The socket of the runtime interface.
    pub socket: PathBuf,
    /// The name of this instance; names on the host carry it.
    pub instance: String,
    /// The program whose process becomes a shim; usually this one.
    pub shim_executable: PathBuf,
    /// What makes it one: the arguments before the state directory, usually `["shim"]`.
    pub shim_arguments: Vec<String>,
    /// Where `exec`, `attach` and `port-forward` streams are served. Loopback; port 0 takes any.
    pub streaming_address: SocketAddr,
    /// How registries are reached.
    pub registries: Registries,
}

impl Config {
    /// Settings for an instance whose data is in `data_dir`, with this program as the shim.
    pub fn new(data_dir: &std::path::Path, instance: &str) -> std::io::Result<Self> {
        let state = PathBuf::from(format!("/run/{instance}/runtime"));
        Ok(Self {
            root: data_dir.join("runtime"),
            socket: PathBuf::from(format!("/run/{instance}/cri.sock")),
            state,
            instance: instance.to_owned(),
            shim_executable: std::env::current_exe()?,
            shim_arguments: vec!["shim".to_owned()],
            streaming_address: SocketAddr::from(([127, 0, 0, 1], 0)),
            registries: Registries::default(),
        })
    }

    /// The cgroup that all shims of this instance share.
    pub(crate) fn shim_cgroup(&self) -> String {
        format!("/{}-shims", self.instance)
    }

    /// The cgroup of containers whose sandbox names no parent.
    pub(crate) fn pod_cgroup(&self) -> String {
        format!("/{}-pods", self.instance)
    }
}
