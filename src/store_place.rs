//! Where the store is, from flags: which directory, which etcd with which certificates.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, ensure};
use store::Store;
use store::care::Place;
use store::embedded::{EmbeddedOptions, EmbeddedStore};
use store::etcd::{EtcdOptions, EtcdStore, EtcdTls};

use crate::cli::StoreKind;
use crate::settings::Settings;

/// The store that the flags and the configuration file name.
pub fn configured(settings: &Settings) -> anyhow::Result<Place> {
    match settings.store {
        StoreKind::Embedded => Ok(Place::Directory(settings.data_dir.join("store"))),
        StoreKind::Etcd => Ok(Place::Etcd(etcd(settings, settings.etcd_endpoints.clone())?)),
    }
}

/// A place as it is written on the command line: `etcd://HOST:PORT,HOST:PORT`, else a data directory.
pub fn parse(settings: &Settings, text: &str) -> anyhow::Result<Place> {
    let Some(members) = text.strip_prefix("etcd://") else {
        ensure!(!text.contains("://"), "{text} is neither a directory nor etcd://HOST:PORT,HOST:PORT");
        return Ok(Place::Directory(std::path::absolute(text)?.join("store")));
    };
    let scheme = if settings.etcd_tls.is_some() { "https" } else { "http" };
    let endpoints = members.split(',').filter(|member| !member.is_empty());
    let endpoints: Vec<String> = endpoints.map(|member| format!("{scheme}://{member}")).collect();
    ensure!(!endpoints.is_empty(), "{text} names no member; write etcd://HOST:PORT,HOST:PORT");
    Ok(Place::Etcd(etcd(settings, endpoints)?))
}

/// Opens the configured store for a server.
pub async fn open(settings: &Settings) -> anyhow::Result<Arc<dyn Store>> {
    let place = configured(settings)?;
    let cannot = format!("cannot use the store in {place}");
    match place {
        Place::Directory(directory) => {
            let store = EmbeddedStore::open(EmbeddedOptions::new(&directory)).context(cannot)?;
            Ok(Arc::new(store))
        }
        Place::Etcd(options) => Ok(Arc::new(EtcdStore::connect(options).await.context(cannot)?)),
    }
}

fn etcd(settings: &Settings, endpoints: Vec<String>) -> anyhow::Result<EtcdOptions> {
    let mut options = EtcdOptions::new(endpoints);
    if let Some(prefix) = &settings.etcd_prefix {
        options.prefix.clone_from(prefix);
    }
    if let Some(files) = &settings.etcd_tls {
        let identity = match &files.identity {
            Some((certificate, key)) => Some((read(certificate)?, read(key)?)),
            None => None,
        };
        options.tls = Some(EtcdTls { ca: read(&files.authority)?, identity });
    }
    Ok(options)
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
