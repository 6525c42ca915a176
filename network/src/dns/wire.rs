//! The wire format of DNS (RFC 1035, 2782, 6891), as much of it as is needed.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};

pub(super) const TYPE_A: u16 = 1;
pub(super) const TYPE_NS: u16 = 2;
pub(super) const TYPE_CNAME: u16 = 5;
pub(super) const TYPE_SOA: u16 = 6;
pub(super) const TYPE_PTR: u16 = 12;
pub(super) const TYPE_TXT: u16 = 16;
pub(super) const TYPE_AAAA: u16 = 28;
pub(super) const TYPE_SRV: u16 = 33;
const TYPE_OPT: u16 = 41;
pub(super) const TYPE_ANY: u16 = 255;
const CLASS_IN: u16 = 1;

pub(super) const HEADER: usize = 12;
/// What fits a datagram when the client does not say more.
const PLAIN_MAX: usize = 512;
/// What we put into a datagram at most: it passes every network unfragmented.
const DATAGRAM_MAX: usize = 1232;
const FLAG_RESPONSE: u8 = 0x80;
const FLAG_AUTHORITATIVE: u8 = 0x04;
const FLAG_TRUNCATED: u8 = 0x02;
const FLAG_RECURSION_DESIRED: u8 = 0x01;
const FLAG_RECURSION_AVAILABLE: u8 = 0x80;
const NAME_MAX: usize = 255;

/// How a question was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    Ok = 0,
    Malformed = 1,
    ServerFailure = 2,
    NoSuchName = 3,
    NotImplemented = 4,
}

/// A question as a client sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Query {
    pub(super) id: u16,
    /// Lower case, without the last dot.
    pub(super) name: String,
    pub(super) kind: u16,
    pub(super) class: u16,
    pub(super) recursion_desired: bool,
    pub(super) checking_disabled: bool,
    /// The size of datagrams that the client takes, if it speaks EDNS.
    pub(super) edns_size: Option<u16>,
    pub(super) wants_signatures: bool,
    /// The question section's bytes as sent, to be given back in the same letters.
    pub(super) question: Vec<u8>,
}

/// Why a message is not a question that can be answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotAQuery {
    /// Not even that can be said: too short, or itself an answer.
    Ignore,
    /// Say so, with this code.
    Reply(Vec<u8>),
}

impl Query {
    pub(super) fn parse(message: &[u8]) -> Result<Self, NotAQuery> {
        let (Some(id), Some(flags), Some(low)) = (u16_at(message, 0), message.get(2), message.get(3)) else {
            return Err(NotAQuery::Ignore);
        };
        if message.len() < HEADER || flags & FLAG_RESPONSE != 0 {
            return Err(NotAQuery::Ignore);
        }
        let refuse = |code: Code| NotAQuery::Reply(bare_reply(message, code));
        if flags & 0x78 != 0 {
            return Err(refuse(Code::NotImplemented));
        }
        let parsed = (u16_at(message, 4) == Some(1)).then(|| parse_question(message)).flatten();
        let Some((name, kind, class, end)) = parsed else { return Err(refuse(Code::Malformed)) };
        let edns = find_edns(message, end);
        Ok(Self {
            id,
            name,
            kind,
            class,
            recursion_desired: flags & FLAG_RECURSION_DESIRED != 0,
            checking_disabled: low & 0x10 != 0,
            edns_size: edns.map(|(size, _)| size),
            wants_signatures: edns.is_some_and(|(_, signatures)| signatures),
            question: message.get(HEADER..end).unwrap_or_default().to_vec(),
        })
    }

    /// Whether the class is the Internet's (or any).
    pub(super) fn is_internet(&self) -> bool {
        self.class == CLASS_IN || self.class == 255
    }

    /// What a datagram to this client may hold.
    pub(super) fn datagram_max(&self) -> usize {
        self.edns_size.map_or(PLAIN_MAX, |size| usize::from(size).clamp(PLAIN_MAX, DATAGRAM_MAX))
    }

    /// The question as it may be sent to another server.
    pub(super) fn encode(&self, id: u16) -> Vec<u8> {
        let mut message = id.to_be_bytes().to_vec();
        let flags = if self.recursion_desired { FLAG_RECURSION_DESIRED } else { 0 };
        let low = if self.checking_disabled { 0x10 } else { 0 };
        let edns_count = u8::from(self.edns_size.is_some());
        message.extend_from_slice(&[flags, low, 0, 1, 0, 0, 0, 0, 0, edns_count]);
        message.extend_from_slice(&self.question);
        if self.edns_size.is_some() {
            write_edns(&mut message, self.wants_signatures);
        }
        message
    }

    /// The same question for another name, as this server asks it on its own behalf.
    pub(super) fn for_name(&self, name: &str) -> Self {
        let mut question = Vec::new();
        write_plain_name(&mut question, name);
        question.extend_from_slice(&self.kind.to_be_bytes());
        question.extend_from_slice(&self.class.to_be_bytes());
        Self {
            name: name.to_owned(),
            question,
            recursion_desired: true,
            wants_signatures: false,
            ..self.clone()
        }
    }
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Data {
    A(Ipv4Addr),
    Aaaa(Ipv6Addr),
    Ns(String),
    Cname(String),
    Ptr(String),
    Txt(String),
    Srv { priority: u16, weight: u16, port: u16, target: String },
    Soa { server: String, contact: String, serial: u32, negative_ttl: u32 },
}

/// A record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) name: String,
    pub(super) ttl: u32,
    pub(super) data: Data,
}

/// An answer before it is bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) code: Code,
    pub(super) authoritative: bool,
    pub(super) answers: Vec<Record>,
    pub(super) authority: Vec<Record>,
    pub(super) additional: Vec<Record>,
}

impl Reply {
    pub(super) fn new(code: Code) -> Self {
        Self { code, authoritative: true, answers: Vec::new(), authority: Vec::new(), additional: Vec::new() }
    }

    /// The bytes for this client. What exceeds `max` is left out: first the additional records, which is fine, then answers, which is marked.
    pub(super) fn encode(&self, query: &Query, max: usize) -> Vec<u8> {
        let edns_len = if query.edns_size.is_some() { 11 } else { 0 };
        let mut writer = Writer::new(query, max.saturating_sub(edns_len));
        let mut truncated = false;
        let mut counts = [0_u16; 3];
        for (count, (records, required)) in
            counts.iter_mut().zip([(&self.answers, true), (&self.authority, true), (&self.additional, false)])
        {
            for record in records {
                if truncated || !writer.record(record) {
                    truncated |= required;
                    break;
                }
                *count += 1;
            }
        }
        let mut message = writer.message;
        let mut flags = FLAG_RESPONSE;
        flags |= if self.authoritative { FLAG_AUTHORITATIVE } else { 0 };
        flags |= if truncated { FLAG_TRUNCATED } else { 0 };
        flags |= if query.recursion_desired { FLAG_RECURSION_DESIRED } else { 0 };
        let [answers, authority, mut additional] = counts;
        if query.edns_size.is_some() {
            write_edns(&mut message, query.wants_signatures);
            additional += 1;
        }
        put(&mut message, 0, &query.id.to_be_bytes());
        put(&mut message, 2, &[flags, FLAG_RECURSION_AVAILABLE | self.code as u8, 0, 1]);
        for (at, count) in [(6, answers), (8, authority), (10, additional)] {
            put(&mut message, at, &count.to_be_bytes());
        }
        message
    }
}

/// A message under construction, with the places of names already written.
struct Writer {
    message: Vec<u8>,
    max: usize,
    names: HashMap<String, u16>,
}

impl Writer {
    fn new(query: &Query, max: usize) -> Self {
        let mut message = vec![0; HEADER];
        message.extend_from_slice(&query.question);
        let mut writer = Self { message, max, names: HashMap::new() };
        writer.remember(&query.name, HEADER);
        writer
    }

    /// Writes a record; if it does not fit, nothing.
    fn record(&mut self, record: &Record) -> bool {
        let start = self.message.len();
        self.name(&record.name);
        let kind = match record.data {
            Data::A(_) => TYPE_A,
            Data::Aaaa(_) => TYPE_AAAA,
            Data::Ns(_) => TYPE_NS,
            Data::Cname(_) => TYPE_CNAME,
            Data::Ptr(_) => TYPE_PTR,
            Data::Txt(_) => TYPE_TXT,
            Data::Srv { .. } => TYPE_SRV,
            Data::Soa { .. } => TYPE_SOA,
        };
        self.message.extend_from_slice(&kind.to_be_bytes());
        self.message.extend_from_slice(&CLASS_IN.to_be_bytes());
        self.message.extend_from_slice(&record.ttl.to_be_bytes());
        let length_at = self.message.len();
        self.message.extend_from_slice(&[0, 0]);
        self.data(&record.data);
        let length = u16::try_from(self.message.len() - length_at - 2).unwrap_or(u16::MAX);
        put(&mut self.message, length_at, &length.to_be_bytes());
        if self.message.len() > self.max {
            self.message.truncate(start);
            self.names.retain(|_, at| usize::from(*at) < start);
            return false;
        }
        true
    }

    fn data(&mut self, data: &Data) {
        match data {
            Data::A(address) => self.message.extend_from_slice(&address.octets()),
            Data::Aaaa(address) => self.message.extend_from_slice(&address.octets()),
            Data::Ns(name) | Data::Cname(name) | Data::Ptr(name) => self.name(name),
            Data::Txt(text) => {
                let text = text.as_bytes().get(..text.len().min(255)).unwrap_or_default();
                self.message.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
                self.message.extend_from_slice(text);
            }
            Data::Srv { priority, weight, port, target } => {
                for number in [priority, weight, port] {
                    self.message.extend_from_slice(&number.to_be_bytes());
                }
                // RFC 2782: the target is never compressed.
                write_plain_name(&mut self.message, target);
            }
            Data::Soa { server, contact, serial, negative_ttl } => {
                self.name(server);
                self.name(contact);
                for number in [*serial, 7200, 1800, 86400, *negative_ttl] {
                    self.message.extend_from_slice(&number.to_be_bytes());
                }
            }
        }
    }

    /// Writes a name, pointing to an earlier occurrence of its end where there is one.
    fn name(&mut self, name: &str) {
        let mut rest = name;
        while !rest.is_empty() {
            if let Some(at) = self.names.get(rest) {
                let pointer = 0xc000 | at;
                self.message.extend_from_slice(&pointer.to_be_bytes());
                return;
            }
            if let Ok(at) = u16::try_from(self.message.len())
                && at < 0x4000
            {
                self.names.insert(rest.to_owned(), at);
            }
            let (label, tail) = rest.split_once('.').unwrap_or((rest, ""));
            write_label(&mut self.message, label);
            rest = tail;
        }
        self.message.push(0);
    }

    /// Notes where the ends of a name that is already written are.
    fn remember(&mut self, name: &str, mut at: usize) {
        let mut rest = name;
        while !rest.is_empty() {
            if let Ok(place) = u16::try_from(at) {
                self.names.insert(rest.to_owned(), place);
            }
            let (label, tail) = rest.split_once('.').unwrap_or((rest, ""));
            at += label.len() + 1;
            rest = tail;
        }
    }
}

/// The addresses and aliases in the answer section of somebody's reply.
pub(super) fn read_answers(message: &[u8]) -> Option<Vec<Record>> {
    let (_, _, _, mut at) = parse_question(message)?;
    let mut records = Vec::new();
    for _ in 0..u16_at(message, 6)? {
        let (name, fixed) = read_name(message, at)?;
        let (kind, ttl) = (u16_at(message, fixed)?, u32_at(message, fixed + 4)?);
        let data_at = fixed + 10;
        at = data_at + usize::from(u16_at(message, fixed + 8)?);
        let bytes = message.get(data_at..at)?;
        let data = match kind {
            TYPE_A => Data::A(<[u8; 4]>::try_from(bytes).ok()?.into()),
            TYPE_AAAA => Data::Aaaa(<[u8; 16]>::try_from(bytes).ok()?.into()),
            TYPE_CNAME => Data::Cname(read_name(message, data_at)?.0),
            _ => continue,
        };
        records.push(Record { name, ttl, data });
    }
    Some(records)
}

/// Where the times to live are in a reply, with their values; the EDNS record's is none.
pub(super) fn ttls(message: &[u8]) -> Option<Vec<(usize, u32)>> {
    let (_, _, _, mut at) = parse_question(message)?;
    let count: u32 =
        [6, 8, 10].into_iter().map(|i| u16_at(message, i).map(u32::from)).sum::<Option<u32>>()?;
    let mut found = Vec::new();
    for _ in 0..count {
        let fixed = skip_name(message, at)?;
        if u16_at(message, fixed)? != TYPE_OPT {
            found.push((fixed + 4, u32_at(message, fixed + 4)?));
        }
        at = fixed + 10 + usize::from(u16_at(message, fixed + 8)?);
    }
    (at <= message.len()).then_some(found)
}

/// The code of a reply.
pub(super) fn code_of(message: &[u8]) -> u8 {
    message.get(3).map_or(2, |byte| byte & 0x0f)
}

/// Whether a reply was cut.
pub(super) fn is_truncated(message: &[u8]) -> bool {
    message.get(2).is_some_and(|flags| flags & FLAG_TRUNCATED != 0)
}

/// Whether `message` is a reply with this id to this question.
pub(super) fn answers(message: &[u8], id: u16, query: &Query) -> bool {
    let is_reply = message.get(2).is_some_and(|flags| flags & FLAG_RESPONSE != 0);
    let same = parse_question(message).is_some_and(|(name, kind, class, _)| {
        (name, kind, class) == (query.name.clone(), query.kind, query.class)
    });
    is_reply && same && u16_at(message, 0) == Some(id)
}

/// Fits somebody's reply to a client: its id, its letters, and, if it is too long for a datagram, only the mark that says so.
pub(super) fn adapt(mut message: Vec<u8>, query: &Query, max: usize) -> Vec<u8> {
    put(&mut message, 0, &query.id.to_be_bytes());
    put(&mut message, HEADER, &query.question);
    if message.len() > max {
        message.truncate(HEADER + query.question.len());
        if let Some(flags) = message.get_mut(2) {
            *flags |= FLAG_TRUNCATED;
        }
        put(&mut message, 6, &[0; 6]);
    }
    message
}

/// Writes into the middle of a message.
pub(super) fn put(message: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(target) = message.get_mut(at..at + bytes.len()) {
        target.copy_from_slice(bytes);
    }
}

fn bare_reply(message: &[u8], code: Code) -> Vec<u8> {
    let mut reply = vec![0; HEADER];
    put(&mut reply, 0, message.get(..2).unwrap_or_default());
    let flags = message.get(2).copied().unwrap_or_default();
    put(&mut reply, 2, &[FLAG_RESPONSE | flags & 0x79, FLAG_RECURSION_AVAILABLE | code as u8]);
    reply
}

/// Name, type, class and end of the one question.
fn parse_question(message: &[u8]) -> Option<(String, u16, u16, usize)> {
    let mut at = HEADER;
    let mut name = String::new();
    loop {
        let len = usize::from(*message.get(at)?);
        // A question has nothing before it that it could point to.
        if len > 63 || at - HEADER > NAME_MAX {
            return None;
        }
        let label = message.get(at + 1..at + 1 + len)?;
        at += 1 + len;
        if len == 0 {
            return Some((name, u16_at(message, at)?, u16_at(message, at + 2)?, at + 4));
        }
        push_label(&mut name, label);
    }
}

/// The size of datagrams and the wish for signatures in the EDNS record, if there is one.
fn find_edns(message: &[u8], mut at: usize) -> Option<(u16, bool)> {
    let before: u32 = [6, 8, 10].into_iter().filter_map(|i| u16_at(message, i).map(u32::from)).sum();
    for _ in 0..before {
        let fixed = skip_name(message, at)?;
        if u16_at(message, fixed)? == TYPE_OPT {
            return Some((u16_at(message, fixed + 2)?, u16_at(message, fixed + 6)? & 0x8000 != 0));
        }
        at = fixed + 10 + usize::from(u16_at(message, fixed + 8)?);
    }
    None
}

fn write_edns(message: &mut Vec<u8>, wants_signatures: bool) {
    message.push(0);
    message.extend_from_slice(&TYPE_OPT.to_be_bytes());
    message.extend_from_slice(&(DATAGRAM_MAX as u16).to_be_bytes());
    message.extend_from_slice(&[0, 0, if wants_signatures { 0x80 } else { 0 }, 0, 0, 0]);
}

fn write_plain_name(message: &mut Vec<u8>, name: &str) {
    name.split('.').filter(|label| !label.is_empty()).for_each(|label| write_label(message, label));
    message.push(0);
}

fn write_label(message: &mut Vec<u8>, label: &str) {
    let bytes = label.as_bytes().get(..label.len().min(63)).unwrap_or_default();
    message.push(u8::try_from(bytes.len()).unwrap_or(63));
    message.extend_from_slice(bytes);
}

fn push_label(name: &mut String, label: &[u8]) {
    if !name.is_empty() {
        name.push('.');
    }
    // One character per byte keeps offsets; names of ours are plain letters, others only have to differ from them.
    let plain =
        |b: &u8| if b.is_ascii_graphic() && *b != b'.' { b.to_ascii_lowercase() as char } else { '?' };
    name.extend(label.iter().map(plain));
}

/// The end of a possibly compressed name.
fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            len if len & 0xc0 == 0xc0 => return Some(at + 2),
            len => at += 1 + usize::from(len),
        }
    }
}

/// A possibly compressed name and where it ends.
fn read_name(message: &[u8], start: usize) -> Option<(String, usize)> {
    let end = skip_name(message, start)?;
    let (mut name, mut at) = (String::new(), start);
    // Every jump goes back, so a loop is impossible.
    let mut limit = start;
    loop {
        let len = *message.get(at)?;
        match len {
            0 => return Some((name, end)),
            _ if len & 0xc0 == 0xc0 => {
                let target = usize::from(u16_at(message, at)? & 0x3fff);
                if target >= limit {
                    return None;
                }
                (at, limit) = (target, target);
            }
            _ => {
                push_label(&mut name, message.get(at + 1..at + 1 + usize::from(len))?);
                at += 1 + usize::from(len);
            }
        }
        if name.len() > NAME_MAX {
            return None;
        }
    }
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_be_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes)
}

#[cfg(test)]
mod tests;
