//! NodeResourcesBalancedAllocation: nodes are better on which a pod evens out the use of CPU and memory.

use super::{SCORE_MAX, Score};
use crate::model::{NodeInfo, PodInfo, Resources};

struct BalancedAllocation<'a>(&'a Resources);

pub(super) fn score<'a>(pod: &'a PodInfo) -> Option<Box<dyn Score + 'a>> {
    // Pods that request nothing change no balance; scoring them would gather them on one node.
    let requests = &pod.requests;
    let states_any = requests.cpu_milli > 0 || requests.memory_bytes > 0;
    states_any.then(|| Box::new(BalancedAllocation(requests)) as Box<dyn Score>)
}

impl Score for BalancedAllocation<'_> {
    fn weight(&self) -> i64 {
        1
    }

    fn score(&self, node: &NodeInfo) -> i64 {
        let with = balance(node, self.0);
        let without = balance(node, &Resources::default());
        SCORE_MAX / 2 + (SCORE_MAX / 2 + with - without) / 2
    }
}

/// 100 when the used shares of CPU and memory are equal, 50 when one is full and the other empty.
fn balance(node: &NodeInfo, more: &Resources) -> i64 {
    let (has, used) = (&node.allocatable, &node.requested);
    let cpu = share(used.cpu_milli + more.cpu_milli, has.cpu_milli);
    let memory = share(used.memory_bytes + more.memory_bytes, has.memory_bytes);
    let deviation = cpu.zip(memory).map_or(0.0, |(cpu, memory)| ((cpu - memory) / 2.0).abs());
    #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)] // 0..=100
    let score = ((1.0 - deviation) * SCORE_MAX as f64) as i64;
    score
}

#[allow(clippy::cast_precision_loss)] // A share needs no more.
fn share(used: i64, has: i64) -> Option<f64> {
    (has > 0).then(|| (used as f64 / has as f64).min(1.0))
}
