//! What the log and the snapshots are made of: records, as bytes.
//!
//! Numbers are little-endian and of fixed width; strings and values carry their length. Checksums are the business of
//! [`super::frame`]; a record that does not decode inside a frame whose checksum holds is a bug or another version.

use std::sync::Arc;

use bytes::Bytes;

use crate::{Entry, Revision};

const KIND_TRANSACTION: u8 = 1;
const KIND_COMPACTION: u8 = 2;
const KIND_ENTRY: u8 = 3;
const KIND_END: u8 = 4;
const OPERATION_PUT: u8 = 1;
const OPERATION_DELETE: u8 = 2;

/// One record of a log segment or a snapshot.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// A committed transaction (log).
    Transaction(Transaction),
    /// History before this revision was given up on request (log).
    Compaction(Revision),
    /// One live entry (snapshot), with the time at which it expires.
    Entry(Entry, Option<u64>),
    /// The last record of a snapshot: how many entries came before it.
    End(u64),
}

/// A committed transaction.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Transaction {
    pub(super) revision: Revision,
    /// When it was committed, in milliseconds of Unix time.
    pub(super) time_ms: u64,
    pub(super) operations: Vec<Operation>,
}

/// What a transaction did to one key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Put { key: Arc<str>, value: Bytes, deadline_ms: Option<u64> },
    Delete { key: Arc<str> },
}

impl Transaction {
    /// Appends the record to a frame's payload.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.push(KIND_TRANSACTION);
        out.extend_from_slice(&self.revision.to_le_bytes());
        out.extend_from_slice(&self.time_ms.to_le_bytes());
        put_length(out, self.operations.len());
        for operation in &self.operations {
            match operation {
                Operation::Put { key, value, deadline_ms } => {
                    out.push(OPERATION_PUT);
                    put_bytes(out, key.as_bytes());
                    out.extend_from_slice(&deadline_ms.unwrap_or(0).to_le_bytes());
                    put_bytes(out, value);
                }
                Operation::Delete { key } => {
                    out.push(OPERATION_DELETE);
                    put_bytes(out, key.as_bytes());
                }
            }
        }
    }
}

/// Appends a compaction record to a frame's payload.
pub(super) fn encode_compaction(revision: Revision, out: &mut Vec<u8>) {
    out.push(KIND_COMPACTION);
    out.extend_from_slice(&revision.to_le_bytes());
}

/// Appends a live entry to a snapshot's payload.
pub(super) fn encode_entry(entry: &Entry, deadline_ms: Option<u64>, out: &mut Vec<u8>) {
    out.push(KIND_ENTRY);
    out.extend_from_slice(&entry.create_revision.to_le_bytes());
    out.extend_from_slice(&entry.mod_revision.to_le_bytes());
    out.extend_from_slice(&entry.version.to_le_bytes());
    out.extend_from_slice(&deadline_ms.unwrap_or(0).to_le_bytes());
    put_bytes(out, entry.key.as_bytes());
    put_bytes(out, &entry.value);
}

/// Appends the record that ends a snapshot.
pub(super) fn encode_end(entries: u64, out: &mut Vec<u8>) {
    out.push(KIND_END);
    out.extend_from_slice(&entries.to_le_bytes());
}

/// Takes the records of a payload apart, in order.
pub(super) struct Records<'a> {
    rest: &'a [u8],
}

impl<'a> Records<'a> {
    pub(super) fn new(payload: &'a [u8]) -> Self {
        Self { rest: payload }
    }

    /// The next record; `Ok(None)` at the end; an error if the bytes make no sense.
    pub(super) fn next(&mut self) -> Result<Option<Record>, &'static str> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        self.record().ok_or("a record does not decode").map(Some)
    }

    fn record(&mut self) -> Option<Record> {
        match self.byte()? {
            KIND_TRANSACTION => self.transaction().map(Record::Transaction),
            KIND_COMPACTION => self.number().map(Record::Compaction),
            KIND_ENTRY => self.entry(),
            KIND_END => self.number().map(Record::End),
            _ => None,
        }
    }

    fn transaction(&mut self) -> Option<Transaction> {
        let revision = self.number()?;
        let time_ms = self.number()?;
        let count = self.length()?;
        let mut operations = Vec::with_capacity(count.min(1024));
        for _ in 0..count {
            operations.push(match self.byte()? {
                OPERATION_PUT => {
                    let key = self.key()?;
                    let deadline_ms = self.deadline()?;
                    Operation::Put { key, deadline_ms, value: Bytes::copy_from_slice(self.bytes()?) }
                }
                OPERATION_DELETE => Operation::Delete { key: self.key()? },
                _ => return None,
            });
        }
        Some(Transaction { revision, time_ms, operations })
    }

    fn entry(&mut self) -> Option<Record> {
        let (create_revision, mod_revision, version) = (self.number()?, self.number()?, self.number()?);
        let deadline_ms = self.deadline()?;
        let key = self.key()?;
        let value = Bytes::copy_from_slice(self.bytes()?);
        Some(Record::Entry(Entry { key, value, create_revision, mod_revision, version }, deadline_ms))
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn number(&mut self) -> Option<u64> {
        let (number, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(u64::from_le_bytes(*number))
    }

    fn deadline(&mut self) -> Option<Option<u64>> {
        self.number().map(|deadline| (deadline != 0).then_some(deadline))
    }

    fn length(&mut self) -> Option<usize> {
        let (number, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        usize::try_from(u32::from_le_bytes(*number)).ok()
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.length()?;
        let (bytes, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(bytes)
    }

    fn key(&mut self) -> Option<Arc<str>> {
        std::str::from_utf8(self.bytes()?).ok().map(Arc::from)
    }
}

/// The store bounds transactions far below 4 GiB before anything is encoded, so lengths fit.
fn put_length(out: &mut Vec<u8>, length: usize) {
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_length(out, bytes.len());
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_as_they_went() {
        let transaction = Transaction {
            revision: 7,
            time_ms: 1234,
            operations: vec![
                Operation::Put {
                    key: "a".into(),
                    value: Bytes::from_static(b"\0value"),
                    deadline_ms: Some(99),
                },
                Operation::Delete { key: "ä".into() },
            ],
        };
        let entry = Entry {
            key: "k".into(),
            value: Bytes::from_static(b"v"),
            create_revision: 2,
            mod_revision: 5,
            version: 3,
        };
        let mut payload = Vec::new();
        transaction.encode(&mut payload);
        encode_compaction(6, &mut payload);
        encode_entry(&entry, None, &mut payload);
        encode_end(1, &mut payload);
        let mut records = Records::new(&payload);
        assert_eq!(records.next(), Ok(Some(Record::Transaction(transaction))));
        assert_eq!(records.next(), Ok(Some(Record::Compaction(6))));
        assert_eq!(records.next(), Ok(Some(Record::Entry(entry, None))));
        assert_eq!(records.next(), Ok(Some(Record::End(1))));
        assert_eq!(records.next(), Ok(None));
    }

    #[test]
    fn a_shortened_payload_is_an_error_and_never_a_panic() {
        let mut payload = Vec::new();
        Transaction {
            revision: 7,
            time_ms: 1,
            operations: vec![Operation::Put { key: "a".into(), value: Bytes::from("v"), deadline_ms: None }],
        }
        .encode(&mut payload);
        for length in 1..payload.len() {
            assert!(Records::new(&payload[..length]).next().is_err(), "{length}");
        }
    }
}
