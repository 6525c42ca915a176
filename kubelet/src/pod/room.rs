//! Who gets what is left of the node's CPU and memory.
//!
//! Pods that run and ask for more are served one at a time, in upstream's order: by priority, then class of service, then by
//! who has waited longest. A pod that is passed over because its turn would not fit does not hold up those after it.

use std::cmp::Reverse;
use std::iter::Sum;
use std::ops::Add;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::resources::pod_total;
use super::spec::{PodExt, QosClass};
use crate::agent_state::Agent;

const NAMES: [&str; 2] = ["cpu", "memory"];

/// Thousandths of a CPU, and bytes of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room([i64; 2]);

impl Room {
    /// What pods may ask for altogether.
    pub fn of_node(agent: &Agent) -> Self {
        let allocatable = agent.machine.allocatable(&agent.config);
        Self([allocatable.cpu_millis, allocatable.memory_bytes])
    }

    /// What a pod asks for.
    pub fn asked_by(pod: &Pod) -> Self {
        Self(NAMES.map(|name| pod_total(pod, false, name).0))
    }

    /// The first resource of which this is too little for what is requested beside what is used: its name, and what is
    /// requested, used and there. What is not requested is never short.
    pub fn lacks(self, requested: Self, used: Self) -> Option<(&'static str, [i64; 3])> {
        let rows = NAMES.into_iter().zip(requested.0).zip(used.0).zip(self.0);
        let mut rows = rows.map(|(((name, requested), used), room)| (name, [requested, used, room]));
        rows.find(|(_, [requested, used, room])| *requested > 0 && used.saturating_add(*requested) > *room)
    }

    /// What this has above the other.
    pub fn above(self, other: Self) -> Self {
        let [cpu, memory] = other.0;
        let [own_cpu, own_memory] = self.0;
        Self([own_cpu.saturating_sub(cpu).max(0), own_memory.saturating_sub(memory).max(0)])
    }
}

impl Add for Room {
    type Output = Self;

    fn add(self, more: Self) -> Self {
        let [cpu, memory] = more.0;
        let [own_cpu, own_memory] = self.0;
        Self([own_cpu.saturating_add(cpu), own_memory.saturating_add(memory)])
    }
}

impl Sum for Room {
    fn sum<I: Iterator<Item = Self>>(rooms: I) -> Self {
        rooms.fold(Self::default(), Add::add)
    }
}

/// A pod that runs and waits for more room.
#[derive(Clone, Debug, PartialEq)]
pub struct Wish {
    /// How much more than it was granted.
    pub more: Room,
    rank: (Reverse<i32>, bool, Timestamp),
}

impl Wish {
    /// A pod's wish since then.
    pub fn new(granted: &Pod, wanted: &Pod, since: Timestamp) -> Self {
        let is_guaranteed = wanted.qos_class() == QosClass::Guaranteed;
        let rank = (Reverse(wanted.spec().priority.unwrap_or(0)), !is_guaranteed, since);
        Self { more: Room::asked_by(wanted).above(Room::asked_by(granted)), rank }
    }

    /// What is used once everybody is served who comes before this one.
    pub fn used_before(&self, room: Room, used: Room, mut waiting: Vec<Self>) -> Room {
        waiting.retain(|other| other.rank < self.rank);
        waiting.sort_by_key(|wish| wish.rank);
        waiting.iter().fold(used, |used, wish| match room.lacks(wish.more, used) {
            None => used + wish.more,
            Some(_) => used,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(cpu: i64, priority: i32, guaranteed: bool, since: i64) -> Wish {
        let since = Timestamp::from_second(since).unwrap();
        Wish { more: Room([cpu, 0]), rank: (Reverse(priority), !guaranteed, since) }
    }

    #[test]
    fn room_should_go_to_priority_then_class_then_the_longest_wait() {
        let node = Room([1000, 1000]);
        let used = Room([500, 0]);
        let mine = wish(300, 5, false, 100);
        for before in [wish(300, 6, false, 200), wish(300, 5, true, 200), wish(300, 5, false, 99)] {
            assert_eq!(mine.used_before(node, used, vec![before]), Room([800, 0]));
        }
        for after in [wish(300, 4, true, 1), wish(300, 5, false, 101)] {
            assert_eq!(mine.used_before(node, used, vec![after]), used);
        }
        // One that does not fit holds nobody up.
        let waiting = vec![wish(200, 7, false, 1), wish(900, 9, false, 1)];
        assert_eq!(mine.used_before(node, used, waiting), Room([700, 0]));
    }

    #[test]
    fn only_what_is_requested_should_be_short() {
        let node = Room([1000, 1000]);
        let over = Room([2000, 0]);
        assert_eq!(node.lacks(Room([0, 100]), over), None);
        assert_eq!(node.lacks(Room([1, 100]), over), Some(("cpu", [1, 2000, 1000])));
        assert_eq!(node.lacks(Room([0, 1001]), over), Some(("memory", [1001, 0, 1000])));
    }
}
