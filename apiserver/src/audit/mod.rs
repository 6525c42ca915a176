//! The audit log: who did what, when, and how it ended, as much of it as the policy says.
//!
//! Events are upstream's `audit.k8s.io/v1 Event`. A request that a policy wants in full is read and answered as any other;
//! the bodies are kept beside it. Watches and streams are told when they begin and when they end. Deliberately absent:
//! sending events elsewhere, and the bodies of streams.

mod log;
mod policy;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::ApiError;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body_util::BodyExt;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};

use self::log::Log;
pub use self::policy::{AuditLevel, AuditPolicy, AuditPolicyError};
use self::policy::{Decision, Stage};
use crate::auth::UserInfo;
use crate::http::request_info::RequestInfo;
use crate::http::{Request, Response, body};
use crate::pipeline::decode;
use crate::reviews::user_info;
use crate::tree::set;

const ID: HeaderName = HeaderName::from_static("audit-id");

/// What is logged, and where.
#[derive(Clone, Debug)]
pub struct AuditConfig {
    /// How much of what.
    pub policy: AuditPolicy,
    /// The file that events are appended to.
    pub path: PathBuf,
}

/// What parts of the server leave for the log beside the request.
pub(crate) type Notes = Arc<Mutex<BTreeMap<String, String>>>;

/// Where a connection comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerAddress(pub SocketAddr);

/// The log; nothing when there is no policy.
pub(crate) struct Audit(Option<(AuditPolicy, Log)>);

/// One request on its way into the log.
pub(crate) struct Record {
    log: Log,
    decision: Decision,
    /// What is the same in every stage.
    event: Value,
    notes: Notes,
    request: Option<Value>,
    response: Option<Value>,
}

impl Audit {
    pub fn new(config: Option<&AuditConfig>) -> Result<Self, String> {
        let open = |config: &AuditConfig| {
            let log = Log::open(&config.path)
                .map_err(|error| format!("the audit log {}: {error}", Path::display(&config.path)))?;
            Ok((config.policy.clone(), log))
        };
        config.map(open).transpose().map(Self)
    }

    /// The id of a request: the client's own, or a new one.
    pub fn id(headers: &HeaderMap) -> HeaderValue {
        let own = headers.get(&ID).filter(|id| !id.is_empty() && id.len() <= 64);
        own.cloned()
            .or_else(|| HeaderValue::try_from(uuid::Uuid::new_v4().to_string()).ok())
            .unwrap_or(HeaderValue::from_static("-"))
    }

    /// Begins with a request, if it is to be logged. `actor` is who it is carried out as.
    pub async fn begin(
        &self,
        user: &UserInfo,
        actor: Option<&UserInfo>,
        info: &RequestInfo,
        parts: &Parts,
        id: &HeaderValue,
        notes: &Notes,
    ) -> Option<Record> {
        let (policy, log) = self.0.as_ref()?;
        let decision = policy.decide(actor.unwrap_or(user), info);
        if decision.level == AuditLevel::None {
            return None;
        }
        let event = event(user, actor, info, parts, id, decision.level);
        let record =
            Record { log: log.clone(), decision, event, notes: notes.clone(), request: None, response: None };
        record.tell(Stage::RequestReceived, None).await;
        Some(record)
    }

    /// Whether anything is logged at all.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Waits until everything so far is on disk.
    pub async fn flush(&self) {
        if let Some((_, log)) = &self.0 {
            log.flush().await;
        }
    }
}

impl Record {
    /// Keeps what was sent, where the policy wants it. What is sent on to others is left alone.
    pub async fn keep_request(&mut self, info: &RequestInfo, request: Request) -> Result<Request, ApiError> {
        if self.decision.level < AuditLevel::Request || info.streams() {
            return Ok(request);
        }
        let (parts, content) = request.into_parts();
        let bytes = body::read_limited(content).await?;
        self.request = object_of(&parts.headers, &bytes);
        Ok(Request::from_parts(parts, body::full(bytes)))
    }

    /// Tells how it ended; for what goes on after its beginning, when it does.
    pub async fn finish(mut self, info: &RequestInfo, response: Response) -> Response {
        let code = response.status().as_u16();
        let streams = info.verb == "watch" || info.streams() && code != 101;
        let (parts, content) = response.into_parts();
        if streams && parts.status.is_success() {
            self.tell(Stage::ResponseStarted, Some(code)).await;
            let ending = Ending { record: self, code };
            let content = content.map_frame(move |frame| {
                // Held until the stream is dropped.
                let _ending = &ending;
                frame
            });
            return Response::from_parts(parts, content.boxed_unsync());
        }
        let is_plain = !parts.headers.contains_key(http::header::CONTENT_ENCODING);
        let wanted = self.decision.level == AuditLevel::RequestResponse && is_plain && code != 101;
        if !wanted {
            self.tell(Stage::ResponseComplete, Some(code)).await;
            return Response::from_parts(parts, content);
        }
        let answered = content.collect().await.map(|whole| whole.to_bytes());
        let bytes = answered.unwrap_or_default();
        self.response = serde_json::from_slice(&bytes).ok();
        self.tell(Stage::ResponseComplete, Some(code)).await;
        Response::from_parts(parts, body::full(bytes))
    }

    async fn tell(&self, stage: Stage, code: Option<u16>) {
        if let Some(line) = self.line(stage, code) {
            self.log.write(line).await;
        }
    }

    fn line(&self, stage: Stage, code: Option<u16>) -> Option<Vec<u8>> {
        if self.decision.omitted.contains(&stage) {
            return None;
        }
        let mut event = self.event.clone();
        set(&mut event, &["stage"], format!("{stage:?}"));
        set(&mut event, &["stageTimestamp"], now());
        if let Some(code) = code {
            set(&mut event, &["responseStatus"], json!({"metadata": {}, "code": code}));
        }
        for (field, object) in [("requestObject", &self.request), ("responseObject", &self.response)] {
            if let Some(mut object) = object.clone() {
                if self.decision.omit_managed_fields {
                    forget_managed_fields(&mut object);
                }
                if field == "responseObject" && object.get("kind").is_some_and(|kind| kind == "Status") {
                    set(&mut event, &["responseStatus"], object.clone());
                }
                set(&mut event, &[field], object);
            }
        }
        let notes = self.notes.lock();
        if !notes.is_empty() {
            set(&mut event, &["annotations"], json!(*notes));
        }
        serde_json::to_vec(&event).ok()
    }
}

/// A watch or stream that goes on; tells its end when dropped.
struct Ending {
    record: Record,
    code: u16,
}

impl Drop for Ending {
    fn drop(&mut self) {
        if let Some(line) = self.record.line(Stage::ResponseComplete, Some(self.code)) {
            self.record.log.write_now(line);
        }
    }
}

/// What was sent, as far as it can be read.
fn object_of(headers: &HeaderMap, bytes: &[u8]) -> Option<Value> {
    if bytes.is_empty() {
        return None;
    }
    serde_json::from_slice(bytes)
        .ok()
        .or_else(|| decode::object(headers, bytes).ok().map(|decoded| decoded.value))
}

fn forget_managed_fields(object: &mut Value) {
    let forget = |object: &mut Value| {
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
    };
    forget(object);
    object.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten().for_each(forget);
}

fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

fn event(
    user: &UserInfo,
    actor: Option<&UserInfo>,
    info: &RequestInfo,
    parts: &Parts,
    id: &HeaderValue,
    level: AuditLevel,
) -> Value {
    let header =
        |name: HeaderName| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let peer = parts.extensions.get::<PeerAddress>().map(|PeerAddress(address)| address.ip().to_string());
    let uri = parts.uri.path_and_query().map_or(parts.uri.path(), |path| path.as_str());
    let mut event = json!({
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": format!("{level:?}"),
        "auditID": id.to_str().unwrap_or_default(), "requestURI": uri, "verb": info.verb,
        "user": user_info(user), "sourceIPs": peer.into_iter().collect::<Vec<_>>(),
        "userAgent": header(http::header::USER_AGENT), "requestReceivedTimestamp": now(),
    });
    if let Some(actor) = actor {
        set(&mut event, &["impersonatedUser"], user_info(actor));
    }
    if info.is_resource {
        let parts = [
            ("resource", &info.resource),
            ("subresource", &info.subresource),
            ("namespace", &info.namespace),
            ("name", &info.name),
            ("apiGroup", &info.group),
            ("apiVersion", &info.version),
        ];
        let said = parts.into_iter().filter(|(_, text)| !text.is_empty());
        let reference: Value = said.map(|(field, text)| (field.to_string(), json!(text))).collect();
        set(&mut event, &["objectRef"], reference);
    }
    event
}
