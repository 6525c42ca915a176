//! From a definition to the row of its resource.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::field::Look;
use api::names::NameRule;
use api::{
    CustomResource, CustomVersion, PrinterColumn, Row, ScalePaths, Scope, ServedVersion, Subresource, Verb,
};
use schema::{Schema, SchemaError};
use serde_json::Value;

use super::rules::Rules;
use super::strategy::Custom;

const VERBS: [Verb; 8] = [
    Verb::Create,
    Verb::Delete,
    Verb::DeleteCollection,
    Verb::Get,
    Verb::List,
    Verb::Patch,
    Verb::Update,
    Verb::Watch,
];
const VIEW: &[Verb] = &[Verb::Get, Verb::Patch, Verb::Update];
const STATUS: Subresource = Subresource { name: "status", body: None, verbs: VIEW };
const SCALE: Subresource =
    Subresource { name: "scale", body: Some(("autoscaling", "v1", "Scale")), verbs: VIEW };

/// Why a definition makes no row. Its author has to change it.
#[derive(Debug, thiserror::Error)]
pub(super) enum RowError {
    #[error("the schema of version {0} cannot be used: {1}")]
    Schema(String, SchemaError),
    #[error("the definition has no served version that is stored")]
    NoStorage,
}

/// The row of a definition.
pub(super) fn of(definition: &Value) -> Result<Row, RowError> {
    let null = Value::Null;
    let spec = definition.get("spec").unwrap_or(&null);
    let names = spec.get("names").unwrap_or(&null);
    let group = spec.text("group");
    let versions = spec.items("versions");
    let served_version = |v: &Value| ServedVersion::new(group, v.text("name"));
    let storage =
        versions.iter().find(|v| v.flag("storage")).map(served_version).ok_or(RowError::NoStorage)?;
    let mut described = BTreeMap::new();
    for version in versions {
        described.insert(version.text("name").to_string(), version_of(version)?);
    }
    let rules =
        described.get(&storage.version).and_then(|version: &CustomVersion| Rules::of(&version.schema));
    let has =
        |name: &str| versions.iter().any(|v| v.get("subresources").is_some_and(|s| s.at(name).is_some()));
    let mut subresources = Vec::new();
    if has("status") {
        subresources.push(STATUS);
    }
    if has("scale") {
        subresources.push(SCALE);
    }
    let texts =
        |field: &str| names.items(field).iter().filter_map(|v| v.as_str().map(str::to_string)).collect();
    let or = |text: &str, other: String| if text.is_empty() { other } else { text.to_string() };
    let kind = names.text("kind").to_string();
    Ok(Row {
        list_kind: or(names.text("listKind"), format!("{kind}List")),
        plural: names.text("plural").to_string(),
        singular: or(names.text("singular"), kind.to_lowercase()),
        short_names: texts("shortNames"),
        categories: texts("categories"),
        scope: if spec.text("scope") == "Cluster" { Scope::Cluster } else { Scope::Namespaced },
        verbs: VERBS.to_vec(),
        served: served(versions, served_version),
        storage,
        subresources,
        stored: true,
        acted_on: true,
        counts_generation: true,
        created_by_update: false,
        versioned_update: true,
        first_status: None,
        name_rule: NameRule::Subdomain,
        selectable: &[],
        strategy: Arc::new(Custom { has_status: has("status"), rules }),
        custom: Some(Arc::new(CustomResource {
            versions: described,
            revision: definition.pointer("/metadata").map_or(0, revision_of),
            converter: converter_of(spec),
        })),
        kind,
    })
}

fn revision_of(metadata: &Value) -> u64 {
    metadata.text("resourceVersion").parse().unwrap_or(0)
}

fn converter_of(spec: &Value) -> Option<Value> {
    let conversion = spec.get("conversion").filter(|conversion| conversion.text("strategy") == "Webhook")?;
    conversion.get("webhook").cloned()
}

fn served(versions: &[Value], served_version: impl Fn(&Value) -> ServedVersion) -> Vec<ServedVersion> {
    versions.iter().filter(|v| v.flag("served")).map(served_version).collect()
}

fn version_of(version: &Value) -> Result<CustomVersion, RowError> {
    let name = version.text("name");
    let schema = match version.pointer("/schema/openAPIV3Schema") {
        Some(schema) => {
            api::schemas::custom(schema).map_err(|error| RowError::Schema(name.to_string(), error))?
        }
        None => Schema::anything().clone(),
    };
    let columns = version.items("additionalPrinterColumns").iter().map(column).collect();
    let scale = version.pointer("/subresources/scale").map(|scale| ScalePaths {
        spec_replicas: scale.text("specReplicasPath").to_string(),
        status_replicas: scale.text("statusReplicasPath").to_string(),
        label_selector: scale.at("labelSelectorPath").and_then(|p| p.as_str().map(str::to_string)),
    });
    let deprecation_warning = version.flag("deprecated").then(|| {
        let said = version.text("deprecationWarning");
        if said.is_empty() { format!("version {name} is deprecated") } else { said.to_string() }
    });
    let selectable = version.items("selectableFields").iter().map(|field| {
        let path = field.text("jsonPath");
        path.strip_prefix('.').unwrap_or(path).to_string()
    });
    Ok(CustomVersion { schema, columns, selectable: selectable.collect(), scale, deprecation_warning })
}

fn column(column: &Value) -> PrinterColumn {
    PrinterColumn {
        name: column.text("name").to_string(),
        column_type: column.text("type").to_string(),
        format: column.text("format").to_string(),
        description: column.text("description").to_string(),
        priority: column.int("priority").unwrap_or(0),
        json_path: column.text("jsonPath").to_string(),
    }
}
