//! `expose`: a service in front of a workload's pods.

use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Value, json};

use crate::session::Session;
use crate::tree::pairs;
use crate::writing::Writing;

/// The flags of `expose`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Kind and name
    #[arg(required = true)]
    pub what: Vec<String>,
    /// The service's name; by default the workload's
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// The service's port; by default those of the containers
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
    /// The containers' port, by number or name; by default the service's
    #[arg(long, value_name = "PORT")]
    pub target_port: Option<String>,
    /// TCP, UDP or SCTP
    #[arg(long, default_value = "TCP")]
    pub protocol: String,
    /// ClusterIP, NodePort, LoadBalancer or ExternalName
    #[arg(long = "type", default_value = "ClusterIP", value_name = "TYPE")]
    pub kind: String,
    /// Labels of the pods; by default the workload's selector
    #[arg(long, value_name = "LABELS")]
    pub selector: Option<String>,
    /// Labels of the service; by default the workload's
    #[arg(short = 'l', long, value_name = "LABELS")]
    pub labels: Option<String>,
    /// The service's address, or None
    #[arg(long, value_name = "ADDRESS")]
    pub cluster_ip: Option<String>,
    /// A further address that leads to it
    #[arg(long, value_name = "ADDRESS")]
    pub external_ip: Option<String>,
    /// ClientIP, so that a client stays with a pod, or None
    #[arg(long, value_name = "KIND")]
    pub session_affinity: Option<String>,
    #[command(flatten)]
    pub writing: Writing,
}

/// Runs the verb.
pub async fn run(session: &Session, options: &Options) -> anyhow::Result<()> {
    let targets = session.chosen(&options.what, &Default::default(), false).await?;
    let [target] = targets.as_slice() else { bail!("error: name one object to expose") };
    let object = session.api.get(&target.path()).await?;
    let selector = match &options.selector {
        Some(text) => pairs(text.split(','), "")?,
        None => selector_of(&object)
            .with_context(|| format!("error: {} selects no pods; give --selector", target.reported()))?,
    };
    let name = options.name.as_deref().unwrap_or(&target.name);
    let ports = ports(options, &object)?;
    let mut service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": selector, "ports": ports, "type": options.kind},
    });
    if let Some(text) = &options.labels {
        service["metadata"]["labels"] = pairs(text.split(','), "")?;
    } else if let Some(labels) = object.pointer("/metadata/labels") {
        service["metadata"]["labels"] = labels.clone();
    }
    for (field, value) in [("clusterIP", &options.cluster_ip), ("sessionAffinity", &options.session_affinity)]
    {
        if let Some(value) = value {
            service["spec"][field] = value.as_str().into();
        }
    }
    if let Some(address) = &options.external_ip {
        service["spec"]["externalIPs"] = json!([address]);
    }
    let reported = format!("service/{name}");
    if options.writing.dry_run.is_client() {
        return options.writing.tell(&service, &reported, "exposed");
    }
    let namespace = target.namespace.as_deref().unwrap_or(&session.namespace);
    let path = format!("/api/v1/namespaces/{namespace}/services?{}", options.writing.query("ctl-expose"));
    let created = session.api.create(&path, &service).await?;
    options.writing.tell(&created, &reported, "exposed")
}

fn selector_of(object: &Value) -> Option<Value> {
    let pod_labels = || object.pointer("/metadata/labels").filter(|_| object["kind"] == "Pod");
    let spec = object.pointer("/spec/selector");
    let found = spec.and_then(|spec| spec.get("matchLabels")).or(spec).or_else(pod_labels)?;
    found.as_object().filter(|labels| !labels.is_empty() && labels.values().all(Value::is_string))?;
    Some(found.clone())
}

fn ports(options: &Options, object: &Value) -> anyhow::Result<Vec<Value>> {
    let target = |default: Value| match &options.target_port {
        Some(text) => text.parse::<u16>().map_or_else(|_| json!(text), |number| json!(number)),
        None => default,
    };
    if let Some(port) = options.port {
        return Ok(vec![
            json!({"port": port, "targetPort": target(json!(port)), "protocol": options.protocol}),
        ]);
    }
    let containers = object.pointer("/spec/template/spec/containers").or(object.pointer("/spec/containers"));
    let declared: Vec<Value> = containers
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .flat_map(|container| container["ports"].as_array().cloned().unwrap_or_default())
        .collect();
    if declared.is_empty() {
        bail!("error: couldn't find port via --port flag or introspection");
    }
    let several = declared.len() > 1;
    let port = |(index, port): (usize, Value)| {
        let number = port["containerPort"].clone();
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        let mut entry = json!({"port": number, "targetPort": target(number.clone()), "protocol": protocol});
        if several {
            entry["name"] = format!("port-{}", index + 1).into();
        }
        entry
    };
    Ok(declared.into_iter().enumerate().map(port).collect())
}
