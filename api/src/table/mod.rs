//! The resource table: which kinds there are, and how to find them.
//!
//! A table is a value. Adding or removing a row (a CustomResourceDefinition came or went) makes a new table that
//! shares all other rows; whoever serves requests swaps the one for the other and never locks.

mod built_in;
pub mod discovery;

use std::{collections::HashMap, sync::Arc};

use crate::Row;

/// All kinds. Cloning copies pointers only.
#[derive(Clone, Debug)]
pub struct ResourceTable {
    rows: Vec<Arc<Row>>,
    by_plural: HashMap<String, Vec<Arc<Row>>>,
    by_kind: HashMap<String, Vec<Arc<Row>>>,
}

impl ResourceTable {
    /// The kinds that are always there, in the order in which discovery shows their groups.
    pub fn built_in() -> Self {
        Self::from_rows(built_in::rows().into_iter().map(Arc::new).collect())
    }

    /// A table of these rows.
    pub fn from_rows(rows: Vec<Arc<Row>>) -> Self {
        let mut by_plural: HashMap<String, Vec<Arc<Row>>> = HashMap::new();
        let mut by_kind: HashMap<String, Vec<Arc<Row>>> = HashMap::new();
        for row in &rows {
            by_plural.entry(row.plural.clone()).or_default().push(row.clone());
            by_kind.entry(row.kind.clone()).or_default().push(row.clone());
        }
        Self { rows, by_plural, by_kind }
    }

    /// Every row; the rows of a group stand together.
    pub fn rows(&self) -> &[Arc<Row>] {
        &self.rows
    }

    /// The row that serves `/apis/<group>/<version>/…/<plural>`.
    pub fn resource(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Row>> {
        self.by_plural.get(plural)?.iter().find(|row| row.serves(group, version))
    }

    /// The row of an object with this `apiVersion` and `kind`.
    pub fn kind(&self, group: &str, version: &str, kind: &str) -> Option<&Arc<Row>> {
        self.by_kind.get(kind)?.iter().find(|row| row.serves(group, version))
    }

    /// The row that serves the plural in any version of the group.
    pub fn group_resource(&self, group: &str, plural: &str) -> Option<&Arc<Row>> {
        self.by_plural.get(plural)?.iter().find(|row| row.served.iter().any(|s| s.group == group))
    }

    /// What a user means by a plural, singular or short name, or `name.group`: the first row that answers to it.
    pub fn named(&self, name: &str) -> Option<&Arc<Row>> {
        let (resource, group) = match name.split_once('.') {
            Some((resource, group)) => (resource, Some(group)),
            None => (name, None),
        };
        let resource = resource.to_lowercase();
        let in_group = |row: &&Arc<Row>| group.is_none_or(|g| row.served.iter().any(|s| s.group == g));
        let full = |row: &&Arc<Row>| row.plural == resource || row.singular == resource;
        let candidates = || self.rows.iter().filter(in_group);
        candidates().find(full).or_else(|| candidates().find(|row| row.short_names.contains(&resource)))
    }

    /// The rows of a category such as `all`.
    pub fn category<'a>(&'a self, category: &'a str) -> impl Iterator<Item = &'a Arc<Row>> {
        self.rows.iter().filter(move |row| row.categories.iter().any(|c| c == category))
    }

    /// Every group, in the order of discovery.
    pub fn groups(&self) -> Vec<&str> {
        let mut groups: Vec<&str> = Vec::new();
        for served in self.rows.iter().flat_map(|row| &row.served) {
            if !groups.contains(&served.group.as_str()) {
                groups.push(&served.group);
            }
        }
        groups
    }

    /// The versions of a group, the preferred one first: stable before beta before alpha, then the highest.
    pub fn versions<'a>(&'a self, group: &str) -> Vec<&'a str> {
        let mut versions: Vec<&str> = Vec::new();
        for served in self.rows.iter().flat_map(|row| &row.served) {
            if served.group == group && !versions.contains(&served.version.as_str()) {
                versions.push(&served.version);
            }
        }
        versions.sort_by_key(|version| version_rank(version));
        versions
    }

    /// This table with a row more; a row of the same group and plural gives way to it.
    #[must_use]
    pub fn with_row(&self, row: Row) -> Self {
        let mut rows = self.without(row.group(), &row.plural);
        let row = Arc::new(row);
        match rows.iter().rposition(|r| r.group() == row.group()) {
            Some(last) => rows.insert(last + 1, row),
            None => rows.push(row),
        }
        Self::from_rows(rows)
    }

    fn without(&self, group: &str, plural: &str) -> Vec<Arc<Row>> {
        self.rows.iter().filter(|r| r.group() != group || r.plural != plural).cloned().collect()
    }
}

/// Orders versions as upstream does: `v2`, `v1`, `v1beta2`, `v1beta1`, `v1alpha1`, then others by name.
fn version_rank(version: &str) -> (u8, i64, i64, String) {
    let unknown = (3, 0, 0, version.to_string());
    let Some(rest) = version.strip_prefix('v') else { return unknown };
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (major, stage) = rest.split_at(digits);
    let Ok(major) = major.parse::<i64>() else { return unknown };
    let (class, minor) = match (stage.strip_prefix("beta"), stage.strip_prefix("alpha")) {
        (Some(minor), _) => (1, minor),
        (_, Some(minor)) => (2, minor),
        _ if stage.is_empty() => return (0, -major, 0, String::new()),
        _ => return unknown,
    };
    minor.parse::<i64>().map_or(unknown, |minor| (class, -major, -minor, String::new()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_should_be_found_by_every_name() {
        let table = ResourceTable::built_in();
        assert_eq!(table.resource("apps", "v1", "deployments").unwrap().kind, "Deployment");
        assert_eq!(table.kind("events.k8s.io", "v1", "Event").unwrap().plural, "events");
        assert!(std::ptr::eq(
            table.resource("", "v1", "events").unwrap().as_ref(),
            table.resource("events.k8s.io", "v1", "events").unwrap().as_ref()
        ));
        for (name, plural) in [("po", "pods"), ("Deployment", "deployments"), ("deploy.apps", "deployments")]
        {
            assert_eq!(table.named(name).unwrap().plural, plural);
        }
        assert!(table.named("deployments.batch").is_none());
        assert!(table.resource("apps", "v1beta1", "deployments").is_none());
        let all: Vec<&str> = table.category("all").map(|row| row.plural.as_str()).collect();
        assert!(
            all.contains(&"pods") && all.contains(&"horizontalpodautoscalers") && !all.contains(&"secrets")
        );
    }

    #[test]
    fn rows_should_come_without_touching_others() {
        let table = ResourceTable::built_in();
        let mut widget = (**table.resource("apps", "v1", "deployments").unwrap()).clone();
        widget.kind = "Widget".into();
        widget.plural = "widgets".into();
        widget.served = vec![crate::ServedVersion::new("example.com", "v1")];
        widget.storage = crate::ServedVersion::new("example.com", "v1");
        let grown = table.with_row(widget.clone()).with_row(widget);
        assert_eq!(grown.rows().len(), table.rows().len() + 1);
        assert!(grown.kind("example.com", "v1", "Widget").is_some());
        assert!(table.kind("example.com", "v1", "Widget").is_none());
    }

    #[test]
    fn versions_should_be_ordered_by_maturity() {
        let mut versions = ["foo1", "v1alpha1", "v1", "v2beta1", "v10", "v1beta2", "v2"];
        versions.sort_by_key(|v| version_rank(v));
        assert_eq!(versions, ["v10", "v2", "v1", "v2beta1", "v1beta2", "v1alpha1", "foo1"]);
        assert_eq!(ResourceTable::built_in().versions("autoscaling"), ["v2", "v1"]);
    }
}
