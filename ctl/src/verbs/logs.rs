//! `logs`: what containers wrote, of one pod or of all that a selector or a workload names.

use std::io::Write;

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Args;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde_json::Value;

use crate::cli::Span;
use crate::session::{Session, escape, with_query};
use crate::verbs::set::pod_spec;

/// The flags of `logs`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// A pod, or a workload as deploy/web, and a container
    pub what: Vec<String>,
    /// The container
    #[arg(short, long, value_name = "NAME")]
    pub container: Option<String>,
    /// Every container
    #[arg(long)]
    pub all_containers: bool,
    /// The pods that a selector names
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub selector: Option<String>,
    /// Go on showing what is written
    #[arg(short, long)]
    pub follow: bool,
    /// The container's run before this one
    #[arg(short, long)]
    pub previous: bool,
    /// The last lines only; -1 is all
    #[arg(long, default_value_t = -1, allow_negative_numbers = true, value_name = "LINES")]
    pub tail: i64,
    /// What was written in the last time, as 5m
    #[arg(long, value_name = "TIME")]
    pub since: Option<Span>,
    /// What was written since a moment, as 2026-01-01T00:00:00Z
    #[arg(long, value_name = "MOMENT")]
    pub since_time: Option<String>,
    /// When each line was written
    #[arg(long)]
    pub timestamps: bool,
    /// Which pod and container wrote each line
    #[arg(long)]
    pub prefix: bool,
    /// Accepted for compatibility; all are followed at once
    #[arg(long, hide = true)]
    pub max_log_requests: Option<u32>,
    /// Go on though one of several logs breaks off
    #[arg(long)]
    pub ignore_errors: bool,
    /// At most so many bytes
    #[arg(long, value_name = "BYTES")]
    pub limit_bytes: Option<u64>,
}

/// Runs the verb.
pub async fn run(session: &Session, options: &Options) -> anyhow::Result<()> {
    let pods = pods_of(session, options).await?;
    let mut sources: Vec<(String, String)> = Vec::new();
    for pod in &pods {
        let name = pod.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        for container in containers_of(pod, options)? {
            sources.push((name.to_string(), container));
        }
    }
    let several = sources.len() > 1;
    let mut streams = FuturesUnordered::new();
    for (pod, container) in sources {
        let prefix = options.prefix.then(|| format!("[pod/{pod}/{container}] "));
        let copying = copy(session, options, pod, container, prefix);
        if options.follow && several {
            streams.push(copying);
        } else {
            copying.await?;
        }
    }
    while let Some(ended) = streams.next().await {
        match ended {
            Err(error) if options.ignore_errors => eprintln!("{error:#}"),
            other => other?,
        }
    }
    Ok(())
}

async fn copy(
    session: &Session,
    options: &Options,
    pod: String,
    container: String,
    prefix: Option<String>,
) -> anyhow::Result<()> {
    let path = format!("/api/v1/namespaces/{}/pods/{pod}/log", session.namespace);
    let stream = session.api.stream(&with_query(&path, &query(options, &container))).await?;
    let mut stream = Box::pin(stream);
    let mut rest: Vec<u8> = Vec::new();
    while let Some(chunk) = stream.next().await {
        let chunk: Bytes = chunk.context("the log broke off")?;
        match &prefix {
            None => write(&chunk)?,
            Some(prefix) => {
                rest.extend_from_slice(&chunk);
                while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = rest.drain(..=end).collect();
                    write(&[prefix.as_bytes(), &line].concat())?;
                }
            }
        }
    }
    Ok(())
}

fn write(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).context("cannot write to standard output")
}

fn query(options: &Options, container: &str) -> String {
    let mut query = format!("container={}", escape(container));
    let mut add = |key: &str, value: String| query.push_str(&format!("&{key}={}", escape(&value)));
    if options.follow {
        add("follow", "true".into());
    }
    if options.previous {
        add("previous", "true".into());
    }
    if options.tail >= 0 {
        add("tailLines", options.tail.to_string());
    }
    if let Some(since) = options.since {
        add("sinceSeconds", since.0.as_secs().max(1).to_string());
    }
    if let Some(moment) = &options.since_time {
        add("sinceTime", moment.clone());
    }
    if options.timestamps {
        add("timestamps", "true".into());
    }
    if let Some(bytes) = options.limit_bytes {
        add("limitBytes", bytes.to_string());
    }
    query
}

/// The pods whose logs are meant.
async fn pods_of(session: &Session, options: &Options) -> anyhow::Result<Vec<Value>> {
    let collection = format!("/api/v1/namespaces/{}/pods", session.namespace);
    if let Some(selector) = &options.selector {
        let list = session.api.get(&format!("{collection}?labelSelector={}", escape(selector))).await?;
        return Ok(list["items"].as_array().cloned().unwrap_or_default());
    }
    let Some(first) = options.what.first() else { bail!("error: name a pod, or a workload as deploy/web") };
    find_pod(session, first).await.map(|pod| vec![pod])
}

/// A pod by name, or the first running one of a workload such as `deploy/web`.
pub async fn find_pod(session: &Session, word: &str) -> anyhow::Result<Value> {
    let collection = format!("/api/v1/namespaces/{}/pods", session.namespace);
    let Some((kind, name)) = word.split_once('/') else {
        return session.api.get(&format!("{collection}/{word}")).await;
    };
    if ["pod", "pods", "po"].contains(&kind) {
        return session.api.get(&format!("{collection}/{name}")).await;
    }
    let target = session.target(kind, name)?;
    let object = session.api.get(&target.path()).await?;
    let labels = object
        .pointer("/spec/selector/matchLabels")
        .or(object.pointer("/spec/selector"))
        .and_then(Value::as_object)
        .filter(|labels| labels.values().all(Value::is_string))
        .with_context(|| format!("error: {} selects no pods", target.reported()))?;
    let pairs: Vec<String> =
        labels.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    let list = session.api.get(&format!("{collection}?labelSelector={}", escape(&pairs.join(",")))).await?;
    let mut pods = list["items"].as_array().cloned().unwrap_or_default();
    pods.sort_by_key(|pod| {
        (pod["status"]["phase"] != "Running", !pod["metadata"]["deletionTimestamp"].is_null())
    });
    match pods.into_iter().next() {
        Some(pod) => Ok(pod),
        None => bail!("error: {} has no pods", target.reported()),
    }
}

fn containers_of(pod: &Value, options: &Options) -> anyhow::Result<Vec<String>> {
    let spec = pod.pointer(pod_spec("Pod")).unwrap_or(&Value::Null);
    let names = |kind: &str| -> Vec<String> {
        spec[kind]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|c| c["name"].as_str())
            .map(str::to_string)
            .collect()
    };
    let named = options.container.clone().or_else(|| options.what.get(1).cloned());
    if let Some(name) = named {
        let known = [names("initContainers"), names("containers"), names("ephemeralContainers")].concat();
        if !known.contains(&name) {
            let pod = pod.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
            bail!("error: container {name} is not in pod {pod}; it has {}", known.join(", "));
        }
        return Ok(vec![name]);
    }
    if options.all_containers {
        return Ok([names("initContainers"), names("containers")].concat());
    }
    let mut main = names("containers");
    let default =
        pod.pointer("/metadata/annotations/kubectl.kubernetes.io~1default-container").and_then(Value::as_str);
    if let Some(default) = default {
        return Ok(vec![default.to_string()]);
    }
    if main.len() > 1 {
        eprintln!(
            "Defaulted container \"{}\" out of: {}",
            main.first().map_or("", String::as_str),
            main.join(", ")
        );
    }
    main.truncate(1);
    Ok(main)
}

/// Everything that a pod's only container has written.
pub async fn all(session: &Session, pod: &str) -> anyhow::Result<()> {
    let path = format!("/api/v1/namespaces/{}/pods/{pod}/log?follow=true", session.namespace);
    let mut stream = Box::pin(session.api.stream(&path).await?);
    while let Some(chunk) = stream.next().await {
        write(&chunk.context("the log broke off")?)?;
    }
    Ok(())
}
