//! Kinds that hold data or rules: config maps, secrets, service accounts, namespaces, roles, bindings, volumes and claims.

use serde_json::Value;

use super::page::{Page, or_none, or_unset, since, time};
use super::volumes;
use crate::session::Session;
use crate::tree::{fields, flag, items, joined, labels, listed, plain, rule_kinds, shown, text};

/// Writes a config map.
pub fn config_map(object: &Value, page: &mut Page) {
    page.head(object);
    page.line(0, "\nData\n====");
    for (key, value) in fields(object, "/data") {
        page.line(0, format!("{key}:\n----"));
        page.line(0, plain(value));
        page.line(0, "");
    }
    page.line(0, "\nBinaryData\n====");
    for (key, value) in fields(object, "/binaryData") {
        page.line(0, format!("{key}: {} bytes", decoded_length(value)));
    }
    page.line(0, "");
}

fn decoded_length(value: &Value) -> usize {
    use base64::Engine;
    let engine = base64::engine::general_purpose::STANDARD;
    engine.decode(value.as_str().unwrap_or_default()).map_or(0, |bytes| bytes.len())
}

/// Writes a secret, without what it keeps.
pub fn secret(object: &Value, page: &mut Page) {
    page.head(object);
    page.line(0, format!("\nType:\t{}", text(object, "/type")));
    page.line(0, "\nData\n====");
    for (key, value) in fields(object, "/data") {
        page.line(0, format!("{key}:\t{} bytes", decoded_length(value)));
    }
}

/// Writes a service account.
pub fn service_account(object: &Value, page: &mut Page) {
    page.head(object);
    let names: Vec<String> =
        items(object, "/imagePullSecrets").map(|secret| shown(secret, "/name")).collect();
    page.list("Image pull secrets", names);
}

/// Writes a namespace with its quotas and limits.
pub async fn namespace(session: &Session, object: &Value, page: &mut Page) {
    let name = text(object, "/metadata/name");
    page.field("Name", name);
    page.marks(object);
    page.field("Status", text(object, "/status/phase"));
    if items(object, "/status/conditions").next().is_some() {
        page.line(0, "Conditions:");
        page.heading(1, "Type\tStatus\tLastTransitionTime\tReason\tMessage");
    }
    for condition in items(object, "/status/conditions") {
        let at = time(text(condition, "/lastTransitionTime"));
        let of = |field: &str| text(condition, field);
        page.line(1, [of("/type"), of("/status"), &at, of("/reason"), of("/message")].join("\t"));
    }
    page.line(0, "");
    let list = |plural: &str| format!("/api/v1/namespaces/{name}/{plural}");
    let quotas = session.api.get(&list("resourcequotas")).await.unwrap_or_default();
    if items(&quotas, "/items").next().is_none() {
        page.line(0, "No resource quota.");
    } else {
        page.line(0, "Resource Quotas");
    }
    for quota in items(&quotas, "/items") {
        page.line(1, format!("Name:\t{}", text(quota, "/metadata/name")));
        amounts(quota, 1, page);
    }
    page.line(0, "");
    let limits = session.api.get(&list("limitranges")).await.unwrap_or_default();
    if items(&limits, "/items").next().is_none() {
        page.line(0, "No LimitRange resource.");
        return;
    }
    page.line(0, "Resource Limits");
    page.heading(0, " Type\tResource\tMin\tMax\tDefault Request\tDefault Limit\tMax Limit/Request Ratio");
    for range in items(&limits, "/items") {
        limit_lines(range, page);
    }
}

/// Writes a quota.
pub fn quota(object: &Value, page: &mut Page) {
    page.named(object);
    amounts(object, 0, page);
}

fn amounts(quota: &Value, depth: usize, page: &mut Page) {
    page.line(depth, "Resource\tUsed\tHard");
    page.line(depth, if depth == 0 { "--------\t----\t----" } else { "--------\t---\t---" });
    for (resource, hard) in fields(quota, "/status/hard") {
        let used = plain(&quota["status"]["used"][resource]);
        page.line(
            depth,
            format!("{resource}\t{}\t{}", if used.is_empty() { "0" } else { &used }, plain(hard)),
        );
    }
}

/// Writes a range of limits.
pub fn limit_range(object: &Value, page: &mut Page) {
    page.named(object);
    page.heading(0, "Type\tResource\tMin\tMax\tDefault Request\tDefault Limit\tMax Limit/Request Ratio");
    limit_lines(object, page);
}

fn limit_lines(range: &Value, page: &mut Page) {
    let columns = ["min", "max", "defaultRequest", "default", "maxLimitRequestRatio"];
    for limit in items(range, "/spec/limits") {
        let mut resources: Vec<&str> = columns
            .iter()
            .flat_map(|column| fields(limit, &format!("/{column}")))
            .map(|(name, _)| name)
            .collect();
        resources.sort_unstable();
        resources.dedup();
        for resource in resources {
            let cells = columns.map(|column| {
                let value = plain(&limit[column][resource]);
                if value.is_empty() { "-".to_string() } else { value }
            });
            page.line(0, format!("{}\t{resource}\t{}", text(limit, "/type"), cells.join("\t")));
        }
    }
}

/// Writes a role or a cluster role.
pub fn role(object: &Value, page: &mut Page) {
    page.field("Name", text(object, "/metadata/name"));
    page.marks(object);
    page.line(0, "PolicyRule:");
    page.heading(1, "Resources\tNon-Resource URLs\tResource Names\tVerbs");
    let mut lines = Vec::new();
    for rule in items(object, "/rules") {
        let verbs = listed(rule, "/verbs");
        let rest =
            [listed(rule, "/nonResourceURLs"), listed(rule, "/resourceNames"), verbs.clone()].join("\t");
        let kinds = rule_kinds(rule);
        if kinds.is_empty() {
            lines.push((verbs.clone(), String::new(), String::new(), format!("\t{rest}")));
        }
        for (group, kind, name) in kinds {
            // The order of the original: that of the rules written out.
            lines.push((verbs.clone(), format!("[{group}]"), format!("[{kind}]"), format!("{name}\t{rest}")));
        }
    }
    lines.sort();
    for (.., line) in lines {
        page.line(1, line);
    }
}

/// Writes a priority class.
pub fn priority_class(object: &Value, page: &mut Page) {
    page.field("Name", text(object, "/metadata/name"));
    page.field("Value", shown(object, "/value"));
    page.field("GlobalDefault", flag(object, "/globalDefault").to_string());
    page.field_if("PreemptionPolicy", text(object, "/preemptionPolicy"));
    page.field("Description", text(object, "/description"));
    page.annotations("Annotations", object, "/metadata/annotations");
}

/// Writes a storage class.
pub fn storage_class(object: &Value, page: &mut Page) {
    let annotation = "/metadata/annotations/storageclass.kubernetes.io~1is-default-class";
    page.field("Name", text(object, "/metadata/name"));
    page.field("IsDefaultClass", if text(object, annotation) == "true" { "Yes" } else { "No" });
    page.annotations("Annotations", object, "/metadata/annotations");
    page.field("Provisioner", text(object, "/provisioner"));
    let parameters = labels(object, "/parameters");
    page.field("Parameters", parameters);
    page.field("AllowVolumeExpansion", or_unset(&shown(object, "/allowVolumeExpansion")));
    page.field("MountOptions", or_none(&joined(object, "/mountOptions", ",")));
    page.field("ReclaimPolicy", text(object, "/reclaimPolicy"));
    page.field("VolumeBindingMode", text(object, "/volumeBindingMode"));
}

/// Writes a role binding or a cluster role binding.
pub fn binding(object: &Value, page: &mut Page) {
    page.field("Name", text(object, "/metadata/name"));
    page.marks(object);
    page.line(0, "Role:");
    page.line(1, format!("Kind:\t{}", text(object, "/roleRef/kind")));
    page.line(1, format!("Name:\t{}", text(object, "/roleRef/name")));
    page.line(0, "Subjects:");
    page.heading(1, "Kind\tName\tNamespace");
    for subject in items(object, "/subjects") {
        page.line(1, ["/kind", "/name", "/namespace"].map(|field| text(subject, field)).join("\t"));
    }
}

/// Writes a persistent volume.
pub fn volume(object: &Value, page: &mut Page) {
    page.field("Name", text(object, "/metadata/name"));
    page.marks(object);
    page.field("Finalizers", finalizers(object));
    page.field("StorageClass", text(object, "/spec/storageClassName"));
    page.field("Status", phase(object));
    let claim = match text(object, "/spec/claimRef/name") {
        "" => String::new(),
        name => format!("{}/{name}", text(object, "/spec/claimRef/namespace")),
    };
    page.field("Claim", claim);
    page.field("Reclaim Policy", text(object, "/spec/persistentVolumeReclaimPolicy"));
    page.field("Access Modes", access_modes(object, "/spec/accessModes"));
    page.field_if("VolumeMode", text(object, "/spec/volumeMode"));
    page.field("Capacity", shown(object, "/spec/capacity/storage"));
    node_affinity(object, page);
    page.field("Message", text(object, "/status/message"));
    page.line(0, "Source:");
    volumes::source(&object["spec"], page);
}

fn node_affinity(object: &Value, page: &mut Page) {
    let terms: Vec<&Value> = items(object, "/spec/nodeAffinity/required/nodeSelectorTerms").collect();
    if terms.is_empty() {
        page.field("Node Affinity", "<none>");
        return;
    }
    page.line(0, "Node Affinity:");
    page.line(1, "Required Terms:");
    for (index, term) in terms.into_iter().enumerate() {
        let wanted: Vec<String> = items(term, "/matchExpressions")
            .map(|expression| {
                let values: Vec<String> = items(expression, "/values").map(plain).collect();
                let operator = text(expression, "/operator").to_ascii_lowercase();
                format!("{} {operator} [{}]", text(expression, "/key"), values.join(", "))
            })
            .collect();
        page.line(2, format!("Term {index}:\t{}", or_none(&wanted.join("\n\t"))));
    }
}

/// Writes a claim.
pub async fn claim(session: &Session, object: &Value, page: &mut Page) {
    let (name, namespace) = (text(object, "/metadata/name"), text(object, "/metadata/namespace"));
    page.field("Name", name);
    page.field("Namespace", namespace);
    page.field("StorageClass", text(object, "/spec/storageClassName"));
    page.field("Status", phase(object));
    page.field("Volume", text(object, "/spec/volumeName"));
    page.marks(object);
    page.field("Finalizers", finalizers(object));
    let bound = !text(object, "/spec/volumeName").is_empty();
    page.field("Capacity", if bound { shown(object, "/status/capacity/storage") } else { String::new() });
    page.field(
        "Access Modes",
        if bound { access_modes(object, "/status/accessModes") } else { String::new() },
    );
    page.field_if("VolumeMode", text(object, "/spec/volumeMode"));
    let pods = session.api.get(&format!("/api/v1/namespaces/{namespace}/pods")).await.unwrap_or_default();
    let users = items(&pods, "/items").filter(|pod| {
        items(pod, "/spec/volumes").any(|volume| text(volume, "/persistentVolumeClaim/claimName") == name)
    });
    page.list("Used By", users.map(|pod| shown(pod, "/metadata/name")).collect());
}

fn phase(object: &Value) -> String {
    match text(object, "/metadata/deletionTimestamp") {
        "" => text(object, "/status/phase").to_string(),
        moment => format!("Terminating (lasts {})", since(moment)),
    }
}

fn finalizers(object: &Value) -> String {
    listed(object, "/metadata/finalizers")
}

fn access_modes(object: &Value, pointer: &str) -> String {
    let short = |mode: &str| match mode {
        "ReadWriteOnce" => "RWO".to_string(),
        "ReadOnlyMany" => "ROX".to_string(),
        "ReadWriteMany" => "RWX".to_string(),
        "ReadWriteOncePod" => "RWOP".to_string(),
        other => other.to_string(),
    };
    items(object, pointer).filter_map(Value::as_str).map(short).collect::<Vec<_>>().join(",")
}
