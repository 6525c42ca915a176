//! Deletes objects whose owners are all gone, over every kind that the server has, kinds defined by users included.
//!
//! The graph of owner references comes from metadata-only watches and may be stale; nothing is deleted on its word: the object
//! and its owners are read from the server first, and the deletion carries the UID and version that were read. Background,
//! foreground (with `blockOwnerDeletion`) and orphaning deletions are finished here; the server begins them with finalizers.
//! Events are not watched: they own nothing and expire by themselves.

mod decide;
mod graph;
mod kinds;

use std::collections::HashMap;
use std::sync::Arc;

use client::patch::only_unchanged;
use client::{Change, ErrorExt, Informer, Outcome, Queue, Scope, Watched, queue};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{
    Endpoints, Namespace, Node as CoreNode, Pod, ReplicationController, Service,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::core::{ApiResource, DynamicObject, ObjectMeta, PartialObjectMeta};
use parking_lot::Mutex;
use serde_json::json;
use tracing::{debug, info, warn};

use crate::common::served::deletable;
use crate::common::{Context, ReconcileError, Reconciled};
use decide::{Decision, OwnerState};
use graph::{FOREGROUND, Graph, Node, ORPHAN, Work};
use kinds::{Feed, Kinds, OwnedMeta};

const WORKERS: usize = 8;

/// Runs the controller until shutdown.
pub(crate) async fn run(context: Context) {
    let check = context.queue::<String>("garbage-collector");
    let orphan = context.queue::<String>("garbage-collector-orphan");
    let refresh = context.queue::<()>("garbage-collector-kinds");
    let collector = Arc::new(Collector {
        context: context.clone(),
        graph: Mutex::default(),
        kinds: Kinds::default(),
        check: check.clone(),
        orphan: orphan.clone(),
    });
    // A definition that comes or goes changes what there is to watch; its status says when it is served.
    let definitions = context
        .informers
        .get_with::<PartialObjectMeta<CustomResourceDefinition>>(&Default::default(), Scope::all());
    let enqueue = refresh.clone();
    definitions.on_change(move |_| enqueue.add_after((), std::time::Duration::from_millis(300)));
    refresh.add(());
    tokio::join!(
        queue::run_on(refresh, 1, collector.clone(), Collector::refresh),
        queue::run_on(check, WORKERS, collector.clone(), Collector::check_one),
        queue::run_on(orphan, WORKERS, collector, Collector::orphan_one),
    );
    drop(definitions);
}

struct Collector {
    context: Context,
    graph: Mutex<Graph>,
    kinds: Kinds,
    check: Queue<String>,
    orphan: Queue<String>,
}

impl Collector {
    fn enqueue(&self, work: Work) {
        if !self.kinds.ready() {
            // The first complete look at the graph follows when every watch has its first list.
            return;
        }
        for uid in work.check {
            self.check.add(uid);
        }
        for uid in work.orphan {
            self.orphan.add(uid);
        }
    }

    /// Watches what the server has now, and stops watching what it no longer has.
    async fn refresh(self: Arc<Self>, (): ()) -> Reconciled {
        let mut served = deletable(&self.context.client).await?;
        served.retain(|kind| kind.can("watch") && kind.resource.kind != "Event");
        let (added, removed) = self.kinds.replace(served);
        for kind in removed {
            info!(kind = %kind.resource.kind, group = %kind.resource.group, "no longer collecting a kind");
            let gone = self.graph.lock().of_kind(&kind.resource.group, &kind.resource.kind);
            for uid in gone {
                let work = self.graph.lock().remove(&uid);
                self.enqueue(work);
            }
        }
        for kind in added {
            let feed = self.feed(&kind.resource);
            self.kinds.watching(&kind.resource, feed);
        }
        if !self.kinds.ready() {
            self.kinds.wait_until_synced().await;
            self.kinds.set_ready();
            let graph = self.graph.lock();
            let work = Work { check: graph.with_unknown_owners(), orphan: graph.orphaning() };
            drop(graph);
            debug!(kinds = self.kinds.len(), to_check = work.check.len(), "owner graph is complete");
            self.enqueue(work);
        }
        Ok(Outcome::Done)
    }

    /// Kinds that another controller watches as a whole anyway are not watched a second time.
    fn feed(self: &Arc<Self>, resource: &ApiResource) -> Box<dyn Feed> {
        match (resource.group.as_str(), resource.kind.as_str()) {
            ("", "Pod") => self.follow(resource, self.context.all::<Pod>()),
            ("", "Node") => self.follow(resource, self.context.all::<CoreNode>()),
            ("", "Service") => self.follow(resource, self.context.all::<Service>()),
            ("", "Endpoints") => self.follow(resource, self.context.all::<Endpoints>()),
            ("", "Namespace") => self.follow(resource, self.context.all::<Namespace>()),
            ("", "ReplicationController") => {
                self.follow(resource, self.context.all::<ReplicationController>())
            }
            ("apps", "ReplicaSet") => self.follow(resource, self.context.all::<ReplicaSet>()),
            ("apps", "Deployment") => self.follow(resource, self.context.all::<Deployment>()),
            ("apps", "DaemonSet") => self.follow(resource, self.context.all::<DaemonSet>()),
            ("apps", "StatefulSet") => self.follow(resource, self.context.all::<StatefulSet>()),
            ("apps", "ControllerRevision") => self.follow(resource, self.context.all::<ControllerRevision>()),
            ("batch", "Job") => self.follow(resource, self.context.all::<Job>()),
            ("batch", "CronJob") => self.follow(resource, self.context.all::<CronJob>()),
            ("discovery.k8s.io", "EndpointSlice") => {
                self.follow(resource, self.context.all::<EndpointSlice>())
            }
            _ => self.follow(resource, self.context.informers.get_with::<OwnedMeta>(resource, Scope::all())),
        }
    }

    fn follow<K: Watched>(self: &Arc<Self>, resource: &ApiResource, informer: Informer<K>) -> Box<dyn Feed> {
        let (weak, resource, alive) = (Arc::downgrade(self), resource.clone(), Arc::new(()));
        let subscribed = Arc::downgrade(&alive);
        informer.on_change(move |change| {
            // A shared informer outlives the kind's time in discovery.
            if subscribed.strong_count() > 0
                && let Some(collector) = weak.upgrade()
            {
                collector.changed(&resource.group, &resource.kind, change);
            }
        });
        Box::new(kinds::Following { informer, _alive: alive })
    }

    fn changed<K: Watched>(&self, group: &str, kind: &str, change: &Change<K>) {
        let meta = change.object().meta();
        let Some(uid) = meta.uid.as_deref() else { return };
        let work = match change {
            Change::Deleted(_) => self.graph.lock().remove(uid),
            Change::Added(_) => self.graph.lock().upsert(uid, Node::new(group, kind, meta)),
            Change::Modified { old, .. } => {
                let mut graph = self.graph.lock();
                if let Some(before) = old.meta().uid.as_deref().filter(|before| *before != uid) {
                    let work = graph.remove(before);
                    let more = graph.upsert(uid, Node::new(group, kind, meta));
                    drop(graph);
                    self.enqueue(work);
                    more
                } else {
                    graph.upsert(uid, Node::new(group, kind, meta))
                }
            }
        };
        self.enqueue(work);
    }

    fn api(&self, group: &str, kind: &str, namespace: &str) -> Option<Api<DynamicObject>> {
        let served = self.kinds.find(group, kind)?;
        let client = self.context.client.clone();
        Some(if served.namespaced {
            Api::namespaced_with(client, namespace, &served.resource)
        } else {
            Api::all_with(client, &served.resource)
        })
    }

    async fn check_one(self: Arc<Self>, uid: String) -> Reconciled {
        let uid = uid.as_str();
        let Some(node) = self.graph.lock().get(uid).cloned() else { return Ok(Outcome::Done) };
        if node.deleting && !node.foreground {
            return Ok(Outcome::Done);
        }
        let Some(api) = self.api(&node.group, &node.kind, &node.namespace) else { return Ok(Outcome::Done) };
        let Some(live) =
            api.get_metadata_opt(&node.name).await?.filter(|live| live.metadata.uid.as_deref() == Some(uid))
        else {
            // It has gone; the watch will say so.
            return Ok(Outcome::Done);
        };
        if node.foreground {
            return self.finish_foreground(uid, &api, &live.metadata).await;
        }
        let mut owners = Vec::new();
        let mut known: HashMap<String, OwnerState> = HashMap::new();
        for owner in live.metadata.owner_references.iter().flatten() {
            let state = match known.get(&owner.uid) {
                Some(state) => *state,
                None => self.owner_state(owner, &node.namespace).await?,
            };
            known.insert(owner.uid.clone(), state);
            owners.push((owner.clone(), state));
        }
        let has_dependents = !self.graph.lock().dependents(uid).is_empty();
        match decide::decide(&live.metadata, &owners, has_dependents) {
            Decision::Keep => {}
            Decision::DropOwners(lost) => drop_owners(&api, &live.metadata, &lost).await?,
            Decision::Delete(policy) => {
                if policy == decide::Policy::Foreground && self.graph.lock().may_be_in_a_circle(uid) {
                    return self.unblock_owners(&api, &live).await;
                }
                debug!(kind = %node.kind, namespace = %node.namespace, name = %node.name, ?policy, "collecting");
                let params =
                    DeleteParams { propagation_policy: Some(policy.into()), ..DeleteParams::default() };
                ignore_not_found(api.delete(&node.name, &only_unchanged(&live, params)).await)?;
            }
        }
        Ok(Outcome::Done)
    }

    /// Owners and dependents that all wait for each other to go would wait for ever: this object no longer holds its owners up.
    async fn unblock_owners(
        &self,
        api: &Api<DynamicObject>,
        live: &PartialObjectMeta<DynamicObject>,
    ) -> Reconciled {
        let meta = &live.metadata;
        let mut owners = meta.owner_references.clone().unwrap_or_default();
        let blocks = owners.iter().any(|owner| owner.block_owner_deletion == Some(true));
        let name = meta.name.as_deref().unwrap_or_default();
        if blocks {
            owners.iter_mut().for_each(|owner| owner.block_owner_deletion = Some(false));
            set_metadata(api, meta, "ownerReferences", owners).await?;
            // The next look reads the object as it is then.
            return Ok(Outcome::Retry);
        }
        ignore_not_found(api.delete(name, &only_unchanged(live, DeleteParams::foreground())).await)?;
        Ok(Outcome::Done)
    }

    /// Asks the server about an owner. A kind that the server does not have is waited for, not taken for absent.
    async fn owner_state(
        &self,
        owner: &OwnerReference,
        namespace: &str,
    ) -> Result<OwnerState, ReconcileError> {
        let group = owner.api_version.rsplit_once('/').map_or("", |(group, _)| group);
        let Some(api) = self.api(group, &owner.kind, namespace) else {
            return Err(ReconcileError::Unusable(format!(
                "owner of unknown kind {} {}",
                owner.api_version, owner.kind
            )));
        };
        let namespaced = self.kinds.find(group, &owner.kind).is_some_and(|kind| kind.namespaced);
        if namespaced && namespace.is_empty() {
            // A cluster-wide object cannot have an owner in a namespace; whatever was meant, it is no reason to delete.
            return Ok(OwnerState::Solid);
        }
        let live = match api.get_metadata_opt(&owner.name).await? {
            Some(live) if live.metadata.uid.as_deref() == Some(owner.uid.as_str()) => live.metadata,
            _ => return Ok(OwnerState::Absent),
        };
        let waits = live.finalizers.iter().flatten().any(|finalizer| finalizer == FOREGROUND);
        Ok(if live.deletion_timestamp.is_some() && waits { OwnerState::Waiting } else { OwnerState::Solid })
    }

    /// An object deleted in the foreground goes when no dependent blocks it any longer.
    async fn finish_foreground(&self, uid: &str, api: &Api<DynamicObject>, live: &ObjectMeta) -> Reconciled {
        let dependents = self.graph.lock().dependents(uid);
        let blocking: Vec<_> = dependents
            .iter()
            .filter(|(_, dependent)| {
                let references = dependent.owners.iter();
                references
                    .filter(|owner| owner.uid == uid)
                    .any(|owner| owner.block_owner_deletion == Some(true))
            })
            .collect();
        if blocking.is_empty() {
            remove_finalizer(api, live, FOREGROUND).await?;
            return Ok(Outcome::Done);
        }
        for (dependent_uid, dependent) in blocking {
            if !dependent.deleting {
                self.check.add(dependent_uid.clone());
            }
        }
        Ok(Outcome::Done)
    }

    /// Releases every dependent of an object that is deleted with orphaning, then lets the object go.
    async fn orphan_one(self: Arc<Self>, uid: String) -> Reconciled {
        let uid = uid.as_str();
        let (node, dependents) = {
            let graph = self.graph.lock();
            let Some(node) = graph.get(uid).filter(|node| node.orphaning).cloned() else {
                return Ok(Outcome::Done);
            };
            (node, graph.dependents(uid))
        };
        for (dependent_uid, dependent) in dependents {
            let Some(api) = self.api(&dependent.group, &dependent.kind, &dependent.namespace) else {
                continue;
            };
            let Some(live) = api.get_metadata_opt(&dependent.name).await? else { continue };
            if live.metadata.uid.as_deref() == Some(dependent_uid.as_str()) {
                drop_owners(&api, &live.metadata, &[uid.to_string()]).await?;
            }
        }
        let Some(api) = self.api(&node.group, &node.kind, &node.namespace) else { return Ok(Outcome::Done) };
        if let Some(live) = api.get_metadata_opt(&node.name).await?
            && live.metadata.uid.as_deref() == Some(uid)
        {
            remove_finalizer(&api, &live.metadata, ORPHAN).await?;
        }
        Ok(Outcome::Done)
    }
}

/// Removes references to the given owners.
async fn drop_owners(
    api: &Api<DynamicObject>,
    meta: &ObjectMeta,
    lost: &[String],
) -> Result<(), kube::Error> {
    let kept: Vec<_> =
        meta.owner_references.iter().flatten().filter(|owner| !lost.contains(&owner.uid)).collect();
    set_metadata(api, meta, "ownerReferences", kept).await
}

async fn remove_finalizer(
    api: &Api<DynamicObject>,
    meta: &ObjectMeta,
    finalizer: &str,
) -> Result<(), kube::Error> {
    let finalizers: Vec<_> = meta.finalizers.iter().flatten().filter(|known| *known != finalizer).collect();
    if finalizers.len() == meta.finalizers.as_ref().map_or(0, Vec::len) {
        return Ok(());
    }
    set_metadata(api, meta, "finalizers", finalizers).await
}

/// Writes one field of the metadata, of the object as it was seen.
async fn set_metadata(
    api: &Api<DynamicObject>,
    meta: &ObjectMeta,
    field: &str,
    value: impl serde::Serialize,
) -> Result<(), kube::Error> {
    let patch =
        json!({ "metadata": { "uid": meta.uid, "resourceVersion": meta.resource_version, field: value } });
    let name = meta.name.as_deref().unwrap_or_default();
    ignore_not_found(api.patch_metadata(name, &PatchParams::default(), &Patch::Merge(&patch)).await)
}

fn ignore_not_found<T>(result: Result<T, kube::Error>) -> Result<(), kube::Error> {
    match result {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => {
            if !error.is_conflict() {
                warn!(%error, "garbage collection was refused");
            }
            Err(error)
        }
    }
}
