//! What cannot be served is refused with upstream's code and a message that helps; the server goes on.

use apiserver::auth::UserInfo;
use serde_json::json;

use crate::server::{CONFIG_MAPS, TestServer, config_map};

#[tokio::test]
async fn broken_bodies_should_be_refused() {
    let test = TestServer::start().await;
    let deep = format!("{{\"data\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    for (body, part) in [
        (b"{".to_vec(), "EOF"),
        (deep.into_bytes(), "nested deeper"),
        (b"{\"metadata\":{\"name\":\"\xff\"}}".to_vec(), "UTF-8"),
        (b"[]".to_vec(), "must be an object"),
        (b"{\"kind\":\"Secret\",\"metadata\":{\"name\":\"a\"}}".to_vec(), "does not match"),
        (b"{\"metadata\":{\"name\":5}}".to_vec(), "cannot unmarshal number"),
    ] {
        let refused = test.send("POST", CONFIG_MAPS, "application/json", body).await.expect(400);
        assert!(refused["message"].as_str().unwrap().contains(part), "{part}: {refused}");
    }
    let huge = vec![b' '; 3 * 1024 * 1024 + 1];
    test.send("POST", CONFIG_MAPS, "application/json", huge).await.expect(413);
    test.send("POST", CONFIG_MAPS, "text/plain", "x").await.expect(415);
    test.send("PATCH", &format!("{CONFIG_MAPS}/a"), "application/json", "{}").await.expect(415);
}

#[tokio::test]
async fn small_bodies_should_not_cost_much() {
    let test = TestServer::start().await;
    test.post(CONFIG_MAPS, &config_map("a")).await.expect(201);
    let path = format!("{CONFIG_MAPS}/a");
    let patch = |steps: Vec<serde_json::Value>| serde_json::Value::from(steps).to_string();
    let many = vec![json!({"op": "test", "path": "/kind", "value": "ConfigMap"}); 10_001];
    test.send("PATCH", &path, "application/json-patch+json", patch(many)).await.expect(413);
    let doubling =
        (0..64).map(|turn| json!({"op": "copy", "from": "", "path": format!("/{turn}")})).collect();
    let refused = test.send("PATCH", &path, "application/json-patch+json", patch(doubling)).await.expect(422);
    assert!(refused["message"].as_str().unwrap().contains("copy operations"), "{refused}");

    let twice = format!("{{\"data\":{{{}\"k\":\"v\"}}}}", "\"k\":\"v\",".repeat(200_000));
    let strict = format!("{CONFIG_MAPS}?fieldValidation=Strict");
    let refused = test.send("POST", &strict, "application/json", twice).await.expect(400);
    let told = refused["message"].as_str().unwrap();
    assert!(told.contains("duplicate field \"data.k\"") && told.len() < 10_000, "{}", told.len());

    // JSON in a protobuf envelope: field 2 is the object, field 4 says what it is.
    let deep = format!("{{\"data\":{}{}}}", "[".repeat(110), "]".repeat(110));
    let field = |number: u8, bytes: &[u8]| {
        let length = [bytes.len() as u8 & 0x7f | 0x80, (bytes.len() >> 7) as u8];
        [&[number << 3 | 2], &length[..], bytes].concat()
    };
    let body = [b"k8s\0".to_vec(), field(2, deep.as_bytes()), field(4, b"application/json")].concat();
    let refused =
        test.send("POST", CONFIG_MAPS, "application/vnd.kubernetes.protobuf", body).await.expect(400);
    assert!(refused["message"].as_str().unwrap().contains("nested deeper"), "{refused}");
}

#[tokio::test]
async fn wrong_paths_and_methods_should_be_told_apart() {
    let test = TestServer::start().await;
    assert_eq!(test.get("/api/v1/nothings").await.expect(404)["reason"], "NotFound");
    assert_eq!(
        test.get(&format!("{CONFIG_MAPS}/a")).await.expect(404)["message"],
        "configmaps \"a\" not found"
    );
    test.get(&format!("{CONFIG_MAPS}/a/status")).await.expect(404);
    test.put(CONFIG_MAPS, &config_map("a")).await.expect(405);
    test.post("/api/v1/componentstatuses", &json!({})).await.expect(405);
    let elsewhere = json!({"metadata": {"name": "a", "namespace": "other"}});
    let refused = test.post(CONFIG_MAPS, &elsewhere).await.expect(400);
    assert!(refused["message"].as_str().unwrap().contains("does not match the namespace"));
}

#[tokio::test]
async fn bad_names_should_be_explained() {
    let test = TestServer::start().await;
    let refused = test.post(CONFIG_MAPS, &config_map("Bad_Name")).await.expect(422);
    assert_eq!(refused["reason"], "Invalid");
    assert_eq!(refused["details"]["causes"][0]["field"], "metadata.name");
}

#[tokio::test]
async fn who_may_not_should_hear_what_and_why() {
    let test = TestServer::start().await;
    let joe = test.server.client(UserInfo::new("joe", &[]));
    let request = http::Request::get(CONFIG_MAPS).body(kube::client::Body::empty()).unwrap();
    let response = joe.send(request).await.unwrap();
    assert_eq!(response.status(), 403);
    let bytes = response.into_body().collect_bytes().await.unwrap();
    let status: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(
        status["message"],
        "configmaps is forbidden: User \"joe\" cannot list resource \"configmaps\" in API group \"\" in the namespace \"default\""
    );
}

#[tokio::test]
async fn a_port_in_use_should_be_told() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let test = TestServer::start().await;
    let mut config = test.config.clone();
    config.bind_address = taken.local_addr().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let store = store::embedded::EmbeddedStore::open(store::embedded::EmbeddedOptions::new(directory.path()))
        .unwrap();
    let server = apiserver::Server::build(config, std::sync::Arc::new(store)).await.unwrap();
    let error = server.bind().await.unwrap_err().to_string();
    assert!(error.contains("another process listens there"), "{error}");
}

#[tokio::test]
async fn odd_requests_should_be_refused_by_name() {
    let test = TestServer::start().await;
    test.post(CONFIG_MAPS, &config_map("a")).await.expect(201);
    let one = &format!("{CONFIG_MAPS}/a");
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    test.post(accounts, &json!({"metadata": {"name": "a"}})).await.expect(201);
    let token = &format!("{accounts}/a/token");
    let reviews = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let eviction = "/api/v1/namespaces/default/pods/a/eviction";
    let query = |query: &str| format!("{CONFIG_MAPS}?{query}");
    for (method, path, body, code, part) in [
        ("GET", &*query("limit=many"), "", 400, "limit: \"many\" is not a number"),
        ("GET", &query("limit=99999999999999999999"), "", 400, "is not a number"),
        ("GET", &query("watch=true&timeoutSeconds=-5"), "", 400, "timeoutSeconds: \"-5\""),
        ("GET", &query("resourceVersion=abc"), "", 422, "resourceVersion: Invalid value"),
        ("GET", &query("continue=%00"), "", 400, "continue key is not valid"),
        ("GET", &query("labelSelector=a%20in%20((("), "", 400, "unable to parse requirement"),
        (
            "GET",
            &query("fieldSelector=metadata.name%3Da%2Cspec.x%3Db"),
            "",
            400,
            "field label not supported: spec.x",
        ),
        ("GET", "/api/v1/namespaces/default/configmaps/a%2Fb", "", 400, "may not contain '/'"),
        ("GET", "/api/v1/namespaces/default%2F..%2Fkube-system/secrets", "", 400, "may not contain '/'"),
        ("GET", "/api/v1/namespaces/../secrets", "", 400, "may not be '..'"),
        ("GET", "/apis//v1", "", 404, "could not find the requested resource"),
        (
            "POST",
            CONFIG_MAPS,
            r#"{"metadata":{"name":"b","resourceVersion":"5"}}"#,
            400,
            "resourceVersion should not be set",
        ),
        ("DELETE", one, r#"{"gracePeriodSeconds":"soon"}"#, 400, "cannot unmarshal string"),
        ("DELETE", one, r#"{"propagationPolicy":5}"#, 400, "cannot unmarshal number"),
        ("DELETE", one, r#"{"preconditions":[]}"#, 400, "cannot unmarshal array"),
        (
            "DELETE",
            one,
            r#"{"kind":"Pod","apiVersion":"v1"}"#,
            400,
            "does not match the expected kind (DeleteOptions)",
        ),
        ("DELETE", &query("sendInitialEvents=true"), "", 422, "forbidden for list"),
        ("POST", reviews, r#"{"spec":{"user":5}}"#, 400, "cannot unmarshal number"),
        ("POST", reviews, "{}", 422, "at least one of user or group"),
        ("POST", token, r#"{"spec":{"audiences":"one"}}"#, 400, "cannot unmarshal string"),
        ("POST", token, r#"{"spec":{"expirationSeconds":-5}}"#, 422, "less than 10 minutes"),
        ("POST", eviction, r#"{"deleteOptions":{"gracePeriodSeconds":"x"}}"#, 400, "cannot unmarshal string"),
        ("POST", eviction, r#"{"kind":"Pod"}"#, 400, "does not match the expected kind (Eviction)"),
        (
            "POST",
            "/api/v1/namespaces/default/pods/a/binding",
            r#"{"target":5}"#,
            400,
            "cannot unmarshal number",
        ),
    ] {
        let answer = test.send(method, path, "application/json", body).await;
        let message = answer.body["message"].as_str().unwrap_or_default();
        assert_eq!(answer.code, code, "{method} {path} {body}: {message}");
        assert!(message.contains(part), "{method} {path} {body}: {message}");
    }
    test.get(one).await.expect(200);
    // What older clients send for a drain is still an eviction.
    let older = json!({"kind": "Eviction", "apiVersion": "policy/v1beta1", "metadata": {"name": "a"}});
    assert_eq!(test.post(eviction, &older).await.expect(404)["message"], "pods \"a\" not found");
}

#[tokio::test]
async fn a_watch_should_last_however_long_it_is_asked_to() {
    let test = TestServer::start().await;
    let mut watch = test.watch(&format!("{CONFIG_MAPS}?watch=true&timeoutSeconds={}", u64::MAX)).await;
    test.post(CONFIG_MAPS, &config_map("a")).await.expect(201);
    assert_eq!(watch.next_name().await.1, "a");
}

#[tokio::test]
async fn paths_that_lead_nowhere_should_not_be_counted_one_by_one() {
    let test = TestServer::start().await;
    for path in ["/api/v1/namespaces/default/pods/p/made-up-a", "/apis/made-up-b/v1/x"] {
        test.get(path).await.expect(404);
    }
    let metrics = test.get("/metrics").await.expect(200);
    assert!(!metrics.as_str().unwrap().contains("made-up"), "{metrics}");
}
