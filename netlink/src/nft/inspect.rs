//! Looking at what is installed, by us or by others.

use super::batch::{apply_on, start};
use super::{
    Batch, DELETE_RULE, Elements, Family, GENERIC_HEADER, GET_CHAIN, GET_ELEMENTS, GET_RULE, GET_TABLE, Rule,
    Value, generic,
};
use crate::message::{be32, text};
use crate::{Attributes, Error, Message, Protocol, Socket};

const HOOK_FORWARD: u32 = 2;
const VERDICT_DROP: u32 = 0;

/// A chain at the forward hook whose policy drops what its rules do not accept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardDrop {
    /// Family of its table, as the kernel numbers it.
    pub family: u8,
    /// Name of its table.
    pub table: String,
    /// Name of the chain.
    pub chain: String,
}

/// Names of the tables of a family.
pub fn table_names(family: Family) -> Result<Vec<String>, Error> {
    let mut socket = Socket::open(Protocol::Netfilter)?;
    let mut names = Vec::new();
    socket.dump("list tables", start(GET_TABLE, 0, family), |_, payload| {
        if payload.first() == Some(&family.number()) {
            names.extend(Attributes::after(payload, GENERIC_HEADER).find(1).map(text));
        }
    })?;
    Ok(names)
}

/// Whether a table exists.
pub fn table_exists(family: Family, name: &str) -> Result<bool, Error> {
    let mut socket = Socket::open(Protocol::Netfilter)?;
    let mut message = start(GET_TABLE, 0, family);
    message.attr_str(1, name);
    match socket.query("look up table", message, |_, _| {}) {
        Ok(()) => Ok(true),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

/// IPv4 and inet chains that drop forwarded packets by policy.
pub fn forward_drops() -> Result<Vec<ForwardDrop>, Error> {
    let mut socket = Socket::open(Protocol::Netfilter)?;
    let mut message = Message::new(GET_CHAIN, 0);
    message.raw(&generic(0));
    let mut found = Vec::new();
    socket.dump("list chains", message, |_, payload| {
        let attributes = Attributes::after(payload, GENERIC_HEADER);
        let family = payload.first().copied().unwrap_or_default();
        let hook = attributes.find(4).and_then(|h| Attributes::new(h).find(1)).and_then(be32);
        let policy = attributes.find(5).and_then(be32);
        let concerned = [Family::Ipv4.number(), Family::Inet.number()].contains(&family);
        if concerned && hook == Some(HOOK_FORWARD) && policy == Some(VERDICT_DROP) {
            let name = |kind| attributes.find(kind).map(text).unwrap_or_default();
            found.push(ForwardDrop { family, table: name(1), chain: name(3) });
        }
    })?;
    Ok(found)
}

/// Puts a rule first in a chain of somebody else's.
pub fn insert_rule(chain: &ForwardDrop, rule: &Rule) -> Result<(), Error> {
    let family = family_of(chain.family);
    let mut socket = Socket::open(Protocol::Netfilter)?;
    apply_on(&mut socket, Batch::insertion(family, &chain.table, &chain.chain, rule))
}

/// Comments of the rules in a chain, with the rules' handles.
pub fn comments_in_chain(chain: &ForwardDrop) -> Result<Vec<(u64, String)>, Error> {
    let mut socket = Socket::open(Protocol::Netfilter)?;
    let mut message = Message::new(GET_RULE, 0);
    message.raw(&generic(chain.family)).attr_str(1, &chain.table).attr_str(2, &chain.chain);
    let mut comments = Vec::new();
    socket.dump("list rules", message, |_, payload| {
        let attributes = Attributes::after(payload, GENERIC_HEADER);
        let is_this = attributes.find(2).map(text).as_deref() == Some(&chain.chain);
        let handle = attributes.find(3).and_then(|b| b.try_into().ok()).map(u64::from_be_bytes);
        let comment = attributes.find(7).and_then(|data| data.get(2..)).map(text);
        if let (true, Some(handle), Some(comment)) = (is_this, handle, comment) {
            comments.push((handle, comment));
        }
    })?;
    Ok(comments)
}

/// Takes the rules whose comment is `comment` out of a chain of somebody else's; returns how many.
pub fn delete_rules_commented(chain: &ForwardDrop, comment: &str) -> Result<usize, Error> {
    let ours: Vec<_> = comments_in_chain(chain)?.into_iter().filter(|(_, c)| c == comment).collect();
    let mut batch = Batch::default();
    for (handle, _) in &ours {
        let mut message = start(DELETE_RULE, 0, family_of(chain.family));
        message.attr_str(1, &chain.table).attr_str(2, &chain.chain).attr_be64(3, *handle);
        batch.push(format!("delete rule {comment:?}"), message);
    }
    let mut socket = Socket::open(Protocol::Netfilter)?;
    apply_on(&mut socket, batch)?;
    Ok(ours.len())
}

/// The elements of a set, with the bytes they carry (verdicts are left out).
pub fn set_elements(family: Family, table: &str, set: &str) -> Result<Elements, Error> {
    let mut socket = Socket::open(Protocol::Netfilter)?;
    let mut message = start(GET_ELEMENTS, 0, family);
    message.attr_str(1, table).attr_str(2, set);
    let mut elements = Elements::new();
    socket.dump(&format!("list elements of {set}"), message, |_, payload| {
        let list = Attributes::after(payload, GENERIC_HEADER).find(3).unwrap_or_default();
        for (_, element) in Attributes::new(list) {
            let part = |kind| Attributes::new(element).find(kind).and_then(|d| Attributes::new(d).find(1));
            if let Some(key) = part(1) {
                let value = part(2).map_or(Value::None, |bytes| Value::Bytes(bytes.to_vec()));
                elements.insert(key.to_vec(), value);
            }
        }
    })?;
    Ok(elements)
}

fn family_of(number: u8) -> Family {
    match number {
        10 => Family::Ipv6,
        1 => Family::Inet,
        _ => Family::Ipv4,
    }
}
