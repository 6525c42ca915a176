//! Requests that may be repeated: reads, and what does no harm when done twice.

use std::time::Duration;

use tokio::time::Instant;

use super::EtcdStore;
use super::convert::{Failure, failure_of};
use crate::{Revision, StoreError};

const PAUSE: Duration = Duration::from_millis(50);

impl EtcdStore {
    /// How long one member may take, so that there is time left to ask another.
    pub(super) fn attempt_timeout(&self) -> Duration {
        self.request_timeout / 2
    }

    /// Proves anew who we are, as somebody changed what users may. Returns why a request has to be repeated.
    pub(super) async fn renew_token(&self) -> String {
        match tokio::time::timeout(self.attempt_timeout(), self.client.refresh_token()).await {
            Ok(Err(error)) => format!("etcd refuses us: {error}"),
            _ => "etcd wanted a new token".to_owned(),
        }
    }

    /// Asks, whichever member it takes, until one answers or the time is over.
    pub(super) async fn ask<T, F>(
        &self,
        requested: Revision,
        request: impl Fn() -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let deadline = Instant::now() + self.request_timeout;
        loop {
            let reason = match tokio::time::timeout(self.attempt_timeout(), request()).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => match failure_of(&error, requested) {
                    Failure::Refused(error) => return Err(error),
                    Failure::NotDone(reason) | Failure::Unknown(reason) => reason,
                    Failure::LeaseGone => "the lease is gone".into(),
                    Failure::StaleToken => self.renew_token().await,
                },
                Err(_) => "etcd did not answer in time".into(),
            };
            if Instant::now() + PAUSE >= deadline {
                return Err(StoreError::Unavailable(reason));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
