//! What a node knows about its own network, kept so that a restart needs no API.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use netlink::Cidr;
use serde::{Deserialize, Serialize};

use crate::Error;

const FILE: &str = "node.json";

/// The file's form; also read by the CNI plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    instance: String,
    node_ip: Ipv4Addr,
    pod_cidr: String,
    mtu: u32,
}

/// What is needed to connect a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeState {
    /// Name of the installation.
    pub instance: String,
    /// Address of the node.
    pub node_ip: Ipv4Addr,
    /// Addresses of its pods.
    pub pod_cidr: Cidr,
    /// MTU of the pods' devices.
    pub mtu: u32,
}

impl NodeState {
    /// The address with which the host itself speaks to its pods. A machine without any address but 127.0.0.1 takes the first of the
    /// pods' range for that, on its loopback device.
    #[must_use]
    pub fn host_address(&self) -> Ipv4Addr {
        if self.node_ip.is_loopback() { self.pod_cidr.first() } else { self.node_ip }
    }

    /// Reads what was kept; `None` if nothing was, or if it cannot be understood.
    pub fn load(directory: &Path) -> Result<Option<Self>, Error> {
        let path = directory.join(FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::file(path)(error)),
        };
        let parsed = serde_json::from_slice::<Document>(&bytes).map_err(|e| e.to_string());
        let state = parsed.and_then(|document| {
            let pod_cidr = document.pod_cidr.parse().map_err(|e: netlink::NotACidr| e.to_string())?;
            Ok(Self { instance: document.instance, node_ip: document.node_ip, pod_cidr, mtu: document.mtu })
        });
        match state {
            Ok(state) => Ok(Some(state)),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "ignoring an unreadable file; the API knows the same");
                Ok(None)
            }
        }
    }

    /// Keeps it. The file is replaced as a whole.
    pub fn save(&self, directory: &Path) -> Result<(), Error> {
        let document = Document {
            instance: self.instance.clone(),
            node_ip: self.node_ip,
            pod_cidr: self.pod_cidr.to_string(),
            mtu: self.mtu,
        };
        let json = serde_json::to_vec_pretty(&document).map_err(|e| Error::Invalid(e.to_string()))?;
        let (path, temporary) = (directory.join(FILE), directory.join(".node.json.new"));
        fs::write(&temporary, json).map_err(Error::file(&temporary))?;
        fs::rename(&temporary, &path).map_err(Error::file(&path))
    }
}
