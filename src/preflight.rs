//! What a machine must offer before anything is started, told all at once and in words that say what to do.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use anyhow::bail;
use nix::sched::CloneFlags;
use tracing::warn;

use crate::settings::Settings;

/// Checks for a role that runs pods on this machine.
pub fn check_node() -> anyhow::Result<()> {
    let mut problems = Vec::new();
    if !nix::unistd::geteuid().is_root() {
        bail!("running pods needs root; start it with sudo");
    }
    let filesystems = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    for (name, purpose) in [("overlay", "container file systems"), ("cgroup", "resource limits")] {
        if !filesystems.lines().any(|line| line.split_whitespace().last() == Some(name)) {
            problems.push(format!("the kernel has no {name}, needed for {purpose}; try `modprobe {name}`"));
        }
    }
    for (path, purpose) in [
        ("/proc/self/ns/net", "network namespaces"),
        ("/proc/self/ns/pid", "process namespaces"),
        ("/sys/fs/cgroup", "control groups; mount them"),
    ] {
        if !Path::new(path).exists() {
            problems.push(format!("{path} is missing: {purpose}"));
        }
    }
    if is_in_chroot() {
        problems.push(
            "this is a chroot, where containers start but commands inside them (exec, probes) see the host's files; start it \
             outside, or in a mount namespace with a root of its own (pivot_root)"
                .to_string(),
        );
    }
    problems.extend(network::missing_kernel_features());
    if problems.is_empty() {
        return Ok(());
    }
    bail!("this machine cannot run pods:\n  - {}", problems.join("\n  - "))
}

/// Whether the root is another one than that of the mount namespace. Who may not look is none the wiser.
fn is_in_chroot() -> bool {
    use std::os::unix::fs::MetadataExt;
    let root = || std::fs::metadata("/").map(|root| (root.dev(), root.ino())).ok();
    // A thread that enters the mount namespace anew gets the root that a command in a container would get.
    let entered = std::thread::spawn(move || {
        let namespace = std::fs::File::open("/proc/thread-self/ns/mnt").ok()?;
        nix::sched::unshare(CloneFlags::CLONE_FS).ok()?;
        nix::sched::setns(namespace, CloneFlags::CLONE_NEWNS).ok()?;
        root()
    });
    let entered = entered.join().ok().flatten();
    entered.is_some() && entered != root()
}

/// Checks that a port is free, so that the reason is told before anything else starts.
pub fn check_port(address: SocketAddr, flag: &str) -> anyhow::Result<()> {
    match TcpListener::bind(address) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            let holder = holder_of(address.port()).map(|who| format!(" by {who}")).unwrap_or_default();
            bail!("port {} is in use{holder}; stop that, or choose another with {flag}", address.port())
        }
        Err(error) => bail!("cannot listen on {address}: {error}; choose another address with {flag}"),
    }
}

/// Opens as many files as the machine allows: watches, shims and connections each hold one.
pub fn raise_file_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        warn!(%error, "the limit of open files could not be raised");
    }
}

/// Refuses a second process on one data directory, by the name of the first.
pub fn claim_data_dir(settings: &Settings) -> anyhow::Result<DataDirClaim> {
    use anyhow::Context;
    use std::os::unix::fs::DirBuilderExt;
    let directory = &settings.data_dir;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .with_context(|| format!("cannot create --data-dir {}", directory.display()))?;
    let path = settings.pid_file();
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    let lock = match nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock) {
        Ok(lock) => lock,
        Err(_) => {
            let holder = std::fs::read_to_string(&path).unwrap_or_default();
            bail!(
                "{} is in use by process {}; stop it with `gantry down`, or choose another --data-dir",
                directory.display(),
                holder.trim()
            );
        }
    };
    lock.set_len(0)?;
    std::io::Write::write_all(&mut &*lock, format!("{}\n", std::process::id()).as_bytes())?;
    Ok(DataDirClaim { _lock: lock, path })
}

/// Holds a data directory; dropping it lets go.
pub struct DataDirClaim {
    _lock: nix::fcntl::Flock<std::fs::File>,
    path: std::path::PathBuf,
}

impl Drop for DataDirClaim {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            warn!(%error, path = %self.path.display(), "the pid file stays behind");
        }
    }
}

/// The process that listens on a TCP port, as far as /proc tells.
fn holder_of(port: u16) -> Option<String> {
    let wanted = format!(":{port:04X}");
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"].iter().find_map(|path| {
        let table = std::fs::read_to_string(path).ok()?;
        table.lines().find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let listening = fields.get(1)?.ends_with(&wanted) && *fields.get(3)? == "0A";
            listening.then(|| fields.get(9).map(|inode| inode.to_string()))?
        })
    })?;
    let target = format!("socket:[{inode}]");
    let entries = std::fs::read_dir("/proc").ok()?.flatten();
    let is_process = |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().parse::<u32>().is_ok();
    for process in entries.filter(is_process) {
        let Ok(descriptors) = std::fs::read_dir(process.path().join("fd")) else { continue };
        let holds = descriptors
            .flatten()
            .any(|fd| std::fs::read_link(fd.path()).is_ok_and(|link| link.as_os_str() == target.as_str()));
        if holds {
            let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("{} (process {})", name.trim(), process.file_name().to_string_lossy()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_told_with_its_holder() {
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let error = check_port(held.local_addr().unwrap(), "--secure-port").unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        assert!(error.contains("--secure-port"), "{error}");
    }
}
