//! Network policies: who may talk to whom.

use serde_json::Value;

use super::page::Page;
use crate::tree::{items, joined, plain, selector, shown, text};

/// One direction of traffic, with its words.
struct Direction {
    name: &'static str,
    rules: &'static str,
    peers: &'static str,
    title: &'static str,
    anybody: &'static str,
}

const DIRECTIONS: [Direction; 2] = [
    Direction {
        name: "ingress",
        rules: "/spec/ingress",
        peers: "/from",
        title: "From:",
        anybody: "From: <any> (traffic not restricted by source)",
    },
    Direction {
        name: "egress",
        rules: "/spec/egress",
        peers: "/to",
        title: "To:",
        anybody: "To: <any> (traffic not restricted by destination)",
    },
];

/// Writes a network policy.
pub fn network_policy(object: &Value, page: &mut Page) {
    page.named(object);
    let created = text(object, "/metadata/creationTimestamp").replace('T', " ").replace('Z', " +0000 UTC");
    page.field("Created on", created);
    page.marks(object);
    page.line(0, "Spec:");
    let pods = match selector(&object["spec"]["podSelector"]) {
        none if none == "<none>" => {
            "<none> (Allowing the specific traffic to all pods in this namespace)".to_string()
        }
        pods => pods,
    };
    page.line(1, format!("PodSelector:     {pods}"));
    let types: Vec<String> = items(object, "/spec/policyTypes").map(plain).collect();
    for direction in DIRECTIONS {
        let name = direction.name;
        if !types.iter().any(|kind| kind.eq_ignore_ascii_case(name)) {
            page.line(1, format!("Not affecting {name} traffic"));
            continue;
        }
        page.line(1, format!("Allowing {name} traffic:"));
        let rules: Vec<&Value> = items(object, direction.rules).collect();
        if rules.is_empty() {
            page.line(2, format!("<none> (Selected pods are isolated for {name} connectivity)"));
        }
        for (index, allowed) in rules.iter().enumerate() {
            if index > 0 {
                page.line(2, "----------");
            }
            rule(allowed, &direction, page);
        }
    }
    page.line(1, format!("Policy Types: {}", types.join(", ")));
}

fn rule(rule: &Value, direction: &Direction, page: &mut Page) {
    if items(rule, "/ports").next().is_none() {
        page.line(2, "To Port: <any> (traffic allowed to all ports)");
    }
    for port in items(rule, "/ports") {
        let protocol = Some(text(port, "/protocol")).filter(|name| !name.is_empty()).unwrap_or("TCP");
        // As kubectl writes a port that is not there.
        let number = Some(shown(port, "/port")).filter(|port| !port.is_empty());
        let number = number.unwrap_or_else(|| "<nil>".into());
        match shown(port, "/endPort") {
            end if end.is_empty() => page.line(2, format!("To Port: {number}/{protocol}")),
            end => page.line(2, format!("To Port Range: {number}-{end}/{protocol}")),
        }
    }
    if items(rule, direction.peers).next().is_none() {
        page.line(2, direction.anybody);
    }
    for peer in items(rule, direction.peers) {
        page.line(2, direction.title);
        for (title, field) in [("NamespaceSelector", "namespaceSelector"), ("PodSelector", "podSelector")] {
            if peer[field].is_object() {
                page.line(3, format!("{title}: {}", selector(&peer[field])));
            }
        }
        if peer["ipBlock"].is_object() {
            page.line(3, "IPBlock:");
            page.line(4, format!("CIDR: {}", text(peer, "/ipBlock/cidr")));
            page.line(4, format!("Except: {}", joined(peer, "/ipBlock/except", ", ")));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_policy_reads_as_who_may_talk_to_whom() {
        let object = json!({"metadata": {"name": "p", "namespace": "d", "creationTimestamp": "2026-01-02T03:04:05Z"},
            "spec": {"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress", "Egress"],
                "ingress": [{"from": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "web"}}}],
                        "ports": [{"protocol": "TCP", "port": 6379}, {"port": 8000, "endPort": 8010}]},
                    {"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}]}]}});
        let mut page = Page::default();
        network_policy(&object, &mut page);
        let expected = "\
Name:         p
Namespace:    d
Created on:   2026-01-02 03:04:05 +0000 UTC
Labels:       <none>
Annotations:  <none>
Spec:
  PodSelector:     app=db
  Allowing ingress traffic:
    To Port: 6379/TCP
    To Port Range: 8000-8010/TCP
    From:
      NamespaceSelector: <none>
      PodSelector: app=web
    ----------
    To Port: <any> (traffic allowed to all ports)
    From:
      IPBlock:
        CIDR: 10.0.0.0/8
        Except: 10.1.0.0/16
  Allowing egress traffic:
    <none> (Selected pods are isolated for egress connectivity)
  Policy Types: Ingress, Egress
";
        assert_eq!(page.finish(), expected);
    }
}
