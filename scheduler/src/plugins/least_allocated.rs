//! The score of NodeResourcesFit: nodes with more left over are better.

use super::{SCORE_MAX, Score};
use crate::model::{NodeInfo, PodInfo, Resources};

struct LeastAllocated<'a>(&'a Resources);

pub(super) fn score<'a>(pod: &'a PodInfo) -> Option<Box<dyn Score + 'a>> {
    Some(Box::new(LeastAllocated(&pod.scored_requests)))
}

impl Score for LeastAllocated<'_> {
    fn weight(&self) -> i64 {
        1
    }

    fn score(&self, node: &NodeInfo) -> i64 {
        let (has, used) = (&node.allocatable, &node.scored_requested);
        let cpu = left_over(has.cpu_milli, used.cpu_milli + self.0.cpu_milli);
        let memory = left_over(has.memory_bytes, used.memory_bytes + self.0.memory_bytes);
        let known: Vec<i64> = [cpu, memory].into_iter().flatten().collect();
        known.iter().sum::<i64>() / i64::try_from(known.len()).unwrap_or(1).max(1)
    }
}

/// What would be left, in percent of what there is.
fn left_over(has: i64, used: i64) -> Option<i64> {
    let left = i128::from(has - used) * i128::from(SCORE_MAX);
    (has > 0).then(|| i64::try_from(left / i128::from(has)).unwrap_or(0).max(0))
}
