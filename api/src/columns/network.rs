//! Services, their endpoints, and what leads to them.

use serde_json::Value;

use super::{AGE, Kind, NAME, Subject, named, or_none, shortened, text, wide, workload};
use crate::field::Look;

const LISTED_MAX: usize = 3;

pub(super) const SERVICE: Kind = &[
    NAME,
    text("Type", |s| s.text("spec.type")),
    text("Cluster-IP", |s| {
        let first = s.list("spec.clusterIPs").first().and_then(Value::as_str);
        or_none(first.unwrap_or(s.str("spec.clusterIP"))).into()
    }),
    text("External-IP", |s| external_address(s).into()),
    text("Port(s)", |s| {
        let ports: Vec<String> = s.list("spec.ports").iter().map(service_port).collect();
        or_none(&ports.join(",")).into()
    }),
    AGE,
    wide("Selector", |s| workload::labels(s.spec(), "selector").into()),
];
pub(super) const ENDPOINTS: Kind =
    &[NAME, text("Endpoints", |s| shortened(&endpoints(s), LISTED_MAX, "<none>").into()), AGE];
pub(super) const ENDPOINT_SLICE: Kind = &[
    NAME,
    text("AddressType", |s| s.text("addressType")),
    text("Ports", |s| {
        let ports = s.list("ports").iter();
        let ports: Vec<String> = ports
            .map(|port| match (port.int("port"), port.at("name").and_then(Value::as_str)) {
                (Some(number), _) => number.to_string(),
                (None, Some(name)) => name.to_string(),
                (None, None) => "*".to_string(),
            })
            .collect();
        shortened(&ports, LISTED_MAX, "<unset>").into()
    }),
    text("Endpoints", |s| {
        let addresses = s.list("endpoints").iter().flat_map(|endpoint| texts(endpoint, "addresses"));
        shortened(&addresses.collect::<Vec<_>>(), LISTED_MAX, "<unset>").into()
    }),
    AGE,
];
pub(super) const INGRESS: Kind = &[
    NAME,
    text("Class", |s| s.or_none("spec.ingressClassName")),
    text("Hosts", |s| {
        let hosts = s.list("spec.rules").iter().map(|rule| rule.text("host").to_string());
        shortened(&hosts.filter(|host| !host.is_empty()).collect::<Vec<_>>(), LISTED_MAX, "*").into()
    }),
    text("Address", |s| balancer_addresses(s).join(",").into()),
    text("Ports", |s| if s.list("spec.tls").is_empty() { "80" } else { "80, 443" }.into()),
    AGE,
];
pub(super) const INGRESS_CLASS: Kind = &[
    named(0, |s| {
        let is_default = s.annotation("ingressclass.kubernetes.io/is-default-class") == "true";
        format!("{}{}", s.name(), if is_default { " (default)" } else { "" }).into()
    }),
    text("Controller", |s| s.text("spec.controller")),
    text("Parameters", |s| {
        let Some(parameters) = s.spec().at("parameters") else { return "<none>".into() };
        let group = parameters.text("apiGroup");
        let dot = if group.is_empty() { "" } else { "." };
        format!("{}{dot}{group}/{}", parameters.text("kind"), parameters.text("name")).into()
    }),
    AGE,
];
pub(super) const NETWORK_POLICY: Kind =
    &[NAME, text("Pod-Selector", |s| workload::selector(s.spec().at("podSelector")).into()), AGE];
pub(super) const SERVICE_CIDR: Kind =
    &[NAME, text("CIDRs", |s| texts(s.spec(), "cidrs").join(",").into()), AGE];
pub(super) const IP_ADDRESS: Kind = &[NAME, text("ParentRef", |s| or_none(&parent(s)).into())];

fn texts(parent: &Value, field: &str) -> Vec<String> {
    parent.items(field).iter().filter_map(Value::as_str).map(str::to_string).collect()
}

fn service_port(port: &Value) -> String {
    let (number, protocol) = (port.int("port").unwrap_or_default(), port.text("protocol"));
    match port.int("nodePort").unwrap_or_default() {
        0 => format!("{number}/{protocol}"),
        node => format!("{number}:{node}/{protocol}"),
    }
}

fn external_address(subject: &Subject) -> String {
    let external = texts(subject.spec(), "externalIPs");
    match subject.str("spec.type") {
        "ClusterIP" | "NodePort" => or_none(&external.join(",")).to_string(),
        "LoadBalancer" => {
            let mut all = balancer_addresses(subject);
            all.extend(external);
            if all.is_empty() { "<pending>".to_string() } else { all.join(",") }
        }
        "ExternalName" => subject.str("spec.externalName").to_string(),
        _ => "<unknown>".to_string(),
    }
}

fn balancer_addresses(subject: &Subject) -> Vec<String> {
    let ingress = subject.list("status.loadBalancer.ingress").iter();
    let mut addresses: Vec<String> = ingress
        .map(|i| if i.text("ip").is_empty() { i.text("hostname") } else { i.text("ip") }.to_string())
        .filter(|address| !address.is_empty())
        .collect();
    addresses.sort();
    addresses.dedup();
    addresses
}

fn endpoints(subject: &Subject) -> Vec<String> {
    let mut all = Vec::new();
    for subset in subject.list("subsets") {
        let addresses = || subset.items("addresses").iter().map(|address| address.text("ip"));
        let ports = subset.items("ports");
        if ports.is_empty() {
            all.extend(addresses().map(str::to_string));
        }
        for port in ports {
            let number = port.int("port").unwrap_or_default();
            all.extend(addresses().map(|ip| {
                if ip.contains(':') { format!("[{ip}]:{number}") } else { format!("{ip}:{number}") }
            }));
        }
    }
    all
}

/// `services/default/web`
fn parent(subject: &Subject) -> String {
    let field = |name: &str| subject.at("spec.parentRef").text(name);
    let parts = ["resource", "namespace", "name"].map(field);
    let mut kept: Vec<String> = parts.iter().filter(|p| !p.is_empty()).map(ToString::to_string).collect();
    if let Some(first) = kept.first_mut()
        && !field("group").is_empty()
    {
        first.push('.');
        first.push_str(field("group"));
    }
    kept.join("/")
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::{super::fill, *};

    #[test]
    fn services_should_show_where_they_answer() {
        let now: Timestamp = "2026-01-01T00:10:00Z".parse().unwrap();
        let object = json!({"metadata": {"name": "web", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"type": "NodePort", "clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5"],
                "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}],
                "selector": {"app": "web"}}});
        assert_eq!(
            fill(SERVICE, &Subject { object: &object, now }),
            ["web", "NodePort", "10.96.0.5", "<none>", "80:30080/TCP,53/UDP", "10m", "app=web"]
        );
    }

    #[test]
    fn long_lists_should_be_shortened() {
        let now: Timestamp = "2026-01-01T00:10:00Z".parse().unwrap();
        let object = json!({"metadata": {"name": "web"}, "subsets": [{"ports": [{"port": 80}],
            "addresses": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}, {"ip": "10.0.0.3"}, {"ip": "10.0.0.4"}]}]});
        assert_eq!(
            fill(ENDPOINTS, &Subject { object: &object, now })[1],
            "10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 1 more..."
        );
    }
}
