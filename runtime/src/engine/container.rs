//! Making and removing containers. Starting and stopping are elsewhere.

use std::{fs, io, path::Path, sync::Arc};

use k8s_cri::v1::{ContainerConfig, ContainerEventType, NamespaceMode};
use parking_lot::RwLock;
use tokio::sync::{Mutex, watch};

use super::image_volume::{self, ImageVolume};
use super::{Engine, blocking, new_id, sandbox};
use crate::{
    cgroup::{Cgroups, Limits},
    error::Error,
    files,
    image::{ImageError, ImageRecord},
    mounts,
    record::{ContainerEntry, ContainerRecord, Phase, Sandbox},
    shim::protocol::Request,
    shim_client,
    spec::{self, SpecInputs, User},
    time,
};

impl Engine {
    /// Makes a container: its root file system and its specification. Nothing runs yet.
    pub(crate) async fn create_container(
        &self,
        sandbox_id: &str,
        config: ContainerConfig,
    ) -> Result<String, Error> {
        let sandbox = self.sandbox(sandbox_id)?;
        if sandbox.record.read().stopped {
            return Err(Error::State(format!("sandbox {sandbox_id:?} is not running")));
        }
        // Until the container is known, nothing else says that its layers are in use.
        let _layers_stay = self.images.keep_layers().await;
        let wanted = config.image.clone().unwrap_or_default().image;
        let image =
            self.images.find(&wanted).ok_or_else(|| Error::Image(ImageError::NotFound(wanted.clone())))?;
        let id = new_id();
        let (volumes, volume_layers) = self.image_volumes(&config.mounts)?;
        let mut record = new_record(&id, &sandbox, config, &image, &self.config.pod_cgroup());
        record.chains.extend(volume_layers);
        let directory = self.container_directory(&id);
        let entry = Arc::new(ContainerEntry {
            id: id.clone(),
            sandbox_id: sandbox.id.clone(),
            directory,
            record: RwLock::new(record),
            phase: watch::Sender::new(Phase::Created),
            changing: Mutex::new(()),
        });
        let pid_namespace_of = self.pid_namespace(&entry, &sandbox)?;
        if let Err(error) = self.prepare_container(&entry, &sandbox, image, volumes, pid_namespace_of).await {
            if let Err(error) = self.remove_container_files(&entry).await {
                tracing::warn!(container = id, %error, "cleaning up after a container that was not made");
            }
            return Err(error);
        }
        self.containers.write().insert(id.clone(), entry);
        self.announce(&id, &sandbox, ContainerEventType::ContainerCreatedEvent);
        Ok(id)
    }

    async fn prepare_container(
        &self,
        entry: &Arc<ContainerEntry>,
        sandbox: &Arc<Sandbox>,
        image: Arc<ImageRecord>,
        volumes: Vec<ImageVolume>,
        pid_namespace_of: Option<i32>,
    ) -> Result<(), Error> {
        let layers = self.images.layer_directories(&image.chains);
        let writable = self.writable_directory(&entry.id);
        let cgroup_v2 = matches!(self.cgroups, Cgroups::V2(_));
        let (entry, sandbox) = (Arc::clone(entry), Arc::clone(sandbox));
        let preparing = tokio::task::spawn_blocking(move || {
            let fail = |what: &'static str| Error::io(what);
            fs::create_dir(&entry.directory).map_err(fail("making the container"))?;
            save(&entry).map_err(fail("recording the container"))?;
            mount_root(&entry, &layers, &writable).map_err(fail("mounting the root file system"))?;
            image_volume::mount(&entry.directory, &volumes, &mut entry.record.write().config.mounts)
                .map_err(fail("mounting an image volume"))?;
            let record = entry.record.read().clone();
            let sandbox_record = sandbox.record.read().clone();
            let rootfs = entry.rootfs();
            let hostname = sandbox::hostname(&sandbox_record);
            let built = spec::build(&SpecInputs {
                config: &record.config,
                image: &image.config,
                rootfs: &rootfs,
                cgroup: &record.cgroup,
                hostname: &hostname,
                sandbox_directory: &sandbox.directory,
                host_ipc: sandbox.uses_host(|options| options.ipc()),
                pid_namespace_of,
                cgroup_v2,
            })?;
            let json = serde_json::to_vec(&built.json).map_err(|error| Error::Internal(error.to_string()))?;
            files::replace(&entry.directory.join("config.json"), &json)
                .map_err(fail("writing the specification"))?;
            entry.record.write().user = built.user;
            save(&entry).map_err(fail("recording the container"))
        });
        preparing.await.map_err(|error| Error::Internal(error.to_string()))?
    }

    /// The process whose process namespace a container joins.
    fn pid_namespace(&self, entry: &ContainerEntry, sandbox: &Sandbox) -> Result<Option<i32>, Error> {
        let record = entry.record.read();
        let security = record.config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
        let options = security.and_then(|security| security.namespace_options.clone()).unwrap_or_default();
        let shared = *sandbox.pause_pid.read();
        match options.pid() {
            // The default value of the message means "pod", but only a sandbox that shares has something to join.
            NamespaceMode::Pod
                if shared.is_none() && sandbox.namespace_options().pid() == NamespaceMode::Pod =>
            {
                Err(Error::State("the process that holds the pod's process namespace has ended".into()))
            }
            NamespaceMode::Pod => Ok(shared),
            NamespaceMode::Target => match self.container(&options.target_id)?.phase() {
                Phase::Running { pid, .. } => Ok(Some(pid)),
                _ => Err(Error::State(format!("container {:?} is not running", options.target_id))),
            },
            NamespaceMode::Container | NamespaceMode::Node => Ok(None),
        }
    }

    pub(crate) async fn remove_container(&self, id: &str) -> Result<(), Error> {
        let Ok(entry) = self.container(id) else { return Ok(()) };
        self.stop_container_entry(&entry, std::time::Duration::ZERO).await?;
        let _changing = entry.changing.lock().await;
        let directory = self.sandbox_directory(&entry.sandbox_id);
        // A shim that has ended has forgotten.
        if let Err(error) =
            shim_client::ask(&directory, &Request::Forget { container: entry.id.clone() }).await
        {
            tracing::debug!(container = entry.id, %error, "shim not told to forget");
        }
        self.remove_container_files(&entry).await?;
        self.containers.write().remove(&entry.id);
        if let Ok(sandbox) = self.sandbox(&entry.sandbox_id) {
            self.announce(&entry.id, &sandbox, ContainerEventType::ContainerDeletedEvent);
        }
        Ok(())
    }

    pub(super) async fn remove_container_files(&self, entry: &ContainerEntry) -> Result<(), Error> {
        let (rootfs, directory) = (entry.rootfs(), entry.directory.clone());
        let (writable, cgroup) = (self.writable_directory(&entry.id), entry.record.read().cgroup.clone());
        let cgroups = self.cgroups.clone();
        blocking("removing the container", move || {
            cgroups.kill_all(&cgroup).and_then(|()| cgroups.remove(&cgroup)).map_err(io::Error::other)?;
            mounts::unmount(&rootfs)?;
            image_volume::unmount(&directory)?;
            // What is still mounted inside would be emptied with it.
            if mounts::below(&directory)?.is_empty() {
                files::remove_tree(&writable)?;
                files::remove_tree(&directory)
            } else {
                Err(io::Error::other("something is still mounted in the container"))
            }
        })
        .await
    }

    pub(crate) async fn update_resources(
        &self,
        id: &str,
        resources: k8s_cri::v1::LinuxContainerResources,
    ) -> Result<(), Error> {
        let entry = self.container(id)?;
        let _changing = entry.changing.lock().await;
        if let Phase::Running { pid, .. } = entry.phase() {
            let limits = limits(&resources);
            let (cgroups, cgroup) = (self.cgroups.clone(), entry.record.read().cgroup.clone());
            blocking("changing the limits", move || {
                if resources.oom_score_adj != 0
                    && let Err(error) =
                        fs::write(format!("/proc/{pid}/oom_score_adj"), resources.oom_score_adj.to_string())
                {
                    tracing::info!(%error, "oom_score_adj stays as it is");
                }
                cgroups.set_limits(&cgroup, &limits).map_err(io::Error::other)
            })
            .await?;
        }
        let mut record = entry.record.write();
        let linux = record.config.linux.get_or_insert_default();
        merge(linux.resources.get_or_insert_default(), &resources);
        drop(record);
        save(&entry).map_err(Error::io("recording the container"))
    }
}

fn limits(resources: &k8s_cri::v1::LinuxContainerResources) -> Limits {
    Limits {
        cpu_shares: u64::try_from(resources.cpu_shares).unwrap_or_default(),
        cpu_quota: resources.cpu_quota,
        cpu_period: u64::try_from(resources.cpu_period).unwrap_or_default(),
        memory_bytes: resources.memory_limit_in_bytes,
        cpuset_cpus: resources.cpuset_cpus.clone(),
        cpuset_mems: resources.cpuset_mems.clone(),
        unified: resources.unified.clone().into_iter().collect(),
    }
}

/// Takes over what is said; what is not said stays.
fn merge(into: &mut k8s_cri::v1::LinuxContainerResources, from: &k8s_cri::v1::LinuxContainerResources) {
    let number = |into: &mut i64, from: i64| {
        if from != 0 {
            *into = from;
        }
    };
    number(&mut into.cpu_shares, from.cpu_shares);
    number(&mut into.cpu_quota, from.cpu_quota);
    number(&mut into.cpu_period, from.cpu_period);
    number(&mut into.memory_limit_in_bytes, from.memory_limit_in_bytes);
    number(&mut into.oom_score_adj, from.oom_score_adj);
    if !from.cpuset_cpus.is_empty() {
        into.cpuset_cpus = from.cpuset_cpus.clone();
    }
    if !from.cpuset_mems.is_empty() {
        into.cpuset_mems = from.cpuset_mems.clone();
    }
    into.unified.extend(from.unified.clone());
}

pub(super) fn save(entry: &ContainerEntry) -> io::Result<()> {
    let record = entry.record.read().clone();
    files::replace(&entry.directory.join("container.json"), &serde_json::to_vec(&record)?)
}

fn mount_root(entry: &ContainerEntry, layers: &[std::path::PathBuf], writable: &Path) -> io::Result<()> {
    let (rootfs, upper, work) = (entry.rootfs(), writable.join("upper"), writable.join("work"));
    fs::create_dir(&rootfs)?;
    fs::create_dir_all(&upper)?;
    fs::create_dir_all(&work)?;
    if layers.is_empty() {
        // An image of nothing: an empty layer stands in for it.
        let empty = writable.join("empty");
        fs::create_dir_all(&empty)?;
        return mounts::overlay(&rootfs, &[empty], Some((&upper, &work)));
    }
    mounts::overlay(&rootfs, layers, Some((&upper, &work)))
}

fn new_record(
    id: &str,
    sandbox: &Sandbox,
    config: ContainerConfig,
    image: &ImageRecord,
    default_parent: &str,
) -> ContainerRecord {
    let sandbox_record = sandbox.record.read();
    let parent =
        sandbox_record.config.linux.as_ref().map(|linux| linux.cgroup_parent.clone()).unwrap_or_default();
    let parent = parent.trim_matches('/');
    let cgroup = if parent.is_empty() { format!("{default_parent}/{id}") } else { format!("/{parent}/{id}") };
    let has_log = !config.log_path.is_empty() && !sandbox_record.config.log_directory.is_empty();
    let log_path = has_log.then(|| Path::new(&sandbox_record.config.log_directory).join(&config.log_path));
    ContainerRecord {
        id: id.to_owned(),
        sandbox_id: sandbox.id.clone(),
        image_id: image.id.clone(),
        image_ref: image.digests.iter().next().cloned().unwrap_or_else(|| image.id.clone()),
        chains: image.chains.clone(),
        created_at: time::now(),
        log_path,
        cgroup,
        user: User::default(),
        stop_signal: image.config.config.stop_signal.clone(),
        config,
    }
}
