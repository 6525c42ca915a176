//! What flow control does by itself: it divides the seats anew every ten seconds, keeps the objects that every cluster has
//! what they should be, and says of every schema whether the level that it names is there.
//!
//! As upstream, the schemas and levels `exempt` and `catch-all` always are what they are; of the others that a cluster
//! starts with, those whose annotation says so.

use std::sync::Arc;
use std::time::Duration;

use api::field::{Look, same_meaning};
use futures::future::join_all;
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::{LEVELS, SCHEMAS, bootstrap};
use crate::bootstrap::{own_call, restore, target_of};
use crate::http::respond::Failure;
use crate::pipeline::{Call, Change, Core, Target, WriteOptions, now};

/// How long the seats stay divided as they are.
const PERIOD: Duration = Duration::from_secs(10);
/// What nobody may change.
const MANDATORY: [&str; 2] = ["exempt", "catch-all"];

/// Does so until shutdown.
pub(crate) async fn keep(core: Arc<Core>, shutdown: CancellationToken) {
    let [mut schemas, mut levels] = [SCHEMAS, LEVELS].map(|row| core.cache.row(row).subscribe());
    let mut period = tokio::time::interval(PERIOD);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let call = own_call();
    loop {
        schemas.borrow_and_update();
        levels.borrow_and_update();
        if let Err(failure) = settle(&core, &call).await {
            tracing::warn!(error = %failure.error, "flow control's objects could not be brought up to date");
        }
        // Whatever could not be done is tried again with the next change.
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = period.tick() => core.flow.lend(),
                changed = schemas.changed() => if changed.is_err() { return } else { break },
                changed = levels.changed() => if changed.is_err() { return } else { break },
            }
        }
    }
}

async fn settle(core: &Arc<Core>, call: &Call) -> Result<(), Failure> {
    restore(core, call, bootstrap::objects()).await?;
    let mut writes = Vec::new();
    for object in bootstrap::objects() {
        let target = target_of(core, &object)?;
        let Some(live) = core.objects.get(&target.row_name, "", &target.name) else { continue };
        let (wanted, _) = core.complete(call, &target, object)?;
        if is_kept(&live) && !same_meaning(live.get("spec"), wanted.get("spec")) {
            writes.push((target, "spec", wanted.get("spec").cloned().unwrap_or_default()));
        }
    }
    let named = |schema: &Value| {
        schema.dig(&["spec", "priorityLevelConfiguration"]).map(|level| level.text("name").to_string())
    };
    for schema in core.objects.list(SCHEMAS, "") {
        let level = named(&schema).unwrap_or_default();
        let is_there = core.objects.cached(LEVELS, "", &level).is_some();
        if let Some(status) = status(&schema, &level, is_there, &now()) {
            writes.push((target_of(core, &schema)?, "status", status));
        }
    }
    let written = writes.into_iter().map(|(target, field, value)| write(core, call, target, field, value));
    join_all(written).await.into_iter().collect()
}

fn is_kept(live: &Value) -> bool {
    let annotation = live.dig(&["metadata", "annotations", "apf.kubernetes.io/autoupdate-spec"]);
    MANDATORY.contains(&api::object::name(live)) || annotation.is_some_and(|value| value == "true")
}

async fn write(
    core: &Arc<Core>,
    call: &Call,
    target: Target,
    field: &'static str,
    value: Value,
) -> Result<(), Failure> {
    let edit = move |live: &Value| {
        let mut new = live.clone();
        crate::tree::set(&mut new, &[field], value.clone());
        Ok(new)
    };
    core.change(call, &target, Change::Edit(Box::new(edit)), &WriteOptions::default()).await.map(|_| ())
}

/// The status that a schema should have, if it has another.
pub(super) fn status(schema: &Value, level: &str, is_there: bool, now: &str) -> Option<Value> {
    let (status, reason, end) = if is_there {
        ("False", "Found", "it exists")
    } else {
        ("True", "NotFound", "there is no such object")
    };
    let begin = "This FlowSchema references the PriorityLevelConfiguration object named";
    let conjunction = if is_there { "and" } else { "but" };
    let message = format!("{begin} {level:?} {conjunction} {end}");
    let mut conditions =
        schema.get("status").map(|status| status.items("conditions").to_vec()).unwrap_or_default();
    let known = conditions.iter().position(|condition| condition.text("type") == "Dangling");
    let mut wanted = json!({"type": "Dangling", "status": status, "reason": reason, "message": message,
        "lastTransitionTime": now});
    match known.and_then(|known| conditions.get_mut(known)) {
        Some(is) => {
            if is.text("status") == status {
                crate::tree::set(&mut wanted, &["lastTransitionTime"], is.text("lastTransitionTime"));
            }
            if *is == wanted {
                return None;
            }
            *is = wanted;
        }
        None => conditions.push(wanted),
    }
    let mut all = schema.get("status").cloned().unwrap_or_else(|| json!({}));
    crate::tree::set(&mut all, &["conditions"], conditions);
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_says_whether_its_level_is_there() {
        let mut schema = json!({"metadata": {"name": "a"}});
        schema["status"] = status(&schema, "x", false, "2026-01-01T00:00:00Z").unwrap();
        let condition = &schema["status"]["conditions"][0];
        assert_eq!((&condition["status"], &condition["reason"]), (&json!("True"), &json!("NotFound")));
        assert_eq!(
            condition["message"],
            "This FlowSchema references the PriorityLevelConfiguration object named \"x\" but there is no such object"
        );
        assert_eq!(status(&schema, "x", false, "2026-01-01T00:00:09Z"), None, "nothing has changed");
        let other = status(&schema, "y", false, "2026-01-01T00:00:09Z").unwrap();
        assert_eq!(other["conditions"][0]["lastTransitionTime"], "2026-01-01T00:00:00Z");
        let found = status(&schema, "x", true, "2026-01-01T00:00:09Z").unwrap();
        assert_eq!(found["conditions"][0]["lastTransitionTime"], "2026-01-01T00:00:09Z");
        assert_eq!(
            found["conditions"][0]["message"],
            "This FlowSchema references the PriorityLevelConfiguration object named \"x\" and it exists"
        );
    }
}
