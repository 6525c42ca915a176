//! Asking a webhook: one HTTPS request on a connection of its own, within the webhook's time.
//!
//! A service is reached at its cluster address, as upstream; one without (a headless one) cannot be.

use api::field::Look;
use serde_json::Value;

use super::hook::{Hook, Place};
use crate::http::outgoing::{Destination, exchange};
use crate::objects::Objects;

/// Asks; the error tells why there is no answer.
pub(super) async fn ask(objects: &Objects, hook: &Hook, question: &Value) -> Result<Value, String> {
    let mut destination = destination(objects, hook)?;
    destination.path.push_str(&format!("?timeout={}s", hook.timeout.as_secs()));
    let url = format!("https://{}:{}{}", destination.name, destination.port, destination.path);
    let failed = |why: &str| format!("failed to call webhook: Post {url:?}: {why}");
    match tokio::time::timeout(hook.timeout, exchange(&destination, Some(question))).await {
        Ok(answer) => answer.map_err(|why| failed(&why)),
        Err(_) => Err(failed("context deadline exceeded")),
    }
}

fn destination(objects: &Objects, hook: &Hook) -> Result<Destination, String> {
    match &hook.place {
        Place::Url(url) => {
            let invalid = || {
                format!(
                    "could not get REST client: {url:?} is not a URL of the form https://host[:port]/path"
                )
            };
            Destination::of_url(url, &hook.authority_pem).ok_or_else(invalid)
        }
        Place::Service { namespace, name, port, path } => {
            let service = objects
                .get("core/services", namespace, name)
                .ok_or_else(|| format!("failed to call webhook: service {name:?} not found"))?;
            let spec = service.get("spec").unwrap_or(&Value::Null);
            let host = match (spec.text("type"), spec.text("clusterIP")) {
                ("ExternalName", _) => spec.text("externalName"),
                (_, "" | "None") => {
                    return Err(format!(
                        "failed to call webhook: cannot route to service {name:?} without a cluster IP"
                    ));
                }
                (_, address) => {
                    if !spec.items("ports").iter().any(|known| known.int("port") == Some(i64::from(*port))) {
                        return Err(format!(
                            "failed to call webhook: no service port {port} found for service {name:?}"
                        ));
                    }
                    address
                }
            };
            let path = if path.is_empty() { "/" } else { path };
            Ok(Destination {
                name: format!("{name}.{namespace}.svc"),
                host: host.to_string(),
                port: *port,
                path: path.to_string(),
                authority_pem: hook.authority_pem.clone(),
            })
        }
    }
}
