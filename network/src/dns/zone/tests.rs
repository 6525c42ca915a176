//! The names of a small cluster.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;

#[derive(Default)]
struct Fixed {
    services: Vec<Arc<Service>>,
    slices: Vec<Arc<EndpointSlice>>,
}

impl Directory for Fixed {
    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
        self.services.iter().find(|s| key(s) == (namespace, name)).cloned()
    }

    fn slices(&self, namespace: &str, service: &str) -> Vec<Arc<EndpointSlice>> {
        let of = |s: &&Arc<EndpointSlice>| {
            s.metadata.namespace.as_deref() == Some(namespace) && service_of(s) == Some(service)
        };
        self.slices.iter().filter(of).cloned().collect()
    }

    fn has_services(&self, namespace: &str) -> bool {
        self.services.iter().any(|s| key(s).0 == namespace)
    }

    fn services_at(&self, address: &str) -> Vec<Arc<Service>> {
        let address: IpAddr = address.parse().unwrap();
        self.services.iter().filter(|s| cluster_ips(s).contains(&address)).cloned().collect()
    }

    fn slices_at(&self, address: &str) -> Vec<Arc<EndpointSlice>> {
        let at = |s: &&Arc<EndpointSlice>| {
            s.endpoints.iter().flatten().any(|e| e.addresses.iter().any(|a| a == address))
        };
        self.slices.iter().filter(at).cloned().collect()
    }
}

fn cluster() -> Fixed {
    let service = |name: &str, spec: Value| {
        let object = json!({ "metadata": { "name": name, "namespace": "default" }, "spec": spec });
        Arc::new(serde_json::from_value(object).unwrap())
    };
    let port = json!([{ "name": "http", "port": 80, "protocol": "TCP" }]);
    let slice = json!({
        "metadata": { "name": "db-1", "namespace": "default", "labels": { "kubernetes.io/service-name": "db" } },
        "addressType": "IPv4", "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
        "endpoints": [
            { "addresses": ["10.244.0.5"], "hostname": "db-0" },
            { "addresses": ["10.244.0.6"] },
            { "addresses": ["10.244.0.7"], "conditions": { "ready": false } },
        ],
    });
    Fixed {
        services: vec![
            service("web", json!({ "clusterIP": "10.96.0.7", "ports": port })),
            service("db", json!({ "clusterIP": "None", "ports": port })),
            service("empty", json!({ "clusterIP": "None", "ports": port })),
            service("out", json!({ "type": "ExternalName", "externalName": "Example.com." })),
        ],
        slices: vec![Arc::new(serde_json::from_value(slice).unwrap())],
    }
}

fn resolve(name: &str, kind: u16) -> Outcome {
    let networks = vec!["10.244.0.0/16".parse().unwrap(), "10.96.0.0/16".parse().unwrap()];
    let zone =
        Zone { domain: "cluster.local".to_owned(), address: [10, 96, 0, 10].into(), networks, serial: 1 };
    zone.resolve(&cluster(), name, kind)
}

fn shown(name: &str, kind: u16) -> Vec<String> {
    match resolve(name, kind) {
        Outcome::Records { answers, .. } => answers
            .into_iter()
            .map(|r| match r.data {
                Data::A(ip) => ip.to_string(),
                Data::Srv { port, target, .. } => format!("{port} {target}"),
                Data::Ptr(name) | Data::Cname(name) | Data::Ns(name) | Data::Txt(name) => name,
                other => format!("{other:?}"),
            })
            .collect(),
        other => vec![format!("{other:?}")],
    }
}

#[test]
fn services_should_have_addresses_ports_and_names() {
    assert_eq!(shown("web.default.svc.cluster.local", TYPE_A), ["10.96.0.7"]);
    assert_eq!(
        shown("_http._tcp.web.default.svc.cluster.local", TYPE_SRV),
        ["80 web.default.svc.cluster.local"]
    );
    assert_eq!(shown("web.default.svc.cluster.local", TYPE_SRV), ["80 web.default.svc.cluster.local"]);
    assert_eq!(shown("7.0.96.10.in-addr.arpa", TYPE_PTR), ["web.default.svc.cluster.local"]);
    assert_eq!(shown("dns-version.cluster.local", TYPE_TXT), ["1.1.0"]);
    assert_eq!(shown("10-244-0-9.default.pod.cluster.local", TYPE_A), ["10.244.0.9"]);
}

#[test]
fn headless_services_should_have_the_ready_endpoints() {
    assert_eq!(shown("db.default.svc.cluster.local", TYPE_A), ["10.244.0.5", "10.244.0.6"]);
    assert_eq!(shown("db-0.db.default.svc.cluster.local", TYPE_A), ["10.244.0.5"]);
    assert_eq!(shown("10-244-0-6.db.default.svc.cluster.local", TYPE_A), ["10.244.0.6"]);
    let targets = ["8080 10-244-0-6.db.default.svc.cluster.local", "8080 db-0.db.default.svc.cluster.local"];
    assert_eq!(shown("_http._tcp.db.default.svc.cluster.local", TYPE_SRV), targets);
    assert_eq!(shown("5.0.244.10.in-addr.arpa", TYPE_PTR), ["db-0.db.default.svc.cluster.local"]);
    let Outcome::Records { additional, .. } = resolve("_http._tcp.db.default.svc.cluster.local", TYPE_SRV)
    else {
        panic!()
    };
    assert_eq!(additional.len(), 2);
}

#[test]
fn names_that_exist_should_differ_from_those_that_do_not() {
    for name in [
        "cluster.local",
        "svc.cluster.local",
        "default.svc.cluster.local",
        "empty.default.svc.cluster.local",
        "_tcp.web.default.svc.cluster.local",
        "_http._tcp.web.default.svc.cluster.local",
    ] {
        assert_eq!(resolve(name, TYPE_A), Outcome::NoData, "{name}");
    }
    assert_eq!(resolve("web.default.svc.cluster.local", TYPE_AAAA), Outcome::NoData);
    for name in [
        "x.cluster.local",
        "nowhere.svc.cluster.local",
        "x.default.svc.cluster.local",
        "x.web.default.svc.cluster.local",
        "_x._tcp.web.default.svc.cluster.local",
        "_udp.web.default.svc.cluster.local",
        "db-1.db.default.svc.cluster.local",
        "x.default.pod.cluster.local",
        "web.default.svc.cluster.local.default.svc.cluster.local",
        "9.0.244.10.in-addr.arpa",
    ] {
        assert_eq!(resolve(name, TYPE_A), Outcome::NoSuchName, "{name}");
    }
    for name in ["example.com", "1.1.1.1.in-addr.arpa", "mycluster.local"] {
        assert_eq!(resolve(name, TYPE_A), Outcome::NotOurs, "{name}");
    }
}

#[test]
fn an_external_name_should_be_an_alias() {
    let name = "out.default.svc.cluster.local";
    assert_eq!(shown(name, TYPE_CNAME), ["example.com"]);
    let Outcome::Alias(record, target) = resolve(name, TYPE_A) else { panic!("an alias") };
    assert_eq!((record.data, target.as_str()), (Data::Cname("example.com".to_owned()), "example.com"));
}
