//! The audit log says who did what, as much as the policy wants, and how it ended.

use std::path::Path;
use std::time::Duration;

use apiserver::Security;
use apiserver::audit::{AuditConfig, AuditPolicy};
use serde_json::{Value, json};

use crate::cluster::Cluster;

const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
  resources: [{group: "", resources: [secrets]}]
- level: RequestResponse
  resources: [{group: "", resources: [configmaps]}]
  verbs: [create, patch]
  omitManagedFields: true
- level: Metadata
  users: [vera]
"#;
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn events(path: &Path) -> Vec<Value> {
    std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Waits for an event; the log is written beside the answers.
pub async fn event(path: &Path, which: impl Fn(&Value) -> bool) -> Value {
    let wait = async {
        loop {
            if let Some(event) = events(path).into_iter().find(|event| which(event)) {
                return event;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.expect("an event")
}

#[tokio::test]
async fn every_request_is_told_as_the_policy_wants() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.log");
    let policy = AuditPolicy::read(POLICY).unwrap();
    let audit = Some(AuditConfig { policy, path: path.clone() });
    let cluster = Cluster::start_with(Security { audit, ..Security::default() }).await;
    let admin = cluster.admin();
    let map = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "m"}, "data": {"a": "b"}});
    admin.post(MAPS, &map).await.expect(201);
    let told =
        event(&path, |event| event["verb"] == "create" && event["objectRef"]["resource"] == "configmaps")
            .await;
    assert_eq!(
        told["objectRef"],
        json!({"resource": "configmaps", "namespace": "default", "apiVersion": "v1"})
    );
    assert_eq!(
        (&told["level"], &told["stage"], &told["responseStatus"]["code"]),
        (&json!("RequestResponse"), &json!("ResponseComplete"), &json!(201))
    );
    assert_eq!(told["requestObject"], map);
    assert_eq!(
        (&told["responseObject"]["data"], told["responseObject"]["metadata"].get("managedFields")),
        (&json!({"a": "b"}), None)
    );
    assert_eq!(
        (&told["user"]["username"], &told["annotations"]["authorization.k8s.io/decision"]),
        (&json!("admin"), &json!("allow"))
    );
    assert!(told["auditID"].as_str().is_some_and(|id| id.len() == 36));

    let secret = json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "s"}, "stringData": {"word": "sesame"}});
    admin.post("/api/v1/namespaces/default/secrets", &secret).await.expect(201);
    let told = event(&path, |event| event["objectRef"]["resource"] == "secrets").await;
    assert_eq!((&told["level"], told.get("requestObject")), (&json!("Metadata"), None));

    cluster.user("vera", &[]).get(MAPS).await.refused();
    let told = event(&path, |event| event["user"]["username"] == "vera").await;
    assert_eq!(
        (&told["responseStatus"]["code"], &told["annotations"]["authorization.k8s.io/decision"]),
        (&json!(403), &json!("forbid"))
    );
    admin.clone().header("impersonate-user", "vera").get("/version").await.expect(200);
    let told = event(&path, |event| event["impersonatedUser"]["username"] == "vera").await;
    assert_eq!((&told["user"]["username"], &told["requestURI"]), (&json!("admin"), &json!("/version")));

    assert!(!std::fs::read_to_string(&path).unwrap().contains("sesame"));
    assert!(events(&path).iter().all(|event| event["stage"] != "RequestReceived"));
}

#[tokio::test]
async fn a_watch_is_told_when_it_begins_and_when_it_ends() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.log");
    let policy = AuditPolicy::read(
        "{kind: Policy, apiVersion: audit.k8s.io/v1, rules: [{level: Metadata, verbs: [watch]}]}",
    )
    .unwrap();
    let audit = Some(AuditConfig { policy, path: path.clone() });
    let cluster = Cluster::start_with(Security { audit, ..Security::default() }).await;
    let watch = format!("{MAPS}?watch=true&timeoutSeconds=1");
    cluster.admin().get(&watch).await;
    event(&path, |event| event["stage"] == "ResponseComplete").await;
    let stages: Vec<Value> = events(&path).into_iter().map(|event| event["stage"].clone()).collect();
    assert_eq!(stages, ["RequestReceived", "ResponseStarted", "ResponseComplete"]);
}

#[tokio::test]
async fn a_log_that_is_moved_away_is_begun_anew() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.log");
    let policy =
        AuditPolicy::read("{kind: Policy, apiVersion: audit.k8s.io/v1, rules: [{level: Metadata}]}").unwrap();
    let audit = Some(AuditConfig { policy, path: path.clone() });
    let cluster = Cluster::start_with(Security { audit, ..Security::default() }).await;
    cluster.admin().get("/version").await.expect(200);
    event(&path, |event| event["requestURI"] == "/version").await;
    std::fs::rename(&path, directory.path().join("audit.log.1")).unwrap();
    let begun = async {
        while !path.exists() {
            cluster.admin().get("/livez").await.expect(200);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), begun).await.expect("a new file");
}
