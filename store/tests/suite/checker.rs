//! Whether a recorded history is linearizable.
//!
//! Every answer carries the revision that it reflects, so there is only one order to try: transactions by revision, and
//! each read, conflict and transaction without effect after the transaction of its revision. The history is linearizable
//! if each answer is what the model says at that place, and if no operation that had ended when another began comes
//! after it.
//!
//! What an operation without an answer did is taken from the log that a watch of everything wrote; it may be in it once
//! or not at all.

use std::collections::BTreeMap;

use store::{Action, Change, Committed, Entry, GetResult, Range, RangeResult, ReadAt, Revision, Write};

use super::model::{Model, holds};

/// What a client asked for.
#[derive(Clone, Debug)]
pub enum Request {
    Commit(Vec<Write>),
    Get(String, ReadAt),
    Range(Range),
    CurrentRevision,
}

/// What it heard.
#[derive(Clone, Debug)]
pub enum Answer {
    Committed(Committed),
    Conflict {
        key: String,
        current: Option<Entry>,
        revision: Revision,
    },
    Got(GetResult),
    Ranged(RangeResult),
    Revision(Revision),
    /// It was not done.
    NotDone,
    /// It may have been done.
    Unknown,
}

/// One operation, with the places of its begin and end in the order of all begins and ends.
#[derive(Clone, Debug)]
pub struct Operation {
    pub request: Request,
    pub answer: Answer,
    pub called: u64,
    pub returned: u64,
}

/// What a watch of everything showed.
pub type Log = BTreeMap<Revision, Vec<Change>>;

/// Why a history is not linearizable.
#[derive(Debug, PartialEq, Eq)]
pub enum Violation {
    /// Two transactions were told the same revision.
    SharedRevision(Revision),
    /// A transaction was acknowledged although its condition did not hold.
    ConditionIgnored(Revision),
    /// A transaction was acknowledged and is not in the log.
    Lost(Revision),
    /// The log has something that nobody wrote, or that somebody wrote once and that is there twice.
    Unexplained(Revision),
    /// What a transaction did is not what was asked for.
    WrongEffect(Revision),
    /// An answer is not what the model says.
    WrongAnswer { revision: Revision, what: String },
    /// An answer is older than one that had been given before the question.
    Stale { revision: Revision, after: Revision },
}

/// Checks a history that began with an empty store at `start`, and returns what the store went through.
pub fn check(operations: &[Operation], log: &Log, start: Revision) -> Result<Model, Violation> {
    let mut model = Model::starting_at(start);
    let acknowledged = acknowledged(operations)?;
    let mut unknown: Vec<(&Operation, &[Write])> = operations
        .iter()
        .filter(|operation| matches!(operation.answer, Answer::Unknown))
        .filter_map(writes_of)
        .collect();
    // The revision at which each operation took place.
    let mut places: Vec<(&Operation, Revision, bool)> = Vec::new();
    let mut revisions: Vec<Revision> = acknowledged.keys().chain(log.keys()).copied().collect();
    revisions.sort_unstable();
    revisions.dedup();
    for revision in revisions {
        let changes = log.get(&revision).ok_or(Violation::Lost(revision))?;
        let (operation, writes) = match acknowledged.get(&revision) {
            Some(found) => *found,
            None => {
                let position = unknown.iter().position(|(_, writes)| explains(writes, changes));
                unknown.swap_remove(position.ok_or(Violation::Unexplained(revision))?)
            }
        };
        if let Answer::Committed(committed) = &operation.answer {
            let previous = writes.iter().map(|write| model.state().get(&*write.key).cloned());
            if previous.collect::<Vec<_>>() != committed.previous {
                return Err(Violation::WrongAnswer { revision, what: format!("{committed:?}") });
            }
        }
        model.apply_at(revision, writes).map_err(|_| Violation::ConditionIgnored(revision))?;
        let same_keys = changes
            .iter()
            .map(|change| &**change.key())
            .eq(model.changed_at(revision).iter().map(String::as_str));
        if !same_keys || !changes.iter().all(|change| model.knows(revision, change)) {
            return Err(Violation::WrongEffect(revision));
        }
        places.push((operation, revision, true));
    }
    for operation in operations {
        if let Some(revision) = check_answer(operation, &model)? {
            places.push((operation, revision, false));
        }
    }
    check_order(places)?;
    Ok(model)
}

fn writes_of(operation: &Operation) -> Option<(&Operation, &[Write])> {
    match &operation.request {
        Request::Commit(writes) => Some((operation, writes)),
        _ => None,
    }
}

/// The acknowledged transactions that changed something, by revision.
fn acknowledged(operations: &[Operation]) -> Result<BTreeMap<Revision, (&Operation, &[Write])>, Violation> {
    let mut found = BTreeMap::new();
    for (operation, writes) in operations.iter().filter_map(writes_of) {
        if let Answer::Committed(committed) = &operation.answer
            && has_effect(writes, committed)
            && found.insert(committed.revision, (operation, writes)).is_some()
        {
            return Err(Violation::SharedRevision(committed.revision));
        }
    }
    Ok(found)
}

fn has_effect(writes: &[Write], committed: &Committed) -> bool {
    let pairs = writes.iter().zip(&committed.previous);
    pairs.into_iter().any(|(write, previous)| match write.action {
        Action::Put { .. } => true,
        Action::Delete => previous.is_some(),
        Action::Nothing => false,
    })
}

/// Whether a transaction without an answer could have made these changes. Values are unique, so puts tell.
fn explains(writes: &[Write], changes: &[Change]) -> bool {
    let done = |write: &Write| changes.iter().find(|change| **change.key() == *write.key);
    changes.iter().all(|change| writes.iter().any(|write| write.key == *change.key()))
        && writes.iter().all(|write| match (&write.action, done(write)) {
            (Action::Put { value, .. }, Some(Change::Put { entry, .. })) => entry.value == *value,
            (Action::Put { .. }, _) | (Action::Delete, Some(Change::Put { .. })) => false,
            (Action::Delete, _) | (Action::Nothing, _) => true,
        })
}

/// Checks an answer that changed nothing, and says of which revision it is.
fn check_answer(operation: &Operation, model: &Model) -> Result<Option<Revision>, Violation> {
    let (revision, right, current) = match (&operation.request, &operation.answer) {
        (_, Answer::Revision(revision)) => (*revision, true, true),
        (Request::Commit(writes), Answer::Committed(committed)) if !has_effect(writes, committed) => {
            let state = model.state_at(committed.revision);
            let right = writes.iter().all(|write| !state.contains_key(&*write.key) && holds(write, state));
            (committed.revision, right, true)
        }
        (Request::Commit(writes), Answer::Conflict { key, current, revision }) => {
            let state = model.state_at(*revision);
            let failed = writes.iter().find(|write| !holds(write, state));
            let right = failed.is_some_and(|write| *write.key == **key) && state.get(key) == current.as_ref();
            (*revision, right, true)
        }
        (Request::Get(key, at), Answer::Got(got)) => {
            let right =
                got.entry.as_ref() == model.state_at(got.revision).get(key) && is_of(*at, got.revision);
            (got.revision, right, *at == ReadAt::Current)
        }
        (Request::Range(range), Answer::Ranged(read)) => {
            let right = is_range(range, read, model) && is_of(range.at, read.revision);
            (read.revision, right, range.at == ReadAt::Current)
        }
        _ => return Ok(None),
    };
    if !right {
        return Err(Violation::WrongAnswer { revision, what: format!("{:?}", operation.answer) });
    }
    Ok(current.then_some(revision))
}

fn is_of(at: ReadAt, revision: Revision) -> bool {
    at == ReadAt::Current || at == ReadAt::Revision(revision)
}

/// Whether a range is what the model holds.
pub fn is_range(range: &Range, read: &RangeResult, model: &Model) -> bool {
    let after = |key: &str| range.after.as_deref().is_none_or(|after| key > after);
    let state = model.state_at(read.revision);
    let expected: Vec<&Entry> =
        state.values().filter(|entry| entry.key.starts_with(&range.prefix) && after(&entry.key)).collect();
    let shown = if range.limit == 0 { expected.len() } else { range.limit.min(expected.len()) };
    read.entries.iter().eq(expected[..shown].iter().copied()) && read.remaining == expected.len() - shown
}

/// No operation may come before one that had ended when it began; transactions have their revisions for themselves.
fn check_order(mut places: Vec<(&Operation, Revision, bool)>) -> Result<(), Violation> {
    places.sort_by_key(|(operation, ..)| operation.called);
    let mut ends: Vec<(u64, Revision)> =
        places.iter().map(|(operation, revision, _)| (operation.returned, *revision)).collect();
    ends.sort_unstable();
    let (mut ended, mut newest) = (ends.into_iter().peekable(), 0);
    for (operation, revision, writes) in places {
        while let Some((_, ended_at)) = ended.next_if(|(returned, _)| *returned < operation.called) {
            newest = newest.max(ended_at);
        }
        if revision < newest || (writes && revision == newest) {
            return Err(Violation::Stale { revision, after: newest });
        }
    }
    Ok(())
}
