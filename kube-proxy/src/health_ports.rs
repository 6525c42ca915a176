//! The health check ports of services with external policy `Local`: by them a load balancer finds the nodes that have endpoints.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::health::{Answer, accept};
use crate::model::ServicePort;

/// What a port says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HealthPort {
    namespace: String,
    name: String,
    /// Ready endpoints on this node.
    local: usize,
}

/// The health check ports by number.
pub(crate) type HealthPorts = BTreeMap<u16, HealthPort>;

/// The ports that services ask for, with the endpoints they have here.
pub(crate) fn wanted(services: &[Arc<Service>], ports: &[ServicePort]) -> HealthPorts {
    let mut wanted = HealthPorts::new();
    for service in services {
        let Some(spec) = &service.spec else { continue };
        let port = spec.health_check_node_port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0);
        let Some(port) = port.filter(|_| spec.external_traffic_policy.as_deref() == Some("Local")) else {
            continue;
        };
        let namespace = service.metadata.namespace.clone().unwrap_or_default();
        let name = service.metadata.name.clone().unwrap_or_default();
        let prefix = format!("{namespace}/{name}:");
        let own = ports.iter().filter(|p| p.name.starts_with(&prefix));
        let local = own.map(|p| p.endpoints.iter().filter(|e| e.local && e.ready).count()).max().unwrap_or(0);
        wanted.insert(port, HealthPort { namespace, name, local });
    }
    wanted
}

/// Answers on the ports that are wanted, until `shutdown`.
pub(crate) async fn serve(mut wanted: watch::Receiver<HealthPorts>, shutdown: CancellationToken) {
    let mut open: HashMap<u16, (Arc<Mutex<HealthPort>>, DropGuard)> = HashMap::new();
    loop {
        let ports = wanted.borrow_and_update().clone();
        open.retain(|number, _| ports.contains_key(number));
        for (number, port) in ports {
            match open.get(&number) {
                Some((current, _)) => *current.lock() = port,
                None => {
                    let stop = shutdown.child_token();
                    if let Some(current) = listen(number, port, stop.clone()).await {
                        open.insert(number, (current, stop.drop_guard()));
                    }
                }
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = wanted.changed() => if changed.is_err() { return },
        }
    }
}

async fn listen(number: u16, port: HealthPort, stop: CancellationToken) -> Option<Arc<Mutex<HealthPort>>> {
    let listener = match TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], number))).await {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(port = number, service = port.name, %error, "cannot listen on a health check port");
            return None;
        }
    };
    let current = Arc::new(Mutex::new(port));
    let shown = current.clone();
    tokio::spawn(accept(listener, stop, move |_| {
        let HealthPort { namespace, name, local } = shown.lock().clone();
        // Names of objects need no escaping.
        let body = format!(
            r#"{{"service":{{"namespace":"{namespace}","name":"{name}"}},"localEndpoints":{local},"serviceProxyHealthy":true}}"#
        );
        Some(Answer { healthy: local > 0, content_type: "application/json", body })
    }));
    Some(current)
}
