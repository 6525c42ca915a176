//! The files under `<data-dir>/pki`: made when missing, renewed when due, otherwise left alone.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rcgen::KeyPair;
use x509_parser::extensions::GeneralName;

use crate::{Authority, CertificateAndKey, Leaf, PkiError, Usage, files};

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// The names and addresses that the API server answers by.
#[derive(Clone, Debug, Default)]
pub struct ServerNames {
    /// Host names, beside those every API server has.
    pub dns_names: Vec<String>,
    /// Addresses, the first of the service range among them.
    pub addresses: Vec<IpAddr>,
}

/// The control plane's keys and certificates.
pub struct ClusterPki {
    /// Signs everything.
    pub authority: Authority,
    /// The API server's serving certificate.
    pub apiserver: CertificateAndKey,
    /// The API server's identity towards the agents.
    pub apiserver_client: CertificateAndKey,
    /// `kubernetes-admin` in `system:masters`.
    pub admin: CertificateAndKey,
    /// Signs service-account tokens.
    pub service_account_key_pem: String,
}

impl ClusterPki {
    /// Loads what is there, makes what is missing and renews what is due.
    pub fn ensure(directory: &Path, names: &ServerNames, now: Timestamp) -> Result<Self, PkiError> {
        let authority = ensure_authority(directory, now)?;
        let mut server = Leaf::client("kube-apiserver", None);
        server.usage = Usage::Server;
        server.lifetime = YEAR;
        for name in ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"] {
            server.dns_names.push(name.to_string());
        }
        server.dns_names.push("kubernetes.default.svc.cluster.local".to_string());
        server.dns_names.extend(names.dns_names.iter().cloned());
        server.addresses = names.addresses.clone();
        let masters = Some("system:masters");
        Ok(Self {
            apiserver: ensure_leaf(directory, "apiserver", &authority, &server, now)?,
            apiserver_client: ensure_leaf(
                directory,
                "apiserver-kubelet-client",
                &authority,
                &Leaf::client("system:apiserver", masters),
                now,
            )?,
            admin: ensure_leaf(
                directory,
                "admin",
                &authority,
                &Leaf::client("kubernetes-admin", masters),
                now,
            )?,
            service_account_key_pem: ensure_key(&directory.join("sa.key"))?,
            authority,
        })
    }
}

/// A node's certificates, as the cluster signed them.
pub struct NodePki {
    directory: PathBuf,
}

impl NodePki {
    /// The node's files live in this directory.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// What is stored under a name, if it is there, says what `leaf` says, and is not due for renewal.
    pub fn load(
        &self,
        name: &str,
        leaf: &Leaf,
        now: Timestamp,
    ) -> Result<Option<CertificateAndKey>, PkiError> {
        load_pair(&self.directory, name, leaf, now)
    }

    /// Stores a certificate with its key.
    pub fn store(&self, name: &str, pair: &CertificateAndKey) -> Result<(), PkiError> {
        store_pair(&self.directory, name, pair)
    }

    /// Where a certificate and its key are.
    pub fn paths(&self, name: &str) -> (PathBuf, PathBuf) {
        paths(&self.directory, name)
    }

    /// The authority that the node trusts, if it has met it.
    pub fn authority_pem(&self) -> Result<Option<String>, PkiError> {
        let path = self.directory.join("ca.crt");
        if path.exists() { files::read(&path).map(Some) } else { Ok(None) }
    }

    /// Remembers the authority.
    pub fn store_authority(&self, certificate_pem: &str) -> Result<(), PkiError> {
        files::write(&self.directory.join("ca.crt"), certificate_pem, 0o644)
    }
}

fn ensure_authority(directory: &Path, now: Timestamp) -> Result<Authority, PkiError> {
    let (certificate, key) = paths(directory, "ca");
    if certificate.exists() && key.exists() {
        return Authority::load(&files::read(&certificate)?, &files::read(&key)?);
    }
    if certificate.exists() {
        // A new authority would cut off every node and every kubeconfig: that is for a person to decide.
        let why = "the certificate is there, the key is not; restore it, or remove both to start anew";
        return Err(PkiError::malformed(key.display().to_string(), why));
    }
    let authority = Authority::create("gantry-ca", now)?;
    files::write_private(&key, authority.key_pem())?;
    files::write(&certificate, authority.certificate_pem(), 0o644)?;
    Ok(authority)
}

fn ensure_leaf(
    directory: &Path,
    name: &str,
    authority: &Authority,
    leaf: &Leaf,
    now: Timestamp,
) -> Result<CertificateAndKey, PkiError> {
    if let Some(pair) = load_pair(directory, name, leaf, now)? {
        return Ok(pair);
    }
    let pair = authority.issue(leaf, now)?;
    store_pair(directory, name, &pair)?;
    Ok(pair)
}

fn ensure_key(path: &Path) -> Result<String, PkiError> {
    if path.exists() {
        return files::read(path);
    }
    let key = KeyPair::generate().map_err(|e| PkiError::malformed("a new key", e))?.serialize_pem();
    files::write_private(path, &key)?;
    Ok(key)
}

fn paths(directory: &Path, name: &str) -> (PathBuf, PathBuf) {
    (directory.join(format!("{name}.crt")), directory.join(format!("{name}.key")))
}

fn store_pair(directory: &Path, name: &str, pair: &CertificateAndKey) -> Result<(), PkiError> {
    let (certificate, key) = paths(directory, name);
    files::write_private(&key, &pair.key_pem)?;
    files::write(&certificate, &pair.certificate_pem, 0o644)
}

fn load_pair(
    directory: &Path,
    name: &str,
    leaf: &Leaf,
    now: Timestamp,
) -> Result<Option<CertificateAndKey>, PkiError> {
    let (certificate, key) = paths(directory, name);
    if !certificate.exists() || !key.exists() {
        return Ok(None);
    }
    let pair = CertificateAndKey { certificate_pem: files::read(&certificate)?, key_pem: files::read(&key)? };
    Ok(still_good(&pair, leaf, now).then_some(pair))
}

/// Whether a stored certificate matches its key, says everything that it should, and has a third of its life left.
fn still_good(pair: &CertificateAndKey, leaf: &Leaf, now: Timestamp) -> bool {
    let Ok((_, pem)) = x509_parser::pem::parse_x509_pem(pair.certificate_pem.as_bytes()) else {
        return false;
    };
    let Ok(certificate) = pem.parse_x509() else { return false };
    let Ok(key) = KeyPair::from_pem(&pair.key_pem) else { return false };
    if certificate.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
        return false;
    }
    let begin = certificate.validity().not_before.timestamp();
    let Ok(due) = crate::renewal::due(certificate.validity()) else { return false };
    if now.as_second() < begin || now > due {
        return false;
    }
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.as_ref().map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
    let says = |wanted: GeneralName| names.contains(&wanted);
    leaf.dns_names.iter().all(|name| says(GeneralName::DNSName(name)))
        && leaf.addresses.iter().all(|address| match address {
            IpAddr::V4(address) => says(GeneralName::IPAddress(&address.octets())),
            IpAddr::V6(address) => says(GeneralName::IPAddress(&address.octets())),
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn names(addresses: &[&str]) -> ServerNames {
        ServerNames { dns_names: vec![], addresses: addresses.iter().map(|a| a.parse().unwrap()).collect() }
    }

    #[test]
    fn a_second_start_finds_the_same_certificates() {
        let directory = tempfile::tempdir().unwrap();
        let now = Timestamp::now();
        let first = ClusterPki::ensure(directory.path(), &names(&["10.0.0.1"]), now).unwrap();
        let second = ClusterPki::ensure(directory.path(), &names(&["10.0.0.1"]), now).unwrap();
        assert_eq!(first.apiserver.certificate_pem, second.apiserver.certificate_pem);
        assert_eq!(first.service_account_key_pem, second.service_account_key_pem);
        let mode = std::fs::metadata(directory.path().join("ca.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_new_address_or_old_age_renews_the_serving_certificate_but_not_the_authority() {
        let directory = tempfile::tempdir().unwrap();
        let now = Timestamp::now();
        let first = ClusterPki::ensure(directory.path(), &names(&["10.0.0.1"]), now).unwrap();
        let moved = ClusterPki::ensure(directory.path(), &names(&["10.0.0.2"]), now).unwrap();
        assert_ne!(first.apiserver.certificate_pem, moved.apiserver.certificate_pem);
        assert_eq!(first.admin.certificate_pem, moved.admin.certificate_pem);
        let later = now + jiff::SignedDuration::from_hours(24 * 300);
        let renewed = ClusterPki::ensure(directory.path(), &names(&["10.0.0.2"]), later).unwrap();
        assert_ne!(moved.admin.certificate_pem, renewed.admin.certificate_pem);
        assert_eq!(first.authority.certificate_pem(), renewed.authority.certificate_pem());
    }

    #[test]
    fn a_lost_authority_key_is_told_and_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        ClusterPki::ensure(directory.path(), &names(&[]), Timestamp::now()).unwrap();
        std::fs::remove_file(directory.path().join("ca.key")).unwrap();
        let error = ClusterPki::ensure(directory.path(), &names(&[]), Timestamp::now()).err().unwrap();
        assert!(error.to_string().contains("ca.key"), "{error}");
    }
}
