//! Asking a webhook: one HTTPS request, within the webhook's time.
//!
//! A service is reached at its cluster address, as upstream; one without (a headless one) cannot be.

use api::field::Look;
use serde_json::Value;

use super::hook::{Hook, Place};
use crate::objects::Objects;

/// Asks; the error tells why there is no answer.
pub(super) async fn ask(objects: &Objects, hook: &Hook, question: &Value) -> Result<Value, String> {
    let (url, host) = match &hook.place {
        Place::Url(url) => (url.clone(), None),
        Place::Service { namespace, name, port, path } => {
            let host = host_of(objects, namespace, name, *port)
                .map_err(|why| format!("failed to call webhook: {why}"))?;
            (format!("https://{name}.{namespace}.svc:{port}{path}"), Some(host))
        }
    };
    let url = format!("{url}?timeout={}s", hook.timeout.as_secs());
    let failed = |why: &str| format!("failed to call webhook: Post {url:?}: {why}");
    match tokio::time::timeout(hook.timeout, hook.connections.exchange(&url, host, Some(question))).await {
        Ok(answer) => answer.map_err(|why| failed(&why)),
        Err(_) => Err(failed("context deadline exceeded")),
    }
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
