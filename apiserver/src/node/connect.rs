//! Which agent, pod or service a stream goes to, and what the other side is asked.

use std::net::IpAddr;
use std::sync::Arc;

use api::field::Look;
use api::{ApiError, FieldError, Reason, Verb};
use http::header::{
    AUTHORIZATION, CONNECTION, COOKIE, HOST, HeaderName, HeaderValue, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::PathAndQuery;
use http::{HeaderMap, Uri};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use serde_json::Value;

use super::agent::{AgentAddress, Upstream};
use crate::admission::{AdmissionRequest, Operation};
use crate::auth::UserInfo;
use crate::http::query::{Query, encode};
use crate::http::respond::Failure;
use crate::http::{BoxError, Request, Response, body};
use crate::pipeline::{Core, Target, method_not_allowed};

/// So much of an agent's refusal is passed on.
const REFUSAL_BYTES_MAX: usize = 64 * 1024;

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

/// Where a stream goes.
struct Route {
    address: AgentAddress,
    /// Path and query for the other side.
    path: String,
    /// Whether the other side is an agent, spoken to with our certificate, or a pod or service, spoken to in the clear.
    is_agent: bool,
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
    request: Request,
    query: &Query,
    user: UserInfo,
    target: Target,
    kind: Connect,
) -> Result<Response, Failure> {
    let verb = match *request.method() {
        http::Method::GET | http::Method::HEAD => Verb::Get,
        http::Method::POST => Verb::Create,
        http::Method::PUT => Verb::Update,
        http::Method::PATCH => Verb::Patch,
        http::Method::DELETE => Verb::Delete,
        _ => return Err(method_not_allowed()),
    };
    if !target.subresource().is_some_and(|s| s.verbs.contains(&verb)) {
        return Err(method_not_allowed());
    }
    admit(core, &user, &target, kind).await?;
    let route = route(core, query, request.uri(), &target, kind)?;
    let upstream = if route.is_agent {
        core.agents.dial_agent(&route.address).await?
    } else {
        check_address(&route.address)?;
        core.agents.dial_plain(&route.address).await?
    };
    let request = outgoing(request, &route)?;
    if streaming::is_upgrade(request.headers()) {
        let response = streaming::proxy_upgrade(request, upstream).await.map_err(|e| bad_gateway(&e))?;
        return Ok(response.map(|body| body.map_err(BoxError::from).boxed_unsync()));
    }
    let response = forward(request, upstream).await?;
    if kind == Connect::Log && !response.status().is_success() {
        return Err(log_failure(response).await);
    }
    Ok(response)
}

/// A pod or an endpoint that claims an address of this machine must not lead a caller there.
fn check_address(address: &AgentAddress) -> Result<(), ApiError> {
    let allowed = match address.host.parse() {
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

async fn admit(core: &Core, user: &UserInfo, target: &Target, kind: Connect) -> Result<(), Failure> {
    if kind == Connect::Log {
        return Ok(());
    }
    let warnings = parking_lot::Mutex::default();
    let admission = AdmissionRequest {
        operation: Operation::Connect,
        user,
        row: &target.row,
        subresource: &target.subresource,
        namespace: &target.namespace,
        name: &target.name,
        old: None,
        dry_run: false,
        warnings: &warnings,
    };
    Ok(core.admission.validate(&admission, None).await?)
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

fn bad_gateway(error: &dyn std::error::Error) -> Failure {
    ApiError::new(Reason::ServiceUnavailable, format!("error trying to reach the backend: {error}")).into()
}

fn route(core: &Core, query: &Query, uri: &Uri, target: &Target, kind: Connect) -> Result<Route, Failure> {
    let raw_query = uri.query().unwrap_or_default();
    match kind {
        Connect::NodeProxy => {
            let (node, port) = split_port(&target.name);
            let mut address = AgentAddress::of(&core.objects, node)?;
            if let Some(port) = port {
                address.port = port.parse().map_err(|_| bad_port(port))?;
            }
            Ok(Route { address, path: joined(&target.remainder, raw_query), is_agent: true })
        }
        Connect::PodProxy => {
            let address = pod_address(core, target)?;
            Ok(Route { address, path: joined(&target.remainder, raw_query), is_agent: false })
        }
        Connect::ServiceProxy => {
            let address = service_address(core, target)?;
            Ok(Route { address, path: joined(&target.remainder, raw_query), is_agent: false })
        }
        Connect::Log | Connect::Exec | Connect::Attach | Connect::PortForward => {
            pod_stream(core, query, raw_query, target, kind)
        }
    }
}

fn joined(path: &str, raw_query: &str) -> String {
    if raw_query.is_empty() { format!("/{path}") } else { format!("/{path}?{raw_query}") }
}

/// A stream to a container, over its node's agent.
fn pod_stream(
    core: &Core,
    query: &Query,
    raw_query: &str,
    target: &Target,
    kind: Connect,
) -> Result<Route, Failure> {
    let pod = pod(core, target, &target.name)?;
    let node = pod.get("spec").map_or("", |s| s.text("nodeName"));
    if node.is_empty() {
        return Err(
            ApiError::bad_request(format!("pod {} does not have a host assigned", target.name)).into()
        );
    }
    let address = AgentAddress::of(&core.objects, node)?;
    let place = format!("{}/{}", encode(&target.namespace), encode(&target.name));
    let container = match kind {
        Connect::PortForward => String::new(),
        _ => encode(&container(&pod, query.get("container"))?),
    };
    let path = match kind {
        Connect::Log => format!("containerLogs/{place}/{container}"),
        Connect::PortForward => format!("portForward/{place}"),
        _ => format!("{}/{place}/{container}", if kind == Connect::Exec { "exec" } else { "attach" }),
    };
    let query = match kind {
        Connect::Log | Connect::PortForward => raw_query.to_string(),
        _ => agent_query(query),
    };
    Ok(Route { address, path: joined(&path, &query), is_agent: true })
}

/// The options of exec and attach in the agent's words: `input=1&output=1&error=1&tty=1&command=…`.
fn agent_query(query: &Query) -> String {
    let mut parts = Vec::new();
    for (ours, theirs) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")] {
        if query.flag(ours) {
            parts.push(format!("{theirs}=1"));
        }
    }
    parts.extend(query.all("command").map(|word| format!("command={}", encode(word))));
    parts.join("&")
}

/// The container that is meant: the named one, the annotated default, or the only one.
fn container(pod: &Value, asked: Option<&str>) -> Result<String, ApiError> {
    let spec = pod.get("spec").cloned().unwrap_or_default();
    let names =
        |list: &str| -> Vec<String> { spec.items(list).iter().map(|c| c.text("name").to_string()).collect() };
    let (containers, init, ephemeral) =
        (names("containers"), names("initContainers"), names("ephemeralContainers"));
    let pod_name = api::object::name(pod);
    if let Some(asked) = asked.filter(|a| !a.is_empty()) {
        if [&containers, &init, &ephemeral].iter().any(|list| list.iter().any(|name| name == asked)) {
            return Ok(asked.to_string());
        }
        return Err(ApiError::bad_request(format!("container {asked} is not valid for pod {pod_name}")));
    }
    let annotated = pod
        .get("metadata")
        .and_then(|m| m.get("annotations"))
        .map_or("", |a| a.text("kubectl.kubernetes.io/default-container"));
    match containers.as_slice() {
        [one] => Ok(one.clone()),
        many if many.iter().any(|name| name == annotated) => Ok(annotated.to_string()),
        many => {
            let mut message = format!(
                "a container name must be specified for pod {pod_name}, choose one of: [{}]",
                many.join(" ")
            );
            if !init.is_empty() {
                message.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            Err(ApiError::bad_request(message))
        }
    }
}

fn pod(core: &Core, target: &Target, name: &str) -> Result<Value, ApiError> {
    core.objects
        .get("core/pods", &target.namespace, name)
        .ok_or_else(|| ApiError::not_found("", "pods", name))
}

fn pod_address(core: &Core, target: &Target) -> Result<AgentAddress, Failure> {
    let (name, port) = split_port(&target.name);
    let pod = pod(core, target, name)?;
    let host = pod.get("status").map_or("", |s| s.text("podIP")).to_string();
    if host.is_empty() {
        let message = format!("address not allowed: pod {name} has no address yet");
        return Err(ApiError::new(Reason::ServiceUnavailable, message).into());
    }
    let first = || {
        let containers = pod.get("spec").map(|s| s.items("containers")).unwrap_or_default();
        containers.iter().flat_map(|c| c.items("ports")).find_map(|p| p.int("containerPort"))
    };
    let port = match port {
        Some(text) => text.parse().map_err(|_| bad_port(text))?,
        None => first().and_then(|p| u16::try_from(p).ok()).unwrap_or(80),
    };
    Ok(AgentAddress { host, port })
}

/// An endpoint of a service that is ready; which one is left to chance.
fn service_address(core: &Core, target: &Target) -> Result<AgentAddress, Failure> {
    let (name, asked) = split_port(&target.name);
    let service = core
        .objects
        .get("core/services", &target.namespace, name)
        .ok_or_else(|| ApiError::not_found("", "services", name))?;
    let spec = service.get("spec").cloned().unwrap_or_default();
    let ports = spec.items("ports");
    let port = match asked.filter(|a| !a.is_empty()) {
        Some(text) => ports
            .iter()
            .find(|p| p.text("name") == text || p.int("port").is_some_and(|port| port.to_string() == text)),
        None => ports.first(),
    };
    let unavailable = || {
        let message = format!("no endpoints available for service {:?}", target.name);
        Failure::from(ApiError::new(Reason::ServiceUnavailable, message))
    };
    let port_name = port.ok_or_else(unavailable)?.text("name").to_string();
    let mut found = Vec::new();
    for slice in core.objects.list("discovery.k8s.io/endpointslices", &target.namespace) {
        let labels = slice.pointer("/metadata/labels").cloned().unwrap_or_default();
        if labels.text("kubernetes.io/service-name") != name {
            continue;
        }
        let port = slice.items("ports").iter().find(|p| p.text("name") == port_name);
        let Some(port) = port.and_then(|p| p.int("port")).and_then(|p| u16::try_from(p).ok()) else {
            continue;
        };
        for endpoint in slice.items("endpoints") {
            let ready = endpoint.pointer("/conditions/ready").and_then(Value::as_bool).unwrap_or(true);
            if let (true, Some(host)) = (ready, endpoint.items("addresses").first().and_then(Value::as_str)) {
                found.push(AgentAddress { host: host.to_string(), port });
            }
        }
    }
    if found.is_empty() {
        return Err(unavailable());
    }
    let choice = rand::Rng::random_range(&mut rand::rng(), 0..found.len());
    found.into_iter().nth(choice).ok_or_else(unavailable)
}

/// `[scheme:]name[:port]`; without TLS to pods the scheme says nothing.
fn split_port(name: &str) -> (&str, Option<&str>) {
    let name = name.strip_prefix("http:").or_else(|| name.strip_prefix("https:")).unwrap_or(name);
    match name.split_once(':') {
        Some((name, port)) => (name, Some(port).filter(|p| !p.is_empty())),
        None => (name, None),
    }
}

fn bad_port(text: &str) -> ApiError {
    let error = FieldError {
        reason: "FieldValueInvalid",
        field: "port".to_string(),
        message: format!("Invalid value: {text:?}: must be a port number"),
    };
    ApiError::invalid("", "Proxy", "", &[error])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_container_that_is_meant_should_be_found() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
        assert_eq!(container(&pod, Some("b")).unwrap(), "b");
        assert!(container(&pod, Some("c")).unwrap_err().message.contains("not valid for pod"));
        assert!(container(&pod, None).unwrap_err().message.contains("choose one of: [a b]"));
    }

    #[test]
    fn options_should_reach_the_agent_in_its_words() {
        let query = Query::parse("stdin=true&stdout=true&stderr=false&command=sh&command=-c&command=a%26b");
        assert_eq!(agent_query(&query), "input=1&output=1&command=sh&command=-c&command=a%26b");
    }

    #[test]
    fn nobody_should_be_led_to_this_machine() {
        let at = |host: &str| check_address(&AgentAddress { host: host.to_string(), port: 80 });
        assert!(at("10.244.0.2").is_ok());
        for host in ["127.0.0.1", "::1", "169.254.169.254", "0.0.0.0", "localhost"] {
            assert!(at(host).is_err(), "{host}");
        }
    }

    #[test]
    fn names_should_be_split_from_their_ports() {
        assert_eq!(split_port("web:80"), ("web", Some("80")));
        assert_eq!(split_port("https:web:http"), ("web", Some("http")));
        assert_eq!(split_port("web"), ("web", None));
    }
}
