//! Tables and the differences between them.

use netlink::nft::Batch;

use super::*;
use crate::model::Endpoint;

fn service(n: u8, endpoints: u8) -> ServicePort {
    let endpoint = |e| Endpoint {
        target: Target { address: [10, 244, n, e].into(), port: 8080 },
        ready: true,
        serving: true,
        terminating: false,
        local: false,
        zones: Vec::new(),
        nodes: Vec::new(),
    };
    ServicePort {
        name: format!("default/s{n}"),
        protocol: Protocol::Tcp,
        port: 80,
        cluster_ips: vec![[10, 96, 0, n].into()],
        external_ips: Vec::new(),
        balancer_ips: Vec::new(),
        source_ranges: Vec::new(),
        node_port: None,
        affinity_seconds: None,
        external_local: false,
        internal_local: false,
        endpoints: (0..endpoints).map(endpoint).collect(),
    }
}

fn table(services: &[ServicePort]) -> Table {
    let settings = Settings {
        table: "t".to_owned(),
        cluster_cidr: Some("10.244.0.0/16".parse().unwrap()),
        service_cidr: Some("10.96.0.0/16".parse().unwrap()),
        node_port_addresses: Vec::new(),
    };
    compile(services, &[], &Location::default(), &settings)
}

fn difference(old: &[ServicePort], new: &[ServicePort]) -> Vec<String> {
    Batch::between(Some(&table(old)), &table(new)).descriptions().map(str::to_owned).collect()
}

#[test]
fn nothing_new_should_be_no_transaction() {
    let services = [service(1, 3), service(2, 0)];
    assert!(difference(&services, &services).is_empty());
}

#[test]
fn a_service_of_a_known_shape_should_change_elements_only() {
    let steps = difference(&[service(1, 3)], &[service(1, 3), service(2, 3)]);
    assert_eq!(steps, ["add 3 elements of set endpoints", "add 1 elements of set services"]);
}

#[test]
fn an_endpoint_that_goes_should_take_its_element_and_change_the_shape() {
    let (three, two) = ([service(1, 3), service(2, 2)], [service(1, 2), service(2, 2)]);
    let steps = difference(&three, &two);
    let elements = [
        "delete 1 elements of set endpoints",
        "delete 1 elements of set services",
        "add 1 elements of set services",
    ];
    assert_eq!(steps[..3], elements);
    assert_eq!(
        steps[3..],
        [
            "empty chain inside-spread-3",
            "empty chain spread-3",
            "delete chain inside-spread-3",
            "delete chain spread-3",
        ]
    );
}

#[test]
fn the_last_endpoint_that_goes_should_leave_a_refusal() {
    let new = table(&[service(1, 0)]);
    assert_eq!(new.sets[sets::REFUSED].elements.len(), 1);
    assert!(new.sets[sets::SERVICES].elements.is_empty());
    let local = ServicePort { internal_local: true, ..service(1, 2) };
    let verdicts: Vec<_> = table(&[local]).sets[sets::REFUSED].elements.values().cloned().collect();
    assert_eq!(verdicts, [Value::Verdict(Verdict::Drop)]);
}

#[test]
fn the_first_of_two_with_the_same_port_should_have_it() {
    let mut twin = service(1, 1);
    twin.endpoints[0].target.port = 9999;
    let table = table(&[service(1, 1), twin]);
    let values: Vec<_> = table.sets[sets::ENDPOINTS].elements.values().collect();
    assert_eq!(values, [&Value::Bytes(vec![10, 244, 1, 0, 0x1f, 0x90, 0, 0])]);
}

#[test]
fn only_udp_services_with_other_endpoints_should_count_as_changed() {
    let udp = |n, e| ServicePort { protocol: Protocol::Udp, ..service(n, e) };
    let (old, new) =
        (table(&[udp(1, 2), udp(2, 1), service(3, 2)]), table(&[udp(1, 1), udp(2, 1), service(3, 1)]));
    let changed = changed_udp(Some(&old), &new);
    assert_eq!(changed.len(), 1);
    assert_eq!(
        (changed[0].address, changed[0].port, changed[0].targets.len()),
        (Some([10, 96, 0, 1].into()), 80, 1)
    );
}

#[test]
fn thousands_of_services_should_compile_quickly() {
    let start = std::time::Instant::now();
    let services: Vec<_> = (0..5000_u32)
        .map(|n| ServicePort { cluster_ips: vec![Ipv4Addr::from_bits(0x0a60_0000 + n)], ..service(1, 4) })
        .collect();
    let table = table(&services);
    assert_eq!(table.sets[sets::ENDPOINTS].elements.len(), 20_000);
    assert_eq!(table.chains.len(), 12);
    eprintln!("5000 services compiled in {:?}", start.elapsed());
}
