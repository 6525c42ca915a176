//! What every verb needs: the server, its kinds and the namespace; and which objects a user's words mean.

use anyhow::bail;
use serde_json::{Value, json};

use crate::api::{Api, Refusal};
use crate::cli::{GlobalOptions, Selection};
use crate::connect::Connection;
use crate::manifest;
use crate::resources::{Resource, Resources};

/// One command's view of the cluster.
pub struct Session {
    /// The server.
    pub api: Api,
    /// How to reach it, for what needs a client of its own.
    pub config: kube::Config,
    /// Its kinds.
    pub resources: Resources,
    /// Where objects without a namespace of their own are looked for.
    pub namespace: String,
    /// Whether the user named a namespace.
    pub namespace_given: bool,
    /// Where the server is, for messages.
    pub server: String,
}

/// One object that a command is about.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its kind.
    pub resource: Resource,
    /// Its namespace, if the kind has them.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

impl Target {
    /// Its path.
    pub fn path(&self) -> String {
        self.resource.object(self.namespace.as_deref(), &self.name)
    }

    /// The server's refusal of an object that is not there.
    pub fn not_found(&self) -> anyhow::Error {
        let message = format!("{} \"{}\" not found", self.resource.qualified(), self.name);
        Refusal { status: json!({"reason": "NotFound", "message": message}), code: 404 }.into()
    }

    /// `deployment.apps/web`
    pub fn reported(&self) -> String {
        self.resource.reported(&self.name)
    }
}

/// What a user's words ask for: single objects, or all of a kind that a selector leaves.
pub enum Asked {
    /// Objects by name.
    Named(Vec<Target>),
    /// Collections, with their query.
    All {
        /// The kinds.
        resources: Vec<Resource>,
        /// `None` is every namespace.
        namespace: Option<String>,
        /// Selectors as a query string, without `?`.
        query: String,
    },
}

impl Session {
    /// Connects, and asks for the kinds if they are needed.
    pub async fn open(options: &GlobalOptions, needs_kinds: bool) -> anyhow::Result<Self> {
        let connection = Connection::open(options).await?;
        let api = Api::new(connection.client, &connection.server);
        let resources = if needs_kinds { Resources::discover(&api).await? } else { Resources::default() };
        Ok(Self {
            api,
            config: connection.config,
            resources,
            namespace: connection.namespace,
            namespace_given: options.namespace.is_some(),
            server: connection.server,
        })
    }

    /// The namespace in which an object of a kind is: its own, else the one of this command.
    pub fn namespace_of(&self, resource: &Resource, object: &Value) -> anyhow::Result<Option<String>> {
        if !resource.namespaced {
            return Ok(None);
        }
        let own = object.pointer("/metadata/namespace").and_then(Value::as_str);
        match own {
            Some(own) if self.namespace_given && own != self.namespace => bail!(
                "error: the namespace from the provided object \"{own}\" does not match the namespace \"{}\". You must pass '--namespace={own}' to perform this operation.",
                self.namespace
            ),
            Some(own) => Ok(Some(own.to_string())),
            None => Ok(Some(self.namespace.clone())),
        }
    }

    /// A target by kind and name.
    pub fn target(&self, word: &str, name: &str) -> anyhow::Result<Target> {
        let resource = self.one_resource(word)?;
        let namespace = resource.namespaced.then(|| self.namespace.clone());
        Ok(Target { resource, namespace, name: name.to_string() })
    }

    /// A kind that must not be a category.
    pub fn one_resource(&self, word: &str) -> anyhow::Result<Resource> {
        match self.resources.named(word)?.as_slice() {
            [one] => Ok((*one).clone()),
            _ => bail!("error: \"{word}\" stands for several kinds; name one"),
        }
    }

    /// What words such as `pods`, `deploy/web`, `pod a b`, `pods,services` or files ask for.
    pub fn asked(&self, words: &[String], selection: &Selection) -> anyhow::Result<Asked> {
        if !selection.filename.is_empty() {
            if !words.is_empty() {
                bail!("error: when files are given, names may not be given as well");
            }
            return self.targets_of_files(selection).map(Asked::Named);
        }
        let Some((first, names)) = words.split_first() else {
            bail!("error: name a kind of object, such as `pods`, or a file with -f");
        };
        if first.contains('/') {
            let targets = words.iter().map(|word| match word.split_once('/') {
                Some((kind, name)) if !name.is_empty() => self.target(kind, name),
                _ => bail!("error: \"{word}\" is not of the form kind/name"),
            });
            return targets.collect::<anyhow::Result<_>>().map(Asked::Named);
        }
        if !names.is_empty() {
            if selection.selector.is_some() {
                bail!("error: name cannot be provided when a selector is specified");
            }
            let each =
                first.split(',').flat_map(|kind| names.iter().map(move |name| self.target(kind, name)));
            return each.collect::<anyhow::Result<_>>().map(Asked::Named);
        }
        let mut resources = Vec::new();
        for word in first.split(',') {
            resources.extend(self.resources.named(word)?.into_iter().cloned());
        }
        let namespace = (!selection.all_namespaces).then(|| self.namespace.clone());
        Ok(Asked::All { resources, namespace, query: selection.query() })
    }

    /// The same as `targets`, for verbs that change things: a kind alone does not mean all of its objects, unless the
    /// user says so.
    pub async fn chosen(
        &self,
        words: &[String],
        selection: &Selection,
        all: bool,
    ) -> anyhow::Result<Vec<Target>> {
        let by_selector = selection.selector.is_some() || selection.field_selector.is_some();
        if !all && !by_selector && matches!(self.asked(words, selection)?, Asked::All { .. }) {
            bail!("error: resource(s) were provided, but no name was specified");
        }
        self.targets(words, selection).await
    }

    /// The single targets of what was asked, with collections listed.
    pub async fn targets(&self, words: &[String], selection: &Selection) -> anyhow::Result<Vec<Target>> {
        let (resources, namespace, query) = match self.asked(words, selection)? {
            Asked::Named(targets) => return Ok(targets),
            Asked::All { resources, namespace, query } => (resources, namespace, query),
        };
        let mut targets = Vec::new();
        for resource in resources {
            let path = with_query(&resource.collection(namespace.as_deref()), &query);
            for object in self.api.get(&path).await?["items"].as_array().into_iter().flatten() {
                let text = |field: &str| object["metadata"][field].as_str().map(str::to_string);
                targets.push(Target {
                    namespace: text("namespace"),
                    name: text("name").unwrap_or_default(),
                    resource: resource.clone(),
                });
            }
        }
        Ok(targets)
    }

    fn targets_of_files(&self, selection: &Selection) -> anyhow::Result<Vec<Target>> {
        let documents = manifest::read_all(&selection.filename, selection.recursive)?;
        let targets = documents.iter().map(|document| {
            let resource = self.resources.of_object(&document.object)?.clone();
            let namespace = self.namespace_of(&resource, &document.object)?;
            let name = document.object.pointer("/metadata/name").and_then(Value::as_str);
            let Some(name) = name else {
                bail!("error: {}: the object has no name", document.place(Some("metadata")))
            };
            Ok(Target { resource, namespace, name: name.to_string() })
        });
        targets.collect()
    }
}

/// A path with a query behind it, if there is one.
pub fn with_query(path: &str, query: &str) -> String {
    if query.is_empty() { path.to_string() } else { format!("{path}?{query}") }
}

/// A value as a query string may hold it.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                escaped.push(char::from(byte))
            }
            other => escaped.push_str(&format!("%{other:02X}")),
        }
    }
    escaped
}
