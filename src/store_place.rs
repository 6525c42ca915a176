//! Where the store is, from flags: which directory, which etcd with which certificates.

use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use store::Store;
use store::care::Place;
use store::embedded::{EmbeddedOptions, EmbeddedStore};
use store::etcd::{EtcdOptions, EtcdStore};

use crate::cli::StoreKind;
use crate::settings::Settings;

/// The store that the flags and the configuration file name.
pub fn configured(settings: &Settings) -> Place {
    match settings.store {
        StoreKind::Embedded => Place::Directory(settings.data_dir.join("store")),
        StoreKind::Etcd => Place::Etcd(etcd(settings, settings.etcd_endpoints.clone())),
    }
}

/// A place as it is written on the command line: `etcd://HOST:PORT,HOST:PORT`, `etcds://…` over TLS, which is also taken
/// where flags name certificates, else a data directory.
pub fn parse(settings: &Settings, text: &str) -> anyhow::Result<Place> {
    let Some((scheme, members)) = text.split_once("://") else {
        return Ok(Place::Directory(std::path::absolute(text)?.join("store")));
    };
    let secure = match scheme {
        "etcd" => settings.etcd_tls.is_some(),
        "etcds" => true,
        _ => bail!("{text} is neither a directory nor etcd://HOST:PORT,HOST:PORT"),
    };
    let scheme = if secure { "https" } else { "http" };
    let endpoints = members.split(',').filter(|member| !member.is_empty());
    let endpoints: Vec<String> = endpoints.map(|member| format!("{scheme}://{member}")).collect();
    ensure!(!endpoints.is_empty(), "{text} names no member; write etcd://HOST:PORT,HOST:PORT");
    let mut options = etcd(settings, endpoints);
    options.tls = secure.then(|| options.tls.unwrap_or_default());
    Ok(Place::Etcd(options))
}

/// Opens the configured store for a server.
pub async fn open(settings: &Settings) -> anyhow::Result<Arc<dyn Store>> {
    let place = configured(settings);
    let cannot = format!("cannot use the store in {place}");
    match place {
        Place::Directory(directory) => {
            let store = EmbeddedStore::open(EmbeddedOptions::new(&directory)).context(cannot)?;
            Ok(Arc::new(store))
        }
        Place::Etcd(options) => Ok(Arc::new(EtcdStore::connect(options).await.context(cannot)?)),
    }
}

fn etcd(settings: &Settings, endpoints: Vec<String>) -> EtcdOptions {
    let mut options = EtcdOptions::new(endpoints);
    if let Some(prefix) = &settings.etcd_prefix {
        options.prefix.clone_from(prefix);
    }
    options.tls.clone_from(&settings.etcd_tls);
    options.user.clone_from(&settings.etcd_user);
    options
}
