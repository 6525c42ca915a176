//! How a pod is called inside: host name, resolvers, hosts file.

use std::net::IpAddr;
use std::path::Path;

use k8s_cri::v1::DnsConfig;
use k8s_openapi::api::core::v1::Pod;

use super::spec::PodExt;

const HOSTNAME_BYTES_MAX: usize = 63;
/// systemd's stub is of no use in another network namespace; this file names the resolvers behind it.
const RESOLV_CONF_BEHIND_STUB: &str = "/run/systemd/resolve/resolv.conf";

/// The host name inside the pod, and the domain it is in, if it has one.
pub fn hostname(pod: &Pod, cluster_domain: &str) -> (String, Option<String>) {
    let spec = pod.spec();
    if let Some(name) = spec.hostname_override.as_ref().filter(|name| !name.is_empty()) {
        return (name.clone(), None);
    }
    let name = spec.hostname.as_deref().filter(|name| !name.is_empty()).unwrap_or(pod.name());
    let mut name: String = name.chars().take(HOSTNAME_BYTES_MAX).collect();
    name.truncate(name.trim_end_matches(['-', '.']).len());
    let domain = spec
        .subdomain
        .as_ref()
        .filter(|subdomain| !subdomain.is_empty())
        .map(|subdomain| format!("{subdomain}.{}.svc.{cluster_domain}", pod.namespace()));
    if spec.set_hostname_as_fqdn == Some(true)
        && let Some(domain) = &domain
    {
        return (format!("{name}.{domain}"), None);
    }
    (name, domain)
}

/// The hosts file's content. `node_hosts` is the node's own file, for pods on its network.
pub fn hosts_file(pod: &Pod, ips: &[String], cluster_domain: &str, node_hosts: &str) -> String {
    let mut text = String::new();
    if pod.host_network() {
        text.push_str("# Kubernetes-managed hosts file (host network).\n");
        text.push_str(node_hosts);
    } else {
        text.push_str("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n");
        text.push_str("::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n");
        text.push_str("fe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n");
        let (name, domain) = hostname(pod, cluster_domain);
        for ip in ips {
            text.push_str(&match &domain {
                Some(domain) => format!("{ip}\t{name}.{domain}\t{name}\n"),
                None => format!("{ip}\t{name}\n"),
            });
        }
    }
    let aliases = pod.spec().host_aliases.as_deref().unwrap_or_default();
    if !aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
        for alias in aliases {
            let names = alias.hostnames.clone().unwrap_or_default().join("\t");
            text.push_str(&format!("{}\t{names}\n", alias.ip));
        }
    }
    text
}

/// A resolver configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ResolvConf {
    /// Name servers.
    pub servers: Vec<String>,
    /// Search domains.
    pub searches: Vec<String>,
    /// Options.
    pub options: Vec<String>,
}

impl ResolvConf {
    /// Reads the node's.
    pub fn of_node() -> Self {
        let read = |path: &str| std::fs::read_to_string(Path::new(path)).unwrap_or_default();
        let own = Self::parse(&read("/etc/resolv.conf"));
        if own.servers.iter().any(|server| server == "127.0.0.53") {
            let behind = Self::parse(&read(RESOLV_CONF_BEHIND_STUB));
            if !behind.servers.is_empty() {
                return behind;
            }
        }
        own
    }

    fn parse(text: &str) -> Self {
        let mut conf = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let rest = |words: std::str::SplitWhitespace<'_>| words.map(str::to_string).collect();
            match words.next() {
                Some("nameserver") => conf.servers.extend(words.next().map(str::to_string)),
                Some("search" | "domain") => {
                    conf.searches = rest(words);
                    conf.searches.retain(|domain| domain != ".");
                }
                Some("options") => conf.options = rest(words),
                _ => {}
            }
        }
        conf
    }
}

/// The pod's resolvers, by its policy and its own configuration.
pub fn dns(pod: &Pod, cluster_dns: &[IpAddr], cluster_domain: &str, node: &ResolvConf) -> DnsConfig {
    let policy = pod.spec().dns_policy.as_deref().unwrap_or("ClusterFirst");
    let from_cluster = match policy {
        "ClusterFirstWithHostNet" => true,
        "ClusterFirst" => !pod.host_network(),
        _ => false,
    };
    let mut conf = if policy == "None" {
        ResolvConf::default()
    } else if from_cluster && !cluster_dns.is_empty() {
        let mut searches = vec![
            format!("{}.svc.{cluster_domain}", pod.namespace()),
            format!("svc.{cluster_domain}"),
            cluster_domain.to_string(),
        ];
        searches.extend(
            node.searches.iter().filter(|domain| !searches.contains(domain)).cloned().collect::<Vec<_>>(),
        );
        ResolvConf {
            servers: cluster_dns.iter().map(ToString::to_string).collect(),
            searches,
            options: vec!["ndots:5".to_string()],
        }
    } else {
        node.clone()
    };
    if let Some(own) = &pod.spec().dns_config {
        append(&mut conf.servers, own.nameservers.as_deref().unwrap_or_default());
        append(&mut conf.searches, own.searches.as_deref().unwrap_or_default());
        for option in own.options.iter().flatten() {
            let Some(name) = &option.name else { continue };
            conf.options.retain(|known| known.split(':').next() != Some(name));
            conf.options.push(match &option.value {
                Some(value) => format!("{name}:{value}"),
                None => name.clone(),
            });
        }
    }
    DnsConfig { servers: conf.servers, searches: conf.searches, options: conf.options }
}

fn append(list: &mut Vec<String>, more: &[String]) {
    for entry in more {
        if !list.contains(entry) {
            list.push(entry.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(
            serde_json::json!({"metadata": {"name": "web-0", "namespace": "shop"}, "spec": spec}),
        )
        .unwrap()
    }

    #[test]
    fn cluster_first_searches_the_namespace_first_and_a_pods_own_options_win() {
        let node = ResolvConf::parse("nameserver 9.9.9.9\nsearch corp.example\noptions rotate\n");
        let pod = pod(serde_json::json!({"containers": [], "dnsConfig": {
            "options": [{"name": "ndots", "value": "2"}], "searches": ["extra.example"]}}));
        let dns = dns(&pod, &["10.96.0.10".parse().unwrap()], "cluster.local", &node);
        assert_eq!(dns.servers, ["10.96.0.10"]);
        assert_eq!(
            dns.searches,
            ["shop.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example", "extra.example"]
        );
        assert_eq!(dns.options, ["ndots:2"]);
    }

    #[test]
    fn a_pod_with_a_subdomain_is_known_by_its_full_name() {
        let pod = pod(serde_json::json!({"containers": [], "subdomain": "web",
            "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]}));
        let text = hosts_file(&pod, &["10.0.0.7".to_string()], "cluster.local", "");
        assert!(text.contains("10.0.0.7\tweb-0.web.shop.svc.cluster.local\tweb-0\n"), "{text}");
        assert!(text.ends_with("1.2.3.4\ta\tb\n"), "{text}");
    }
}
