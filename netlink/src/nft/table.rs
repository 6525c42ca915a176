//! What a table contains, as plain values that can be compared.

use std::collections::BTreeMap;

use super::{Expression, Verdict};

/// Which packets a table sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
    /// Both.
    Inet,
}

impl Family {
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Ipv4 => 2,
            Self::Ipv6 => 10,
            Self::Inet => 1,
        }
    }
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Which packets it sees.
    pub family: Family,
    /// Its name, unique in its family.
    pub name: String,
    /// Chains by name.
    pub chains: BTreeMap<String, Chain>,
    /// Sets and maps by name.
    pub sets: BTreeMap<String, Set>,
}

impl Table {
    /// An empty table.
    #[must_use]
    pub fn new(family: Family, name: &str) -> Self {
        Self { family, name: name.to_owned(), chains: BTreeMap::new(), sets: BTreeMap::new() }
    }

    /// Adds a chain that packets enter at a hook.
    pub fn base_chain(&mut self, name: &str, hook: HookPoint, rules: Vec<Rule>) {
        self.chains.insert(name.to_owned(), Chain { hook: Some(hook), rules });
    }

    /// Adds a chain that others jump to.
    pub fn chain(&mut self, name: &str, rules: Vec<Rule>) {
        self.chains.insert(name.to_owned(), Chain { hook: None, rules });
    }
}

/// A chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Where packets enter it; `None` for one that others jump to.
    pub hook: Option<HookPoint>,
    /// Its rules in order.
    pub rules: Vec<Rule>,
}

/// A place in the packet path where a chain hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HookPoint {
    /// What the chain may do.
    pub kind: ChainKind,
    /// Where it hangs.
    pub hook: Hook,
    /// In which order; lower comes first.
    pub priority: i32,
}

/// What a chain at a hook may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainKind {
    /// Look and decide.
    Filter,
    /// Translate addresses; sees only the first packet of a connection.
    Nat,
}

/// The hooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Arrived, not yet routed.
    Prerouting = 0,
    /// For this machine.
    Input = 1,
    /// Passing through.
    Forward = 2,
    /// Made by this machine.
    Output = 3,
    /// About to leave.
    Postrouting = 4,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What it does, left to right; a comparison that fails ends it.
    pub expressions: Vec<Expression>,
    /// A note for people who list the rules.
    pub comment: String,
}

impl Rule {
    /// A rule without a note.
    #[must_use]
    pub fn new(expressions: Vec<Expression>) -> Self {
        Self { expressions, comment: String::new() }
    }

    /// The same with a note.
    #[must_use]
    pub fn comment(mut self, comment: &str) -> Self {
        comment.clone_into(&mut self.comment);
        self
    }
}

/// Types of keys and data: the numbers are those that `nft` uses to print them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// IPv4 address, four bytes.
    Ipv4 = 7,
    /// IPv6 address, sixteen bytes.
    Ipv6 = 8,
    /// Transport protocol, one byte.
    Protocol = 12,
    /// Port, two bytes.
    Port = 13,
    /// A number, four bytes of the machine's order.
    Number = 19,
}

impl Type {
    /// Bytes it takes inside a concatenation, where each part fills whole words.
    #[must_use]
    pub fn padded_len(self) -> u32 {
        match self {
            Self::Ipv6 => 16,
            _ => 4,
        }
    }

    /// Bytes it takes alone.
    fn bare_len(self) -> u32 {
        match self {
            Self::Ipv6 => 16,
            Self::Ipv4 | Self::Number => 4,
            Self::Port => 2,
            Self::Protocol => 1,
        }
    }
}

/// The kernel's number and length of a list of types.
pub(crate) fn type_and_len(types: &[Type]) -> (u32, u32) {
    match types {
        [single] => (*single as u32, single.bare_len()),
        _ => types.iter().fold((0, 0), |(number, len), t| (number << 6 | *t as u32, len + t.padded_len())),
    }
}

/// What the elements of a set carry beside their key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// Nothing: a set.
    None,
    /// A verdict.
    Verdict,
    /// A value.
    Value(Vec<Type>),
}

/// Elements by key. The bytes of keys and values are as long as their types say.
pub type Elements = BTreeMap<Vec<u8>, Value>;

/// A set or map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Types of the key's parts.
    pub key: Vec<Type>,
    /// What elements carry.
    pub data: Data,
    /// Whether rules add elements that expire; such elements are never part of `elements`.
    pub dynamic: bool,
    /// The elements.
    pub elements: Elements,
}

impl Set {
    /// A set or map that only its owner fills.
    #[must_use]
    pub fn new(key: &[Type], data: Data) -> Self {
        Self { key: key.to_vec(), data, dynamic: false, elements: Elements::new() }
    }

    /// A set or map that rules fill.
    #[must_use]
    pub fn dynamic(key: &[Type], data: Data) -> Self {
        Self { dynamic: true, ..Self::new(key, data) }
    }

    /// Whether two differ in more than their elements, so that one cannot become the other.
    pub(crate) fn has_other_form(&self, other: &Self) -> bool {
        (&self.key, &self.data, self.dynamic) != (&other.key, &other.data, other.dynamic)
    }
}

/// What an element carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Nothing.
    None,
    /// A verdict.
    Verdict(Verdict),
    /// Bytes.
    Bytes(Vec<u8>),
}
