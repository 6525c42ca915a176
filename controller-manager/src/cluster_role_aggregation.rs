//! Keeps the stored `rules` of cluster roles that aggregate others equal to the union of what they aggregate.
//!
//! The API server grants that union at once, whatever is stored; the stored rules are for people and for tools that read
//! roles. They come in the order of the aggregated roles' names, nothing twice, so that nothing is written without need.

use std::sync::Arc;

use client::{Outcome, queue};
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::common::{Context, Reconciled};

const MANAGER: &str = "clusterrole-aggregation-controller";

/// Runs the controller until shutdown.
pub(crate) async fn run(context: Context) {
    let roles = context.all::<ClusterRole>();
    let queue = context.queue("clusterrole-aggregation");
    if !roles.synced().await {
        return;
    }
    let (enqueue, all) = (queue.clone(), roles.clone());
    roles.on_change(move |_| {
        let aggregating = all.list().into_iter().filter(|role| role.aggregation_rule.is_some());
        aggregating.for_each(|role| enqueue.add(role.name_any()));
    });
    queue::run(queue, 1, move |name: String| {
        let (context, roles) = (context.clone(), roles.clone());
        async move {
            let Some(role) = roles.get("", &name) else { return Ok(Outcome::Done) };
            match decide(&role, &roles.list()) {
                Some(rules) => apply(&context, &name, rules).await,
                None => Ok(Outcome::Done),
            }
        }
    })
    .await;
}

/// The rules that the role should have, if they are not what it has.
fn decide(role: &ClusterRole, all: &[Arc<ClusterRole>]) -> Option<Vec<PolicyRule>> {
    let aggregation = role.aggregation_rule.as_ref()?;
    let mut rules: Vec<PolicyRule> = Vec::new();
    for selector in aggregation.cluster_role_selectors.iter().flatten() {
        let mut others: Vec<&Arc<ClusterRole>> = all
            .iter()
            .filter(|other| other.metadata.name != role.metadata.name && selects(selector, other))
            .collect();
        others.sort_by(|one, other| one.metadata.name.cmp(&other.metadata.name));
        for rule in others.into_iter().flat_map(|other| other.rules.iter().flatten()) {
            if !rules.contains(rule) {
                rules.push(rule.clone());
            }
        }
    }
    (role.rules.as_deref().unwrap_or_default() != rules).then_some(rules)
}

fn selects(selector: &LabelSelector, role: &ClusterRole) -> bool {
    let selector = serde_json::to_value(selector).unwrap_or_default();
    let labels = json!(role.labels());
    api::selector::LabelSelector::from_object(Some(&selector))
        .is_ok_and(|selector| selector.matches(&Some(&labels)))
}

async fn apply(context: &Context, name: &str, rules: Vec<PolicyRule>) -> Reconciled {
    let role = json!({
        "kind": "ClusterRole", "apiVersion": "rbac.authorization.k8s.io/v1",
        "metadata": { "name": name }, "rules": rules,
    });
    let params = PatchParams::apply(MANAGER).force();
    context.cluster_api::<ClusterRole>().patch(name, &params, &Patch::Apply(&role)).await?;
    Ok(Outcome::Done)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::rbac::v1::AggregationRule;

    use super::*;

    fn role(name: &str, label: &str, verbs: &[&str]) -> ClusterRole {
        let mut role = ClusterRole::default();
        role.metadata.name = Some(name.into());
        role.metadata.labels = Some([(label.to_string(), "true".to_string())].into());
        let rule = |verb: &&str| PolicyRule { verbs: vec![verb.to_string()], ..PolicyRule::default() };
        role.rules = Some(verbs.iter().map(rule).collect());
        role
    }

    #[test]
    fn an_aggregating_role_has_the_rules_of_those_it_selects_and_no_others() {
        let mut edit = role("edit", "to-admin", &["stale"]);
        let selector = LabelSelector {
            match_labels: Some([("to-edit".into(), "true".into())].into()),
            ..Default::default()
        };
        edit.aggregation_rule = Some(AggregationRule { cluster_role_selectors: Some(vec![selector]) });
        let all: Vec<Arc<ClusterRole>> = [
            edit.clone(),
            role("b", "to-edit", &["get", "list"]),
            role("a", "to-edit", &["get"]),
            role("c", "to-view", &["watch"]),
        ]
        .map(Arc::new)
        .to_vec();
        let rules = decide(&edit, &all).unwrap();
        let verbs: Vec<&str> = rules.iter().map(|rule| rule.verbs[0].as_str()).collect();
        assert_eq!(verbs, ["get", "list"]);
        edit.rules = Some(rules);
        assert_eq!(decide(&edit, &all), None, "nothing is written twice");
        assert_eq!(decide(&all[1], &all), None, "other roles are left alone");
    }
}
