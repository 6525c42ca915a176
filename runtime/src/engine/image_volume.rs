//! Images that are mounted in containers as volumes: read-only, their layers as one tree.
//!
//! Each is an overlay of its own in the container's directory, and goes with the container. What of it the container sees is
//! looked up within it: no link in an image leads out of it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use k8s_cri::v1::Mount;

use super::Engine;
use crate::{error::Error, image::ImageError, mounts, rooted};

/// The annotation of a mount's image that says which part of it is mounted. The field of the CRI for this is newer than the
/// messages that this is built with.
const PART: &str = "gantry.image-sub-path";

/// An image that a container wants to see.
pub(super) struct ImageVolume {
    /// Which of the container's mounts it is.
    index: usize,
    layers: Vec<PathBuf>,
}

impl Engine {
    /// The images that a container's mounts name, with the layers that they stand on.
    pub(super) fn image_volumes(&self, mounts: &[Mount]) -> Result<(Vec<ImageVolume>, Vec<String>), Error> {
        let (mut volumes, mut chains) = (Vec::new(), Vec::new());
        for (index, mount) in mounts.iter().enumerate() {
            let Some(wanted) = &mount.image else { continue };
            let missing = || Error::Image(ImageError::NotFound(wanted.image.clone()));
            let image = self.images.find(&wanted.image).ok_or_else(missing)?;
            volumes.push(ImageVolume { index, layers: self.images.layer_directories(&image.chains) });
            chains.extend(image.chains.iter().cloned());
        }
        Ok((volumes, chains))
    }
}

/// Mounts the images and says in `wanted` where they are.
pub(super) fn mount(directory: &Path, volumes: &[ImageVolume], wanted: &mut [Mount]) -> io::Result<()> {
    for volume in volumes {
        let Some(mount) = wanted.get_mut(volume.index) else { continue };
        let root = place(directory).join(volume.index.to_string());
        fs::create_dir_all(&root)?;
        // The kernel wants two layers at least where none is written to: empty ones stand in at the bottom.
        let empty = ["empty", "nothing"].map(|name| place(directory).join(name));
        empty.iter().try_for_each(fs::create_dir_all)?;
        let layers: Vec<PathBuf> = volume.layers.iter().chain(&empty).cloned().collect();
        mounts::overlay(&root, &layers, None)?;
        let part = mount.image.as_ref().and_then(|image| image.annotations.get(PART));
        let part = part.map(String::as_str).unwrap_or_default();
        let source = rooted::find(&root, Path::new(part))
            .map_err(|error| io::Error::new(error.kind(), format!("the image has no {part:?}: {error}")))?;
        mount.host_path = source.display().to_string();
        mount.readonly = true;
    }
    Ok(())
}

/// Unmounts what [`mount`] has mounted.
pub(super) fn unmount(directory: &Path) -> io::Result<()> {
    match fs::read_dir(place(directory)) {
        Ok(entries) => entries.into_iter().try_for_each(|entry| mounts::unmount(&entry?.path())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn place(directory: &Path) -> PathBuf {
    directory.join("images")
}
