//! The etcd backend and an etcd that asks who comes: certificates, users and their passwords.
//! Needs `etcd` on the path (Debian: `etcd-server`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // A test.

mod suite;

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use etcd_client::{Client, ConnectOptions, Permission};
use jiff::Timestamp;
use pki::{Authority, Leaf, Usage};
use store::etcd::{EtcdOptions, EtcdStore, EtcdTls, EtcdUser};
use store::{ReadAt, Store, StoreError};
use suite::{PATIENCE, commit, next_changes, put, short_lived, value_of};
use tempfile::TempDir;
use testbed::Etcd;

/// An authority with certificates for a server on loopback and a client, as files.
struct Pki {
    dir: TempDir,
}

impl Pki {
    fn create() -> Self {
        let (dir, now) = (TempDir::new().unwrap(), Timestamp::now());
        let authority = Authority::create("etcd", now).unwrap();
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let server = Leaf { addresses: vec![loopback], usage: Usage::Server, ..Leaf::client("etcd", None) };
        let write = |name: &str, text: &str| {
            std::fs::write(dir.path().join(format!("{name}.pem")), text).unwrap();
        };
        write("ca", authority.certificate_pem());
        for (name, leaf) in [("server", server), ("client", Leaf::client("gantry", None))] {
            let issued = authority.issue(&leaf, now).unwrap();
            write(name, &issued.certificate_pem);
            write(&format!("{name}-key"), &issued.key_pem);
        }
        Self { dir }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.pem"))
    }

    fn identity(&self) -> Option<(PathBuf, PathBuf)> {
        Some((self.file("client"), self.file("client-key")))
    }

    fn tls(&self) -> EtcdTls {
        EtcdTls { ca_file: Some(self.file("ca")), identity: self.identity() }
    }
}

async fn refused(options: EtcdOptions) -> String {
    EtcdStore::connect(options).await.expect_err("it should be refused").to_string()
}

#[tokio::test]
async fn over_tls_both_sides_prove_who_they_are_and_the_file_to_blame_is_named() {
    let (ours, others) = (Pki::create(), Pki::create());
    let etcd = Etcd::start_with(1, Some(ours.dir.path()), &[]);
    let options = |tls: EtcdTls| EtcdOptions {
        tls: Some(tls),
        connect_timeout: Duration::from_secs(3),
        ..etcd.options()
    };
    let store = Etcd::connect_with(options(ours.tls())).await;
    commit(&store, [put("/a", "1")]).await;
    assert_eq!(value_of(&store, "/a").await.as_deref(), Some("1"));
    let (key, missing) = (ours.file("client-key"), ours.file("missing"));
    let no_identity = EtcdTls { identity: None, ..ours.tls() };
    let identity = |certificate: &Path| Some((certificate.to_owned(), key.clone()));
    let name = |path: PathBuf| path.to_str().unwrap().to_owned();
    let wrong = [
        (no_identity, "we have no certificate".to_owned()),
        (EtcdTls { identity: others.identity(), ..ours.tls() }, name(others.file("client"))),
        (EtcdTls { ca_file: Some(others.file("ca")), ..ours.tls() }, name(others.file("ca"))),
        (EtcdTls { ca_file: None, ..ours.tls() }, "this machine trusts".to_owned()),
        (EtcdTls { ca_file: Some(missing.clone()), ..ours.tls() }, name(missing.clone())),
        (EtcdTls { identity: identity(&missing), ..ours.tls() }, name(missing.clone())),
        (EtcdTls { identity: identity(&key), ..ours.tls() }, name(key.clone())),
        (EtcdTls { identity: identity(&ours.file("server")), ..ours.tls() }, name(ours.file("server"))),
    ];
    for (tls, expected) in wrong {
        let error = refused(options(tls.clone())).await;
        println!("{error}");
        assert!(error.contains(&etcd.url(0)) && error.contains(&expected), "{tls:?}: {error}");
    }
}

/// One who may do everything, by a client of their own.
async fn root(etcd: &Etcd, has_password: bool) -> Client {
    let mut options = ConnectOptions::new().with_auto_token_refresh(true);
    if has_password {
        options = options.with_user("root", "secret of root");
    }
    Client::connect([etcd.url(0)], Some(options)).await.unwrap()
}

/// Has etcd ask for users, of whom `gantry` may use the keys below `/gantry`.
async fn ask_for_users(etcd: &Etcd) -> Client {
    drop(etcd.connect().await);
    let mut client = root(etcd, false).await;
    client.user_add("root", "secret of root", None).await.unwrap();
    client.user_grant_role("root", "root").await.unwrap();
    client.user_add("gantry", "hunter2", None).await.unwrap();
    client.role_add("keeper").await.unwrap();
    client.role_grant_permission("keeper", Permission::read_write("/gantry").with_prefix()).await.unwrap();
    client.user_grant_role("gantry", "keeper").await.unwrap();
    client.auth_enable().await.unwrap();
    root(etcd, true).await
}

fn user(dir: &TempDir, password: &str) -> Option<EtcdUser> {
    let password_file = dir.path().join("password");
    std::fs::write(&password_file, password).unwrap();
    Some(EtcdUser { name: "gantry".to_owned(), password_file })
}

#[tokio::test]
async fn a_user_with_a_password_keeps_a_store_below_its_own_prefix() {
    let (mut etcd, dir) = (Etcd::start(1), TempDir::new().unwrap());
    let anonymous = EtcdOptions { connect_timeout: Duration::from_secs(3), ..etcd.options() };
    drop(etcd.connect().await);
    let early = refused(EtcdOptions { user: user(&dir, "hunter2\n"), ..anonymous.clone() }).await;
    assert!(early.contains(&etcd.url(0)) && early.contains("not enabled"), "{early}");
    ask_for_users(&etcd).await;
    let known = |password| EtcdOptions { user: user(&dir, password), ..anonymous.clone() };

    let error = refused(anonymous.clone()).await;
    assert!(error.contains(&etcd.url(0)) && error.contains("asks for a user"), "{error}");
    let error = refused(known("wrong")).await;
    let password_file = dir.path().join("password");
    assert!(error.contains("as gantry") && error.contains(password_file.to_str().unwrap()), "{error}");
    let error = refused(EtcdOptions { prefix: "/elsewhere".into(), ..known("hunter2") }).await;
    assert!(error.contains(&etcd.url(0)) && error.contains("permission denied"), "{error}");

    let options = EtcdOptions { history_age: Some(Duration::from_millis(300)), ..known("hunter2\n") };
    let store = EtcdStore::connect(options).await.unwrap();
    let mut watch = store.watch("/w/", None).await.unwrap();
    let first = commit(&store, [put("/w/a", "1"), short_lived("/w/t", PATIENCE)]).await.revision;
    assert_eq!(next_changes(&mut watch).await.0, first);
    // etcd's history is given up by this user too.
    let deadline = Instant::now() + PATIENCE;
    loop {
        commit(&store, [put("/x", "1")]).await;
        match store.get("/w/a", ReadAt::Revision(first)).await {
            Err(StoreError::Compacted { .. }) => break,
            outcome => assert!(Instant::now() < deadline, "{outcome:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // After a restart etcd knows nobody's token any more.
    etcd.kill(0);
    etcd.run(0);
    let second = loop {
        match store.commit(vec![put("/w/b", "2")]).await {
            Ok(committed) => break committed.revision,
            Err(StoreError::Unavailable(_)) if Instant::now() < deadline => {}
            Err(other) => panic!("{other}"),
        }
    };
    assert_eq!(next_changes(&mut watch).await.0, second);
    assert_eq!(value_of(&store, "/w/b").await.as_deref(), Some("2"));
}

#[tokio::test]
async fn tokens_that_end_or_are_older_than_what_users_may_do_are_made_anew() {
    let dir = TempDir::new().unwrap();
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "with this etcd signs its tokens").unwrap();
    let token = format!("--auth-token=jwt,priv-key={},sign-method=HS256,ttl=2s", secret.display());
    let etcd = Etcd::start_with(1, None, &[&token]);
    let mut root = ask_for_users(&etcd).await;
    let store = Etcd::connect_with(EtcdOptions { user: user(&dir, "hunter2"), ..etcd.options() }).await;
    for round in 0..3 {
        let changed = root.role_add(format!("role-{round}")).await;
        changed.unwrap();
        commit(&store, [put("/a", &round.to_string())]).await;
        let mut watch = store.watch("/a", None).await.unwrap();
        root.role_delete(format!("role-{round}")).await.unwrap();
        let revision = commit(&store, [put("/a", "again")]).await.revision;
        assert_eq!(next_changes(&mut watch).await.0, revision);
        root.role_add(format!("more-{round}")).await.unwrap();
        let mut watch = store.watch("/a", Some(revision)).await.unwrap();
        assert_eq!(next_changes(&mut watch).await.0, revision);
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut watch = store.watch("/a", None).await.unwrap();
    let revision = commit(&store, [put("/a", "late")]).await.revision;
    assert_eq!(next_changes(&mut watch).await.0, revision);
}
