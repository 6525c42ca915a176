//! Flow control: how many requests run at once, of whom, and who waits.
//!
//! Requests are sorted by FlowSchema objects into the levels of PriorityLevelConfiguration objects, each of which has its
//! share of all seats and a fair queue per flow (a user, a namespace). Beyond the queue's bounds, or after a quarter of a
//! minute, the answer is 429 with the advice when to come back. Watches count until they have begun, streams not at all; a
//! long list takes several seats.
//!
//! Levels lend seats to each other as they need them ([`lending`]), anew every ten seconds. Unlike upstream, every flow has
//! a queue of its own instead of a hand of hashed ones, so that no two flows ever get in each other's way by chance:
//! `queues`, `handSize` and `queueLengthLimit` say how many may wait, of a flow and in all, as they do there.

pub(crate) mod bootstrap;
mod classify;
mod lending;
mod level;
mod tally;
mod upkeep;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use api::field::Look;
use api::{ApiError, Reason};
use http::HeaderValue;
use parking_lot::RwLock;
use serde_json::Value;
use store::Revision;

use self::classify::Schema;
use self::lending::{Share, as_float, rounded};
use self::level::{Level, Limits, Seat};
use self::tally::Counted;
pub(crate) use self::upkeep::keep;
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
/// A list takes a seat per so many objects, up to ten, or to this part of its level.
const OBJECTS_PER_SEAT: usize = 100;
const WIDTH_MAX: usize = 10;
const WIDTH_PART: f64 = 0.15;

/// All priority levels.
pub(crate) struct Flow {
    objects: Objects,
    plan: RwLock<([Revision; 2], Arc<Plan>)>,
}

/// Schemas and levels as of some revision.
#[derive(Default)]
struct Plan {
    schemas: Vec<Schema>,
    levels: BTreeMap<String, PriorityLevel>,
}

struct PriorityLevel {
    uid: String,
    share: Share,
    width_max: usize,
    /// How many may wait, per flow and in all.
    waiting: (usize, usize),
    level: Arc<Level>,
}

/// Where a request was sorted to: the uids of schema and level.
pub(crate) struct Sorted(String, String);

impl Sorted {
    /// Tells the client.
    pub fn tell(&self, response: &mut Response) {
        let Self(schema, level) = self;
        for (name, uid) in
            [("x-kubernetes-pf-flowschema-uid", schema), ("x-kubernetes-pf-prioritylevel-uid", level)]
        {
            if let Ok(value) = HeaderValue::from_str(uid) {
                response.headers_mut().insert(name, value);
            }
        }
    }
}

/// A request's place, given back when dropped.
pub(crate) struct Place {
    _seat: Seat,
    _counted: Counted,
}

impl Flow {
    pub fn new(objects: Objects) -> Self {
        Self { objects, plan: RwLock::default() }
    }

    /// Where a request belongs, and its place there after a wait for its turn; 429 when there is none in time. Streams
    /// take no place.
    pub async fn admit(
        &self,
        user: &UserInfo,
        info: &RequestInfo,
    ) -> (Option<Sorted>, Result<Option<Place>, Failure>) {
        if info.streams() {
            return (None, Ok(None));
        }
        let plan = self.plan();
        let chosen = plan.schemas.iter().filter(|schema| schema.matches(user, info));
        let mut chosen = chosen.filter_map(|schema| Some((schema, plan.levels.get(&schema.level)?)));
        // Without any schema left there is nothing to go by.
        let Some((schema, level)) = chosen.next() else { return (None, Ok(None)) };
        let sorted = Sorted(schema.uid.clone(), level.uid.clone());
        let width = self.width(info).min(level.width_max);
        let mut counted = Counted::waits(schema.tally.clone(), width);
        let entered = level.level.enter(&schema.flow_of(user, info), width, WAIT_MAX).await;
        let place = match entered {
            Ok(seat) => {
                counted.run();
                Ok(Some(Place { _seat: seat, _counted: counted }))
            }
            Err(refused) => {
                counted.refuse(refused);
                let (level, verb, why) = (&schema.level, info.verb, refused.name());
                tracing::warn!(schema = schema.name, level, verb, why, "a request was refused");
                let error =
                    ApiError::new(Reason::TooManyRequests, "too many requests, please try again later.");
                Err(Failure::from(error).retry_after(1))
            }
        };
        (Some(sorted), place)
    }

    /// Divides the seats anew by what was needed since the last time.
    fn lend(&self) {
        self.plan().divide();
    }

    /// What is counted, for the metrics.
    pub fn write_metrics(&self, out: &mut String) -> std::fmt::Result {
        let plan = self.plan();
        let types = [
            (
                "gauge",
                "current_inqueue_requests current_inqueue_seats current_executing_requests current_executing_seats",
            ),
            ("counter", "dispatched_requests_total rejected_requests_total"),
            ("histogram", "request_wait_duration_seconds request_execution_seconds"),
            ("gauge", "nominal_limit_seats lower_limit_seats upper_limit_seats current_limit_seats"),
            (
                "gauge",
                "demand_seats_high_watermark demand_seats_average demand_seats_stdev demand_seats_smoothed target_seats",
            ),
        ];
        for (kind, names) in types {
            for name in names.split(' ') {
                writeln!(out, "# TYPE apiserver_flowcontrol_{name} {kind}")?;
            }
        }
        for schema in &plan.schemas {
            schema.tally.write(out, &schema.level, &schema.name)?;
        }
        for (name, PriorityLevel { share, level, .. }) in &plan.levels {
            let (seats, need) = level.seats_and_need();
            let seats = if share.is_exempt { share.min.max(need.high) } else { seats };
            for (what, value) in [
                ("nominal_limit_seats", as_float(share.nominal)),
                ("lower_limit_seats", as_float(share.min)),
                ("upper_limit_seats", as_float(share.max)),
                ("current_limit_seats", as_float(seats)),
                ("demand_seats_high_watermark", as_float(need.high)),
                ("demand_seats_average", need.average),
                ("demand_seats_stdev", need.deviation),
                ("demand_seats_smoothed", need.smoothed),
                ("target_seats", lending::target(share, &need)),
            ] {
                writeln!(out, "apiserver_flowcontrol_{what}{{priority_level=\"{name}\"}} {value}")?;
            }
        }
        Ok(())
    }

    /// A list is as wide as what it reads.
    fn width(&self, info: &RequestInfo) -> usize {
        if info.verb != "list" || !info.name.is_empty() {
            return 1;
        }
        let group = if info.group.is_empty() { "core" } else { &info.group };
        let objects = self.objects.row_length(&format!("{group}/{}", info.resource));
        objects.div_ceil(OBJECTS_PER_SEAT).clamp(1, WIDTH_MAX)
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
        let all: usize = levels.iter().map(shares).sum();
        let levels = levels.iter().map(|level| {
            let name = api::object::name(level).to_string();
            let known = before.levels.get(&name).map(|known| known.level.clone());
            (name, PriorityLevel::read(level, all, known))
        });
        let plan = Self { schemas: classify::read_all(schemas, &before.schemas), levels: levels.collect() };
        plan.divide();
        plan
    }

    fn divide(&self) {
        let shares = self.levels.values().map(|level| (level.share, level.level.end_period()));
        let (seats, _) = lending::divide(&shares.collect::<Vec<_>>());
        for (level, seats) in self.levels.values().zip(seats) {
            level.set_seats(seats);
        }
    }
}

fn is_exempt(level: &Value) -> bool {
    level.dig(&["spec", "type"]).is_some_and(|kind| kind == "Exempt")
}

/// The part of the specification that says how many seats there are.
fn limits(level: &Value) -> &Value {
    let field = if is_exempt(level) { "exempt" } else { "limited" };
    level.dig(&["spec", field]).unwrap_or(&Value::Null)
}

fn number(value: &Value, field: &str) -> Option<usize> {
    value.int(field).and_then(|number| usize::try_from(number).ok())
}

fn shares(level: &Value) -> usize {
    number(limits(level), "nominalConcurrencyShares").unwrap_or(if is_exempt(level) { 0 } else { 30 })
}

impl PriorityLevel {
    fn read(object: &Value, all_shares: usize, known: Option<Arc<Level>>) -> Self {
        let spec = limits(object);
        let nominal = (SEATS * shares(object)).div_ceil(all_shares.max(1));
        let percent =
            |field: &str| number(spec, field).map(|percent| rounded(as_float(nominal * percent) / 100.0));
        let share = Share {
            nominal,
            min: nominal.saturating_sub(percent("lendablePercent").unwrap_or(0)),
            max: nominal + percent("borrowingLimitPercent").unwrap_or(SEATS),
            is_exempt: is_exempt(object),
        };
        let nothing = Value::Null;
        let queuing = spec.dig(&["limitResponse", "queuing"]).unwrap_or(&nothing);
        let length = number(queuing, "queueLengthLimit").unwrap_or(0);
        let part = as_float(nominal) * WIDTH_PART;
        // A list leaves a place for others in the queues that its flow is dealt.
        let hand = number(queuing, "handSize");
        let hands = hand.and_then(|hand| nominal.checked_div(hand));
        let level =
            known.unwrap_or_else(|| Arc::new(Level::new(Limits { seats: 0, per_flow: 0, in_all: 0 })));
        Self {
            uid: api::object::metadata(object, "uid").unwrap_or_default().to_string(),
            share,
            width_max: hands.map_or(WIDTH_MAX, |hands| rounded(part.ceil()).min(hands)).max(1),
            waiting: (length * hand.unwrap_or(1), length * number(queuing, "queues").unwrap_or(0)),
            level,
        }
    }

    fn set_seats(&self, seats: usize) {
        let (per_flow, in_all) = self.waiting;
        // The exempt never wait.
        let seats = if self.share.is_exempt { usize::MAX } else { seats };
        self.level.set_limits(Limits { seats, per_flow, in_all });
    }
}
