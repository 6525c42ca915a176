//! What objects count against resource quotas, and what pods ask for as a whole. Pure.
//!
//! Used by the API server, which charges every write in its own transaction, and by the controller, which counts anew. The
//! two agree because a charge depends on the object alone: unlike upstream, a pod that is stuck in deletion counts until
//! it is gone, and what a pod was resized to counts by its spec, not by what the node has granted so far.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::field::Look;
use crate::quantity::{Format, Quantity};
use crate::selector::{Operator, Requirement};

/// Amounts by the names that quotas use.
pub type Amounts = BTreeMap<String, Quantity>;

/// Kinds of the core group that are also counted by their plain name.
const PLAIN: [&str; 5] =
    ["configmaps", "replicationcontrollers", "resourcequotas", "secrets", "persistentvolumeclaims"];
const SERVICES: [&str; 3] = ["services", "services.loadbalancers", "services.nodeports"];
const COMPUTE: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
const BY_CLASS: &str = ".storageclass.storage.k8s.io/";

/// `count/pods`, `count/deployments.apps`
pub fn count_name(group: &str, plural: &str) -> String {
    if group.is_empty() { format!("count/{plural}") } else { format!("count/{plural}.{group}") }
}

/// Whether objects of a kind can use what a quota limits under a name.
pub fn tracks(group: &str, plural: &str, name: &str) -> bool {
    if name == count_name(group, plural) {
        return true;
    }
    match (group, plural) {
        ("", "pods") => {
            let bare =
                name.strip_prefix("requests.").or_else(|| name.strip_prefix("limits.")).unwrap_or(name);
            let hugepages = bare.starts_with("hugepages-") && !name.starts_with("limits.");
            name == "pods" || COMPUTE.contains(&bare) || hugepages || is_extended(name)
        }
        ("", "services") => SERVICES.contains(&name),
        ("", "persistentvolumeclaims") => {
            let bare = name.split_once(BY_CLASS).map_or(name, |(_, bare)| bare);
            ["persistentvolumeclaims", "requests.storage"].contains(&bare)
        }
        ("", plain) => PLAIN.contains(&plain) && name == plain,
        _ => false,
    }
}

/// `requests.example.com/gpu`
fn is_extended(name: &str) -> bool {
    let domain =
        name.strip_prefix("requests.").and_then(|name| name.split_once('/')).map(|(domain, _)| domain);
    domain.is_some_and(|domain| domain != "kubernetes.io" && !domain.ends_with(".kubernetes.io"))
}

/// What an object uses.
pub fn usage(group: &str, plural: &str, object: &Value) -> Amounts {
    let mut used = Amounts::from([(count_name(group, plural), one())]);
    match (group, plural) {
        ("", "pods") if !has_ended(object) => of_pod(object, &mut used),
        ("", "services") => of_service(object, &mut used),
        ("", "persistentvolumeclaims") => of_claim(object, &mut used),
        ("", plain) if PLAIN.contains(&plain) => {
            used.insert(plain.to_string(), one());
        }
        _ => {}
    }
    used
}

fn has_ended(pod: &Value) -> bool {
    pod.dig(&["status", "phase"]).is_some_and(|phase| phase == "Succeeded" || phase == "Failed")
}

fn one() -> Quantity {
    Quantity::new(1, Format::DecimalSi)
}

fn of_pod(pod: &Value, used: &mut Amounts) {
    let spec = pod.get("spec").unwrap_or(&Value::Null);
    used.extend(compute(&pod_amounts(spec, "requests", true), &pod_amounts(spec, "limits", true)));
    used.insert("pods".to_string(), one());
}

/// Requests and limits under the names that quotas have for them.
fn compute(requests: &Amounts, limits: &Amounts) -> Amounts {
    let mut used = Amounts::new();
    for (name, amount) in requests {
        if COMPUTE.contains(&name.as_str()) || name.starts_with("hugepages-") {
            used.insert(name.clone(), *amount);
            used.insert(format!("requests.{name}"), *amount);
        } else if is_extended(&format!("requests.{name}")) {
            used.insert(format!("requests.{name}"), *amount);
        }
    }
    for (name, amount) in limits.iter().filter(|(name, _)| COMPUTE.contains(&name.as_str())) {
        used.insert(format!("limits.{name}"), *amount);
    }
    used
}

fn of_service(service: &Value, used: &mut Amounts) {
    let spec = service.get("spec").unwrap_or(&Value::Null);
    let ports = spec.items("ports");
    let is_balanced = spec.text("type") == "LoadBalancer";
    let node_ports = match spec.text("type") {
        "LoadBalancer"
            if spec.at("allocateLoadBalancerNodePorts").is_some_and(|allocates| allocates == false) =>
        {
            ports.iter().filter(|port| port.int("nodePort").is_some_and(|port| port != 0)).count()
        }
        "NodePort" | "LoadBalancer" => ports.len(),
        _ => 0,
    };
    for (name, count) in SERVICES.into_iter().zip([1, usize::from(is_balanced), node_ports]) {
        used.insert(
            name.to_string(),
            Quantity::new(i64::try_from(count).unwrap_or(i64::MAX), Format::DecimalSi),
        );
    }
}

fn of_claim(claim: &Value, used: &mut Amounts) {
    let spec = claim.get("spec").unwrap_or(&Value::Null);
    let read = |value: Option<&Value>| value.and_then(|value| Quantity::from_json(value).ok());
    let asked = read(spec.dig(&["resources", "requests", "storage"]));
    let allocated = read(claim.dig(&["status", "allocatedResources", "storage"]));
    let storage = asked.map(|asked| allocated.map_or(asked, |allocated| allocated.max(asked)));
    let class = match claim.dig(&["metadata", "annotations", "volume.beta.kubernetes.io/storage-class"]) {
        Some(class) => class.as_str().unwrap_or_default(),
        None => spec.text("storageClassName"),
    };
    let amounts = [("persistentvolumeclaims", Some(one())), ("requests.storage", storage)];
    for (name, amount) in amounts.into_iter().filter_map(|(name, amount)| Some((name, amount?))) {
        used.insert(name.to_string(), amount);
        if !class.is_empty() {
            used.insert(format!("{class}{BY_CLASS}{name}"), amount);
        }
    }
}

/// What a pod needs as a whole: its containers and sidecars together, or the most that an init container needs beside the
/// sidecars started before it. What the pod says for itself takes precedence.
pub fn pod_amounts(spec: &Value, field: &str, with_overhead: bool) -> Amounts {
    let of = |container: &Value| amounts(container.dig(&["resources", field]));
    let (mut total, mut sidecars, mut most) = (Amounts::new(), Amounts::new(), Amounts::new());
    spec.items("containers").iter().for_each(|container| add(&mut total, &of(container)));
    for container in spec.items("initContainers") {
        let own = of(container);
        let mut then = sidecars.clone();
        add(&mut then, &own);
        if container.text("restartPolicy") == "Always" {
            add(&mut total, &own);
            sidecars = then.clone();
        }
        raise(&mut most, &then);
    }
    raise(&mut total, &most);
    for (name, amount) in amounts(spec.dig(&["resources", field])) {
        total.insert(name, amount);
    }
    if with_overhead {
        let overhead = amounts(spec.at("overhead"));
        // A limit that is not there is no limit, whatever the overhead.
        let counts = |name: &String| field == "requests" || total.contains_key(name);
        let overhead: Amounts = overhead.into_iter().filter(|(name, _)| counts(name)).collect();
        add(&mut total, &overhead);
    }
    total
}

/// A map of quantities.
pub fn amounts(map: Option<&Value>) -> Amounts {
    let map = map.and_then(Value::as_object).into_iter().flatten();
    map.filter_map(|(name, value)| Some((name.clone(), Quantity::from_json(value).ok()?))).collect()
}

/// Adds amounts to others.
pub fn add(total: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let sum = total.get(name).map_or(*amount, |so_far| *so_far + *amount);
        total.insert(name.clone(), sum);
    }
}

fn raise(total: &mut Amounts, least: &Amounts) {
    for (name, amount) in least {
        let most = total.get(name).map_or(*amount, |so_far| (*so_far).max(*amount));
        total.insert(name.clone(), most);
    }
}

/// What containers of a pod must say because the quota limits it, and do not, in upstream's words.
pub fn unsaid<'a>(pod: &Value, limited: impl Iterator<Item = &'a str>) -> Option<String> {
    let spec = pod.get("spec").unwrap_or(&Value::Null);
    let of_pod = spec.get("resources").unwrap_or(&Value::Null);
    if ["requests", "limits"].iter().any(|field| !amounts(of_pod.at(field)).is_empty()) {
        return None;
    }
    let is_demanded = |name: &&str| {
        let bare = name.strip_prefix("requests.").or_else(|| name.strip_prefix("limits.")).unwrap_or(name);
        ["cpu", "memory"].contains(&bare)
    };
    let demanded: BTreeSet<&str> = limited.filter(is_demanded).collect();
    let containers = || spec.items("containers").iter().chain(spec.items("initContainers"));
    let lacks = |container: &&Value, name: &str| {
        let of = |field| amounts(container.dig(&["resources", field]));
        !compute(&of("requests"), &of("limits")).contains_key(name)
    };
    let lines = demanded.into_iter().filter_map(|name| {
        let mut names: Vec<&str> =
            containers().filter(|container| lacks(container, name)).map(|c| c.text("name")).collect();
        names.sort_unstable();
        (!names.is_empty()).then(|| format!("{name} for: {}", names.join(",")))
    });
    let lines: Vec<String> = lines.collect();
    (!lines.is_empty()).then(|| format!("must specify {}", lines.join("; ")))
}

/// Whether a quota's scopes cover an object. A quota without scopes covers everything.
pub fn covers(quota: &Value, group: &str, plural: &str, object: &Value) -> bool {
    let spec = quota.get("spec").unwrap_or(&Value::Null);
    let plain = spec.items("scopes").iter().filter_map(Value::as_str).map(|scope| (scope, "Exists", &[][..]));
    let selector = spec.get("scopeSelector").unwrap_or(&Value::Null);
    let chosen = selector.items("matchExpressions").iter();
    let chosen = chosen.map(|one| (one.text("scopeName"), one.text("operator"), one.items("values")));
    plain.chain(chosen).all(|(scope, operator, values)| match (group, plural, scope) {
        ("", "pods", "Terminating") => is_bounded(object),
        ("", "pods", "NotTerminating") => !is_bounded(object),
        ("", "pods", "BestEffort") => is_best_effort(object),
        ("", "pods", "NotBestEffort") => !is_best_effort(object),
        ("", "pods", "CrossNamespacePodAffinity") => looks_elsewhere(object),
        ("", "pods", "PriorityClass") => selects(object, "priorityClassName", operator, values),
        ("", "persistentvolumeclaims", "VolumeAttributesClass") => {
            selects(object, "volumeAttributesClassName", operator, values)
        }
        _ => false,
    })
}

fn is_bounded(pod: &Value) -> bool {
    pod.dig(&["spec", "activeDeadlineSeconds"]).is_some()
}

fn is_best_effort(pod: &Value) -> bool {
    pod.dig(&["status", "qosClass"]).is_some_and(|class| class == "BestEffort")
}

fn looks_elsewhere(pod: &Value) -> bool {
    let affinity = |kind: &str| pod.dig(&["spec", "affinity", kind]).cloned().unwrap_or_default();
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let affinity = affinity(kind);
        let required = affinity.items("requiredDuringSchedulingIgnoredDuringExecution").iter();
        let preferred = affinity.items("preferredDuringSchedulingIgnoredDuringExecution").iter();
        let mut terms = required.chain(preferred.filter_map(|weighted| weighted.at("podAffinityTerm")));
        terms.any(|term| !term.items("namespaces").is_empty() || term.at("namespaceSelector").is_some())
    })
}

fn selects(object: &Value, field: &str, operator: &str, values: &[Value]) -> bool {
    let name = object.at("spec").map(|spec| spec.text(field)).unwrap_or_default();
    let labels: BTreeMap<String, String> =
        (!name.is_empty()).then(|| ("class".to_string(), name.to_string())).into_iter().collect();
    let operator = match operator {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "DoesNotExist" => Operator::DoesNotExist,
        _ => Operator::Exists,
    };
    let values = values.iter().filter_map(|value| value.as_str().map(str::to_string)).collect();
    Requirement::new("class", operator, values).is_ok_and(|requirement| requirement.matches(&labels))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(amounts: &Amounts) -> String {
        let all: Vec<String> = amounts.iter().map(|(name, amount)| format!("{name}={amount}")).collect();
        all.join(" ")
    }

    #[test]
    fn every_kind_is_counted_under_the_names_that_quotas_know() {
        let of = |group: &str, plural: &str, object: Value| shown(&usage(group, plural, &object));
        let container = json!({"resources": {"requests": {"cpu": "100m", "example.com/gpu": 2}, "limits": {"memory": "1Gi"}}});
        let pod = json!({"spec": {"containers": [container], "overhead": {"memory": "1Mi", "cpu": "5m"}}});
        assert_eq!(
            of("", "pods", pod.clone()),
            "count/pods=1 cpu=105m limits.memory=1025Mi memory=1Mi pods=1 requests.cpu=105m requests.example.com/gpu=2 requests.memory=1Mi"
        );
        let mut done = pod;
        done["status"] = json!({"phase": "Succeeded"});
        assert_eq!(of("", "pods", done), "count/pods=1");
        assert_eq!(of("", "secrets", json!({})), "count/secrets=1 secrets=1");
        assert_eq!(of("apps", "deployments", json!({})), "count/deployments.apps=1");
        let service = json!({"spec": {"type": "LoadBalancer", "ports": [{}, {"nodePort": 30000}]}});
        assert_eq!(
            of("", "services", service.clone()),
            "count/services=1 services=1 services.loadbalancers=1 services.nodeports=2"
        );
        let mut sparing = service;
        sparing["spec"]["allocateLoadBalancerNodePorts"] = false.into();
        assert!(of("", "services", sparing).ends_with("services.nodeports=1"));
        let claim =
            json!({"spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "2Gi"}}}});
        assert_eq!(
            of("", "persistentvolumeclaims", claim),
            "count/persistentvolumeclaims=1 fast.storageclass.storage.k8s.io/persistentvolumeclaims=1 fast.storageclass.storage.k8s.io/requests.storage=2Gi persistentvolumeclaims=1 requests.storage=2Gi"
        );
    }

    #[test]
    fn what_an_object_uses_is_tracked() {
        let pod = json!({"spec": {"containers": [{"resources": {"requests": {"cpu": 1, "memory": 1, "hugepages-2Mi": 1, "a.io/b": 1}, "limits": {"cpu": 1, "ephemeral-storage": 1}}}]}});
        for (group, plural, object) in [
            ("", "pods", pod),
            ("", "services", json!({})),
            ("", "configmaps", json!({})),
            ("a.io", "b", json!({})),
        ] {
            for name in usage(group, plural, &object).keys() {
                assert!(tracks(group, plural, name), "{plural}: {name}");
            }
        }
        assert!(
            !tracks("", "pods", "services")
                && !tracks("", "services", "cpu")
                && !tracks("apps", "pods", "pods")
        );
    }

    #[test]
    fn sidecars_count_beside_containers_and_beside_later_init_containers() {
        let with = |cpu: &str, policy: &str| json!({"resources": {"requests": {"cpu": cpu}}, "restartPolicy": policy});
        let spec = json!({"containers": [with("200m", "")],
            "initContainers": [with("350m", ""), with("100m", "Always"), with("300m", "")]});
        assert_eq!(shown(&pod_amounts(&spec, "requests", true)), "cpu=400m");
        let small = json!({"containers": [with("1", "")], "initContainers": [with("700m", "")]});
        assert_eq!(shown(&pod_amounts(&small, "requests", true)), "cpu=1");
        let whole = json!({"containers": [with("1", "")], "resources": {"requests": {"cpu": "3"}}});
        assert_eq!(shown(&pod_amounts(&whole, "requests", true)), "cpu=3");
    }

    #[test]
    fn containers_say_what_is_limited() {
        let pod = json!({"spec": {"containers": [{"name": "b"}, {"name": "a", "resources": {"limits": {"memory": "1"}}}]}});
        let told = |names: &[&str]| unsaid(&pod, names.iter().copied());
        assert_eq!(
            told(&["pods", "limits.memory", "requests.cpu"]).unwrap(),
            "must specify limits.memory for: b; requests.cpu for: a,b"
        );
        assert_eq!(told(&["requests.ephemeral-storage"]), None);
    }

    #[test]
    fn scopes_choose_pods() {
        let pod = json!({"spec": {"activeDeadlineSeconds": 5, "priorityClassName": "high"}, "status": {"qosClass": "BestEffort"}});
        let covered = |spec: Value| covers(&json!({"spec": spec}), "", "pods", &pod);
        let by_class = |operator: &str, values: Value| {
            covered(
                json!({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": operator, "values": values}]}}),
            )
        };
        assert!(covered(json!({})) && covered(json!({"scopes": ["Terminating", "BestEffort"]})));
        assert!(
            !covered(json!({"scopes": ["NotTerminating"]}))
                && !covered(json!({"scopes": ["CrossNamespacePodAffinity"]}))
        );
        assert!(
            by_class("In", json!(["high"]))
                && by_class("Exists", json!([]))
                && !by_class("NotIn", json!(["high"]))
        );
        assert!(!covers(&json!({"spec": {"scopes": ["BestEffort"]}}), "", "services", &json!({})));
    }
}
