//! OpenID Connect: an issuer outside says who its users are.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use apiserver::Security;
use apiserver::auth::OidcConfig;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use pki::{Authority, ClusterPki, ServerNames};
use serde_json::{Value, json};

use crate::cluster::{Caller, Cluster};
use crate::https::HttpsServer;

const REVIEWS: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

/// A P-256 key with its id.
struct Key {
    id: &'static str,
    signing: EncodingKey,
}

impl Key {
    fn new(id: &'static str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let pki =
            ClusterPki::ensure(directory.path(), &ServerNames::default(), jiff::Timestamp::now()).unwrap();
        Self { id, signing: EncodingKey::from_ec_pem(pki.service_account_key_pem.as_bytes()).unwrap() }
    }

    fn public(&self) -> Value {
        let mut key = Jwk::from_encoding_key(&self.signing, Algorithm::ES256).unwrap();
        key.common.key_id = Some(self.id.to_string());
        json!(key)
    }

    fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.id.to_string()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, claims, &self.signing).unwrap()
    }
}

struct World {
    cluster: Cluster,
    url: String,
    published: Arc<Mutex<Vec<Value>>>,
    server: HttpsServer,
}

impl World {
    async fn new(key: &Key) -> Self {
        let authority = Authority::create("identity provider", jiff::Timestamp::now()).unwrap();
        let published = Arc::new(Mutex::new(vec![key.public()]));
        let keys = published.clone();
        let url: Arc<Mutex<String>> = Arc::default();
        let own = url.clone();
        let server = HttpsServer::start(&authority, "issuer", move |path, _| {
            let url = own.lock().unwrap().clone();
            let answer = match path.as_str() {
                "/realm/.well-known/openid-configuration" => {
                    json!({"issuer": url, "jwks_uri": format!("{url}/keys")})
                }
                _ => json!({"keys": *keys.lock().unwrap()}),
            };
            Box::pin(async move { (200, answer.to_string()) })
        })
        .await;
        *url.lock().unwrap() = format!("https://{}/realm", server.address);
        let url = url.lock().unwrap().clone();
        let oidc = OidcConfig {
            issuer_url: url.clone(),
            client_id: "gantry".to_string(),
            authority_pem: authority.certificate_pem().as_bytes().to_vec(),
            username_claim: "email".to_string(),
            username_prefix: "oidc:".to_string(),
            groups_claim: Some("teams".to_string()),
            groups_prefix: "oidc:".to_string(),
            required_claims: BTreeMap::from([("hd".to_string(), "example.com".to_string())]),
            algorithms: vec![Algorithm::RS256, Algorithm::ES256],
        };
        let cluster = Cluster::start_with(Security { oidc: Some(oidc), ..Security::default() }).await;
        Self { cluster, url, published, server }
    }

    fn claims(&self) -> Value {
        let now = jiff::Timestamp::now().as_second();
        json!({"iss": self.url, "aud": ["gantry", "other"], "exp": now + 600, "iat": now, "sub": "1234",
            "email": "ada@example.com", "email_verified": true, "hd": "example.com", "teams": ["dev", "ops"]})
    }

    async fn who(&self, token: &str) -> (u16, Value) {
        let caller: Caller = self.cluster.bearer(token);
        let review = json!({"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1"});
        let answer = caller.post(REVIEWS, &review).await;
        (answer.code, answer.body["status"]["userInfo"].clone())
    }
}

#[tokio::test]
async fn an_issuers_users_come_with_their_groups_and_rights() {
    let key = Key::new("k1");
    let world = World::new(&key).await;
    let token = key.sign(&world.claims());
    let (code, user) = world.who(&token).await;
    assert_eq!((code, &user["username"]), (201, &json!("oidc:ada@example.com")));
    assert_eq!(user["groups"], json!(["oidc:dev", "oidc:ops", "system:authenticated"]));
    world.cluster.bind("default", "view", "group:oidc:dev").await;
    world.cluster.bearer(&token).get("/api/v1/namespaces/default/pods").await.expect(200);
    assert_eq!(world.server.count("/realm/keys"), 1, "keys are fetched once");
}

#[tokio::test]
async fn tokens_that_are_late_for_others_unverified_or_forged_are_refused() {
    let key = Key::new("k1");
    let world = World::new(&key).await;
    let now = jiff::Timestamp::now().as_second();
    for (claim, value) in [
        ("exp", json!(now - 60)),
        ("nbf", json!(now + 600)),
        ("aud", json!("somebody else")),
        ("email_verified", json!(false)),
        ("email", Value::Null),
        ("hd", json!("example.org")),
        ("iss", json!("https://elsewhere.example.com")),
    ] {
        let mut claims = world.claims();
        claims[claim] = value;
        assert_eq!(world.who(&key.sign(&claims)).await.0, 401, "{claim}");
    }
    let forger = Key::new("k1");
    assert_eq!(world.who(&forger.sign(&world.claims())).await.0, 401);
    let unsigned = {
        use base64::Engine;
        let part = |value: Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.", part(json!({"alg": "none"})), part(world.claims()))
    };
    assert_eq!(world.who(&unsigned).await.0, 401);
    assert_eq!(world.who(&key.sign(&world.claims())).await.0, 201);
}

#[tokio::test]
async fn a_key_that_is_new_is_found_and_the_clusters_own_tokens_still_count() {
    let first = Key::new("k1");
    let world = World::new(&first).await;
    let second = Key::new("k2");
    world.published.lock().unwrap().push(second.public());
    assert_eq!(world.who(&second.sign(&world.claims())).await.0, 201);
    assert_eq!(world.who(&first.sign(&world.claims())).await.0, 201);
    let account = world.cluster.account("default", "robot").await;
    let path = "/api/v1/namespaces/default/serviceaccounts/robot/token";
    let request = json!({"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": {}});
    let own = world.cluster.admin().post(path, &request).await.expect(201)["status"]["token"].clone();
    let (code, user) = world.who(own.as_str().unwrap()).await;
    assert_eq!((code, &user["uid"]), (201, &account["metadata"]["uid"]));
}
