//! One watch: what it starts with, then the row's history at its own pace.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use store::Revision;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::{Cache, Cached, Filter, RowCache, RowEvent};
use crate::custom::Forms;
use crate::http::BoxError;
use crate::present::Presenter;

/// How often a watch that asked for bookmarks gets one.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// Frames are gathered up to this size, a record of TLS, before they go out: so much waits for a client that does not read.
const CHUNK_BYTES: usize = 16 * 1024;
/// How many events are taken from the history at once.
const BATCH: usize = 256;
/// After it has sent something a watch rests so long for every watch of its row: what happens meanwhile goes out in one
/// piece. A change is news to few watches at once, and costs little where many look on.
const REST_PER_WATCH: Duration = Duration::from_micros(50);
/// The longest rest.
const REST_MAX: Duration = Duration::from_millis(10);
/// Shorter than the timer can tell.
const REST_MIN: Duration = Duration::from_millis(1);

/// What a watch event says of its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventType {
    Added,
    Modified,
    Deleted,
}

impl EventType {
    fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// What a watch is asked for.
pub(crate) struct WatchOptions {
    /// Which objects.
    pub filter: Filter,
    /// In which form.
    pub presenter: Presenter,
    /// What brings custom resources into that form; those to begin with are in it.
    pub forms: Option<Forms>,
    /// Whether bookmarks are wanted.
    pub bookmarks: bool,
    /// The objects to begin with, if any.
    pub initial: Option<Vec<Arc<Cached>>>,
    /// Whether a bookmark tells the end of the initial objects.
    pub initial_bookmark: bool,
    /// Where in the row's history it goes on.
    pub position: u64,
    /// The revision that the client will have seen by then.
    pub revision: Revision,
    /// When it ends.
    pub timeout: Duration,
}

/// One watch.
pub(crate) struct Watcher {
    cache: Arc<Cache>,
    row: Arc<RowCache>,
    changed: watch::Receiver<Revision>,
    /// Fires when the server stops.
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
    filter: Filter,
    presenter: Presenter,
    forms: Option<Forms>,
    phase: Phase,
    position: u64,
    /// Nothing up to here is sent.
    after: Revision,
    /// Everything up to here has been sent.
    seen: Revision,
    bookmarks: bool,
    initial_bookmark: bool,
    deadline: Instant,
    /// Rings at the deadline, and before it for every bookmark.
    alarm: Pin<Box<Sleep>>,
    /// Nothing is sent before.
    rests_until: Instant,
}

enum Phase {
    Initial(std::vec::IntoIter<Arc<Cached>>),
    Live,
    Ended,
}

impl Watcher {
    /// A watch that starts now.
    pub fn new(
        cache: Arc<Cache>,
        row: Arc<RowCache>,
        options: WatchOptions,
        shutdown: CancellationToken,
    ) -> Self {
        let now = Instant::now();
        let deadline = now + options.timeout;
        Self {
            changed: row.subscribe(),
            cache,
            row,
            stop: Box::pin(shutdown.cancelled_owned()),
            filter: options.filter,
            presenter: options.presenter,
            forms: options.forms,
            phase: options.initial.map_or(Phase::Live, |objects| Phase::Initial(objects.into_iter())),
            position: options.position,
            after: options.revision,
            seen: options.revision,
            bookmarks: options.bookmarks,
            initial_bookmark: options.initial_bookmark,
            deadline,
            alarm: Box::pin(tokio::time::sleep_until(next_alarm(now, deadline, options.bookmarks))),
            rests_until: now,
        }
    }

    /// The watch as a body.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, BoxError>> + Send {
        futures::stream::unfold(self, |mut watcher| async move {
            watcher.next().await.map(|chunk| (Ok(chunk), watcher))
        })
    }

    async fn next(&mut self) -> Option<Bytes> {
        match &mut self.phase {
            Phase::Initial(_) => Some(self.initial_chunk()),
            Phase::Live => self.live_chunk().await,
            Phase::Ended => None,
        }
    }

    fn initial_chunk(&mut self) -> Bytes {
        let mut out = Vec::new();
        if let Phase::Initial(objects) = &mut self.phase {
            while out.len() < CHUNK_BYTES {
                let Some(object) = objects.next() else {
                    self.phase = Phase::Live;
                    break;
                };
                write_event(&mut out, &mut self.presenter, EventType::Added, &object, object.revision);
            }
        }
        if matches!(self.phase, Phase::Live) && self.initial_bookmark {
            self.presenter.write_bookmark(&mut out, self.seen, true);
        }
        out.into()
    }

    async fn live_chunk(&mut self) -> Option<Bytes> {
        // A busy watch never waits for a change: what ends it is looked for here as well.
        let now = Instant::now();
        let is_tired = now < self.rests_until;
        tokio::select! {
            biased;
            () = &mut self.stop => return None,
            () = tokio::time::sleep_until(self.rests_until), if is_tired => {}
            () = std::future::ready(()), if !is_tired => {}
        }
        if now >= self.deadline {
            return self.ring();
        }
        loop {
            self.changed.borrow_and_update();
            // Read before the events, so that a bookmark never gets ahead of them.
            let reached = self.cache.revision();
            let Some(mut events) = self.row.events_from(self.position, BATCH) else {
                tracing::debug!("a watch fell behind its row's history and was ended");
                return None;
            };
            if let Some(forms) = &self.forms {
                events = forms.of_events(events).await?;
            }
            if events.is_empty() {
                if let Some(bookmark) = self.wait(reached).await? {
                    return Some(bookmark);
                }
                continue;
            }
            if let Some(chunk) = self.render(&events) {
                self.rests_until = Instant::now() + rest(self.row.watches());
                return Some(chunk);
            }
        }
    }

    /// Waits for a change. `None` when the watch is over, a bookmark when it is time for one.
    async fn wait(&mut self, reached: Revision) -> Option<Option<Bytes>> {
        self.seen = self.seen.max(reached);
        tokio::select! {
            changed = self.changed.changed() => changed.ok().map(|()| None),
            () = &mut self.stop => None,
            () = &mut self.alarm => self.ring().map(Some),
        }
    }

    /// What the alarm is for: a bookmark where they are wanted; at the deadline it is the last thing.
    fn ring(&mut self) -> Option<Bytes> {
        let now = Instant::now();
        if now >= self.deadline {
            self.phase = Phase::Ended;
        }
        self.alarm.as_mut().reset(next_alarm(now, self.deadline, self.bookmarks));
        self.bookmarks.then(|| {
            let mut out = Vec::new();
            self.presenter.write_bookmark(&mut out, self.seen, false);
            out.into()
        })
    }

    /// The frames of the events that this watch sees, as many as fit one chunk.
    fn render(&mut self, events: &[Arc<RowEvent>]) -> Option<Bytes> {
        let mut out = Vec::new();
        let mut single: Option<Bytes> = None;
        for event in events {
            self.position += 1;
            // A client may ask for what comes after a revision that is yet to come.
            if event.revision <= self.after {
                continue;
            }
            self.seen = self.seen.max(event.revision);
            let Some((kind, object)) = self.filter.transition(event) else { continue };
            match self.shared_frame(event, kind, object) {
                Some(frame) if out.is_empty() && single.is_none() => single = Some(frame),
                Some(frame) => {
                    out.extend_from_slice(&single.take().unwrap_or_default());
                    out.extend_from_slice(&frame);
                }
                None => {
                    out.extend_from_slice(&single.take().unwrap_or_default());
                    write_event(&mut out, &mut self.presenter, kind, object, event.revision);
                }
            }
            if out.len() >= CHUNK_BYTES {
                break;
            }
        }
        single.or_else(|| (!out.is_empty()).then(|| out.into()))
    }

    /// The frame that all watchers share: the stored form, where the selector does not change the event's type.
    fn shared_frame(&self, event: &RowEvent, kind: EventType, object: &Cached) -> Option<Bytes> {
        let usual = match (&event.old, &event.new) {
            (None, _) => EventType::Added,
            (Some(_), Some(_)) => EventType::Modified,
            (Some(_), None) => EventType::Deleted,
        };
        if kind != usual || !self.presenter.is_stored_form() {
            return None;
        }
        let make = || {
            let mut out = Vec::with_capacity(object.encoded.len() + 80);
            open_event(&mut out, kind);
            object.write_at(&mut out, event.revision);
            close_event(&mut out);
            Bytes::from(out)
        };
        Some(event.frame.get_or_init(make).clone())
    }
}

/// When a watch has something to do by itself.
fn next_alarm(now: Instant, deadline: Instant, bookmarks: bool) -> Instant {
    if bookmarks { deadline.min(now + BOOKMARK_EVERY) } else { deadline }
}

/// How long a watch rests where there are so many.
fn rest(watches: usize) -> Duration {
    let rest = REST_PER_WATCH.saturating_mul(u32::try_from(watches).unwrap_or(u32::MAX)).min(REST_MAX);
    if rest < REST_MIN { Duration::ZERO } else { rest }
}

fn write_event(
    out: &mut Vec<u8>,
    presenter: &mut Presenter,
    kind: EventType,
    object: &Cached,
    revision: Revision,
) {
    open_event(out, kind);
    presenter.write_event_object(out, object, revision);
    close_event(out);
}

fn open_event(out: &mut Vec<u8>, kind: EventType) {
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind.as_str().as_bytes());
    out.extend_from_slice(b"\",\"object\":");
}

fn close_event(out: &mut Vec<u8>) {
    out.extend_from_slice(b"}\n");
}
