//! Lists: what they show, in pages and at revisions.

use serde_json::{Value, json};

use crate::server::{CONFIG_MAPS, TestServer, config_map, make_config_maps, name, names, version};

#[tokio::test]
async fn lists_should_be_consistent_across_pages() {
    let test = TestServer::start_alone().await;
    make_config_maps(&test, ["a", "b", "c", "d"]).await;
    let first = test.get(&format!("{CONFIG_MAPS}?limit=2")).await.expect(200);
    assert_eq!(names(&first), ["a", "b"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 2);
    test.delete(&format!("{CONFIG_MAPS}/c")).await.expect(200);
    make_config_maps(&test, ["bb", "e"]).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = test.get(&format!("{CONFIG_MAPS}?limit=3&continue={token}")).await.expect(200);
    assert_eq!(names(&second), ["c", "d"], "as of the first page");
    assert_eq!(version(&second), version(&first));
    assert_eq!(second["metadata"].get("continue"), None);
}

#[tokio::test]
async fn reads_should_see_every_write_before_them() {
    let test = TestServer::start_alone().await;
    for round in 0..50 {
        let created = test.post(CONFIG_MAPS, &config_map(&format!("m{round}"))).await.expect(201);
        let list = test.get(CONFIG_MAPS).await.expect(200);
        assert_eq!(list["items"].as_array().unwrap().len(), round + 1);
        assert!(version(&list) >= version(&created));
    }
}

#[tokio::test]
async fn selectors_should_select() {
    let test = TestServer::start_alone().await;
    for (name, tier) in [("a", "web"), ("b", "db"), ("c", "web")] {
        let mut object = config_map(name);
        object["metadata"]["labels"] = json!({"tier": tier});
        test.post(CONFIG_MAPS, &object).await.expect(201);
    }
    let select = async |query: &str| test.get(&format!("{CONFIG_MAPS}?{query}")).await.expect(200);
    assert_eq!(names(&select("labelSelector=tier%3Dweb").await), ["a", "c"]);
    assert_eq!(names(&select("labelSelector=tier+notin+(web)").await), ["b"]);
    assert_eq!(names(&select("labelSelector=tier%3Dweb&limit=1").await), ["a"]);
    assert_eq!(names(&select("fieldSelector=metadata.name%3Db").await), ["b"]);
    let refused = test.get(&format!("{CONFIG_MAPS}?fieldSelector=spec.x%3Db")).await.expect(400);
    assert_eq!(refused["message"], "field label not supported: spec.x");
}

#[tokio::test]
async fn a_list_at_a_revision_should_be_exact_or_refused() {
    let test = TestServer::start_alone().await;
    make_config_maps(&test, ["a"]).await;
    let list = test.get(CONFIG_MAPS).await.expect(200);
    let then = version(&list);
    make_config_maps(&test, ["b"]).await;
    let exact = format!("{CONFIG_MAPS}?resourceVersion={then}&resourceVersionMatch=Exact");
    assert_eq!(names(&test.get(&exact).await.expect(200)), ["a"]);
    let at_least = format!("{CONFIG_MAPS}?resourceVersion={then}");
    assert_eq!(names(&test.get(&at_least).await.expect(200)), ["a", "b"]);
    let from_the_future = test.get(&format!("{CONFIG_MAPS}?resourceVersion=99999")).await.expect(504);
    assert_eq!(from_the_future["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
    test.get(&format!("{CONFIG_MAPS}?resourceVersionMatch=Exact")).await.expect(422);
    test.get(&format!("{CONFIG_MAPS}?resourceVersion=x")).await.expect(422);
}

#[tokio::test]
async fn a_page_that_is_no_longer_remembered_should_offer_an_inconsistent_way_on() {
    let test = TestServer::start_alone().await;
    make_config_maps(&test, ["a", "b"]).await;
    use base64::Engine;
    let token = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .encode(json!({"v": "meta.k8s.io/v1", "rv": 1, "start": "b"}).to_string());
    let test = test.another().await;
    let expired = test.get(&format!("{CONFIG_MAPS}?limit=1&continue={token}")).await.expect(410);
    assert_eq!(expired["reason"], "Expired");
    let token = expired["metadata"]["continue"].as_str().unwrap();
    let rest = test.get(&format!("{CONFIG_MAPS}?limit=1&continue={token}")).await.expect(200);
    assert_eq!(names(&rest), ["b"]);
}

#[tokio::test]
async fn pages_should_stop_being_consistent_after_a_while_even_if_nothing_changes() {
    let test = TestServer::start().await;
    make_config_maps(&test, ["a", "b"]).await;
    use base64::Engine;
    let base64 = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let first = test.get(&format!("{CONFIG_MAPS}?limit=1")).await.expect(200);
    let token = first["metadata"]["continue"].as_str().unwrap();
    test.get(&format!("{CONFIG_MAPS}?limit=1&continue={token}")).await.expect(200);
    let mut token: Value = serde_json::from_slice(&base64.decode(token).unwrap()).unwrap();
    token["since"] = (token["since"].as_i64().unwrap() - 301).into();
    let token = base64.encode(token.to_string());
    let expired = test.get(&format!("{CONFIG_MAPS}?limit=1&continue={token}")).await.expect(410);
    let token = expired["metadata"]["continue"].as_str().unwrap();
    let rest = test.get(&format!("{CONFIG_MAPS}?limit=1&continue={token}")).await.expect(200);
    assert_eq!(names(&rest), ["b"]);
}

#[tokio::test]
async fn every_row_should_list_in_every_version_and_form() {
    let test = TestServer::start_alone().await;
    for row in api::ResourceTable::built_in().rows().iter().filter(|row| row.stored) {
        for served in &row.served {
            let root = if served.group.is_empty() { "api" } else { "apis" };
            let path = format!("/{root}/{}/{}", served.api_version(), row.plural);
            let list = test.get(&path).await.expect(200);
            assert_eq!(list["kind"], row.list_kind.as_str(), "{path}");
            assert_eq!(list["apiVersion"], *served.api_version(), "{path}");
            for form in ["as=Table;v=v1;g=meta.k8s.io", "as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"] {
                let request = http::Request::builder()
                    .uri(&path)
                    .header("accept", format!("application/json;{form}"))
                    .body(Vec::new())
                    .unwrap();
                let answer: serde_json::Value = test.client.request(request).await.unwrap();
                assert!(answer["kind"] == "Table" || answer["kind"] == "PartialObjectMetadataList", "{path}");
            }
        }
    }
}

#[tokio::test]
async fn large_lists_should_arrive_whole() {
    let test = TestServer::start_alone().await;
    for index in 0..40 {
        let mut object = config_map(&format!("m{index:03}"));
        object["data"]["key"] = "x".repeat(10_000).into();
        test.post(CONFIG_MAPS, &object).await.expect(201);
    }
    let list = test.get(CONFIG_MAPS).await.expect(200);
    let items = list["items"].as_array().unwrap();
    assert_eq!(items.len(), 40);
    assert_eq!(name(&items[39]), "m039");
    assert_eq!(items[39]["data"]["key"].as_str().unwrap().len(), 10_000);
}
