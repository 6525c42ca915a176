//! Tokens of service accounts: what they are bound to, how long they live, and every way to forge one.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use crate::cluster::{Cluster, ISSUER};

const REVIEW: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const ME: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

fn request(spec: Value) -> Value {
    json!({"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": spec})
}

fn path(account: &str) -> String {
    format!("/api/v1/namespaces/default/serviceaccounts/{account}/token")
}

fn claims(token: &str) -> Value {
    let part = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

fn text(answer: &Value) -> String {
    answer["status"]["token"].as_str().unwrap().to_string()
}

async fn cluster_with_account() -> Cluster {
    let cluster = Cluster::start().await;
    cluster.account("default", "robot").await;
    cluster
}

async fn issue(cluster: &Cluster, spec: Value) -> String {
    text(&cluster.admin().post(&path("robot"), &request(spec)).await.expect(201))
}

async fn code(cluster: &Cluster, token: &str) -> u16 {
    let me = json!({"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1"});
    cluster.bearer(token).post(ME, &me).await.code
}

#[tokio::test]
async fn a_token_is_good_for_its_account() {
    let cluster = cluster_with_account().await;
    let answer = cluster.admin().post(&path("robot"), &request(json!({}))).await.expect(201);
    assert_eq!(answer["spec"]["audiences"], json!([ISSUER]));
    assert_eq!(answer["spec"]["expirationSeconds"], 3600);
    let me = json!({"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1"});
    let me = cluster.bearer(&text(&answer)).post(ME, &me).await.expect(201)["status"]["userInfo"].clone();
    assert_eq!(me["username"], "system:serviceaccount:default:robot");
    assert_eq!(
        me["groups"],
        json!(["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"])
    );
    let id = me["extra"]["authentication.kubernetes.io/credential-id"][0].as_str().unwrap();
    assert!(id.starts_with("JTI="), "{id}");
}

#[tokio::test]
async fn lifetimes_and_names_have_bounds() {
    let cluster = cluster_with_account().await;
    let admin = cluster.admin();
    let bad = [
        (599, "may not specify a duration less than 10 minutes"),
        (4_294_967_297_i64, "may not specify a duration larger than 2^32 seconds"),
    ];
    for (seconds, why) in bad {
        let answer =
            admin.post(&path("robot"), &request(json!({"expirationSeconds": seconds}))).await.expect(422);
        assert!(answer["message"].as_str().unwrap().contains(why), "{answer:#}");
    }
    let token = issue(&cluster, json!({"expirationSeconds": 600})).await;
    let said = claims(&token);
    assert_eq!(said["exp"].as_i64().unwrap() - said["iat"].as_i64().unwrap(), 600);
    let mut named = request(json!({}));
    named["metadata"] = json!({"name": "other"});
    admin.post(&path("robot"), &named).await.expect(422);
    named["metadata"] = json!({"name": "robot", "uid": "wrong"});
    admin.post(&path("robot"), &named).await.expect(409);
    admin.post(&path("nobody"), &request(json!({}))).await.expect(404);
    cluster.user("vera", &[]).post(&path("robot"), &request(json!({}))).await.refused();
}

#[tokio::test]
async fn a_token_ends_with_its_pod_its_secret_its_node_and_its_account() {
    let cluster = cluster_with_account().await;
    let node = cluster.make_node("n1").await;
    let pod = cluster
        .pod("default", "p", "n1", json!({"serviceAccountName": "robot", "terminationGracePeriodSeconds": 0}))
        .await;
    let secret = json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "s"}});
    cluster.admin().post("/api/v1/namespaces/default/secrets", &secret).await.expect(201);
    let bound =
        |kind: &str, name: &str| json!({"boundObjectRef": {"kind": kind, "apiVersion": "v1", "name": name}});
    let by_pod = issue(&cluster, bound("Pod", "p")).await;
    let said = claims(&by_pod)["kubernetes.io"].clone();
    assert_eq!(said["pod"], json!({"name": "p", "uid": pod["metadata"]["uid"]}));
    assert_eq!(said["node"], json!({"name": "n1", "uid": node["metadata"]["uid"]}));
    let (by_secret, by_node) =
        (issue(&cluster, bound("Secret", "s")).await, issue(&cluster, bound("Node", "n1")).await);
    let by_account = issue(&cluster, json!({})).await;
    for token in [&by_pod, &by_secret, &by_node, &by_account] {
        assert_eq!(code(&cluster, token).await, 201);
    }
    let admin = cluster.admin();
    admin.delete("/api/v1/namespaces/default/pods/p?gracePeriodSeconds=0").await.expect(200);
    admin.delete("/api/v1/namespaces/default/secrets/s").await.expect(200);
    admin.delete("/api/v1/nodes/n1").await.expect(200);
    cluster.server.objects().catch_up().await;
    for token in [&by_pod, &by_secret, &by_node] {
        assert_eq!(code(&cluster, token).await, 401);
    }
    // A new pod of the same name is another pod.
    cluster.pod("default", "p", "", json!({"serviceAccountName": "robot"})).await;
    assert_eq!(code(&cluster, &by_pod).await, 401);
    assert_eq!(code(&cluster, &by_account).await, 201);
    admin.delete("/api/v1/namespaces/default/serviceaccounts/robot").await.expect(200);
    cluster.server.objects().catch_up().await;
    assert_eq!(code(&cluster, &by_account).await, 401);
    cluster.account("default", "robot").await;
    assert_eq!(code(&cluster, &by_account).await, 401, "a new account of the same name is another");
}

#[tokio::test]
async fn a_token_is_bound_only_to_what_is_there_and_fits() {
    let cluster = cluster_with_account().await;
    cluster.account("default", "default").await;
    let pod = cluster.pod("default", "p", "", json!({})).await;
    let ask = |account: &str, kind: &str, name: &str, uid: &str| {
        let spec = json!({"boundObjectRef": {"kind": kind, "apiVersion": "v1", "name": name, "uid": uid}});
        (path(account), request(spec))
    };
    let uid = pod["metadata"]["uid"].as_str().unwrap();
    let table = [
        (ask("robot", "Pod", "p", uid), 400),
        (ask("default", "Pod", "p", "another"), 409),
        (ask("default", "Pod", "q", ""), 404),
        (ask("default", "ConfigMap", "p", ""), 400),
        (ask("default", "Pod", "p", uid), 201),
    ];
    for ((path, body), code) in table {
        cluster.admin().post(&path, &body).await.expect(code);
    }
}

#[tokio::test]
async fn a_token_that_an_agent_renews_outlives_the_hour_for_careless_clients() {
    let cluster = cluster_with_account().await;
    cluster.pod("default", "p", "", json!({"serviceAccountName": "robot"})).await;
    let bound = json!({"kind": "Pod", "apiVersion": "v1", "name": "p"});
    let said = claims(&issue(&cluster, json!({"boundObjectRef": bound, "expirationSeconds": 3607})).await);
    let life = said["exp"].as_i64().unwrap() - said["iat"].as_i64().unwrap();
    assert_eq!(life, 365 * 24 * 3600);
    assert_eq!(said["kubernetes.io"]["warnafter"].as_i64().unwrap() - said["iat"].as_i64().unwrap(), 3607);
    let vault = json!({"boundObjectRef": bound, "expirationSeconds": 3607, "audiences": ["vault"]});
    let said = claims(&issue(&cluster, vault).await);
    assert_eq!(said["exp"].as_i64().unwrap() - said["iat"].as_i64().unwrap(), 3607, "not for others");
}

#[tokio::test]
async fn a_token_for_others_is_not_for_us() {
    let cluster = cluster_with_account().await;
    let vault = issue(&cluster, json!({"audiences": ["vault"]})).await;
    assert_eq!(code(&cluster, &vault).await, 401);
    let both = issue(&cluster, json!({"audiences": ["vault", ISSUER]})).await;
    assert_eq!(code(&cluster, &both).await, 201);
    let review = async |token: &str, audiences: Value| {
        let spec = json!({"token": token, "audiences": audiences});
        let review = json!({"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "spec": spec});
        cluster.admin().post(REVIEW, &review).await.expect(201)["status"].clone()
    };
    let status = review(&vault, json!(["vault", "other"])).await;
    assert_eq!((&status["authenticated"], &status["audiences"]), (&json!(true), &json!(["vault"])));
    assert_eq!(status["user"]["username"], "system:serviceaccount:default:robot");
    assert_eq!(review(&vault, json!([])).await.get("authenticated"), None);
    assert_eq!(review(&both, json!([])).await["audiences"], json!([ISSUER]));
    assert_eq!(review("nonsense", json!([])).await["error"], "[invalid bearer token]");
}

#[tokio::test]
async fn no_forged_token_is_taken() {
    let cluster = cluster_with_account().await;
    let token = issue(&cluster, json!({})).await;
    let parts: Vec<&str> = token.split('.').collect();
    let (good, public) = (claims(&token), pki::public_key_pem(&cluster.pki.service_account_key_pem).unwrap());
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let mut other = good.clone();
    other["sub"] = "system:serviceaccount:kube-system:admin".into();
    other["kubernetes.io"]["namespace"] = "kube-system".into();
    let none = encode(&json!({"alg": "none", "typ": "JWT"}));
    let sign = |algorithm, key: &EncodingKey, claims: &Value| {
        jsonwebtoken::encode(&Header::new(algorithm), claims, key).unwrap()
    };
    let foreign = pki::Authority::create("other", jiff::Timestamp::now()).unwrap();
    let foreign = EncodingKey::from_ec_pem(foreign.key_pem().as_bytes()).unwrap();
    let own = EncodingKey::from_ec_pem(cluster.pki.service_account_key_pem.as_bytes()).unwrap();
    let at = |field: &str, seconds: i64| {
        let mut claims = good.clone();
        claims[field] = (jiff::Timestamp::now().as_second() + seconds).into();
        claims
    };
    let mut issuer = good.clone();
    issuer["iss"] = "https://example.com".into();
    let forged = [
        ("other claims", format!("{}.{}.{}", parts[0], encode(&other), parts[2])),
        ("no signature", format!("{}.{}.", parts[0], parts[1])),
        ("alg none", format!("{none}.{}.", encode(&good))),
        ("alg none with the signature", format!("{none}.{}.{}", parts[1], parts[2])),
        (
            "the public key as a shared secret",
            sign(Algorithm::HS256, &EncodingKey::from_secret(public.as_bytes()), &good),
        ),
        ("another key", sign(Algorithm::ES256, &foreign, &good)),
        ("expired", sign(Algorithm::ES256, &own, &at("exp", -1))),
        ("not yet valid", sign(Algorithm::ES256, &own, &at("nbf", 100))),
        ("another issuer", sign(Algorithm::ES256, &own, &issuer)),
        ("a cut token", token[..token.len() - 2].to_string()),
        ("nonsense", "a.b.c".to_string()),
    ];
    for (what, token) in forged {
        assert_eq!(code(&cluster, &token).await, 401, "{what}");
    }
    assert_eq!(code(&cluster, &token).await, 201);
}

#[tokio::test]
async fn others_verify_tokens_with_the_published_keys() {
    let cluster = cluster_with_account().await;
    let token = issue(&cluster, json!({"audiences": ["vault"]})).await;
    let keys = cluster.admin().get("/openid/v1/jwks").await.expect(200);
    let key: jsonwebtoken::jwk::Jwk = serde_json::from_value(keys["keys"][0].clone()).unwrap();
    let header = jsonwebtoken::decode_header(&token).unwrap();
    assert_eq!(header.kid, key.common.key_id);
    let mut rules = jsonwebtoken::Validation::new(Algorithm::ES256);
    rules.set_issuer(&[ISSUER]);
    rules.set_audience(&["vault"]);
    let key = jsonwebtoken::DecodingKey::from_jwk(&key).unwrap();
    let read = jsonwebtoken::decode::<Value>(&token, &key, &rules).unwrap();
    assert_eq!(read.claims["sub"], "system:serviceaccount:default:robot");
}
