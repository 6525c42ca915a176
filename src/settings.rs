//! Flags and the configuration file, parsed once into checked values.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use api::net::AddressRange;
use sha2::{Digest, Sha256};
use store::etcd::{EtcdTls, EtcdUser};

use crate::cli::{CommonOptions, StoreKind};
use crate::security::{OidcSettings, SecuritySettings};

/// The API level that everything here speaks.
pub const KUBERNETES_VERSION: &str = "v1.36.0";
pub const DEFAULT_DATA_DIR: &str = "/var/lib/gantry";
pub const CLUSTER_DOMAIN: &str = "cluster.local";

/// What a role works with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Sets this instance's names on the host apart from another's: in cgroups, devices and tables.
    pub instance: String,
    pub data_dir: PathBuf,
    pub bind_address: IpAddr,
    pub secure_port: u16,
    pub store: StoreKind,
    pub etcd_endpoints: Vec<String>,
    pub etcd_prefix: Option<String>,
    pub etcd_tls: Option<EtcdTls>,
    pub etcd_user: Option<EtcdUser>,
    /// `None` is the embedded runtime.
    pub runtime_endpoint: Option<String>,
    pub cni_conf_dir: PathBuf,
    pub cni_bin_dir: PathBuf,
    pub node_name: String,
    pub node_ip: IpAddr,
    /// The IPv4 range is the one that nodes carry; the other one is only given out.
    pub pod_cidr: Ipv4Range,
    pub pod_cidr_v6: Option<AddressRange>,
    pub service_cidr: Ipv4Range,
    pub service_cidr_v6: Option<AddressRange>,
    pub agent_address: SocketAddr,
    pub insecure_registries: Vec<String>,
    /// `None` is the agent's own default.
    pub eviction_hard: Option<kubelet::Thresholds>,
    pub node_monitor_grace_seconds: u64,
    pub security: SecuritySettings,
    pub log_level: String,
}

/// An IPv4 range, as `10.244.0.0/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Range {
    pub first: Ipv4Addr,
    pub prefix: u8,
}

/// A range, or one of each family. The family of the nodes' addresses comes first.
fn parse_ranges(flag: &str, text: &str) -> anyhow::Result<(Ipv4Range, Option<AddressRange>)> {
    let Some((first, second)) = text.split_once(',') else {
        return Ok((Ipv4Range::parse(flag, text)?, None));
    };
    let range = AddressRange::parse(second).filter(|range| range.family() == "IPv6");
    let range = range.with_context(|| {
        format!("--{flag} {text}: what follows the IPv4 range is not an IPv6 range such as fd00:10:96::/112")
    })?;
    ensure!(
        range.to_string() == second.trim(),
        "--{flag} {text} has host bits set or is unusual; write {range}"
    );
    Ok((Ipv4Range::parse(flag, first)?, Some(range)))
}

fn joined(range: Ipv4Range, second: Option<AddressRange>) -> String {
    second.map_or(range.to_string(), |second| format!("{range},{second}"))
}

impl Ipv4Range {
    fn parse(flag: &str, text: &str) -> anyhow::Result<Self> {
        let problem = || format!("--{flag} {text} is not an IPv4 range such as 10.244.0.0/16");
        let (first, prefix) = text.split_once('/').with_context(problem)?;
        let first: Ipv4Addr = first.parse().with_context(problem)?;
        let prefix: u8 = prefix.parse().with_context(problem)?;
        ensure!((8..=28).contains(&prefix), "--{flag} {text}: the prefix must be between 8 and 28");
        let mask = u32::MAX << (32 - u32::from(prefix));
        ensure!(
            u32::from(first) & !mask == 0,
            "--{flag} {text} has host bits set; write {}/{prefix}",
            Ipv4Addr::from(u32::from(first) & mask)
        );
        Ok(Self { first, prefix })
    }

    /// The address at an offset from the range's first.
    pub fn nth(&self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.first) + offset)
    }

    fn overlaps(&self, other: &Self) -> bool {
        let shift = 32 - u32::from(self.prefix.min(other.prefix));
        u32::from(self.first) >> shift == u32::from(other.first) >> shift
    }
}

impl std::fmt::Display for Ipv4Range {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(formatter, "{}/{}", self.first, self.prefix)
    }
}

impl Settings {
    /// Flags over the file over the defaults.
    pub fn resolve(flags: &CommonOptions) -> anyhow::Result<Self> {
        let file = match &flags.config {
            Some(path) => read_file(path)?,
            None => CommonOptions::default(),
        };
        macro_rules! pick {
            ($field:ident) => {
                flags.$field.clone().or(file.$field.clone())
            };
        }
        let data_dir = pick!(data_dir).unwrap_or_else(|| DEFAULT_DATA_DIR.into());
        let data_dir =
            std::path::absolute(&data_dir).with_context(|| format!("--data-dir {}", data_dir.display()))?;
        let (pod_cidr, pod_cidr_v6) =
            parse_ranges("pod-cidr", &pick!(pod_cidr).unwrap_or("10.244.0.0/16".into()))?;
        let (service_cidr, service_cidr_v6) =
            parse_ranges("service-cidr", &pick!(service_cidr).unwrap_or("10.96.0.0/16".into()))?;
        ensure!(
            !pod_cidr.overlaps(&service_cidr),
            "--pod-cidr {pod_cidr} and --service-cidr {service_cidr} overlap; choose two ranges apart"
        );
        if let (Some(pods), Some(services)) = (pod_cidr_v6, service_cidr_v6) {
            ensure!(
                !pods.overlaps(services),
                "--pod-cidr {pods} and --service-cidr {services} overlap; choose two ranges apart"
            );
        }
        ensure!(
            pod_cidr_v6.is_none_or(|pods| pods.prefix() <= 64),
            "--pod-cidr: the IPv6 range is too small: every node takes a /64 of it"
        );
        ensure!(pod_cidr.prefix <= 24, "--pod-cidr {pod_cidr} is too small: every node takes a /24 of it");
        let secure_port = pick!(secure_port).unwrap_or(6443);
        ensure!(secure_port != 0, "--secure-port 0: choose one, every part and every client has to know it");
        let store = pick!(store).unwrap_or(StoreKind::Embedded);
        let etcd_endpoints = pick!(etcd_endpoints).unwrap_or_default();
        if store == StoreKind::Etcd && etcd_endpoints.is_empty() {
            bail!("--store etcd needs --etcd-endpoints, for example http://127.0.0.1:2379");
        }
        let etcd_tls =
            etcd_tls(pick!(etcd_cafile), pick!(etcd_certfile), pick!(etcd_keyfile), &etcd_endpoints)?;
        let etcd_user =
            both("etcd-username", pick!(etcd_username), "etcd-password-file", pick!(etcd_password_file))?
                .map(|(name, password_file)| EtcdUser { name, password_file });
        let node_name = match pick!(node_name) {
            Some(name) => name,
            None => host_name()?,
        };
        check_node_name(&node_name)?;
        Ok(Self {
            instance: instance_name(&data_dir),
            bind_address: pick!(bind_address).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            secure_port,
            store,
            etcd_endpoints,
            etcd_prefix: pick!(etcd_prefix),
            etcd_tls,
            etcd_user,
            runtime_endpoint: pick!(runtime_endpoint),
            cni_conf_dir: pick!(cni_conf_dir).unwrap_or_else(|| "/etc/cni/net.d".into()),
            cni_bin_dir: pick!(cni_bin_dir).unwrap_or_else(|| "/opt/cni/bin".into()),
            node_name,
            node_ip: pick!(node_ip).unwrap_or_else(default_address),
            pod_cidr,
            pod_cidr_v6,
            service_cidr,
            service_cidr_v6,
            agent_address: pick!(agent_address).unwrap_or(SocketAddr::from(([0, 0, 0, 0], 10250))),
            insecure_registries: pick!(insecure_registries).unwrap_or_default(),
            eviction_hard: pick!(eviction_hard)
                .map(|text| text.parse().context("--eviction-hard"))
                .transpose()?,
            node_monitor_grace_seconds: pick!(node_monitor_grace_seconds).unwrap_or(40),
            security: SecuritySettings {
                admission_control_config_file: pick!(admission_control_config_file),
                audit: both(
                    "audit-policy-file",
                    pick!(audit_policy_file),
                    "audit-log-path",
                    pick!(audit_log_path),
                )?,
                oidc: both(
                    "oidc-issuer-url",
                    pick!(oidc_issuer_url),
                    "oidc-client-id",
                    pick!(oidc_client_id),
                )?
                .map(|(issuer_url, client_id)| OidcSettings {
                    issuer_url,
                    client_id,
                    username_claim: pick!(oidc_username_claim).unwrap_or("sub".into()),
                    username_prefix: pick!(oidc_username_prefix),
                    groups_claim: pick!(oidc_groups_claim),
                    groups_prefix: pick!(oidc_groups_prefix).unwrap_or_default(),
                    required_claims: pick!(oidc_required_claim).unwrap_or_default(),
                    authority_file: pick!(oidc_ca_file),
                    algorithms: pick!(oidc_signing_algs).unwrap_or(vec!["RS256".into()]),
                }),
            },
            log_level: pick!(log_level).unwrap_or("info".into()),
            data_dir,
        })
    }

    /// The pods' range, or one of each family, as the flag says it.
    pub fn pod_cidrs(&self) -> String {
        joined(self.pod_cidr, self.pod_cidr_v6)
    }

    /// The services' range, or one of each family, as the flag says it.
    pub fn service_cidrs(&self) -> String {
        joined(self.service_cidr, self.service_cidr_v6)
    }

    /// The address on which cluster DNS answers: the tenth of the service range.
    pub fn dns_address(&self) -> Ipv4Addr {
        self.service_cidr.nth(10)
    }

    /// The service `default/kubernetes`: the first of the service range.
    pub fn kubernetes_service_address(&self) -> Ipv4Addr {
        self.service_cidr.nth(1)
    }

    /// How parts on this machine reach the API server.
    pub fn local_url(&self) -> String {
        let host = if self.bind_address.is_unspecified() {
            IpAddr::V4(Ipv4Addr::LOCALHOST)
        } else {
            self.bind_address
        };
        format!("https://{}", SocketAddr::new(host, self.secure_port))
    }

    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.data_dir.join("admin.kubeconfig")
    }

    pub fn pki_dir(&self) -> PathBuf {
        self.data_dir.join("pki")
    }

    /// The keys that secrets are encrypted with at rest.
    pub fn encryption_key_file(&self) -> PathBuf {
        self.pki_dir().join("secrets-at-rest.keys")
    }

    /// The process id of the running service, while it runs.
    pub fn pid_file(&self) -> PathBuf {
        self.data_dir.join("gantry.pid")
    }

    /// What is gone after a reboot: sockets, namespaces, mounts.
    pub fn run_dir(&self) -> PathBuf {
        Path::new("/run").join(&self.instance)
    }
}

fn etcd_tls(
    ca_file: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    endpoints: &[String],
) -> anyhow::Result<Option<EtcdTls>> {
    let identity = both("etcd-certfile", certificate, "etcd-keyfile", key)?;
    let with = |scheme: &str| endpoints.iter().find(|endpoint| endpoint.starts_with(scheme));
    if ca_file.is_none() && identity.is_none() && with("https://").is_none() {
        return Ok(None);
    }
    match endpoints.iter().find(|endpoint| !endpoint.starts_with("https://")) {
        Some(plain) => bail!("to etcd some goes over TLS, and {plain} would go unprotected; write https://"),
        None => Ok(Some(EtcdTls { ca_file, identity })),
    }
}

/// Two flags of which neither makes sense without the other.
fn both<A, B>(a: &str, first: Option<A>, b: &str, second: Option<B>) -> anyhow::Result<Option<(A, B)>> {
    ensure!(first.is_some() == second.is_some(), "--{a} and --{b} need each other");
    Ok(first.zip(second))
}

fn read_file(path: &Path) -> anyhow::Result<CommonOptions> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read --config {}", path.display()))?;
    serde_saphyr::from_str(&text).map_err(|error| anyhow::anyhow!("--config {}: {error}", path.display()))
}

/// Two instances live side by side under two data directories, so the directory names the instance. Device names
/// have 15 bytes in all, hence the short form.
fn instance_name(data_dir: &Path) -> String {
    if data_dir == Path::new(DEFAULT_DATA_DIR) {
        return "gantry".to_string();
    }
    let hash = Sha256::digest(data_dir.as_os_str().as_encoded_bytes());
    let digits: String = hash.iter().take(3).map(|byte| format!("{byte:02x}")).collect();
    format!("g{digits}")
}

fn host_name() -> anyhow::Result<String> {
    let name = nix::unistd::gethostname().context("cannot read the host's name; give --node-name")?;
    Ok(name.to_string_lossy().to_ascii_lowercase())
}

fn check_node_name(name: &str) -> anyhow::Result<()> {
    let valid = !name.is_empty()
        && name.len() <= 253
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
        && name.split('.').all(|label| !label.is_empty() && !label.starts_with('-') && !label.ends_with('-'));
    ensure!(
        valid,
        "the node name {name:?} is not a DNS name of lower-case letters, digits, '-' and '.'; give another with --node-name"
    );
    Ok(())
}

/// The address that the default route would use. Connecting a datagram socket sends nothing.
fn default_address() -> IpAddr {
    UdpSocket::bind("0.0.0.0:0")
        .and_then(|socket| socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr()))
        .map(|address| address.ip())
        .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(flags: CommonOptions) -> String {
        Settings::resolve(&flags).unwrap_err().to_string()
    }

    #[test]
    fn overlapping_ranges_are_refused_by_name() {
        let flags = CommonOptions {
            pod_cidr: Some("10.96.0.0/12".into()),
            service_cidr: Some("10.96.0.0/16".into()),
            ..Default::default()
        };
        assert!(error(flags).contains("overlap"));
    }

    #[test]
    fn a_second_range_is_of_the_other_family() {
        let resolve = |pods: &str, services: &str| {
            let (pod_cidr, service_cidr) = (Some(pods.into()), Some(services.into()));
            let node_name = Some("n1".into());
            Settings::resolve(&CommonOptions { pod_cidr, service_cidr, node_name, ..Default::default() })
        };
        let (pods, services) = ("10.244.0.0/16,fd00:10:244::/56", "10.96.0.0/16,fd00:10:96::/112");
        let settings = resolve(pods, services).unwrap();
        assert_eq!((settings.pod_cidrs().as_str(), settings.service_cidrs().as_str()), (pods, services));
        for (pods, services, said) in [
            (pods, "10.96.0.0/16,10.97.0.0/16", "is not an IPv6 range"),
            (pods, "fd00:10:96::/112,10.96.0.0/16", "is not an IPv6 range"),
            (pods, "10.96.0.0/16,fd00:10:96::1/112", "write fd00:10:96::/112"),
            (pods, "10.96.0.0/16,fd00:10:244:7::/112", "overlap"),
            ("10.244.0.0/16,fd00:10:244::/72", services, "too small"),
        ] {
            let error = resolve(pods, services).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn a_port_that_nobody_could_know_is_refused() {
        let flags = CommonOptions { secure_port: Some(0), ..Default::default() };
        assert!(error(flags).contains("--secure-port 0"));
    }

    #[test]
    fn host_bits_in_a_range_are_told_with_the_right_range() {
        let flags = CommonOptions { pod_cidr: Some("10.244.1.0/16".into()), ..Default::default() };
        assert!(error(flags).contains("write 10.244.0.0/16"));
    }

    #[test]
    fn a_flag_beats_the_file_and_a_misspelt_key_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gantry.yml");
        std::fs::write(&path, "secure-port: 7443\nnode-name: from-file\n").unwrap();
        let mut flags = CommonOptions { config: Some(path.clone()), ..Default::default() };
        flags.node_name = Some("from-flag".into());
        let settings = Settings::resolve(&flags).unwrap();
        assert_eq!((settings.secure_port, settings.node_name.as_str()), (7443, "from-flag"));
        std::fs::write(&path, "secure-prot: 7443\n").unwrap();
        assert!(error(flags).contains("secure-prot"));
    }

    #[test]
    fn etcd_without_endpoints_is_refused() {
        let flags = CommonOptions { store: Some(StoreKind::Etcd), ..Default::default() };
        assert!(error(flags).contains("--etcd-endpoints"));
    }

    #[test]
    fn half_protected_connections_to_etcd_are_refused() {
        let endpoint = |scheme: &str| CommonOptions {
            store: Some(StoreKind::Etcd),
            etcd_endpoints: Some(vec![format!("{scheme}://127.0.0.1:2379")]),
            ..Default::default()
        };
        let file = || Some("file".into());
        assert_eq!(Settings::resolve(&endpoint("http")).unwrap().etcd_tls, None);
        // Whom the machine trusts.
        assert_eq!(Settings::resolve(&endpoint("https")).unwrap().etcd_tls, Some(EtcdTls::default()));
        assert!(error(CommonOptions { etcd_cafile: file(), ..endpoint("http") }).contains("unprotected"));
        let mut mixed = endpoint("https");
        mixed.etcd_endpoints.as_mut().unwrap().push("http://127.0.0.2:2379".into());
        assert!(error(mixed).contains("127.0.0.2:2379 would go unprotected"));
        let half = CommonOptions { etcd_certfile: file(), ..endpoint("https") };
        assert!(error(half).contains("--etcd-keyfile"));
        let half = CommonOptions { etcd_username: Some("gantry".into()), ..endpoint("http") };
        assert!(error(half).contains("--etcd-password-file"));
        let whole = CommonOptions { etcd_cafile: file(), ..endpoint("https") };
        assert_eq!(Settings::resolve(&whole).unwrap().etcd_tls.unwrap().ca_file, file());
    }

    #[test]
    fn another_data_directory_is_another_instance() {
        assert_eq!(instance_name(Path::new("/var/lib/gantry")), "gantry");
        assert_ne!(instance_name(Path::new("/a")), instance_name(Path::new("/b")));
    }
}
