//! Where a store's counting of revisions starts, kept in etcd for all its handles.

use etcd_client::GetOptions;
use serde::{Deserialize, Serialize};

use super::EtcdStore;
use super::convert::Origin;
use crate::StoreError;

pub(super) const ORIGIN_KEY: &str = "\0origin";

/// What etcd holds of a store that was moved there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Arrival {
    /// Not everything is there yet.
    Unfinished,
    /// All of it.
    Complete(Origin),
}

impl EtcdStore {
    /// The origin of the store that etcd holds under the prefix; an error if it is half a store.
    pub(super) async fn find_origin(&self) -> Result<Origin, StoreError> {
        match self.find_arrival().await? {
            None => Ok(Origin::default()),
            Some((Arrival::Complete(origin), _)) => Ok(origin),
            Some((Arrival::Unfinished, _)) => Err(StoreError::Setup(
                "etcd holds only a part of a store: moving or restoring it was interrupted; do it again"
                    .into(),
            )),
        }
    }

    /// What is said there, and at which of etcd's revisions it was.
    pub(super) async fn find_arrival(&self) -> Result<Option<(Arrival, i64)>, StoreError> {
        let read = self.read(self.keys.outer(ORIGIN_KEY), GetOptions::new(), 0).await?;
        let Some(pair) = read.kvs().first() else { return Ok(None) };
        let arrival = serde_json::from_slice(pair.value()).map_err(|error| {
            StoreError::Corrupt(format!("etcd holds an origin that cannot be read: {error}"))
        })?;
        Ok(Some((arrival, pair.mod_revision())))
    }
}
