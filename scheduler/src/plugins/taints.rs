//! TaintToleration: taints keep pods away that do not tolerate them, strictly or as a preference.

use k8s_openapi::api::core::v1::{Taint, Toleration};

use super::{Difference, Filter, Rejection, Score, scale_to_max};
use crate::events::Plugin;
use crate::model::{NodeInfo, PodInfo};

/// A pod's tolerations.
#[derive(Clone, Copy)]
pub(super) struct Tolerations<'a>(&'a [Toleration]);

pub(super) fn tolerations_of(pod: &PodInfo) -> Tolerations<'_> {
    Tolerations(pod.spec().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default())
}

impl Tolerations<'_> {
    pub(super) fn tolerate(self, taint: &Taint) -> bool {
        self.0.iter().any(|toleration| tolerates(toleration, taint))
    }

    /// Whether no taint of the node keeps the pod from being scheduled there.
    pub(super) fn admit(self, node: &NodeInfo) -> bool {
        let strict = |taint: &&Taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute");
        node.taints().iter().filter(strict).all(|taint| self.tolerate(taint))
    }
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let given = |text: &Option<String>| text.as_deref().unwrap_or_default().to_owned();
    let (effect, key) = (given(&toleration.effect), given(&toleration.key));
    if !effect.is_empty() && effect != taint.effect {
        return false;
    }
    if !key.is_empty() && key != taint.key {
        return false;
    }
    let (own, theirs) = (given(&toleration.value), given(&taint.value));
    let numbers = || own.parse::<i64>().ok().zip(theirs.parse::<i64>().ok());
    match toleration.operator.as_deref().unwrap_or_default() {
        "" | "Equal" => own == theirs,
        "Exists" => true,
        "Lt" => numbers().is_some_and(|(own, theirs)| theirs < own),
        "Gt" => numbers().is_some_and(|(own, theirs)| theirs > own),
        _ => false,
    }
}

struct TaintFilter<'a>(Tolerations<'a>);

pub(super) fn filter<'a>(pod: &'a PodInfo) -> Option<Box<dyn Filter + 'a>> {
    Some(Box::new(TaintFilter(tolerations_of(pod))))
}

impl Filter for TaintFilter<'_> {
    fn check(&self, node: &NodeInfo, _: Difference<'_>) -> Result<(), Rejection> {
        if self.0.admit(node) {
            return Ok(());
        }
        Err(Rejection::final_one(Plugin::TaintToleration, "node(s) had untolerated taint(s)"))
    }
}

struct TaintScore<'a>(Vec<&'a Toleration>);

pub(super) fn score<'a>(pod: &'a PodInfo) -> Option<Box<dyn Score + 'a>> {
    let tolerations = tolerations_of(pod).0.iter();
    let concerned = |toleration: &&Toleration| {
        matches!(toleration.effect.as_deref().unwrap_or_default(), "" | "PreferNoSchedule")
    };
    Some(Box::new(TaintScore(tolerations.filter(concerned).collect())))
}

impl Score for TaintScore<'_> {
    fn weight(&self) -> i64 {
        3
    }

    fn score(&self, node: &NodeInfo) -> i64 {
        let soft = node.taints().iter().filter(|taint| taint.effect == "PreferNoSchedule");
        let untolerated = soft.filter(|taint| !self.0.iter().any(|toleration| tolerates(toleration, taint)));
        i64::try_from(untolerated.count()).unwrap_or(i64::MAX)
    }

    fn normalize(&self, scores: &mut [i64]) {
        scale_to_max(scores, true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toleration(key: &str, operator: &str, value: &str, effect: &str) -> Toleration {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Toleration {
            key: text(key),
            operator: text(operator),
            value: text(value),
            effect: text(effect),
            toleration_seconds: None,
        }
    }

    #[test]
    fn tolerations_match_taints_by_key_value_and_effect() {
        let taint = Taint {
            key: "gpu".into(),
            value: Some("a".into()),
            effect: "NoSchedule".into(),
            ..Taint::default()
        };
        for (toleration, expected) in [
            (toleration("gpu", "Equal", "a", "NoSchedule"), true),
            (toleration("gpu", "", "a", ""), true),
            (toleration("gpu", "", "b", ""), false),
            (toleration("gpu", "Exists", "", "NoExecute"), false),
            (toleration("gpu", "Exists", "", "NoSchedule"), true),
            (toleration("", "Exists", "", ""), true),
            (toleration("cpu", "Exists", "", ""), false),
        ] {
            assert_eq!(tolerates(&toleration, &taint), expected, "{toleration:?}");
        }
    }
}
