//! Flow control: how many requests run at once, of whom, and who waits.
//!
//! Requests are sorted by FlowSchema objects into the levels of PriorityLevelConfiguration objects, each of which has its
//! share of all seats and a fair queue per flow (a user, a namespace). Beyond the queue's bounds, or after a quarter of a
//! minute, the answer is 429 with the advice when to come back. Watches count until they have begun, streams not at all; a
//! long list takes several seats.
//!
//! Unlike upstream, every flow has a queue of its own instead of sharing hashed ones, and seats are not lent between
//! levels.

pub(crate) mod bootstrap;
mod classify;
mod level;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use api::field::Look;
use api::{ApiError, Reason};
use http::HeaderValue;
use parking_lot::RwLock;
use serde_json::Value;
use store::Revision;

use self::classify::Schema;
pub(crate) use self::level::Seat;
use self::level::{Level, Limits};
use crate::auth::UserInfo;
use crate::http::Response;
use crate::http::request_info::RequestInfo;
use crate::http::respond::Failure;
use crate::objects::Objects;

const SCHEMAS: &str = "flowcontrol.apiserver.k8s.io/flowschemas";
const LEVELS: &str = "flowcontrol.apiserver.k8s.io/prioritylevelconfigurations";
/// All seats: what upstream allows, 400 reads and 200 writes.
const SEATS: usize = 600;
/// How long a request waits for its turn.
const WAIT_MAX: Duration = Duration::from_secs(15);
/// A list takes a seat per so many objects, up to ten.
const OBJECTS_PER_SEAT: usize = 100;
const WIDTH_MAX: usize = 10;

/// All priority levels.
pub(crate) struct Flow {
    objects: Objects,
    plan: RwLock<([Revision; 2], Arc<Plan>)>,
}

/// Schemas and levels as of some revision.
#[derive(Default)]
struct Plan {
    schemas: Vec<Schema>,
    levels: HashMap<String, PriorityLevel>,
}

#[derive(Clone)]
struct PriorityLevel {
    uid: String,
    /// `None` is exempt.
    level: Option<Arc<Level>>,
}

/// A request's place, and where it was sorted to.
#[derive(Default)]
pub(crate) struct Admitted {
    _seat: Option<Seat>,
    /// The uids of schema and level.
    sorted: Option<(String, String)>,
}

impl Admitted {
    /// Tells the client where its request was sorted to.
    pub fn tell(&self, response: &mut Response) {
        let Some((schema, level)) = &self.sorted else { return };
        for (name, uid) in
            [("x-kubernetes-pf-flowschema-uid", schema), ("x-kubernetes-pf-prioritylevel-uid", level)]
        {
            if let Ok(value) = HeaderValue::from_str(uid) {
                response.headers_mut().insert(name, value);
            }
        }
    }
}

impl Flow {
    pub fn new(objects: Objects) -> Self {
        Self { objects, plan: RwLock::default() }
    }

    /// Waits for a turn; 429 when there is none in time.
    pub async fn admit(&self, user: &UserInfo, info: &RequestInfo) -> Result<Admitted, Failure> {
        if info.streams() {
            return Ok(Admitted::default());
        }
        let plan = self.plan();
        let chosen = plan.schemas.iter().filter(|schema| schema.matches(user, info));
        let mut chosen = chosen.filter_map(|schema| Some((schema, plan.levels.get(&schema.level)?)));
        // Without any schema left there is nothing to go by.
        let Some((schema, level)) = chosen.next() else { return Ok(Admitted::default()) };
        let sorted = Some((schema.uid.clone(), level.uid.clone()));
        let Some(level) = &level.level else { return Ok(Admitted { _seat: None, sorted }) };
        let flow = schema.flow_of(user, info);
        match level.enter(&flow, self.width(info), WAIT_MAX).await {
            Ok(seat) => Ok(Admitted { _seat: Some(seat), sorted }),
            Err(_) => {
                tracing::warn!(
                    flow,
                    level = schema.level,
                    verb = info.verb,
                    "a request was refused: too many wait"
                );
                let error =
                    ApiError::new(Reason::TooManyRequests, "too many requests, please try again later.");
                Err(Failure::from(error).retry_after(1))
            }
        }
    }

    /// Seats in use and requests that wait, by level.
    pub fn load(&self) -> Vec<(String, usize, usize)> {
        let plan = self.plan();
        let levels = plan.levels.iter().filter_map(|(name, level)| {
            let (taken, waiting) = level.level.as_ref()?.load();
            Some((name.clone(), taken, waiting))
        });
        let mut all: Vec<_> = levels.collect();
        all.sort();
        all
    }

    /// A list is as wide as what it reads.
    fn width(&self, info: &RequestInfo) -> usize {
        if info.verb != "list" || !info.name.is_empty() {
            return 1;
        }
        let group = if info.group.is_empty() { "core" } else { &info.group };
        let objects = self.objects.row_length(&format!("{group}/{}", info.resource));
        (objects / OBJECTS_PER_SEAT).clamp(1, WIDTH_MAX)
    }

    fn plan(&self) -> Arc<Plan> {
        let now = || [SCHEMAS, LEVELS].map(|row| self.objects.revision_of(row));
        {
            let kept = self.plan.read();
            if kept.0 == now() {
                return kept.1.clone();
            }
        }
        let mut kept = self.plan.write();
        let revisions = now();
        if kept.0 != revisions {
            let plan = Plan::read(&self.objects.list(SCHEMAS, ""), &self.objects.list(LEVELS, ""), &kept.1);
            *kept = (revisions, Arc::new(plan));
        }
        kept.1.clone()
    }
}

impl Plan {
    /// Levels that were there before keep who is in them.
    fn read(schemas: &[Value], levels: &[Value], before: &Self) -> Self {
        let limited = |level: &Value| level.dig(&["spec", "limited"]).cloned().unwrap_or_default();
        let shares = |level: &Value| {
            limited(level).int("nominalConcurrencyShares").and_then(|n| usize::try_from(n).ok()).unwrap_or(30)
        };
        let is_limited = |level: &&Value| level.at("spec").is_some_and(|spec| spec.text("type") == "Limited");
        let all: usize = levels.iter().filter(is_limited).map(shares).sum();
        let read = |level: &Value| {
            let name = api::object::name(level).to_string();
            let uid = api::object::metadata(level, "uid").unwrap_or_default().to_string();
            if !is_limited(&level) {
                return (name, PriorityLevel { uid, level: None });
            }
            let response = limited(level).get("limitResponse").cloned().unwrap_or_default();
            let queuing = response.get("queuing").cloned().unwrap_or_default();
            let number = |field: &str| queuing.int(field).and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
            let limits = Limits {
                seats: (SEATS * shares(level)).div_ceil(all.max(1)),
                per_flow: number("queueLengthLimit"),
                in_all: number("queueLengthLimit") * number("queues"),
            };
            let known = before.levels.get(&name).and_then(|known| known.level.clone());
            let level = known.unwrap_or_else(|| Arc::new(Level::new(limits)));
            level.set_limits(limits);
            (name, PriorityLevel { uid, level: Some(level) })
        };
        Self { schemas: classify::read_all(schemas), levels: levels.iter().map(read).collect() }
    }
}
