//! Kinds that extend the API itself.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::common::{spec, spec_mut};
use crate::{
    Strategy, WriteContext,
    at::At,
    field::{Look, Touch},
    names,
};

const APPROVAL: &str = "api-approved.kubernetes.io";

/// What is special about API services.
pub struct ApiService;

impl Strategy for ApiService {
    fn check(&self, object: &At) {
        let spec = object.field("spec");
        let (group, version) = (spec.text("group"), spec.field("version"));
        let name = object.field("metadata.name");
        let required = format!("{}.{group}", version.str());
        if name.str() != required {
            name.invalid_text(format!("must be `spec.version+\".\"+spec.group`: {required:?}"));
        }
        version.name(names::dns1035_label);
        for (field, most) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1000)] {
            spec.field(field).number_within(1..=most, &format!("must be positive and less than {most}"));
        }
    }
}

/// What is special about CustomResourceDefinitions.
pub struct CustomResourceDefinition;

impl Strategy for CustomResourceDefinition {
    fn set_defaults(&self, object: &mut Value) {
        let Some(spec) = spec_mut(object) else { return };
        spec.inside("names", |names| {
            let kind = names.text("kind").to_string();
            if !kind.is_empty() {
                names.default_text("singular", &kind.to_lowercase());
                names.default_text("listKind", &format!("{kind}List"));
            }
        });
        spec.default_to("conversion", json!({"strategy": "None"}));
    }

    fn prepare_for_create(&self, object: &mut Value, _context: &WriteContext) {
        let stored: Vec<Value> = storage_versions(object).collect();
        object.put("status", json!({"storedVersions": stored}));
    }

    fn prepare_for_update(&self, new: &mut Value, _old: &Value, context: &WriteContext) {
        if context.subresource.is_some() {
            return;
        }
        // Objects may be stored in any version that was ever the one for storage.
        let storage = storage_versions(new).next();
        let Some(status) = new.object_mut("status") else { return };
        let mut stored = status.items("storedVersions").to_vec();
        if let Some(storage) = storage
            && !stored.contains(&storage)
        {
            stored.push(storage);
            status.put("storedVersions", stored);
        }
    }

    fn check(&self, object: &At) {
        let spec = object.field("spec");
        let (group, names) = (spec.field("group"), spec.field("names"));
        let name = object.field("metadata.name");
        if name.str() != format!("{}.{}", names.text("plural"), group.str()) {
            name.invalid_text("must be spec.names.plural+\".\"+spec.group");
        }
        group.name(names::dns1123_subdomain);
        if !group.is_empty() && !group.str().contains('.') {
            group.invalid("should be a domain with at least one dot");
        }
        spec.field("scope").among(&["Cluster", "Namespaced"]);
        definition_names(&names);
        definition_versions(&spec.field("versions"));
    }

    fn check_create(&self, object: &At) {
        check_approval(object);
    }

    fn check_update(&self, new: &At, old: &Value, context: &WriteContext) {
        if context.subresource.is_none() {
            let approved = |object: &Value| object.dig(&["metadata", "annotations", APPROVAL]).cloned();
            if approved(new) != approved(old) {
                check_approval(new);
            }
            let (new, old) = (new.field("spec"), spec(old));
            new.fixed(old, &["group", "scope"]);
            new.field("names").fixed(old.get("names").unwrap_or(&Value::Null), &["kind", "plural"]);
        }
    }
}

/// The names of the versions that are marked as the one for storage.
fn storage_versions(object: &Value) -> impl Iterator<Item = Value> {
    let versions = spec(object).items("versions").iter().filter(|version| version.flag("storage"));
    versions.filter_map(|version| version.at("name").cloned())
}

/// Groups of the community need its approval, or a word that they go without.
fn check_approval(definition: &At) {
    let group = spec(definition).text("group");
    let is_below = |domain: &str| group == domain || group.ends_with(&format!(".{domain}"));
    if !is_below("k8s.io") && !is_below("kubernetes.io") {
        return;
    }
    let annotations = definition.field("metadata.annotations");
    let approval = annotations.key(APPROVAL);
    let begin = format!("protected groups must have approval annotation {APPROVAL:?}");
    let end = "see https://github.com/kubernetes/enhancements/pull/1111";
    let is_url = |(scheme, rest): (&str, &str)| !scheme.is_empty() && !rest.is_empty();
    match approval.str() {
        "" => approval.required(&format!("{begin}, {end}")),
        said if said.starts_with("unapproved") || said.split_once("://").is_some_and(is_url) => {}
        _ => {
            let either = "with either a URL or a reason starting with \"unapproved\"";
            approval.invalid(format!("{begin} {either}, {end}"));
        }
    }
}

fn definition_names(described: &At) {
    for field in ["plural", "singular"] {
        described.field(field).name(names::dns1035_label);
    }
    for field in ["kind", "listKind"] {
        described.field(field).name(names::mixed_case_label);
    }
    let list_kind = described.field("listKind");
    if described.text("kind") == list_kind.str() && !list_kind.is_empty() {
        list_kind.invalid("kind and listKind may not be the same");
    }
    for field in ["shortNames", "categories"] {
        described.each(field, |name| name.form(names::dns1035_label));
    }
}

fn definition_versions(versions: &At) {
    let mut seen = BTreeSet::new();
    for version in versions.elements() {
        let name = version.field("name");
        name.form(names::dns1035_label);
        name.unique(&mut seen);
        if version.field("schema.openAPIV3Schema").is_given() {
            super::structural::version(&version);
        } else {
            version.field("schema.openAPIV3Schema").required("schemas are required");
        }
    }
    if versions.list().iter().filter(|version| version.flag("storage")).count() != 1 {
        versions.invalid_value(
            versions.list().to_vec(),
            "must have exactly one version marked as storage version",
        );
    }
}
