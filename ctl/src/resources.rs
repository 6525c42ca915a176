//! What kinds the server knows, and which of them a user's word means.

use anyhow::{Context, bail};
use serde_json::Value;

use crate::api::Api;

const AGGREGATED: &str =
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";

/// One kind in one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Empty for core.
    pub group: String,
    /// `v1`
    pub version: String,
    /// `deployments`
    pub plural: String,
    /// `deployment`
    pub singular: String,
    /// `Deployment`
    pub kind: String,
    /// `deploy`
    pub short_names: Vec<String>,
    /// `all`
    pub categories: Vec<String>,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// What can be done with it.
    pub verbs: Vec<String>,
    /// `status`, `scale`, …
    pub subresources: Vec<String>,
}

impl Resource {
    /// `apps/v1`, or `v1` for core.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// The path of the collection, in a namespace where it has one and one is given.
    pub fn collection(&self, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        };
        match namespace.filter(|_| self.namespaced) {
            Some(namespace) => format!("{root}/namespaces/{namespace}/{}", self.plural),
            None => format!("{root}/{}", self.plural),
        }
    }

    /// The path of one object.
    pub fn object(&self, namespace: Option<&str>, name: &str) -> String {
        format!("{}/{name}", self.collection(namespace))
    }

    /// `deployment.apps/web`, as commands report what they did.
    pub fn reported(&self, name: &str) -> String {
        format!("{}/{name}", self.of_group(&self.singular))
    }

    /// `deployments.apps`, as the server speaks of it.
    pub fn qualified(&self) -> String {
        self.of_group(&self.plural)
    }

    fn of_group(&self, name: &str) -> String {
        if self.group.is_empty() { name.to_string() } else { format!("{name}.{}", self.group) }
    }

    /// Whether a user's word means this: plural, singular, short name or kind, optionally with version and group.
    fn is_called(&self, word: &str) -> bool {
        let word = word.to_ascii_lowercase();
        let (name, rest) =
            word.split_once('.').map_or((word.as_str(), None), |(name, rest)| (name, Some(rest)));
        let named = name == self.plural
            || name == self.singular
            || name == self.kind.to_ascii_lowercase()
            || self.short_names.iter().any(|short| short == name);
        let grouped = match rest {
            None => true,
            Some(rest) => {
                rest == self.group
                    || rest == format!("{}.{}", self.version, self.group)
                    || (self.group.is_empty() && rest == self.version)
            }
        };
        named && grouped
    }
}

/// Everything that the server serves, preferred versions first.
#[derive(Default)]
pub struct Resources {
    all: Vec<Resource>,
}

impl Resources {
    /// Asks the server.
    pub async fn discover(api: &Api) -> anyhow::Result<Self> {
        let mut all = Vec::new();
        let (core, named) =
            futures::try_join!(api.get_as("/api", AGGREGATED), api.get_as("/apis", AGGREGATED))?;
        for (path, groups) in [("/api", core), ("/apis", named)] {
            if groups["kind"] != "APIGroupDiscoveryList" {
                bail!(
                    "the server at {path} is older than Kubernetes v1.30; this command line needs a newer one"
                );
            }
            collect(&groups, &mut all);
        }
        Ok(Self { all })
    }

    /// All of them.
    pub fn all(&self) -> &[Resource] {
        &self.all
    }

    /// What a word means: one resource, or several for a category such as `all`.
    pub fn named(&self, word: &str) -> anyhow::Result<Vec<&Resource>> {
        if let Some(found) = self.all.iter().find(|resource| resource.is_called(word)) {
            return Ok(vec![found]);
        }
        let mut in_category: Vec<&Resource> = Vec::new();
        for resource in self.all.iter().filter(|resource| resource.categories.iter().any(|name| name == word))
        {
            let served_already = in_category
                .iter()
                .any(|other| other.plural == resource.plural && other.group == resource.group);
            if !served_already {
                in_category.push(resource);
            }
        }
        if in_category.is_empty() {
            bail!("error: the server doesn't have a resource type \"{word}\"{}", self.suggestion(word));
        }
        Ok(in_category)
    }

    /// The resource of an object's `apiVersion` and `kind`.
    pub fn of_kind(&self, api_version: &str, kind: &str) -> Option<&Resource> {
        self.all.iter().find(|resource| resource.kind == kind && resource.api_version() == api_version)
    }

    /// The same, for an object that must have one.
    pub fn of_object(&self, object: &Value) -> anyhow::Result<&Resource> {
        let api_version = object["apiVersion"].as_str().context("the object has no apiVersion")?;
        let kind = object["kind"].as_str().context("the object has no kind")?;
        self.of_kind(api_version, kind).with_context(|| {
            let elsewhere: Vec<String> =
                self.all.iter().filter(|resource| resource.kind == kind).map(Resource::api_version).collect();
            let hint = if elsewhere.is_empty() {
                "; if a CustomResourceDefinition defines it, apply that first".to_string()
            } else {
                format!("; {kind} is served in {}", elsewhere.join(", "))
            };
            format!("no matches for kind \"{kind}\" in version \"{api_version}\"{hint}")
        })
    }

    fn suggestion(&self, word: &str) -> String {
        // Short words are near to everything.
        let most = if word.len() > 3 { 2 } else { 1 };
        let names = self.all.iter().flat_map(|resource| [&resource.plural, &resource.singular]);
        let near = names
            .map(|name| (distance(name, word), name))
            .filter(|(far, _)| *far <= most)
            .min_by_key(|(far, _)| *far)
            .map(|(_, name)| name);
        near.map(|name| format!("; did you mean {name}?")).unwrap_or_default()
    }
}

fn collect(groups: &Value, into: &mut Vec<Resource>) {
    for group in groups["items"].as_array().into_iter().flatten() {
        let group_name = group["metadata"]["name"].as_str().unwrap_or_default();
        for version in group["versions"].as_array().into_iter().flatten() {
            let version_name = version["version"].as_str().unwrap_or_default();
            for resource in version["resources"].as_array().into_iter().flatten() {
                into.push(one(group_name, version_name, resource));
            }
        }
    }
}

fn one(group: &str, version: &str, resource: &Value) -> Resource {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let list = |value: &Value| value.as_array().into_iter().flatten().map(text).collect();
    let subresources = resource["subresources"].as_array().into_iter().flatten();
    Resource {
        group: group.to_string(),
        version: version.to_string(),
        plural: text(&resource["resource"]),
        singular: text(&resource["singularResource"]),
        kind: text(&resource["responseKind"]["kind"]),
        short_names: list(&resource["shortNames"]),
        categories: list(&resource["categories"]),
        namespaced: resource["scope"] == "Namespaced",
        verbs: list(&resource["verbs"]),
        subresources: subresources.map(|subresource| text(&subresource["subresource"])).collect(),
    }
}

/// How many letters must change to make one word the other.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (index, letter) in one.chars().enumerate() {
        let mut previous = index;
        let mut next = vec![index + 1];
        for (wanted, above) in other.iter().zip(row.iter().skip(1)) {
            let left = next.last().copied().unwrap_or_default();
            let cost = previous + usize::from(letter != *wanted);
            next.push(cost.min(left + 1).min(above + 1));
            previous = *above;
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployments() -> Resource {
        Resource {
            group: "apps".into(),
            version: "v1".into(),
            plural: "deployments".into(),
            singular: "deployment".into(),
            kind: "Deployment".into(),
            short_names: vec!["deploy".into()],
            categories: vec!["all".into()],
            namespaced: true,
            verbs: vec![],
            subresources: vec![],
        }
    }

    #[test]
    fn every_word_that_users_type_means_the_resource() {
        for word in
            ["deploy", "deployment", "Deployments", "deployments.apps", "deployments.v1.apps", "Deployment"]
        {
            assert!(deployments().is_called(word), "{word}");
        }
        assert!(!deployments().is_called("deployments.extensions"));
    }

    #[test]
    fn a_misspelt_word_is_answered_with_the_right_one() {
        let resources = Resources { all: vec![deployments()] };
        assert!(resources.named("deploymnet").unwrap_err().to_string().contains("did you mean deployment"));
        assert_eq!(resources.named("all").unwrap().len(), 1);
    }
}
