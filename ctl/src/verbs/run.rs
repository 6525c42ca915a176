//! `run`: a pod with one container, at once; with `-it --rm` a place to try things.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Value, json};

use crate::ExitWith;
use crate::cli::Span;
use crate::session::Session;
use crate::tree::{items, number, pairs, text};
use crate::verbs::{attach, logs};
use crate::writing::Writing;

const POLL: Duration = Duration::from_millis(200);

/// The flags of `run`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The pod's name
    pub name: String,
    /// The image
    #[arg(long, value_name = "IMAGE")]
    pub image: String,
    /// Whether the image is pulled: Always, IfNotPresent or Never
    #[arg(long, value_name = "POLICY")]
    pub image_pull_policy: Option<String>,
    /// Variables: KEY=VALUE
    #[arg(long, value_name = "KEY=VALUE")]
    pub env: Vec<String>,
    /// Labels: a=b,c=d; by default run=NAME
    #[arg(short, long, value_name = "LABELS")]
    pub labels: Option<String>,
    /// Annotations: key=value
    #[arg(long, value_name = "KEY=VALUE")]
    pub annotations: Vec<String>,
    /// The port that the container listens on
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
    /// Also make a service for that port
    #[arg(long, requires = "port")]
    pub expose: bool,
    /// Whether the container starts again after its end: Always, OnFailure or Never
    #[arg(long, default_value = "Always", value_name = "POLICY")]
    pub restart: String,
    /// Fields of the pod, as JSON
    #[arg(long, value_name = "JSON")]
    pub overrides: Option<String>,
    /// Pass standard input on
    #[arg(short = 'i', long)]
    pub stdin: bool,
    /// Give the container a terminal
    #[arg(short = 't', long)]
    pub tty: bool,
    /// Join the container's streams
    #[arg(long)]
    pub attach: bool,
    /// Delete the pod when the streams end
    #[arg(long)]
    pub rm: bool,
    /// Only what the container writes
    #[arg(short, long)]
    pub quiet: bool,
    /// The words after `--` are the command rather than its arguments
    #[arg(long)]
    pub command: bool,
    /// With all rights on the node
    #[arg(long)]
    pub privileged: bool,
    /// How long the pod may take to run
    #[arg(long, default_value = "1m", value_name = "TIME")]
    pub pod_running_timeout: Span,
    /// Arguments, after `--`
    #[arg(last = true)]
    pub words: Vec<String>,
    #[command(flatten)]
    pub writing: Writing,
}

/// Runs the verb.
pub async fn run(session: &Session, options: &Options) -> anyhow::Result<()> {
    let joined = options.attach || options.stdin;
    if options.rm && !joined {
        bail!("error: --rm should only be used for attached containers");
    }
    let pod = pod(options, &session.namespace)?;
    let reported = format!("pod/{}", options.name);
    if options.writing.dry_run.is_client() {
        return options.writing.tell(&pod, &reported, "created");
    }
    let collection = format!("/api/v1/namespaces/{}/pods", session.namespace);
    let query = options.writing.query("ctl-run");
    let created = session.api.create(&format!("{collection}?{query}"), &pod).await?;
    if !joined || options.writing.output.is_some() {
        options.writing.tell(&created, &reported, "created")?;
    }
    if options.expose {
        expose(session, options, &query).await?;
    }
    if !joined || options.writing.dry_run.is_server() {
        return Ok(());
    }
    let path = format!("{collection}/{}", options.name);
    let outcome = join(session, options, &path).await;
    if options.rm {
        let body = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"});
        session.api.delete(&path, &body).await.context("error: the pod was not deleted")?;
        if !options.quiet {
            println!("pod \"{}\" deleted from {} namespace", options.name, session.namespace);
        }
    }
    outcome
}

fn pod(options: &Options, namespace: &str) -> anyhow::Result<Value> {
    if !["Always", "OnFailure", "Never"].contains(&options.restart.as_str()) {
        bail!("error: invalid restart policy: {}; known are Always, OnFailure and Never", options.restart);
    }
    let labels = match &options.labels {
        Some(text) => pairs(text.split(','), "--labels: ")?,
        None => json!({"run": options.name}),
    };
    let mut container = json!({"name": options.name, "image": options.image});
    if !options.words.is_empty() {
        container[if options.command { "command" } else { "args" }] = json!(options.words);
    }
    if let Some(policy) = &options.image_pull_policy {
        container["imagePullPolicy"] = policy.as_str().into();
    }
    if let Some(port) = options.port {
        container["ports"] = json!([{"containerPort": port}]);
    }
    if options.privileged {
        container["securityContext"] = json!({"privileged": true});
    }
    for (name, value) in
        pairs(options.env.iter().map(String::as_str), "--env: ")?.as_object().into_iter().flatten()
    {
        let list = container.as_object_mut().map(|map| map.entry("env").or_insert_with(|| json!([])));
        if let Some(list) = list.and_then(Value::as_array_mut) {
            list.push(json!({"name": name, "value": value}));
        }
    }
    if options.stdin {
        container["stdin"] = true.into();
        container["stdinOnce"] = true.into();
    }
    if options.tty {
        container["tty"] = true.into();
    }
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": options.name, "namespace": namespace, "labels": labels},
        "spec": {"containers": [container], "restartPolicy": options.restart},
    });
    if !options.annotations.is_empty() {
        pod["metadata"]["annotations"] =
            pairs(options.annotations.iter().map(String::as_str), "--annotations: ")?;
    }
    if let Some(overrides) = &options.overrides {
        let overrides: Value = serde_json::from_str(overrides).context("error: --overrides is not JSON")?;
        merge(&mut pod, &overrides);
    }
    Ok(pod)
}

/// RFC 7386.
fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (key, value) in changes {
        if value.is_null() {
            into.as_object_mut().map(|map| map.remove(key));
        } else {
            merge(&mut into[key], value);
        }
    }
}

async fn expose(session: &Session, options: &Options, query: &str) -> anyhow::Result<()> {
    let port = options.port.unwrap_or_default();
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": options.name},
        "spec": {"selector": {"run": options.name}, "ports": [{"port": port, "protocol": "TCP", "targetPort": port}]},
    });
    let path = format!("/api/v1/namespaces/{}/services?{query}", session.namespace);
    let created = session.api.create(&path, &service).await?;
    options.writing.tell(&created, &format!("service/{}", options.name), "created")
}

/// Joins the streams of the pod, or shows what it wrote if it has ended already; ends as the container did.
async fn join(session: &Session, options: &Options, path: &str) -> anyhow::Result<()> {
    let pod = started(session, options, path).await?;
    if text(&pod, "/status/phase") == "Running" {
        let how = attach::Options {
            pod: options.name.clone(),
            container: Some(options.name.clone()),
            stdin: options.stdin,
            tty: options.tty,
            quiet: options.quiet,
        };
        match attach::streams(session, &options.name, &how).await {
            Err(error) if error.downcast_ref::<ExitWith>().is_none() => {
                eprintln!(
                    "warning: couldn't attach to pod/{}, falling back to streaming logs: {error:#}",
                    options.name
                );
                logs::all(session, &options.name).await?;
            }
            other => other?,
        }
    } else {
        logs::all(session, &options.name).await?;
    }
    if options.restart == "Always" || (options.rm && !options.stdin) {
        return Ok(());
    }
    match ended(session, path).await? {
        0 => Ok(()),
        code => Err(ExitWith(u8::try_from(code).unwrap_or(u8::MAX)).into()),
    }
}

async fn started(session: &Session, options: &Options, path: &str) -> anyhow::Result<Value> {
    let begun = Instant::now();
    loop {
        let pod = session.api.get(path).await?;
        if ["Running", "Succeeded", "Failed"].contains(&text(&pod, "/status/phase")) {
            return Ok(pod);
        }
        if begun.elapsed() > options.pod_running_timeout.0 {
            let waiting = items(&pod, "/status/containerStatuses").map(|status| {
                [text(status, "/state/waiting/reason"), text(status, "/state/waiting/message")].join(": ")
            });
            let why: Vec<String> = waiting.collect();
            bail!("error: timed out waiting for pod {} to run. {}", options.name, why.join("; "));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The exit code of the pod's container, once it has one.
async fn ended(session: &Session, path: &str) -> anyhow::Result<i64> {
    loop {
        let pod = session.api.get(path).await?;
        if ["Succeeded", "Failed"].contains(&text(&pod, "/status/phase")) {
            let codes = items(&pod, "/status/containerStatuses");
            let code =
                codes.map(|status| number(status, "/state/terminated/exitCode")).find(|code| *code != 0);
            return Ok(code.unwrap_or_default());
        }
        tokio::time::sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overrides_change_what_they_name_and_nothing_else() {
        let mut pod = json!({"spec": {"restartPolicy": "Never", "containers": [1]}, "kind": "Pod"});
        merge(&mut pod, &json!({"spec": {"nodeName": "n1", "restartPolicy": null}}));
        assert_eq!(pod, json!({"spec": {"nodeName": "n1", "containers": [1]}, "kind": "Pod"}));
    }
}
