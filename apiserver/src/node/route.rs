//! Where a stream goes: which agent, pod or service, and by which path.

use api::field::Look;
use api::{ApiError, FieldError, Reason};
use http::Uri;
use serde_json::Value;

use super::agent::AgentAddress;
use super::connect::Connect;
use crate::http::query::{Query, encode};
use crate::http::respond::Failure;
use crate::pipeline::{Core, Target};

/// Where a stream goes.
pub(super) struct Route {
    pub address: AgentAddress,
    /// Path and query for the other side.
    pub path: String,
    pub peer: Peer,
}

/// Who the other side is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// An agent, which is spoken to with our certificate.
    Agent,
    /// A pod or an endpoint of a service.
    Workload {
        /// With TLS, whoever it says that it is.
        tls: bool,
    },
}

/// Finds the way.
pub(super) fn route(
    core: &Core,
    query: &Query,
    uri: &Uri,
    target: &Target,
    kind: Connect,
) -> Result<Route, Failure> {
    let raw_query = uri.query().unwrap_or_default();
    match kind {
        Connect::NodeProxy => {
            let asked = Asked::read(target)?;
            let agent = AgentAddress::of(&core.objects, asked.name)?;
            let port = asked.port.map_or(Ok(agent.port), |port| port.parse().map_err(|_| bad_port(port)))?;
            // What else listens on a node, an API server perhaps, must not take the caller for this one.
            let is_agent = port == agent.port;
            let peer = if is_agent { Peer::Agent } else { Peer::Workload { tls: asked.tls } };
            let address = AgentAddress { port, ..agent };
            Ok(Route { address, path: joined(&target.remainder, raw_query), peer })
        }
        Connect::PodProxy | Connect::ServiceProxy => {
            let asked = Asked::read(target)?;
            let address = if kind == Connect::PodProxy {
                pod_address(core, target, &asked)?
            } else {
                service_address(core, target, &asked)?
            };
            let peer = Peer::Workload { tls: asked.tls };
            Ok(Route { address, path: joined(&target.remainder, raw_query), peer })
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
    Ok(Route { address, path: joined(&path, &query), peer: Peer::Agent })
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

fn pod_address(core: &Core, target: &Target, asked: &Asked<'_>) -> Result<AgentAddress, Failure> {
    let name = asked.name;
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
    let port = match asked.port {
        Some(text) => text.parse().map_err(|_| bad_port(text))?,
        None => first().and_then(|p| u16::try_from(p).ok()).unwrap_or(if asked.tls { 443 } else { 80 }),
    };
    Ok(AgentAddress { host, port })
}

/// An endpoint of a service that is ready; which one is left to chance.
fn service_address(core: &Core, target: &Target, asked: &Asked<'_>) -> Result<AgentAddress, Failure> {
    let name = asked.name;
    let service = core
        .objects
        .get("core/services", &target.namespace, name)
        .ok_or_else(|| ApiError::not_found("", "services", name))?;
    let spec = service.get("spec").cloned().unwrap_or_default();
    let ports = spec.items("ports");
    let port = match asked.port {
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

/// What a name of the form `name`, `name:port` or `scheme:name:port` asks for.
#[derive(Debug, PartialEq, Eq)]
struct Asked<'a> {
    tls: bool,
    name: &'a str,
    port: Option<&'a str>,
}

impl<'a> Asked<'a> {
    fn read(target: &'a Target) -> Result<Self, ApiError> {
        let kind = target.row.kind.to_lowercase();
        Self::parse(&target.name)
            .ok_or_else(|| ApiError::bad_request(format!("invalid {kind} request {:?}", target.name)))
    }

    fn parse(text: &'a str) -> Option<Self> {
        let port = |text: &'a str| Some(text).filter(|port| !port.is_empty());
        match text.split(':').collect::<Vec<_>>().as_slice() {
            [name] => Some(Self { tls: false, name, port: None }),
            [name, number] => Some(Self { tls: false, name, port: port(number) }),
            [scheme @ ("" | "http" | "https"), name, number] => {
                Some(Self { tls: *scheme == "https", name, port: port(number) })
            }
            _ => None,
        }
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
    fn names_should_be_split_from_schemes_and_ports() {
        let asked = |text| Asked::parse(text).map(|asked| (asked.tls, asked.name, asked.port));
        assert_eq!(asked("web"), Some((false, "web", None)));
        assert_eq!(asked("web:80"), Some((false, "web", Some("80"))));
        assert_eq!(asked("https:web:http"), Some((true, "web", Some("http"))));
        assert_eq!(asked("https:web:"), Some((true, "web", None)));
        assert_eq!(asked("http:web"), Some((false, "http", Some("web"))));
        assert_eq!(asked("ftp:web:21"), None);
        assert_eq!(asked("a:b:c:d"), None);
    }
}
