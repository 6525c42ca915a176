//! Deletion: at once, gracefully, or once the last finalizer is gone.

use std::sync::Arc;

use api::field::Look;
use api::{ApiError, Row};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use store::{Action, Precondition, StoreError, Write};

use super::call::{Call, Target};
use super::options::{DeleteOptions, Options, Propagation};
use super::system_fields::metadata_mut;
use super::{Core, commit};
use crate::admission::{AdmissionRequest, Operation};
use crate::cache::{Cached, encode};
use crate::http::respond::Failure;
use crate::quota::Charge;

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";
const ATTEMPTS: usize = 16;

/// What a deletion has done.
pub(crate) enum Deleted {
    /// The object is gone; this is what it was.
    Gone(Arc<Cached>),
    /// The object waits for its grace period or its finalizers.
    Pending(Arc<Cached>),
}

/// What is to be done with an object that is to be deleted.
#[derive(Debug, PartialEq)]
enum Plan {
    Remove,
    Mark(Value),
    Nothing,
}

impl Core {
    /// Deletes one object.
    pub(crate) async fn delete(
        &self,
        call: &Call,
        target: &Target,
        options: &DeleteOptions,
    ) -> Result<Deleted, Failure> {
        let mut current = self.current(target).await.ok_or_else(|| target.not_found(&target.name))?;
        for _ in 0..ATTEMPTS {
            let live = current.tree();
            options.check_preconditions(target, &live)?;
            // An eviction has been judged already, as the object that it is.
            if target.subresource.is_empty() {
                let about =
                    target.admission(Operation::Delete, &call.user, &call.warnings, &call.annotations);
                let (old, dry_run) = (Some(&live), options.dry_run);
                let admission = AdmissionRequest { old, dry_run, options: Options::Delete(options), ..about };
                self.admission.validate(&admission, None).await?;
            }
            match self.carry_out(target, options, &current, &live, Timestamp::now()).await? {
                Ok(deleted) => return Ok(deleted),
                Err(Some(now)) => current = now,
                Err(None) => return Err(target.not_found(&target.name).into()),
            }
        }
        Err(target.conflict(&target.name, "the object is being changed too often by others").into())
    }

    /// Done, or what another write left in between.
    async fn carry_out(
        &self,
        target: &Target,
        options: &DeleteOptions,
        current: &Arc<Cached>,
        live: &Value,
        now: Timestamp,
    ) -> Result<Result<Deleted, Option<Arc<Cached>>>, Failure> {
        let plan = plan(&target.row, live, options, now);
        let (action, marked) = match &plan {
            Plan::Nothing => return Ok(Ok(Deleted::Pending(current.clone()))),
            Plan::Remove => (Action::Delete, None),
            Plan::Mark(new) => {
                let encoded = bytes::Bytes::from(encode(new));
                (Action::Put { value: encoded.clone(), time_to_live: None }, Some((new, encoded)))
            }
        };
        let precondition = Precondition::ModRevision(current.revision);
        let mut transaction = vec![Write { key: current.key.clone(), precondition, action }];
        let mut charge = match marked {
            None => self.charge(target, current.name(), Some(live), None, options.dry_run).await?,
            Some(_) => Charge::default(),
        };
        transaction.append(&mut charge.writes);
        if marked.is_none() {
            transaction.extend(crate::service::release(&target.row, live));
        }
        let revision = if options.dry_run {
            current.revision
        } else {
            match self.store.commit(transaction).await {
                Ok(committed) => committed.revision,
                Err(StoreError::Conflict { key, .. }) if *key != *current.key => {
                    // Another server has charged a quota; the next attempt has to see that.
                    self.objects.catch_up().await;
                    return Ok(Err(Some(current.clone())));
                }
                Err(StoreError::Conflict { current: entry, .. }) => {
                    let now = entry.and_then(|e| Cached::read(&e, None).ok());
                    return Ok(Err(now.map(Arc::new)));
                }
                Err(error) => return Err(commit::failure(&error)),
            }
        };
        let Some((new, encoded)) = marked else { return Ok(Ok(Deleted::Gone(current.clone()))) };
        let object = Cached::with_tree(current.key.clone(), revision, encoded, new)
            .map_err(|error| ApiError::internal(error.to_string()))?;
        Ok(Ok(Deleted::Pending(Arc::new(object))))
    }
}

/// Decides. Pure.
fn plan(row: &Row, live: &Value, options: &DeleteOptions, now: Timestamp) -> Plan {
    let mut new = live.clone();
    let pending_grace =
        live.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(0);
    let is_deleting = live.pointer("/metadata/deletionTimestamp").is_some();
    let mut grace = 0;
    if is_deleting && pending_grace > 0 {
        match options.grace_period_seconds {
            Some(shorter) if shorter < pending_grace => {
                grace = shorter.max(0);
                shorten(&mut new, pending_grace - grace, grace);
            }
            _ => return Plan::Nothing,
        }
    } else if !is_deleting
        && let Some(seconds) = row.strategy.grace_period_seconds(live, options.grace_period_seconds)
    {
        grace = if seconds < 0 { 1 } else { seconds };
    }
    let finalizers = finalizers_after(row, live, options);
    set_finalizers(&mut new, &finalizers);
    let held = !finalizers.is_empty() || is_held(row, &new);
    if grace == 0 && !held {
        return Plan::Remove;
    }
    if !is_deleting {
        mark(row, &mut new, now, grace);
    }
    if new == *live { Plan::Nothing } else { Plan::Mark(new) }
}

/// Whether something beside `metadata.finalizers` holds the object: namespaces have their own list.
fn is_held(row: &Row, object: &Value) -> bool {
    is_namespace(row) && object.get("spec").is_some_and(|spec| !spec.items("finalizers").is_empty())
}

fn is_namespace(row: &Row) -> bool {
    row.plural == "namespaces" && row.group().is_empty()
}

/// Whether an update has taken away the last thing that an object in deletion waited for.
pub(crate) fn is_finished(row: &Row, object: &Value) -> bool {
    let Some(metadata) = object.get("metadata") else { return false };
    metadata.at("deletionTimestamp").is_some()
        && metadata.int("deletionGracePeriodSeconds").unwrap_or(0) == 0
        && metadata.items("finalizers").is_empty()
        && !is_held(row, object)
}

fn mark(row: &Row, object: &mut Value, now: Timestamp, grace: i64) {
    let at = now.saturating_add(SignedDuration::from_secs(grace)).unwrap_or(now);
    if let Some(metadata) = metadata_mut(object) {
        metadata.insert("deletionTimestamp".to_string(), rfc3339(at).into());
        metadata.insert("deletionGracePeriodSeconds".to_string(), grace.into());
    }
    grow_generation(object);
    if is_namespace(row)
        && let Some(map) = object.as_object_mut()
    {
        let status = map.entry("status").or_insert_with(|| json!({}));
        if let Some(status) = status.as_object_mut() {
            status.insert("phase".to_string(), "Terminating".into());
        }
    }
}

fn shorten(object: &mut Value, by_seconds: i64, grace: i64) {
    let Some(metadata) = metadata_mut(object) else { return };
    let at =
        metadata.get("deletionTimestamp").and_then(Value::as_str).and_then(|t| t.parse::<Timestamp>().ok());
    if let Some(at) = at {
        let at = at.saturating_sub(SignedDuration::from_secs(by_seconds)).unwrap_or(at);
        metadata.insert("deletionTimestamp".to_string(), rfc3339(at).into());
    }
    metadata.insert("deletionGracePeriodSeconds".to_string(), grace.into());
}

fn rfc3339(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Adds one to the generation of an object that has one.
pub(crate) fn grow_generation(object: &mut Value) {
    let Some(metadata) = metadata_mut(object) else { return };
    if let Some(generation) = metadata.get("generation").and_then(Value::as_i64) {
        metadata.insert("generation".to_string(), (generation + 1).into());
    }
}

/// The finalizers with what the propagation policy adds and takes away.
fn finalizers_after(row: &Row, live: &Value, options: &DeleteOptions) -> Vec<String> {
    let existing: Vec<&str> = live
        .get("metadata")
        .map(|m| m.items("finalizers"))
        .unwrap_or_default()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let policy = options.propagation.or_else(|| {
        if existing.contains(&ORPHAN) {
            Some(Propagation::Orphan)
        } else if existing.contains(&FOREGROUND) {
            Some(Propagation::Foreground)
        } else {
            orphans_by_default(row).then_some(Propagation::Orphan)
        }
    });
    let wanted = match policy {
        Some(Propagation::Orphan) => Some(ORPHAN),
        Some(Propagation::Foreground) => Some(FOREGROUND),
        Some(Propagation::Background) | None => None,
    };
    let mut finalizers: Vec<String> = existing
        .iter()
        .filter(|f| wanted == Some(**f) || **f != ORPHAN && **f != FOREGROUND)
        .map(|f| (*f).to_string())
        .collect();
    if let Some(wanted) = wanted
        && !existing.contains(&wanted)
    {
        finalizers.push(wanted.to_string());
    }
    finalizers
}

/// The kinds whose dependents stay unless the client says otherwise, as they did before there was a policy.
fn orphans_by_default(row: &Row) -> bool {
    matches!((row.group(), row.plural.as_str()), ("batch", "jobs") | ("", "replicationcontrollers"))
}

fn set_finalizers(object: &mut Value, finalizers: &[String]) {
    let Some(metadata) = metadata_mut(object) else { return };
    if finalizers.is_empty() {
        metadata.remove("finalizers");
    } else {
        metadata.insert("finalizers".to_string(), finalizers.into());
    }
}

#[cfg(test)]
mod tests {
    use api::ResourceTable;

    use super::*;

    fn row(plural: &str) -> Arc<Row> {
        let table = ResourceTable::built_in();
        table.rows().iter().find(|r| r.plural == plural).unwrap().clone()
    }

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    #[test]
    fn an_object_that_nothing_holds_should_go_at_once() {
        let live = json!({"metadata": {"name": "a"}});
        assert_eq!(plan(&row("configmaps"), &live, &DeleteOptions::default(), now()), Plan::Remove);
    }

    #[test]
    fn finalizers_should_hold_an_object() {
        let live = json!({"metadata": {"name": "a", "finalizers": ["example.com/x"]}});
        let Plan::Mark(marked) = plan(&row("configmaps"), &live, &DeleteOptions::default(), now()) else {
            panic!("the object is marked");
        };
        assert_eq!(marked["metadata"]["deletionTimestamp"], "2026-01-01T00:00:00Z");
        assert_eq!(
            plan(&row("configmaps"), &marked, &DeleteOptions::default(), now()),
            Plan::Nothing,
            "a second request changes nothing"
        );
        assert!(!is_finished(&row("configmaps"), &marked));
    }

    #[test]
    fn propagation_should_become_a_finalizer() {
        let live = json!({"metadata": {"name": "a", "finalizers": ["orphan"]}});
        let foreground = DeleteOptions { propagation: Some(Propagation::Foreground), ..Default::default() };
        assert_eq!(finalizers_after(&row("deployments"), &live, &foreground), ["foregroundDeletion"]);
        let background = DeleteOptions { propagation: Some(Propagation::Background), ..Default::default() };
        assert!(finalizers_after(&row("jobs"), &live, &background).is_empty());
        assert_eq!(finalizers_after(&row("jobs"), &json!({}), &DeleteOptions::default()), ["orphan"]);
    }

    #[test]
    fn a_grace_period_should_only_become_shorter() {
        let live = json!({"metadata": {"name": "a", "deletionTimestamp": "2026-01-01T00:00:30Z",
            "deletionGracePeriodSeconds": 30}});
        let with = |seconds| DeleteOptions { grace_period_seconds: Some(seconds), ..Default::default() };
        assert_eq!(plan(&row("pods"), &live, &with(60), now()), Plan::Nothing);
        let Plan::Mark(shorter) = plan(&row("pods"), &live, &with(5), now()) else {
            panic!("it is shortened")
        };
        assert_eq!(shorter["metadata"]["deletionTimestamp"], "2026-01-01T00:00:05Z");
        assert_eq!(plan(&row("pods"), &live, &with(0), now()), Plan::Remove);
    }

    #[test]
    fn a_namespace_should_wait_for_its_own_finalizers() {
        let live = json!({"metadata": {"name": "a"}, "spec": {"finalizers": ["kubernetes"]}});
        let Plan::Mark(marked) = plan(&row("namespaces"), &live, &DeleteOptions::default(), now()) else {
            panic!("the namespace is marked");
        };
        assert_eq!(marked["status"]["phase"], "Terminating");
        let mut finalized = marked;
        finalized["spec"] = json!({});
        assert!(is_finished(&row("namespaces"), &finalized));
    }
}
