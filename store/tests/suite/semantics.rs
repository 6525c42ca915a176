//! What every backend must do, one by one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use store::{Action, Change, Precondition, Range, ReadAt, Revision, Store, StoreError, WatchEvent, Write};

use super::{
    changed_keys, commit, create, delete, keys, next_changes, put, range, short_lived, update, value_of,
};

pub async fn revisions_grow_by_one_per_transaction(store: Arc<dyn Store>) {
    let start = store.current_revision().await.unwrap();
    assert_eq!(commit(&*store, [put("/a", "1")]).await.revision, start + 1);
    assert_eq!(commit(&*store, [put("/a", "2"), put("/b", "1")]).await.revision, start + 2);
    assert_eq!(commit(&*store, [delete("/a"), put("/c", "1")]).await.revision, start + 3);
    assert_eq!(store.current_revision().await.unwrap(), start + 3);
}

pub async fn entries_carry_their_history(store: Arc<dyn Store>) {
    let first = commit(&*store, [put("/a", "1")]).await;
    assert_eq!(first.previous, [None]);
    let second = commit(&*store, [put("/a", "2")]).await;
    let old = second.previous[0].clone().expect("what stood there");
    assert_eq!((&*old.value, old.version, old.mod_revision), (&b"1"[..], 1, first.revision));
    let entry = store.get("/a", ReadAt::Current).await.unwrap().entry.unwrap();
    assert_eq!((&*entry.key, &*entry.value), ("/a", &b"2"[..]));
    assert_eq!(
        (entry.create_revision, entry.mod_revision, entry.version),
        (first.revision, second.revision, 2)
    );
    commit(&*store, [delete("/a")]).await;
    let again = commit(&*store, [put("/a", "3")]).await;
    assert_eq!(again.previous, [None]);
    let entry = store.get("/a", ReadAt::Current).await.unwrap().entry.unwrap();
    assert_eq!((entry.create_revision, entry.version), (again.revision, 1));
}

pub async fn a_failed_precondition_writes_nothing_and_says_what_is_there(store: Arc<dyn Store>) {
    let first = commit(&*store, [create("/a", "1")]).await;
    let conflict = store.commit(vec![put("/b", "1"), create("/a", "2")]).await.unwrap_err();
    match conflict {
        StoreError::Conflict { key, current, revision } => {
            assert_eq!((key.as_str(), revision), ("/a", first.revision));
            assert_eq!(&*current.unwrap().value, b"1");
        }
        other => panic!("{other}"),
    }
    assert_eq!(value_of(&*store, "/b").await, None);
    let wrong = store.commit(vec![update("/a", "2", first.revision + 7)]).await.unwrap_err();
    assert!(matches!(wrong, StoreError::Conflict { current: Some(_), .. }), "{wrong}");
    let gone = Write { precondition: Precondition::ModRevision(first.revision), ..delete("/none") };
    let gone = store.commit(vec![gone]).await.unwrap_err();
    assert!(matches!(gone, StoreError::Conflict { current: None, .. }), "{gone}");
    assert_eq!(store.current_revision().await.unwrap(), first.revision);
    let second = commit(&*store, [update("/a", "2", first.revision)]).await.revision;
    assert_eq!(value_of(&*store, "/a").await.as_deref(), Some("2"));
    // A condition on a key that is left alone counts as much.
    let unchanged = |revision| Write {
        precondition: Precondition::ModRevision(revision),
        action: Action::Nothing,
        ..delete("/a")
    };
    let stale = store.commit(vec![put("/b", "1"), unchanged(first.revision)]).await.unwrap_err();
    assert!(matches!(stale, StoreError::Conflict { ref key, .. } if key == "/a"), "{stale}");
    assert_eq!(value_of(&*store, "/b").await, None);
    let done = commit(&*store, [put("/b", "1"), unchanged(second)]).await;
    let before: Vec<_> = done.previous.iter().map(|entry| entry.as_ref().map(|e| e.mod_revision)).collect();
    assert_eq!((done.revision, before), (second + 1, vec![None, Some(second)]));
    assert_eq!(store.get("/a", ReadAt::Current).await.unwrap().entry.unwrap().mod_revision, second);
}

pub async fn deleting_what_is_not_there_makes_no_revision(store: Arc<dyn Store>) {
    let first = commit(&*store, [put("/a", "1")]).await;
    let nothing = commit(&*store, [delete("/b")]).await;
    assert_eq!((nothing.revision, nothing.previous), (first.revision, vec![None]));
    let deleted = commit(&*store, [delete("/a")]).await;
    assert_eq!(deleted.revision, first.revision + 1);
    assert_eq!(&*deleted.previous[0].as_ref().unwrap().value, b"1");
}

pub async fn of_racing_creations_one_wins(store: Arc<dyn Store>) {
    let racers = (0..16).map(|racer| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.commit(vec![create("/a", &racer.to_string())]).await })
    });
    let results = futures::future::join_all(racers).await;
    let won = results.iter().filter(|result| result.as_ref().unwrap().is_ok()).count();
    let lost = results.iter().filter(|result| matches!(result, Ok(Err(StoreError::Conflict { .. })))).count();
    assert_eq!((won, lost), (1, 15));
}

pub async fn counters_that_race_lose_no_step(store: Arc<dyn Store>) {
    commit(&*store, [put("/n", "0")]).await;
    let counters = (0..8).map(|_| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for _ in 0..10 {
                loop {
                    let entry = store.get("/n", ReadAt::Current).await.unwrap().entry.unwrap();
                    let count: u32 = std::str::from_utf8(&entry.value).unwrap().parse().unwrap();
                    let next = update("/n", &(count + 1).to_string(), entry.mod_revision);
                    match store.commit(vec![next]).await {
                        Ok(_) => break,
                        Err(StoreError::Conflict { .. }) => {}
                        Err(other) => panic!("{other}"),
                    }
                }
            }
        })
    });
    for counter in futures::future::join_all(counters).await {
        counter.unwrap();
    }
    assert_eq!(value_of(&*store, "/n").await.as_deref(), Some("80"));
}

pub async fn ranges_are_in_order_paged_and_consistent(store: Arc<dyn Store>) {
    for key in ["/p/b", "/p/a", "/p/d", "/p/c", "/q/a", "/p", "/o/z", "/pa"] {
        commit(&*store, [put(key, key)]).await;
    }
    let all = store.range(range("/p/")).await.unwrap();
    assert_eq!(keys(&all.entries), ["/p/a", "/p/b", "/p/c", "/p/d"]);
    assert_eq!((all.remaining, all.revision), (0, store.current_revision().await.unwrap()));
    let first = store.range(Range { limit: 2, ..range("/p/") }).await.unwrap();
    assert_eq!((keys(&first.entries), first.remaining), (vec!["/p/a", "/p/b"], 2));
    commit(&*store, [delete("/p/c"), put("/p/bb", "new")]).await;
    let at = ReadAt::Revision(first.revision);
    let page = Range { after: Some("/p/b".into()), limit: 2, at, ..range("/p/") };
    let second = store.range(page).await.unwrap();
    assert_eq!((keys(&second.entries), second.remaining), (vec!["/p/c", "/p/d"], 0));
    assert_eq!(second.revision, first.revision);
    let now = store.range(range("/p/")).await.unwrap();
    assert_eq!(keys(&now.entries), ["/p/a", "/p/b", "/p/bb", "/p/d"]);
    assert_eq!(store.range(range("/none/")).await.unwrap().entries, []);
}

pub async fn older_revisions_read_as_they_were(store: Arc<dyn Store>) {
    let mut states: Vec<(Revision, BTreeMap<String, String>)> = Vec::new();
    let mut state = BTreeMap::new();
    for step in 0..30_u32 {
        let key = format!("/k/{}", step * 7 % 5);
        let committed = if step % 4 == 3 {
            state.remove(&key);
            commit(&*store, [delete(&key)]).await
        } else {
            state.insert(key.clone(), step.to_string());
            commit(&*store, [put(&key, &step.to_string())]).await
        };
        states.push((committed.revision, state.clone()));
    }
    for (revision, state) in &states {
        let read = store.range(Range { at: ReadAt::Revision(*revision), ..range("/k/") }).await.unwrap();
        let read: BTreeMap<_, _> = read
            .entries
            .iter()
            .map(|entry| (entry.key.to_string(), String::from_utf8(entry.value.to_vec()).unwrap()))
            .collect();
        assert_eq!(&read, state, "revision {revision}");
        let one = store.get("/k/2", ReadAt::Revision(*revision)).await.unwrap().entry;
        assert_eq!(one.map(|entry| entry.value), state.get("/k/2").map(|value| Bytes::from(value.clone())));
    }
}

pub async fn the_future_and_the_compacted_past_are_refused(store: Arc<dyn Store>) {
    let mut revision = 0;
    for step in 0..5 {
        revision = commit(&*store, [put("/a", &step.to_string())]).await.revision;
    }
    let future = store.get("/a", ReadAt::Revision(revision + 1)).await.unwrap_err();
    assert!(matches!(future, StoreError::FutureRevision { .. }), "{future}");
    store.compact(revision - 1).await.unwrap();
    assert!(store.get("/a", ReadAt::Revision(revision - 1)).await.is_ok());
    let past = store.get("/a", ReadAt::Revision(revision - 2)).await.unwrap_err();
    assert!(matches!(past, StoreError::Compacted { .. }), "{past}");
    let past = store.range(Range { at: ReadAt::Revision(revision - 2), ..range("/") }).await.unwrap_err();
    assert!(matches!(past, StoreError::Compacted { .. }), "{past}");
    let refused = match store.watch("/", Some(revision - 2)).await {
        Ok(mut watch) => loop {
            match watch.next().await {
                Some(Ok(WatchEvent::Progress(_))) => {}
                Some(Err(error)) => break error,
                other => panic!("{other:?}"),
            }
        },
        Err(error) => error,
    };
    assert!(matches!(refused, StoreError::Compacted { .. }), "{refused}");
    let mut watch = store.watch("/", Some(revision - 1)).await.unwrap();
    assert_eq!(next_changes(&mut watch).await.0, revision - 1);
    let future = store.compact(revision + 9).await.unwrap_err();
    assert!(matches!(future, StoreError::FutureRevision { .. }), "{future}");
}

pub async fn a_watch_delivers_each_change_once_in_order_with_what_was_there(store: Arc<dyn Store>) {
    commit(&*store, [put("/w/a", "before")]).await;
    let mut watch = store.watch("/w/", None).await.unwrap();
    let first = commit(&*store, [put("/w/a", "1")]).await.revision;
    commit(&*store, [put("/x", "elsewhere")]).await;
    let second = commit(&*store, [delete("/w/a")]).await.revision;
    match next_changes(&mut watch).await {
        (revision, changes) if revision == first => match &changes[..] {
            [Change::Put { entry, previous: Some(previous) }] => {
                assert_eq!((&*entry.value, &*previous.value), (&b"1"[..], &b"before"[..]));
                assert_eq!((entry.mod_revision, entry.version), (first, 2));
            }
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
    match next_changes(&mut watch).await {
        (revision, changes) if revision == second => match &changes[..] {
            [Change::Delete { key, previous: Some(previous), revision }] => {
                assert_eq!((&**key, &*previous.value, *revision), ("/w/a", &b"1"[..], second));
            }
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

pub async fn changes_of_one_revision_come_together(store: Arc<dyn Store>) {
    let mut watch = store.watch("/w/", None).await.unwrap();
    let writes: Vec<_> = (0..60).map(|n| put(&format!("/w/{n:03}"), &"x".repeat(2000))).collect();
    let revision = commit(&*store, [writes, vec![put("/other", "1")]].concat()).await.revision;
    let (seen, changes) = next_changes(&mut watch).await;
    assert_eq!((seen, changes.len()), (revision, 60));
    let expected: Vec<_> = (0..60).map(|n| format!("/w/{n:03}")).collect();
    assert_eq!(changed_keys(&changes), expected);
}

pub async fn a_watch_from_an_older_revision_replays_and_then_follows(store: Arc<dyn Store>) {
    let start = store.current_revision().await.unwrap();
    let mut expected = Vec::new();
    for step in 0..20 {
        expected.push(commit(&*store, [put("/w/a", &step.to_string())]).await.revision);
    }
    let mut watch = store.watch("/w/", Some(start + 11)).await.unwrap();
    for step in 20..25 {
        expected.push(commit(&*store, [put("/w/a", &step.to_string())]).await.revision);
    }
    for revision in &expected[10..] {
        assert_eq!(next_changes(&mut watch).await.0, *revision);
    }
}

pub async fn watchers_under_load_miss_nothing(store: Arc<dyn Store>) {
    let start = store.current_revision().await.unwrap();
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for step in 0..50 {
                    commit(&*store, [put(&format!("/w/{writer}"), &step.to_string())]).await;
                }
            })
        })
        .collect();
    let mut watches = Vec::new();
    for _ in 0..3 {
        watches.push(store.watch("/w/", Some(start + 1)).await.unwrap());
        tokio::task::yield_now().await;
    }
    for writer in writers {
        writer.await.unwrap();
    }
    for mut watch in watches {
        for revision in start + 1..=start + 200 {
            assert_eq!(next_changes(&mut watch).await.0, revision);
        }
    }
}

pub async fn a_time_to_live_ends_in_a_deletion(store: Arc<dyn Store>) {
    let mut watch = store.watch("/t/", None).await.unwrap();
    let started = Instant::now();
    commit(&*store, [short_lived("/t/gone", Duration::from_secs(1))]).await;
    commit(&*store, [short_lived("/t/kept", Duration::from_secs(1))]).await;
    commit(&*store, [put("/t/kept", "for good")]).await;
    assert!(value_of(&*store, "/t/gone").await.is_some());
    for _ in 0..3 {
        next_changes(&mut watch).await;
    }
    let (revision, changes) = next_changes(&mut watch).await;
    assert_eq!(changed_keys(&changes), ["/t/gone"]);
    assert!(matches!(&changes[0], Change::Delete { previous: Some(_), .. }));
    assert!(started.elapsed() >= Duration::from_millis(900), "{:?}", started.elapsed());
    assert_eq!(value_of(&*store, "/t/gone").await, None);
    assert_eq!(value_of(&*store, "/t/kept").await.as_deref(), Some("for good"));
    assert!(store.current_revision().await.unwrap() >= revision);
}

pub async fn large_values_and_large_ranges_come_through(store: Arc<dyn Store>) {
    let value = "v".repeat(1 << 20);
    for n in 0..24 {
        commit(&*store, [put(&format!("/big/{n:02}"), &value)]).await;
    }
    let all = store.range(range("/big/")).await.unwrap();
    assert_eq!(all.entries.len(), 24);
    assert!(all.entries.iter().all(|entry| entry.value.len() == value.len()));
    let page = store.range(Range { limit: 10, ..range("/big/") }).await.unwrap();
    assert_eq!((page.entries.len(), page.remaining), (10, 14));
}

pub async fn a_malformed_transaction_is_refused(store: Arc<dyn Store>) {
    let start = store.current_revision().await.unwrap();
    let twice = store.commit(vec![put("/a", "1"), put("/a", "2")]).await.unwrap_err();
    assert!(matches!(twice, StoreError::Setup(_)), "{twice}");
    assert_eq!(store.commit(Vec::new()).await.unwrap().revision, start);
    store.health().await.unwrap();
}
