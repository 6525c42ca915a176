//! Streams on their way: what of a request goes on, and how the answer comes back.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use api::{ApiError, Reason, Verb};
use http::header::{
    AUTHORIZATION, CONNECTION, COOKIE, HOST, HeaderName, HeaderValue, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::PathAndQuery;
use http::{HeaderMap, Uri};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

use super::agent::{AgentAddress, Upstream};
use super::links::Place;
use super::route::{Peer, Route, route};
use crate::admission::AdmissionRequest;
use crate::auth::UserInfo;
use crate::authz::Attributes;
use crate::http::query::Query;
use crate::http::request_info::RequestInfo;
use crate::http::respond::Failure;
use crate::http::{BoxError, Request, Response, body};
use crate::pipeline::{Core, Target, method_not_allowed};
use crate::tree::set;

/// So much of an agent's refusal is passed on.
const REFUSAL_BYTES_MAX: usize = 64 * 1024;

/// How long an agent may take to begin an answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// A kind of stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Connect {
    Log,
    Exec,
    Attach,
    PortForward,
    PodProxy,
    ServiceProxy,
    NodeProxy,
}

impl Connect {
    /// The kind of stream of a target; `None` for everything else.
    pub fn of(target: &Target) -> Option<Self> {
        if !target.row.group().is_empty() {
            return None;
        }
        match (target.row.plural.as_str(), target.subresource.as_str()) {
            ("pods", "log") => Some(Self::Log),
            ("pods", "exec") => Some(Self::Exec),
            ("pods", "attach") => Some(Self::Attach),
            ("pods", "portforward") => Some(Self::PortForward),
            ("pods", "proxy") => Some(Self::PodProxy),
            ("services", "proxy") => Some(Self::ServiceProxy),
            ("nodes", "proxy") => Some(Self::NodeProxy),
            _ => None,
        }
    }
}

/// Passes a request on.
pub(crate) async fn connect(
    core: &Arc<Core>,
    mut request: Request,
    query: &Query,
    admission: &AdmissionRequest<'_>,
    target: &Target,
    kind: Connect,
) -> Result<Response, Failure> {
    let verb = match *request.method() {
        http::Method::GET | http::Method::HEAD => Verb::Get,
        // Proxied like all others; a pod may have something to say to it.
        http::Method::OPTIONS
            if matches!(kind, Connect::PodProxy | Connect::ServiceProxy | Connect::NodeProxy) =>
        {
            Verb::Get
        }
        http::Method::POST => Verb::Create,
        http::Method::PUT => Verb::Update,
        http::Method::PATCH => Verb::Patch,
        http::Method::DELETE => Verb::Delete,
        _ => return Err(method_not_allowed()),
    };
    if !target.subresource().is_some_and(|s| s.verbs.contains(&verb)) {
        return Err(method_not_allowed());
    }
    if verb == Verb::Get && matches!(kind, Connect::Exec | Connect::Attach | Connect::PortForward) {
        require_create(core, admission.user, target).await?;
    }
    // To read a log is no stream to admission.
    if kind != Connect::Log {
        core.admission.validate(admission, options(query, target, kind).as_ref()).await?;
    }
    let route = route(core, query, request.uri(), target, kind)?;
    let mut reader = None;
    if kind == Connect::Log && streaming::is_websocket(request.headers()) {
        match streaming::reading::accept(&mut request) {
            Ok(agreed) => reader = Some(agreed),
            Err(refused) => return Ok(from_stream(refused.into_response())),
        }
        streaming::reading::strip(request.headers_mut());
    }
    let place = matches!(kind, Connect::PodProxy | Connect::ServiceProxy | Connect::NodeProxy)
        .then(|| Place::of(&request, &target.remainder, &route.address.authority()));
    let upgrades = streaming::is_upgrade(request.headers());
    if let Some(redirect) = place.as_ref().filter(|_| !upgrades).and_then(|p| p.root_redirect(&request)) {
        return Ok(redirect);
    }
    let upstream = match route.peer {
        Peer::Agent => core.agents.dial_agent(&route.address).await?,
        Peer::Workload { tls } => {
            check_address(&route.address)?;
            core.agents.dial_workload(&route.address, tls).await?
        }
    };
    let mut request = outgoing(request, &route)?;
    if let Some(place) = &place {
        place.announce(request.headers_mut());
    }
    let is_head = *request.method() == http::Method::HEAD;
    if upgrades {
        let upgrade = tokio::time::timeout(ANSWER_MAX, streaming::proxy_upgrade(request, upstream)).await;
        let response = upgrade.map_err(|_| mute(&route))?.map_err(|e| bad_gateway(&e))?;
        return Ok(from_stream(response));
    }
    // What is behind a proxy may think as long as it likes.
    let answer_max = if kind == Connect::Log { ANSWER_MAX } else { Duration::MAX };
    let answered = tokio::time::timeout(answer_max, forward(request, upstream)).await;
    let response = answered.map_err(|_| mute(&route))??;
    if kind == Connect::Log && !response.status().is_success() {
        return Err(log_failure(response).await);
    }
    if let Some(reader) = reader {
        return Ok(from_stream(reader.respond(response.into_body())));
    }
    match place {
        Some(place) => Ok(place.translate(response, !is_head).await),
        None => Ok(response),
    }
}

fn from_stream(response: http::Response<streaming::UpgradeBody>) -> Response {
    response.map(|body| body.map_err(BoxError::from).boxed_unsync())
}

/// WebSockets begin with a GET, but to run something in a pod is more than to read: it needs `create` whatever the
/// method, as upstream.
async fn require_create(core: &Core, user: &UserInfo, target: &Target) -> Result<(), ApiError> {
    let info = RequestInfo {
        is_resource: true,
        verb: "create",
        group: target.version.group.clone(),
        version: target.version.version.clone(),
        namespace: target.namespace.clone(),
        resource: target.row.plural.clone(),
        subresource: target.subresource.clone(),
        name: target.name.clone(),
        ..RequestInfo::default()
    };
    core.authorizers.require(&Attributes { user, info: &info }).await
}

/// A pod or an endpoint that claims an address of this machine must not lead a caller there.
fn check_address(address: &AgentAddress) -> Result<(), ApiError> {
    let allowed = match address.host.parse().map(|ip: IpAddr| ip.to_canonical()) {
        Ok(IpAddr::V4(ip)) => {
            !(ip.is_loopback() || ip.is_link_local() || ip.is_unspecified() || ip.is_multicast())
        }
        Ok(IpAddr::V6(ip)) => {
            !(ip.is_loopback() || ip.is_unicast_link_local() || ip.is_unspecified() || ip.is_multicast())
        }
        Err(_) => false,
    };
    if allowed { Ok(()) } else { Err(ApiError::bad_request("address not allowed")) }
}

/// The agent's refusal, which is text, as the `Status` that clients of the API read.
async fn log_failure(response: Response) -> Failure {
    let reason = match response.status().as_u16() {
        400 => Reason::BadRequest,
        404 => Reason::NotFound,
        _ => Reason::InternalError,
    };
    let text = body::read_text(response.into_body(), REFUSAL_BYTES_MAX).await;
    ApiError::new(reason, text.trim()).into()
}

/// The options of a stream as the object that webhooks see.
fn options(query: &Query, target: &Target, kind: Connect) -> Option<Value> {
    let (_, version, name) = target.subresource()?.body?;
    let mut options = json!({"kind": name, "apiVersion": version});
    let mut say = |field: &str, value: Value| set(&mut options, &[field], value);
    match kind {
        Connect::Exec | Connect::Attach => {
            for field in ["stdin", "stdout", "stderr", "tty"].into_iter().filter(|field| query.flag(field)) {
                say(field, true.into());
            }
            if let Some(container) = query.get_nonempty("container") {
                say("container", container.into());
            }
            if kind == Connect::Exec {
                say("command", query.all("command").collect::<Vec<_>>().into());
            }
        }
        Connect::PortForward => {
            let ports =
                query.all("ports").flat_map(|list| list.split(',')).filter_map(|port| port.parse().ok());
            say("ports", ports.collect::<Vec<u16>>().into());
        }
        _ => say("path", format!("/{}", target.remainder).into()),
    }
    Some(options)
}

/// The request as the other side gets it: another path, no credentials, nothing that is about this connection only.
fn outgoing(request: Request, route: &Route) -> Result<Request, Failure> {
    let (mut parts, content) = request.into_parts();
    let path: PathAndQuery =
        route.path.parse().map_err(|_| ApiError::bad_request(format!("{:?} is not a path", route.path)))?;
    let upgrades = streaming::is_upgrade(&parts.headers);
    let mut headers = std::mem::take(&mut parts.headers);
    strip(&mut headers, upgrades);
    let authority = HeaderValue::try_from(route.address.authority())
        .map_err(|_| ApiError::internal("the address makes no Host header"))?;
    headers.insert(HOST, authority);
    let mut builder = http::Request::builder().method(parts.method).uri(Uri::from(path));
    if let Some(target) = builder.headers_mut() {
        *target = headers;
    }
    let mut request = builder.body(content).map_err(|e| ApiError::internal(e.to_string()))?;
    // The handle of the client's connection travels among the extensions.
    *request.extensions_mut() = parts.extensions;
    Ok(request)
}

fn strip(headers: &mut HeaderMap, upgrades: bool) {
    let mut unwanted: Vec<HeaderName> = vec![AUTHORIZATION, COOKIE, TRANSFER_ENCODING];
    if !upgrades {
        unwanted.extend([CONNECTION, UPGRADE]);
    }
    unwanted.extend(headers.keys().filter(|name| name.as_str().starts_with("impersonate-")).cloned());
    for name in unwanted {
        headers.remove(name);
    }
    // A WebSocket client may carry its token as a protocol: that is ours to read, not the other side's.
    let protocols: Vec<String> = headers
        .get_all("sec-websocket-protocol")
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(|p| p.trim().to_string())
        .filter(|p| !p.starts_with("base64url.bearer.authorization.k8s.io."))
        .collect();
    if headers.remove("sec-websocket-protocol").is_some()
        && let Ok(value) = HeaderValue::try_from(protocols.join(", "))
        && !protocols.is_empty()
    {
        headers.insert("sec-websocket-protocol", value);
    }
}

/// Sends a request that upgrades nothing, and passes the answer back as it comes.
async fn forward(request: Request, upstream: Upstream) -> Result<Response, Failure> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(upstream))
        .await
        .map_err(|error| bad_gateway(&error))?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "the connection to the agent ended");
        }
    });
    let response = sender.send_request(request).await.map_err(|error| bad_gateway(&error))?;
    let (mut parts, content) = response.into_parts();
    for name in [CONNECTION, TRANSFER_ENCODING] {
        parts.headers.remove(name);
    }
    Ok(Response::from_parts(parts, content.map_err(Into::into).boxed_unsync()))
}

/// An agent that takes a connection and says nothing.
fn mute(route: &Route) -> Failure {
    let why = format!("{} does not answer: i/o timeout", route.address.authority());
    ApiError::new(Reason::ServiceUnavailable, format!("error trying to reach the backend: {why}")).into()
}

fn bad_gateway(error: &dyn std::error::Error) -> Failure {
    ApiError::new(Reason::ServiceUnavailable, format!("error trying to reach the backend: {error}")).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_should_be_led_to_this_machine() {
        let at = |host: &str| check_address(&AgentAddress { host: host.to_string(), port: 80 });
        assert!(at("10.244.0.2").is_ok());
        for host in [
            "127.0.0.1",
            "::1",
            "169.254.169.254",
            "0.0.0.0",
            "localhost",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
        ] {
            assert!(at(host).is_err(), "{host}");
        }
    }
}
