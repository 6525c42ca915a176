//! Counts what the objects of a namespace use and writes it into the status of its quotas.
//!
//! The API server charges every write as it commits it, so that this controller has little to do: it begins the count of
//! a quota that is new or limits something else, and counts anew now and then. Objects are listed after the quota was
//! read, and the status is written on condition that the quota is still the same: a write that the list has missed has
//! changed the quota, and the count is done again.

use std::collections::BTreeMap;
use std::time::Duration;

use api::field::Look;
use api::quota::{Amounts, add, amounts, covers, tracks, usage};
use client::{ErrorExt, Outcome, queue};
use k8s_openapi::api::core::v1::ResourceQuota;
use kube::api::{Api, ApiResource, DynamicObject, ListParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use crate::common::served::deletable;
use crate::common::{Context, ReconcileError, Reconciled};

/// How often everything is counted anew.
const RECOUNT: Duration = Duration::from_secs(300);
/// Kinds whose objects are looked at one by one; of others it is enough how many there are.
const WEIGHED: [&str; 3] = ["pods", "services", "persistentvolumeclaims"];
const PAGE: u32 = 500;

/// Runs the controller until shutdown.
pub(crate) async fn run(context: Context) {
    let quotas = context.all::<ResourceQuota>();
    let queue = context.queue("resourcequota");
    if !quotas.synced().await {
        return;
    }
    let enqueue = queue.clone();
    quotas.on_change(move |change| {
        let quota = change.object();
        // Every charge changes the quota. Only what is not counted yet needs this controller.
        if hard(quota) != counted(quota) {
            enqueue.add((quota.namespace().unwrap_or_default(), quota.name_any()));
        }
    });
    quotas
        .list()
        .iter()
        .for_each(|quota| queue.add((quota.namespace().unwrap_or_default(), quota.name_any())));
    queue::run(queue, 2, move |(namespace, name): (String, String)| {
        let client = context.client.clone();
        async move { reconcile(client, &namespace, &name).await }
    })
    .await;
}

fn hard(quota: &ResourceQuota) -> Value {
    json!(quota.spec.as_ref().and_then(|spec| spec.hard.as_ref()))
}

fn counted(quota: &ResourceQuota) -> Value {
    json!(quota.status.as_ref().and_then(|status| status.hard.as_ref()))
}

async fn reconcile(client: Client, namespace: &str, name: &str) -> Reconciled {
    let quotas: Api<DynamicObject> =
        Api::namespaced_with(client.clone(), namespace, &ApiResource::erase::<ResourceQuota>(&()));
    let mut quota = match quotas.get(name).await {
        Ok(quota) if quota.metadata.deletion_timestamp.is_none() => quota,
        Ok(_) => return Ok(Outcome::Done),
        Err(error) if error.is_not_found() => return Ok(Outcome::Done),
        Err(error) => return Err(error.into()),
    };
    let tree = json!(quota);
    let limits = amounts(tree.dig(&["spec", "hard"]));
    let mut objects = BTreeMap::new();
    for kind in kinds(&client, &limits).await? {
        let found = find(&client, namespace, &kind).await?;
        objects.insert((kind.group, kind.plural), found);
    }
    let status = decide(&tree, &limits, &objects);
    if tree.at("status") == Some(&status) {
        return Ok(Outcome::RequeueAfter(RECOUNT));
    }
    if let Some(data) = quota.data.as_object_mut() {
        data.insert("status".to_string(), status);
    }
    match quotas.replace_status(name, &PostParams::default(), &quota).await {
        Ok(_) => Ok(Outcome::RequeueAfter(RECOUNT)),
        // Something was charged in between.
        Err(error) if error.is_conflict() => Ok(Outcome::Retry),
        Err(error) if error.is_not_found() => Ok(Outcome::Done),
        Err(error) => Err(error.into()),
    }
}

/// What was found of a kind: objects, or how many there are.
enum Found {
    Objects(Vec<Value>),
    Number(i64),
}

/// The status that a quota should have.
fn decide(quota: &Value, limits: &Amounts, found: &BTreeMap<(String, String), Found>) -> Value {
    let mut used = Amounts::new();
    let nothing = json!({});
    for ((group, plural), found) in found {
        match found {
            Found::Objects(objects) => {
                for object in objects.iter().filter(|object| covers(quota, group, plural, object)) {
                    add(&mut used, &usage(group, plural, object));
                }
            }
            Found::Number(number) if covers(quota, group, plural, &nothing) => {
                let number = amounts(Some(&json!({"n": number}))).remove("n").unwrap_or_default();
                used.extend(usage(group, plural, &nothing).into_keys().map(|name| (name, number)));
            }
            Found::Number(_) => {}
        }
    }
    let shown: BTreeMap<&String, String> =
        limits.keys().map(|name| (name, used.get(name).copied().unwrap_or_default().to_string())).collect();
    json!({"hard": quota.dig(&["spec", "hard"]), "used": shown})
}

/// The kinds that the quota limits, as far as the server has them.
async fn kinds(client: &Client, limits: &Amounts) -> Result<Vec<ApiResource>, ReconcileError> {
    let served =
        deletable(client).await?.into_iter().filter(|kind| kind.namespaced).map(|kind| kind.resource);
    let limited = served.filter(|kind| {
        limits.keys().any(|name| tracks(&kind.group, &kind.plural, name))
            // Events are not charged, therefore not counted.
            && kind.plural != "events"
    });
    Ok(limited.collect())
}

async fn find(client: &Client, namespace: &str, kind: &ApiResource) -> Result<Found, ReconcileError> {
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, kind);
    if !(kind.group.is_empty() && WEIGHED.contains(&kind.plural.as_str())) {
        let list = api.list_metadata(&ListParams::default().limit(1)).await?;
        let rest = list.metadata.remaining_item_count.unwrap_or(0);
        return Ok(Found::Number(rest + i64::try_from(list.items.len()).unwrap_or(0)));
    }
    let mut objects = Vec::new();
    let mut page = ListParams::default().limit(PAGE);
    loop {
        let list = api.list(&page).await?;
        objects.extend(list.items.iter().map(|object| json!(object)));
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = ListParams::default().limit(PAGE).continue_token(&token),
            None => return Ok(Found::Objects(objects)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_is_limited_is_counted_and_nothing_else() {
        let quota = json!({"spec": {"hard": {"pods": "5", "requests.cpu": "2", "count/widgets.a.io": "3", "secrets": "1"}}});
        let limits = amounts(quota.dig(&["spec", "hard"]));
        let pod = |cpu: &str| json!({"spec": {"containers": [{"resources": {"requests": {"cpu": cpu}}}]}});
        let key = |group: &str, plural: &str| (group.to_string(), plural.to_string());
        let found = BTreeMap::from([
            (key("", "pods"), Found::Objects(vec![pod("500m"), pod("700m")])),
            (key("a.io", "widgets"), Found::Number(2)),
            (key("", "secrets"), Found::Number(0)),
        ]);
        let status = decide(&quota, &limits, &found);
        assert_eq!(
            status["used"],
            json!({"count/widgets.a.io": "2", "pods": "2", "requests.cpu": "1200m", "secrets": "0"})
        );
        assert_eq!(status["hard"], quota["spec"]["hard"]);
    }

    #[test]
    fn scopes_leave_out_what_they_do_not_cover() {
        let quota = json!({"spec": {"scopes": ["Terminating"], "hard": {"pods": "5", "count/secrets": "1"}}});
        let limits = amounts(quota.dig(&["spec", "hard"]));
        let bounded = json!({"spec": {"activeDeadlineSeconds": 1}});
        let found = BTreeMap::from([
            ((String::new(), "pods".to_string()), Found::Objects(vec![bounded, json!({"spec": {}})])),
            ((String::new(), "secrets".to_string()), Found::Number(9)),
        ]);
        assert_eq!(decide(&quota, &limits, &found)["used"], json!({"pods": "1", "count/secrets": "0"}));
    }
}
