//! Puts right what users do to the keys of services' allocations.
//!
//! Services and their allocations are written together, so there is nothing to repair but what somebody has changed by
//! hand: an `IPAddress` of a service that was deleted or names another parent comes back, one that the allocator seems to
//! have made and that no service has goes. Everything is looked at once at the start (a store may have been copied or
//! edited meanwhile), node ports too; after that only addresses that change, as they do.
//!
//! Two services that have the same address, which only a hand in the store can bring about, are told of in the log; the
//! first keeps it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::field::Look;
use serde_json::Value;
use store::{Action, Precondition, StoreError, Write};
use tokio_util::sync::CancellationToken;

use super::{ADDRESSES, Allocations, FAMILY, MANAGED_BY, MANAGER, PORTS, SERVICES};
use crate::cache::{Cached, Follower, Step, encode};
use crate::objects::prefix_of;
use crate::pipeline::Core;

/// Repairs until shutdown.
pub(crate) async fn follow(core: Arc<Core>, shutdown: CancellationToken) {
    let row = core.cache.row(ADDRESSES);
    let mut changes = row.subscribe();
    let mut follower = Follower::default();
    loop {
        changes.borrow_and_update();
        let mut everything = false;
        let mut changed = Vec::new();
        follower.follow(&row, |step| match step {
            Step::Restart => everything = true,
            Step::Change { old, new } => changed.extend([old.cloned(), new.cloned()].into_iter().flatten()),
        });
        // A service is seen no later than its addresses.
        core.objects.catch_up().await;
        if everything {
            look_at_everything(&core).await;
        } else {
            for address in &changed {
                look_at_one(&core, address).await;
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = changes.changed() => if changed.is_err() { return },
        }
    }
}

/// An address that has changed, and the service that it names or named.
async fn look_at_one(core: &Core, changed: &Cached) {
    let tree = changed.tree();
    let Some(parent) = tree.dig(&["spec", "parentRef"]) else { return };
    let service = core.objects.get(SERVICES, parent.text("namespace"), parent.text("name"));
    let service =
        service.filter(|_| parent.text("resource") == "services" && parent.text("group").is_empty());
    let found = core.objects.cached(ADDRESSES, "", changed.name());
    let wanted = service.and_then(|service| wanted_of(&service).remove(&*changed.key));
    settle(core, &changed.key, found.as_deref(), wanted.as_ref()).await;
}

async fn look_at_everything(core: &Core) {
    let mut wanted: BTreeMap<String, Value> = BTreeMap::new();
    for service in core.objects.list(SERVICES, "") {
        for (key, object) in wanted_of(&service) {
            if let Some(first) = wanted.get(&key) {
                let (name, first) = (api::object::name(&service), first.dig(&["spec", "parentRef"]));
                tracing::warn!(
                    key,
                    name,
                    ?first,
                    "an allocation belongs to two services; please recreate one"
                );
            } else {
                wanted.insert(key, object);
            }
        }
    }
    let known =
        |row| core.objects.snapshot(row).under(&prefix_of(row, ""), None).cloned().collect::<Vec<_>>();
    let found: BTreeMap<String, Arc<Cached>> = [known(ADDRESSES), known(PORTS)]
        .concat()
        .into_iter()
        .map(|object| (object.key.to_string(), object))
        .collect();
    let keys: BTreeSet<&String> = wanted.keys().chain(found.keys()).collect();
    for key in keys {
        settle(core, key, found.get(key).map(|found| &**found), wanted.get(key)).await;
    }
}

/// The keys that a service should have.
fn wanted_of(service: &Value) -> BTreeMap<String, Value> {
    Allocations::of(service).keys(service).collect()
}

/// Makes what is there what should be.
async fn settle(core: &Core, key: &str, found: Option<&Cached>, wanted: Option<&Value>) {
    let Some(action) = decide(found.map(Cached::tree).as_ref(), wanted) else { return };
    let precondition = found.map_or(Precondition::Absent, |found| Precondition::ModRevision(found.revision));
    let what = if matches!(action, Action::Delete) { "freed" } else { "reserved anew" };
    match core.store.commit(vec![Write { key: key.into(), precondition, action }]).await {
        Ok(_) => tracing::warn!(key, "an allocation that did not fit its service was {what}"),
        // It has changed meanwhile, and is looked at again for that.
        Err(StoreError::Conflict { .. }) => {}
        Err(error) => tracing::warn!(key, %error, "an allocation could not be repaired"),
    }
}

/// What to do about a key. Pure.
fn decide(found: Option<&Value>, wanted: Option<&Value>) -> Option<Action> {
    let put = |object: &Value| Some(Action::Put { value: encode(object).into(), time_to_live: None });
    match (found, wanted) {
        (None, wanted) => wanted.and_then(put),
        (Some(found), Some(wanted)) => {
            let is_right = ["spec", "service"].iter().all(|field| found.get(field) == wanted.get(field))
                && [FAMILY, MANAGED_BY].iter().all(|name| label(found, name) == label(wanted, name));
            if is_right { None } else { put(wanted) }
        }
        (Some(found), None) => {
            let is_ours = found.text("kind") != "IPAddress" || label(found, MANAGED_BY) == MANAGER;
            is_ours.then_some(Action::Delete)
        }
    }
}

fn label<'a>(object: &'a Value, name: &str) -> &'a str {
    object.dig(&["metadata", "labels"]).map(|labels| labels.text(name)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::address_object;
    use super::*;

    fn address(service: &str) -> Value {
        let service = json!({"metadata": {"namespace": "default", "name": service}});
        address_object("10.96.0.5".parse().unwrap(), &service)
    }

    #[test]
    fn allocations_are_made_to_fit_their_services() {
        let mut unlabelled = address("a");
        unlabelled["metadata"]["labels"] = json!({});
        let mut foreign = address("a");
        foreign["spec"]["parentRef"] =
            json!({"group": "gateway.networking.k8s.io", "resource": "gateways", "name": "g"});
        let port = json!({"kind": "NodePortAllocation", "service": {"name": "a"}});
        for (what, found, wanted, action) in [
            ("nothing", None, None, ""),
            ("right", Some(address("a")), Some(address("a")), ""),
            ("missing", None, Some(address("a")), "put"),
            ("of another service", Some(address("b")), Some(address("a")), "put"),
            ("without labels", Some(unlabelled.clone()), Some(address("a")), "put"),
            ("taken for something else", Some(foreign.clone()), Some(address("a")), "put"),
            ("left over", Some(address("a")), None, "delete"),
            ("taken over", Some(foreign), None, "delete"),
            ("somebody's own", Some(unlabelled), None, ""),
            ("a port left over", Some(port), None, "delete"),
        ] {
            let is = match decide(found.as_ref(), wanted.as_ref()) {
                None | Some(Action::Nothing) => "",
                Some(Action::Delete) => "delete",
                Some(Action::Put { .. }) => "put",
            };
            assert_eq!(is, action, "{what}");
        }
    }
}
