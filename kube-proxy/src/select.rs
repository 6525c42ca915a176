//! Which endpoints are used.

use crate::model::{Endpoint, Location, ServicePort, Target};

/// The endpoints of a service port that get new connections.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selection {
    /// For connections that any node may answer; sorted.
    pub anywhere: Vec<Target>,
    /// For connections that only this node may answer; sorted.
    pub here: Vec<Target>,
}

/// Chooses. Ready endpoints first, near ones if hints say so; if there are none, those that are about to end but still answer.
#[must_use]
pub fn select(service: &ServicePort, location: &Location) -> Selection {
    let ready: Vec<&Endpoint> = service.endpoints.iter().filter(|e| e.ready).collect();
    let anywhere =
        if ready.is_empty() { ending(&service.endpoints, |_| true) } else { targets(near(&ready, location)) };
    let ready_here: Vec<&Endpoint> = ready.iter().copied().filter(|e| e.local).collect();
    let here =
        if ready_here.is_empty() { ending(&service.endpoints, |e| e.local) } else { targets(ready_here) };
    Selection { anywhere, here }
}

/// Hints count only when every ready endpoint has them and one of them is for us: otherwise a half-updated set of hints would
/// leave the service without endpoints, or overload a few.
fn near<'a>(ready: &[&'a Endpoint], location: &Location) -> Vec<&'a Endpoint> {
    let for_node: Vec<&Endpoint> =
        ready.iter().copied().filter(|e| e.nodes.contains(&location.node)).collect();
    if !for_node.is_empty() && ready.iter().all(|e| !e.nodes.is_empty()) {
        return for_node;
    }
    let Some(zone) = &location.zone else { return ready.to_vec() };
    let for_zone: Vec<&Endpoint> = ready.iter().copied().filter(|e| e.zones.contains(zone)).collect();
    if !for_zone.is_empty() && ready.iter().all(|e| !e.zones.is_empty()) { for_zone } else { ready.to_vec() }
}

fn ending(endpoints: &[Endpoint], filter: impl Fn(&Endpoint) -> bool) -> Vec<Target> {
    targets(endpoints.iter().filter(|e| e.serving && e.terminating && filter(e)).collect())
}

fn targets(endpoints: Vec<&Endpoint>) -> Vec<Target> {
    let mut targets: Vec<Target> = endpoints.into_iter().map(|e| e.target).collect();
    targets.sort_unstable();
    targets.dedup();
    targets
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Protocol;

    fn endpoint(n: u8) -> Endpoint {
        let target = Target { address: [10, 0, 0, n].into(), port: 80 };
        let (zones, nodes) = (Vec::new(), Vec::new());
        Endpoint { target, ready: true, serving: true, terminating: false, local: false, zones, nodes }
    }

    fn ending(n: u8) -> Endpoint {
        Endpoint { ready: false, terminating: true, ..endpoint(n) }
    }

    fn chosen(endpoints: Vec<Endpoint>) -> (Vec<u8>, Vec<u8>) {
        let service = ServicePort {
            name: "x".to_owned(),
            protocol: Protocol::Tcp,
            port: 80,
            cluster_ips: Vec::new(),
            external_ips: Vec::new(),
            balancer_ips: Vec::new(),
            source_ranges: Vec::new(),
            node_port: None,
            affinity_seconds: None,
            external_local: false,
            internal_local: false,
            endpoints,
        };
        let location = Location { node: "n1".to_owned(), zone: Some("a".to_owned()) };
        let selection = select(&service, &location);
        let numbers = |targets: Vec<Target>| targets.iter().map(|t| t.address.octets()[3]).collect();
        (numbers(selection.anywhere), numbers(selection.here))
    }

    #[test]
    fn endpoints_about_to_end_should_be_used_only_when_no_other_is_ready() {
        assert_eq!(chosen(vec![endpoint(1), ending(2)]).0, [1]);
        assert_eq!(chosen(vec![ending(2), Endpoint { serving: false, ..ending(3) }]).0, [2]);
        let local = |e| Endpoint { local: true, ..e };
        assert_eq!(chosen(vec![endpoint(1), local(ending(2))]), (vec![1], vec![2]));
        assert_eq!(chosen(vec![local(endpoint(1)), local(ending(2))]), (vec![1], vec![1]));
    }

    #[test]
    fn hints_should_count_only_when_all_have_them_and_one_is_for_us() {
        let zone = |n, zone: &str| Endpoint { zones: vec![zone.to_owned()], ..endpoint(n) };
        assert_eq!(chosen(vec![zone(1, "a"), zone(2, "b")]).0, [1]);
        assert_eq!(chosen(vec![zone(1, "a"), endpoint(2)]).0, [1, 2]);
        assert_eq!(chosen(vec![zone(1, "b"), zone(2, "b")]).0, [1, 2]);
        let node = |n, node: &str| Endpoint { nodes: vec![node.to_owned()], ..zone(n, "a") };
        assert_eq!(chosen(vec![node(1, "n1"), node(2, "n2")]).0, [1]);
        assert_eq!(chosen(vec![node(1, "n3"), node(2, "n2")]).0, [1, 2]);
    }
}
