//! `componentstatuses`: which parts of the control plane are alive, as far as the server can tell.
//!
//! It asks the store, and looks at the leases of parts that elect a leader. A part that runs in this process without
//! an election has no lease and is not listed: nothing is told that was not seen.

use std::sync::Arc;

use api::ApiError;
use api::field::Look;
use http::StatusCode;
use serde_json::{Value, json};

use super::metrics::cached;
use crate::http::Response;
use crate::http::respond::Failure;
use crate::pipeline::{Call, Core, Target, filter};
use crate::present::{IncludeObject, ListMeta, Presenter};

/// The parts that may elect a leader; upstream names them by their leases.
const ELECTED: [(&str, &str); 2] =
    [("controller-manager", "kube-controller-manager"), ("scheduler", "kube-scheduler")];
const DEPRECATED: &str = "v1 ComponentStatus is deprecated in v1.19+";

/// Whether the target is served here.
pub(super) fn is_component_status(target: &Target) -> bool {
    target.row.kind == "ComponentStatus" && target.row.group().is_empty()
}

/// Answers get and list.
pub(super) async fn answer(core: &Arc<Core>, call: &Call, target: &Target) -> Result<Response, Failure> {
    call.warn(DEPRECATED);
    let include = IncludeObject::parse(call.query.get("includeObject"))?;
    let presenter = Presenter::new(target, call.form, include);
    let filter = filter(call, target)?;
    let statuses = statuses(core).await;
    let mut found = statuses.iter().filter_map(|s| cached(target, s)).filter(|s| filter.matches(s));
    if call.info.verb == "get" {
        let one = found.next().ok_or_else(|| ApiError::not_found("", &target.row.plural, &target.name))?;
        return Ok(presenter.object(StatusCode::OK, &one));
    }
    let meta = ListMeta { revision: core.cache.revision(), ..ListMeta::default() };
    Ok(presenter.list(found.map(Arc::new).collect(), &meta))
}

async fn statuses(core: &Core) -> Vec<Value> {
    let now = jiff::Timestamp::now();
    let elected = ELECTED.iter().filter_map(|(part, lease)| {
        let lease = core.objects.get("coordination.k8s.io/leases", "kube-system", lease)?;
        let alive = is_held(lease.get("spec")?, now);
        Some(status(part, alive, if alive { "ok" } else { "nobody holds the lease" }))
    });
    let store = match core.store.current_revision().await {
        Ok(_) => status("store", true, "ok"),
        Err(error) => status("store", false, &error.to_string()),
    };
    elected.chain([store]).collect()
}

fn is_held(lease: &Value, now: jiff::Timestamp) -> bool {
    let renewed: Option<jiff::Timestamp> = lease.text("renewTime").parse().ok();
    let seconds = lease.int("leaseDurationSeconds").unwrap_or_default();
    !lease.text("holderIdentity").is_empty()
        && renewed.is_some_and(|at| now.as_second().saturating_sub(at.as_second()) <= seconds)
}

fn status(name: &str, healthy: bool, message: &str) -> Value {
    let condition =
        json!({"type": "Healthy", "status": if healthy { "True" } else { "False" }, "message": message});
    json!({
        "kind": "ComponentStatus", "apiVersion": "v1",
        "metadata": {"name": name, "creationTimestamp": null}, "conditions": [condition],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_should_count_while_somebody_renews_it() {
        let now = "2026-01-01T00:00:20Z".parse().unwrap();
        let lease = |holder: &str, renewed: &str| json!({"holderIdentity": holder, "renewTime": renewed, "leaseDurationSeconds": 15});
        assert!(is_held(&lease("a", "2026-01-01T00:00:10.000000Z"), now));
        assert!(!is_held(&lease("a", "2026-01-01T00:00:01.000000Z"), now));
        assert!(!is_held(&lease("", "2026-01-01T00:00:19.000000Z"), now));
    }
}
