//! The same network as a CNI plugin, for foreign runtimes such as containerd.
//!
//! Speaks CNI 0.3.1 to 1.1.0: ADD, DEL, CHECK, STATUS, VERSION. Shares leases and state with the agent through files, so the agent's
//! [`crate::NodeNetwork`] must have run in the same data directory; until it has, ADD fails with the code for "try again later".

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use netlink::route::RouteSocket;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::attach::{self, GATEWAY};
use crate::lease::Leases;
use crate::names::Names;
use crate::request::{Addresses, AttachRequest, PortMapping, Protocol};
use crate::state::NodeState;

const VERSIONS: [&str; 5] = ["0.3.1", "0.4.0", "1.0.0", "1.0.1", "1.1.0"];
/// Plugin type, and name of the executable, of the loopback device's plugin.
pub const LOOPBACK: &str = "loopback";
const NEWEST_WRITTEN: &str = "1.0.0";
const CODE_INCOMPATIBLE: u32 = 1;
const CODE_ENVIRONMENT: u32 = 4;
const CODE_DECODE: u32 = 6;
const CODE_CONFIG: u32 = 7;
const CODE_TRY_AGAIN: u32 = 11;
const CODE_NOT_AVAILABLE: u32 = 50;
const CODE_FAILED: u32 = 100;

/// What the runtime writes to the plugin's input.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NetworkConfig {
    cni_version: String,
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    data_dir: PathBuf,
    #[serde(default)]
    runtime_config: RuntimeConfig,
    #[serde(default)]
    prev_result: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RuntimeConfig {
    #[serde(default)]
    port_mappings: Vec<CniPortMapping>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CniPortMapping {
    host_port: u16,
    container_port: u16,
    #[serde(default)]
    protocol: String,
    #[serde(default, rename = "hostIP")]
    host_ip: String,
}

/// An error in CNI's form.
#[derive(Debug, Serialize)]
struct Failure {
    code: u32,
    msg: String,
}

impl Failure {
    fn new(code: u32, message: impl ToString) -> Self {
        Self { code, msg: message.to_string() }
    }
}

impl From<crate::Error> for Failure {
    fn from(error: crate::Error) -> Self {
        let code = match error {
            crate::Error::NotReady => CODE_TRY_AGAIN,
            _ => CODE_FAILED,
        };
        Self::new(code, error)
    }
}

/// Runs the plugin: command and sandbox from the environment, configuration from standard input, result to standard output.
#[must_use]
pub fn cni_main() -> ExitCode {
    let mut input = Vec::new();
    let read = io::stdin().read_to_end(&mut input).map_err(|e| Failure::new(CODE_DECODE, e));
    let outcome = read.and_then(|_| run(&input, |name| std::env::var(name).ok()));
    let (output, code) = match outcome {
        Ok(None) => return ExitCode::SUCCESS,
        Ok(Some(output)) => (output, ExitCode::SUCCESS),
        Err(failure) => {
            let (code, msg) = (failure.code, failure.msg);
            (json!({ "cniVersion": NEWEST_WRITTEN, "code": code, "msg": msg }), ExitCode::FAILURE)
        }
    };
    match writeln!(io::stdout(), "{output}") {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Writes the list that a runtime finds in its CNI directory; returns the file. `plugin_type` is the name of the plugin's
/// executable in the runtime's plugin directory.
pub fn write_conflist(
    directory: &Path,
    instance: &str,
    data_dir: &Path,
    plugin_type: &str,
) -> Result<PathBuf, crate::Error> {
    let list = json!({
        "cniVersion": NEWEST_WRITTEN,
        "name": format!("{instance}-net"),
        "plugins": [{ "type": plugin_type, "dataDir": data_dir, "capabilities": { "portMappings": true } }],
    });
    fs::create_dir_all(directory).map_err(crate::Error::file(directory))?;
    let path = directory.join(format!("10-{instance}.conflist"));
    let temporary = directory.join(format!(".10-{instance}.conflist.new"));
    fs::write(&temporary, format!("{list:#}\n")).map_err(crate::Error::file(&temporary))?;
    fs::rename(&temporary, &path).map_err(crate::Error::file(&path))?;
    Ok(path)
}

fn run(input: &[u8], environment: impl Fn(&str) -> Option<String>) -> Result<Option<Value>, Failure> {
    let required = |name: &str| {
        let value = environment(name).filter(|v| !v.is_empty());
        value.ok_or_else(|| Failure::new(CODE_ENVIRONMENT, format!("environment variable {name} is not set")))
    };
    let command = required("CNI_COMMAND")?;
    if command == "VERSION" {
        return Ok(Some(json!({ "cniVersion": NEWEST_WRITTEN, "supportedVersions": VERSIONS })));
    }
    let config: NetworkConfig = serde_json::from_slice(input).map_err(|e| Failure::new(CODE_DECODE, e))?;
    if !VERSIONS.contains(&config.cni_version.as_str()) {
        let message = format!("CNI version {} is not one of {}", config.cni_version, VERSIONS.join(", "));
        return Err(Failure::new(CODE_INCOMPATIBLE, message));
    }
    if config.kind == LOOPBACK {
        return loopback(&config, &command, &required);
    }
    if !config.data_dir.is_absolute() {
        return Err(Failure::new(CODE_CONFIG, "dataDir must be an absolute path"));
    }
    let directory = config.data_dir.join("network");
    let state = NodeState::load(&directory)?;
    match (command.as_str(), state) {
        ("DEL", None) => Ok(None),
        ("STATUS", None) => Err(Failure::new(CODE_NOT_AVAILABLE, crate::Error::NotReady)),
        ("STATUS", Some(_)) => Ok(None),
        (_, None) => Err(crate::Error::NotReady.into()),
        ("ADD", Some(state)) => add(&config, &directory, &state, &required, &environment).map(Some),
        ("DEL", Some(state)) => {
            let id = sandbox_id(&required("CNI_CONTAINERID")?, &required("CNI_IFNAME")?);
            let leases = Leases::open(&directory.join("leases"))?;
            attach::detach(&Names::new(&state.instance), &leases, &id)?;
            Ok(None)
        }
        ("CHECK", Some(state)) => check(&config, &directory, &state, &required).map(|()| None),
        (other, Some(_)) => Err(Failure::new(CODE_ENVIRONMENT, format!("unknown CNI_COMMAND {other}"))),
    }
}

/// The plugin of this name that containerd asks for beside the configured one.
fn loopback(config: &NetworkConfig, command: &str, required: Required<'_>) -> Result<Option<Value>, Failure> {
    if command != "ADD" {
        return Ok(None);
    }
    let namespace = required("CNI_NETNS")?;
    attach::bring_up_loopback(Path::new(&namespace))?;
    let version = json!(if config.cni_version.starts_with("0.") { Some("4") } else { None });
    let mut address = json!({ "address": "127.0.0.1/8", "interface": 0 });
    if let (false, Some(object)) = (version.is_null(), address.as_object_mut()) {
        object.insert("version".to_owned(), version);
    }
    Ok(Some(json!({
        "cniVersion": config.cni_version,
        "interfaces": [{ "name": "lo", "mac": "00:00:00:00:00:00", "sandbox": namespace }],
        "ips": [address],
        "dns": {},
    })))
}

type Required<'a> = &'a dyn Fn(&str) -> Result<String, Failure>;

fn add(
    config: &NetworkConfig,
    directory: &Path,
    state: &NodeState,
    required: Required<'_>,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Value, Failure> {
    let (container, interface, namespace) =
        (required("CNI_CONTAINERID")?, required("CNI_IFNAME")?, required("CNI_NETNS")?);
    let arguments = environment("CNI_ARGS").unwrap_or_default();
    let argument = |name: &str| {
        let found =
            arguments.split(';').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name);
        found.map(|(_, value)| value.to_owned()).unwrap_or_default()
    };
    let mappings: Result<Vec<_>, _> = config.runtime_config.port_mappings.iter().map(port_mapping).collect();
    let request = AttachRequest {
        id: sandbox_id(&container, &interface),
        namespace_path: PathBuf::from(&namespace),
        pod_namespace: argument("K8S_POD_NAMESPACE"),
        pod_name: argument("K8S_POD_NAME"),
        pod_uid: argument("K8S_POD_UID"),
        port_mappings: mappings?,
        interface: interface.clone(),
    };
    let leases = Leases::open(&directory.join("leases"))?;
    let addresses = attach::attach(&Names::new(&state.instance), &leases, state, &request)?;
    Ok(result(&config.cni_version, &addresses, &interface, &namespace))
}

fn check(
    config: &NetworkConfig,
    directory: &Path,
    state: &NodeState,
    required: Required<'_>,
) -> Result<(), Failure> {
    let id = sandbox_id(&required("CNI_CONTAINERID")?, &required("CNI_IFNAME")?);
    let leases = Leases::open(&directory.join("leases"))?;
    let lease = leases.of(&id)?.ok_or_else(|| Failure::new(CODE_FAILED, "the sandbox has no address"))?;
    let device = Names::new(&state.instance).pod_device(&id);
    let link = RouteSocket::open().and_then(|mut s| s.link(&device)).map_err(crate::Error::from)?;
    if link.is_none() {
        return Err(Failure::new(CODE_FAILED, format!("device {device} of the sandbox is gone")));
    }
    let expected =
        config.prev_result.as_ref().and_then(|r| r.pointer("/ips/0/address")).and_then(Value::as_str);
    match expected {
        Some(expected) if expected != format!("{}/32", lease.address) => Err(Failure::new(
            CODE_FAILED,
            format!("the sandbox has address {}, not {expected}", lease.address),
        )),
        _ => Ok(()),
    }
}

fn result(version: &str, addresses: &Addresses, interface: &str, namespace: &str) -> Value {
    let mac = addresses.mac.map(|byte| format!("{byte:02x}")).join(":");
    let needs_ip_version = version.starts_with("0.");
    let ips: Vec<Value> = addresses
        .ips
        .iter()
        .map(|ip| {
            let mut entry = json!({ "address": format!("{ip}/32"), "gateway": GATEWAY, "interface": 1 });
            if let (true, Some(object)) = (needs_ip_version, entry.as_object_mut()) {
                object.insert("version".to_owned(), json!("4"));
            }
            entry
        })
        .collect();
    json!({
        "cniVersion": version,
        "interfaces": [
            { "name": addresses.host_device, "mac": "ee:ee:ee:ee:ee:ee" },
            { "name": interface, "mac": mac, "sandbox": namespace },
        ],
        "ips": ips,
        "routes": [{ "dst": "0.0.0.0/0", "gw": GATEWAY }],
        "dns": {},
    })
}

/// A sandbox may be connected to several networks; each device is a sandbox to us.
fn sandbox_id(container: &str, interface: &str) -> String {
    if interface == "eth0" { container.to_owned() } else { format!("{container}-{interface}") }
}

fn port_mapping(mapping: &CniPortMapping) -> Result<PortMapping, Failure> {
    let protocol = match mapping.protocol.to_ascii_lowercase().as_str() {
        "" | "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        other => {
            return Err(Failure::new(CODE_CONFIG, format!("unknown protocol {other:?} of a port mapping")));
        }
    };
    let host_ip = match mapping.host_ip.as_str() {
        "" => None,
        text => {
            let parsed = text
                .parse()
                .map_err(|_| Failure::new(CODE_CONFIG, format!("hostIP {text:?} is not an IPv4 address")));
            Some(parsed?)
        }
    };
    Ok(PortMapping {
        host_port: mapping.host_port,
        container_port: mapping.container_port,
        protocol,
        host_ip,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(command: &str, input: &str) -> Result<Option<Value>, Failure> {
        run(input.as_bytes(), |name| match name {
            "CNI_COMMAND" => Some(command.to_owned()),
            "CNI_CONTAINERID" => Some("c1".to_owned()),
            "CNI_IFNAME" => Some("eth0".to_owned()),
            "CNI_NETNS" => Some("/nowhere".to_owned()),
            _ => None,
        })
    }

    #[test]
    fn the_plugin_should_say_its_versions_and_refuse_others() {
        let versions = call("VERSION", "").unwrap().unwrap();
        assert!(versions["supportedVersions"].as_array().unwrap().contains(&json!("1.0.0")));
        let failure =
            call("ADD", r#"{"cniVersion":"0.1.0","name":"x","type":"t","dataDir":"/x"}"#).unwrap_err();
        assert_eq!(failure.code, CODE_INCOMPATIBLE);
    }

    #[test]
    fn before_the_node_has_addresses_add_should_ask_to_try_again_and_delete_should_succeed() {
        let directory = tempfile::tempdir().unwrap();
        let config = json!({ "cniVersion": "1.0.0", "name": "x", "type": "t", "dataDir": directory.path() })
            .to_string();
        assert_eq!(call("ADD", &config).unwrap_err().code, CODE_TRY_AGAIN);
        assert!(call("DEL", &config).unwrap().is_none());
        assert_eq!(call("STATUS", &config).unwrap_err().code, CODE_NOT_AVAILABLE);
    }

    /// Needs root: a node and a pod in namespaces of their own.
    #[test]
    fn a_foreign_runtime_should_get_the_same_network_as_the_agent() {
        use std::os::fd::AsRawFd;

        use netlink::netns;

        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: network namespaces need root");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let (node, pod) = (netns::create().unwrap(), netns::create().unwrap());
        let path = format!("/proc/{}/fd/{}", std::process::id(), pod.as_raw_fd());
        let mapping = json!([{ "hostPort": 80, "containerPort": 8080, "protocol": "tcp" }]);
        let config = |version: &str| {
            let runtime = json!({ "portMappings": mapping });
            let data_dir = directory.path();
            json!({ "cniVersion": version, "name": "x", "type": "t", "dataDir": data_dir, "runtimeConfig": runtime }).to_string()
        };
        let call = |command: &str, version: &str| {
            run(config(version).as_bytes(), |name| match name {
                "CNI_COMMAND" => Some(command.to_owned()),
                "CNI_CONTAINERID" => Some("c1".to_owned()),
                "CNI_IFNAME" => Some("eth0".to_owned()),
                "CNI_NETNS" => Some(path.clone()),
                "CNI_ARGS" => Some("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web".to_owned()),
                _ => None,
            })
        };
        netns::run_in(&node, || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let cluster = "10.244.0.0/16".parse().unwrap();
            let mut settings =
                crate::Config::new("gt", "n1", [127, 0, 0, 1].into(), directory.path().to_owned(), cluster);
            settings.pod_cidr = Some("10.244.3.0/24".parse().unwrap());
            let network = runtime.block_on(crate::NodeNetwork::prepare(settings)).unwrap();
            let result = call("ADD", "1.0.0").unwrap().unwrap();
            assert_eq!(result["ips"][0]["address"], "10.244.3.2/32");
            assert_eq!(call("ADD", "0.4.0").unwrap().unwrap()["ips"][0]["version"], "4");
            let leases = runtime.block_on(network.leases()).unwrap();
            assert_eq!((leases.len(), leases[0].pod.as_str()), (1, "default/web"));
            call("CHECK", "1.0.0").unwrap();
            assert!(call("STATUS", "1.0.0").unwrap().is_none());
            call("DEL", "1.0.0").unwrap();
            call("DEL", "1.0.0").unwrap();
            assert!(runtime.block_on(network.leases()).unwrap().is_empty());
            assert_eq!(call("CHECK", "1.0.0").unwrap_err().code, CODE_FAILED);
        })
        .unwrap();
    }
}
