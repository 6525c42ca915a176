//! Files that appear whole or not at all.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::PkiError;

/// Writes a file that only its owner may read, through a temporary neighbour and a rename.
pub fn write_private(path: &Path, contents: &str) -> Result<(), PkiError> {
    write(path, contents, 0o600)
}

pub(crate) fn write(path: &Path, contents: &str, mode: u32) -> Result<(), PkiError> {
    let fail = |action, source| PkiError::File { action, path: path.to_path_buf(), source };
    let parent = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(|e| fail("create the directory of", e))?;
    let mut temporary = tempfile::NamedTempFile::new_in(parent).map_err(|e| fail("write", e))?;
    temporary.as_file().set_permissions(Permissions::from_mode(mode)).map_err(|e| fail("write", e))?;
    temporary.write_all(contents.as_bytes()).map_err(|e| fail("write", e))?;
    temporary.as_file().sync_all().map_err(|e| fail("sync", e))?;
    temporary.persist(path).map_err(|e| fail("write", e.error))?;
    File::open(parent).and_then(|directory| directory.sync_all()).map_err(|e| fail("sync", e))
}

pub(crate) fn read(path: &Path) -> Result<String, PkiError> {
    fs::read_to_string(path).map_err(|source| PkiError::File {
        action: "read",
        path: path.to_path_buf(),
        source,
    })
}
