//! Which pod is next.
//!
//! Pending pods are in one of four places: *active*, ordered by priority and then by arrival; *backing off* after a
//! failed attempt, from 1 s doubling to 10 s; *waiting* for an event that concerns the plugins that refused them, or for
//! five minutes; or *gated* by scheduling gates. Pure: time comes in. A pod that was popped is out of the queue until it
//! is put back.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::events::{ClusterEvents, Plugin};
use crate::model::PodInfo;
use crate::plugins;

const BACKOFF_FIRST: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// Nobody waits longer without another try: an event may have been misjudged.
const WAITING_MAX: Duration = Duration::from_secs(5 * 60);

/// The pods that wait to be scheduled.
#[derive(Debug, Default)]
pub struct Queue {
    pods: HashMap<String, Pending>,
    active: BTreeSet<(Reverse<i32>, u64, String)>,
    /// When the back-off of a pod ends.
    backing_off: BTreeSet<(Instant, String)>,
    /// Until when a pod waits at most.
    waiting: BTreeSet<(Instant, String)>,
    arrivals: u64,
}

#[derive(Debug)]
struct Pending {
    pod: Arc<PodInfo>,
    place: Place,
    arrival: u64,
    attempts: u32,
    /// When the last attempt was.
    attempted: Option<Instant>,
}

#[derive(Debug)]
enum Place {
    Active {
        priority: i32,
    },
    BackingOff {
        until: Instant,
    },
    Waiting {
        until: Instant,
        wakes: ClusterEvents,
        rejected_by: Vec<Plugin>,
    },
    Gated,
    /// Popped: an attempt is under way.
    Out,
}

impl Queue {
    /// Adds a pod or takes over its new version. A change of what it asks for gives it another try.
    pub fn set(&mut self, pod: Arc<PodInfo>, now: Instant) {
        let uid = pod.uid.clone();
        let gated = is_gated(&pod);
        let Some(pending) = self.pods.get_mut(&uid) else {
            self.arrivals += 1;
            let arrival = self.arrivals;
            let pending = Pending { pod, place: Place::Out, arrival, attempts: 0, attempted: None };
            self.pods.insert(uid.clone(), pending);
            return if gated { self.move_to(&uid, Place::Gated) } else { self.activate(&uid) };
        };
        let asks_differently = pending.pod.object.spec != pod.object.spec
            || pending.pod.object.metadata.labels != pod.object.metadata.labels;
        pending.pod = pod;
        match pending.place {
            Place::Out => {}
            _ if gated => self.move_to(&uid, Place::Gated),
            Place::Gated => self.activate(&uid),
            Place::Waiting { .. } if asks_differently => self.retry(&uid, now),
            // The priority may have changed.
            Place::Active { .. } if asks_differently => self.activate(&uid),
            _ => {}
        }
    }

    /// Forgets a pod.
    pub fn remove(&mut self, uid: &str) {
        if self.pods.contains_key(uid) {
            self.move_to(uid, Place::Out);
            self.pods.remove(uid);
        }
    }

    /// The next pod, which is then out of the queue until it is put back or removed.
    pub fn pop(&mut self, now: Instant) -> Option<Arc<PodInfo>> {
        self.advance(now);
        let (_, _, uid) = self.active.first()?.clone();
        self.move_to(&uid, Place::Out);
        let pending = self.pods.get_mut(&uid)?;
        pending.attempts += 1;
        pending.attempted = Some(now);
        Some(Arc::clone(&pending.pod))
    }

    /// Puts a pod back that found no place; events that concern these plugins give it another try.
    pub fn put_back_unschedulable(&mut self, uid: &str, rejected_by: Vec<Plugin>, now: Instant) {
        let wakes = rejected_by.iter().fold(ClusterEvents::NONE, |all, plugin| all | plugins::wakes(*plugin));
        self.move_to(uid, Place::Waiting { until: now + WAITING_MAX, wakes, rejected_by });
    }

    /// Puts a pod back whose attempt failed for another reason; it is tried again after its back-off.
    pub fn put_back_failed(&mut self, uid: &str, now: Instant) {
        self.retry(uid, now);
    }

    /// Gives waiting pods another try that an event concerns. `promising` has the last word on each: it gets the pod and
    /// the plugins that refused it.
    pub fn wake(
        &mut self,
        events: ClusterEvents,
        now: Instant,
        promising: impl Fn(&PodInfo, &[Plugin]) -> bool,
    ) {
        if events.is_empty() || self.waiting.is_empty() {
            return;
        }
        let concerned = |(_, uid): &&(Instant, String)| match self.pods.get(uid) {
            Some(Pending { pod, place: Place::Waiting { wakes, rejected_by, .. }, .. }) => {
                wakes.intersects(events) && promising(pod, rejected_by)
            }
            _ => false,
        };
        let woken: Vec<String> = self.waiting.iter().filter(concerned).map(|(_, uid)| uid.clone()).collect();
        for uid in woken {
            self.retry(&uid, now);
        }
    }

    /// When something happens by itself next.
    pub fn next_deadline(&self) -> Option<Instant> {
        let first = |set: &BTreeSet<(Instant, String)>| set.first().map(|(deadline, _)| *deadline);
        first(&self.backing_off).into_iter().chain(first(&self.waiting)).min()
    }

    /// Whether a pod could be popped now.
    pub fn has_active(&mut self, now: Instant) -> bool {
        self.advance(now);
        !self.active.is_empty()
    }

    /// A pod in the queue or under way.
    pub fn get(&self, uid: &str) -> Option<&Arc<PodInfo>> {
        self.pods.get(uid).map(|pending| &pending.pod)
    }

    /// Makes pods active whose back-off or waiting time is over.
    fn advance(&mut self, now: Instant) {
        while let Some((_, uid)) = self.backing_off.first().filter(|(until, _)| *until <= now).cloned() {
            self.activate(&uid);
        }
        while let Some((_, uid)) = self.waiting.first().filter(|(until, _)| *until <= now).cloned() {
            self.retry(&uid, now);
        }
    }

    /// Active, or backing off if the last attempt was too recent.
    fn retry(&mut self, uid: &str, now: Instant) {
        let Some(pending) = self.pods.get(uid) else { return };
        let doublings = pending.attempts.saturating_sub(1).min(10);
        let backoff = BACKOFF_FIRST.saturating_mul(1 << doublings).min(BACKOFF_MAX);
        let until = pending.attempted.map_or(now, |attempted| attempted + backoff);
        if until <= now {
            self.activate(uid);
        } else {
            self.move_to(uid, Place::BackingOff { until });
        }
    }

    fn activate(&mut self, uid: &str) {
        if let Some(priority) = self.pods.get(uid).map(|pending| pending.pod.priority) {
            self.move_to(uid, Place::Active { priority });
        }
    }

    fn move_to(&mut self, uid: &str, place: Place) {
        let Some(pending) = self.pods.get_mut(uid) else { return };
        let uid = uid.to_owned();
        let old = std::mem::replace(&mut pending.place, Place::Out);
        let _was_there = match old {
            Place::Active { priority } => {
                self.active.remove(&(Reverse(priority), pending.arrival, uid.clone()))
            }
            Place::BackingOff { until } => self.backing_off.remove(&(until, uid.clone())),
            Place::Waiting { until, .. } => self.waiting.remove(&(until, uid.clone())),
            Place::Gated | Place::Out => false,
        };
        match &place {
            Place::Active { priority } => {
                self.active.insert((Reverse(*priority), pending.arrival, uid));
            }
            Place::BackingOff { until } => {
                self.backing_off.insert((*until, uid));
            }
            Place::Waiting { until, .. } => {
                self.waiting.insert((*until, uid));
            }
            Place::Gated | Place::Out => {}
        }
        pending.place = place;
    }
}

fn is_gated(pod: &PodInfo) -> bool {
    pod.spec().and_then(|spec| spec.scheduling_gates.as_ref()).is_some_and(|gates| !gates.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, priority: i32, more: Value) -> Arc<PodInfo> {
        let mut object = json!({
            "metadata": {"name": name, "namespace": "default", "uid": name},
            "spec": {"containers": [], "priority": priority},
        });
        if let (Some(spec), Value::Object(more)) = (object["spec"].as_object_mut(), more) {
            spec.extend(more);
        }
        Arc::new(PodInfo::new(Arc::new(serde_json::from_value(object).unwrap())))
    }

    fn pop(queue: &mut Queue, now: Instant) -> Option<String> {
        queue.pop(now).map(|pod| pod.uid.clone())
    }

    #[test]
    fn more_important_pods_come_first_then_earlier_ones() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for (name, priority) in [("a", 0), ("b", 5), ("c", 0), ("d", 5)] {
            queue.set(pod(name, priority, json!({})), now);
        }
        let order: Vec<_> = std::iter::from_fn(|| pop(&mut queue, now)).collect();
        assert_eq!(order, ["b", "d", "a", "c"]);
    }

    #[test]
    fn a_failed_attempt_backs_off_from_one_to_ten_seconds() {
        let (mut queue, mut now) = (Queue::default(), Instant::now());
        queue.set(pod("a", 0, json!({})), now);
        for seconds in [1, 2, 4, 8, 10, 10] {
            assert_eq!(pop(&mut queue, now).as_deref(), Some("a"));
            queue.put_back_failed("a", now);
            let deadline = queue.next_deadline().unwrap();
            assert_eq!(deadline - now, Duration::from_secs(seconds));
            assert_eq!(pop(&mut queue, deadline - Duration::from_millis(1)), None);
            now = deadline;
        }
    }

    #[test]
    fn only_events_that_concern_the_refusal_wake_a_pod_and_not_before_its_back_off() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.set(pod("a", 0, json!({})), now);
        queue.pop(now);
        queue.put_back_unschedulable("a", vec![Plugin::NodeResourcesFit], now);
        let later = now + Duration::from_secs(30);
        queue.wake(ClusterEvents::POD_PLACED, later, |_, _| true);
        assert_eq!(pop(&mut queue, later), None);
        queue.wake(ClusterEvents::POD_GONE, later, |_, _| false);
        assert_eq!(pop(&mut queue, later), None);
        queue.wake(ClusterEvents::POD_GONE, now, |_, _| true);
        assert_eq!(pop(&mut queue, now), None);
        assert_eq!(pop(&mut queue, now + BACKOFF_FIRST).as_deref(), Some("a"));
    }

    #[test]
    fn nobody_waits_for_ever() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.set(pod("a", 0, json!({})), now);
        queue.pop(now);
        queue.put_back_unschedulable("a", vec![Plugin::NodeName], now);
        assert_eq!(queue.next_deadline(), Some(now + WAITING_MAX));
        assert_eq!(pop(&mut queue, now + WAITING_MAX).as_deref(), Some("a"));
        queue.remove("a");
        assert_eq!(queue.next_deadline(), None);
    }

    #[test]
    fn a_gated_pod_waits_for_its_gates_to_go_and_a_changed_pod_gets_another_try() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.set(pod("a", 0, json!({"schedulingGates": [{"name": "g"}]})), now);
        assert_eq!(pop(&mut queue, now), None);
        queue.set(pod("a", 0, json!({})), now);
        assert_eq!(pop(&mut queue, now).as_deref(), Some("a"));
        queue.put_back_unschedulable("a", vec![Plugin::NodeAffinity], now);
        let later = now + Duration::from_secs(2);
        queue.set(pod("a", 0, json!({})), later);
        assert_eq!(pop(&mut queue, later), None);
        queue.set(pod("a", 0, json!({"nodeSelector": {"disk": "ssd"}})), later);
        assert_eq!(pop(&mut queue, later).as_deref(), Some("a"));
    }
}
