//! Families and addresses together, case by case.

use std::collections::BTreeSet;

use super::*;

/// What others have, in tests.
#[derive(Default)]
pub(super) struct Others {
    pub addresses: BTreeSet<IpAddr>,
    pub ports: BTreeSet<u16>,
}

impl Taken for Others {
    fn address(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address)
    }

    fn addresses(&self) -> usize {
        self.addresses.len()
    }

    fn port(&self, port: u16) -> bool {
        self.ports.contains(&port)
    }
}

const V4: &str = "10.96.0.0/24";
const V6: &str = "fd00::/112";
const DUAL: &[&str] = &[V4, V6];
const DUAL_V6: &[&str] = &[V6, V4];

/// Policy, families and families of the addresses; or what is wrong.
fn outcome(ranges: &[&str], spec: &Value, old: Option<&Value>) -> Result<String, String> {
    let ranges: Vec<AddressRange> = ranges.iter().map(|range| AddressRange::parse(range).unwrap()).collect();
    let families: Vec<&'static str> = ranges.iter().map(|range| range.family()).collect();
    let before = old.map(|old| addresses::of(&json!({"spec": old}))).unwrap_or_default();
    let mut spec = spec.clone();
    let filled = families::fill(&mut spec, old, &families)
        .map_err(Refusal::Invalid)
        .and_then(|()| addresses::fill(&mut spec, &before, &ranges, &Others::default()));
    filled.map_err(|refusal| match refusal {
        Refusal::Invalid(faults) => {
            let said: Vec<String> = faults.iter().map(|f| format!("{}: {}", f.field, f.message)).collect();
            said.join("; ")
        }
        Refusal::Full(what) => format!("no {what}"),
    })?;
    assert_eq!(
        spec.text("clusterIP"),
        spec.items("clusterIPs").first().map_or("", |ip| ip.as_str().unwrap())
    );
    let short = |ip: &Value| match ip.as_str().unwrap().parse() {
        Ok(address) if before.contains(&address) => "kept".to_string(),
        Ok(address) => api::net::family(address).to_string(),
        Err(_) => ip.as_str().unwrap().to_string(),
    };
    let list: Vec<String> = spec.items("clusterIPs").iter().map(short).collect();
    let families: Vec<&str> = spec.items("ipFamilies").iter().map(|f| f.as_str().unwrap()).collect();
    Ok(format!("{} {} {}", spec.text("ipFamilyPolicy"), families.join(","), list.join(",")))
}

fn with(base: Value, more: Value) -> Value {
    let mut spec = base;
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    spec
}

#[test]
fn new_services_get_the_families_of_their_policy_and_cluster() {
    let plain = || json!({"type": "ClusterIP", "selector": {"a": "b"}});
    let not_dual = "this cluster is not configured for dual-stack services";
    let several = "must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified";
    let cases: [(&[&str], Value, &str); 25] = [
        (&[V4], json!({}), "SingleStack IPv4 IPv4"),
        (&[V6], json!({}), "SingleStack IPv6 IPv6"),
        (DUAL, json!({}), "SingleStack IPv4 IPv4"),
        (DUAL_V6, json!({}), "SingleStack IPv6 IPv6"),
        (&[V4], json!({"ipFamilyPolicy": "PreferDualStack"}), "PreferDualStack IPv4 IPv4"),
        (DUAL, json!({"ipFamilyPolicy": "PreferDualStack"}), "PreferDualStack IPv4,IPv6 IPv4,IPv6"),
        (DUAL_V6, json!({"ipFamilyPolicy": "RequireDualStack"}), "RequireDualStack IPv6,IPv4 IPv6,IPv4"),
        (&[V4], json!({"ipFamilyPolicy": "RequireDualStack"}), not_dual),
        (DUAL, json!({"ipFamilies": ["IPv6"]}), "SingleStack IPv6 IPv6"),
        (
            &[V4],
            json!({"ipFamilies": ["IPv6"]}),
            "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster",
        ),
        (DUAL, json!({"ipFamilies": ["IPv6", "IPv4"]}), several),
        (
            DUAL,
            json!({"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv6"]}),
            "PreferDualStack IPv6,IPv4 IPv6,IPv4",
        ),
        (
            &[V4],
            json!({"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv4", "IPv6"]}),
            "spec.ipFamilies[1]",
        ),
        (DUAL, json!({"clusterIP": "fd00::5", "clusterIPs": ["fd00::5"]}), "SingleStack IPv6 IPv6"),
        (
            &[V4],
            json!({"clusterIP": "fd00::5", "clusterIPs": ["fd00::5"]}),
            "IPv6 is not configured on this cluster",
        ),
        (
            DUAL,
            json!({"ipFamilyPolicy": "RequireDualStack", "clusterIP": "fd00::5", "clusterIPs": ["fd00::5"]}),
            "RequireDualStack IPv6,IPv4 IPv6,IPv4",
        ),
        (
            DUAL,
            json!({"clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5", "fd00::5"]}),
            "when multiple cluster IPs are specified",
        ),
        (
            DUAL,
            json!({"ipFamilyPolicy": "PreferDualStack", "clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5", "10.96.0.6"]}),
            "may specify no more than one IP for each IP family",
        ),
        (
            DUAL,
            json!({"ipFamilies": ["IPv6"], "clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5"]}),
            "expected an IPv6 value as indicated by `ipFamilies[0]`",
        ),
        (
            DUAL,
            json!({"clusterIP": "10.97.0.5", "clusterIPs": ["10.97.0.5"]}),
            "spec.clusterIPs: Invalid value: [\"10.97.0.5\"]: failed to allocate IP 10.97.0.5: the provided IP (10.97.0.5) \
             is not in the valid range. The range of valid IPs is 10.96.0.0/24",
        ),
        (DUAL, json!({"clusterIP": "None", "clusterIPs": ["None"]}), "SingleStack IPv4 None"),
        (
            &[V4],
            json!({"clusterIP": "None", "clusterIPs": ["None"], "selector": {}}),
            "RequireDualStack IPv4,IPv6 None",
        ),
        (
            &[V6],
            json!({"clusterIP": "None", "clusterIPs": ["None"], "selector": {}, "ipFamilyPolicy": "SingleStack"}),
            "SingleStack IPv6 None",
        ),
        (
            DUAL,
            json!({"clusterIP": "None", "clusterIPs": ["None"], "ipFamilyPolicy": "PreferDualStack"}),
            "PreferDualStack IPv4,IPv6 None",
        ),
        (&[V4], json!({"type": "ExternalName"}), "  "),
    ];
    for (ranges, more, expected) in cases {
        let is = outcome(ranges, &with(plain(), more.clone()), None).unwrap_or_else(|refused| refused);
        assert!(is == expected || is.contains(':') && is.contains(expected), "{ranges:?} {more}: {is}");
    }
}

#[test]
fn updates_change_the_number_of_families_only_when_told_to() {
    let single = json!({"type": "ClusterIP", "selector": {"a": "b"}, "ipFamilyPolicy": "SingleStack",
        "ipFamilies": ["IPv4"], "clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5"]});
    let dual = with(
        single.clone(),
        json!({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv4", "IPv6"],
            "clusterIPs": ["10.96.0.5", "fd00::5"]}),
    );
    let preferred = with(dual.clone(), json!({"ipFamilyPolicy": "PreferDualStack"}));
    let preferred_single = with(single.clone(), json!({"ipFamilyPolicy": "PreferDualStack"}));
    let external = json!({"type": "ExternalName"});
    let silent = json!({"ipFamilyPolicy": null, "ipFamilies": null});
    let cases: [(&str, &Value, Value, &str); 17] = [
        ("nothing said", &single, silent.clone(), "SingleStack IPv4 kept"),
        ("nothing said of two", &dual, silent.clone(), "RequireDualStack IPv4,IPv6 kept,kept"),
        (
            "upgraded",
            &single,
            json!({"ipFamilyPolicy": "PreferDualStack"}),
            "PreferDualStack IPv4,IPv6 kept,IPv6",
        ),
        (
            "upgraded",
            &single,
            json!({"ipFamilyPolicy": "RequireDualStack"}),
            "RequireDualStack IPv4,IPv6 kept,IPv6",
        ),
        (
            "upgraded to an address",
            &single,
            json!({"ipFamilyPolicy": "RequireDualStack", "clusterIPs": ["10.96.0.5", "fd00::9"]}),
            "RequireDualStack IPv4,IPv6 kept,IPv6",
        ),
        (
            "upgraded without policy",
            &single,
            json!({"ipFamilies": ["IPv4", "IPv6"]}),
            "when multiple IP families",
        ),
        ("downgraded", &dual, json!({"ipFamilyPolicy": "SingleStack"}), "SingleStack IPv4 kept"),
        ("downgraded", &preferred, json!({"ipFamilyPolicy": "SingleStack"}), "SingleStack IPv4 kept"),
        (
            "downgraded by the list",
            &dual,
            json!({"ipFamilyPolicy": "SingleStack", "clusterIPs": ["10.96.0.5"]}),
            "SingleStack IPv4 kept",
        ),
        (
            "shortened",
            &dual,
            json!({"clusterIPs": ["10.96.0.5"]}),
            "must be 'SingleStack' to release the secondary cluster IP",
        ),
        (
            "shortened",
            &dual,
            json!({"ipFamilies": ["IPv4"]}),
            "must be 'SingleStack' to release the secondary IP family",
        ),
        (
            "relaxed",
            &dual,
            json!({"ipFamilyPolicy": "PreferDualStack"}),
            "PreferDualStack IPv4,IPv6 kept,kept",
        ),
        ("preferred", &preferred, json!({}), "PreferDualStack IPv4,IPv6 kept,kept"),
        ("the cluster has become dual", &preferred_single, json!({}), "PreferDualStack IPv4 kept"),
        ("from a name", &external, single.clone(), "SingleStack IPv4 IPv4"),
        (
            "from a name, without address",
            &external,
            json!({"type": "NodePort", "ipFamilyPolicy": "PreferDualStack"}),
            "PreferDualStack IPv4,IPv6 IPv4,IPv6",
        ),
        (
            "to a name",
            &single,
            json!({"type": "ExternalName", "clusterIP": null, "clusterIPs": null, "ipFamilies": null, "ipFamilyPolicy": null}),
            "  ",
        ),
    ];
    for (what, old, more, expected) in cases {
        let is = outcome(DUAL, &with(old.clone(), more.clone()), Some(old)).unwrap_or_else(|refused| refused);
        assert!(is == expected || is.contains(':') && is.contains(expected), "{what} {more}: {is}");
    }
    let left = with(single.clone(), json!({"ipFamilyPolicy": null}));
    let is = outcome(&[V4], &left, Some(&dual)).unwrap_err();
    assert!(is.contains("to release the secondary"), "also when the cluster has lost a family: {is}");
}
