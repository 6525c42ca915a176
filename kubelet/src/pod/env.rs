//! Environment variables: listed ones, whole config maps and secrets, and upstream's variables for services.

use std::collections::{BTreeMap, HashMap};

use k8s_cri::v1::KeyValue;
use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, Pod, Service};

use super::fields::{self, Surroundings};
use super::spec::PodExt;

/// Gives the data of config maps and secrets; None for one that does not exist.
pub trait Lookup {
    /// A config map's data.
    fn config_map(&self, name: &str) -> Option<BTreeMap<String, Vec<u8>>>;
    /// A secret's data.
    fn secret(&self, name: &str) -> Option<BTreeMap<String, Vec<u8>>>;
}

/// A container's environment. The error is upstream's message for `CreateContainerConfigError`.
pub fn build(
    pod: &Pod,
    container: &Container,
    services: &BTreeMap<String, String>,
    around: &Surroundings,
    lookup: &dyn Lookup,
) -> Result<Vec<KeyValue>, String> {
    let mut env = Environment::default();
    env_from(container, lookup, &mut env)?;
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (_, Some(source)) => match value_from(pod, container, source, around, lookup)? {
                Some(value) => value,
                None => continue,
            },
            (Some(value), None) => {
                expand(value, |name| env.get(name).or_else(|| services.get(name)).cloned())
            }
            (None, None) => String::new(),
        };
        env.set(&variable.name, value);
    }
    for (name, value) in services {
        if env.get(name).is_none() {
            env.set(name, value.clone());
        }
    }
    Ok(env.list.into_iter().map(|(key, value)| KeyValue { key, value }).collect())
}

/// Variables in the order they were set first.
#[derive(Default)]
struct Environment {
    list: Vec<(String, String)>,
    index: HashMap<String, usize>,
}

impl Environment {
    fn set(&mut self, name: &str, value: String) {
        match self.index.get(name).and_then(|at| self.list.get_mut(*at)) {
            Some(entry) => entry.1 = value,
            None => {
                self.index.insert(name.to_string(), self.list.len());
                self.list.push((name.to_string(), value));
            }
        }
    }

    fn get(&self, name: &str) -> Option<&String> {
        self.index.get(name).and_then(|at| self.list.get(*at)).map(|(_, value)| value)
    }
}

fn env_from(container: &Container, lookup: &dyn Lookup, env: &mut Environment) -> Result<(), String> {
    for source in container.env_from.iter().flatten() {
        let (data, optional, what, name) = if let Some(map) = &source.config_map_ref {
            (lookup.config_map(&map.name), map.optional, "configmap", &map.name)
        } else if let Some(secret) = &source.secret_ref {
            (lookup.secret(&secret.name), secret.optional, "secret", &secret.name)
        } else {
            continue;
        };
        let Some(data) = data else {
            if optional == Some(true) {
                continue;
            }
            return Err(format!("{what} \"{name}\" not found"));
        };
        let prefix = source.prefix.as_deref().unwrap_or_default();
        for (key, value) in data {
            let name = format!("{prefix}{key}");
            if !name.is_empty() && !name.contains(['=', '\0']) {
                env.set(&name, String::from_utf8_lossy(&value).into_owned());
            }
        }
    }
    Ok(())
}

fn value_from(
    pod: &Pod,
    container: &Container,
    source: &EnvVarSource,
    around: &Surroundings,
    lookup: &dyn Lookup,
) -> Result<Option<String>, String> {
    if let Some(reference) = &source.field_ref {
        return fields::field(pod, &reference.field_path, around).map(Some);
    }
    if let Some(selector) = &source.resource_field_ref {
        let of = selector.container_name.as_deref().filter(|name| !name.is_empty());
        let container =
            of.and_then(|name| pod.all_containers().find(|c| c.name == name)).unwrap_or(container);
        return fields::resource(container, selector, around).map(Some);
    }
    let (data, key, optional, what, name) = if let Some(reference) = &source.config_map_key_ref {
        let data = lookup.config_map(&reference.name);
        (data, &reference.key, reference.optional, "configmap", &reference.name)
    } else if let Some(reference) = &source.secret_key_ref {
        let data = lookup.secret(&reference.name);
        (data, &reference.key, reference.optional, "secret", &reference.name)
    } else {
        return Ok(None);
    };
    let optional = optional == Some(true);
    let Some(data) = data else {
        return if optional { Ok(None) } else { Err(format!("{what} \"{name}\" not found")) };
    };
    match data.get(key) {
        Some(value) => Ok(Some(String::from_utf8_lossy(value).into_owned())),
        None if optional => Ok(None),
        None => {
            let title = if what == "secret" { "Secret" } else { "ConfigMap" };
            Err(format!("couldn't find key {key} in {title} {}/{name}", pod.namespace()))
        }
    }
}

/// Replaces `$(NAME)` by its value; `$$` is a dollar, and a name without value stays as it is written.
pub fn expand(text: &str, value: impl Fn(&str) -> Option<String>) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let (before, from) = rest.split_at(at);
        result.push_str(before);
        let after = from.strip_prefix('$').unwrap_or(from);
        if let Some(after) = after.strip_prefix('$') {
            result.push('$');
            rest = after;
        } else if let Some((name, after)) = after.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match value(name) {
                Some(value) => result.push_str(&value),
                None => {
                    result.push_str("$(");
                    result.push_str(name);
                    result.push(')');
                }
            }
            rest = after;
        } else {
            result.push('$');
            rest = after;
        }
    }
    result.push_str(rest);
    result
}

/// The variables for services: those of the pod's namespace if it wants them, and the API server's always.
pub fn service_variables<'a>(
    pod: &Pod,
    services: impl Iterator<Item = &'a Service>,
) -> BTreeMap<String, String> {
    let links = pod.spec().enable_service_links.unwrap_or(true);
    let mut variables = BTreeMap::new();
    for service in services {
        let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let is_api = namespace == "default" && name == "kubernetes";
        if is_api || (links && namespace == pod.namespace()) {
            add_service(&mut variables, name, service);
        }
    }
    variables
}

fn add_service(variables: &mut BTreeMap<String, String>, name: &str, service: &Service) {
    let Some(spec) = &service.spec else { return };
    let Some(ip) = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None") else { return };
    let prefix = name.to_uppercase().replace('-', "_");
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_string() };
    variables.insert(format!("{prefix}_SERVICE_HOST"), ip.to_string());
    for (index, port) in spec.ports.iter().flatten().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let number = port.port;
        let url = format!("{}://{host}:{number}", protocol.to_lowercase());
        if index == 0 {
            variables.insert(format!("{prefix}_SERVICE_PORT"), number.to_string());
            variables.insert(format!("{prefix}_PORT"), url.clone());
        }
        if let Some(port_name) = port.name.as_ref().filter(|name| !name.is_empty()) {
            let port_name = port_name.to_uppercase().replace('-', "_");
            variables.insert(format!("{prefix}_SERVICE_PORT_{port_name}"), number.to_string());
        }
        let link = format!("{prefix}_PORT_{number}_{}", protocol.to_uppercase());
        variables.insert(format!("{link}_PROTO"), protocol.to_lowercase());
        variables.insert(format!("{link}_PORT"), number.to_string());
        variables.insert(format!("{link}_ADDR"), ip.to_string());
        variables.insert(link, url);
    }
}

/// The names of the config maps and secrets that a container's environment needs.
pub fn references(container: &Container) -> (Vec<&str>, Vec<&str>) {
    let (mut maps, mut secrets) = (Vec::new(), Vec::new());
    for source in container.env_from.iter().flatten() {
        maps.extend(source.config_map_ref.as_ref().map(|r| r.name.as_str()));
        secrets.extend(source.secret_ref.as_ref().map(|r| r.name.as_str()));
    }
    for EnvVar { value_from, .. } in container.env.iter().flatten() {
        let Some(source) = value_from else { continue };
        maps.extend(source.config_map_key_ref.as_ref().map(|r| r.name.as_str()));
        secrets.extend(source.secret_key_ref.as_ref().map(|r| r.name.as_str()));
    }
    (maps, secrets)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;

    impl Lookup for Fixed {
        fn config_map(&self, name: &str) -> Option<BTreeMap<String, Vec<u8>>> {
            (name == "there").then(|| [("mode".to_string(), b"fast".to_vec())].into())
        }
        fn secret(&self, _: &str) -> Option<BTreeMap<String, Vec<u8>>> {
            None
        }
    }

    fn environment(container: serde_json::Value) -> Result<Vec<(String, String)>, String> {
        let pod: Pod =
            serde_json::from_value(serde_json::json!({"metadata": {"name": "p", "namespace": "n"}})).unwrap();
        let container: Container = serde_json::from_value(container).unwrap();
        let services = [("API_SERVICE_HOST".to_string(), "10.0.0.1".to_string())].into();
        let built = build(&pod, &container, &services, &Surroundings::default(), &Fixed)?;
        Ok(built.into_iter().map(|kv| (kv.key, kv.value)).collect())
    }

    #[test]
    fn later_variables_see_earlier_ones_and_services() {
        let env = environment(serde_json::json!({"name": "c",
            "envFrom": [{"prefix": "X_", "configMapRef": {"name": "there"}}],
            "env": [{"name": "A", "value": "$(X_mode)-$$(A)-$(NOPE)"}, {"name": "B", "value": "$(A):$(API_SERVICE_HOST)"},
                    {"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}))
        .unwrap();
        let get = |name: &str| env.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        assert_eq!(get("A"), Some("fast-$(A)-$(NOPE)"));
        assert_eq!(get("B"), Some("fast-$(A)-$(NOPE):10.0.0.1"));
        assert_eq!(get("N"), Some("p"));
        assert_eq!(get("API_SERVICE_HOST"), Some("10.0.0.1"));
    }

    #[test]
    fn what_is_missing_is_named_unless_it_is_optional() {
        let of = |optional: bool| {
            environment(serde_json::json!({"name": "c", "env": [{"name": "A", "valueFrom": {"secretKeyRef":
                {"name": "gone", "key": "k", "optional": optional}}}]}))
        };
        assert_eq!(of(false).unwrap_err(), "secret \"gone\" not found");
        assert!(of(true).unwrap().iter().all(|(key, _)| key != "A"));
        let key = environment(serde_json::json!({"name": "c", "env": [{"name": "A", "valueFrom":
            {"configMapKeyRef": {"name": "there", "key": "k"}}}]}));
        assert_eq!(key.unwrap_err(), "couldn't find key k in ConfigMap n/there");
    }
}
