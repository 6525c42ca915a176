//! Keeps ranges of service addresses while addresses depend on them.
//!
//! Guarantees: every `ServiceCIDR` carries a finalizer and says that it is ready; a deleted one is kept, and says why,
//! until no address is left that lies in no other range. The API servers give an address on the condition that its range
//! is not deleted; so a list that is read after the deletion has all addresses that there will ever be of it.

use std::net::IpAddr;
use std::sync::Arc;

use api::net::AddressRange;
use client::{ErrorExt, Outcome, queue};
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::common::{Context, Reconciled};

const NAME: &str = "service-cidr-controller";
const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
const ALLOCATOR: &str = "ipallocator.k8s.io";
const HELD: &str =
    "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";

#[derive(Debug, PartialEq)]
enum Action {
    Protect,
    /// Status, reason and message of the condition `Ready`.
    Say(&'static str, &'static str, &'static str),
    Release,
    Nothing,
}

/// Runs the controller until shutdown.
pub(crate) async fn run(context: Context) {
    let ranges = context.all::<ServiceCIDR>();
    let addresses = context.all::<IPAddress>();
    let queue = context.queue("service-cidr");
    if !(ranges.synced().await && addresses.synced().await) {
        return;
    }
    let (enqueue, all) = (queue.clone(), ranges.clone());
    ranges.on_change(move |change| {
        // One that comes may set free others that are held.
        let others = all.list().into_iter().filter(|range| is_deleted(range));
        others.for_each(|range| enqueue.add(range.name_any()));
        enqueue.add(change.object().name_any());
    });
    let (enqueue, all) = (queue.clone(), ranges.clone());
    addresses.on_change(move |_| {
        let held = all.list().into_iter().filter(|range| is_deleted(range));
        held.for_each(|range| enqueue.add(range.name_any()));
    });
    ranges.list().iter().for_each(|range| queue.add(range.name_any()));
    queue::run(queue, 1, move |name: String| {
        let (context, ranges, addresses) = (context.clone(), ranges.clone(), addresses.clone());
        async move {
            let Some(range) = ranges.get("", &name) else { return Ok(Outcome::Done) };
            let known = || addresses.list().iter().filter_map(|address| given(address)).collect();
            let mut action = decide(&range, &ranges.list(), known);
            if action == Action::Release {
                // What is known here may be from before the deletion.
                let api: Api<IPAddress> = context.cluster_api();
                let now = api.list(&ListParams::default()).await?;
                action = decide(&range, &ranges.list(), || now.iter().filter_map(given).collect());
            }
            apply(&context, &range, action).await
        }
    })
    .await;
}

fn is_deleted(range: &ServiceCIDR) -> bool {
    range.metadata.deletion_timestamp.is_some()
}

/// The address, if it was given to a service.
fn given(address: &IPAddress) -> Option<IpAddr> {
    let is_given = address.labels().get(MANAGED_BY).is_some_and(|manager| manager == ALLOCATOR);
    address.name_any().parse().ok().filter(|_| is_given)
}

fn cidrs(range: &ServiceCIDR) -> Vec<AddressRange> {
    let cidrs = range.spec.iter().flat_map(|spec| spec.cidrs.iter().flatten());
    cidrs.filter_map(|cidr| AddressRange::parse(cidr)).collect()
}

fn decide(range: &ServiceCIDR, all: &[Arc<ServiceCIDR>], given: impl FnOnce() -> Vec<IpAddr>) -> Action {
    let is_protected = range.finalizers().iter().any(|finalizer| finalizer == FINALIZER);
    match (is_deleted(range), is_protected) {
        (false, false) => return Action::Protect,
        (false, true) => return say(range, "True", "", "Kubernetes Service CIDR is ready"),
        (true, false) => return Action::Nothing,
        (true, true) => {}
    }
    let others: Vec<AddressRange> = all
        .iter()
        .filter(|other| other.metadata.name != range.metadata.name && !is_deleted(other))
        .flat_map(|other| cidrs(other))
        .collect();
    let own = cidrs(range);
    let is_covered = own.iter().all(|cidr| others.iter().any(|other| other.contains(*cidr)));
    let lies_in =
        |ranges: &[AddressRange], address| ranges.iter().any(|range| range.offset(address).is_some());
    if !is_covered && given().into_iter().any(|address| lies_in(&own, address) && !lies_in(&others, address))
    {
        return say(range, "False", "Terminating", HELD);
    }
    Action::Release
}

/// Says it, unless it is said.
fn say(range: &ServiceCIDR, status: &'static str, reason: &'static str, message: &'static str) -> Action {
    let conditions = range.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions.into_iter().find(|condition| condition.type_ == "Ready");
    // The API server has its own words for the default range.
    let is_said = ready.is_some_and(|ready| ready.status == status && ready.reason == reason);
    if is_said { Action::Nothing } else { Action::Say(status, reason, message) }
}

async fn apply(context: &Context, range: &ServiceCIDR, action: Action) -> Reconciled {
    let api = context.cluster_api::<ServiceCIDR>();
    let name = range.name_any();
    let metadata = |finalizers: Value| json!({"metadata": {"uid": range.uid(), "finalizers": finalizers}});
    let patched = match action {
        Action::Nothing => return Ok(Outcome::Done),
        Action::Protect => {
            api.patch(&name, &PatchParams::default(), &Patch::Strategic(metadata(json!([FINALIZER])))).await
        }
        Action::Release => {
            let gone =
                json!({"metadata": {"uid": range.uid(), "$deleteFromPrimitiveList/finalizers": [FINALIZER]}});
            api.patch(&name, &PatchParams::default(), &Patch::Strategic(gone)).await
        }
        Action::Say(status, reason, message) => {
            let ready = json!({"type": "Ready", "status": status, "reason": reason, "message": message,
                "lastTransitionTime": context.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()});
            let object = json!({"kind": "ServiceCIDR", "apiVersion": "networking.k8s.io/v1",
                "metadata": {"name": name}, "status": {"conditions": [ready]}});
            api.patch_status(&name, &PatchParams::apply(NAME).force(), &Patch::Apply(&object)).await
        }
    };
    match patched {
        Err(error) if error.is_not_found() => Ok(Outcome::Done),
        patched => Ok(patched.map(|_| Outcome::Done)?),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::testing::at;

    fn range(name: &str, cidrs: &[&str]) -> ServiceCIDR {
        let ready = json!({"type": "Ready", "status": "True", "reason": "", "message": "as the server says",
            "lastTransitionTime": "2026-01-01T00:00:00Z"});
        serde_json::from_value(json!({
            "metadata": {"name": name, "finalizers": [FINALIZER]}, "spec": {"cidrs": cidrs},
            "status": {"conditions": [ready]},
        }))
        .unwrap()
    }

    fn deleted(mut range: ServiceCIDR) -> ServiceCIDR {
        range.metadata.deletion_timestamp = Some(Time(at(0)));
        range
    }

    fn decided(range: &ServiceCIDR, others: &[ServiceCIDR], given: &[&str]) -> Action {
        let all: Vec<Arc<ServiceCIDR>> = others.iter().chain([range]).cloned().map(Arc::new).collect();
        decide(range, &all, || given.iter().map(|ip| ip.parse().unwrap()).collect())
    }

    #[test]
    fn a_range_is_protected_and_then_ready() {
        let ready = range("a", &["10.96.0.0/24"]);
        assert_eq!(decided(&ready, &[], &[]), Action::Nothing);
        let mut new = ready.clone();
        new.metadata.finalizers = None;
        assert_eq!(decided(&new, &[], &[]), Action::Protect);
        let mut silent = ready;
        silent.status = None;
        assert!(matches!(decided(&silent, &[], &[]), Action::Say("True", "", _)));
    }

    #[test]
    fn a_deleted_range_goes_when_no_address_needs_it() {
        let gone = deleted(range("a", &["10.96.0.0/24", "fd00::/112"]));
        let held = Action::Say("False", "Terminating", HELD);
        let wider = range("b", &["10.96.0.0/16"]);
        let both = range("b", &["10.96.0.0/16", "fd00::/112"]);
        let going = deleted(wider.clone());
        for (others, given, action) in [
            (&[][..], &[][..], Action::Release),
            (std::slice::from_ref(&going), &["10.96.0.1"], Action::Say("False", "Terminating", HELD)),
            (&[], &["10.97.0.1", "fd01::1"], Action::Release),
            (&[], &["10.96.0.1"], held),
            (std::slice::from_ref(&wider), &["10.96.0.1"], Action::Release),
            (
                std::slice::from_ref(&wider),
                &["10.96.0.1", "fd00::1"],
                Action::Say("False", "Terminating", HELD),
            ),
            (&[both], &["10.96.0.1", "fd00::1"], Action::Release),
        ] {
            assert_eq!(decided(&gone, others, given), action, "{given:?}");
        }
        let mut released = gone;
        released.metadata.finalizers = None;
        assert_eq!(decided(&released, &[], &["10.96.0.1"]), Action::Nothing);
    }
}
