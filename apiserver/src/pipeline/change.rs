//! Create, update, all patches and apply: one way from what the client sent to what is stored.

use std::sync::Arc;
use std::time::Duration;

use api::{ApiError, FieldError, WriteContext};
use schema::apply::{self, ApplyError, Writer};
use schema::patch::{self, PatchError, json::JsonPatch};
use schema::{conform, defaults, validate};
use serde_json::Value;
use store::{Action, Precondition, StoreError, Write};

use super::call::{Call, Target};
use super::endpoint::Endpoint;
use super::options::{FieldValidation, WriteOptions};
use super::system_fields::{fill_on_create, fit_to_path, keep_on_update};
use super::{Core, commit, delete};
use crate::admission::{AdmissionRequest, Operation};
use crate::cache::{Cached, encode};
use crate::http::respond::Failure;

/// How often a write that lost against another is tried again.
const ATTEMPTS: usize = 16;
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
        let live = current.map(|object| object.tree());
        let creates = creates(target, endpoint, change, live.as_ref())?;
        let mut new = intended(call, target, endpoint, change, live.as_ref(), options)?;
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
        let admission = AdmissionRequest {
            operation: if live.is_some() { Operation::Update } else { Operation::Create },
            user: &call.user,
            row: &target.row,
            subresource: &target.subresource,
            namespace: &target.namespace,
            name: &name,
            old: live.as_ref(),
            dry_run: options.dry_run,
            warnings: &call.warnings,
        };
        let before = new.clone();
        self.admission.mutate(&admission, &mut new).await?;
        if new != before {
            self.fill_defaults(target, &mut new);
        }
        drop(before);

        let allocations = self.prepare(call, target, endpoint, &mut new, live.as_ref())?;
        check(call, target, endpoint, &new, live.as_ref(), &name)?;
        self.admission.validate(&admission, Some(&new)).await?;
        self.store_change(target, new, current.filter(|_| live.is_some()), options, allocations).await
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
            None => {
                strategy.prepare_for_create(new, &context);
            }
            Some(live) => {
                strategy.prepare_for_update(new, live, &context);
                let tracks = strategy.tracks_generation() || target.row.custom.is_some();
                if tracks && endpoint.writes_spec() && strategy.generation_grows(new, live) {
                    delete::grow_generation(new);
                }
            }
        }
        Ok(crate::service::allocate(&self.objects, &self.config, &target.row, new, live)?)
    }

    async fn store_change(
        &self,
        target: &Target,
        new: Value,
        current: Option<&Arc<Cached>>,
        options: &WriteOptions,
        allocations: Vec<Write>,
    ) -> Result<Attempt, Failure> {
        let encoded = encode(&new);
        if let Some(current) = current
            && current.encoded == encoded
            && allocations.is_empty()
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
        let mut transaction = vec![Write { key: key.clone(), precondition, action }];
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

/// Whether the change makes a new object; 404 or 409 when it cannot.
fn creates(
    target: &Target,
    endpoint: Endpoint,
    change: &Change,
    live: Option<&Value>,
) -> Result<bool, ApiError> {
    match (change, live) {
        (Change::Create(_), _) => Ok(true),
        (_, Some(_)) => Ok(false),
        (Change::Apply { .. }, None) if endpoint == Endpoint::Object => Ok(true),
        (Change::Replace(_), None)
            if endpoint == Endpoint::Object && target.row.strategy.allows_create_on_update() =>
        {
            Ok(true)
        }
        _ => Err(target.not_found(&target.name)),
    }
}

/// Checks and shapes the object that the client sent, once for all attempts.
fn prepare_body(
    call: &Call,
    target: &Target,
    endpoint: Endpoint,
    change: &mut Change,
    options: &WriteOptions,
) -> Result<(), Failure> {
    let (Change::Create(object) | Change::Replace(object) | Change::Apply { object, .. }) = change else {
        return Ok(());
    };
    let (api_version, kind) = endpoint.kind(target);
    super::decode::check_kind(object, &api_version, &kind)?;
    shape(call, target, endpoint, object, options)?;
    fit_to_path(object, target)?;
    Ok(())
}

/// Drops what the schema does not know, and says so.
fn shape(
    call: &Call,
    target: &Target,
    endpoint: Endpoint,
    object: &mut Value,
    options: &WriteOptions,
) -> Result<(), ApiError> {
    let (api_version, kind) = endpoint.kind(target);
    let version = api_version.rsplit('/').next().unwrap_or_default();
    let refused = |why: &str| {
        ApiError::bad_request(format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {why}"))
    };
    let conformed = conform::conform(&endpoint.body_schema(target), object)
        .map_err(|error| refused(&error.to_string()))?;
    let mut found = call.duplicates.lock().clone();
    found.extend(conformed.unknown.iter().map(|path| format!("unknown field \"{path}\"")));
    strict(call, options.field_validation, found).map_err(|error| refused(&error.message))
}

/// What becomes of unknown and duplicate fields.
fn strict(call: &Call, validation: FieldValidation, found: Vec<String>) -> Result<(), ApiError> {
    if found.is_empty() {
        return Ok(());
    }
    match validation {
        FieldValidation::Ignore => Ok(()),
        FieldValidation::Warn => {
            found.into_iter().for_each(|text| call.warn(text));
            Ok(())
        }
        FieldValidation::Strict => {
            let message = format!("strict decoding error: {}", found.join(", "));
            Err(ApiError::bad_request(message))
        }
    }
}

/// The object that the change asks for, in the storage version.
fn intended(
    call: &Call,
    target: &Target,
    endpoint: Endpoint,
    change: &Change,
    live: Option<&Value>,
    options: &WriteOptions,
) -> Result<Value, Failure> {
    let patched = |apply: &dyn Fn(&mut Value) -> Result<(), PatchError>| -> Result<Value, Failure> {
        let live = live.ok_or_else(|| target.not_found(&target.name))?;
        let mut view = from_storage(endpoint.view(live, target)?, target, endpoint);
        apply(&mut view).map_err(|error| patch_error(target, error))?;
        if !view.is_object() {
            return Err(ApiError::bad_request("the patch leaves no object").into());
        }
        let (api_version, kind) = endpoint.kind(target);
        super::decode::check_kind(&mut view, &api_version, &kind)?;
        shape(call, target, endpoint, &mut view, options)?;
        fit_to_path(&mut view, target)?;
        Ok(to_storage(view, target, endpoint))
    };
    match change {
        Change::Create(object) | Change::Replace(object) => Ok(to_storage(object.clone(), target, endpoint)),
        Change::JsonPatch(patch) => patched(&|view| patch.apply(view)),
        Change::MergePatch(patch) => patched(&|view| {
            patch::merge::apply(patch, view);
            Ok(())
        }),
        Change::StrategicPatch(patch) => {
            let schema = endpoint.body_schema(target);
            patched(&|view| patch::strategic::apply(&schema, patch, view))
        }
        Change::Apply { object, force } => applied(call, target, endpoint, object, *force, live, options),
        Change::Edit(edit) => {
            let live = live.ok_or_else(|| target.not_found(&target.name))?;
            Ok(edit(live)?)
        }
    }
}

fn applied(
    call: &Call,
    target: &Target,
    endpoint: Endpoint,
    object: &Value,
    force: bool,
    live: Option<&Value>,
    options: &WriteOptions,
) -> Result<Value, Failure> {
    if object.pointer("/metadata/managedFields").is_some_and(|m| !m.is_null()) {
        return Err(ApiError::bad_request("metadata.managedFields must be nil").into());
    }
    let applied = to_storage(object.clone(), target, endpoint);
    let view = live.map(|live| endpoint.view(live, target)).transpose()?.unwrap_or(Value::Null);
    let schema = if endpoint == Endpoint::Scale { endpoint.body_schema(target) } else { target.schema() };
    let api_version = target.version.api_version();
    let writer = writer(call, target, endpoint, options, &api_version);
    apply::apply(&schema, &view, &applied, &writer, force).map_err(|error| match error {
        ApplyError::Conflicts { message, causes } => {
            let causes: Vec<Value> = causes
                .iter()
                .map(|c| serde_json::json!({"reason": c.reason, "message": c.message, "field": c.field}))
                .collect();
            let mut error = ApiError::new(api::Reason::Conflict, message);
            error.details = Some(Box::new(serde_json::json!({"causes": causes})));
            Failure::from(error)
        }
        ApplyError::Invalid(message) => ApiError::bad_request(message).into(),
        ApplyError::NotTyped { .. } => ApiError::internal(error.to_string()).into(),
    })
}

/// Writes down who owns what the change has changed.
fn own_fields(
    call: &Call,
    target: &Target,
    endpoint: Endpoint,
    change: &Change,
    options: &WriteOptions,
    live: Option<&Value>,
    new: &mut Value,
) {
    if matches!(change, Change::Apply { .. }) && endpoint != Endpoint::Scale {
        return;
    }
    let api_version = target.version.api_version();
    let writer = writer(call, target, endpoint, options, &api_version);
    apply::track_update(&target.schema(), live.unwrap_or(&Value::Null), new, &writer);
}

fn writer<'a>(
    call: &'a Call,
    target: &'a Target,
    endpoint: Endpoint,
    options: &'a WriteOptions,
    api_version: &'a str,
) -> Writer<'a> {
    let manager = match &options.field_manager {
        Some(manager) => manager.as_str(),
        None => call.user_agent().split('/').next().unwrap_or_default(),
    };
    Writer {
        manager,
        api_version,
        subresource: &target.subresource,
        now: &call.now,
        reset: endpoint.reset(target),
    }
}

/// What the client assumes of the object: its resource version and UID.
fn check_preconditions(target: &Target, change: &Change, new: &Value, live: &Value) -> Result<(), ApiError> {
    let said = |field| api::object::metadata(new, field).filter(|v| !v.is_empty());
    let is = |field| api::object::metadata(live, field).unwrap_or_default();
    let name = api::object::name(live);
    if let Some(uid) = said("uid")
        && uid != is("uid")
    {
        let why =
            format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", is("uid"));
        return Err(target.conflict(name, &why));
    }
    match said("resourceVersion") {
        Some(version) if version != is("resourceVersion") => {
            let why =
                "the object has been modified; please apply your changes to the latest version and try again";
            Err(target.conflict(name, why))
        }
        None if matches!(change, Change::Replace(_))
            && !target.row.strategy.allows_unconditional_update() =>
        {
            let error = FieldError {
                reason: "FieldValueInvalid",
                field: "metadata.resourceVersion".to_string(),
                message: "Invalid value: 0: must be specified for an update".to_string(),
            };
            Err(ApiError::invalid(target.row.group(), &target.row.kind, name, &[error]))
        }
        _ => Ok(()),
    }
}

/// Validates, and gathers what the user should know.
fn check(
    call: &Call,
    target: &Target,
    endpoint: Endpoint,
    new: &Value,
    live: Option<&Value>,
    name: &str,
) -> Result<(), ApiError> {
    let strategy = &target.row.strategy;
    let mut errors: Vec<FieldError> = match live {
        None => api::meta::validate(new, &target.row),
        Some(live) => api::meta::validate_update(new, live, &target.row),
    };
    if endpoint != Endpoint::Status {
        errors.extend(validate::validate(&target.schema(), new));
    }
    // Structural faults would make the kind's own rules speak of what is not there.
    let is_sound = errors.is_empty();
    if is_sound && endpoint != Endpoint::Status {
        errors.extend(strategy.validate(new));
        if live.is_none() {
            errors.extend(strategy.validate_create(new));
        }
    }
    if let Some(live) = live
        && is_sound
    {
        errors.extend(strategy.validate_update(new, live, &write_context(call, target)));
    }
    if !errors.is_empty() {
        return Err(ApiError::invalid(target.row.group(), &target.row.kind, name, &errors));
    }
    strategy.warnings(new, live).into_iter().for_each(|text| call.warn(text));
    if !target.row.acted_on && target.row.custom.is_none() && endpoint == Endpoint::Object {
        call.warn(format!(
            "{} objects are stored, but nothing in this cluster acts on them yet",
            target.row.kind
        ));
    }
    Ok(())
}

fn write_context<'a>(call: &'a Call, target: &'a Target) -> WriteContext<'a> {
    let subresource = (!target.subresource.is_empty()).then_some(target.subresource.as_str());
    WriteContext {
        now: &call.now,
        user: &call.user.name,
        uid: &call.user.uid,
        groups: &call.user.groups,
        extra: Some(&call.user.extra),
        subresource,
    }
}

fn patch_error(target: &Target, error: PatchError) -> ApiError {
    match error {
        PatchError::Malformed(message) => ApiError::bad_request(message),
        PatchError::Unprocessable(message) => {
            let mut failure = ApiError::new(api::Reason::Invalid, message);
            failure.details =
                Some(Box::new(serde_json::json!({"name": target.name, "kind": target.row.plural})));
            failure
        }
        PatchError::TooManyOperations { .. } => {
            ApiError::new(api::Reason::RequestEntityTooLarge, error.to_string())
        }
    }
}

/// From the version of the request to the one in which the kind is stored.
pub(crate) fn to_storage(object: Value, target: &Target, endpoint: Endpoint) -> Value {
    if endpoint == Endpoint::Scale {
        return object;
    }
    convert(object, target, &target.version, &target.row.storage)
}

/// From the storage version to the one that the request speaks.
pub(crate) fn from_storage(object: Value, target: &Target, endpoint: Endpoint) -> Value {
    if endpoint == Endpoint::Scale {
        return object;
    }
    convert(object, target, &target.row.storage, &target.version)
}

fn convert(mut object: Value, target: &Target, from: &api::ServedVersion, to: &api::ServedVersion) -> Value {
    if from != to {
        api::convert::convert(&target.row, &mut object, from, to);
    }
    object
}
