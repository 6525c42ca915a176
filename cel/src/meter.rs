//! What an evaluation has used up, and how it can end.
//!
//! There are two limits. Costs are upstream's, to the unit. Some of what upstream counts as one unit goes through a whole
//! text or list all the same: that is work, which is bounded far above what any rule needs that does not set out to be
//! a burden.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use regex::Regex;

use crate::value::Value;

/// The most bytes that one evaluation may touch.
const WORK_MAX: u64 = 1 << 28;

/// A value, or why there is none.
pub type Outcome<'v> = Result<Value<'v>, Fault>;

/// Why an evaluation has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The values are not what is asked for. The caller tells which.
    #[error("no such overload")]
    NoOverload,
    /// What is told went wrong. The expression or the values have to change.
    #[error("{0}")]
    Failed(String),
    /// It costs too much. Nothing in the expression gets around this one.
    #[error("operation cancelled: actual cost limit exceeded")]
    Exceeded,
}

impl Fault {
    pub(crate) fn failed(why: impl Into<String>) -> Self {
        Self::Failed(why.into())
    }
}

/// Counts.
#[derive(Debug)]
pub(crate) struct Meter<'e> {
    cost: Cell<u64>,
    cost_max: u64,
    work: Cell<u64>,
    /// The patterns that the expression spells out.
    pub patterns: &'e HashMap<Box<str>, Regex>,
    /// Those that it has computed.
    pub computed: RefCell<HashMap<Box<str>, Regex>>,
}

impl<'e> Meter<'e> {
    pub fn new(cost_max: u64, patterns: &'e HashMap<Box<str>, Regex>) -> Self {
        Self { cost: Cell::new(0), cost_max, work: Cell::new(0), patterns, computed: RefCell::default() }
    }

    pub fn cost(&self) -> u64 {
        self.cost.get()
    }

    pub fn charge(&self, cost: u64) -> Result<(), Fault> {
        let cost = self.cost.get().saturating_add(cost);
        self.cost.set(cost);
        if cost > self.cost_max { Err(Fault::Exceeded) } else { Ok(()) }
    }

    /// Takes a charge back that was made since.
    pub fn refund(&self, since: u64, cost: u64) {
        self.cost.set(self.cost.get().saturating_sub(cost).max(since));
    }

    pub fn work(&self, bytes: usize) -> Result<(), Fault> {
        let work = self.work.get().saturating_add(bytes as u64);
        self.work.set(work);
        if work > WORK_MAX { Err(Fault::Exceeded) } else { Ok(()) }
    }
}
