//! Secrets at rest: unreadable below, plain above, over either store.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use apiserver::encryption::{EncryptedStore, EncryptionError, rotate_key};
use serde_json::{Value, json};
use store::{Range, ReadAt, Store};
use tokio_util::sync::CancellationToken;

use crate::server::TestServer;

const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const VALUE: &str = "c2VhIG90dGVy";

fn secret(name: &str) -> Value {
    json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": name}, "data": {"animal": VALUE}})
}

/// What lies in the store below.
async fn raw(store: &Arc<dyn Store>, name: &str) -> String {
    let key = format!("/registry/core/secrets/default/{name}");
    let entry = store.get(&key, ReadAt::Current).await.unwrap().entry.unwrap();
    String::from_utf8_lossy(&entry.value).into_owned()
}

/// A server whose secrets are sealed.
async fn sealed(below: &TestServer, path: &Path) -> (Arc<EncryptedStore>, TestServer) {
    let store = Arc::new(EncryptedStore::open(below.store.clone(), path).await.unwrap());
    let server = below.over_store(store.clone()).await;
    (store, server)
}

#[tokio::test]
async fn secrets_are_unreadable_in_the_store_and_plain_to_clients() {
    let below = TestServer::start().await;
    let path = below.directory().join("keys");
    let (_, server) = sealed(&below, &path).await;
    server.post(SECRETS, &secret("s")).await.expect(201);
    let map = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "m"}, "data": {"plain": "sea otter"}});
    server.post("/api/v1/namespaces/default/configmaps", &map).await.expect(201);

    let at_rest = raw(&below.store, "s").await;
    assert!(
        at_rest.starts_with("gantry:sealed:1:") && !at_rest.contains(VALUE) && !at_rest.contains("animal")
    );
    let everything = below.store.range(Range { prefix: "/".into(), ..Range::default() }).await.unwrap();
    let found = |text: &str| {
        everything.entries.iter().any(|entry| entry.value.windows(text.len()).any(|w| w == text.as_bytes()))
    };
    assert!(found("sea otter") && !found(VALUE));

    let got = server.get(&format!("{SECRETS}/s")).await.expect(200);
    assert_eq!(got["data"]["animal"], VALUE);
    let changed = json!({"data": {"plant": "a2VscA=="}});
    server.merge(&format!("{SECRETS}/s"), &changed).await.expect(200);
    let list = server.get(SECRETS).await.expect(200);
    assert_eq!(list["items"][0]["data"], json!({"animal": VALUE, "plant": "a2VscA=="}));

    let (_, again) = sealed(&below, &path).await;
    assert_eq!(again.get(&format!("{SECRETS}/s")).await.expect(200)["data"]["plant"], "a2VscA==");
    server.delete(&format!("{SECRETS}/s")).await.expect(200);
}

#[tokio::test]
async fn what_was_written_before_is_read_and_sealed_and_keys_rotate_under_a_running_server() {
    let below = TestServer::start().await;
    below.post(SECRETS, &secret("old")).await.expect(201);
    assert!(raw(&below.store, "old").await.contains(VALUE));
    let path = below.directory().join("keys");
    let (store, server) = sealed(&below, &path).await;
    assert_eq!(server.get(&format!("{SECRETS}/old")).await.expect(200)["data"]["animal"], VALUE);
    let stop = CancellationToken::new();
    let following = tokio::spawn(store.clone().follow_key_file(stop.clone()));
    let sealed_with = |id: String| {
        let below = &below;
        async move {
            let beginning = format!("gantry:sealed:1:{id}");
            let wait = async {
                while !raw(&below.store, "old").await.starts_with(&beginning) {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(60), wait).await.expect("sealed anew");
        }
    };
    sealed_with(String::new()).await;
    let ids = rotate_key(&path).unwrap();
    sealed_with(ids[0].clone()).await;
    assert_eq!(server.get(&format!("{SECRETS}/old")).await.expect(200)["data"]["animal"], VALUE);
    server.post(SECRETS, &secret("new")).await.expect(201);
    assert!(raw(&below.store, "new").await.contains(&ids[0]));
    stop.cancel();
    following.await.unwrap();
    assert_eq!(store.seal_anew().await.unwrap(), 0, "nothing is written twice");
}

#[tokio::test]
async fn a_missing_or_wrong_key_is_told_at_the_start_and_nothing_is_written() {
    let below = TestServer::start_alone().await;
    let path = below.directory().join("keys");
    let (_, server) = sealed(&below, &path).await;
    server.post(SECRETS, &secret("s")).await.expect(201);
    let before = below.store.current_revision().await.unwrap();
    let away = below.directory().join("away");
    std::fs::rename(&path, &away).unwrap();
    let error = EncryptedStore::open(below.store.clone(), &path).await.err().unwrap();
    assert!(matches!(error, EncryptionError::Missing(_)) && !path.exists(), "{error}");

    let other = TestServer::start().await;
    EncryptedStore::open(other.store.clone(), &path).await.unwrap();
    let error = EncryptedStore::open(below.store.clone(), &path).await.err().unwrap();
    assert!(
        error.to_string().contains("/registry/core/secrets/default/s cannot be read with the keys in"),
        "{error}"
    );
    assert_eq!(below.store.current_revision().await.unwrap(), before);
    std::fs::rename(&away, &path).unwrap();
    EncryptedStore::open(below.store.clone(), &path).await.unwrap();
}
