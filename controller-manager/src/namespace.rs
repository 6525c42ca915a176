//! Empties namespaces that are being deleted, then lets them go.
//!
//! Pods go first, so that nothing they use is taken from under them; then everything else that the server's discovery
//! knows, kinds defined by users included. What remains, and why, stands in the namespace's conditions. Nothing is finalized
//! as long as discovery or one list failed: an error is never taken for "empty".

use std::collections::BTreeMap;
use std::time::Duration;

use client::patch::update_status;
use client::{ErrorExt, Forgive, Outcome, Queue, queue};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::core::DynamicObject;
use kube::{Api, ResourceExt};
use tracing::debug;

use crate::common::served::{Served, deletable};
use crate::common::{Context, Reconciled};

const FINALIZER: &str = "kubernetes";
const WORKERS: usize = 4;
const LONGEST_DELAY: Duration = Duration::from_secs(10);

/// Runs the controller until shutdown.
pub(crate) async fn run(context: Context) {
    let namespaces = context.all::<Namespace>();
    let queue: Queue<String> =
        Queue::with_longest_delay("namespace", context.shutdown.clone(), LONGEST_DELAY);
    if !namespaces.synced().await {
        return;
    }
    let enqueue = queue.clone();
    namespaces.on_change(move |change| {
        if change.object().metadata.deletion_timestamp.is_some() {
            enqueue.add(change.object().name_any());
        }
    });
    queue::run(queue, WORKERS, move |name: String| {
        let (context, namespace) = (context.clone(), namespaces.get("", &name));
        async move {
            match namespace {
                Some(namespace) if awaits_us(&namespace) => empty(&context, &namespace).await,
                _ => Ok(Outcome::Done),
            }
        }
    })
    .await;
}

fn awaits_us(namespace: &Namespace) -> bool {
    let finalizers = namespace.spec.iter().flat_map(|spec| spec.finalizers.iter().flatten());
    namespace.metadata.deletion_timestamp.is_some() && finalizers.into_iter().any(|name| name == FINALIZER)
}

/// What one pass over a namespace found.
#[derive(Debug, Default)]
struct Findings {
    discovery_error: Option<String>,
    content_errors: Vec<String>,
    /// Objects left, by resource.
    remaining: BTreeMap<String, usize>,
    /// Objects held back, by finalizer.
    finalizers: BTreeMap<String, usize>,
}

impl Findings {
    fn is_empty(&self) -> bool {
        self.discovery_error.is_none() && self.content_errors.is_empty() && self.remaining.is_empty()
    }
}

async fn empty(context: &Context, namespace: &Namespace) -> Reconciled {
    let name = namespace.name_any();
    let api = context.cluster_api::<Namespace>();
    // The cache may be behind; the finalizer must not be removed from a namespace that is not being deleted.
    let Some(mut fresh) = api.get_opt(&name).await? else { return Ok(Outcome::Done) };
    if !awaits_us(&fresh) {
        return Ok(Outcome::Done);
    }
    let findings = sweep(context, &name).await;
    let mut changed = fresh.clone();
    report(&mut changed, &findings, context.now());
    if !findings.is_empty() {
        update_status(&api, &fresh, &changed).await?;
        debug!(namespace = %name, remaining = ?findings.remaining, "namespace is not empty yet");
        return Ok(Outcome::Retry);
    }
    if let Some(updated) = update_status(&api, &fresh, &changed).await? {
        fresh = updated;
    }
    if let Some(spec) = &mut fresh.spec {
        spec.finalizers.get_or_insert_default().retain(|finalizer| finalizer != FINALIZER);
    }
    match api.replace_subresource("finalize", &name, &PostParams::default(), &fresh).await {
        Ok(_) => Ok(Outcome::Done),
        Err(error) if error.is_not_found() => Ok(Outcome::Done),
        Err(error) => Err(error.into()),
    }
}

async fn sweep(context: &Context, namespace: &str) -> Findings {
    let mut findings = Findings::default();
    let kinds = match deletable(&context.client).await {
        Ok(kinds) => kinds,
        Err(error) => {
            findings.discovery_error = Some(error.told());
            return findings;
        }
    };
    let (pods, others): (Vec<_>, Vec<_>) = kinds
        .into_iter()
        .filter(|kind| kind.namespaced)
        .partition(|kind| kind.resource.group.is_empty() && kind.resource.plural == "pods");
    for kind in &pods {
        sweep_kind(context, namespace, kind, &mut findings).await;
    }
    if findings.is_empty() {
        for kind in &others {
            sweep_kind(context, namespace, kind, &mut findings).await;
        }
    }
    findings
}

async fn sweep_kind(context: &Context, namespace: &str, kind: &Served, findings: &mut Findings) {
    let api: Api<DynamicObject> = Api::namespaced_with(context.client.clone(), namespace, &kind.resource);
    match delete_all(&api, kind).await {
        Ok(left) if left.is_empty() => {}
        Ok(left) => {
            let name = match kind.resource.group.as_str() {
                "" => format!("{}.", kind.resource.plural),
                group => format!("{}.{group}", kind.resource.plural),
            };
            findings.remaining.insert(name, left.len());
            for finalizer in left.into_iter().flatten() {
                *findings.finalizers.entry(finalizer).or_default() += 1;
            }
        }
        // The kind has just been removed, or cannot be served this way: it holds nothing of ours.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 405) => {}
        Err(error) => findings.content_errors.push(format!("{}: {}", kind.resource.plural, error.told())),
    }
}

/// Deletes all objects of a kind; the finalizers of each that is still there.
async fn delete_all(api: &Api<DynamicObject>, kind: &Served) -> Result<Vec<Vec<String>>, kube::Error> {
    let all = ListParams::default();
    let before = api.list_metadata(&all).await?;
    if before.items.is_empty() {
        return Ok(Vec::new());
    }
    let params = DeleteParams::background();
    if kind.can("deletecollection") {
        api.delete_collection(&params, &all).await?;
    } else {
        for object in before.items.iter().filter(|object| object.metadata.deletion_timestamp.is_none()) {
            api.delete(&object.name_any(), &params).await.if_found()?;
        }
    }
    let after = api.list_metadata(&all).await?;
    Ok(after.items.into_iter().map(|object| object.metadata.finalizers.unwrap_or_default()).collect())
}

/// Writes phase and conditions.
fn report(namespace: &mut Namespace, findings: &Findings, now: Timestamp) {
    let list = |counts: &BTreeMap<String, usize>, what: &str| {
        let each: Vec<_> = counts.iter().map(|(name, count)| format!("{name} has {count} {what}")).collect();
        each.join(", ")
    };
    let status = namespace.status.get_or_insert_default();
    status.phase = Some("Terminating".into());
    let conditions = status.conditions.get_or_insert_default();
    let mut set = |type_: &str, bad: bool, reasons: (&str, &str), messages: (String, &str)| {
        let condition = NamespaceCondition {
            type_: type_.into(),
            status: if bad { "True" } else { "False" }.into(),
            reason: Some(if bad { reasons.0 } else { reasons.1 }.into()),
            message: Some(if bad { messages.0 } else { messages.1.into() }),
            last_transition_time: Some(Time(now)),
        };
        set_condition(conditions, condition);
    };
    set(
        "NamespaceDeletionDiscoveryFailure",
        findings.discovery_error.is_some(),
        ("DiscoveryFailed", "ResourcesDiscovered"),
        (
            format!(
                "Discovery failed for some groups: {}",
                findings.discovery_error.clone().unwrap_or_default()
            ),
            "All resources successfully discovered",
        ),
    );
    set(
        "NamespaceDeletionGroupVersionParsingFailure",
        false,
        ("GroupVersionParsingFailed", "ParsedGroupVersions"),
        (String::new(), "All legacy kube types successfully parsed"),
    );
    set(
        "NamespaceDeletionContentFailure",
        !findings.content_errors.is_empty(),
        ("ContentDeletionFailed", "ContentDeleted"),
        (
            format!(
                "Failed to delete all resource types, {} remaining: {}",
                findings.content_errors.len(),
                findings.content_errors.join(", ")
            ),
            "All content successfully deleted, may be waiting on finalization",
        ),
    );
    set(
        "NamespaceContentRemaining",
        !findings.remaining.is_empty(),
        ("SomeResourcesRemain", "ContentRemoved"),
        (
            format!("Some resources are remaining: {}", list(&findings.remaining, "resource instances")),
            "All content successfully removed",
        ),
    );
    set(
        "NamespaceFinalizersRemaining",
        !findings.finalizers.is_empty(),
        ("SomeFinalizersRemain", "ContentHasNoFinalizers"),
        (
            format!(
                "Some content in the namespace has finalizers remaining: {}",
                list(&findings.finalizers, "resource instances")
            ),
            "All content-preserving finalizers finished",
        ),
    );
}

fn set_condition(conditions: &mut Vec<NamespaceCondition>, mut new: NamespaceCondition) {
    match conditions.iter_mut().find(|known| known.type_ == new.type_) {
        Some(known) => {
            if known.status == new.status {
                new.last_transition_time = known.last_transition_time.clone();
            }
            *known = new;
        }
        None => conditions.push(new),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::at;

    #[test]
    fn conditions_name_what_remains_and_keep_their_transition_times() {
        let mut namespace = Namespace::default();
        let mut findings = Findings::default();
        findings.remaining.insert("pods.".into(), 2);
        report(&mut namespace, &findings, at(1));
        report(&mut namespace, &findings, at(2));
        let conditions = namespace.status.as_ref().unwrap().conditions.as_ref().unwrap();
        let remaining = conditions.iter().find(|known| known.type_ == "NamespaceContentRemaining").unwrap();
        assert_eq!(remaining.status, "True");
        assert_eq!(
            remaining.message.as_deref(),
            Some("Some resources are remaining: pods. has 2 resource instances")
        );
        assert_eq!(remaining.last_transition_time, Some(Time(at(1))));
    }

    #[test]
    fn a_failed_discovery_is_not_an_empty_namespace() {
        let findings = Findings { discovery_error: Some("down".into()), ..Findings::default() };
        assert!(!findings.is_empty());
    }
}
