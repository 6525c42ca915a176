//! What every cluster starts with, written in one commit. Run at every start: what is there stays, what is missing comes
//! back.

use std::sync::Arc;
use std::time::Duration;

use api::field::{Look, Touch};
use api::{ApiError, Row};
use http::HeaderMap;
use serde_json::{Value, json};
use store::{Action, Precondition, StoreError, Write};
use tokio_util::sync::CancellationToken;

use crate::auth::{API_SERVER, MASTERS, UserInfo};
use crate::authz::{bootstrap_objects, reconciled};
use crate::cache::encode;
use crate::config::Config;
use crate::http::negotiate::Form;
use crate::http::query::Query;
use crate::http::request_info::RequestInfo;
use crate::http::respond::Failure;
use crate::pipeline::{Call, Change, Core, Target, WriteOptions, now};
use crate::server::ServerError;
use crate::service::DEFAULT_RANGE;

/// How often another API server's bootstrap may get in between.
const ATTEMPTS: usize = 5;
/// How often it is looked whether something is missing.
const KEEP_EVERY: Duration = Duration::from_secs(10);

/// Writes what is missing.
pub(crate) async fn ensure(core: &Arc<Core>) -> Result<(), ServerError> {
    let setup = |failure: Failure| ServerError::Setup(format!("the first objects: {}", failure.error));
    let call = own_call();
    let mut last = None;
    for _ in 0..ATTEMPTS {
        core.objects.catch_up().await;
        let missing = objects(&core.config)
            .map_err(Failure::from)
            .and_then(|all| missing(core, &call, all))
            .map_err(setup)?;
        match commit(core, missing).await {
            Ok(()) => {
                last = None;
                break;
            }
            Err(error @ StoreError::Conflict { .. }) => last = Some(error),
            Err(error) => return Err(error.into()),
        }
    }
    if let Some(error) = last {
        return Err(error.into());
    }
    core.objects.catch_up().await;
    reconcile_roles(core, &call).await.map_err(setup)?;
    settle_default_range(core, &call).await.map_err(setup)?;
    refresh_endpoints(core, &call).await.map_err(setup)
}

/// Brings back what must always be there and was deleted, until shutdown.
pub(crate) async fn keep(core: Arc<Core>, shutdown: CancellationToken) {
    let call = own_call();
    while shutdown.run_until_cancelled(tokio::time::sleep(KEEP_EVERY)).await.is_some() {
        let kept = async {
            restore(&core, &call, network_objects(&core.config)).await?;
            settle_default_range(&core, &call).await
        };
        if let Err(failure) = kept.await {
            tracing::warn!(error = %failure.error, "what every cluster has could not be brought back");
        }
    }
}

/// Writes those objects that are not there.
pub(crate) async fn restore(core: &Core, call: &Call, objects: Vec<Value>) -> Result<(), Failure> {
    let missing = missing(core, call, objects)?;
    if missing.is_empty() {
        return Ok(());
    }
    match commit(core, missing).await {
        // What another server brings back just now is no fault.
        Ok(()) | Err(StoreError::Conflict { .. }) => {}
        Err(error) => return Err(ApiError::internal(error.to_string()).into()),
    }
    core.objects.catch_up().await;
    Ok(())
}

/// The default range of services' addresses follows the server's flag from one range to one of each family, and no
/// further; it is ready unless somebody has said that it is not.
async fn settle_default_range(core: &Arc<Core>, call: &Call) -> Result<(), Failure> {
    let wanted = default_range(&core.config);
    let target = target_of(core, &wanted)?;
    let Some(live) = core.objects.get(&target.row_name, "", &target.name) else { return Ok(()) };
    let cidrs = |range: &Value| range.dig(&["spec", "cidrs"]).cloned().unwrap_or_default();
    let (has, flag) = (cidrs(&live), cidrs(&wanted));
    let is_one_more = has.as_array().is_some_and(|has| has.len() == 1) && has.get(0) == flag.get(0);
    if has != flag && !is_one_more {
        tracing::warn!(%has, %flag, "the default ServiceCIDR is not what --service-cidr says; it stays as it is");
    }
    let conditions = live.get("status").map(|status| status.items("conditions")).unwrap_or_default();
    let is_said = conditions.iter().any(|condition| condition.text("type") == "Ready");
    let is_deleted = live.dig(&["metadata", "deletionTimestamp"]).is_some();
    if is_deleted || has != flag && !is_one_more || has == flag && is_said {
        return Ok(());
    }
    let edit = move |live: &Value| {
        let mut new = live.clone();
        crate::tree::set(&mut new, &["spec", "cidrs"], flag.clone());
        if !is_said && let Some(status) = wanted.get("status") {
            new.put("status", status.clone());
        }
        Ok(new)
    };
    core.change(call, &target, Change::Edit(Box::new(edit)), &WriteOptions::default()).await?;
    Ok(())
}

/// A cluster that an older version has made gets what the standard roles and bindings have come to hold since.
async fn reconcile_roles(core: &Arc<Core>, call: &Call) -> Result<(), Failure> {
    for standard in standard_roles()? {
        let target = target_of(core, &standard)?;
        let live = core.objects.get(&target.row_name, &target.namespace, &target.name);
        if live.and_then(|live| reconciled(&live, &standard)).is_none() {
            continue;
        }
        tracing::info!(kind = target.row.kind, name = target.name, "a standard role is brought up to date");
        let edit = move |live: &Value| Ok(reconciled(live, &standard).unwrap_or_else(|| live.clone()));
        core.change(call, &target, Change::Edit(Box::new(edit)), &WriteOptions::default()).await?;
    }
    Ok(())
}

/// A call that the server makes by itself.
pub(crate) fn own_call() -> Call {
    let user = UserInfo::new(API_SERVER, &[MASTERS]);
    let mut headers = HeaderMap::new();
    headers.insert(http::header::USER_AGENT, http::HeaderValue::from_static("apiserver"));
    Call::new(RequestInfo::default(), Query::default(), headers, user, Form::default())
}

/// Commits as few transactions as a store takes, none with a part of an object's writes.
async fn commit(core: &Core, objects: Vec<Vec<Write>>) -> Result<(), StoreError> {
    let mut batch: Vec<Write> = Vec::new();
    for writes in objects {
        if batch.len() + writes.len() > store::TRANSACTION_WRITES_MAX {
            core.store.commit(std::mem::take(&mut batch)).await?;
        }
        batch.extend(writes);
    }
    core.store.commit(batch).await.map(|_| ())
}

/// What has to be written for each object that is not there.
fn missing(core: &Core, call: &Call, objects: Vec<Value>) -> Result<Vec<Vec<Write>>, Failure> {
    let mut missing = Vec::new();
    for object in objects {
        let target = target_of(core, &object)?;
        if core.objects.cached(&target.row_name, &target.namespace, &target.name).is_some() {
            continue;
        }
        // What the server would say of its own objects a moment later, they say from the beginning.
        let status = object.get("status").cloned();
        let (mut object, allocations) = core.complete(call, &target, object)?;
        if let Some(status) = status {
            object.put("status", status);
        }
        let own = Write {
            key: target.key(&target.namespace, &target.name),
            precondition: Precondition::Absent,
            action: Action::Put { value: encode(&object).into(), time_to_live: None },
        };
        missing.push([vec![own], allocations].concat());
    }
    Ok(missing)
}

/// Where an object of the server's own belongs.
pub(crate) fn target_of(core: &Core, object: &Value) -> Result<Target, ApiError> {
    let text = |field| object.get(field).and_then(Value::as_str).unwrap_or_default();
    let (group, version) = text("apiVersion").split_once('/').unwrap_or(("", text("apiVersion")));
    let table = core.table();
    let row: &Arc<Row> = table
        .kind(group, version, text("kind"))
        .ok_or_else(|| ApiError::internal(format!("there is no row for {}", text("kind"))))?;
    Ok(Target::internal(row, api::object::namespace(object), api::object::name(object)))
}

fn objects(config: &Config) -> Result<Vec<Value>, ApiError> {
    let mut objects: Vec<Value> =
        ["default", "kube-system", "kube-public", "kube-node-lease"].into_iter().map(namespace).collect();
    objects.extend([
        priority_class(
            "system-cluster-critical",
            2_000_000_000,
            "must run in the cluster, but can be moved to another node if necessary",
        ),
        priority_class("system-node-critical", 2_000_001_000, "must not be moved from their current node"),
        dns_service(config),
        client_authentication(config),
    ]);
    objects.extend(network_objects(config));
    objects.extend(standard_roles()?);
    objects.extend(crate::flow::bootstrap::objects());
    Ok(objects)
}

/// What the cluster cannot do without and users can delete.
fn network_objects(config: &Config) -> Vec<Value> {
    vec![
        default_range(config),
        kubernetes_service(config),
        kubernetes_endpoints(config),
        kubernetes_slice(config),
    ]
}

fn default_range(config: &Config) -> Value {
    let cidrs: Vec<String> = config.service_range.ranges().map(|range| range.to_string()).collect();
    json!({
        "kind": "ServiceCIDR", "apiVersion": "networking.k8s.io/v1",
        "metadata": {"name": DEFAULT_RANGE}, "spec": {"cidrs": cidrs},
        "status": {"conditions": [{"type": "Ready", "status": "True", "reason": "", "lastTransitionTime": now(),
            "message": "Kubernetes default Service CIDR is ready"}]},
    })
}

fn standard_roles() -> Result<Vec<Value>, ApiError> {
    bootstrap_objects().map_err(|error| ApiError::internal(format!("the standard roles: {error}")))
}

fn namespace(name: &str) -> Value {
    json!({
        "kind": "Namespace", "apiVersion": "v1",
        "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}},
    })
}

fn priority_class(name: &str, value: i64, what: &str) -> Value {
    json!({
        "kind": "PriorityClass", "apiVersion": "scheduling.k8s.io/v1", "metadata": {"name": name},
        "value": value, "description": format!("Used for system critical pods that {what}."),
    })
}

fn kubernetes_service(config: &Config) -> Value {
    json!({
        "kind": "Service", "apiVersion": "v1",
        "metadata": {
            "name": "kubernetes", "namespace": "default",
            "labels": {"component": "apiserver", "provider": "kubernetes"},
        },
        "spec": {
            "type": "ClusterIP", "clusterIP": config.kubernetes_service_address().to_string(),
            "ipFamilyPolicy": "SingleStack", "sessionAffinity": "None",
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": config.bind_address.port()}],
        },
    })
}

fn kubernetes_endpoints(config: &Config) -> Value {
    json!({
        "kind": "Endpoints", "apiVersion": "v1",
        "metadata": {
            "name": "kubernetes", "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
        },
        "subsets": subsets(config),
    })
}

/// Nobody but this machine could follow a loopback address, and nobody knows a port that is not chosen yet: such a server is
/// there for itself alone.
fn is_private(config: &Config) -> bool {
    config.advertise_address.is_loopback() || config.bind_address.port() == 0
}

fn subsets(config: &Config) -> Value {
    if is_private(config) {
        return json!([]);
    }
    json!([{
        "addresses": [{"ip": config.advertise_address.to_string()}],
        "ports": [{"name": "https", "port": config.bind_address.port(), "protocol": "TCP"}],
    }])
}

fn kubernetes_slice(config: &Config) -> Value {
    let mut slice = json!({
        "kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1",
        "metadata": {
            "name": "kubernetes", "namespace": "default",
            "labels": {"kubernetes.io/service-name": "kubernetes"},
        },
        "addressType": if config.advertise_address.is_ipv4() { "IPv4" } else { "IPv6" },
    });
    for (field, value) in slice_contents(config) {
        crate::tree::set(&mut slice, &[field], value);
    }
    slice
}

fn slice_contents(config: &Config) -> [(&'static str, Value); 2] {
    if is_private(config) {
        return [("endpoints", json!([])), ("ports", json!([]))];
    }
    [
        (
            "endpoints",
            json!([{"addresses": [config.advertise_address.to_string()], "conditions": {"ready": true}}]),
        ),
        ("ports", json!([{"name": "https", "port": config.bind_address.port(), "protocol": "TCP"}])),
    ]
}

fn dns_service(config: &Config) -> Value {
    let port = |name: &str, number: u16, protocol: &str| json!({"name": name, "port": number, "protocol": protocol, "targetPort": number});
    json!({
        "kind": "Service", "apiVersion": "v1",
        "metadata": {
            "name": "kube-dns", "namespace": "kube-system",
            "labels": {
                "k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS", "kubernetes.io/cluster-service": "true",
                // Every node answers for itself: service proxies leave the address alone.
                "service.kubernetes.io/service-proxy-name": "gantry-dns",
            },
        },
        "spec": {
            "type": "ClusterIP", "clusterIP": config.dns_service_address().to_string(),
            "ports": [port("dns", 53, "UDP"), port("dns-tcp", 53, "TCP")],
        },
    })
}

fn client_authentication(config: &Config) -> Value {
    json!({
        "kind": "ConfigMap", "apiVersion": "v1",
        "metadata": {"name": "extension-apiserver-authentication", "namespace": "kube-system"},
        "data": {"client-ca-file": String::from_utf8_lossy(&config.client_ca_pem)},
    })
}

/// The server may have moved since the last start.
async fn refresh_endpoints(core: &Arc<Core>, call: &Call) -> Result<(), Failure> {
    let config = core.config.clone();
    let subsets = subsets(&config);
    let endpoints = target_of(core, &kubernetes_endpoints(&config))?;
    let edit = move |live: &Value| {
        let mut new = live.clone();
        crate::tree::set(&mut new, &["subsets"], subsets.clone());
        Ok(new)
    };
    let options = WriteOptions::default();
    core.change(call, &endpoints, Change::Edit(Box::new(edit)), &options).await?;
    let contents = slice_contents(&config);
    let slice = target_of(core, &kubernetes_slice(&config))?;
    let edit = move |live: &Value| {
        let mut new = live.clone();
        for (field, value) in &contents {
            crate::tree::set(&mut new, &[*field], value.clone());
        }
        Ok(new)
    };
    core.change(call, &slice, Change::Edit(Box::new(edit)), &options).await?;
    Ok(())
}
