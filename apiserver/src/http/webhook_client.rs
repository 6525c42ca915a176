//! A program elsewhere that is asked before something is done: what a `clientConfig` says of it, and one question.
//!
//! Every question is one HTTPS request, within the time that the asker gives it. A service is reached at its cluster
//! address, as upstream; one without (a headless one) cannot be.

use std::time::Duration;

use api::field::Look;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::outgoing::Outgoing;
use crate::objects::Objects;

/// Where a program is, with the connections to it.
#[derive(Debug)]
pub(crate) struct WebhookClient {
    place: Place,
    connections: Outgoing,
}

#[derive(Debug)]
enum Place {
    Url(String),
    Service { namespace: String, name: String, port: u16, path: String },
}

impl WebhookClient {
    /// Reads a `clientConfig`.
    pub fn read(client: &Value) -> Self {
        let place = match client.at("service") {
            None => Place::Url(client.text("url").to_string()),
            Some(service) => Place::Service {
                namespace: service.text("namespace").to_string(),
                name: service.text("name").to_string(),
                port: service.int("port").and_then(|port| u16::try_from(port).ok()).unwrap_or(443),
                path: absolute(service.text("path")),
            },
        };
        let authority = STANDARD.decode(client.text("caBundle")).unwrap_or_default();
        Self { place, connections: Outgoing::new(authority) }
    }

    /// Asks; the error tells why there is no answer.
    pub async fn ask(&self, objects: &Objects, timeout: Duration, question: &Value) -> Result<Value, String> {
        let (url, host) = match &self.place {
            Place::Url(url) => (url.clone(), None),
            Place::Service { namespace, name, port, path } => {
                let host = host_of(objects, namespace, name, *port)?;
                (format!("https://{name}.{namespace}.svc:{port}{path}"), Some(host))
            }
        };
        let url = format!("{url}?timeout={}s", timeout.as_secs());
        let failed = |why: &str| format!("Post {url:?}: {why}");
        match tokio::time::timeout(timeout, self.connections.exchange(&url, host, Some(question))).await {
            Ok(answer) => answer.map_err(|why| failed(&why)),
            Err(_) => Err(failed("context deadline exceeded")),
        }
    }
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_string() } else { format!("/{path}") }
}

/// The address of a service.
fn host_of(objects: &Objects, namespace: &str, name: &str, port: u16) -> Result<String, String> {
    let service = objects.get("core/services", namespace, name);
    let service = service.ok_or_else(|| format!("service {name:?} not found"))?;
    let spec = service.get("spec").unwrap_or(&Value::Null);
    match (spec.text("type"), spec.text("clusterIP")) {
        ("ExternalName", _) => Ok(spec.text("externalName").to_string()),
        (_, "" | "None") => Err(format!("cannot route to service {name:?} without a cluster IP")),
        _ if !spec.items("ports").iter().any(|known| known.int("port") == Some(i64::from(port))) => {
            Err(format!("no service port {port} found for service {name:?}"))
        }
        (_, address) => Ok(address.to_string()),
    }
}
