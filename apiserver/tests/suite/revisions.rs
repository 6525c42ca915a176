//! Revisions to the letter: lists, what goes on from them, and watches agree to the last one.

use serde_json::{Value, json};

use crate::server::{CONFIG_MAPS, TestServer, config_map, make_config_maps, name, names, version};

async fn labelled(test: &TestServer, name: &str, labels: Value) -> Value {
    let mut object = config_map(name);
    object["metadata"]["labels"] = labels;
    test.post(CONFIG_MAPS, &object).await.expect(201)
}

/// Upstream's table of what `resourceVersion`, `resourceVersionMatch` and `limit` mean together.
#[tokio::test]
async fn lists_should_be_of_the_revision_that_their_options_mean() {
    let test = TestServer::start_alone().await;
    make_config_maps(&test, ["a", "b", "c"]).await;
    let then = version(&test.get(CONFIG_MAPS).await.expect(200));
    make_config_maps(&test, ["d"]).await;
    let now = version(&test.get(CONFIG_MAPS).await.expect(200));
    let all = ["a", "b", "c", "d"];
    for (query, seen, revision, goes_on) in [
        (String::new(), &all[..], now, false),
        ("limit=2".into(), &all[..2], now, true),
        ("limit=4".into(), &all[..], now, false),
        ("limit=5".into(), &all[..], now, false),
        ("resourceVersion=0".into(), &all[..], now, false),
        // Whatever is at hand is all of it.
        ("resourceVersion=0&limit=2".into(), &all[..], now, false),
        ("resourceVersion=0&resourceVersionMatch=NotOlderThan&limit=2".into(), &all[..], now, false),
        (format!("resourceVersion={then}"), &all[..], now, false),
        (format!("resourceVersion={then}&resourceVersionMatch=NotOlderThan"), &all[..], now, false),
        (format!("resourceVersion={then}&resourceVersionMatch=NotOlderThan&limit=2"), &all[..2], now, true),
        (format!("resourceVersion={then}&resourceVersionMatch=Exact"), &all[..3], then, false),
        (format!("resourceVersion={then}&resourceVersionMatch=Exact&limit=2"), &all[..2], then, true),
        (format!("resourceVersion={then}&limit=2"), &all[..2], then, true),
        (format!("resourceVersion={now}&resourceVersionMatch=Exact"), &all[..], now, false),
    ] {
        let list = test.get(&format!("{CONFIG_MAPS}?{query}")).await.expect(200);
        assert_eq!(names(&list), seen, "{query}");
        assert_eq!(version(&list), revision, "{query}");
        assert_eq!(list["metadata"]["continue"].is_string(), goes_on, "{query}");
    }
}

#[tokio::test]
async fn a_page_should_go_on_where_it_ended_and_with_what_was_asked_for() {
    let test = TestServer::start_alone().await;
    for (index, name) in ["a", "b", "c", "d", "e", "f"].into_iter().enumerate() {
        labelled(&test, name, json!({"even": (index % 2 == 0).to_string()})).await;
    }
    let query = "labelSelector=even%3Dtrue&limit=2";
    let first = test.get(&format!("{CONFIG_MAPS}?{query}")).await.expect(200);
    assert_eq!(names(&first), ["a", "c"]);
    assert_eq!(first["metadata"].get("remainingItemCount"), None, "unknown where a selector selects");
    let token = first["metadata"]["continue"].as_str().unwrap();
    test.delete(&format!("{CONFIG_MAPS}/e")).await.expect(200);
    let second = test.get(&format!("{CONFIG_MAPS}?{query}&continue={token}")).await.expect(200);
    assert_eq!((names(&second), version(&second)), (vec!["e"], version(&first)));
    let zero =
        test.get(&format!("{CONFIG_MAPS}?{query}&continue={token}&resourceVersion=0")).await.expect(200);
    assert_eq!(names(&zero), ["e"]);
    let refused = test.get(&format!("{CONFIG_MAPS}?continue={token}&resourceVersion=1")).await.expect(400);
    assert_eq!(refused["message"], "specifying resource version is not allowed when using continue");
    for token in ["x", "e30", ""] {
        let code = test.get(&format!("{CONFIG_MAPS}?limit=1&continue={token}")).await.code;
        assert_eq!(code, if token.is_empty() { 200 } else { 400 }, "{token}");
    }
    // A token of one namespace does not lead into another.
    let elsewhere =
        test.get(&format!("/api/v1/namespaces/other/configmaps?continue={token}")).await.expect(200);
    assert!(names(&elsewhere).is_empty());
}

#[tokio::test]
async fn pages_over_all_namespaces_should_not_lose_or_repeat_anything() {
    let test = TestServer::start_alone().await;
    for namespace in ["a", "a-b", "b"] {
        test.post("/api/v1/namespaces", &json!({"metadata": {"name": namespace}})).await.expect(201);
        for name in ["x", "y", "z"] {
            let path = format!("/api/v1/namespaces/{namespace}/configmaps");
            test.post(&path, &config_map(name)).await.expect(201);
        }
    }
    let whole = test.get("/api/v1/configmaps").await.expect(200);
    let mut paged: Vec<Value> = Vec::new();
    let mut token = String::new();
    loop {
        let page = test.get(&format!("/api/v1/configmaps?limit=2&continue={token}")).await.expect(200);
        assert_eq!(version(&page), version(&whole));
        paged.extend(page["items"].as_array().unwrap().clone());
        match page["metadata"]["continue"].as_str() {
            Some(next) => token = next.to_string(),
            None => break,
        }
    }
    assert_eq!(&paged, whole["items"].as_array().unwrap());
}

#[tokio::test]
async fn watches_should_begin_one_revision_after_the_one_they_name() {
    let test = TestServer::start_alone().await;
    let first = version(&test.post(CONFIG_MAPS, &config_map("a")).await.expect(201));
    let second = version(&test.post(CONFIG_MAPS, &config_map("b")).await.expect(201));
    for (revision, expected) in [(first - 1, "a"), (first, "b"), (second - 1, "b")] {
        let mut watch = test.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={revision}")).await;
        let (kind, object) = watch.next().await.unwrap();
        assert_eq!((kind.as_str(), name(&object)), ("ADDED", expected), "after {revision}");
        assert!(version(&object) > revision);
    }
    let mut watch = test.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={second}")).await;
    let third =
        version(&test.merge(&format!("{CONFIG_MAPS}/a"), &json!({"data": {"x": "y"}})).await.expect(200));
    let (kind, object) = watch.next().await.unwrap();
    assert_eq!((kind.as_str(), version(&object)), ("MODIFIED", third));
    let deleted = test.delete(&format!("{CONFIG_MAPS}/a")).await.expect(200);
    assert_eq!(deleted["status"], "Success");
    let (kind, object) = watch.next().await.unwrap();
    let after = version(&test.get(CONFIG_MAPS).await.expect(200));
    assert_eq!((kind.as_str(), version(&object)), ("DELETED", after));
    // Whoever goes on from the deletion does not see it again.
    let mut watch = test.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={after}")).await;
    make_config_maps(&test, ["c"]).await;
    assert_eq!(watch.next_name().await, ("ADDED".to_string(), "c".to_string()));
}

#[tokio::test]
async fn bookmarks_should_be_good_to_go_on_from() {
    let test = TestServer::start_alone().await;
    make_config_maps(&test, ["a"]).await;
    // Something else moves the store on; the bookmark may be there already.
    test.post("/api/v1/namespaces", &json!({"metadata": {"name": "other"}})).await.expect(201);
    let query = "watch=1&allowWatchBookmarks=true&timeoutSeconds=1";
    let mut watch = test.watch(&format!("{CONFIG_MAPS}?{query}")).await;
    assert_eq!(watch.next_name().await.0, "ADDED");
    let (kind, bookmark) = watch.next().await.expect("a bookmark before the end");
    assert_eq!(kind, "BOOKMARK");
    assert_eq!((&bookmark["kind"], &bookmark["apiVersion"]), (&json!("ConfigMap"), &json!("v1")));
    assert_eq!(watch.next().await, None);
    let created = version(&test.post(CONFIG_MAPS, &config_map("b")).await.expect(201));
    assert!(version(&bookmark) < created);
    let query = format!("watch=1&resourceVersion={}", version(&bookmark));
    let mut watch = test.watch(&format!("{CONFIG_MAPS}?{query}")).await;
    let (kind, object) = watch.next().await.unwrap();
    assert_eq!((kind.as_str(), version(&object)), ("ADDED", created), "nothing is seen twice or missed");
}

#[tokio::test]
async fn streamed_lists_should_be_the_lists() {
    let test = TestServer::start_alone().await;
    make_config_maps(&test, ["a", "b"]).await;
    let list = test.get(CONFIG_MAPS).await.expect(200);
    let stream = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    for revision in ["", "&resourceVersion=0", &format!("&resourceVersion={}", version(&list))] {
        let mut watch = test.watch(&format!("{CONFIG_MAPS}?{stream}{revision}")).await;
        for expected in list["items"].as_array().unwrap() {
            let (kind, object) = watch.next().await.unwrap();
            assert_eq!((kind.as_str(), &object["metadata"]), ("ADDED", &expected["metadata"]), "{revision}");
        }
        let (kind, bookmark) = watch.next().await.unwrap();
        assert_eq!((kind.as_str(), version(&bookmark)), ("BOOKMARK", version(&list)), "{revision}");
        assert_eq!(bookmark["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    }
    // Told not to, a watch begins with what comes.
    let quiet = stream.replace("=true&resourceVersionMatch", "=false&resourceVersionMatch");
    let mut watch = test.watch(&format!("{CONFIG_MAPS}?{quiet}")).await;
    make_config_maps(&test, ["c"]).await;
    assert_eq!(watch.next_name().await, ("ADDED".to_string(), "c".to_string()));
}

#[tokio::test]
async fn a_watch_of_one_object_should_see_that_one() {
    let test = TestServer::start_alone().await;
    make_config_maps(&test, ["a", "b"]).await;
    for path in [
        format!("{CONFIG_MAPS}?watch=1&fieldSelector=metadata.name%3Db"),
        format!("{CONFIG_MAPS}/b?watch=1"),
        "/api/v1/watch/namespaces/default/configmaps/b".to_string(),
    ] {
        let mut watch = test.watch(&path).await;
        assert_eq!(watch.next_name().await, ("ADDED".to_string(), "b".to_string()), "{path}");
    }
    let mut watch =
        test.watch("/api/v1/watch/configmaps?timeoutSeconds=1&fieldSelector=metadata.namespace%3Ddefault,metadata.name!%3Da").await;
    assert_eq!(watch.next_name().await.1, "b");
    assert_eq!(watch.next().await, None);
}

/// Every kind that offers fields selects by each of them, and says of others that it does not.
#[tokio::test]
async fn every_row_should_select_by_its_own_fields() {
    let test = TestServer::start_alone().await;
    for row in api::ResourceTable::built_in().rows().iter().filter(|row| row.stored) {
        let root = if row.group().is_empty() { "api" } else { "apis" };
        let path = format!("/{root}/{}/{}", row.storage.api_version(), row.plural);
        let own = row.selectable.iter().map(|field| field.label.to_string());
        for field in own.chain(["metadata.name".to_string(), "metadata.namespace".to_string()]) {
            let list = test.get(&format!("{path}?fieldSelector={field}%3Dnone-such")).await.expect(200);
            assert!(names(&list).is_empty(), "{path} {field}");
        }
        let refused = test.get(&format!("{path}?fieldSelector=spec.junk%3D1")).await.expect(400);
        assert_eq!(refused["message"], "field label not supported: spec.junk", "{path}");
    }
}

#[tokio::test]
async fn selectors_that_cannot_be_read_should_be_refused() {
    let test = TestServer::start_alone().await;
    for query in ["labelSelector=a+b", "labelSelector=a+in+()", "fieldSelector=metadata.name", "limit=x"] {
        test.get(&format!("{CONFIG_MAPS}?{query}")).await.expect(400);
        test.get(&format!(
            "{CONFIG_MAPS}?watch=1&timeoutSeconds=1&{}",
            query.replace("limit", "timeoutSeconds")
        ))
        .await;
    }
    for query in ["resourceVersion=-1", "resourceVersion=1.5", "resourceVersion=0x1"] {
        let refused = test.get(&format!("{CONFIG_MAPS}?{query}")).await.expect(422);
        assert_eq!(refused["details"]["causes"][0]["field"], "resourceVersion", "{query}");
    }
    let old = test.get(&format!("{CONFIG_MAPS}?resourceVersion=1&resourceVersionMatch=Exact")).await;
    assert!(matches!(old.code, 200 | 410), "{old:?}");
}
