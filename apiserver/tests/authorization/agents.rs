//! An agent that says nothing holds nobody up for long.

use std::time::Duration;

use serde_json::json;

use crate::cluster::Cluster;
use crate::https::HttpsServer;

#[tokio::test]
async fn a_command_for_an_agent_that_does_not_answer_fails_in_time() {
    let cluster = Cluster::start().await;
    cluster.account("default", "default").await;
    let agent = HttpsServer::start(&cluster.pki.authority, "agent", |_, _| {
        Box::pin(async {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            (200, String::new())
        })
    })
    .await;
    cluster.make_node("n1").await;
    let status = json!({"status": {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": agent.address.port()}}}});
    let admin = cluster.admin();
    admin.merge("/api/v1/nodes/n1/status", &status).await.expect(200);
    cluster.pod("default", "p", "n1", json!({})).await;
    let upgrade = admin.clone().header("connection", "Upgrade").header("upgrade", "SPDY/3.1");
    for (caller, method, path) in [
        (&upgrade, "POST", "/api/v1/namespaces/default/pods/p/exec?command=sh&stdout=true"),
        (&admin, "GET", "/api/v1/namespaces/default/pods/p/log"),
    ] {
        let answer = caller.send(method, path, "application/json", String::new());
        let answer = tokio::time::timeout(Duration::from_secs(60), answer).await.expect("an answer");
        let message = answer.expect(503)["message"].as_str().unwrap().to_string();
        assert!(message.contains("does not answer: i/o timeout"), "{message}");
    }
}

#[tokio::test]
async fn who_may_speak_with_agents_reaches_nothing_else_on_a_node_and_not_this_server() {
    let cluster = Cluster::start().await;
    let node = cluster.make_node("n1").await;
    assert_eq!(node["metadata"]["name"], "n1");
    let port = cluster.address().port();
    let agent_at = async |port: u16| {
        let status = json!({"status": {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}});
        cluster.admin().merge("/api/v1/nodes/n1/status", &status).await.expect(200);
    };
    let role = json!({"metadata": {"name": "agents"}, "rules": [{"apiGroups": [""], "resources": ["nodes/proxy"], "verbs": ["*"]}]});
    cluster.admin().post("/apis/rbac.authorization.k8s.io/v1/clusterroles", &role).await.expect(201);
    cluster.bind("", "agents", "user:monitor").await;
    let monitor = cluster.user("monitor", &[]);
    let secrets = "api/v1/namespaces/kube-system/secrets";
    // Another port is not the agent's, and whoever listens there does not see the server's certificate.
    agent_at(1).await;
    let refused = monitor.get(&format!("/api/v1/nodes/n1:{port}/proxy/{secrets}")).await.expect(400);
    assert_eq!(refused["message"], "address not allowed");
    // A node that says that its agent is where this server listens: the server is nobody to itself.
    agent_at(port).await;
    monitor.get(&format!("/api/v1/nodes/n1/proxy/{secrets}")).await.expect(401);
    cluster.certificate(&cluster.pki.apiserver_client).get(&format!("/{secrets}")).await.expect(401);
}
