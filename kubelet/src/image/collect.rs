//! Removes images that nobody uses when the disk fills up.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use k8s_cri::v1::{Image, ImageSpec};

use crate::agent_state::Agent;
use crate::cri::CriError;
use crate::pod::PodExt;

/// Remembers when images were first seen and last used.
pub struct ImageCollector {
    agent: Arc<Agent>,
    seen: HashMap<String, (Instant, Instant)>,
}

impl ImageCollector {
    /// One that has seen nothing yet.
    pub fn new(agent: Arc<Agent>) -> Self {
        Self { agent, seen: HashMap::new() }
    }

    /// Looks at the images' disk, and removes what it must; `hard` for all that can go.
    pub async fn collect(&mut self, hard: bool) {
        if let Err(error) = self.try_collect(hard).await {
            tracing::warn!(%error, "images could not be looked at");
        }
    }

    async fn try_collect(&mut self, hard: bool) -> Result<(), CriError> {
        let (images, in_use) = tokio::try_join!(self.agent.cri.list_images(), self.in_use())?;
        self.note(&images, &in_use);
        let (used, total) = self.disk().await;
        let config = &self.agent.config.image_gc;
        let percent = |used: u64| used.saturating_mul(100).checked_div(total).unwrap_or(0);
        if !hard && percent(used) < u64::from(config.high_percent) {
            return Ok(());
        }
        let goal = total / 100 * u64::from(config.low_percent);
        let mut to_free = if hard { u64::MAX } else { used.saturating_sub(goal) };
        let mut unused: Vec<&Image> =
            images.iter().filter(|image| !image.pinned && !is_used(image, &in_use)).collect();
        unused.sort_by_key(|image| self.seen.get(&image.id).map(|(_, used)| *used));
        for image in unused {
            let old_enough =
                self.seen.get(&image.id).is_some_and(|(first, _)| first.elapsed() >= config.minimum_age);
            if to_free == 0 || !old_enough {
                continue;
            }
            match self.agent.cri.remove_image(&image.id).await {
                Ok(()) => {
                    tracing::info!(image = image.id, names = ?image.repo_tags, "removed an unused image to make room");
                    to_free = to_free.saturating_sub(image.size);
                    self.agent.node_changed.notify_one();
                }
                Err(error) => tracing::warn!(image = image.id, %error, "an unused image cannot be removed"),
            }
        }
        Ok(())
    }

    async fn in_use(&self) -> Result<HashSet<String>, CriError> {
        let containers = self.agent.cri.list_containers(None).await?;
        let names = containers
            .into_iter()
            .flat_map(|c| [c.image_ref, c.image_id, c.image.map(|image| image.image).unwrap_or_default()]);
        let mut names: HashSet<String> = names.filter(|name| !name.is_empty()).collect();
        for pod in self.agent.mailboxes().iter().map(|mailbox| mailbox.latest()) {
            for source in pod.spec().volumes.iter().flatten().filter_map(|volume| volume.image.as_ref()) {
                let image = source.reference.clone().unwrap_or_default();
                let present =
                    self.agent.cri.image_status(ImageSpec { image, ..ImageSpec::default() }).await?;
                names.extend(present.map(|image| image.id));
            }
        }
        Ok(names)
    }

    fn note(&mut self, images: &[Image], in_use: &HashSet<String>) {
        let now = Instant::now();
        self.seen.retain(|id, _| images.iter().any(|image| image.id == *id));
        for image in images {
            let entry = self.seen.entry(image.id.clone()).or_insert((now, now));
            if is_used(image, in_use) {
                entry.1 = now;
            }
        }
    }

    /// Bytes used and in all, where the runtime keeps images.
    async fn disk(&self) -> (u64, u64) {
        let info = self.agent.cri.image_fs_info().await.ok();
        let place = info.and_then(|info| info.image_filesystems.into_iter().next()).and_then(|fs| fs.fs_id);
        let place = place.map_or(self.agent.config.root_dir.clone(), |id| PathBuf::from(id.mountpoint));
        match nix::sys::statvfs::statvfs(&place) {
            Ok(stat) => {
                let unit = stat.fragment_size();
                ((stat.blocks() - stat.blocks_free()) * unit, stat.blocks() * unit)
            }
            Err(_) => (0, 1),
        }
    }
}

fn is_used(image: &Image, in_use: &HashSet<String>) -> bool {
    in_use.contains(&image.id)
        || image.repo_tags.iter().any(|tag| in_use.contains(tag))
        || image.repo_digests.iter().any(|digest| in_use.contains(digest))
}
