//! Services, their endpoints, and what leads to them.

use serde_json::Value;

use super::{AGE, Kind, NAME, Subject, or_none, shortened, text, wide, workload};
use crate::field::Look;

const LISTED_MAX: usize = 3;

pub(super) const SERVICE: Kind = (
    &[NAME, text("Type"), text("Cluster-IP"), text("External-IP"), text("Port(s)"), AGE, wide("Selector")],
    service,
);
pub(super) const ENDPOINTS: Kind = (&[NAME, text("Endpoints"), AGE], endpoints);
pub(super) const ENDPOINT_SLICE: Kind =
    (&[NAME, text("AddressType"), text("Ports"), text("Endpoints"), AGE], endpoint_slice);
pub(super) const INGRESS: Kind =
    (&[NAME, text("Class"), text("Hosts"), text("Address"), text("Ports"), AGE], ingress);
pub(super) const INGRESS_CLASS: Kind = (&[NAME, text("Controller"), text("Parameters"), AGE], ingress_class);
pub(super) const NETWORK_POLICY: Kind = (&[NAME, text("Pod-Selector"), AGE], network_policy);
pub(super) const SERVICE_CIDR: Kind = (&[NAME, text("CIDRs"), AGE], service_cidr);
pub(super) const IP_ADDRESS: Kind = (&[NAME, text("ParentRef")], ip_address);

fn texts(parent: &Value, field: &str) -> Vec<String> {
    parent.items(field).iter().filter_map(Value::as_str).map(str::to_string).collect()
}

fn service(subject: &Subject) -> Vec<Value> {
    let spec = subject.spec();
    let ports: Vec<String> = spec.items("ports").iter().map(service_port).collect();
    let address = spec.items("clusterIPs").first().and_then(Value::as_str).unwrap_or(spec.text("clusterIP"));
    vec![
        subject.name().into(),
        spec.text("type").into(),
        or_none(address).into(),
        external_address(spec, subject.status()).into(),
        or_none(&ports.join(",")).into(),
        subject.age().into(),
        workload::labels(spec, "selector").into(),
    ]
}

fn service_port(port: &Value) -> String {
    let (number, protocol) = (port.int("port").unwrap_or_default(), port.text("protocol"));
    match port.int("nodePort").unwrap_or_default() {
        0 => format!("{number}/{protocol}"),
        node => format!("{number}:{node}/{protocol}"),
    }
}

fn external_address(spec: &Value, status: &Value) -> String {
    let external = texts(spec, "externalIPs");
    match spec.text("type") {
        "ClusterIP" | "NodePort" => or_none(&external.join(",")).to_string(),
        "LoadBalancer" => {
            let mut all = balancer_addresses(status);
            all.extend(external);
            if all.is_empty() { "<pending>".to_string() } else { all.join(",") }
        }
        "ExternalName" => spec.text("externalName").to_string(),
        _ => "<unknown>".to_string(),
    }
}

fn balancer_addresses(status: &Value) -> Vec<String> {
    let ingress = status.get("loadBalancer").unwrap_or(&Value::Null).items("ingress");
    let mut addresses: Vec<String> = ingress
        .iter()
        .map(|i| if i.text("ip").is_empty() { i.text("hostname") } else { i.text("ip") }.to_string())
        .filter(|address| !address.is_empty())
        .collect();
    addresses.sort();
    addresses.dedup();
    addresses
}

fn endpoints(subject: &Subject) -> Vec<Value> {
    let mut all = Vec::new();
    for subset in subject.object.items("subsets") {
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
    vec![subject.name().into(), shortened(&all, LISTED_MAX, "<none>").into(), subject.age().into()]
}

fn endpoint_slice(subject: &Subject) -> Vec<Value> {
    let ports: Vec<String> = subject
        .object
        .items("ports")
        .iter()
        .map(|port| match (port.int("port"), port.at("name").and_then(Value::as_str)) {
            (Some(number), _) => number.to_string(),
            (None, Some(name)) => name.to_string(),
            (None, None) => "*".to_string(),
        })
        .collect();
    let addresses: Vec<String> =
        subject.object.items("endpoints").iter().flat_map(|endpoint| texts(endpoint, "addresses")).collect();
    vec![
        subject.name().into(),
        subject.object.text("addressType").into(),
        shortened(&ports, LISTED_MAX, "<unset>").into(),
        shortened(&addresses, LISTED_MAX, "<unset>").into(),
        subject.age().into(),
    ]
}

fn ingress(subject: &Subject) -> Vec<Value> {
    let spec = subject.spec();
    let hosts: Vec<String> = spec
        .items("rules")
        .iter()
        .map(|rule| rule.text("host").to_string())
        .filter(|host| !host.is_empty())
        .collect();
    let ports = if spec.items("tls").is_empty() { "80" } else { "80, 443" };
    vec![
        subject.name().into(),
        or_none(spec.text("ingressClassName")).into(),
        shortened(&hosts, LISTED_MAX, "*").into(),
        balancer_addresses(subject.status()).join(",").into(),
        ports.into(),
        subject.age().into(),
    ]
}

fn ingress_class(subject: &Subject) -> Vec<Value> {
    let key = "ingressclass.kubernetes.io/is-default-class";
    let is_default = subject.metadata().dig(&["annotations", key]).is_some_and(|value| value == "true");
    let suffix = if is_default { " (default)" } else { "" };
    let parameters = subject.spec().at("parameters").map(|parameters| {
        let group = parameters.text("apiGroup");
        let kind = parameters.text("kind");
        let kind = if group.is_empty() { kind.to_string() } else { format!("{kind}.{group}") };
        format!("{kind}/{}", parameters.text("name"))
    });
    vec![
        format!("{}{suffix}", subject.name()).into(),
        subject.spec().text("controller").into(),
        or_none(&parameters.unwrap_or_default()).into(),
        subject.age().into(),
    ]
}

fn network_policy(subject: &Subject) -> Vec<Value> {
    let selector = workload::selector(subject.spec().at("podSelector"));
    vec![subject.name().into(), selector.into(), subject.age().into()]
}

fn service_cidr(subject: &Subject) -> Vec<Value> {
    vec![subject.name().into(), texts(subject.spec(), "cidrs").join(",").into(), subject.age().into()]
}

fn ip_address(subject: &Subject) -> Vec<Value> {
    let parent = subject.spec().at("parentRef").map(|parent| {
        let parts = [parent.text("resource"), parent.text("namespace"), parent.text("name")];
        let mut kept: Vec<String> = parts.iter().filter(|p| !p.is_empty()).map(ToString::to_string).collect();
        if let (Some(first), group) = (kept.first_mut(), parent.text("group"))
            && !group.is_empty()
        {
            first.push('.');
            first.push_str(group);
        }
        kept.join("/")
    });
    vec![subject.name().into(), or_none(&parent.unwrap_or_default()).into()]
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;

    #[test]
    fn services_should_show_where_they_answer() {
        let now: Timestamp = "2026-01-01T00:10:00Z".parse().unwrap();
        let object = json!({"metadata": {"name": "web", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"type": "NodePort", "clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5"],
                "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}],
                "selector": {"app": "web"}}});
        assert_eq!(
            service(&Subject { object: &object, now }),
            ["web", "NodePort", "10.96.0.5", "<none>", "80:30080/TCP,53/UDP", "10m", "app=web"]
        );
    }

    #[test]
    fn long_lists_should_be_shortened() {
        let now: Timestamp = "2026-01-01T00:10:00Z".parse().unwrap();
        let object = json!({"metadata": {"name": "web"}, "subsets": [{"ports": [{"port": 80}],
            "addresses": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}, {"ip": "10.0.0.3"}, {"ip": "10.0.0.4"}]}]});
        assert_eq!(
            endpoints(&Subject { object: &object, now })[1],
            "10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 1 more..."
        );
    }
}
