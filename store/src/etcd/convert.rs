//! Between etcd's words and the trait's.

use std::error::Error as _;
use std::sync::Arc;

use bytes::Bytes;
use etcd_client::proto::PbKeyValue;
use etcd_client::{Error, ResponseHeader};
use serde::{Deserialize, Serialize};
use tonic::Code;

use super::connect::innermost;
use crate::{Entry, Revision, StoreError};

/// Keys of the store itself begin with this; callers' keys do not, and callers never see them.
pub(super) const INTERNAL: char = '\0';

/// Where a store's revisions stand against etcd's, which cannot be set: a store that was moved here goes on counting
/// from where it was. All handles of a store find this in etcd (see [`super::origin`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Origin {
    /// What is added to etcd's revisions.
    pub(super) offset: Revision,
    /// The revision at which the move was complete, and the oldest that can be asked for.
    pub(super) oldest: Revision,
}

/// How keys and revisions of this store look within etcd.
#[derive(Clone, Debug)]
pub(super) struct KeySpace {
    prefix: Arc<str>,
    pub(super) origin: Origin,
}

impl KeySpace {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.into(), origin: Origin::default() }
    }

    /// The key as etcd knows it.
    pub(super) fn outer(&self, key: &str) -> Vec<u8> {
        [self.prefix.as_bytes(), key.as_bytes()].concat()
    }

    /// The first of the callers' keys with a prefix, and the first key past them, as etcd wants them.
    pub(super) fn bounds(&self, prefix: &str) -> (Vec<u8>, Vec<u8>) {
        let (_, end) = self.bounds_with_internal(prefix);
        (self.outer(if prefix.is_empty() { "\x01" } else { prefix }), end)
    }

    /// The same with the store's own keys.
    pub(super) fn bounds_with_internal(&self, prefix: &str) -> (Vec<u8>, Vec<u8>) {
        let start = self.outer(prefix);
        // A single zero byte means "from here on" as an end, and "the very first key" as a start.
        let end = after_prefix(&start).unwrap_or_else(|| vec![0]);
        (if start.is_empty() { vec![0] } else { start }, end)
    }

    /// The callers' key.
    pub(super) fn inner(&self, key: &[u8]) -> Result<Arc<str>, StoreError> {
        let key = std::str::from_utf8(key).ok().and_then(|key| key.strip_prefix(&*self.prefix));
        key.map(Arc::from)
            .ok_or_else(|| StoreError::Corrupt("etcd holds a key that is not ours under our prefix".into()))
    }

    pub(super) fn entry(&self, pair: PbKeyValue) -> Result<Entry, StoreError> {
        Ok(Entry {
            key: self.inner(&pair.key)?,
            value: Bytes::from(pair.value),
            create_revision: self.revision(pair.create_revision),
            mod_revision: self.revision(pair.mod_revision),
            version: unsigned(pair.version),
        })
    }

    /// The store's revision for one of etcd's.
    pub(super) fn revision(&self, etcd: i64) -> Revision {
        unsigned(etcd).saturating_add(self.origin.offset)
    }

    /// The store's revision that an answer was given at.
    pub(super) fn revision_of(&self, header: Option<&ResponseHeader>) -> Revision {
        self.revision(header.map_or(0, ResponseHeader::revision))
    }

    /// etcd's revision for one of the store's. What was before a move is not there, and nothing is before the first; etcd
    /// takes zero for the newest.
    pub(super) fn etcd_revision(&self, requested: Revision) -> Result<i64, StoreError> {
        let oldest = self.origin.oldest.max(1);
        if requested < oldest {
            return Err(StoreError::Compacted { requested, oldest });
        }
        Ok(signed(requested - self.origin.offset))
    }

    /// What etcd's revision of a key must be for a condition on the store's. No key was ever written at a negative one.
    pub(super) fn expected_revision(&self, revision: Revision) -> i64 {
        revision.checked_sub(self.origin.offset).filter(|revision| *revision > 0).map_or(-1, signed)
    }
}

/// The first key that is past all keys with the prefix.
fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte < 0xFF)?;
    let mut end = prefix.get(..=last)?.to_vec();
    if let Some(byte) = end.last_mut() {
        *byte += 1;
    }
    Some(end)
}

pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// What a failed request means.
#[derive(Debug)]
pub(super) enum Failure {
    /// etcd answered: it did nothing, and this is why.
    Refused(StoreError),
    /// It did not get as far as being carried out; trying again may help.
    NotDone(String),
    /// What users may do has changed since our token was given; nothing was done.
    StaleToken,
    /// The lease that a write named does not exist any more; nothing was written.
    LeaseGone,
    /// Nobody knows whether it was carried out.
    Unknown(String),
}

/// Says what an error means for a request about `requested`.
pub(super) fn failure_of(error: &Error, requested: Revision) -> Failure {
    let Error::GRpcStatus(status) = error else { return Failure::Unknown(error.to_string()) };
    let message = status.message();
    let said = format!("etcd: {}", status.source().map_or(message.to_owned(), innermost));
    if let Some(reason) = connect_failure(status) {
        return Failure::NotDone(format!("etcd cannot be reached: {reason}"));
    }
    match status.code() {
        Code::OutOfRange if message.contains("future") => {
            Failure::Refused(StoreError::FutureRevision { requested, current: 0 })
        }
        // etcd does not say which is the oldest.
        Code::OutOfRange => Failure::Refused(StoreError::Compacted { requested, oldest: requested + 1 }),
        Code::ResourceExhausted if message.contains("space") => Failure::Refused(StoreError::NoSpace(said)),
        Code::ResourceExhausted if message.contains("larger than max") => {
            Failure::Refused(StoreError::Setup(said))
        }
        Code::ResourceExhausted => Failure::NotDone(said),
        Code::InvalidArgument if message.contains("auth store is old") => Failure::StaleToken,
        // Said before a request is looked at, as we ask for members that have a leader.
        Code::Unavailable if message == "etcdserver: no leader" => Failure::NotDone(said),
        Code::InvalidArgument | Code::PermissionDenied | Code::FailedPrecondition | Code::Unauthenticated => {
            Failure::Refused(StoreError::Setup(said))
        }
        _ if message.contains("requested lease not found") => Failure::LeaseGone,
        _ => Failure::Unknown(said),
    }
}

/// Why no connection came about, if that is what failed: then nothing was sent.
fn connect_failure(status: &tonic::Status) -> Option<String> {
    let mut error: Option<&(dyn std::error::Error + 'static)> = status.source();
    let mut reason = None;
    while let Some(cause) = error {
        if reason.is_some() || cause.is::<tonic::ConnectError>() {
            // The innermost cause says it best.
            reason = Some(cause.to_string());
        }
        error = cause.source();
    }
    reason
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_the_next_one() {
        let keys = KeySpace::new("/gantry");
        assert_eq!(keys.bounds("/pods/"), (b"/gantry/pods/".to_vec(), b"/gantry/pods0".to_vec()));
        assert_eq!(after_prefix(b"a\xff"), Some(b"b".to_vec()));
        assert_eq!(after_prefix(b"\xff"), None);
        assert_eq!(KeySpace::new("").bounds_with_internal(""), (vec![0], vec![0]));
        assert_eq!(keys.bounds(""), (b"/gantry\x01".to_vec(), b"/gantrz".to_vec()));
    }

    #[test]
    fn a_store_that_was_moved_goes_on_counting() {
        let mut keys = KeySpace::new("");
        assert_eq!((keys.revision(7), keys.etcd_revision(7).unwrap()), (7, 7));
        keys.origin = Origin { offset: 1000, oldest: 1020 };
        assert_eq!((keys.revision(20), keys.etcd_revision(1020).unwrap()), (1020, 20));
        assert!(matches!(keys.etcd_revision(1019), Err(StoreError::Compacted { oldest: 1020, .. })));
        assert_eq!((keys.expected_revision(1001), keys.expected_revision(1000)), (1, -1));
    }
}
