//! `cluster-info`: where the cluster's own services are. Its `dump` is deliberately absent.

use serde_json::Value;

use crate::session::Session;
use crate::tree::{items, text};

/// Runs the verb.
pub async fn run(session: &Session) -> anyhow::Result<()> {
    let server = session.server.trim_end_matches('/');
    let path = "/api/v1/namespaces/kube-system/services?labelSelector=kubernetes.io/cluster-service%3Dtrue";
    let services = session.api.get(path).await?;
    println!("Kubernetes control plane is running at {server}");
    for service in items(&services, "/items") {
        println!("{} is running at {}", title(service), url(server, service));
    }
    println!("\nTo see what happens in the cluster, use 'ctl get events -A' and 'ctl describe nodes'.");
    Ok(())
}

fn title(service: &Value) -> &str {
    match text(service, "/metadata/labels/kubernetes.io~1name") {
        "" => text(service, "/metadata/name"),
        name => name,
    }
}

/// Its load balancer, or the way through the API server.
fn url(server: &str, service: &Value) -> String {
    let ingress = &service["status"]["loadBalancer"]["ingress"][0];
    let address = [text(ingress, "/ip"), text(ingress, "/hostname")].concat();
    if !address.is_empty() {
        return format!("http://{address}");
    }
    let port = text(service, "/spec/ports/0/name");
    let colon = if port.is_empty() { "" } else { ":" };
    let (namespace, name) = (text(service, "/metadata/namespace"), text(service, "/metadata/name"));
    format!("{server}/api/v1/namespaces/{namespace}/services/{name}{colon}{port}/proxy")
}
