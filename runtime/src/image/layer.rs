//! Unpacking one layer into a directory that overlayfs can use.
//!
//! Deletions become overlayfs whiteouts and opaque directories. Nothing is ever written outside the directory: paths are
//! resolved component by component against this layer and those below, with links confined to the image's root, before
//! anything is created. Directories that the archive does not mention take owner and mode from the layers below.
//!
//! Assumes that nobody else writes to the directory meanwhile.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read},
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{MetadataExt, OpenOptionsExt, PermissionsExt, lchown, symlink},
    },
    path::{Component, Path, PathBuf},
};

use nix::{
    fcntl::AT_FDCWD,
    sys::{
        stat::{Mode, SFlag, UtimensatFlags, makedev, mknod, utimensat},
        time::TimeSpec,
    },
};
use tar::{Archive, Entry, EntryType};

use super::ImageError;

const WHITEOUT_PREFIX: &[u8] = b".wh.";
const OPAQUE_MARKER: &[u8] = b".wh..wh..opq";
const OPAQUE_ATTRIBUTE: &str = "trusted.overlay.opaque";
const PAX_ATTRIBUTE: &str = "SCHILY.xattr.";
/// As many links as the kernel follows in one path.
const LINKS_MAX: usize = 40;

/// Unpacks a layer's archive into `target`, over the layers `below` (top one first).
pub(super) fn unpack<R: Read>(archive: R, target: &Path, below: &[PathBuf]) -> Result<(), ImageError> {
    let mut unpacker = Unpacker { target, below, directory_times: Vec::new() };
    let mut archive = Archive::new(archive);
    let entries = archive.entries().map_err(ImageError::io("reading layer"))?;
    for entry in entries {
        let mut entry = entry.map_err(ImageError::io("reading layer"))?;
        let path = PathBuf::from(OsString::from_vec(entry.path_bytes().into_owned()));
        unpacker.entry(&mut entry, &path).map_err(ImageError::io(format!("unpacking {}", path.display())))?;
    }
    // Times of directories go last, because filling a directory changes them.
    for (path, time) in unpacker.directory_times.into_iter().rev() {
        set_time(&path, time).map_err(ImageError::io("setting times"))?;
    }
    Ok(())
}

struct Unpacker<'a> {
    target: &'a Path,
    below: &'a [PathBuf],
    directory_times: Vec<(PathBuf, i64)>,
}

/// What a path is in the layers below.
enum Below {
    Nothing,
    Directory(fs::Metadata),
    Link(PathBuf),
    Other,
}

impl Unpacker<'_> {
    fn entry<R: Read>(&mut self, entry: &mut Entry<'_, R>, path: &Path) -> io::Result<()> {
        let components = clean(path)?;
        let Some((name, parents)) = components.split_last() else {
            // The root itself: its owner and mode count, its name does not.
            return self.set_metadata(entry, self.target, true);
        };
        let parent = self.directory(parents)?;
        if name.as_bytes() == OPAQUE_MARKER {
            return set_attribute(&parent, OPAQUE_ATTRIBUTE, b"y");
        }
        if let Some(deleted) = name.as_bytes().strip_prefix(WHITEOUT_PREFIX) {
            let path = parent.join(checked_name(OsStr::from_bytes(deleted))?);
            remove(&path)?;
            return Ok(mknod(&path, SFlag::S_IFCHR, Mode::empty(), makedev(0, 0))?);
        }
        let path = parent.join(name);
        match entry.header().entry_type() {
            EntryType::Directory => {
                if !is_directory(&path) {
                    remove(&path)?;
                    fs::create_dir(&path)?;
                }
                self.set_metadata(entry, &path, true)
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                remove(&path)?;
                let mut file = create(&path)?;
                io::copy(entry, &mut file)?;
                drop(file);
                self.set_metadata(entry, &path, false)
            }
            EntryType::Symlink => {
                remove(&path)?;
                symlink(link_target(entry)?, &path)?;
                self.set_metadata(entry, &path, false)
            }
            EntryType::Link => self.hard_link(&link_target(entry)?, &path),
            kind @ (EntryType::Char | EntryType::Block | EntryType::Fifo) => {
                remove(&path)?;
                make_node(entry, kind, &path)?;
                self.set_metadata(entry, &path, false)
            }
            // Headers about other entries, which the reader has applied already.
            _ => Ok(()),
        }
    }

    /// The real directory in this layer for a path of the image, made if need be.
    fn directory(&self, components: &[OsString]) -> io::Result<PathBuf> {
        let mut pending: Vec<OsString> = components.iter().rev().cloned().collect();
        let mut reached: Vec<OsString> = Vec::new();
        let mut links = 0;
        while let Some(component) = pending.pop() {
            let mut relative: PathBuf = reached.iter().collect();
            relative.push(&component);
            let own = self.target.join(&relative);
            let link = match fs::symlink_metadata(&own) {
                Ok(metadata) if metadata.is_dir() => None,
                Ok(metadata) if metadata.is_symlink() => Some(fs::read_link(&own)?),
                Ok(_) => {
                    // The image replaces a file by a directory without saying so.
                    remove(&own)?;
                    fs::create_dir(&own)?;
                    None
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => match self.below(&relative)? {
                    Below::Link(link) => Some(link),
                    Below::Directory(metadata) => {
                        fs::create_dir(&own)?;
                        lchown(&own, Some(metadata.uid()), Some(metadata.gid()))?;
                        fs::set_permissions(&own, Permissions::from_mode(metadata.mode() & 0o7777))?;
                        None
                    }
                    Below::Nothing | Below::Other => {
                        fs::create_dir(&own)?;
                        fs::set_permissions(&own, Permissions::from_mode(0o755))?;
                        None
                    }
                },
                Err(error) => return Err(error),
            };
            let Some(link) = link else {
                reached.push(component);
                continue;
            };
            links += 1;
            if links > LINKS_MAX {
                return Err(io::Error::other("too many links"));
            }
            if link.is_absolute() {
                reached.clear();
            }
            // The link's own path comes first; going up never leaves the root.
            for part in link.components().rev() {
                match part {
                    Component::Normal(name) => pending.push(name.to_owned()),
                    Component::ParentDir => pending.push("..".into()),
                    _ => {}
                }
            }
            while pending.last().is_some_and(|part| part == "..") {
                pending.pop();
                reached.pop();
            }
        }
        Ok(self.target.join(reached.iter().collect::<PathBuf>()))
    }

    /// Looks a path up in the layers below, where the first layer that knows it decides.
    fn below(&self, relative: &Path) -> io::Result<Below> {
        for layer in self.below {
            let path = layer.join(relative);
            match fs::symlink_metadata(&path) {
                Ok(metadata) if metadata.is_dir() => return Ok(Below::Directory(metadata)),
                Ok(metadata) if metadata.is_symlink() => return Ok(Below::Link(fs::read_link(&path)?)),
                Ok(metadata) if is_whiteout(&metadata) => return Ok(Below::Nothing),
                Ok(_) => return Ok(Below::Other),
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Below::Nothing)
    }

    fn hard_link(&self, target: &Path, path: &Path) -> io::Result<()> {
        let components = clean(target)?;
        let Some((name, parents)) = components.split_last() else {
            return Err(io::Error::other("a hard link to the root"));
        };
        let source = self.directory(parents)?.join(name);
        remove(path)?;
        match fs::hard_link(&source, path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // The target is in a layer below: a copy here stands for both names.
                let relative = components.iter().collect::<PathBuf>();
                let lower = self.below.iter().map(|layer| layer.join(&relative)).find(|path| is_file(path));
                let lower =
                    lower.ok_or_else(|| io::Error::other("a hard link to a file that does not exist"))?;
                let metadata = fs::symlink_metadata(&lower)?;
                fs::copy(&lower, &source)?;
                lchown(&source, Some(metadata.uid()), Some(metadata.gid()))?;
                fs::set_permissions(&source, Permissions::from_mode(metadata.mode() & 0o7777))?;
                fs::hard_link(&source, path)
            }
            linked => linked,
        }
    }

    fn set_metadata<R: Read>(
        &mut self,
        entry: &mut Entry<'_, R>,
        path: &Path,
        is_directory: bool,
    ) -> io::Result<()> {
        let header = entry.header();
        let number =
            |value: io::Result<u64>| value.and_then(|id| u32::try_from(id).map_err(io::Error::other));
        let (uid, gid) = (number(header.uid())?, number(header.gid())?);
        let (mode, time) = (header.mode()?, i64::try_from(header.mtime()?).unwrap_or_default());
        let is_link = header.entry_type() == EntryType::Symlink;
        // The owner first: changing it clears the bits that the mode sets, and capabilities.
        lchown(path, Some(uid), Some(gid))?;
        if !is_link {
            fs::set_permissions(path, Permissions::from_mode(mode & 0o7777))?;
        }
        for (name, value) in attributes(entry)? {
            set_attribute(path, &name, &value)?;
        }
        if is_directory {
            self.directory_times.push((path.to_owned(), time));
            return Ok(());
        }
        set_time(path, time)
    }
}

/// The components of an archive's path; one that climbs is refused.
fn clean(path: &Path) -> io::Result<Vec<OsString>> {
    let mut components = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => components.push(name.to_owned()),
            Component::ParentDir => return Err(io::Error::other("the path leaves the image")),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(components)
}

fn checked_name(name: &OsStr) -> io::Result<&OsStr> {
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes == b"." || bytes == b".." || bytes.contains(&b'/') {
        return Err(io::Error::other("a deletion without a name"));
    }
    Ok(name)
}

fn link_target<R: Read>(entry: &Entry<'_, R>) -> io::Result<PathBuf> {
    let target = entry.link_name_bytes().ok_or_else(|| io::Error::other("a link without a target"))?;
    Ok(PathBuf::from(OsString::from_vec(target.into_owned())))
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(path)
}

fn make_node<R: Read>(entry: &Entry<'_, R>, kind: EntryType, path: &Path) -> io::Result<()> {
    let header = entry.header();
    let major = header.device_major()?.unwrap_or_default();
    let minor = header.device_minor()?.unwrap_or_default();
    let flag = match kind {
        EntryType::Char => SFlag::S_IFCHR,
        EntryType::Block => SFlag::S_IFBLK,
        _ => SFlag::S_IFIFO,
    };
    Ok(mknod(path, flag, Mode::S_IRUSR, makedev(major.into(), minor.into()))?)
}

fn attributes<R: Read>(entry: &mut Entry<'_, R>) -> io::Result<Vec<(String, Vec<u8>)>> {
    let Some(extensions) = entry.pax_extensions()? else { return Ok(Vec::new()) };
    let mut attributes = Vec::new();
    for extension in extensions {
        let extension = extension?;
        if let Ok(key) = extension.key()
            && let Some(name) = key.strip_prefix(PAX_ATTRIBUTE)
            // An image must not set what overlayfs takes for its own.
            && !name.starts_with("trusted.overlay.")
        {
            attributes.push((name.to_owned(), extension.value_bytes().to_vec()));
        }
    }
    Ok(attributes)
}

fn set_attribute(path: &Path, name: &str, value: &[u8]) -> io::Result<()> {
    match xattr::set(path, name, value) {
        // File systems without such attributes lose them, as everywhere.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) && name != OPAQUE_ATTRIBUTE => Ok(()),
        result => result,
    }
}

fn set_time(path: &Path, seconds: i64) -> io::Result<()> {
    let time = TimeSpec::new(seconds, 0);
    Ok(utimensat(AT_FDCWD, path, &time, &time, UtimensatFlags::NoFollowSymlink)?)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn is_directory(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

fn is_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file())
}

fn is_whiteout(metadata: &fs::Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt;
    metadata.file_type().is_char_device() && metadata.rdev() == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use tar::{Builder, Header};

    struct Layer(Builder<Vec<u8>>);

    impl Layer {
        fn new() -> Self {
            Self(Builder::new(Vec::new()))
        }

        fn add(mut self, kind: EntryType, path: &str, mode: u32, content: &str) -> Self {
            let mut header = Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(mode);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(1_000_000);
            // Written by hand: the builder would refuse what an attacker sends.
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            let is_link = matches!(kind, EntryType::Symlink | EntryType::Link);
            if is_link {
                header.as_old_mut().linkname[..content.len()].copy_from_slice(content.as_bytes());
            }
            let data = if is_link { "" } else { content };
            header.set_size(data.len() as u64);
            header.set_cksum();
            self.0.append(&header, data.as_bytes()).unwrap();
            self
        }

        fn file(self, path: &str, content: &str) -> Self {
            self.add(EntryType::Regular, path, 0o644, content)
        }

        fn unpack(self, target: &Path, below: &[PathBuf]) -> Result<(), ImageError> {
            fs::create_dir(target).unwrap();
            unpack(&self.0.into_inner().unwrap()[..], target, below)
        }
    }

    fn is_root() -> bool {
        nix::unistd::geteuid().is_root()
    }

    #[test]
    fn a_path_that_climbs_should_be_refused() {
        let dir = tempfile::tempdir().unwrap();
        let evil = Layer::new().file("a/../../evil", "x");
        assert!(evil.unpack(&dir.path().join("layer"), &[]).is_err());
        assert!(!dir.path().join("evil").exists());
    }

    #[test]
    fn links_should_never_lead_out_of_the_layer() {
        if !is_root() {
            return eprintln!("skipped: needs root");
        }
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        let target = dir.path().join("layer");
        Layer::new()
            .add(EntryType::Symlink, "absolute", 0o777, outside.to_str().unwrap())
            .file("absolute/evil", "x")
            .add(EntryType::Symlink, "climbing", 0o777, "../../../outside")
            .file("climbing/evil", "x")
            .unpack(&target, &[])
            .unwrap();
        assert!(fs::read_dir(&outside).unwrap().next().is_none());
        assert_eq!(fs::read_to_string(target.join("outside/evil")).unwrap(), "x");
    }

    #[test]
    fn directories_that_are_not_mentioned_should_be_as_they_are_below() {
        if !is_root() {
            return eprintln!("skipped: needs root");
        }
        let dir = tempfile::tempdir().unwrap();
        let (base, top) = (dir.path().join("base"), dir.path().join("top"));
        Layer::new()
            .add(EntryType::Directory, "tmp", 0o1777, "")
            .add(EntryType::Directory, "usr/lib", 0o755, "")
            .add(EntryType::Symlink, "lib", 0o777, "usr/lib")
            .unpack(&base, &[])
            .unwrap();
        Layer::new().file("tmp/x", "x").file("lib/y", "y").unpack(&top, std::slice::from_ref(&base)).unwrap();
        assert_eq!(fs::metadata(top.join("tmp")).unwrap().mode() & 0o7777, 0o1777);
        // The link below stays a link: the file went where it leads.
        assert_eq!(fs::read_to_string(top.join("usr/lib/y")).unwrap(), "y");
        assert!(!top.join("lib").exists());
    }

    #[test]
    fn deletions_should_become_what_overlayfs_understands() {
        if !is_root() {
            return eprintln!("skipped: needs root");
        }
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("layer");
        Layer::new()
            .file("etc/.wh.gone", "")
            .add(EntryType::Directory, "var", 0o755, "")
            .file("var/.wh..wh..opq", "")
            .unpack(&target, &[])
            .unwrap();
        assert!(is_whiteout(&fs::symlink_metadata(target.join("etc/gone")).unwrap()));
        assert_eq!(xattr::get(target.join("var"), OPAQUE_ATTRIBUTE).unwrap(), Some(b"y".to_vec()));
    }

    #[test]
    fn hard_links_and_set_user_bits_should_survive() {
        if !is_root() {
            return eprintln!("skipped: needs root");
        }
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("layer");
        Layer::new()
            .add(EntryType::Regular, "su", 0o4755, "program")
            .add(EntryType::Link, "also-su", 0o4755, "su")
            .unpack(&target, &[])
            .unwrap();
        let (one, other) =
            (fs::metadata(target.join("su")).unwrap(), fs::metadata(target.join("also-su")).unwrap());
        assert_eq!(one.ino(), other.ino());
        assert_eq!(one.mode() & 0o7777, 0o4755);
    }
}
