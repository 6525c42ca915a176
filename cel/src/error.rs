//! What is wrong with an expression, as upstream tells it: with the line and a mark under the place.

use std::fmt;

/// Why a text is no expression that can be used. Its author has to change it.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum CompileError {
    /// It does not parse, or what it says cannot be.
    #[error("{0}")]
    Issues(Issues),
    /// Something in it is always an error.
    #[error("{0}")]
    Constant(String),
}

/// Faults with their places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issues {
    source: String,
    faults: Vec<Issue>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Issue {
    /// The byte of the text where it is; past the end where it is not in one place.
    pub at: usize,
    pub message: String,
}

/// The longest line that is shown with a fault, as upstream.
const LINE_BYTES_MAX: usize = 16384;
/// How many faults are told.
const TOLD_MAX: usize = 100;

impl Issues {
    pub(crate) fn new(source: &str, mut faults: Vec<Issue>) -> Self {
        faults.sort_by_key(|fault| fault.at);
        faults.truncate(TOLD_MAX);
        Self { source: source.to_string(), faults }
    }
}

impl fmt::Display for Issues {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            let before = self.source.get(..fault.at).unwrap_or(&self.source);
            let start = before.rfind('\n').map_or(0, |at| at + 1);
            let line = self.source.get(start..).unwrap_or_default().lines().next().unwrap_or_default();
            let skipped = before.get(start..).unwrap_or_default();
            let number = before.matches('\n').count() + 1;
            let column = skipped.chars().count() + 1;
            let separator = if index == 0 { "" } else { "\n" };
            write!(out, "{separator}ERROR: <input>:{number}:{column}: {}", fault.message)?;
            if line.len() > LINE_BYTES_MAX {
                continue;
            }
            writeln!(out, "\n | {}", line.replace('\t', " "))?;
            let wide = |letter: char| letter.len_utf8() > 1;
            let dots: String = skipped.chars().map(|letter| if wide(letter) { '．' } else { '.' }).collect();
            let is_wide = line.get(skipped.len()..).and_then(|rest| rest.chars().next()).is_some_and(wide);
            write!(out, " | {dots}{}", if is_wide { '＾' } else { '^' })?;
        }
        Ok(())
    }
}
