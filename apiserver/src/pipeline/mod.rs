//! The one pipeline that every request goes through, whatever its kind and verb.
//!
//! ```text
//! connection → authentication → audit → impersonation → flow control → authorization        (this file)
//!   → decode & convert → default → patch or apply, managed fields → mutating admission (default again)
//!   → prepare → validate → validating admission → store → encode                            (`change`, `delete`)
//! ```
//!
//! From patch to store it retries as a whole when the object has changed meanwhile.

mod call;
mod change;
mod check;
mod commit;
pub(crate) mod decode;
mod delete;
mod endpoint;
mod intent;
mod options;
mod read;
mod revisions;
mod system_fields;
mod watch;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use api::{ApiError, Reason, ResourceTable};
use futures::FutureExt;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use parking_lot::{Mutex, RwLock};
use store::Store;
use tokio_util::sync::CancellationToken;

pub(crate) use call::{Call, Target, now, row_name, schema_of};
pub(crate) use change::Change;
pub(crate) use delete::Deleted;
pub(crate) use endpoint::Endpoint;
pub(crate) use intent::{patch_error, typed};
pub(crate) use options::{DeleteOptions, Options, WriteOptions, delete_options, write_options};
pub(crate) use read::{filter, list_options};

use crate::admission::{AdmissionChain, Operation, PolicyChecks};
use crate::audit::{Audit, Notes};
use crate::auth::service_account::ServiceAccountTokens;
use crate::auth::{Authenticator, Credentials, PeerCertificates, UserInfo, authenticate, impersonated};
use crate::authz::{Attributes, AuthorizerChain};
use crate::cache::Cache;
use crate::config::Config;
use crate::discovery::OpenApi;
use crate::flow::Flow;
use crate::http::negotiate::{Encoding, negotiate};
use crate::http::query::Query;
use crate::http::request_info::RequestInfo;
use crate::http::respond::{Failure, add_warnings};
use crate::http::{Request, RequestBody, Response, body};
use crate::metrics::Metrics;
use crate::node::AgentClient;
use crate::objects::Objects;
use crate::quota::Quotas;
use crate::reviews::Reviewers;
use crate::subresource::Summaries;

/// Everything that requests are served with.
pub(crate) struct Core {
    pub config: Config,
    pub store: Arc<dyn Store>,
    pub cache: Arc<Cache>,
    pub objects: Objects,
    pub table: Arc<RwLock<Arc<ResourceTable>>>,
    pub authenticators: Vec<Arc<dyn Authenticator>>,
    pub authorizers: AuthorizerChain,
    pub admission: AdmissionChain,
    pub reviewers: Reviewers,
    pub tokens: Arc<ServiceAccountTokens>,
    pub policy_checks: Arc<PolicyChecks>,
    pub flow: Flow,
    pub audit: Audit,
    pub quotas: Quotas,
    pub metrics: Metrics,
    pub openapi: OpenApi,
    pub agents: AgentClient,
    pub summaries: Summaries,
    /// Fires when the server stops taking new work: watches end.
    pub stopping: CancellationToken,
}

impl Core {
    /// The table as of now.
    pub fn table(&self) -> Arc<ResourceTable> {
        self.table.read().clone()
    }

    /// Serves one request. Every error becomes a `Status`.
    pub async fn serve(self: &Arc<Self>, request: Request) -> Response {
        let started = Instant::now();
        let query = Query::parse(request.uri().query().unwrap_or_default());
        let info = RequestInfo::parse(request.method(), request.uri().path(), &query);
        let is_head = request.method() == http::Method::HEAD;
        let in_flight = self.metrics.begin(&info);
        // A fault in one request is that request's alone: others share its connection.
        let response = match AssertUnwindSafe(self.answer(request, &info, query)).catch_unwind().await {
            Ok(Ok(response)) => response,
            Ok(Err(failure)) => failure.into_response(Encoding::Json),
            Err(_) => {
                tracing::error!(verb = info.verb, path = info.path, "a request panicked");
                let error =
                    ApiError::internal("This request caused the API server to panic; please see its log");
                Failure::from(error).into_response(Encoding::Json)
            }
        };
        let is_known = !info.is_resource || Target::find(&self.table(), &info).is_ok();
        in_flight.end(&info, is_known, response.status().as_u16(), started.elapsed());
        if is_head { response.map(|_| body::empty()) } else { response }
    }

    async fn answer(
        self: &Arc<Self>,
        request: Request,
        info: &RequestInfo,
        query: Query,
    ) -> Result<Response, Failure> {
        let (parts, content) = request.into_parts();
        let id = Audit::id(&parts.headers);
        let notes = Notes::default();
        let (user, actor, refusal) = match self.known(&parts).await {
            Ok((user, actor)) => (user, actor, None),
            Err(refusal) => (UserInfo::default(), None, Some(refusal)),
        };
        tracing::debug!(user = user.name, verb = info.verb, path = info.path, "request");
        let mut record = self.audit.begin(&user, actor.as_ref(), info, &parts, &id, &notes).await;
        let patience = self.config.security.patience.body;
        let content = if info.streams() { content } else { body::timed(content, patience) };
        let request = Request::from_parts(parts, content);
        let kept = match (refusal, &mut record) {
            (Some(refusal), _) => Err(refusal),
            (None, Some(record)) => record.keep_request(info, request).await.map_err(Failure::from),
            (None, None) => Ok(request),
        };
        let answered = match kept {
            Ok(request) => self.admitted(request, info, query, actor.unwrap_or(user), &notes).await,
            Err(failure) => Err(failure),
        };
        let mut response = answered.unwrap_or_else(|failure| failure.into_response(Encoding::Json));
        if let Some(record) = record {
            response = record.finish(info, response).await;
        }
        response.headers_mut().insert("audit-id", id);
        Ok(response)
    }

    /// Who asks, and who they want to be instead.
    async fn known(&self, parts: &Parts) -> Result<(UserInfo, Option<UserInfo>), Failure> {
        let user = self.authenticate(parts).await?;
        let actor = impersonated(&parts.headers, &user, &self.authorizers).await?;
        Ok((user, actor))
    }

    /// From flow control on.
    async fn admitted(
        self: &Arc<Self>,
        request: Request,
        info: &RequestInfo,
        query: Query,
        user: UserInfo,
        notes: &Notes,
    ) -> Result<Response, Failure> {
        let (sorted, place) = self.flow.admit(&user, info).await;
        let answered = match place {
            Ok(_place) => self.authorized(request, info, query, user, notes).await,
            Err(failure) => Err(failure),
        };
        let Some(sorted) = sorted else { return answered };
        let mut response = answered.unwrap_or_else(|failure| failure.into_response(Encoding::Json));
        sorted.tell(&mut response);
        Ok(response)
    }

    /// From authorization on.
    async fn authorized(
        self: &Arc<Self>,
        request: Request,
        info: &RequestInfo,
        query: Query,
        user: UserInfo,
        notes: &Notes,
    ) -> Result<Response, Failure> {
        let attributes = Attributes { user: &user, info };
        let decision = self.authorizers.decide(&attributes).await.into_result(&attributes);
        if self.audit.is_on() {
            let (decided, reason) = match &decision {
                Ok(reason) => ("allow", reason.as_str()),
                Err(_) => ("forbid", ""),
            };
            let mut notes = notes.lock();
            notes.insert("authorization.k8s.io/decision".to_string(), decided.to_string());
            notes.insert("authorization.k8s.io/reason".to_string(), reason.to_string());
        }
        decision?;
        if info.is_resource {
            self.answer_resource(request, info, query, user, notes).await
        } else {
            crate::discovery::answer(self, &request.into_parts().0, &query).await
        }
    }

    async fn authenticate(&self, request: &Parts) -> Result<UserInfo, Failure> {
        // A caller in this process has said who it is; nothing that comes over the network can set an extension.
        if let Some(user) = request.extensions.get::<UserInfo>() {
            return Ok(user.clone().authenticated());
        }
        let certificates = request.extensions.get::<PeerCertificates>();
        let credentials = Credentials { certificates, headers: &request.headers };
        Ok(authenticate(&self.authenticators, &credentials).await?)
    }

    async fn answer_resource(
        self: &Arc<Self>,
        request: Request,
        info: &RequestInfo,
        query: Query,
        user: UserInfo,
        notes: &Notes,
    ) -> Result<Response, Failure> {
        let target = Target::find(&self.table(), info)?;
        if let Some(connect) = crate::node::Connect::of(&target) {
            let warnings = Mutex::default();
            let admission = target.admission(Operation::Connect, &user, &warnings, notes);
            let outcome = crate::node::connect(self, request, &query, &admission, &target, connect).await;
            let mut response = outcome.unwrap_or_else(|failure| failure.into_response(Encoding::Json));
            add_warnings(&mut response, &warnings.lock());
            return Ok(response);
        }
        let form = negotiate(request.headers(), &query, target.row.can(api::Verb::Get))?;
        let (parts, content) = request.into_parts();
        let mut call = Call::new(info.clone(), query, parts.headers, user, form);
        call.annotations = notes.clone();
        if let Some(warning) = deprecation(&target) {
            call.warn(warning);
        }
        let outcome = self.dispatch(&call, &target, content).await;
        let mut response = match outcome {
            Ok(response) => response,
            Err(failure) => failure.into_response(form.encoding),
        };
        add_warnings(&mut response, &call.warnings.lock());
        Ok(response)
    }

    async fn dispatch(
        self: &Arc<Self>,
        call: &Call,
        target: &Target,
        content: RequestBody,
    ) -> Result<Response, Failure> {
        if let Some(answer) = crate::subresource::answer(self, call, target, content).await {
            return answer;
        }
        Err(method_not_allowed())
    }
}

/// What a definition says of a version that is on its way out.
fn deprecation(target: &Target) -> Option<&str> {
    let custom = target.row.custom.as_ref()?;
    custom.versions.get(&target.version.version)?.deprecation_warning.as_deref()
}

/// 405 in upstream's words.
pub(crate) fn method_not_allowed() -> Failure {
    ApiError::new(Reason::MethodNotAllowed, "the server does not allow this method on the requested resource")
        .into()
}

/// 404 for a path that leads nowhere.
pub(crate) fn no_such_path() -> Failure {
    let mut error = ApiError::new(Reason::NotFound, "the server could not find the requested resource");
    error.details = Some(Box::new(serde_json::json!({})));
    error.into()
}

/// The content type of a body, without its parameters.
pub(crate) fn content_type(headers: &HeaderMap) -> &str {
    let value = headers.get(http::header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

/// The status code of a successful write.
pub(crate) fn code_of(created: bool) -> StatusCode {
    if created { StatusCode::CREATED } else { StatusCode::OK }
}
