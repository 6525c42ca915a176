//! Opening the runtime over whatever the last one left: running containers are taken over, the rest is cleaned up.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::RwLock;
use tokio::sync::{Mutex, broadcast, watch};
use tokio_util::sync::CancellationToken;

use super::{
    EVENTS_KEPT, Engine,
    start::{STARTED_FILE, Started},
};
use crate::{
    Config,
    cgroup::Cgroups,
    error::Error,
    files,
    image::ImageStore,
    mounts, netns,
    network::PodNetwork,
    record::{ContainerEntry, ContainerRecord, Phase, Sandbox, SandboxRecord},
    shim::{EXIT_FILE, protocol::Exit},
    shim_factory::ShimFactory,
    time,
};

/// The exit code of a container of which nobody knows how it ended.
const UNKNOWN_EXIT: i32 = 255;

impl Engine {
    /// Opens the runtime. When this returns, all that runs is known.
    pub(crate) async fn open(
        config: Config,
        network: Arc<dyn PodNetwork>,
        shutdown: CancellationToken,
    ) -> Result<Arc<Self>, Error> {
        for directory in [
            config.root.join("containers"),
            config.state.join("sandboxes"),
            config.state.join("containers"),
            config.state.join("netns"),
        ] {
            fs::create_dir_all(&directory).map_err(Error::io(format!("making {}", directory.display())))?;
        }
        // Specifications hold secrets, and layers programs with special rights: neither is for other users.
        for directory in [&config.root, &config.state] {
            let owner_only = fs::Permissions::from_mode(0o700);
            fs::set_permissions(directory, owner_only)
                .map_err(Error::io("protecting the runtime's directories"))?;
        }
        let executable = mount_executable(&config).map_err(Error::io("mounting the shim's executable"))?;
        let shims = ShimFactory::new(executable, config.shim_arguments.clone(), config.state.clone());
        let images = ImageStore::open(&config.root, config.registries.clone())?;
        let cgroups = Cgroups::detect()?;
        let engine = Arc::new(Self {
            config,
            shims,
            images,
            network,
            cgroups,
            sandboxes: RwLock::default(),
            containers: RwLock::default(),
            events: broadcast::Sender::new(EVENTS_KEPT),
            shutdown,
        });
        engine.read_records().map_err(Error::io("reading what was left"))?;
        for sandbox in engine.sandboxes() {
            engine.take_over(&sandbox).await?;
        }
        engine.remove_strays().map_err(Error::io("removing what was left"))?;
        engine.images.collect(engine.layers_in_use()).await?;
        Ok(engine)
    }

    fn read_records(&self) -> io::Result<()> {
        for directory in directories(&self.config.state.join("sandboxes"))? {
            match read::<SandboxRecord>(&directory.join("sandbox.json")) {
                Some(record) => {
                    let sandbox = Sandbox {
                        id: record.id.clone(),
                        directory,
                        record: RwLock::new(record),
                        pause_pid: RwLock::new(None),
                        changing: Mutex::new(()),
                    };
                    self.sandboxes.write().insert(sandbox.id.clone(), Arc::new(sandbox));
                }
                None => remove_directory(&directory)?,
            }
        }
        for directory in directories(&self.config.state.join("containers"))? {
            let record = read::<ContainerRecord>(&directory.join("container.json"))
                .filter(|record| self.sandboxes.read().contains_key(&record.sandbox_id));
            match record {
                // Without a specification the crash came while it was being made.
                Some(record) if directory.join("config.json").exists() => {
                    let entry = ContainerEntry {
                        id: record.id.clone(),
                        sandbox_id: record.sandbox_id.clone(),
                        phase: watch::Sender::new(phase(&directory)),
                        directory,
                        record: RwLock::new(record),
                        changing: Mutex::new(()),
                    };
                    self.containers.write().insert(entry.id.clone(), Arc::new(entry));
                }
                record => {
                    if let Some(record) = record {
                        self.cgroups
                            .kill_all(&record.cgroup)
                            .and_then(|()| self.cgroups.remove(&record.cgroup))
                            .map_err(io::Error::other)?;
                    }
                    remove_directory(&directory)?;
                }
            }
        }
        Ok(())
    }

    /// Connects to the shim of a sandbox; without one, its containers have ended.
    async fn take_over(self: &Arc<Self>, sandbox: &Arc<Sandbox>) -> Result<(), Error> {
        if !sandbox.record.read().complete {
            tracing::info!(sandbox = sandbox.id, "removing a sandbox that was being made");
            self.tear_down(sandbox).await?;
            self.remove_sandbox_files(sandbox).await?;
            self.sandboxes.write().remove(&sandbox.id);
            return Ok(());
        }
        if !sandbox.record.read().stopped {
            // Before anybody looks: what runs must never be shown as unknown.
            if let Err(error) = self.watch_shim(sandbox).await {
                tracing::info!(sandbox = sandbox.id, %error, "no shim to take over");
                self.shim_ended(sandbox).await;
            }
        }
        for entry in self.containers_of(&sandbox.id) {
            // Started, but neither running nor known to have exited: the shim died with the answer.
            let was_started = entry.directory.join(STARTED_FILE).exists();
            entry.phase.send_if_modified(|phase| {
                let lost = *phase == Phase::Created && was_started;
                if lost {
                    let exit = Exit { code: UNKNOWN_EXIT, at: time::now(), oom_killed: false };
                    *phase = Phase::Exited { started_at: 0, exit, message: String::new() };
                }
                lost
            });
        }
        Ok(())
    }

    /// Removes what belongs to nobody: namespaces, what unknown containers wrote, mounts.
    fn remove_strays(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.config.state.join("netns"))? {
            let entry = entry?;
            if !self.sandboxes.read().contains_key(&*entry.file_name().to_string_lossy()) {
                netns::remove(&entry.path())?;
            }
        }
        for directory in directories(&self.config.root.join("containers"))? {
            let name = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !self.containers.read().contains_key(&name) {
                files::remove_tree(&directory)?;
            }
        }
        Ok(())
    }

    /// Ends and removes every sandbox, and then whatever else of this instance is on the host. Images stay.
    pub(crate) async fn destroy_all(&self) -> Result<(), Error> {
        let removals =
            self.sandboxes().into_iter().map(|sandbox| async move { self.remove_sandbox(&sandbox.id).await });
        let mut first_error = None;
        for removed in futures::future::join_all(removals).await {
            if let Err(error) = removed {
                tracing::error!(%error, "removing a sandbox");
                first_error.get_or_insert(error);
            }
        }
        if let Some(error) = first_error {
            return Err(error);
        }
        self.shims.stop().await.map_err(Error::io("ending the process that makes shims"))?;
        let cgroups = self.cgroups.clone();
        let groups = [self.config.shim_cgroup(), self.config.pod_cgroup()];
        let (state, socket) = (self.config.state.clone(), self.config.socket.clone());
        super::blocking("removing what is left", move || {
            for group in groups {
                cgroups.kill_all(&group).and_then(|()| cgroups.remove(&group)).map_err(io::Error::other)?;
            }
            for mount in mounts::below(&state)? {
                mounts::unmount(&mount)?;
            }
            match fs::remove_file(&socket) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            files::remove_tree(&state)
        })
        .await
    }
}

/// What the files of a container say about it; the shim may know better.
fn phase(directory: &Path) -> Phase {
    let started = read::<Started>(&directory.join(STARTED_FILE));
    let started_at = started.as_ref().map_or(0, |started| started.at);
    if let Some(exit) = read::<Exit>(&directory.join(EXIT_FILE)) {
        return Phase::Exited { started_at, exit, message: String::new() };
    }
    match started.and_then(|started| Some((started.at, started.error?))) {
        Some((at, message)) => {
            Phase::Exited { started_at: 0, exit: Exit { code: 128, at, oom_killed: false }, message }
        }
        None => Phase::Created,
    }
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Option<T> {
    let json = fs::read(path).ok()?;
    match serde_json::from_slice(&json) {
        Ok(value) => Some(value),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "unreadable record");
            None
        }
    }
}

fn directories(parent: &Path) -> io::Result<Vec<std::path::PathBuf>> {
    fs::read_dir(parent)?.map(|entry| entry.map(|entry| entry.path())).collect()
}

/// Removes a directory and whatever is mounted in it.
fn remove_directory(directory: &Path) -> io::Result<()> {
    for mount in mounts::below(directory)? {
        mounts::unmount(&mount)?;
    }
    files::remove_tree(directory)
}

/// Makes the program that becomes shims reachable by a path through which nobody can write to it: a container that gets
/// hold of `/proc/<shim>/exe` could otherwise replace this program on the host.
fn mount_executable(config: &Config) -> io::Result<PathBuf> {
    let name = config.shim_executable.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let target = config.state.join("bin").join(name);
    fs::create_dir_all(config.state.join("bin"))?;
    // An upgrade brings another program; shims that run keep theirs.
    mounts::unmount(&target)?;
    fs::File::create(&target)?;
    mounts::bind_read_only(&config.shim_executable, &target)?;
    Ok(target)
}
