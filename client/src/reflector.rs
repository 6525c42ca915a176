//! The list-and-watch loop under an informer.
//!
//! It lists page by page, then watches from the list's version. A watch that ends, breaks or times out resumes from
//! the last version seen (bookmarks included); only 410 Gone leads to a new list, whose difference to what was known
//! becomes deletions. Failures back off from 100 ms to 5 s with jitter, so that a restarted server is found quickly.
//! An event that does not decode is logged and skipped; the object's next event or list repairs it.

use std::sync::Arc;
use std::time::Duration;

use futures::{AsyncBufReadExt, StreamExt};
use kube::Client;
use kube::api::{ListParams, WatchParams};
use kube::core::{ObjectList, Request, Status};
use rand::Rng;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};

use crate::backoff::Backoff;
use crate::informer::{Scope, Shared, Watched};

const PAGE_LIMIT: u32 = 500;
/// A watch that lived this long before it ended was healthy.
const HEALTHY_AFTER: Duration = Duration::from_secs(1);
const QUIET_FAILURES: u32 = 4;
const ACCEPT_METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
const ACCEPT_METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";

enum State {
    List,
    Watch { version: String },
}

/// Why a watch stopped.
enum Ended {
    /// The server closed it or it timed out: resume at this version.
    Resume(String),
    /// The version is too old: list again.
    Gone,
    /// Something failed: resume at this version after a pause.
    Failed(String, kube::Error),
}

pub(crate) async fn run<K: Watched>(client: Client, path: String, scope: Scope, shared: Arc<Shared<K>>) {
    let stop = shared.stop.clone();
    let source = Source { client, path, scope };
    tokio::select! {
        () = stop.cancelled() => {}
        () = source.follow(&shared) => {}
    }
}

struct Source {
    client: Client,
    path: String,
    scope: Scope,
}

impl Source {
    async fn follow<K: Watched>(&self, shared: &Shared<K>) {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        let mut state = State::List;
        let mut failures: u32 = 0;
        loop {
            let started = Instant::now();
            let failure = match &state {
                State::List => match self.list::<K>().await {
                    Ok((objects, version)) => {
                        debug!(path = %self.path, objects = objects.len(), %version, "listed");
                        shared.replace(objects);
                        state = State::Watch { version };
                        None
                    }
                    Err(error) => Some(error),
                },
                State::Watch { version } => match self.watch(version.clone(), shared).await {
                    Ended::Resume(version) => {
                        state = State::Watch { version };
                        // A server that closes watches at once must not make us spin.
                        if started.elapsed() < HEALTHY_AFTER {
                            tokio::time::sleep(backoff.next_delay()).await;
                        }
                        None
                    }
                    Ended::Gone => {
                        info!(path = %self.path, "watch fell out of the server's history; listing again");
                        state = State::List;
                        None
                    }
                    Ended::Failed(version, error) => {
                        state = State::Watch { version };
                        Some(error)
                    }
                },
            };
            if started.elapsed() >= HEALTHY_AFTER {
                backoff.reset();
            }
            let Some(error) = failure else {
                failures = 0;
                continue;
            };
            failures += 1;
            let delay = backoff.next_delay();
            // A server that restarts fails every watch a few times; that is no news.
            if failures > QUIET_FAILURES {
                warn!(path = %self.path, %error, failures, ?delay, "list or watch failed");
            } else {
                debug!(path = %self.path, %error, failures, ?delay, "list or watch failed");
            }
            tokio::time::sleep(delay).await;
        }
    }

    async fn list<K: Watched>(&self) -> Result<(Vec<K>, String), kube::Error> {
        let mut objects = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let params = ListParams {
                label_selector: self.scope.labels.clone(),
                field_selector: self.scope.fields.clone(),
                limit: Some(PAGE_LIMIT),
                continue_token: token.take(),
                ..ListParams::default()
            };
            let mut request =
                Request::new(self.path.as_str()).list(&params).map_err(kube::Error::BuildRequest)?;
            accept::<K>(&mut request, ACCEPT_METADATA_LIST);
            let page: ObjectList<K> = self.client.request(request).await?;
            objects.extend(page.items.into_iter().map(slim));
            match page.metadata.continue_.filter(|next| !next.is_empty()) {
                Some(next) => token = Some(next),
                None => return Ok((objects, page.metadata.resource_version.unwrap_or_default())),
            }
        }
    }

    async fn watch<K: Watched>(&self, mut version: String, shared: &Shared<K>) -> Ended {
        let lifetime_s: u32 = rand::rng().random_range(240..290);
        let params = WatchParams {
            label_selector: self.scope.labels.clone(),
            field_selector: self.scope.fields.clone(),
            timeout: Some(lifetime_s),
            bookmarks: true,
            ..WatchParams::default()
        };
        let mut request = match Request::new(self.path.as_str()).watch(&params, &version) {
            Ok(request) => request,
            Err(error) => return Ended::Failed(version, kube::Error::BuildRequest(error)),
        };
        accept::<K>(&mut request, ACCEPT_METADATA);
        request
            .headers_mut()
            .insert(http::header::ACCEPT_ENCODING, http::HeaderValue::from_static("identity"));
        let reader = match self.client.request_stream(request).await {
            Ok(reader) => reader,
            Err(kube::Error::Api(status)) if status.code == 410 => return Ended::Gone,
            Err(error) => return Ended::Failed(version, error),
        };
        let mut lines = std::pin::pin!(reader.lines());
        // The server ends the watch after its lifetime; a dead connection is noticed a little later.
        let deadline = Instant::now() + Duration::from_secs(u64::from(lifetime_s) + 15);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = match timeout(left, lines.next()).await {
                Err(_) | Ok(None) => return Ended::Resume(version),
                Ok(Some(Err(error))) => return Ended::Failed(version, kube::Error::ReadEvents(error)),
                Ok(Some(Ok(line))) => line,
            };
            match apply_line(&line, shared) {
                Ok(Some(seen)) => version = seen,
                Ok(None) => {}
                Err(LineError::Status(status)) if status.code == 410 => return Ended::Gone,
                Err(LineError::Status(status)) => return Ended::Failed(version, kube::Error::Api(status)),
                Err(LineError::Undecodable(error)) => {
                    warn!(path = %self.path, %error, "skipping a watch event that does not decode");
                }
            }
        }
    }
}

#[derive(Deserialize)]
struct EventLine<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Deserialize)]
struct BookmarkObject {
    metadata: BookmarkMeta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BookmarkMeta {
    resource_version: String,
}

enum LineError {
    Status(Box<Status>),
    Undecodable(serde_json::Error),
}

impl From<serde_json::Error> for LineError {
    fn from(error: serde_json::Error) -> Self {
        Self::Undecodable(error)
    }
}

/// Applies one line of a watch; the version to resume at, if the line carries one.
fn apply_line<K: Watched>(line: &str, shared: &Shared<K>) -> Result<Option<String>, LineError> {
    if line.trim().is_empty() {
        return Ok(None);
    }
    let event: EventLine<'_> = serde_json::from_str(line)?;
    match event.kind {
        "BOOKMARK" => {
            let bookmark: BookmarkObject = serde_json::from_str(event.object.get())?;
            Ok(Some(bookmark.metadata.resource_version))
        }
        "ERROR" => Err(LineError::Status(Box::new(serde_json::from_str(event.object.get())?))),
        kind => {
            let object: K = slim(serde_json::from_str(event.object.get())?);
            let version = object.meta().resource_version.clone();
            if kind == "DELETED" {
                shared.remove(object);
            } else {
                shared.upsert(object);
            }
            Ok(version)
        }
    }
}

/// Nobody behind an informer reads who last wrote which field, and it is often half of the object.
fn slim<K: Watched>(mut object: K) -> K {
    object.meta_mut().managed_fields = None;
    object
}

fn accept<K: Watched>(request: &mut http::Request<Vec<u8>>, metadata: &'static str) {
    if K::metadata_api() {
        request.headers_mut().insert(http::header::ACCEPT, http::HeaderValue::from_static(metadata));
    }
}
