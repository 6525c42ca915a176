//! What a request is about, read from its method, path and query, before anything else is known.

use api::selector::FieldSelector;
use http::Method;

use super::query::{Query, decode};

/// Verb, resource and object of a request, in the words of authorization.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// Whether the path names a resource (`/api/v1/pods`) rather than something else (`/healthz`).
    pub is_resource: bool,
    /// The decoded path.
    pub path: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`, or the lower-case method where
    /// the path names no resource.
    pub verb: &'static str,
    /// A verb of authorization that is none of the above: `bind`, `approve`, … or what a review asks about.
    pub special_verb: String,
    /// The API group; empty for core.
    pub group: String,
    /// The API version.
    pub version: String,
    /// The namespace, if the path has one.
    pub namespace: String,
    /// The plural name of the resource.
    pub resource: String,
    /// What hangs below the object: `status`, `log`, …
    pub subresource: String,
    /// The object's name, if the path has one.
    pub name: String,
    /// The name that a list or watch is narrowed to by `fieldSelector=metadata.name=…`: it counts for authorization.
    pub selected_name: String,
    /// The node that a list or watch is narrowed to by `fieldSelector=spec.nodeName=…`.
    pub selected_node: String,
    /// What follows a `proxy` subresource, without its leading slash, still encoded.
    pub remainder: String,
}

impl RequestInfo {
    /// Whether the request is for a stream, which lasts as long as both sides like.
    pub fn streams(&self) -> bool {
        self.is_resource
            && matches!(self.subresource.as_str(), "log" | "exec" | "attach" | "portforward" | "proxy")
    }

    /// Reads a request line.
    pub(crate) fn parse(method: &Method, raw_path: &str, query: &Query) -> Self {
        let mut info = Self { path: decode(raw_path, false), verb: plain_verb(method), ..Self::default() };
        let mut parts = raw_path.trim_matches('/').split('/');
        match parts.next() {
            Some("api") => {}
            Some("apis") => match parts.next() {
                Some(group) if !group.is_empty() => info.group = decode(group, false),
                _ => return info,
            },
            _ => return info,
        }
        let Some(version) = parts.next() else { return info };
        info.version = decode(version, false);
        let mut rest: Vec<&str> = parts.collect();
        let legacy_watch = rest.first() == Some(&"watch") && rest.len() > 1;
        if legacy_watch {
            rest.remove(0);
        }
        if rest.first().is_none_or(|first| first.is_empty()) {
            return info;
        }
        info.is_resource = true;
        info.read_resource(&rest);
        info.verb = info.resource_verb(method, query, legacy_watch);
        if matches!(info.verb, "list" | "watch") {
            let selector = FieldSelector::parse(query.get("fieldSelector").unwrap_or_default());
            if let Ok(selector) = selector {
                info.selected_name = selected(&selector, "metadata.name");
                info.selected_node = selected(&selector, "spec.nodeName");
            }
        }
        info
    }

    /// The verb that authorizers look at.
    pub fn authorized_verb(&self) -> &str {
        if self.special_verb.is_empty() { self.verb } else { &self.special_verb }
    }

    /// The name that authorizers look at.
    pub fn authorized_name(&self) -> &str {
        if self.name.is_empty() { &self.selected_name } else { &self.name }
    }

    fn read_resource(&mut self, rest: &[&str]) {
        let (namespace, tail) = match rest {
            ["namespaces", namespace, tail @ ..] if !tail.is_empty() && !is_namespace_subresource(tail) => {
                (decode(namespace, false), tail)
            }
            ["namespaces", name, ..] => (decode(name, false), rest),
            _ => (String::new(), rest),
        };
        self.namespace = namespace;
        let mut tail = tail.iter();
        let mut next = || tail.next().map(|part| decode(part, false)).unwrap_or_default();
        self.resource = next();
        self.name = next();
        self.subresource = next();
        self.remainder = tail.copied().collect::<Vec<_>>().join("/");
    }

    fn resource_verb(&self, method: &Method, query: &Query, legacy_watch: bool) -> &'static str {
        let named = !self.name.is_empty();
        match *method {
            Method::POST => "create",
            Method::GET | Method::HEAD if legacy_watch => "watch",
            Method::GET | Method::HEAD if named && !self.subresource.is_empty() => "get",
            Method::GET | Method::HEAD if query.flag("watch") => "watch",
            Method::GET | Method::HEAD if named => "get",
            Method::GET | Method::HEAD => "list",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE if named => "delete",
            Method::DELETE => "deletecollection",
            _ => plain_verb(method),
        }
    }
}

/// The one value of a field that the field selector leaves over, read as the list itself reads it.
fn selected(selector: &FieldSelector, field: &str) -> String {
    selector.exact(field).unwrap_or_default().to_string()
}

fn is_namespace_subresource(tail: &[&str]) -> bool {
    matches!(tail, ["status" | "finalize"])
}

fn plain_verb(method: &Method) -> &'static str {
    match *method {
        Method::GET => "get",
        Method::HEAD => "head",
        Method::POST => "post",
        Method::PUT => "put",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        Method::OPTIONS => "options",
        _ => "connect",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(method: Method, target: &str) -> RequestInfo {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        RequestInfo::parse(&method, path, &Query::parse(query))
    }

    fn shape(info: &RequestInfo) -> (&str, &str, &str, &str, &str, &str) {
        (info.verb, &info.group, &info.namespace, &info.resource, &info.name, &info.subresource)
    }

    #[test]
    fn paths_should_be_read_as_upstream_reads_them() {
        let table = [
            (Method::GET, "/api/v1/pods", ("list", "", "", "pods", "", "")),
            (Method::GET, "/api/v1/namespaces/a/pods?watch=true", ("watch", "", "a", "pods", "", "")),
            (Method::GET, "/api/v1/namespaces/a/pods/p/log", ("get", "", "a", "pods", "p", "log")),
            (Method::GET, "/api/v1/namespaces", ("list", "", "", "namespaces", "", "")),
            (Method::DELETE, "/api/v1/namespaces/a", ("delete", "", "a", "namespaces", "a", "")),
            (
                Method::PUT,
                "/api/v1/namespaces/a/finalize",
                ("update", "", "a", "namespaces", "a", "finalize"),
            ),
            (
                Method::PATCH,
                "/apis/apps/v1/namespaces/a/deployments/d",
                ("patch", "apps", "a", "deployments", "d", ""),
            ),
            (
                Method::DELETE,
                "/apis/apps/v1/namespaces/a/deployments",
                ("deletecollection", "apps", "a", "deployments", "", ""),
            ),
            (Method::GET, "/api/v1/watch/pods", ("watch", "", "", "pods", "", "")),
        ];
        for (method, target, expected) in table {
            assert_eq!(shape(&parse(method, target)), expected, "{target}");
        }
    }

    #[test]
    fn proxied_paths_should_keep_what_follows() {
        let info = parse(Method::POST, "/api/v1/nodes/n1/proxy/gantry/images?x=1");
        assert_eq!((info.subresource.as_str(), info.remainder.as_str()), ("proxy", "gantry/images"));
        assert_eq!(info.verb, "create");
    }

    #[test]
    fn other_paths_should_name_no_resource() {
        for target in ["/", "/api", "/apis", "/apis/apps", "/apis/apps/v1", "/healthz", "/version"] {
            assert!(!parse(Method::GET, target).is_resource, "{target}");
        }
    }
}
