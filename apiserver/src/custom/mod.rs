//! Custom resources: rows that come and go with their CustomResourceDefinitions, and from then on are no special case.
//!
//! Guarantees that a definition is `Established` only once its resource is served, that every server over the store
//! follows the same definitions, and that a deleted definition takes its objects along before it goes.

mod conditions;
mod conversion;
mod ratchet;
mod row;
mod rules;
mod strategy;

pub(crate) use conversion::{Forms, convert, shown};
pub(crate) use ratchet::is_old;
pub(crate) use rules::faults_of as faults_of_rules;

use std::sync::Arc;
use std::time::Duration;

use api::field::Look;
use api::{ResourceTable, Row, ServedVersion};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::bootstrap::own_call;
use crate::http::respond::Failure;
use crate::objects::Objects;
use crate::pipeline::{Call, Change, Core, DeleteOptions, Target, WriteOptions};
use crate::tree::set;

/// The row of definitions.
pub(crate) const DEFINITIONS: &str = "apiextensions.k8s.io/customresourcedefinitions";
/// Holds a definition until its objects are gone.
const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";
/// How long objects of a deleted definition are waited for before they are looked at again.
const CLEANUP_EVERY: Duration = Duration::from_secs(1);

/// The `openAPIV3Schema` of a custom resource in one version, for OpenAPI documents.
pub(crate) fn schema_of(objects: &Objects, row: &Row, served: &ServedVersion) -> Option<Value> {
    let definition = objects.get(DEFINITIONS, "", &format!("{}.{}", row.plural, served.group))?;
    let spec = definition.get("spec")?;
    let version = spec.items("versions").iter().find(|v| v.text("name") == served.version)?;
    version.pointer("/schema/openAPIV3Schema").cloned()
}

/// Puts the rows of all definitions into the table. None takes the place of a built-in row, whatever its status says.
pub(crate) fn refresh(core: &Core) {
    let built_in = ResourceTable::built_in();
    let mut table = built_in.clone();
    for definition in core.objects.list(DEFINITIONS, "") {
        if conditions::is_accepted(&definition) && row_in(&built_in, &definition).is_none() {
            match row::of(&definition) {
                Ok(row) => table = table.with_row(row),
                Err(error) => {
                    let name = api::object::name(&definition);
                    tracing::warn!(name, %error, "a custom resource is not served");
                }
            }
        }
    }
    *core.table.write() = Arc::new(table);
}

/// The row that a table has in the place of a definition's.
fn row_in<'a>(table: &'a ResourceTable, definition: &Value) -> Option<&'a Arc<Row>> {
    let spec = definition.get("spec")?;
    table.group_resource(spec.text("group"), spec.get("names")?.text("plural"))
}

/// Follows the definitions until told to stop.
pub(crate) async fn follow(core: Arc<Core>, shutdown: CancellationToken) {
    let mut changes = core.cache.row(DEFINITIONS).subscribe();
    let call = own_call();
    loop {
        changes.borrow_and_update();
        refresh(&core);
        let busy = settle(&core, &call).await;
        // While objects of a deleted definition go, nothing tells when the last one has.
        let again = async {
            if busy { tokio::time::sleep(CLEANUP_EVERY).await } else { std::future::pending().await }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = changes.changed() => if changed.is_err() { return },
            () = again => {}
        }
    }
}

/// Brings every definition's status up to date; true while there is more to do.
async fn settle(core: &Arc<Core>, call: &Call) -> bool {
    let mut busy = false;
    for definition in core.objects.list(DEFINITIONS, "") {
        let outcome = if definition.pointer("/metadata/deletionTimestamp").is_some() {
            clean_up(core, call, &definition).await
        } else {
            establish(core, call, &definition).await.map(|()| false)
        };
        match outcome {
            Ok(more) => busy |= more,
            Err(failure) => {
                let name = api::object::name(&definition);
                tracing::warn!(name, error = %failure.error, "a definition could not be brought up to date");
                busy = true;
            }
        }
    }
    busy
}

fn target_of(core: &Core, name: &str, subresource: &str) -> Option<Target> {
    let table = core.table();
    let row = table.resource("apiextensions.k8s.io", "v1", "customresourcedefinitions")?;
    Some(Target { subresource: subresource.to_string(), ..Target::internal(row, "", name) })
}

async fn change(
    core: &Core,
    call: &Call,
    name: &str,
    subresource: &str,
    edit: impl Fn(&Value) -> Value + Send + Sync + 'static,
) -> Result<(), Failure> {
    let Some(target) = target_of(core, name, subresource) else { return Ok(()) };
    let edit = Change::Edit(Box::new(move |live| Ok(edit(live))));
    match core.change(call, &target, edit, &WriteOptions::default()).await {
        Ok(_) => Ok(()),
        Err(failure) if failure.error.reason == api::Reason::NotFound => Ok(()),
        Err(failure) => Err(failure),
    }
}

async fn establish(core: &Arc<Core>, call: &Call, definition: &Value) -> Result<(), Failure> {
    let name = api::object::name(definition);
    let finalizers = definition.get("metadata").map(|m| m.items("finalizers")).unwrap_or_default();
    if !finalizers.iter().any(|f| f == CLEANUP) {
        change(core, call, name, "", |live| with_finalizer(live, true)).await?;
    }
    let taken = name_conflict(core, definition);
    let fault = row::of(definition).err().map(|error| error.to_string());
    // First the names, then the row, then the word that it is there.
    for established in [false, true] {
        let now = call_time();
        let (taken, fault) = (taken.clone(), fault.clone());
        let wanted = conditions::status(definition, taken.as_deref(), fault.as_deref(), established, &now);
        if definition.get("status") == Some(&wanted) {
            continue;
        }
        change(core, call, name, "status", move |live| {
            let mut new = live.clone();
            let status = conditions::status(live, taken.as_deref(), fault.as_deref(), established, &now);
            set(&mut new, &["status"], status);
            new
        })
        .await?;
        core.objects.catch_up().await;
        refresh(core);
    }
    Ok(())
}

fn call_time() -> String {
    crate::pipeline::now()
}

/// A name of the definition that another row of its group has already.
fn name_conflict(core: &Core, definition: &Value) -> Option<String> {
    let spec = definition.get("spec")?;
    let (group, names) = (spec.text("group"), spec.get("names")?);
    let table = core.table();
    let is_own = |row: &Row| row.custom.is_some() && row.plural == names.text("plural");
    let others = || {
        let of_group = |row: &Row| row.served.iter().any(|served| served.group == group);
        table.rows().iter().filter(move |row| of_group(row) && !is_own(row))
    };
    let resources = [names.text("plural"), names.text("singular")].into_iter();
    let mut resources = resources.chain(names.items("shortNames").iter().filter_map(Value::as_str));
    let is_resource = |name: &str| {
        !name.is_empty()
            && others().any(|row| {
                row.plural == name || row.singular == name || row.short_names.iter().any(|s| s == name)
            })
    };
    let is_kind = |name: &str| others().any(|row| row.kind == name || row.list_kind == name);
    let taken = resources
        .find(|name| is_resource(name))
        .or_else(|| [names.text("kind"), names.text("listKind")].into_iter().find(|name| is_kind(name)))?;
    Some(format!("{taken:?} is already in use"))
}

fn with_finalizer(live: &Value, present: bool) -> Value {
    let mut new = live.clone();
    let mut finalizers: Vec<Value> = live
        .get("metadata")
        .map(|m| m.items("finalizers"))
        .unwrap_or_default()
        .iter()
        .filter(|f| *f != CLEANUP)
        .cloned()
        .collect();
    if present {
        finalizers.push(CLEANUP.into());
    }
    set(&mut new, &["metadata", "finalizers"], finalizers);
    new
}

/// Deletes the objects of a deleted definition, then lets it go. True while some are left.
async fn clean_up(core: &Arc<Core>, call: &Call, definition: &Value) -> Result<bool, Failure> {
    let name = api::object::name(definition);
    let is_built_in = row_in(&core.table(), definition).is_some_and(|row| row.custom.is_none());
    let Some(row) = row::of(definition).ok().filter(|_| !is_built_in) else {
        change(core, call, name, "", |live| with_finalizer(live, false)).await?;
        return Ok(false);
    };
    let row = Arc::new(row);
    let row_name = crate::pipeline::row_name(&row);
    let objects: Vec<_> = core.objects.snapshot(&row_name).objects.values().cloned().collect();
    for object in &objects {
        let target = Target::internal(&row, object.namespace(), object.name());
        match core.delete(call, &target, &DeleteOptions::default()).await {
            Ok(_) => {}
            Err(failure) if failure.error.reason == api::Reason::NotFound => {}
            Err(failure) => return Err(failure),
        }
    }
    core.objects.catch_up().await;
    if !core.objects.snapshot(&row_name).objects.is_empty() {
        return Ok(true);
    }
    change(core, call, name, "", |live| with_finalizer(live, false)).await?;
    Ok(false)
}
