//! nf_tables: tables as values, the difference of two values as one transaction.
//!
//! A [`Table`] says what should be; [`Batch::between`] is the pure function from what should be and what was installed to
//! the messages that turn one into the other; [`apply`] commits them, all or none.

mod batch;
mod expression;
mod inspect;
mod table;

pub use batch::{Batch, apply};
pub use expression::{
    Address, Base as PayloadBase, Compare, Expression, Reg, Rejection, SetOperation, StatusBit, Target,
    Verdict,
};
pub use inspect::{
    ForwardDrop, comments_in_chain, delete_rules_commented, forward_drops, insert_rule, set_elements,
    table_exists, table_names,
};
pub use table::{Chain, ChainKind, Data, Elements, Family, Hook, HookPoint, Rule, Set, Table, Type, Value};

const SUBSYSTEM: u16 = 10 << 8;
const NEW_TABLE: u16 = SUBSYSTEM;
const GET_TABLE: u16 = SUBSYSTEM | 1;
const DELETE_TABLE: u16 = SUBSYSTEM | 2;
const NEW_CHAIN: u16 = SUBSYSTEM | 3;
const GET_CHAIN: u16 = SUBSYSTEM | 4;
const DELETE_CHAIN: u16 = SUBSYSTEM | 5;
const NEW_RULE: u16 = SUBSYSTEM | 6;
const GET_RULE: u16 = SUBSYSTEM | 7;
const DELETE_RULE: u16 = SUBSYSTEM | 8;
const NEW_SET: u16 = SUBSYSTEM | 9;
const DELETE_SET: u16 = SUBSYSTEM | 11;
const NEW_ELEMENTS: u16 = SUBSYSTEM | 12;
const GET_ELEMENTS: u16 = SUBSYSTEM | 13;
const DELETE_ELEMENTS: u16 = SUBSYSTEM | 14;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// Length of `struct nfgenmsg`.
const GENERIC_HEADER: usize = 4;

/// The fixed part of every netfilter message.
fn generic(family: u8) -> [u8; GENERIC_HEADER] {
    [family, 0, 0, 0]
}
