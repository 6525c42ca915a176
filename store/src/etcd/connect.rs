//! Connecting: what etcd asks of those who connect, from files, and errors that name etcd and the file that is to blame.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use etcd_client::{Certificate, ConnectOptions, Identity, TlsOptions};
use rustls::RootCertStore;

use super::EtcdOptions;
use crate::StoreError;

/// The files, in PEM, for talking to etcd over TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EtcdTls {
    /// Who signs the members' certificates. Without it, those whom this machine trusts may.
    pub ca_file: Option<PathBuf>,
    /// Our own certificate chain and its key, if etcd asks for one.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Who we are to an etcd that asks for users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdUser {
    /// The user.
    pub name: String,
    /// The file that holds the password. An end of line after it is not part of it.
    pub password_file: PathBuf,
}

/// How to connect; reads the files.
pub(super) fn connect_options(options: &EtcdOptions) -> Result<ConnectOptions, StoreError> {
    let mut connect = ConnectOptions::new()
        .with_connect_timeout(options.connect_timeout)
        .with_keep_alive(Duration::from_secs(10), Duration::from_secs(5))
        .with_keep_alive_while_idle(true)
        .with_require_leader(true)
        .with_auto_token_refresh(true);
    if let Some(tls) = &options.tls {
        connect = connect.with_tls(tls.settings()?);
    }
    Ok(connect)
}

impl EtcdUser {
    /// The name and the password.
    pub(super) fn credentials(&self) -> Result<(String, String), StoreError> {
        let password = String::from_utf8(read(&self.password_file)?)
            .map_err(|_| StoreError::Setup(format!("{} holds no text", self.password_file.display())))?;
        Ok((self.name.clone(), password.trim_end_matches(['\r', '\n']).to_owned()))
    }
}

impl EtcdTls {
    fn settings(&self) -> Result<TlsOptions, StoreError> {
        let mut settings = match &self.ca_file {
            Some(file) => TlsOptions::new().ca_certificate(Certificate::from_pem(read(file)?)),
            None => {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                TlsOptions::new().trust_anchors(roots.roots)
            }
        };
        if let Some((certificate, key)) = &self.identity {
            settings = settings.identity(Identity::from_pem(read(certificate)?, read(key)?));
        }
        Ok(settings)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, StoreError> {
    std::fs::read(path).map_err(|error| StoreError::Setup(format!("cannot read {}: {error}", path.display())))
}

/// The cause of an error that says it best: the innermost.
pub(super) fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut cause = match error.downcast_ref() {
        // It keeps its cause to itself.
        Some(etcd_client::Error::TransportError(cause)) => cause,
        _ => error,
    };
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// Says which etcd an error is about, and which file is to blame.
pub(super) fn named(options: &EtcdOptions, error: StoreError) -> StoreError {
    let name = |reason: String| {
        format!("etcd at {}: {reason}{}", options.endpoints.join(","), blame(options, &reason))
    };
    match error {
        StoreError::Setup(reason) => StoreError::Setup(name(reason)),
        StoreError::Unavailable(reason) => StoreError::Unavailable(name(reason)),
        other => other,
    }
}

/// What those say whom our certificate does not please, and what is said of one that does not go with its key.
const REFUSALS: [&str; 7] = ["alert", "closed", "reset", "pipe", "key", "TLS", "no certificate"];

fn blame(options: &EtcdOptions, reason: &str) -> String {
    match (&options.tls, &options.user) {
        (Some(EtcdTls { ca_file, .. }), _) if reason.contains("peer certificate") => match ca_file {
            Some(file) => format!(" (it is checked against {})", file.display()),
            None => " (it is checked against the authorities that this machine trusts)".to_owned(),
        },
        (Some(EtcdTls { identity, .. }), _) if REFUSALS.iter().any(|said| reason.contains(said)) => {
            match identity {
                Some((certificate, _)) => format!(" (our certificate is {})", certificate.display()),
                None => " (we have no certificate to show)".to_owned(),
            }
        }
        (_, Some(user)) if reason.contains("authentication failed") => {
            format!(" (as {}, with the password in {})", user.name, user.password_file.display())
        }
        (_, None) if reason.contains("user name is empty") => {
            " (it asks for a user and a password)".to_owned()
        }
        _ => String::new(),
    }
}
