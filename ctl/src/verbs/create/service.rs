//! Services and ingresses.

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Made, bare};
use crate::tree::pairs;

/// The kinds of services.
#[derive(Subcommand, Clone, Debug)]
pub enum Service {
    /// An address inside the cluster
    #[command(name = "clusterip")]
    ClusterIp(ServiceOptions),
    /// A port of every node as well
    #[command(name = "nodeport")]
    NodePort(ServiceOptions),
    /// An address outside as well
    #[command(name = "loadbalancer")]
    LoadBalancer(ServiceOptions),
    /// Another name for a host elsewhere
    #[command(name = "externalname")]
    ExternalName(ServiceOptions),
}

/// The flags of `create service …`.
#[derive(Args, Clone, Debug)]
pub struct ServiceOptions {
    /// The name; it selects the pods with the label app=NAME
    name: String,
    /// Ports as PORT or PORT:TARGETPORT
    #[arg(long, value_delimiter = ',', value_name = "PORTS")]
    tcp: Vec<String>,
    /// The address, or None
    #[arg(long, value_name = "ADDRESS")]
    clusterip: Option<String>,
    /// The nodes' port
    #[arg(long, value_name = "PORT")]
    node_port: Option<u16>,
    /// The host elsewhere
    #[arg(long, value_name = "HOST")]
    external_name: Option<String>,
}

impl Service {
    /// The object.
    pub fn make(&self) -> anyhow::Result<Made> {
        let (kind, options) = match self {
            Self::ClusterIp(options) => ("ClusterIP", options),
            Self::NodePort(options) => ("NodePort", options),
            Self::LoadBalancer(options) => ("LoadBalancer", options),
            Self::ExternalName(options) => ("ExternalName", options),
        };
        let headless = options.clusterip.as_deref() == Some("None");
        if options.tcp.is_empty() && !headless && kind != "ExternalName" {
            bail!("error: at least one tcp port specifier must be provided");
        }
        if kind == "ExternalName" && options.external_name.is_none() {
            bail!("error: --external-name must be given");
        }
        let mut object = bare("v1", "Service", &options.name);
        let labels = json!({"app": options.name});
        object["metadata"]["labels"] = labels.clone();
        object["spec"] = json!({"type": kind, "selector": labels});
        let ports = options.tcp.iter().map(|text| port(text)).collect::<anyhow::Result<Vec<_>>>()?;
        if !ports.is_empty() {
            object["spec"]["ports"] = ports.into();
        }
        if let Some(port) = options.node_port {
            object["spec"]["ports"][0]["nodePort"] = port.into();
        }
        if let Some(address) = &options.clusterip {
            object["spec"]["clusterIP"] = address.as_str().into();
        }
        if let Some(host) = &options.external_name {
            object["spec"]["externalName"] = host.as_str().into();
        }
        Ok(Made::namespaced("/api/v1", "services", object))
    }
}

fn port(text: &str) -> anyhow::Result<Value> {
    let (port, target) = text.split_once(':').unwrap_or((text, text));
    let port: u16 = port.parse().with_context(|| format!("error: --tcp: {port:?} is not a port"))?;
    let target_port = target.parse::<u16>().map_or_else(|_| json!(target), |number| json!(number));
    let name = if text.contains(':') { format!("{port}-{target}") } else { port.to_string() };
    Ok(json!({"name": name, "port": port, "protocol": "TCP", "targetPort": target_port}))
}

/// The flags of `create ingress`.
#[derive(Args, Clone, Debug)]
pub struct IngressOptions {
    /// The name
    name: String,
    /// A rule: HOST/PATH=SERVICE:PORT[,tls[=SECRET]]; a `*` at the end of the path is for everything below
    #[arg(long, value_name = "RULE", required_unless_present = "default_backend")]
    rule: Vec<String>,
    /// The ingress class
    #[arg(long, value_name = "NAME")]
    class: Option<String>,
    /// Where everything else goes: SERVICE:PORT
    #[arg(long, value_name = "SERVICE:PORT")]
    default_backend: Option<String>,
    /// Annotations as key=value
    #[arg(long, value_name = "KEY=VALUE")]
    annotation: Vec<String>,
}

impl IngressOptions {
    /// The object.
    pub fn make(&self) -> anyhow::Result<Made> {
        let mut object = bare("networking.k8s.io/v1", "Ingress", &self.name);
        let mut rules: Vec<(String, Vec<Value>)> = Vec::new();
        let mut tls: Vec<Value> = Vec::new();
        for text in &self.rule {
            let wrong =
                || format!("error: --rule {text:?} is not of the form HOST/PATH=SERVICE:PORT[,tls[=SECRET]]");
            let (from, to) = text.split_once('=').with_context(wrong)?;
            let (host, path) = from.split_once('/').with_context(wrong)?;
            let (to, secured) = to.split_once(',').map_or((to, None), |(to, tls)| (to, Some(tls)));
            let (path, path_type) = match path.strip_suffix('*') {
                Some(path) => (path, "Prefix"),
                None => (path, "Exact"),
            };
            let path = json!({"path": format!("/{path}"), "pathType": path_type, "backend": backend(to)?});
            match rules.iter_mut().find(|(known, _)| known == host) {
                Some((_, paths)) => paths.push(path),
                None => rules.push((host.to_string(), vec![path])),
            }
            if let Some(secured) = secured {
                let secret = secured.strip_prefix("tls").with_context(wrong)?.trim_start_matches('=');
                tls.push(if secret.is_empty() {
                    json!({"hosts": [host]})
                } else {
                    json!({"hosts": [host], "secretName": secret})
                });
            }
        }
        if let Some(class) = &self.class {
            object["spec"]["ingressClassName"] = class.as_str().into();
        }
        if let Some(default) = &self.default_backend {
            object["spec"]["defaultBackend"] = backend(default)?;
        }
        let rule = |(host, paths): (String, Vec<Value>)| {
            let http = json!({"paths": paths});
            if host.is_empty() { json!({"http": http}) } else { json!({"host": host, "http": http}) }
        };
        if !rules.is_empty() {
            object["spec"]["rules"] = rules.into_iter().map(rule).collect();
        }
        if !tls.is_empty() {
            object["spec"]["tls"] = tls.into();
        }
        if !self.annotation.is_empty() {
            let annotations = self.annotation.iter().map(String::as_str);
            object["metadata"]["annotations"] = pairs(annotations, "--annotation ")?;
        }
        Ok(Made::namespaced("/apis/networking.k8s.io/v1", "ingresses", object))
    }
}

fn backend(text: &str) -> anyhow::Result<Value> {
    let (service, port) =
        text.split_once(':').with_context(|| format!("error: {text:?} is not of the form SERVICE:PORT"))?;
    let port = match port.parse::<u16>() {
        Ok(number) => json!({"number": number}),
        Err(_) => json!({"name": port}),
    };
    Ok(json!({"service": {"name": service, "port": port}}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_named_after_themselves() {
        assert_eq!(
            port("80:8080").unwrap(),
            json!({"name": "80-8080", "port": 80, "protocol": "TCP", "targetPort": 8080})
        );
        assert_eq!(port("80").unwrap()["name"], "80");
        assert!(port("x").is_err());
    }

    #[test]
    fn rules_of_one_host_stand_together() {
        let options = IngressOptions {
            name: "i".into(),
            rule: vec!["a.example/=web:80,tls=cert".into(), "a.example/api*=api:http".into()],
            class: None,
            default_backend: None,
            annotation: Vec::new(),
        };
        let object = options.make().unwrap().object;
        assert_eq!(object["spec"]["rules"].as_array().unwrap().len(), 1);
        assert_eq!(object["spec"]["rules"][0]["http"]["paths"][1]["pathType"], "Prefix");
        assert_eq!(object["spec"]["tls"][0]["secretName"], "cert");
    }
}
