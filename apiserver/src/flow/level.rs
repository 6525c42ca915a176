//! One priority level: so many seats, and queues of those who wait for one.
//!
//! Guarantees: no more seats are taken than there are, but that a request wider than all of them runs alone; a flow waits
//! behind its own requests and takes turns with the others by the seats that it takes, so that nobody who sends much, or
//! what is wide, delays those who send little; how many wait is bounded, and where that is reached, the flow with the
//! most of them gives way; whoever gives up waiting is forgotten.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::lending::{Meter, Need};

/// What a level allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub seats: usize,
    /// How many of a flow may wait.
    pub per_flow: usize,
    /// How many of all flows may.
    pub in_all: usize,
}

/// Why there is no seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Nobody may wait for one.
    NoQueue,
    /// Too many wait already.
    QueueFull,
    /// The wait took too long.
    TimedOut,
}

impl Refused {
    /// In the order of their numbers.
    pub const ALL: [Self; 3] = [Self::NoQueue, Self::QueueFull, Self::TimedOut];

    /// As upstream's metrics call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoQueue => "concurrency-limit",
            Self::QueueFull => "queue-full",
            Self::TimedOut => "time-out",
        }
    }
}

/// A priority level.
#[derive(Debug)]
pub(super) struct Level(Mutex<State>);

#[derive(Debug)]
struct State {
    limits: Limits,
    taken: usize,
    /// By flow.
    queues: HashMap<String, VecDeque<Waiting>>,
    /// Whose turn it is: the flows that have somebody waiting, those first that have had the fewest seats since they wait,
    /// and of those who came first.
    turns: BTreeSet<(usize, u64, String)>,
    /// How many seats the flow that was called last had had.
    had: usize,
    arrivals: u64,
    waiting: usize,
    /// The seats that those wait for.
    wanted: usize,
    meter: Meter,
    need: Need,
}

#[derive(Debug)]
struct Waiting {
    width: usize,
    called: oneshot::Sender<()>,
}

/// A place in a level, given back when dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    level: Arc<Level>,
    width: usize,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.level.0.lock();
        state.taken -= self.width;
        state.call();
        state.measure();
    }
}

impl Level {
    pub fn new(limits: Limits) -> Self {
        let (queues, turns) = Default::default();
        let (meter, need) = (Meter::new(), Need::default());
        let (taken, had, arrivals, waiting, wanted) = Default::default();
        Self(Mutex::new(State { limits, taken, queues, turns, had, arrivals, waiting, wanted, meter, need }))
    }

    /// Other limits from now on; those inside stay.
    pub fn set_limits(&self, limits: Limits) {
        let mut state = self.0.lock();
        state.limits = limits;
        state.call();
    }

    /// Ends a period: what was needed in it.
    pub fn end_period(&self) -> Need {
        let mut state = self.0.lock();
        state.need = state.need.after(state.meter.take());
        state.need
    }

    /// Takes a seat at once or after a wait.
    pub async fn enter(
        self: &Arc<Self>,
        flow: &str,
        width: usize,
        at_most: Duration,
    ) -> Result<Seat, Refused> {
        let called = {
            let mut state = self.0.lock();
            if state.waiting == 0 && state.fits(width) {
                state.taken += width;
                state.measure();
                return Ok(Seat { level: self.clone(), width });
            }
            state.queue(flow, width)?
        };
        let wait = Wait { called: Some(called), level: self.clone(), width };
        tokio::time::timeout(at_most, wait).await.unwrap_or(Err(Refused::TimedOut))
    }

    /// How many seats there are, and what was needed in the last period.
    pub fn seats_and_need(&self) -> (usize, Need) {
        let state = self.0.lock();
        (state.limits.seats, state.need)
    }

    /// How many seats are taken and how many wait.
    #[cfg(test)]
    fn load(&self) -> (usize, usize) {
        let state = self.0.lock();
        (state.taken, state.waiting)
    }
}

/// Somebody who waits.
struct Wait {
    /// `None` once called.
    called: Option<oneshot::Receiver<()>>,
    level: Arc<Level>,
    width: usize,
}

impl Future for Wait {
    type Output = Result<Seat, Refused>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(called) = &mut self.called {
            let outcome = ready!(Pin::new(called).poll(context));
            self.called = None;
            if outcome.is_err() {
                return Poll::Ready(Err(Refused::QueueFull));
            }
        }
        Poll::Ready(Ok(Seat { level: self.level.clone(), width: self.width }))
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let Some(mut called) = self.called.take() else { return };
        called.close();
        if called.try_recv().is_ok() {
            // Called just when giving up: the seat goes to the next.
            drop(Seat { level: self.level.clone(), width: self.width });
        } else {
            self.level.0.lock().forget_gone();
        }
    }
}

impl State {
    fn fits(&self, width: usize) -> bool {
        self.taken == 0 || self.taken + width <= self.limits.seats
    }

    fn queue(&mut self, flow: &str, width: usize) -> Result<oneshot::Receiver<()>, Refused> {
        let length = self.queues.get(flow).map_or(0, VecDeque::len);
        if self.limits.in_all == 0 {
            return Err(Refused::NoQueue);
        }
        let is_full = self.waiting >= self.limits.in_all;
        if length >= self.limits.per_flow || is_full && !self.push_out(length + 1) {
            return Err(Refused::QueueFull);
        }
        let (called, receiver) = oneshot::channel();
        if length == 0 {
            self.take_turn(flow.to_string(), self.had);
        }
        self.queues.entry(flow.to_string()).or_default().push_back(Waiting { width, called });
        self.waiting += 1;
        self.wanted += width;
        self.measure();
        Ok(receiver)
    }

    /// Refuses the last of the flow with the most waiting, if that are more than so many.
    fn push_out(&mut self, most: usize) -> bool {
        let Some(longest) = self.queues.values_mut().max_by_key(|queue| queue.len()) else { return false };
        if longest.len() <= most {
            return false;
        }
        let Some(last) = longest.pop_back() else { return false };
        self.waiting -= 1;
        self.wanted -= last.width;
        true
    }

    fn take_turn(&mut self, flow: String, had: usize) {
        self.arrivals += 1;
        self.turns.insert((had, self.arrivals, flow));
    }

    /// Calls those whose turn it is while there are seats.
    fn call(&mut self) {
        while let Some((had, _, flow)) = self.turns.first() {
            let had = *had;
            let Some(width) = self.queues.get(flow).and_then(|queue| queue.front()).map(|first| first.width)
            else {
                self.turns.pop_first();
                continue;
            };
            if !self.fits(width) {
                return;
            }
            let Some((_, _, flow)) = self.turns.pop_first() else { return };
            let Some(queue) = self.queues.get_mut(&flow) else { continue };
            let first = queue.pop_front();
            self.had = had;
            if queue.is_empty() {
                self.queues.remove(&flow);
            } else {
                self.take_turn(flow, had + width);
            }
            self.waiting -= 1;
            self.wanted -= width;
            if first.is_some_and(|first| first.called.send(()).is_ok()) {
                self.taken += width;
            }
        }
    }

    fn forget_gone(&mut self) {
        self.queues.values_mut().for_each(|queue| queue.retain(|waiting| !waiting.called.is_closed()));
        self.queues.retain(|_, queue| !queue.is_empty());
        self.turns.retain(|(_, _, flow)| self.queues.contains_key(flow));
        self.waiting = self.queues.values().map(VecDeque::len).sum();
        self.wanted = self.queues.values().flatten().map(|waiting| waiting.width).sum();
        self.call();
        self.measure();
    }

    fn measure(&mut self) {
        self.meter.set(self.taken + self.wanted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    fn level(seats: usize) -> Arc<Level> {
        Arc::new(Level::new(Limits { seats, per_flow: 3, in_all: 8 }))
    }

    #[tokio::test(start_paused = true)]
    async fn flows_take_turns_however_much_one_of_them_sends() {
        let level = level(1);
        let held = level.enter("greedy", 1, LONG).await.unwrap();
        let queued = [("greedy", 1), ("greedy", 1), ("greedy", 1), ("greedy", 1), ("modest", 1)];
        let order = order(&level, held, &queued).await;
        assert_eq!(order, ["greedy", "modest", "greedy", "greedy"], "its own queue holds three");
        assert_eq!(level.load(), (0, 0));
    }

    /// The order in which flows are called that queue while another has the seats.
    async fn order(level: &Arc<Level>, held: Seat, queued: &[(&'static str, usize)]) -> Vec<&'static str> {
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for (flow, width) in queued.iter().copied() {
            let (level, order) = (level.clone(), order.clone());
            tasks.push(tokio::spawn(async move {
                if let Ok(_seat) = level.enter(flow, width, LONG).await {
                    order.lock().push(flow);
                }
            }));
            tokio::task::yield_now().await;
        }
        drop(held);
        for task in tasks {
            task.await.unwrap();
        }
        order.lock().clone()
    }

    #[tokio::test(start_paused = true)]
    async fn flows_take_turns_by_seats_and_not_by_requests() {
        let level = level(4);
        let held = level.enter("other", 4, LONG).await.unwrap();
        let queued = [("wide", 4), ("wide", 4), ("narrow", 1), ("narrow", 1), ("narrow", 1)];
        let order = order(&level, held, &queued).await;
        assert_eq!(order, ["wide", "narrow", "narrow", "narrow", "wide"]);
        assert_eq!(level.load(), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn where_too_many_wait_the_flow_with_the_most_gives_way() {
        let level = Arc::new(Level::new(Limits { seats: 1, per_flow: 3, in_all: 4 }));
        let held = level.enter("other", 1, LONG).await.unwrap();
        let queued = [("a", 1), ("a", 1), ("a", 1), ("b", 1), ("c", 1), ("d", 1)];
        let order = order(&level, held, &queued).await;
        assert_eq!(order, ["a", "b", "c", "d"], "a's last make room; then each has one");
        assert_eq!(level.load(), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_is_forgotten_and_holds_up_nobody() {
        let level = level(2);
        let (one, two) = (level.enter("a", 1, LONG).await.unwrap(), level.enter("a", 1, LONG).await.unwrap());
        assert_eq!(level.enter("a", 2, Duration::from_secs(5)).await.unwrap_err(), Refused::TimedOut);
        assert_eq!(level.load(), (2, 0));
        let wide = tokio::spawn({
            let level = level.clone();
            async move { level.enter("b", 9, LONG).await.unwrap() }
        });
        tokio::task::yield_now().await;
        drop(one);
        tokio::task::yield_now().await;
        assert_eq!(level.load(), (1, 1), "what is wider than all seats waits until it can run alone");
        drop(two);
        let alone = wide.await.unwrap();
        assert_eq!(level.load(), (9, 0));
        drop(alone);
        let waiting = tokio::spawn({
            let level = level.clone();
            async move {
                let _held = level.enter("c", 2, LONG).await.unwrap();
                level.enter("c", 1, LONG).await.map(|_| ())
            }
        });
        tokio::task::yield_now().await;
        waiting.abort();
        assert!(waiting.await.unwrap_err().is_cancelled());
        assert_eq!(level.load(), (0, 0), "a request that is cut off gives everything back");
    }
}
