//! The events about an object, with which every page ends.

use serde_json::Value;

use super::page::{Page, since};
use crate::session::{Session, escape};
use crate::tree::{items, number, text};

/// Asks for the events about an object and writes them. No answer is no events: the page is worth showing without.
pub async fn write(session: &Session, object: &Value, page: &mut Page) {
    let namespace = text(object, "/metadata/namespace");
    let selector = format!(
        "involvedObject.kind={},involvedObject.name={}",
        text(object, "/kind"),
        text(object, "/metadata/name")
    );
    let collection = match namespace {
        "" => "/api/v1/events".to_string(),
        namespace => format!("/api/v1/namespaces/{namespace}/events"),
    };
    let path = format!("{collection}?fieldSelector={}", escape(&selector));
    let Ok(list) = session.api.get(&path).await else { return };
    // An object of the same name may have lived before; events about nodes carry the node's name as uid.
    let ours = |event: &&Value| {
        let uid = text(event, "/involvedObject/uid");
        uid.is_empty() || uid == text(object, "/metadata/uid") || uid == text(object, "/metadata/name")
    };
    let mut events: Vec<&Value> = items(&list, "/items").filter(ours).collect();
    events.sort_by_key(|event| order(event));
    table(&events, page);
}

/// When an event was seen last.
pub fn last_seen(event: &Value) -> &str {
    ["/series/lastObservedTime", "/lastTimestamp", "/eventTime", "/metadata/creationTimestamp"]
        .into_iter()
        .map(|pointer| text(event, pointer))
        .find(|moment| !moment.is_empty())
        .unwrap_or_default()
}

/// Most events are dated to the second: within one the order of their last writes decides.
fn order(event: &Value) -> (String, u64) {
    let second = last_seen(event).chars().take("2026-01-01T00:00:00".len()).collect();
    (second, text(event, "/metadata/resourceVersion").parse().unwrap_or_default())
}

/// How long ago, how often and over how long.
pub fn interval(event: &Value) -> String {
    let first = match text(event, "/eventTime") {
        "" => text(event, "/firstTimestamp"),
        moment => moment,
    };
    let count = number(event, "/count");
    if event["series"].is_object() {
        let last = since(text(event, "/series/lastObservedTime"));
        return format!("{last} (x{} over {})", number(event, "/series/count"), since(first));
    }
    if count > 1 {
        return format!("{} (x{count} over {})", since(text(event, "/lastTimestamp")), since(first));
    }
    since(first)
}

fn table(events: &[&Value], page: &mut Page) {
    if events.is_empty() {
        page.line(0, "Events:\t<none>");
        return;
    }
    page.end_block();
    page.line(0, "Events:");
    page.line(1, "Type\tReason\tAge\tFrom\tMessage");
    page.line(1, "----\t------\t----\t----\t-------");
    for event in events {
        let from = match text(event, "/source/component") {
            "" => text(event, "/reportingComponent"),
            component => component,
        };
        let message = text(event, "/message").trim();
        let message = match text(event, "/involvedObject/fieldPath") {
            "" => message.to_string(),
            field => format!("{field}: {message}"),
        };
        let cells =
            [text(event, "/type"), text(event, "/reason"), &interval(event), from, &message].join("\t");
        page.line(1, cells.replace('\n', " "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn events_of_one_second_are_in_the_order_of_their_writes() {
        let event = |reason: &str, at: &str, version: &str| json!({"reason": reason, "lastTimestamp": at, "metadata": {"resourceVersion": version}});
        let mut events = [
            event("Started", "2026-01-01T00:00:09Z", "101"),
            event("Scheduled", "2026-01-01T00:00:09.123456Z", "98"),
            event("Killing", "2026-01-01T00:00:11Z", "97"),
            event("Created", "2026-01-01T00:00:09Z", "100"),
        ];
        events.sort_by_key(order);
        assert_eq!(
            events.map(|event| event["reason"].clone()),
            ["Scheduled", "Created", "Started", "Killing"]
        );
    }

    #[test]
    fn events_that_repeat_are_told_with_their_number() {
        let now = jiff::Timestamp::now().to_string();
        let once = json!({"type": "Normal", "reason": "Started", "firstTimestamp": now, "count": 1,
            "source": {"component": "kubelet"}, "message": "Started container web"});
        let often = json!({"type": "Warning", "reason": "BackOff", "firstTimestamp": now, "lastTimestamp": now, "count": 5,
            "reportingComponent": "kubelet", "message": "m", "involvedObject": {"fieldPath": "spec.containers{web}"}});
        let mut page = Page::default();
        table(&[&once, &often], &mut page);
        let text = page.finish();
        assert!(text.starts_with("Events:\n  Type     Reason"), "{text}");
        assert!(text.contains("0s (x5 over 0s)"), "{text}");
        assert!(text.contains("spec.containers{web}: m"), "{text}");
    }
}
