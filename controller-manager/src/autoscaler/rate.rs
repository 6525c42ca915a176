//! How fast replicas may come and go: stabilization windows and the policies of a behavior. Pure.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscalerBehavior};

use crate::common::conditions::seconds;

/// Nothing older than this counts for any window or period that validation admits.
const KEPT: SignedDuration = SignedDuration::from_hours(1);
const DOWN_WINDOW_S: i32 = 300;

/// A reason and a message, as a condition tells them.
pub(super) type Told = (&'static str, &'static str);

/// What was recommended for a workload, and done to it, within the last hour.
#[derive(Debug, Default)]
pub(super) struct History {
    recommended: Vec<(Timestamp, i32)>,
    /// By how many replicas it grew or, below zero, shrank.
    changed: Vec<(Timestamp, i32)>,
}

impl History {
    /// Starts with what is there, so that a controller that has just started does not shrink it at once.
    pub fn begin(&mut self, current: i32, now: Timestamp) {
        for entries in [&mut self.recommended, &mut self.changed] {
            entries.retain(|(at, _)| *at + KEPT > now);
        }
        if self.recommended.is_empty() {
            self.recommended.push((now, current));
        }
    }

    /// Keeps in mind that a workload was scaled.
    pub fn scaled(&mut self, from: i32, to: i32, now: Timestamp) {
        self.changed.push((now, to - from));
    }

    fn grown(&self, period_s: i32, now: Timestamp) -> i32 {
        let within = self.changed.iter().filter(|(at, _)| *at + seconds(period_s) > now);
        within.map(|(_, change)| change).sum()
    }

    /// What all recommendations of the windows agree on; the new one is kept in mind.
    pub fn stabilize(
        &mut self,
        behavior: Option<&HorizontalPodAutoscalerBehavior>,
        current: i32,
        wanted: i32,
        now: Timestamp,
    ) -> (i32, Option<Told>) {
        let window = |rules: Option<&HPAScalingRules>, default: i32| {
            seconds(rules.and_then(|rules| rules.stabilization_window_seconds).unwrap_or(default))
        };
        let up = window(behavior.and_then(|behavior| behavior.scale_up.as_ref()), 0);
        let down = window(behavior.and_then(|behavior| behavior.scale_down.as_ref()), DOWN_WINDOW_S);
        let within = |window: SignedDuration| {
            self.recommended.iter().filter(move |(at, _)| *at + window > now).map(|(_, replicas)| *replicas)
        };
        let least = within(up).fold(wanted, i32::min);
        let most = within(down).fold(wanted, i32::max);
        let stable = current.max(least).min(most);
        self.recommended.push((now, wanted));
        let told = if wanted >= current {
            (
                "ScaleUpStabilized",
                "recent recommendations were lower than current one, applying the lowest recent recommendation",
            )
        } else {
            (
                "ScaleDownStabilized",
                "recent recommendations were higher than current one, applying the highest recent recommendation",
            )
        };
        (stable, (stable != wanted).then_some(told))
    }

    /// What the policies and the bounds leave of a step, and why if that is less.
    pub fn limit(
        &self,
        behavior: Option<&HorizontalPodAutoscalerBehavior>,
        current: i32,
        wanted: i32,
        bounds: (i32, i32),
        now: Timestamp,
    ) -> (i32, Option<Told>) {
        let (least, most) = bounds;
        if wanted > current {
            let rules = behavior.map(|behavior| behavior.scale_up.as_ref());
            let reachable = match rules {
                None => (current * 2).max(4),
                Some(rules) => self.reachable(rules, &Direction::UP, current, now).max(current),
            };
            let told = if most > reachable {
                ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate")
            } else {
                ("TooManyReplicas", "the desired replica count is more than the maximum replica count")
            };
            let allowed = most.min(reachable);
            return if wanted > allowed { (allowed, Some(told)) } else { (wanted, None) };
        }
        let rules = behavior.and_then(|behavior| behavior.scale_down.as_ref());
        let reachable = self.reachable(rules, &Direction::DOWN, current, now).min(current);
        let told = if least < reachable {
            ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate")
        } else {
            ("TooFewReplicas", "the desired replica count is less than the minimum replica count")
        };
        let allowed = least.max(reachable);
        if wanted < allowed { (allowed, Some(told)) } else { (wanted, None) }
    }

    fn reachable(
        &self,
        rules: Option<&HPAScalingRules>,
        direction: &Direction,
        current: i32,
        now: Timestamp,
    ) -> i32 {
        let select = rules.and_then(|rules| rules.select_policy.as_deref()).unwrap_or("Max");
        if select == "Disabled" {
            return current;
        }
        let given = rules.and_then(|rules| rules.policies.clone());
        let policies = given.filter(|all| !all.is_empty()).unwrap_or_else(|| (direction.policies)());
        let reached = policies.iter().map(|policy| {
            let begin = current - self.grown(policy.period_seconds, now);
            (direction.step)(begin, policy)
        });
        // The farthest is above the present number when growing, below when shrinking.
        let farthest = (select == "Max") == direction.grows;
        let reached = if farthest { reached.max() } else { reached.min() };
        reached.unwrap_or(current)
    }
}

struct Direction {
    grows: bool,
    policies: fn() -> Vec<HPAScalingPolicy>,
    step: fn(i32, &HPAScalingPolicy) -> i32,
}

impl Direction {
    const UP: Self = Self {
        grows: true,
        policies: || vec![policy("Pods", 4), policy("Percent", 100)],
        step: |begin, policy| match policy.type_.as_str() {
            "Pods" => begin.saturating_add(policy.value),
            // Rounded up, or a small workload would never grow.
            _ => percent(begin, 100_i64.saturating_add(policy.value.into()), 99),
        },
    };
    const DOWN: Self = Self {
        grows: false,
        policies: || vec![policy("Percent", 100)],
        step: |begin, policy| match policy.type_.as_str() {
            "Pods" => begin.saturating_sub(policy.value),
            _ => percent(begin, 100 - i64::from(policy.value), 0),
        },
    };
}

fn policy(type_: &str, value: i32) -> HPAScalingPolicy {
    HPAScalingPolicy { type_: type_.into(), value, period_seconds: 15 }
}

fn percent(of: i32, percent: i64, rounding: i64) -> i32 {
    i32::try_from((i64::from(of) * percent + rounding) / 100).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::at;

    const BOUNDS: (i32, i32) = (1, 100);

    fn behavior(value: serde_json::Value) -> HorizontalPodAutoscalerBehavior {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn shrinking_waits_until_nothing_in_the_window_wanted_more() {
        let mut history = History::default();
        history.begin(5, at(0));
        assert_eq!(history.stabilize(None, 5, 5, at(0)), (5, None));
        let (stable, told) = history.stabilize(None, 5, 2, at(299));
        assert_eq!((stable, told.map(|told| told.0)), (5, Some("ScaleDownStabilized")));
        assert_eq!(history.stabilize(None, 5, 2, at(300)), (2, None));
        assert_eq!(history.stabilize(None, 5, 9, at(301)), (9, None));
    }

    #[test]
    fn growth_is_bounded_by_its_rate_and_by_the_maximum() {
        let mut history = History::default();
        assert_eq!(history.limit(None, 1, 50, BOUNDS, at(0)).0, 4);
        assert_eq!(history.limit(None, 10, 50, BOUNDS, at(0)).0, 20);
        assert_eq!(
            history.limit(None, 10, 50, (1, 12), at(0)),
            (
                12,
                Some(("TooManyReplicas", "the desired replica count is more than the maximum replica count"))
            )
        );
        let slow =
            behavior(json!({"scaleUp": {"policies": [{"type": "Pods", "value": 2, "periodSeconds": 60}]}}));
        assert_eq!(history.limit(Some(&slow), 10, 50, BOUNDS, at(0)).0, 12);
        history.scaled(10, 12, at(0));
        assert_eq!(history.limit(Some(&slow), 12, 50, BOUNDS, at(59)).0, 12);
        assert_eq!(history.limit(Some(&slow), 12, 50, BOUNDS, at(60)).0, 14);
    }

    #[test]
    fn shrinking_is_bounded_by_its_policies() {
        let history = History::default();
        assert_eq!(history.limit(None, 10, 1, BOUNDS, at(0)), (1, None));
        let both = |select: &str| {
            behavior(json!({"scaleDown": {"selectPolicy": select, "policies": [
                {"type": "Pods", "value": 4, "periodSeconds": 60}, {"type": "Percent", "value": 10, "periodSeconds": 60}]}}))
        };
        assert_eq!(history.limit(Some(&both("Max")), 20, 1, BOUNDS, at(0)).0, 16);
        assert_eq!(history.limit(Some(&both("Min")), 20, 1, BOUNDS, at(0)).0, 18);
        assert_eq!(history.limit(Some(&both("Disabled")), 20, 1, BOUNDS, at(0)).0, 20);
    }
}
