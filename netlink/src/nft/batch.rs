//! From two tables to the transaction between them.

use super::expression::value;
use super::table::type_and_len;
use super::{
    BATCH_BEGIN, BATCH_END, Chain, ChainKind, DELETE_CHAIN, DELETE_ELEMENTS, DELETE_RULE, DELETE_SET,
    DELETE_TABLE, Data, Elements, Family, NEW_CHAIN, NEW_ELEMENTS, NEW_RULE, NEW_SET, NEW_TABLE, Rule,
    SUBSYSTEM, Set, Table, Value, generic,
};
use crate::{Error, Message, Protocol, Socket};

/// Elements per message. An attribute holds at most 64 KiB, an element takes well below 128 bytes.
const ELEMENTS_PER_MESSAGE: usize = 400;
const DATA_TYPE_VERDICT: u32 = 0xffff_ff00;
const SET_FLAG_MAP: u32 = 0x08;
const SET_FLAG_TIMEOUT: u32 = 0x10;
const SET_FLAG_DYNAMIC: u32 = 0x20;

/// A transaction: messages with what each is for.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    steps: Vec<(String, Message)>,
}

impl Batch {
    /// The transaction that turns `installed` into `desired`. With nothing installed, or when something changed its form, the
    /// whole table is replaced (still in one step for the packets).
    #[must_use]
    pub fn between(installed: Option<&Table>, desired: &Table) -> Self {
        let mut batch = Self::default();
        let keep = installed.filter(|old| !needs_replacement(old, desired));
        let nothing = Table::new(desired.family, &desired.name);
        if keep.is_none() {
            // Deleting what does not exist would fail, so it is made first.
            batch.table(NEW_TABLE, desired);
            batch.table(DELETE_TABLE, desired);
            batch.table(NEW_TABLE, desired);
        }
        let old = keep.unwrap_or(&nothing);
        batch.create_containers(old, desired);
        batch.update_rules(old, desired);
        batch.update_elements(old, desired);
        batch.delete_containers(old, desired);
        batch
    }

    /// The transaction that takes a table away, whether or not it is there.
    #[must_use]
    pub fn removal(family: Family, name: &str) -> Self {
        let mut batch = Self::default();
        let table = Table::new(family, name);
        batch.table(NEW_TABLE, &table);
        batch.table(DELETE_TABLE, &table);
        batch
    }

    /// A transaction that adds and takes away elements of one set of an existing table.
    #[must_use]
    pub fn elements(table: (Family, &str), set: &str, removed: &Elements, added: &Elements) -> Self {
        let mut batch = Self::default();
        batch.element_messages(DELETE_ELEMENTS, table, set, removed.iter());
        batch.element_messages(NEW_ELEMENTS, table, set, added.iter());
        batch
    }

    /// A transaction that puts a rule first in a chain of somebody else's.
    pub(super) fn insertion(family: Family, table: &str, chain: &str, rule: &Rule) -> Self {
        let mut batch = Self::default();
        batch.rule(family.number(), table, chain, rule, 0);
        batch
    }

    /// Adds the steps of another transaction after those of this one.
    pub fn append(&mut self, other: Self) {
        self.steps.extend(other.steps);
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Number of messages.
    #[must_use]
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// What the steps do, in words.
    pub fn descriptions(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().map(|(description, _)| description.as_str())
    }

    pub(super) fn push(&mut self, description: String, message: Message) {
        self.steps.push((description, message));
    }

    fn table(&mut self, kind: u16, table: &Table) {
        let flags = if kind == NEW_TABLE { libc::NLM_F_CREATE as u16 } else { 0 };
        let mut message = start(kind, flags, table.family);
        message.attr_str(1, &table.name);
        let verb = if kind == NEW_TABLE { "make" } else { "delete" };
        self.push(format!("{verb} table {}", table.name), message);
    }

    fn create_containers(&mut self, old: &Table, desired: &Table) {
        for ((name, set), id) in
            desired.sets.iter().zip(1..).filter(|((name, _), _)| !old.sets.contains_key(*name))
        {
            let message = set_message(desired, name, set, id);
            self.push(format!("make set {name}"), message);
        }
        for (name, chain) in desired.chains.iter().filter(|(name, _)| !old.chains.contains_key(*name)) {
            let message = chain_message(desired, name, chain);
            self.push(format!("make chain {name}"), message);
        }
    }

    fn update_rules(&mut self, old: &Table, desired: &Table) {
        for (name, chain) in &desired.chains {
            let before = old.chains.get(name).map(|c| c.rules.as_slice()).unwrap_or_default();
            if before == chain.rules {
                continue;
            }
            if !before.is_empty() {
                self.flush(desired, name);
            }
            for rule in &chain.rules {
                self.rule(desired.family.number(), &desired.name, name, rule, libc::NLM_F_APPEND as u16);
            }
        }
    }

    fn update_elements(&mut self, old: &Table, desired: &Table) {
        let table = (desired.family, desired.name.as_str());
        let empty = Elements::new();
        for (name, set) in &desired.sets {
            let before = old.sets.get(name).map_or(&empty, |s| &s.elements);
            let gone = before.iter().filter(|(key, value)| set.elements.get(*key) != Some(value));
            self.element_messages(DELETE_ELEMENTS, table, name, gone);
            let new = set.elements.iter().filter(|(key, value)| before.get(*key) != Some(value));
            self.element_messages(NEW_ELEMENTS, table, name, new);
        }
    }

    fn delete_containers(&mut self, old: &Table, desired: &Table) {
        let gone = |name: &&String| !desired.chains.contains_key(*name);
        // First empty them all: they may jump to each other.
        for name in old.chains.keys().filter(gone) {
            self.flush(desired, name);
        }
        for name in old.sets.keys().filter(|name| !desired.sets.contains_key(*name)) {
            let mut message = start(DELETE_SET, 0, desired.family);
            message.attr_str(1, &desired.name).attr_str(2, name);
            self.push(format!("delete set {name}"), message);
        }
        for name in old.chains.keys().filter(gone) {
            let mut message = start(DELETE_CHAIN, 0, desired.family);
            message.attr_str(1, &desired.name).attr_str(3, name);
            self.push(format!("delete chain {name}"), message);
        }
    }

    fn flush(&mut self, table: &Table, chain: &str) {
        let mut message = start(DELETE_RULE, 0, table.family);
        message.attr_str(1, &table.name).attr_str(2, chain);
        self.push(format!("empty chain {chain}"), message);
    }

    fn rule(&mut self, family: u8, table: &str, chain: &str, rule: &Rule, position: u16) {
        const LIST: u16 = 4;
        const USERDATA: u16 = 7;
        let mut message = Message::new(NEW_RULE, libc::NLM_F_CREATE as u16 | position);
        message.raw(&generic(family)).attr_str(1, table).attr_str(2, chain);
        message.nest(LIST, |m| rule.expressions.iter().for_each(|e| e.encode(m)));
        if !rule.comment.is_empty() {
            message.attr(USERDATA, &comment_userdata(&rule.comment));
        }
        self.push(format!("add rule {:?} to chain {chain}", rule.comment), message);
    }

    fn element_messages<'a>(
        &mut self,
        kind: u16,
        (family, table): (Family, &str),
        set: &str,
        elements: impl Iterator<Item = (&'a Vec<u8>, &'a Value)>,
    ) {
        let verb = if kind == NEW_ELEMENTS { "add" } else { "delete" };
        let mut elements = elements.peekable();
        while elements.peek().is_some() {
            let mut message =
                start(kind, if kind == NEW_ELEMENTS { libc::NLM_F_CREATE as u16 } else { 0 }, family);
            message.attr_str(1, table).attr_str(2, set);
            let mut count = 0;
            message.nest(3, |m| {
                for (key, value) in elements.by_ref().take(ELEMENTS_PER_MESSAGE) {
                    encode_element(m, key, if kind == NEW_ELEMENTS { value } else { &Value::None });
                    count += 1;
                }
            });
            self.push(format!("{verb} {count} elements of set {set}"), message);
        }
    }
}

/// Commits a transaction in the calling thread's network namespace: all of it or nothing.
pub fn apply(batch: Batch) -> Result<(), Error> {
    let mut socket = Socket::open(Protocol::Netfilter)?;
    apply_on(&mut socket, batch)
}

pub(super) fn apply_on(socket: &mut Socket, batch: Batch) -> Result<(), Error> {
    let bound = |kind| {
        let mut message = Message::new(kind, 0);
        let subsystem = (SUBSYSTEM >> 8) as u8;
        message.raw(&[0, 0, 0, subsystem]);
        message
    };
    let (descriptions, messages): (Vec<_>, Vec<_>) = batch.steps.into_iter().unzip();
    socket.execute_batch(bound(BATCH_BEGIN), messages, bound(BATCH_END), |index| {
        descriptions.get(index).cloned().unwrap_or_else(|| "nftables transaction".to_owned())
    })
}

fn needs_replacement(old: &Table, desired: &Table) -> bool {
    let other_set = |(name, set): (&String, &Set)| old.sets.get(name).is_some_and(|o| o.has_other_form(set));
    let other_chain =
        |(name, chain): (&String, &Chain)| old.chains.get(name).is_some_and(|o| o.hook != chain.hook);
    (old.family, &old.name) != (desired.family, &desired.name)
        || desired.sets.iter().any(other_set)
        || desired.chains.iter().any(other_chain)
}

pub(super) fn start(kind: u16, flags: u16, family: Family) -> Message {
    let mut message = Message::new(kind, flags);
    message.raw(&generic(family.number()));
    message
}

fn chain_message(table: &Table, name: &str, chain: &Chain) -> Message {
    let mut message = start(NEW_CHAIN, libc::NLM_F_CREATE as u16, table.family);
    message.attr_str(1, &table.name).attr_str(3, name);
    if let Some(point) = chain.hook {
        message.nest(4, |m| {
            m.attr_be32(1, point.hook as u32).attr_be32(2, point.priority.cast_unsigned());
        });
        message.attr_str(
            7,
            match point.kind {
                ChainKind::Filter => "filter",
                ChainKind::Nat => "nat",
            },
        );
    }
    message
}

fn set_message(table: &Table, name: &str, set: &Set, id: u32) -> Message {
    let (key_type, key_len) = type_and_len(&set.key);
    let mut flags = 0;
    if set.data != Data::None {
        flags |= SET_FLAG_MAP;
    }
    if set.dynamic {
        flags |= SET_FLAG_TIMEOUT | SET_FLAG_DYNAMIC;
    }
    let mut message = start(NEW_SET, libc::NLM_F_CREATE as u16, table.family);
    message.attr_str(1, &table.name).attr_str(2, name).attr_be32(3, flags);
    message.attr_be32(4, key_type).attr_be32(5, key_len);
    match &set.data {
        Data::None => {}
        Data::Verdict => {
            message.attr_be32(6, DATA_TYPE_VERDICT);
        }
        Data::Value(types) => {
            let (data_type, data_len) = type_and_len(types);
            message.attr_be32(6, data_type).attr_be32(7, data_len);
        }
    }
    message.attr_be32(10, id);
    message
}

fn encode_element(m: &mut Message, key: &[u8], data: &Value) {
    const KEY: u16 = 1;
    const DATA: u16 = 2;
    m.nest(1, |m| {
        value(m, KEY, key);
        match data {
            Value::None => {}
            Value::Verdict(verdict) => {
                m.nest(DATA, |m| verdict.encode(m));
            }
            Value::Bytes(bytes) => value(m, DATA, bytes),
        }
    });
}

/// The comment in the form in which `nft` stores it.
pub(super) fn comment_userdata(comment: &str) -> Vec<u8> {
    let cut: String = comment.chars().take(120).filter(char::is_ascii).collect();
    let mut bytes = vec![0, u8::try_from(cut.len() + 1).unwrap_or(u8::MAX)];
    bytes.extend_from_slice(cut.as_bytes());
    bytes.push(0);
    bytes
}
