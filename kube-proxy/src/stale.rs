//! Forgetting UDP connections that lead to endpoints which are gone.

use std::net::{IpAddr, Ipv4Addr};

use netlink::conntrack::{Connection, delete_matching};
use netlink::route::RouteSocket;

use crate::compile::UdpQuestion;
use crate::model::{Protocol, Target};

/// Deletes tracked UDP connections to `questions` that are answered by somebody who may not any more, or by nobody since they began
/// before the service had endpoints. Returns how many.
pub(crate) fn forget(questions: &[UdpQuestion]) -> Result<usize, netlink::Error> {
    if questions.is_empty() {
        return Ok(0);
    }
    let own: Vec<IpAddr> = RouteSocket::open()?.addresses()?.into_iter().map(|a| a.address).collect();
    let is_own = |address: Ipv4Addr| own.contains(&IpAddr::V4(address));
    delete_matching(Protocol::Udp.number(), |connection| {
        questions.iter().any(|question| is_stale(question, connection, is_own))
    })
}

fn is_stale(question: &UdpQuestion, connection: &Connection, is_own: impl Fn(Ipv4Addr) -> bool) -> bool {
    let asked = connection.original;
    let same_address = question.address.map_or_else(|| is_own(asked.destination), |a| a == asked.destination);
    let answers = Target { address: connection.reply.source, port: connection.reply.source_port };
    same_address && asked.destination_port == question.port && !question.targets.contains(&answers)
}

#[cfg(test)]
mod tests {
    use netlink::conntrack::Tuple;

    use super::*;

    #[test]
    fn only_connections_to_the_question_with_another_endpoint_should_be_stale() {
        let tuple = |source: [u8; 4], source_port, destination: [u8; 4], destination_port| Tuple {
            source: source.into(),
            destination: destination.into(),
            protocol: 17,
            source_port,
            destination_port,
        };
        let connection = |to: [u8; 4], by: [u8; 4]| Connection {
            original: tuple([10, 0, 0, 9], 5000, to, 53),
            reply: tuple(by, 5353, [10, 0, 0, 9], 5000),
        };
        let targets = vec![Target { address: [10, 0, 0, 1].into(), port: 5353 }];
        let question =
            UdpQuestion { address: Some([10, 96, 0, 2].into()), port: 53, targets: targets.clone() };
        let nobody = |_| false;
        assert!(!is_stale(&question, &connection([10, 96, 0, 2], [10, 0, 0, 1]), nobody));
        assert!(is_stale(&question, &connection([10, 96, 0, 2], [10, 0, 0, 2]), nobody));
        assert!(!is_stale(&question, &connection([10, 96, 0, 3], [10, 0, 0, 2]), nobody));
        let node_port = UdpQuestion { address: None, port: 53, targets };
        assert!(!is_stale(&node_port, &connection([1, 1, 1, 1], [10, 0, 0, 2]), nobody));
        assert!(is_stale(&node_port, &connection([1, 1, 1, 1], [10, 0, 0, 2]), |_| true));
    }
}
