//! The file with the keys: one per line, the first seals, all of them open.
//!
//! Made at the first start and readable by its owner alone. Without it the values that it has sealed are lost: it belongs
//! into every backup, apart from the store's.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::cipher::{CipherError, Key};

const HEADER: &str = "# Keys that secrets are encrypted with at rest. The first one is used for writing, all of them for reading.\n# Keep a copy apart from that of the store: without these keys its secrets cannot be read.\n";

/// A key file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It cannot be read or written.
    #[error("the key file {path} cannot be {what}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// `read`, `written`
        what: &'static str,
        /// The system's words.
        source: std::io::Error,
    },
    /// Others can read it, or a line is no key. It has to be corrected.
    #[error("the key file {path} cannot be used: {why}")]
    Unusable {
        /// Which.
        path: PathBuf,
        /// What to do.
        why: String,
    },
    /// No key can be made.
    #[error(transparent)]
    Cipher(#[from] CipherError),
}

/// Reads the file; `None` when there is none.
pub(super) fn read(path: &Path) -> Result<Option<Vec<Key>>, KeyFileError> {
    let io = |source| KeyFileError::Io { path: path.to_path_buf(), what: "read", source };
    let unusable = |why: String| KeyFileError::Unusable { path: path.to_path_buf(), why };
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(unusable("others than its owner can read it; run `chmod 600` on it".to_string()));
    }
    let text = fs::read_to_string(path).map_err(io)?;
    let lines =
        text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    let keys: Vec<Key> = lines
        .map(|(number, line)| {
            Key::parse(line).ok_or_else(|| unusable(format!("line {} is not 32 bytes in base64", number + 1)))
        })
        .collect::<Result<_, _>>()?;
    if keys.is_empty() {
        return Err(unusable("there is no key in it".to_string()));
    }
    Ok(Some(keys))
}

/// Writes the file whole.
pub(super) fn write(path: &Path, keys: &[Key]) -> Result<(), KeyFileError> {
    let lines: String = keys.iter().map(|key| key.to_text() + "\n").collect();
    pki::write_private(path, &format!("{HEADER}{lines}")).map_err(|error| KeyFileError::Io {
        path: path.to_path_buf(),
        what: "written",
        source: std::io::Error::other(error),
    })
}

/// Puts a new key before the others, and answers the ids of all. A running server takes it up and seals everything anew;
/// the old keys stay, for what older copies of the store hold.
pub fn rotate_key(path: &Path) -> Result<Vec<String>, KeyFileError> {
    let missing = || KeyFileError::Unusable {
        path: path.to_path_buf(),
        why: "it does not exist; a server makes it at its first start".to_string(),
    };
    let mut keys = read(path)?.ok_or_else(missing)?;
    keys.insert(0, Key::generate()?);
    write(path, &keys)?;
    Ok(keys.into_iter().map(|key| key.id).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_others_can_read_or_that_is_broken_is_refused_with_advice() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        assert!(read(&path).unwrap().is_none());
        assert!(rotate_key(&path).unwrap_err().to_string().contains("does not exist"));
        write(&path, &[Key::generate().unwrap()]).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let first = read(&path).unwrap().unwrap();
        let ids = rotate_key(&path).unwrap();
        assert_eq!((ids.len(), &ids[1]), (2, &first[0].id));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("chmod 600"));
        pki::write_private(&path, "# c\n\nnot a key\n").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("line 3"));
        pki::write_private(&path, "# nothing\n").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("no key in it"));
    }
}
