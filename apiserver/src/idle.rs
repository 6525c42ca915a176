//! Which connections are of no use: those that carry no request, and on which none has come for a while; and those
//! whose client has not taken the next piece of an answer for a while. Whoever holds a connection only to hold it takes
//! the place of somebody else, and keeps in memory what was made for them.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::http::{BoxError, Response, ResponseBody};

/// What a connection carries.
pub(crate) struct Activity(Mutex<State>);

struct State {
    requests: usize,
    /// Since when it carries as many as it does.
    since: Instant,
    begun: u64,
    /// The answers of which there is a piece that the client has not taken, and since when.
    untaken: HashMap<u64, Instant>,
}

/// A request under way, to the last byte of its answer.
pub(crate) struct Busy {
    activity: Arc<Activity>,
    number: u64,
}

impl Activity {
    pub fn new() -> Arc<Self> {
        let state = State { requests: 0, since: Instant::now(), begun: 0, untaken: HashMap::new() };
        Arc::new(Self(Mutex::new(state)))
    }

    pub fn begin(self: &Arc<Self>) -> Busy {
        let mut state = self.0.lock();
        state.requests += 1;
        state.begun += 1;
        Busy { activity: self.clone(), number: state.begun }
    }

    /// Waits until nothing has been carried for so long.
    pub async fn unused_for(&self, patience: Duration) {
        self.end_of(patience, |state| (state.requests == 0).then_some(state.since)).await;
    }

    /// Waits until a client has not taken a piece of an answer for so long.
    pub async fn untaken_for(&self, patience: Duration) {
        self.end_of(patience, |state| state.untaken.values().min().copied()).await;
    }

    /// Waits until something has been so for so long.
    async fn end_of(&self, patience: Duration, since: impl Fn(&State) -> Option<Instant>) {
        loop {
            let until = since(&self.0.lock()).unwrap_or_else(Instant::now) + patience;
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }
}

impl Busy {
    /// Ends with the body.
    pub fn until_end_of(self, response: Response) -> Response {
        response.map(|body| Carried { body, busy: self }.boxed_unsync())
    }

    fn state(&self) -> parking_lot::MutexGuard<'_, State> {
        self.activity.0.lock()
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = self.state();
        state.untaken.remove(&self.number);
        state.requests = state.requests.saturating_sub(1);
        state.since = Instant::now();
    }
}

/// An answer on its way. Its next piece is asked for when the client has room for it.
struct Carried {
    body: ResponseBody,
    busy: Busy,
}

impl Body for Carried {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let carried = self.get_mut();
        carried.busy.state().untaken.remove(&carried.busy.number);
        let polled = Pin::new(&mut carried.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(_))) = &polled {
            carried.busy.state().untaken.insert(carried.busy.number, Instant::now());
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
