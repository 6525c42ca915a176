//! Domain names, lower case and without the last dot.

use std::net::Ipv4Addr;

/// The labels of `name` before `suffix`; `None` if it is not at or under it.
pub(super) fn below<'a>(name: &'a str, suffix: &str) -> Option<Vec<&'a str>> {
    if name == suffix {
        return Some(Vec::new());
    }
    let rest = name.strip_suffix(suffix)?.strip_suffix('.')?;
    Some(rest.split('.').collect())
}

/// The address that a name under `in-addr.arpa` asks about.
pub(super) fn reverse_address(name: &str) -> Option<Ipv4Addr> {
    let labels = below(name, "in-addr.arpa").filter(|labels| labels.len() == 4)?;
    let octets: Option<Vec<u8>> = labels.iter().rev().map(|label| octet(label)).collect();
    <[u8; 4]>::try_from(octets?).ok().map(Ipv4Addr::from)
}

/// The address written with dashes, as in `10-244-0-5`.
pub(super) fn dashed_address(label: &str) -> Option<Ipv4Addr> {
    let octets: Option<Vec<u8>> = label.split('-').map(octet).collect();
    <[u8; 4]>::try_from(octets?).ok().map(Ipv4Addr::from)
}

/// The name of an endpoint that has no host name.
pub(super) fn dashed(address: &str) -> String {
    address.replace(['.', ':'], "-")
}

fn octet(text: &str) -> Option<u8> {
    let plain = text.len() <= 3 && text.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_should_be_taken_apart_at_label_boundaries() {
        assert_eq!(
            below("web.default.svc.cluster.local", "cluster.local"),
            Some(vec!["web", "default", "svc"])
        );
        assert_eq!(below("cluster.local", "cluster.local"), Some(vec![]));
        assert_eq!(below("notcluster.local", "cluster.local"), None);
        assert_eq!(reverse_address("5.0.244.10.in-addr.arpa"), Some(Ipv4Addr::new(10, 244, 0, 5)));
        assert_eq!(reverse_address("0.244.10.in-addr.arpa"), None);
        assert_eq!(dashed_address("10-244-0-5"), Some(Ipv4Addr::new(10, 244, 0, 5)));
        assert_eq!(dashed_address("10-244-0-256"), None);
    }
}
