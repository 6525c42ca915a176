//! What can be done at which path, independent of the document's version.

use super::definitions::{DELETE_OPTIONS, STATUS, name_of};
use super::parameters::{
    FOR_DELETE, FOR_DELETE_COLLECTION, FOR_LIST, FOR_PATCH, FOR_WRITE, NAME, NAMESPACE, PATH, PRETTY,
    Parameter,
};
use super::root_of;
use crate::schemas;
use crate::{Row, ServedVersion, Subresource, Verb};

/// One path with its operations.
#[derive(Debug)]
pub(super) struct PathItem {
    pub path: String,
    pub parameters: Vec<Parameter>,
    pub operations: Vec<Operation>,
}

/// One operation.
#[derive(Debug)]
pub(super) struct Operation {
    /// `get`, `post`, …
    pub method: &'static str,
    /// `list`, `post`, `connect`, … as the extension has it.
    pub action: &'static str,
    pub id: String,
    pub description: String,
    pub tag: String,
    /// Group, version and kind of the body.
    pub kind: (String, String, String),
    pub parameters: &'static [Parameter],
    pub body: Body,
    /// Status codes with the definitions of their bodies; no name stands for any object or text.
    pub responses: Vec<(&'static str, Option<String>)>,
}

/// What an operation takes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Body {
    Nothing,
    /// An object; no name stands for any.
    Object(Option<String>),
    /// Something that may be left out.
    Optional(String),
    /// A patch, with or without the strategic form.
    Patch {
        strategic: bool,
    },
}

/// The subresources that are streams to somewhere else.
const CONNECTED: [&str; 4] = ["attach", "exec", "portforward", "proxy"];

/// The paths of a row in one version.
pub(super) fn paths(row: &Row, served: &ServedVersion) -> Vec<PathItem> {
    let names = Names { row, served };
    let root = format!("/{}", root_of(served));
    let (below, mut parameters) = if row.is_namespaced() {
        (format!("{root}/namespaces/{{namespace}}/{}", row.plural), vec![NAMESPACE])
    } else {
        (format!("{root}/{}", row.plural), Vec::new())
    };
    parameters.push(PRETTY);
    let mut of_object = vec![NAME];
    of_object.extend(&parameters);

    let mut items = Vec::new();
    let mut push = |path: String, parameters: &[Parameter], operations: Vec<Operation>| {
        if !operations.is_empty() {
            items.push(PathItem { path, parameters: parameters.to_vec(), operations });
        }
    };
    if row.is_namespaced() && row.can(Verb::List) {
        push(format!("{root}/{}", row.plural), &[PRETTY], vec![names.list(true)]);
    }
    let collection = [Verb::List, Verb::Create, Verb::DeleteCollection];
    push(below.clone(), &parameters, names.object(&collection));
    let object = [Verb::Get, Verb::Update, Verb::Patch, Verb::Delete];
    push(format!("{below}/{{name}}"), &of_object, names.object(&object));
    for subresource in &row.subresources {
        let path = format!("{below}/{{name}}/{}", subresource.name);
        push(path.clone(), &of_object, names.subresource(subresource));
        if subresource.name == "proxy" {
            let mut parameters = vec![PATH];
            parameters.extend(&of_object);
            let operations = names.subresource(subresource).into_iter();
            let operations = operations
                .map(|operation| Operation { id: format!("{}WithPath", operation.id), ..operation });
            push(format!("{path}/{{path}}"), &parameters, operations.collect());
        }
    }
    items
}

struct Names<'a> {
    row: &'a Row,
    served: &'a ServedVersion,
}

impl Names<'_> {
    fn object(&self, verbs: &[Verb]) -> Vec<Operation> {
        verbs.iter().filter(|verb| self.row.can(**verb)).map(|verb| self.operation(*verb)).collect()
    }

    fn operation(&self, verb: Verb) -> Operation {
        let own = name_of(self.row, self.served);
        let kind = &self.row.kind;
        let strategic = self.row.custom.is_none();
        let status = Some(STATUS.to_string());
        let options = Body::Optional(DELETE_OPTIONS.to_string());
        match verb {
            Verb::List | Verb::Watch => self.list(false),
            Verb::Create => self
                .make("post", "post", self.id("create", kind), format!("create a {kind}"))
                .with(FOR_WRITE, Body::Object(own.clone()), &["200", "201", "202"], own),
            Verb::DeleteCollection => {
                let id = self.id("delete", &format!("Collection{}", self.scoped(kind)));
                self.make_raw("delete", "deletecollection", id, format!("delete collection of {kind}")).with(
                    FOR_DELETE_COLLECTION,
                    options,
                    &["200"],
                    status,
                )
            }
            Verb::Get => self
                .make("get", "get", self.id("read", kind), format!("read the specified {kind}"))
                .with(&[], Body::Nothing, &["200"], own),
            Verb::Update => self
                .make("put", "put", self.id("replace", kind), format!("replace the specified {kind}"))
                .with(FOR_WRITE, Body::Object(own.clone()), &["200", "201"], own),
            Verb::Patch => {
                let about = format!("partially update the specified {kind}");
                self.make("patch", "patch", self.id("patch", kind), about).with(
                    FOR_PATCH,
                    Body::Patch { strategic },
                    &["200", "201"],
                    own,
                )
            }
            Verb::Delete => self
                .make("delete", "delete", self.id("delete", kind), format!("delete a {kind}"))
                .with(FOR_DELETE, options, &["200", "202"], status),
        }
    }

    fn list(&self, everywhere: bool) -> Operation {
        let kind = &self.row.kind;
        let id = if everywhere {
            self.id_raw("list", &format!("{kind}ForAllNamespaces"))
        } else {
            self.id("list", kind)
        };
        let item = name_of(self.row, self.served);
        let list = item.map(|item| {
            format!("{}{}", item.strip_suffix(kind.as_str()).unwrap_or(&item), self.row.list_kind)
        });
        self.make_raw("get", "list", id, format!("list or watch objects of kind {kind}")).with(
            FOR_LIST,
            Body::Nothing,
            &["200"],
            list,
        )
    }

    fn subresource(&self, subresource: &Subresource) -> Vec<Operation> {
        let body = subresource.body;
        let definition = match body {
            Some((group, version, kind)) => schemas::definition_name(group, version, kind),
            None => name_of(self.row, self.served),
        };
        let connects = CONNECTED.contains(&subresource.name);
        let name = camel(subresource.name);
        let kind = format!("{}{name}", self.row.kind);
        let about = |verb: &str| format!("{verb} {} of the specified {}", subresource.name, self.row.kind);
        let strategic = self.row.custom.is_none();
        let operation = |verb: &Verb| {
            let method = method(*verb);
            let mut operation = if connects {
                let id = self.id(&format!("connect{}", camel(method)), &kind);
                self.make(method, "connect", id, about("connect to")).with(&[], Body::Nothing, &["200"], None)
            } else {
                let own = definition.clone();
                match verb {
                    Verb::Create => self
                        .make("post", "post", self.id("create", &kind), about("create"))
                        .with(FOR_WRITE, Body::Object(own.clone()), &["200", "201", "202"], own),
                    Verb::Update => self
                        .make("put", "put", self.id("replace", &kind), about("replace"))
                        .with(FOR_WRITE, Body::Object(own.clone()), &["200", "201"], own),
                    Verb::Patch => self
                        .make("patch", "patch", self.id("patch", &kind), about("partially update"))
                        .with(FOR_PATCH, Body::Patch { strategic }, &["200", "201"], own),
                    _ => self.make("get", "get", self.id("read", &kind), about("read")).with(
                        &[],
                        Body::Nothing,
                        &["200"],
                        own.filter(|_| subresource.name != "log"),
                    ),
                }
            };
            if let Some((group, version, kind)) = body {
                operation.kind = (group.to_string(), version.to_string(), kind.to_string());
            }
            operation
        };
        subresource.verbs.iter().map(operation).collect()
    }

    fn make(&self, method: &'static str, action: &'static str, id: String, about: String) -> Operation {
        self.make_raw(method, action, id, about)
    }

    fn make_raw(
        &self,
        method: &'static str,
        action: &'static str,
        id: String,
        description: String,
    ) -> Operation {
        Operation {
            method,
            action,
            id,
            description,
            tag: format!("{}_{}", lower_first(&group_name(&self.served.group)), self.served.version),
            kind: (self.served.group.clone(), self.served.version.clone(), self.row.kind.clone()),
            parameters: &[],
            body: Body::Nothing,
            responses: Vec::new(),
        }
    }

    /// `createAppsV1NamespacedDeployment`
    fn id(&self, verb: &str, kind: &str) -> String {
        let kind = if kind.starts_with("Collection") { kind.to_string() } else { self.scoped(kind) };
        self.id_raw(verb, &kind)
    }

    fn id_raw(&self, verb: &str, what: &str) -> String {
        format!("{verb}{}{}{what}", group_name(&self.served.group), camel(&self.served.version))
    }

    fn scoped(&self, kind: &str) -> String {
        if self.row.is_namespaced() { format!("Namespaced{kind}") } else { kind.to_string() }
    }
}

impl Operation {
    fn with(
        mut self,
        parameters: &'static [Parameter],
        body: Body,
        codes: &[&'static str],
        answer: Option<String>,
    ) -> Self {
        self.parameters = parameters;
        self.body = body;
        self.responses = codes.iter().map(|code| (*code, answer.clone())).collect();
        self
    }
}

fn method(verb: Verb) -> &'static str {
    match verb {
        Verb::Create => "post",
        Verb::Update => "put",
        Verb::Patch => "patch",
        Verb::Delete | Verb::DeleteCollection => "delete",
        Verb::Get | Verb::List | Verb::Watch => "get",
    }
}

/// `Core`, `Apps`, `RbacAuthorization`, `StableExampleCom`
fn group_name(group: &str) -> String {
    if group.is_empty() {
        return "Core".to_string();
    }
    group.strip_suffix(".k8s.io").unwrap_or(group).split(['.', '-']).map(camel).collect()
}

fn camel(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect()
}

fn lower_first(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_ascii_lowercase()).into_iter().chain(letters).collect()
}
