//! Files that all change in one moment: they lie in a directory of their own, `..data` points to it, and what the
//! container sees points through `..data`. Upstream's layout, so that programs which watch for it work.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use super::payload::Payload;

const DATA: &str = "..data";
const DATA_NEW: &str = "..data_tmp";

/// Brings the directory to hold the payload. Readers see either the old files or the new.
pub fn write(dir: &Path, payload: &Payload, fs_group: Option<i64>) -> io::Result<()> {
    let group = fs_group.map(u32::try_from).transpose().map_err(io::Error::other)?;
    let before = std::fs::read_link(dir.join(DATA)).ok();
    if before.is_some() && holds(&dir.join(DATA), payload, group) {
        return Ok(());
    }
    let name = format!("..{}", uuid::Uuid::new_v4().simple());
    let fresh = dir.join(&name);
    make_dir(&fresh, group)?;
    for (path, file) in &payload.files {
        write_file(&fresh, path, &file.content, file.mode, group)?;
    }
    let new_link = dir.join(DATA_NEW);
    remove_if_there(&new_link)?;
    symlink(&name, &new_link)?;
    std::fs::rename(&new_link, dir.join(DATA))?;
    let visible: BTreeSet<PathBuf> = payload.files.keys().filter_map(|path| first_part(path)).collect();
    for part in &visible {
        let link = dir.join(part);
        if std::fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(part), &link)?;
        }
    }
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = PathBuf::from(entry.file_name());
        let ours = name.to_string_lossy().starts_with("..");
        if !ours && !visible.contains(&name) && entry.file_type()?.is_symlink() {
            std::fs::remove_file(entry.path())?;
        }
    }
    if let Some(before) = before {
        let old = dir.join(before);
        if old != fresh {
            std::fs::remove_dir_all(old).or_else(forgive_absence)?;
        }
    }
    Ok(())
}

/// Whether the directory holds just this payload already, as after a restart of the agent.
fn holds(data: &Path, payload: &Payload, group: Option<u32>) -> bool {
    let same = |(path, file): (&String, &super::payload::File)| {
        let full = data.join(path);
        let mode = std::fs::metadata(&full).map(|metadata| metadata.permissions().mode() & 0o777);
        mode.is_ok_and(|mode| mode == wanted_mode(file.mode, group))
            && std::fs::read(&full).is_ok_and(|content| content == file.content)
    };
    payload.files.iter().all(same) && count_files(data) == payload.files.len()
}

fn count_files(dir: &Path) -> usize {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| if entry.path().is_dir() { count_files(&entry.path()) } else { 1 }).sum()
}

/// A group that owns the volume may read it.
fn wanted_mode(mode: u32, group: Option<u32>) -> u32 {
    if group.is_some() { mode | 0o440 } else { mode }
}

fn first_part(path: &str) -> Option<PathBuf> {
    Path::new(path).components().next().map(|part| PathBuf::from(part.as_os_str()))
}

fn make_dir(path: &Path, group: Option<u32>) -> io::Result<()> {
    std::fs::create_dir(path)?;
    let mode = if group.is_some() { 0o2755 } else { 0o755 };
    if group.is_some() {
        chown(path, None, group)?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

fn write_file(base: &Path, path: &str, content: &[u8], mode: u32, group: Option<u32>) -> io::Result<()> {
    let full = base.join(path);
    let mut parents: Vec<&Path> =
        full.ancestors().skip(1).take_while(|parent| *parent != base && !parent.exists()).collect();
    parents.reverse();
    for parent in parents {
        make_dir(parent, group)?;
    }
    std::fs::write(&full, content)?;
    if group.is_some() {
        chown(&full, None, group)?;
    }
    std::fs::set_permissions(&full, std::fs::Permissions::from_mode(wanted_mode(mode, group)))
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    std::fs::remove_file(path).or_else(forgive_absence)
}

fn forgive_absence(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("atomic-{name}-{}", std::process::id()));
        drop(std::fs::remove_dir_all(&dir));
        std::fs::create_dir(&dir).unwrap();
        dir
    }

    #[test]
    fn a_new_payload_replaces_the_old_one_whole_and_leaves_nothing_behind() {
        let dir = scratch("replace");
        write(&dir, &Payload::of(&[("a", "1"), ("sub/b", "2")]), None).unwrap();
        assert_eq!(std::fs::read_to_string(dir.join("sub/b")).unwrap(), "2");
        assert_eq!(std::fs::read_link(dir.join("a")).unwrap(), Path::new("..data/a"));
        write(&dir, &Payload::of(&[("a", "3"), ("c", "4")]), None).unwrap();
        assert_eq!(std::fs::read_to_string(dir.join("a")).unwrap(), "3");
        assert!(std::fs::symlink_metadata(dir.join("sub")).is_err());
        let names = std::fs::read_dir(&dir).unwrap().count();
        assert_eq!(names, 4, "..data, its directory, a and c");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
