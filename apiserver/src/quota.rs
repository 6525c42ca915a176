//! Resource quotas: what a write uses more or less is charged in the write's own transaction.
//!
//! Guarantees that usage never exceeds what a quota allows, whatever is created at once and by however many servers: the
//! quota's new status is committed together with the object, on condition that nobody else has changed it. Deletions and
//! pods that end give back at once. Writes in a namespace with quotas take turns, so that they do not fail each other.
//!
//! As upstream, a quota limits what its status says, which the controller fills in. Until it has, writes are let through,
//! but touch the quota, so that the controller's count is done again. Dry runs are checked and not charged. Events are not counted, nor is what is written without the pipeline.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Weak};

use api::field::Look;
use api::quantity::Quantity;
use api::quota::{Amounts, add, amounts, covers, tracks, unsaid, usage};
use api::{ApiError, Row};
use parking_lot::Mutex;
use serde_json::{Value, json};
use store::{Action, Precondition, Write};
use tokio::sync::OwnedMutexGuard;

use crate::cache::{Cached, encode};
use crate::objects::{Objects, prefix_of};

const QUOTAS: &str = "core/resourcequotas";

/// One after another, per namespace.
type Turn = tokio::sync::Mutex<()>;

/// The quotas of all namespaces.
pub(crate) struct Quotas {
    objects: Objects,
    turns: Mutex<HashMap<String, Weak<Turn>>>,
}

/// What a write costs. To be kept until the write is committed.
#[derive(Default)]
pub(crate) struct Charge {
    /// The quotas' new usage.
    pub writes: Vec<Write>,
    _turn: Option<OwnedMutexGuard<()>>,
}

/// An object before and after a write; both, one or the other is there.
#[derive(Clone, Copy)]
pub(crate) struct Delta<'a> {
    pub row: &'a Row,
    pub key: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    pub old: Option<&'a Value>,
    pub new: Option<&'a Value>,
}

impl Quotas {
    pub fn new(objects: Objects) -> Self {
        Self { objects, turns: Mutex::default() }
    }

    /// Charges a write, or refuses it.
    pub async fn charge(&self, delta: Delta<'_>, dry_run: bool) -> Result<Charge, ApiError> {
        let is_event = delta.row.plural == "events" && delta.row.custom.is_none();
        if delta.namespace.is_empty()
            || is_event
            || !self.here(delta.namespace).any(|quota| delta.touches(&quota))
        {
            return Ok(Charge::default());
        }
        let turn = self.turn(delta.namespace).lock_owned().await;
        self.objects.catch_up().await;
        let mut writes = Vec::new();
        for quota in self.here(delta.namespace) {
            if let Some(status) = delta.charged(&quota)? {
                let mut new = quota.tree();
                crate::tree::set(&mut new, &["status", "used"], status);
                writes.push(Write {
                    key: quota.key.clone(),
                    precondition: Precondition::ModRevision(quota.revision),
                    action: Action::Put { value: encode(&new).into(), time_to_live: None },
                });
            }
        }
        if dry_run {
            return Ok(Charge::default());
        }
        Ok(Charge { writes, _turn: Some(turn) })
    }

    fn here(&self, namespace: &str) -> impl Iterator<Item = Arc<Cached>> + use<> {
        let prefix = prefix_of(QUOTAS, namespace);
        let found: Vec<_> = self.objects.snapshot(QUOTAS).under(&prefix, None).cloned().collect();
        found.into_iter()
    }

    fn turn(&self, namespace: &str) -> Arc<Turn> {
        let mut turns = self.turns.lock();
        if let Some(turn) = turns.get(namespace).and_then(Weak::upgrade) {
            return turn;
        }
        turns.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::new(Turn::default());
        turns.insert(namespace.to_string(), Arc::downgrade(&turn));
        turn
    }
}

impl Delta<'_> {
    /// What the write changes in the usage that a quota limits; what stays the same is left out.
    fn of(&self, quota: &Value) -> Amounts {
        let (group, plural) = (self.row.storage.group.as_str(), self.row.plural.as_str());
        // What the controller has not yet counted is looked at too: a change must not slip past its count.
        let limits =
            [&["status", "hard"], &["spec", "hard"]].map(|path| quota.dig(path).and_then(Value::as_object));
        let counted = |object: Option<&Value>| -> Amounts {
            let object = object.filter(|object| covers(quota, group, plural, object));
            object.map(|object| usage(group, plural, object)).unwrap_or_default()
        };
        let (before, after) = (counted(self.old), counted(self.new));
        let names: BTreeSet<&String> =
            limits.into_iter().flatten().flat_map(|limits| limits.keys()).collect();
        let nothing = Quantity::from_milli(0);
        let change = |name: &String| {
            let at = |amounts: &Amounts| amounts.get(name).copied();
            let change = at(&after).unwrap_or(nothing) - at(&before).unwrap_or(nothing);
            (!change.is_zero()).then(|| (name.clone(), change))
        };
        names.into_iter().filter_map(change).collect()
    }

    /// Whether a quota has a say: the write changes what it counts, or makes a pod, which has to say what is limited. A
    /// quota does not count itself: its own key is being written.
    fn touches(&self, quota: &Cached) -> bool {
        let makes_pod = self.old.is_none() && self.row.plural == "pods" && self.row.storage.group.is_empty();
        *quota.key != *self.key && (makes_pod || !self.of(&quota.tree()).is_empty())
    }

    /// The quota's usage after the write, if it becomes another; a refusal when that is too much.
    fn charged(&self, quota: &Cached) -> Result<Option<Value>, ApiError> {
        if *quota.key == *self.key {
            return Ok(None);
        }
        let tree = quota.tree();
        let name = quota.name();
        let (group, plural) = (self.row.storage.group.as_str(), self.row.plural.as_str());
        let refused = |why: String| ApiError::forbidden(group, plural, self.name, &why);
        let (hard, used) = (amounts(tree.dig(&["status", "hard"])), amounts(tree.dig(&["status", "used"])));
        if let (None, Some(new)) = (self.old, self.new) {
            let limited = hard.keys().map(String::as_str).filter(|name| tracks(group, plural, name));
            if plural == "pods"
                && covers(&tree, group, plural, new)
                && let Some(why) = unsaid(new, limited)
            {
                return Err(refused(format!("failed quota: {name}: {why}")));
            }
        }
        let change = self.of(&tree);
        if change.is_empty() {
            return Ok(None);
        }
        let change: Amounts = change.into_iter().filter(|(name, _)| hard.contains_key(name)).collect();
        let nothing = Quantity::from_milli(0);
        let (known, unknown): (Amounts, Amounts) =
            change.into_iter().partition(|(name, _)| used.contains_key(name));
        // What is given back is not counted yet either.
        let unknown: Vec<String> =
            unknown.into_iter().filter(|(_, more)| *more > nothing).map(|(name, _)| name).collect();
        if !unknown.is_empty() {
            return Err(refused(format!(
                "status unknown for quota: {name}, resources: {}",
                unknown.join(",")
            )));
        }
        let change = known;
        let mut after = used.clone();
        add(&mut after, &change);
        after.values_mut().for_each(|amount| *amount = (*amount).max(nothing));
        let exceeded: Vec<&String> = change
            .iter()
            .filter(|(name, more)| **more > nothing && after.get(*name) > hard.get(*name))
            .map(|(name, _)| name)
            .collect();
        if !exceeded.is_empty() {
            let shown = |amounts: &Amounts| {
                let of =
                    |name: &&String| format!("{name}={}", amounts.get(*name).copied().unwrap_or(nothing));
                exceeded.iter().map(of).collect::<Vec<_>>().join(",")
            };
            return Err(refused(format!(
                "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
                shown(&change),
                shown(&used),
                shown(&hard)
            )));
        }
        Ok(Some(after.into_iter().map(|(name, amount)| (name, json!(amount.to_string()))).collect()))
    }
}
