//! Watches: what they begin with, what follows, and that they agree with lists.

use serde_json::json;

use crate::server::{CONFIG_MAPS, TestServer, config_map, make_config_maps, version};

fn event(kind: &str, name: &str) -> (String, String) {
    (kind.to_string(), name.to_string())
}

#[tokio::test]
async fn a_watch_should_go_on_where_the_list_ended() {
    let test = TestServer::start_alone().await;
    make_config_maps(&test, ["a"]).await;
    let list = test.get(CONFIG_MAPS).await.expect(200);
    make_config_maps(&test, ["b"]).await;
    let mut watch = test.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={}", version(&list))).await;
    assert_eq!(watch.next_name().await, event("ADDED", "b"));
    test.merge(&format!("{CONFIG_MAPS}/a"), &json!({"data": {"x": "y"}})).await.expect(200);
    assert_eq!(watch.next_name().await, event("MODIFIED", "a"));
    test.delete(&format!("{CONFIG_MAPS}/a")).await.expect(200);
    let (kind, object) = watch.next().await.unwrap();
    assert_eq!((kind.as_str(), &object["data"]["x"]), ("DELETED", &json!("y")));
    let after = test.get(CONFIG_MAPS).await.expect(200);
    assert_eq!(version(&object), version(&after), "a deletion has a revision of its own");
}

#[tokio::test]
async fn a_watch_without_a_revision_should_begin_with_what_is_there() {
    let test = TestServer::start_alone().await;
    make_config_maps(&test, ["a", "b"]).await;
    let mut watch = test.watch(&format!("{CONFIG_MAPS}?watch=1&timeoutSeconds=1")).await;
    assert_eq!(watch.next_name().await, event("ADDED", "a"));
    assert_eq!(watch.next_name().await, event("ADDED", "b"));
    assert_eq!(watch.next().await, None, "it ends at its timeout");
}

#[tokio::test]
async fn a_streamed_list_should_end_with_its_bookmark() {
    let test = TestServer::start_alone().await;
    make_config_maps(&test, ["a"]).await;
    let query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut watch = test.watch(&format!("{CONFIG_MAPS}?{query}")).await;
    assert_eq!(watch.next_name().await, event("ADDED", "a"));
    let (kind, bookmark) = watch.next().await.unwrap();
    assert_eq!(kind, "BOOKMARK");
    assert_eq!(bookmark["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    let list = test.get(CONFIG_MAPS).await.expect(200);
    assert_eq!(version(&bookmark), version(&list));
    test.get(&format!("{CONFIG_MAPS}?watch=1&sendInitialEvents=true")).await.expect(422);
}

#[tokio::test]
async fn selection_should_turn_changes_into_additions_and_deletions() {
    let test = TestServer::start_alone().await;
    let mut watch = test.watch(&format!("{CONFIG_MAPS}?watch=1&labelSelector=on%3Dyes")).await;
    make_config_maps(&test, ["a", "b"]).await;
    let a = format!("{CONFIG_MAPS}/a");
    test.merge(&a, &json!({"metadata": {"labels": {"on": "yes"}}})).await.expect(200);
    assert_eq!(watch.next_name().await, event("ADDED", "a"));
    test.merge(&a, &json!({"data": {"x": "1"}})).await.expect(200);
    assert_eq!(watch.next_name().await, event("MODIFIED", "a"));
    test.merge(&a, &json!({"metadata": {"labels": {"on": "no"}}})).await.expect(200);
    let (kind, object) = watch.next().await.unwrap();
    assert_eq!((kind.as_str(), &object["metadata"]["labels"]["on"]), ("DELETED", &json!("yes")));
}

#[tokio::test]
async fn a_forgotten_revision_should_be_told_in_an_event() {
    let test = TestServer::start_alone().await;
    make_config_maps(&test, ["a"]).await;
    let restarted = test.another().await;
    let mut watch = restarted.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion=2")).await;
    let (kind, status) = watch.next().await.unwrap();
    assert_eq!(
        (kind.as_str(), &status["code"], &status["reason"]),
        ("ERROR", &json!(410), &json!("Expired"))
    );
    assert!(status["message"].as_str().unwrap().starts_with("too old resource version: 2 ("));
    assert_eq!(watch.next().await, None);
}

#[tokio::test]
async fn a_watch_from_a_revision_yet_to_come_should_wait_for_it() {
    let test = TestServer::start_alone().await;
    let now = version(&test.get(CONFIG_MAPS).await.expect(200));
    let mut watch = test.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={}", now + 2)).await;
    make_config_maps(&test, ["a", "b", "c"]).await;
    assert_eq!(watch.next_name().await, event("ADDED", "c"));
}

#[tokio::test]
async fn two_servers_over_one_store_should_agree() {
    let one = TestServer::start_alone().await;
    let two = one.another().await;
    let mut watch = two.watch(&format!("{CONFIG_MAPS}?watch=1")).await;
    let created = one.post(CONFIG_MAPS, &config_map("a")).await.expect(201);
    assert_eq!(two.get(&format!("{CONFIG_MAPS}/a")).await.expect(200), created);
    assert_eq!(watch.next_name().await, event("ADDED", "a"));
    two.post(CONFIG_MAPS, &config_map("a")).await.expect(409);
}

#[tokio::test]
async fn watchers_should_all_see_the_same_order_under_concurrent_writes() {
    let test = std::sync::Arc::new(TestServer::start_alone().await);
    let mut watches = Vec::new();
    for _ in 0..3 {
        watches.push(test.watch(&format!("{CONFIG_MAPS}?watch=1")).await);
    }
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let test = test.clone();
            tokio::spawn(async move {
                for index in 0..10 {
                    test.post(CONFIG_MAPS, &config_map(&format!("w{writer}-{index}"))).await.expect(201);
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let mut seen = Vec::new();
    for watch in &mut watches {
        let mut versions = Vec::new();
        for _ in 0..80 {
            versions.push(version(&watch.next().await.unwrap().1));
        }
        assert!(versions.is_sorted(), "in the order of their revisions");
        seen.push(versions);
    }
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]));
}
