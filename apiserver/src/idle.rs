//! Which connections nobody uses: those that carry no request, and on which none has come for a while. Whoever holds a
//! connection only to hold it takes the place of somebody else.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::http::Response;

/// What a connection carries.
pub(crate) struct Activity(Mutex<State>);

struct State {
    requests: usize,
    /// Since when it carries as many as it does.
    since: Instant,
}

/// A request under way, to the last byte of its answer.
pub(crate) struct Busy(Arc<Activity>);

impl Activity {
    pub fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(State { requests: 0, since: Instant::now() })))
    }

    pub fn begin(self: &Arc<Self>) -> Busy {
        self.0.lock().requests += 1;
        Busy(self.clone())
    }

    /// Waits until nothing has been carried for so long.
    pub async fn unused_for(&self, patience: Duration) {
        loop {
            let until = {
                let state = self.0.lock();
                if state.requests > 0 { Instant::now() + patience } else { state.since + patience }
            };
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
        response.map(|body| {
            let hold = move |frame| {
                let _until_dropped = &self;
                frame
            };
            body.map_frame(hold).boxed_unsync()
        })
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = self.0.0.lock();
        state.requests = state.requests.saturating_sub(1);
        state.since = Instant::now();
    }
}
