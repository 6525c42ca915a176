//! Services, endpoint slices behind them, and ingresses.

use serde_json::Value;

use super::page::{Page, or_none, or_unset};
use crate::session::Session;
use crate::tree::{items, joined, labels, number, shown, text};

const SHOWN_ENDPOINTS: usize = 3;

/// Writes a service.
pub async fn service(session: &Session, object: &Value, page: &mut Page) {
    page.head(object);
    page.field("Selector", labels(object, "/spec/selector"));
    page.field("Type", text(object, "/spec/type"));
    page.field_if("IP Family Policy", text(object, "/spec/ipFamilyPolicy"));
    page.field("IP Families", or_none(&joined(object, "/spec/ipFamilies", ",")));
    page.field("IP", text(object, "/spec/clusterIP"));
    page.field("IPs", or_none(&joined(object, "/spec/clusterIPs", ",")));
    page.field_if("External IPs", joined(object, "/spec/externalIPs", ","));
    page.field_if("Desired LoadBalancer IP", text(object, "/spec/loadBalancerIP"));
    page.field_if("External Name", text(object, "/spec/externalName"));
    page.field_if("LoadBalancer Ingress", load_balancer(object));
    let name = text(object, "/metadata/name");
    let slices = slices(session, text(object, "/metadata/namespace"), name).await;
    for port in items(object, "/spec/ports") {
        let name = or_unset(text(port, "/name"));
        let protocol = text(port, "/protocol");
        page.field("Port", format!("{name}\t{}/{protocol}", number(port, "/port")));
        page.field("TargetPort", format!("{}/{protocol}", shown(port, "/targetPort")));
        page.field_if("AppProtocol", text(port, "/appProtocol"));
        if number(port, "/nodePort") != 0 {
            page.field("NodePort", format!("{name}\t{}/{protocol}", number(port, "/nodePort")));
        }
        page.field("Endpoints", endpoints(&slices, text(port, "/name")));
    }
    page.field("Session Affinity", text(object, "/spec/sessionAffinity"));
    page.field_if("External Traffic Policy", text(object, "/spec/externalTrafficPolicy"));
    page.field_if("Internal Traffic Policy", text(object, "/spec/internalTrafficPolicy"));
    page.field_if("HealthCheck NodePort", shown(object, "/spec/healthCheckNodePort"));
    page.field_if("LoadBalancer Source Ranges", joined(object, "/spec/loadBalancerSourceRanges", ","));
    page.field_if("Traffic Distribution", text(object, "/spec/trafficDistribution"));
}

fn load_balancer(object: &Value) -> String {
    let address = |ingress: &Value| match text(ingress, "/ip") {
        "" => text(ingress, "/hostname").to_string(),
        ip => ip.to_string(),
    };
    items(object, "/status/loadBalancer/ingress").map(address).collect::<Vec<_>>().join(", ")
}

async fn slices(session: &Session, namespace: &str, service: &str) -> Value {
    let path = format!(
        "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices?labelSelector=kubernetes.io/service-name%3D{service}"
    );
    session.api.get(&path).await.unwrap_or_default()
}

/// The first ready addresses of a port, and how many more there are.
fn endpoints(slices: &Value, port_name: &str) -> String {
    if items(slices, "/items").next().is_none() {
        return "<none>".into();
    }
    let mut all = Vec::new();
    for slice in items(slices, "/items") {
        for port in items(slice, "/ports").filter(|port| text(port, "/name") == port_name) {
            for endpoint in items(slice, "/endpoints") {
                if endpoint.pointer("/conditions/ready") == Some(&Value::Bool(false)) {
                    continue;
                }
                for address in items(endpoint, "/addresses").filter_map(Value::as_str) {
                    let address =
                        if address.contains(':') { format!("[{address}]") } else { address.to_string() };
                    all.push(format!("{address}:{}", number(port, "/port")));
                }
            }
        }
    }
    let more = all.len().saturating_sub(SHOWN_ENDPOINTS);
    all.truncate(SHOWN_ENDPOINTS);
    let told = all.join(",");
    if more > 0 { format!("{told} + {more} more...") } else { told }
}

/// Writes an endpoint slice.
pub fn endpoint_slice(object: &Value, page: &mut Page) {
    page.head(object);
    page.field("AddressType", text(object, "/addressType"));
    if items(object, "/ports").next().is_none() {
        page.line(0, "Ports: <unset>");
    } else {
        page.line(0, "Ports:");
        page.heading(1, "Name\tPort\tProtocol");
    }
    for port in items(object, "/ports") {
        let cells = ["/name", "/port", "/protocol"].map(|field| or_unset(&shown(port, field)).to_string());
        page.line(1, cells.join("\t"));
    }
    let any = items(object, "/endpoints").next().is_some();
    page.line(0, if any { "Endpoints:" } else { "Endpoints: <none>" });
    for endpoint in items(object, "/endpoints") {
        page.line(1, format!("- Addresses:\t{}", or_none(&joined(endpoint, "/addresses", ", "))));
        page.line(2, "Conditions:");
        page.line(3, format!("Ready:\t{}", or_unset(&shown(endpoint, "/conditions/ready"))));
        page.line(2, format!("Hostname:\t{}", or_unset(&shown(endpoint, "/hostname"))));
        if endpoint["targetRef"].is_object() {
            let (kind, name) = (text(endpoint, "/targetRef/kind"), text(endpoint, "/targetRef/name"));
            page.line(2, format!("TargetRef:\t{kind}/{name}"));
        }
        page.line(2, format!("NodeName:\t{}", or_unset(&shown(endpoint, "/nodeName"))));
        page.line(2, format!("Zone:\t{}", or_unset(&shown(endpoint, "/zone"))));
    }
}

/// Writes an ingress.
pub async fn ingress(session: &Session, object: &Value, page: &mut Page) {
    page.field("Name", text(object, "/metadata/name"));
    page.labels("Labels", object, "/metadata/labels");
    page.field("Namespace", text(object, "/metadata/namespace"));
    page.field("Address", load_balancer(object));
    page.field("Ingress Class", or_none(text(object, "/spec/ingressClassName")));
    let default = match object.pointer("/spec/defaultBackend") {
        Some(backend) => self::backend(session, object, backend).await,
        None => "<default>".to_string(),
    };
    page.field("Default backend", &default);
    if items(object, "/spec/tls").next().is_some() {
        page.line(0, "TLS:");
    }
    for tls in items(object, "/spec/tls") {
        let hosts = joined(tls, "/hosts", ",");
        match text(tls, "/secretName") {
            "" => page.line(1, format!("SNI routes {hosts}")),
            secret => page.line(1, format!("{secret} terminates {hosts}")),
        }
    }
    page.line(0, "Rules:");
    page.heading(1, "Host\tPath\tBackends");
    let mut any = false;
    for rule in items(object, "/spec/rules").filter(|rule| rule["http"].is_object()) {
        any = true;
        let host = text(rule, "/host");
        page.line(1, format!("{}\t", if host.is_empty() { "*" } else { host }));
        for path in items(rule, "/http/paths") {
            let backend = self::backend(session, object, &path["backend"]).await;
            page.line(2, format!("\t{} \t{backend}", text(path, "/path")));
        }
    }
    if !any {
        page.line(1, format!("*\t*\t{default}"));
    }
    page.annotations("Annotations", object, "/metadata/annotations");
}

async fn backend(session: &Session, ingress: &Value, backend: &Value) -> String {
    if backend["resource"].is_object() {
        let group = or_none(text(backend, "/resource/apiGroup"));
        let (kind, name) = (text(backend, "/resource/kind"), text(backend, "/resource/name"));
        return format!("APIGroup: {group}, Kind: {kind}, Name: {name}");
    }
    let service = text(backend, "/service/name");
    let port = [shown(backend, "/service/port/number"), shown(backend, "/service/port/name")].concat();
    let namespace = text(ingress, "/metadata/namespace");
    let found = session.api.get(&format!("/api/v1/namespaces/{namespace}/services/{service}")).await;
    let found = match found {
        Ok(found) => found,
        Err(error) => return format!("{service}:{port} (<error: {error}>)"),
    };
    let port_name = items(&found, "/spec/ports")
        .find(|candidate| shown(candidate, "/port") == port || text(candidate, "/name") == port)
        .map_or("", |port| text(port, "/name"));
    let slices = slices(session, namespace, service).await;
    format!("{service}:{port} ({})", endpoints(&slices, port_name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn many_endpoints_are_counted_rather_than_listed() {
        let endpoint = |ip: &str, ready: bool| json!({"addresses": [ip], "conditions": {"ready": ready}});
        let slices = json!({"items": [{"ports": [{"name": "", "port": 80}], "endpoints": [
            endpoint("10.0.0.1", true), endpoint("10.0.0.2", false), endpoint("10.0.0.3", true),
            endpoint("10.0.0.4", true), endpoint("10.0.0.5", true)]}]});
        assert_eq!(endpoints(&slices, ""), "10.0.0.1:80,10.0.0.3:80,10.0.0.4:80 + 1 more...");
        assert_eq!(endpoints(&Value::Null, ""), "<none>");
    }
}
