//! `port-forward`: ports of this machine that lead into a pod.
//!
//! Every connection gets a stream of its own, so one that ends badly does not take the others with it.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Args;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};

use crate::session::Session;
use crate::verbs::logs::find_pod;

/// The flags of `port-forward`.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// A pod, or a workload or service as deploy/web and svc/web
    pub target: String,
    /// Ports as LOCAL:REMOTE, PORT for the same on both sides, or :REMOTE for any free local port
    #[arg(required = true)]
    pub ports: Vec<String>,
    /// The addresses to listen on
    #[arg(long, value_delimiter = ',', default_value = "localhost", value_name = "ADDRESSES")]
    pub address: Vec<String>,
    /// Accepted for compatibility; a pod that does not run is an error at once
    #[arg(long, hide = true)]
    pub pod_running_timeout: Option<String>,
}

/// A pair of ports as the user wrote it.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    /// 0 is any free one.
    local: u16,
    remote: Remote,
}

#[derive(Debug, PartialEq, Eq)]
enum Remote {
    Number(u16),
    Name(String),
}

impl Wanted {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let wrong = || format!("error: {text:?} is not of the form LOCAL:REMOTE, PORT or :REMOTE");
        let (local, remote) = match text.split_once(':') {
            Some((local, remote)) => (Some(local), remote),
            None => (None, text),
        };
        let remote = match remote.parse::<u16>() {
            Ok(0) => bail!(wrong()),
            Ok(number) => Remote::Number(number),
            Err(_) if remote.is_empty() || remote.contains(':') || remote.parse::<u64>().is_ok() => {
                bail!(wrong())
            }
            Err(_) => Remote::Name(remote.to_string()),
        };
        let local = match (local, &remote) {
            (Some(""), _) => 0,
            (Some(number), _) => number.parse().with_context(wrong)?,
            (None, Remote::Number(number)) => *number,
            (None, Remote::Name(_)) => 0,
        };
        Ok(Self { local, remote })
    }
}

/// Runs the verb.
pub async fn run(session: &Session, options: &Options) -> anyhow::Result<()> {
    let wanted = options.ports.iter().map(|text| Wanted::parse(text)).collect::<anyhow::Result<Vec<_>>>()?;
    let pod = find_pod(session, &options.target).await?;
    let service = service_of(session, &options.target).await?;
    let name = pod.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_string();
    let phase = pod.pointer("/status/phase").and_then(Value::as_str).unwrap_or_default();
    if phase != "Running" {
        bail!("error: unable to forward port because pod is not running. Current status={phase}");
    }
    let pods: Api<Pod> = Api::namespaced(session.api.client(), &session.namespace);
    let forwarding = Arc::new(Forwarding { pods, pod: name });
    let (lost, mut loss) = tokio::sync::mpsc::channel(1);
    let mut listening = 0;
    for wanted in &wanted {
        let remote = remote_port(wanted, service.as_ref(), &pod)?;
        let local = if wanted.local == 0
            && matches!(wanted.remote, Remote::Name(_))
            && !options_leave_free(options, wanted)
        {
            remote
        } else {
            wanted.local
        };
        listening += listen(&forwarding, &options.address, local, remote, &lost).await?;
    }
    if listening == 0 {
        bail!("error: unable to listen on any of the requested ports: {}", options.ports.join(", "));
    }
    tokio::select! {
        _ = tokio::signal::ctrl_c() => Ok(()),
        why = loss.recv() => bail!("error: lost connection to pod: {}", why.unwrap_or_default()),
    }
}

/// Whether a port by name was written with an empty local side.
fn options_leave_free(options: &Options, wanted: &Wanted) -> bool {
    let Remote::Name(name) = &wanted.remote else { return true };
    options.ports.iter().any(|text| *text == format!(":{name}"))
}

/// The service that the word names, if it names one: its ports have to be translated.
async fn service_of(session: &Session, word: &str) -> anyhow::Result<Option<Value>> {
    let Some((kind, name)) = word.split_once('/') else { return Ok(None) };
    if !["svc", "service", "services"].contains(&kind) {
        return Ok(None);
    }
    session.api.get(&format!("/api/v1/namespaces/{}/services/{name}", session.namespace)).await.map(Some)
}

/// The pod's port that is meant.
fn remote_port(wanted: &Wanted, service: Option<&Value>, pod: &Value) -> anyhow::Result<u16> {
    let Some(service) = service else {
        return match &wanted.remote {
            Remote::Number(number) => Ok(*number),
            Remote::Name(name) => named_port(pod, name),
        };
    };
    let ports = service.pointer("/spec/ports").and_then(Value::as_array);
    let found = ports.into_iter().flatten().find(|port| match &wanted.remote {
        Remote::Number(number) => port["port"] == *number,
        Remote::Name(name) => port["name"] == name.as_str(),
    });
    let name = service.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    let port = found.with_context(|| match &wanted.remote {
        Remote::Number(number) => format!("error: Service {name} does not have a service port {number}"),
        Remote::Name(port) => format!("error: Service {name} does not have a service port named {port}"),
    })?;
    match port.get("targetPort") {
        Some(Value::String(target)) => named_port(pod, target),
        target => {
            let number = target.and_then(Value::as_u64).or(port["port"].as_u64()).unwrap_or_default();
            u16::try_from(number).context("error: the service's target port is no port")
        }
    }
}

fn named_port(pod: &Value, name: &str) -> anyhow::Result<u16> {
    let containers = pod.pointer("/spec/containers").and_then(Value::as_array).into_iter().flatten();
    let ports = containers.flat_map(|container| container["ports"].as_array().into_iter().flatten());
    let number =
        ports.into_iter().find(|port| port["name"] == name).and_then(|port| port["containerPort"].as_u64());
    let pod = pod.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    number
        .and_then(|number| u16::try_from(number).ok())
        .with_context(|| format!("error: Pod '{pod}' does not have a named port '{name}'"))
}

struct Forwarding {
    pods: Api<Pod>,
    pod: String,
}

/// Listens on every address, or on none; answers how many listen.
async fn listen(
    forwarding: &Arc<Forwarding>,
    addresses: &[String],
    local: u16,
    remote: u16,
    lost: &tokio::sync::mpsc::Sender<String>,
) -> anyhow::Result<usize> {
    let mut listening = 0;
    let mut local = local;
    let mut problems = Vec::new();
    let mut listeners = Vec::new();
    for address in resolve(addresses)? {
        match TcpListener::bind((address, local)).await {
            Ok(listener) => {
                // A free port that was found for the first address is asked for on the others as well.
                local = listener.local_addr()?.port();
                listeners.push((address, listener));
                listening += 1;
            }
            // A machine without IPv6 still has the other localhost.
            Err(error) if address.is_ipv6() && listening > 0 && error.kind() != ErrorKind::AddrInUse => {}
            Err(error) => problems.push(refusal(address, local, &error)),
        }
    }
    // Half of localhost would lead some of its users to whoever has the other half.
    if !problems.is_empty() {
        eprintln!("Unable to listen on port {local}: {}", problems.join("; "));
    }
    if !problems.is_empty() {
        return Ok(0);
    }
    for (address, listener) in listeners {
        let shown = if address.is_ipv6() { format!("[{address}]") } else { address.to_string() };
        println!("Forwarding from {shown}:{local} -> {remote}");
        tokio::spawn(accept(Arc::clone(forwarding), listener, local, remote, lost.clone()));
    }
    Ok(listening)
}

fn refusal(address: IpAddr, port: u16, error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::AddrInUse => format!(
            "{address}:{port}: address already in use; stop what listens there, or take another port as in :REMOTE"
        ),
        ErrorKind::PermissionDenied => {
            format!("{address}:{port}: permission denied; ports below 1024 need root")
        }
        _ => format!("{address}:{port}: {error}"),
    }
}

fn resolve(addresses: &[String]) -> anyhow::Result<Vec<IpAddr>> {
    let mut resolved = Vec::new();
    for address in addresses {
        if address == "localhost" {
            resolved.extend([IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])]);
        } else {
            resolved.push(
                address
                    .parse()
                    .with_context(|| format!("error: {address} is not an IP address or localhost"))?,
            );
        }
    }
    Ok(resolved)
}

async fn accept(
    forwarding: Arc<Forwarding>,
    listener: TcpListener,
    local: u16,
    remote: u16,
    lost: tokio::sync::mpsc::Sender<String>,
) {
    loop {
        let Ok((connection, _)) = listener.accept().await else {
            // Too many open files, for example: the listener itself is well.
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            continue;
        };
        println!("Handling connection for {local}");
        let (forwarding, lost) = (Arc::clone(&forwarding), lost.clone());
        tokio::spawn(async move {
            if let Err(error) = forwarding.carry(connection, remote).await {
                eprintln!("error: forwarding {local} -> {remote}: {error:#}");
                if error.downcast_ref::<kube::Error>().is_some_and(is_gone) {
                    let _told = lost.try_send(format!("{} is gone", forwarding.pod));
                }
            }
        });
    }
}

fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

impl Forwarding {
    async fn carry(&self, mut connection: TcpStream, remote: u16) -> anyhow::Result<()> {
        let mut forwarder = self.pods.portforward(&self.pod, &[remote]).await?;
        let mut stream = forwarder.take_stream(remote).context("the server opened no stream")?;
        let told = forwarder.take_error(remote);
        // Either side may hang up first; that ends the connection and is no error.
        let _ended = tokio::io::copy_bidirectional(&mut connection, &mut stream).await;
        drop(stream);
        forwarder.abort();
        match told {
            Some(told) => match told.await.filter(|text| !text.is_empty()) {
                Some(text) => bail!("{text}"),
                None => Ok(()),
            },
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ports_are_read_as_users_write_them() {
        let number = |local, remote| Wanted { local, remote: Remote::Number(remote) };
        assert_eq!(Wanted::parse("80").unwrap(), number(80, 80));
        assert_eq!(Wanted::parse("8080:80").unwrap(), number(8080, 80));
        assert_eq!(Wanted::parse(":80").unwrap(), number(0, 80));
        assert_eq!(
            Wanted::parse("8080:http").unwrap(),
            Wanted { local: 8080, remote: Remote::Name("http".into()) }
        );
        for wrong in ["", "80:", "70000", "a:80", "1:2:3", "8080:0"] {
            assert!(Wanted::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_services_port_is_translated_to_the_pods() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"ports": [{"name": "http", "containerPort": 8080}]}]}});
        let service = json!({"metadata": {"name": "web"}, "spec": {"ports": [
            {"name": "a", "port": 80, "targetPort": "http"}, {"name": "b", "port": 81, "targetPort": 9000}]}});
        let port = |text: &str| remote_port(&Wanted::parse(text).unwrap(), Some(&service), &pod);
        assert_eq!(port("80").unwrap(), 8080);
        assert_eq!(port("1:b").unwrap(), 9000);
        assert!(port("82").unwrap_err().to_string().contains("service port 82"));
    }

    #[tokio::test]
    async fn a_port_in_use_is_told_with_what_to_do() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let error = TcpListener::bind(address).await.unwrap_err();
        let text = refusal(address.ip(), address.port(), &error);
        assert!(text.contains("already in use") && text.contains("another port"), "{text}");
    }
}
