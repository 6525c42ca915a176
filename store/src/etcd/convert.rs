//! Between etcd's words and the trait's.

use std::sync::Arc;

use bytes::Bytes;
use etcd_client::proto::PbKeyValue;
use etcd_client::{Error, ResponseHeader};

use crate::{Entry, Revision, StoreError};

/// The keys of this store within etcd: a prefix that callers never see.
#[derive(Clone, Debug)]
pub(super) struct KeySpace {
    prefix: Arc<str>,
}

impl KeySpace {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.into() }
    }

    /// The key as etcd knows it.
    pub(super) fn outer(&self, key: &str) -> Vec<u8> {
        [self.prefix.as_bytes(), key.as_bytes()].concat()
    }

    /// The first key of a prefix, and the first one past it, as etcd wants them.
    pub(super) fn bounds(&self, prefix: &str) -> (Vec<u8>, Vec<u8>) {
        let start = self.outer(prefix);
        // A single zero byte means "from here on" as an end, and "the very first key" as a start.
        let end = after_prefix(&start).unwrap_or_else(|| vec![0]);
        (if start.is_empty() { vec![0] } else { start }, end)
    }

    fn inner(&self, key: &[u8]) -> Result<Arc<str>, StoreError> {
        let key = std::str::from_utf8(key).ok().and_then(|key| key.strip_prefix(&*self.prefix));
        key.map(Arc::from)
            .ok_or_else(|| StoreError::Corrupt("etcd holds a key that is not ours under our prefix".into()))
    }

    pub(super) fn entry(&self, pair: PbKeyValue) -> Result<Entry, StoreError> {
        Ok(Entry {
            key: self.inner(&pair.key)?,
            value: Bytes::from(pair.value),
            create_revision: unsigned(pair.create_revision),
            mod_revision: unsigned(pair.mod_revision),
            version: unsigned(pair.version),
        })
    }

    pub(super) fn key_of(&self, pair: &PbKeyValue) -> Result<Arc<str>, StoreError> {
        self.inner(&pair.key)
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

pub(super) fn revision_of(header: Option<&ResponseHeader>) -> Revision {
    header.map_or(0, |header| unsigned(header.revision()))
}

/// gRPC's status codes, as far as etcd's errors need telling apart.
mod code {
    pub(super) const INVALID_ARGUMENT: i32 = 3;
    pub(super) const PERMISSION_DENIED: i32 = 7;
    pub(super) const RESOURCE_EXHAUSTED: i32 = 8;
    pub(super) const FAILED_PRECONDITION: i32 = 9;
    pub(super) const OUT_OF_RANGE: i32 = 11;
    pub(super) const UNAUTHENTICATED: i32 = 16;
}

/// What a failed request means.
#[derive(Debug)]
pub(super) enum Failure {
    /// etcd answered: it did nothing, and this is why.
    Refused(StoreError),
    /// The lease that a write named does not exist any more; nothing was written.
    LeaseGone,
    /// Nobody knows whether it was carried out.
    Unknown(String),
}

impl Failure {
    /// For requests that change nothing, where it does not matter whether they were carried out.
    pub(super) fn of_read(self) -> StoreError {
        match self {
            Self::Refused(error) => error,
            Self::LeaseGone => StoreError::Unavailable("the lease is gone".into()),
            Self::Unknown(message) => StoreError::Unavailable(message),
        }
    }
}

/// Says what an error means for a request about `requested`.
pub(super) fn failure_of(error: &Error, requested: Revision) -> Failure {
    let Error::GRpcStatus(status) = error else { return Failure::Unknown(error.to_string()) };
    let message = status.message();
    match i32::from(status.code()) {
        code::OUT_OF_RANGE if message.contains("future") => {
            Failure::Refused(StoreError::FutureRevision { requested, current: 0 })
        }
        // etcd does not say which is the oldest.
        code::OUT_OF_RANGE => Failure::Refused(StoreError::Compacted { requested, oldest: requested + 1 }),
        code::RESOURCE_EXHAUSTED if message.contains("space") => {
            Failure::Refused(StoreError::NoSpace(format!("etcd: {message}")))
        }
        code::RESOURCE_EXHAUSTED => Failure::Refused(StoreError::Unavailable(format!("etcd: {message}"))),
        code::INVALID_ARGUMENT
        | code::PERMISSION_DENIED
        | code::FAILED_PRECONDITION
        | code::UNAUTHENTICATED => Failure::Refused(StoreError::Setup(format!("etcd: {message}"))),
        _ if message.contains("requested lease not found") => Failure::LeaseGone,
        _ => Failure::Unknown(format!("etcd: {message}")),
    }
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
        assert_eq!(KeySpace::new("").bounds(""), (vec![0], vec![0]));
    }
}
