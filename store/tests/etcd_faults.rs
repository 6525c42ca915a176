//! The etcd backend over three real members while they come and go.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // A test.

mod suite;

use std::sync::Arc;
use std::time::{Duration, Instant};

use store::etcd::EtcdOptions;
use store::{ReadAt, Store, StoreError};
use suite::history::{self, Plan};
use suite::{PATIENCE, commit, create, put, value_of};
use testbed::Etcd;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn histories_are_linearizable_while_members_and_the_leader_are_killed() {
    let mut etcd = Etcd::start(3);
    let store: Arc<dyn Store> = Arc::new(etcd.connect().await);
    let plan = Plan { seed: 1, clients: 5, steps: 120, watchers: 3, pause: Duration::from_millis(50) };
    let use_of_it = tokio::spawn(history::run(Arc::clone(&store), store, plan));
    for round in 0..4 {
        // The leader and somebody else in turn; a quorum stays.
        let leader = etcd.leader().await;
        let victim = if round % 2 == 0 { leader } else { (leader + 1) % 3 };
        etcd.kill(victim);
        tokio::time::sleep(Duration::from_millis(700)).await;
        etcd.run(victim);
        etcd.settle().await;
    }
    let outcome = tokio::time::timeout(2 * PATIENCE, use_of_it).await.unwrap().unwrap().unwrap();
    println!("{outcome:?}");
    assert!(outcome.acknowledged > 50, "with a quorum there, work should go on: {outcome:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_nothing_is_acknowledged_and_with_one_all_goes_on() {
    let mut etcd = Etcd::start(3);
    let options = EtcdOptions { request_timeout: Duration::from_secs(2), ..etcd.options() };
    let store = Arc::new(Etcd::connect_with(options).await);
    commit(&*store, [put("/before", "1")]).await;
    etcd.kill(0);
    etcd.kill(1);
    let asked = Instant::now();
    let writes = (0..4).map(|n| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.commit(vec![create(&format!("/n/{n}"), "1")]).await })
    });
    let mut refused = Vec::new();
    for (n, outcome) in futures::future::join_all(writes).await.into_iter().enumerate() {
        match outcome.unwrap() {
            Err(StoreError::Unavailable(_)) => refused.push(n),
            Err(StoreError::OutcomeUnknown(_)) => {}
            other => panic!("without a quorum: {other:?}"),
        }
    }
    let read = store.get("/before", ReadAt::Current).await.unwrap_err();
    assert!(matches!(&read, StoreError::Unavailable(reason) if reason.contains("etcd")), "{read}");
    // Three times two seconds for the writes, two for the read, and time to be late.
    assert!(asked.elapsed() < Duration::from_secs(40), "{:?}", asked.elapsed());
    etcd.run(0);
    etcd.run(1);
    etcd.settle().await;
    let after = async { while store.commit(vec![put("/after", "1")]).await.is_err() {} };
    tokio::time::timeout(PATIENCE, after).await.expect("writes should work again");
    assert_eq!(value_of(&*store, "/before").await.as_deref(), Some("1"));
    for n in refused {
        assert_eq!(value_of(&*store, &format!("/n/{n}")).await, None, "/n/{n} was said not to be written");
    }
}

#[tokio::test]
async fn a_write_without_an_answer_is_found_out_about() {
    let etcd = Etcd::start(1);
    let options = EtcdOptions { request_timeout: Duration::from_secs(4), ..etcd.options() };
    let store = Arc::new(Etcd::connect_with(options).await);
    let old = commit(&*store, [put("/old", "1")]).await.revision;
    // It takes requests and does not answer them: every one that is on its way is lost.
    etcd.stop(0);
    let unconditional = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.commit(vec![put("/put", "1")]).await }
    });
    let deletion = tokio::spawn({
        let store = Arc::clone(&store);
        let precondition = store::Precondition::ModRevision(old);
        async move { store.commit(vec![store::Write { precondition, ..suite::delete("/old") }]).await }
    });
    tokio::time::sleep(Duration::from_millis(2500)).await;
    etcd.go_on(0);
    // Carried out late or sent again, it is there once.
    let revision = tokio::time::timeout(PATIENCE, unconditional).await.unwrap().unwrap().unwrap().revision;
    let entry = store.get("/put", ReadAt::Current).await.unwrap().entry.unwrap();
    assert_eq!((entry.mod_revision, entry.version), (revision, 1));
    // Who deleted something cannot be told. It is said so, or it was never carried out and then done again.
    match tokio::time::timeout(PATIENCE, deletion).await.unwrap().unwrap() {
        Ok(committed) => assert!(committed.revision > old),
        Err(StoreError::OutcomeUnknown(_)) => {}
        Err(other) => panic!("{other}"),
    }
    assert_eq!(value_of(&*store, "/old").await, None);
}

#[tokio::test]
async fn a_transaction_that_etcd_would_not_take_is_refused_by_name() {
    let etcd = Etcd::start(1);
    let store = etcd.connect().await;
    let writes = |count| (0..count).map(|n| create(&format!("/k/{n}"), "v")).collect::<Vec<_>>();
    let error = store.commit(writes(128)).await.unwrap_err();
    assert!(matches!(&error, StoreError::Setup(reason) if reason.contains("127")), "{error}");
    commit(&store, writes(127)).await;
    let error = store.commit(vec![put("\0fence", "mine")]).await.unwrap_err();
    assert!(matches!(error, StoreError::Setup(_)), "{error}");
}
