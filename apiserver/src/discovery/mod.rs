//! Everything that is no resource: discovery, version, health, metrics, OpenAPI.

mod health;
mod openapi;
mod openid;

use std::sync::Arc;

use api::table::discovery;
use http::request::Parts;
use http::{Method, StatusCode};
use serde_json::{Value, json};

pub(crate) use openapi::OpenApi;

use crate::http::negotiate::{Encoding, accepted, negotiate};
use crate::http::query::Query;
use crate::http::respond::{self, Failure};
use crate::http::{Response, body};
use crate::pipeline::{Core, method_not_allowed, no_such_path};

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Answers a request that names no resource.
pub(crate) async fn answer(core: &Arc<Core>, request: &Parts, query: &Query) -> Result<Response, Failure> {
    if !matches!(request.method, Method::GET | Method::HEAD) {
        return Err(method_not_allowed());
    }
    let path = request.uri.path();
    let path = path.trim_end_matches('/');
    match path {
        "/version" => Ok(respond::value(StatusCode::OK, &version(), Encoding::Json)),
        "/metrics" => Ok(respond::with_type(
            StatusCode::OK,
            "text/plain; version=0.0.4; charset=utf-8",
            body::full(core.metrics.render(&core.cache, &core.flow, &core.policy_checks)),
        )),
        "" => Ok(respond::value(StatusCode::OK, &paths(core), Encoding::Json)),
        "/.well-known/openid-configuration" => Ok(openid::configuration(&core.config.service_account.issuer)),
        "/openid/v1/jwks" => Ok(openid::keys(&core.tokens)),
        _ if health::is_health(path) => health::answer(core, path, query).await,
        _ if path.starts_with("/openapi/") => OpenApi::answer(core, request, path, query).await,
        _ if path == "/api" || path == "/apis" || path.starts_with("/api/") || path.starts_with("/apis/") => {
            discover(core, request, query, path)
        }
        _ => Err(no_such_path()),
    }
}

fn discover(core: &Arc<Core>, request: &Parts, query: &Query, path: &str) -> Result<Response, Failure> {
    let table = core.table();
    let is_root = matches!(path, "/api" | "/apis");
    let wants_aggregated = accepted(&request.headers).iter().any(|range| {
        range.media_type == "application/json"
            && range.parameter("as") == Some("APIGroupDiscoveryList")
            && range.parameter("g") == Some("apidiscovery.k8s.io")
            && range.parameter("v") == Some("v2")
    });
    if is_root && wants_aggregated {
        let tree = if path == "/api" {
            discovery::aggregated_core(&table)
        } else {
            discovery::aggregated_groups(&table)
        };
        return Ok(tagged(request, AGGREGATED, &tree));
    }
    let form = negotiate(&request.headers, query, true)?;
    let tree = match path.trim_start_matches('/').split('/').collect::<Vec<_>>().as_slice() {
        ["api"] => Some(discovery::api_versions(&table, &address(core))),
        ["apis"] => Some(discovery::api_group_list(&table)),
        ["apis", group] => discovery::api_group(&table, group),
        ["api", version] => discovery::api_resource_list(&table, "", version),
        ["apis", group, version] if !group.is_empty() => discovery::api_resource_list(&table, group, version),
        _ => None,
    };
    let tree = tree.ok_or_else(no_such_path)?;
    Ok(respond::formed(StatusCode::OK, &tree, form))
}

/// A document with an ETag; 304 when the client has it already.
fn tagged(request: &Parts, media_type: &'static str, tree: &Value) -> Response {
    use sha2::{Digest, Sha256};
    let bytes = tree.to_string().into_bytes();
    let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02X}")).collect();
    let tag = format!("\"{digest}\"");
    let known = request.headers.get(http::header::IF_NONE_MATCH).and_then(|v| v.to_str().ok());
    let mut response = if known == Some(tag.as_str()) {
        let mut response = Response::new(body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        respond::with_type(StatusCode::OK, media_type, body::full(bytes))
    };
    let headers = response.headers_mut();
    if let Ok(value) = http::HeaderValue::try_from(tag) {
        headers.insert(http::header::ETAG, value);
    }
    headers.insert(http::header::VARY, http::HeaderValue::from_static("Accept"));
    response
}

fn address(core: &Core) -> String {
    format!("{}:{}", core.config.advertise_address, core.config.bind_address.port())
}

fn version() -> Value {
    json!({
        "major": "1", "minor": "36", "gitVersion": "v1.36.0+gantry", "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc",
        "platform": format!("linux/{}", if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }),
        "emulationMajor": "1", "emulationMinor": "36", "minCompatibilityMajor": "1", "minCompatibilityMinor": "35",
    })
}

fn paths(core: &Core) -> Value {
    let table = core.table();
    let mut paths: Vec<String> = [
        "/.well-known/openid-configuration",
        "/api",
        "/api/v1",
        "/apis",
        "/healthz",
        "/livez",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/openid/v1/jwks",
        "/readyz",
        "/version",
    ]
    .map(String::from)
    .to_vec();
    for group in table.groups().into_iter().filter(|group| !group.is_empty()) {
        paths.push(format!("/apis/{group}"));
        paths.extend(table.versions(group).iter().map(|version| format!("/apis/{group}/{version}")));
    }
    paths.sort();
    json!({"paths": paths})
}
