//! The host's own resolvers.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

/// The stub that systemd puts on every machine, and the file with what is behind it.
const SYSTEMD_STUB: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53));
const SYSTEMD_FILE: &str = "/run/systemd/resolve/resolv.conf";
/// How often to look whether the file has changed.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// The resolvers to ask, read again when the file changes.
#[derive(Debug)]
pub(super) struct Upstreams {
    fixed: Vec<SocketAddr>,
    file: PathBuf,
    own: IpAddr,
    known: Mutex<Option<Known>>,
}

#[derive(Debug)]
struct Known {
    servers: Vec<SocketAddr>,
    changed: Option<SystemTime>,
    looked: Instant,
}

impl Upstreams {
    pub(super) fn new(fixed: Vec<SocketAddr>, file: PathBuf, own: Ipv4Addr) -> Self {
        Self { fixed, file, own: IpAddr::V4(own), known: Mutex::new(None) }
    }

    /// The servers in order. Never this server itself.
    pub(super) fn servers(&self) -> Vec<SocketAddr> {
        if !self.fixed.is_empty() {
            return self.fixed.clone();
        }
        let known = &mut *self.known.lock();
        if let Some(known) = known.as_mut().filter(|k| k.looked.elapsed() < LOOK_AGAIN) {
            return known.servers.clone();
        }
        let changed = fs::metadata(&self.file).and_then(|m| m.modified()).ok();
        match known {
            Some(known) if known.changed == changed => known.looked = Instant::now(),
            _ => {
                let servers = self.read();
                tracing::info!(?servers, file = %self.file.display(), "forwarding names outside the cluster");
                *known = Some(Known { servers, changed, looked: Instant::now() });
            }
        }
        known.as_ref().map(|k| k.servers.clone()).unwrap_or_default()
    }

    fn read(&self) -> Vec<SocketAddr> {
        let parse_file = |path: &Path| fs::read_to_string(path).map(|text| parse(&text)).unwrap_or_default();
        let mut servers = parse_file(&self.file);
        if servers.contains(&SYSTEMD_STUB) {
            // The stub would do, but it may itself have been told to ask the cluster, and it is one hop more.
            let behind = parse_file(Path::new(SYSTEMD_FILE));
            if !behind.is_empty() {
                servers = behind;
            }
        }
        servers.retain(|server| *server != self.own);
        servers.into_iter().map(|ip| SocketAddr::new(ip, 53)).collect()
    }
}

fn parse(text: &str) -> Vec<IpAddr> {
    let lines = text.lines().map(str::trim).filter_map(|line| line.strip_prefix("nameserver"));
    lines.filter_map(|rest| rest.split_whitespace().next()?.split('%').next()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_server_should_never_be_its_own_upstream() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("resolv.conf");
        fs::write(&file, "# comment\nsearch example.com\nnameserver 10.96.0.10\n nameserver 192.0.2.1 # x\nnameserver fe80::1%eth0\n").unwrap();
        let upstreams = Upstreams::new(Vec::new(), file, [10, 96, 0, 10].into());
        let servers: Vec<String> = upstreams.servers().iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["192.0.2.1:53", "[fe80::1]:53"]);
    }
}
