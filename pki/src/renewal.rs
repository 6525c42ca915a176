//! When the certificates of a directory are due.

use std::path::Path;

use jiff::Timestamp;

use crate::{PkiError, files};

/// The earliest moment at which two thirds of the life of a leaf certificate in the directory have passed; `None` where
/// there is no leaf. The authority is not renewed.
pub fn renewal_due(directory: &Path) -> Result<Option<Timestamp>, PkiError> {
    let failed = |source| PkiError::File { action: "list", path: directory.to_path_buf(), source };
    let mut earliest: Option<Timestamp> = None;
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let is_leaf = path.extension().is_some_and(|ending| ending == "crt") && !path.ends_with("ca.crt");
        if !is_leaf {
            continue;
        }
        let what = || path.display().to_string();
        let text = files::read(&path)?;
        let (_, pem) =
            x509_parser::pem::parse_x509_pem(text.as_bytes()).map_err(|e| PkiError::malformed(what(), e))?;
        let certificate = pem.parse_x509().map_err(|e| PkiError::malformed(what(), e))?;
        let due = due(certificate.validity()).map_err(|e| PkiError::malformed(what(), e))?;
        earliest = Some(earliest.map_or(due, |known| known.min(due)));
    }
    Ok(earliest)
}

/// When two thirds of a certificate's life have passed.
pub(crate) fn due(validity: &x509_parser::certificate::Validity) -> Result<Timestamp, jiff::Error> {
    let (begin, end) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    Timestamp::from_second(end - (end - begin) / 3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ClusterPki, ServerNames};
    use jiff::SignedDuration;

    #[test]
    fn the_earliest_leaf_counts_and_the_authority_does_not() {
        let directory = tempfile::tempdir().unwrap();
        assert!(renewal_due(directory.path()).unwrap().is_none());
        let now = Timestamp::now();
        ClusterPki::ensure(directory.path(), &ServerNames::default(), now).unwrap();
        let due = renewal_due(directory.path()).unwrap().unwrap();
        assert!(
            due > now + SignedDuration::from_hours(24 * 240)
                && due < now + SignedDuration::from_hours(24 * 250)
        );
        // When that moment has come, a start renews, and the next moment lies ahead.
        let then = due + SignedDuration::from_secs(1);
        ClusterPki::ensure(directory.path(), &ServerNames::default(), then).unwrap();
        assert!(renewal_due(directory.path()).unwrap().unwrap() > then);
    }
}
