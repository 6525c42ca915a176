//! Watch: where it starts, and what it starts with.

use std::time::Duration;

use api::{ApiError, Reason};
use http::StatusCode;
use rand::Rng;
use serde_json::json;
use store::Revision;

use super::Core;
use super::call::{Call, Target};
use super::read::{Freshness, filter};
use super::revisions::{self, parse_revision};
use crate::cache::{WatchOptions, Watcher};
use crate::custom::{self, Forms};
use crate::http::respond::{self, Failure};
use crate::http::{JSON, Response, body};
use crate::present::{IncludeObject, Presenter};

/// The shortest life of a watch whose client does not say; the longest is twice that.
const TIMEOUT_SECONDS_MIN: u64 = 1800;

/// As long as any watch goes on: so much later than now there may be no time to name.
const TIMEOUT_SECONDS_MAX: u64 = 365 * 24 * 3600;

/// Where a watch starts.
enum Start {
    /// With everything there is, then what follows.
    State(Freshness),
    /// After a revision.
    After(Revision),
    /// With what follows from now on.
    Now,
}

impl Core {
    /// GET with `watch=true`.
    pub(crate) async fn watch(&self, call: &Call, target: &Target) -> Result<Response, Failure> {
        let include = IncludeObject::parse(call.query.get("includeObject"))?;
        let presenter = Presenter::new(target, call.form, include);
        let filter = filter(call, target)?;
        let bookmarks = call.query.flag("allowWatchBookmarks");
        let streams_list = revisions::check_watch(&call.query)?;
        let start = start(call, streams_list)?;
        let timeout = timeout(call)?;
        let row = self.cache.row(&target.row_name);
        let (initial, position, revision) = match start {
            Start::State(freshness) => {
                let reached = self.reach(freshness).await?;
                let (snapshot, position) = row.snapshot_and_position(reached);
                let objects = if filter.looks_inside() {
                    self.matching_inside(target, &snapshot, &filter, None).await?
                } else {
                    let held =
                        snapshot.under(&filter.prefix, None).filter(|o| filter.matches(o)).cloned().collect();
                    custom::shown(&self.objects, &target.row, &target.version, held).await?
                };
                (Some(objects), position, snapshot.revision)
            }
            Start::Now => {
                let reached = self.reach(Freshness::MostRecent).await?;
                let (snapshot, position) = row.snapshot_and_position(reached);
                (None, position, snapshot.revision)
            }
            Start::After(revision) => match row.position_after(revision) {
                Ok(position) => (None, position, revision),
                Err(too_old) => return Ok(expired(revision, too_old.oldest)),
            },
        };
        let options = WatchOptions {
            filter,
            presenter,
            forms: target.row.custom.is_some().then(|| Forms::of(&self.objects, target)),
            bookmarks,
            initial,
            initial_bookmark: streams_list == Some(true) && bookmarks,
            position,
            revision,
            timeout,
        };
        let watcher = Watcher::new(self.cache.clone(), row, options, self.stopping.child_token());
        let counted = self.metrics.watcher(&target.row.plural);
        let stream = watcher.into_stream();
        let stream = futures::StreamExt::map(stream, move |chunk| {
            // Held until the stream is dropped.
            let _counted = &counted;
            chunk
        });
        Ok(respond::with_type(StatusCode::OK, JSON, body::stream(stream)))
    }
}

fn start(call: &Call, streams_list: Option<bool>) -> Result<Start, ApiError> {
    let version = call.query.get_nonempty("resourceVersion").map(parse_revision).transpose()?;
    Ok(match (version, streams_list) {
        (None, Some(false)) => Start::Now,
        (None, _) => Start::State(Freshness::MostRecent),
        (Some(0), Some(false)) => Start::Now,
        (Some(0), _) => Start::State(Freshness::Any),
        (Some(revision), Some(true)) => Start::State(Freshness::NotOlderThan(revision)),
        (Some(revision), _) => Start::After(revision),
    })
}

fn timeout(call: &Call) -> Result<Duration, ApiError> {
    let asked = match call.query.get_nonempty("timeoutSeconds") {
        None => 0,
        Some(text) => text
            .parse::<u64>()
            .map_err(|_| ApiError::bad_request(format!("timeoutSeconds: {text:?} is not a number")))?,
    };
    if asked > 0 {
        return Ok(Duration::from_secs(asked.min(TIMEOUT_SECONDS_MAX)));
    }
    // Spread, so that clients do not all come back at once.
    let spread = rand::rng().random_range(0..TIMEOUT_SECONDS_MIN);
    Ok(Duration::from_secs(TIMEOUT_SECONDS_MIN + spread))
}

/// A watch from a revision that is no longer remembered: one event that says so.
fn expired(revision: Revision, oldest: Revision) -> Response {
    let error = ApiError::new(Reason::Expired, format!("too old resource version: {revision} ({oldest})"));
    let mut event = json!({"type": "ERROR", "object": error.to_status()}).to_string();
    event.push('\n');
    respond::with_type(StatusCode::OK, JSON, body::full(event))
}
