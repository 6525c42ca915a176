//! How much disk a tree takes.

use std::{collections::HashSet, fs, io, os::unix::fs::MetadataExt, path::Path};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TreeUsage {
    pub bytes: u64,
    pub inodes: u64,
}

/// Measures a tree, counting a file with several names once. What disappears meanwhile is not counted.
pub(crate) fn of_tree(root: &Path) -> io::Result<TreeUsage> {
    let mut usage = TreeUsage::default();
    let mut seen = HashSet::new();
    let mut pending = vec![root.to_owned()];
    while let Some(directory) = pending.pop() {
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for entry in entries.filter_map(Result::ok) {
            let Ok(metadata) = fs::symlink_metadata(entry.path()) else { continue };
            if metadata.nlink() > 1 && !metadata.is_dir() && !seen.insert((metadata.dev(), metadata.ino())) {
                continue;
            }
            usage.bytes += metadata.blocks() * 512;
            usage.inodes += 1;
            if metadata.is_dir() {
                pending.push(entry.path());
            }
        }
    }
    Ok(usage)
}
