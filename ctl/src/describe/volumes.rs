//! Volumes of pods and the sources of persistent volumes.

use serde_json::Value;

use super::page::Page;
use crate::tree::{flag, items, number, plain, text};

/// The volumes of a pod or a template.
pub fn write(object: &Value, pointer: &str, indent: &str, page: &mut Page) {
    if items(object, pointer).next().is_none() {
        page.line(0, format!("{indent}Volumes:\t<none>"));
        return;
    }
    page.line(0, format!("{indent}Volumes:"));
    for volume in items(object, pointer) {
        page.line(1, format!("{}{}:", if indent.is_empty() { "" } else { " " }, text(volume, "/name")));
        source(volume, page);
    }
}

/// What a volume is made of.
pub fn source(volume: &Value, page: &mut Page) {
    // A persistent volume's spec has the source beside these.
    let beside = ["capacity", "claimRef", "nodeAffinity"];
    let mut kinds = volume.as_object().into_iter().flatten();
    let found = kinds.find(|(kind, source)| source.is_object() && !beside.contains(&kind.as_str()));
    let Some((kind, source)) = found else {
        page.line(2, "<unknown>");
        return;
    };
    let mut write = |title: &str, value: String| page.line(2, format!("{title}:\t{value}"));
    match kind.as_str() {
        "emptyDir" => {
            write("Type", "EmptyDir (a temporary directory that shares a pod's lifetime)".into());
            write("Medium", text(source, "/medium").into());
            let limit = plain(&source["sizeLimit"]);
            write("SizeLimit", if limit.is_empty() { "<unset>".into() } else { limit });
        }
        "hostPath" => {
            write("Type", "HostPath (bare host directory volume)".into());
            write("Path", text(source, "/path").into());
            // An empty type is a type that was given.
            write("HostPathType", source["type"].as_str().unwrap_or("<none>").into());
        }
        "secret" => {
            write("Type", "Secret (a volume populated by a Secret)".into());
            write("SecretName", text(source, "/secretName").into());
            write("Optional", flag(source, "/optional").to_string());
        }
        "configMap" => {
            write("Type", "ConfigMap (a volume populated by a ConfigMap)".into());
            write("Name", text(source, "/name").into());
            write("Optional", flag(source, "/optional").to_string());
        }
        "projected" => projected(source, page),
        "downwardAPI" => {
            write("Type", "DownwardAPI (a volume populated by information about the pod)".into());
            page.line(2, "Items:");
            for item in items(source, "/items") {
                let from =
                    [text(item, "/fieldRef/fieldPath"), text(item, "/resourceFieldRef/resource")].concat();
                page.line(3, format!("{from} -> {}", text(item, "/path")));
            }
        }
        "persistentVolumeClaim" => {
            write(
                "Type",
                "PersistentVolumeClaim (a reference to a PersistentVolumeClaim in the same namespace)".into(),
            );
            write("ClaimName", text(source, "/claimName").into());
            write("ReadOnly", flag(source, "/readOnly").to_string());
        }
        "nfs" => {
            write("Type", "NFS (an NFS mount that lasts the lifetime of a pod)".into());
            write("Server", text(source, "/server").into());
            write("Path", text(source, "/path").into());
            write("ReadOnly", flag(source, "/readOnly").to_string());
        }
        "local" => {
            write("Type", "LocalVolume (a persistent volume backed by local storage on a node)".into());
            write("Path", text(source, "/path").into());
        }
        "csi" => {
            write("Type", "CSI (a Container Storage Interface (CSI) volume source)".into());
            write("Driver", text(source, "/driver").into());
            write("FSType", text(source, "/fsType").into());
            write("VolumeHandle", text(source, "/volumeHandle").into());
            write("ReadOnly", flag(source, "/readOnly").to_string());
        }
        other => other_kind(other, source, page),
    }
}

fn projected(source: &Value, page: &mut Page) {
    page.line(2, "Type:\tProjected (a volume that contains injected data from multiple sources)");
    for part in items(source, "/sources") {
        if part["secret"].is_object() {
            page.line(2, format!("SecretName:\t{}", text(part, "/secret/name")));
            page.line(2, format!("Optional:\t{}", flag(part, "/secret/optional")));
        } else if part["downwardAPI"].is_object() {
            page.line(2, "DownwardAPI:\ttrue");
        } else if part["configMap"].is_object() {
            page.line(2, format!("ConfigMapName:\t{}", text(part, "/configMap/name")));
            page.line(2, format!("Optional:\t{}", flag(part, "/configMap/optional")));
        } else if part["serviceAccountToken"].is_object() {
            let seconds = number(part, "/serviceAccountToken/expirationSeconds");
            page.line(2, format!("TokenExpirationSeconds:\t{seconds}"));
        }
    }
}

/// A source without words of its own: its fields as they are.
fn other_kind(kind: &str, source: &Value, page: &mut Page) {
    let mut letters = kind.chars();
    let title: String =
        letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect();
    page.line(2, format!("Type:\t{title}"));
    for (field, value) in source.as_object().into_iter().flatten() {
        if !value.is_object() && !value.is_array() {
            page.line(2, format!("{field}:\t{}", plain(value)));
        }
    }
}
