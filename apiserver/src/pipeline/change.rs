//! Create, update, all patches and apply: one way from what the client sent to what is stored.

use std::sync::Arc;
use std::time::Duration;

use api::ApiError;
use schema::defaults;
use schema::patch::json::JsonPatch;
use serde_json::Value;
use store::{Action, Precondition, StoreError, Write};

use super::call::{Call, Target};
use super::check::{check, check_preconditions, write_context};
use super::endpoint::Endpoint;
use super::intent::{creates, own_fields, prepare_body};
use super::options::WriteOptions;
use super::system_fields::{drop_empty_metadata, fill_on_create, keep_on_update};
use super::{Core, commit, delete};
use crate::admission::{AdmissionRequest, Operation};
use crate::cache::{Cached, encode};
use crate::http::body::{BODY_BYTES_MAX, too_large};
use crate::http::respond::Failure;
use crate::quota::{Charge, Delta};

/// How often a write that lost against another is tried again.
const ATTEMPTS: usize = 16;
/// The largest object that is kept: what a body may hold, and as much again for what patches, defaults and managers add.
const OBJECT_BYTES_MAX: usize = 2 * BODY_BYTES_MAX;
/// How long an event is kept after its last change.
const EVENT_LIFETIME: Duration = Duration::from_secs(3600);

/// A change that the server makes by itself: from the stored object to the new one.
pub(crate) type Edit = dyn Fn(&Value) -> Result<Value, ApiError> + Send + Sync;

/// What the client wants. Objects have been decoded and are still in the version of the request.
pub(crate) enum Change {
    /// POST
    Create(Value),
    /// PUT
    Replace(Value),
    /// PATCH with RFC 6902.
    JsonPatch(JsonPatch),
    /// PATCH with RFC 7386.
    MergePatch(Value),
    /// PATCH with a strategic merge patch.
    StrategicPatch(Value),
    /// PATCH with server-side apply.
    Apply {
        /// What is applied.
        object: Value,
        /// Whether fields of others are taken over.
        force: bool,
    },
    /// Something else that changes the object.
    Edit(Box<Edit>),
}

/// What a write has done.
pub(crate) struct Written {
    /// The object as it is now, or was when it went away.
    pub object: Arc<Cached>,
    /// Whether it is new.
    pub created: bool,
}

/// What is committed together with an object.
struct Beside {
    /// What is reserved for it or given back.
    allocations: Vec<Write>,
    /// What quotas count of it.
    charge: Charge,
}

enum Attempt {
    Done(Written),
    /// Another write came first; this is what it left.
    Lost(Option<Arc<Cached>>),
}

impl Core {
    /// Makes a change, as often as it takes.
    pub(crate) async fn change(
        &self,
        call: &Call,
        target: &Target,
        mut change: Change,
        options: &WriteOptions,
    ) -> Result<Written, Failure> {
        let endpoint = Endpoint::of(target).unwrap_or(Endpoint::Object);
        prepare_body(call, target, endpoint, &mut change, options)?;
        let mut current = match &change {
            Change::Create(_) => None,
            _ => self.current(target).await,
        };
        for _ in 0..ATTEMPTS {
            match self.attempt(call, target, endpoint, &change, options, current.as_ref()).await? {
                Attempt::Done(written) => return Ok(written),
                Attempt::Lost(now) => current = now,
            }
        }
        let why = "the object is being changed too often by others; please try again";
        Err(target.conflict(&target.name, why).into())
    }

    /// The object of a target as of now.
    pub(crate) async fn current(&self, target: &Target) -> Option<Arc<Cached>> {
        self.objects.catch_up().await;
        self.cache.row(&target.row_name).get(&target.key(&target.namespace, &target.name))
    }

    async fn attempt(
        &self,
        call: &Call,
        target: &Target,
        endpoint: Endpoint,
        change: &Change,
        options: &WriteOptions,
        current: Option<&Arc<Cached>>,
    ) -> Result<Attempt, Failure> {
        let live = match current {
            Some(object) => Some(self.in_version(target, &target.row.storage, object.clone()).await?.tree()),
            None => None,
        };
        let creates = creates(target, endpoint, change, live.as_ref())?;
        let mut new = self.intended(call, target, endpoint, change, live.as_ref(), options).await?;
        let live = if creates { None } else { live };
        if let Some(live) = &live {
            check_preconditions(target, change, &new, live)?;
            // The endpoint limits what clients submit; the server's own edits (bindings, evictions) are whole.
            if !matches!(change, Change::Edit(_)) {
                new = endpoint.merge(live, new, target)?;
            }
            keep_on_update(&mut new, live);
        } else {
            fill_on_create(&mut new, &target.row, call)?;
        }
        self.fill_defaults(target, &mut new);
        own_fields(call, target, endpoint, change, options, live.as_ref(), &mut new);

        let name = api::object::name(&new).to_string();
        let operation = if live.is_some() { Operation::Update } else { Operation::Create };
        let old = live.as_ref();
        let admission = AdmissionRequest { operation, name: &name, old, ..call.admission(target, options) };
        // A binding has been judged already, as the object that it is.
        let is_judged = target.subresource == "binding";
        if !is_judged {
            self.admission.mutate(&admission, &mut new).await?;
            // Once more, for what has come in by admission; to look for that would cost more.
            self.fill_defaults(target, &mut new);
        }

        if live.is_none() && crate::service::is_service(&target.row) {
            // The range that it is to have an address from may have come a moment ago.
            self.objects.catch_up().await;
        }
        let allocations = self.prepare(call, target, endpoint, &mut new, live.as_ref())?;
        check(call, target, endpoint, &new, live.as_ref(), &name)?;
        if !is_judged {
            self.admission.validate(&admission, Some(&new)).await?;
        }
        let left = (live.is_none() || !delete::is_finished(&target.row, &new)).then_some(&new);
        let charge = self.charge(target, &name, live.as_ref(), left, options.dry_run).await?;
        let beside = Beside { allocations, charge };
        self.store_change(target, new, current.filter(|_| live.is_some()), options, beside).await
    }

    /// What quotas say to a write.
    pub(super) async fn charge(
        &self,
        target: &Target,
        name: &str,
        old: Option<&Value>,
        new: Option<&Value>,
        dry_run: bool,
    ) -> Result<Charge, ApiError> {
        let (row, namespace) = (&*target.row, target.namespace.as_str());
        let key = target.key(namespace, name);
        self.quotas.charge(Delta { row, key: &key, namespace, name, old, new }, dry_run).await
    }

    /// A new object of the server's own as it is to be stored, with what has to be reserved for it. For objects that
    /// are written in one batch with others.
    pub(crate) fn complete(
        &self,
        call: &Call,
        target: &Target,
        mut object: Value,
    ) -> Result<(Value, Vec<Write>), Failure> {
        let endpoint = Endpoint::Object;
        fill_on_create(&mut object, &target.row, call)?;
        self.fill_defaults(target, &mut object);
        let options = WriteOptions::default();
        let change = Change::Create(Value::Null);
        own_fields(call, target, endpoint, &change, &options, None, &mut object);
        let allocations = self.prepare(call, target, endpoint, &mut object, None)?;
        Ok((object, allocations))
    }

    fn fill_defaults(&self, target: &Target, new: &mut Value) {
        defaults::fill(&target.schema(), new);
        drop_empty_metadata(new);
        target.row.strategy.set_defaults(new);
    }

    /// Brings the object into the state that the kind and the verb allow, and reserves what it needs beside itself.
    fn prepare(
        &self,
        call: &Call,
        target: &Target,
        endpoint: Endpoint,
        new: &mut Value,
        live: Option<&Value>,
    ) -> Result<Vec<Write>, Failure> {
        let context = write_context(call, target);
        let strategy = &target.row.strategy;
        match live {
            None => target.row.prepare_for_create(new, &context),
            Some(live) => {
                strategy.prepare_for_update(new, live, &context);
                // What puts a pod on its node is no change of what is wanted of it.
                let is_wish = endpoint.writes_spec() && Endpoint::of(target).is_some();
                if target.row.counts_generation && is_wish && strategy.generation_grows(new, live) {
                    delete::grow_generation(new);
                }
            }
        }
        if target.row_name == crate::admission::POLICIES && endpoint == Endpoint::Object {
            crate::admission::tell_status(&self.table(), new);
        }
        Ok(crate::service::allocate(&self.objects, &self.config, &target.row, new, live)?)
    }

    async fn store_change(
        &self,
        target: &Target,
        new: Value,
        current: Option<&Arc<Cached>>,
        options: &WriteOptions,
        beside: Beside,
    ) -> Result<Attempt, Failure> {
        let encoded = encode(&new);
        if encoded.len() > OBJECT_BYTES_MAX {
            return Err(too_large(OBJECT_BYTES_MAX).into());
        }
        if let Some(current) = current
            && current.encoded == encoded
            && beside.allocations.is_empty()
        {
            return Ok(Attempt::Done(Written { object: current.clone(), created: false }));
        }
        let key = target.key(api::object::namespace(&new), api::object::name(&new));
        let removes = current.is_some() && delete::is_finished(&target.row, &new);
        let encoded = bytes::Bytes::from(encoded);
        let put = Action::Put { value: encoded.clone(), time_to_live: time_to_live(&target.row) };
        let action = if removes { Action::Delete } else { put };
        let precondition =
            current.map_or(Precondition::Absent, |object| Precondition::ModRevision(object.revision));
        // The charge is kept to the end: until the commit is done no other write in the namespace is charged.
        let Beside { allocations, mut charge } = beside;
        let mut transaction = vec![Write { key: key.clone(), precondition, action }];
        transaction.append(&mut charge.writes);
        if removes {
            transaction.extend(crate::service::release(&target.row, &new));
        } else {
            transaction.extend(allocations);
        }
        let revision = if options.dry_run {
            if current.is_none() && self.objects.cached_key(&target.row_name, &key).is_some() {
                return lost(target, &new, None);
            }
            current.map_or(0, |object| object.revision)
        } else {
            match self.store.commit(transaction).await {
                Ok(committed) => committed.revision,
                Err(StoreError::Conflict { key: lost_key, current: entry, .. }) => {
                    let own = *lost_key == *key;
                    let entry = entry.filter(|_| own);
                    let now = match entry {
                        Some(entry) => Cached::read(&entry, None).ok().map(Arc::new),
                        None if own => None,
                        None => {
                            // Somebody else got what was to be allocated; the next attempt has to see that.
                            self.objects.catch_up().await;
                            current.cloned()
                        }
                    };
                    return if current.is_none() && own {
                        lost(target, &new, now)
                    } else {
                        Ok(Attempt::Lost(now))
                    };
                }
                Err(error) => return Err(commit::failure(&error)),
            }
        };
        let object = Cached::with_tree(key, revision, encoded, &new)
            .map_err(|error| ApiError::internal(error.to_string()))?;
        Ok(Attempt::Done(Written { object: Arc::new(object), created: current.is_none() }))
    }
}

/// Events are news: as upstream, they are forgotten after an hour.
fn time_to_live(row: &api::Row) -> Option<Duration> {
    (row.kind == "Event" && row.custom.is_none()).then_some(EVENT_LIFETIME)
}

/// A create whose name was taken: a generated name is tried again, any other is the client's to choose.
fn lost(target: &Target, new: &Value, now: Option<Arc<Cached>>) -> Result<Attempt, Failure> {
    let generated = api::object::metadata(new, "generateName").is_some_and(|base| !base.is_empty());
    if generated || !target.name.is_empty() && now.is_some() {
        return Ok(Attempt::Lost(now));
    }
    let name = api::object::name(new);
    Err(ApiError::already_exists(target.row.group(), &target.row.plural, name).into())
}
