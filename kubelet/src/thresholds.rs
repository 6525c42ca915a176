//! How much has to stay free on a node before pods are evicted, as `--eviction-hard` says it.
//!
//! Guarantees: what is not named is not watched, as upstream. Images and pods share one file system here, so
//! `imagefs.available` is read and means the same as `nodefs.available`; the larger of the two counts.

use std::str::FromStr;

use crate::quantity;

/// What has to stay free.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Thresholds {
    /// `memory.available`.
    pub memory: Threshold,
    /// `nodefs.available`.
    pub disk: Threshold,
    /// `nodefs.inodesFree`.
    pub inodes: Threshold,
    /// `pid.available`.
    pub pids: Threshold,
}

/// One amount, or a share of all there is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Threshold {
    /// In the resource's own unit.
    Amount(u64),
    /// Of the whole.
    Percent(f64),
}

/// What is wrong with a threshold.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error(
    "{0:?} is not an eviction threshold such as memory.available<100Mi or nodefs.available<5%; known are memory.available, \
     nodefs.available, nodefs.inodesFree, imagefs.available, imagefs.inodesFree and pid.available"
)]
pub struct ThresholdError(String);

impl Threshold {
    /// The amount, of a whole.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    pub fn of(self, whole: u64) -> u64 {
        match self {
            Self::Amount(amount) => amount,
            Self::Percent(percent) => (whole as f64 * percent / 100.0) as u64,
        }
    }
}

impl Default for Threshold {
    fn default() -> Self {
        Self::Amount(0)
    }
}

impl std::fmt::Display for Threshold {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Amount(amount) if amount % (1 << 20) == 0 => write!(formatter, "{}Mi", amount >> 20),
            Self::Amount(amount) => write!(formatter, "{amount}"),
            Self::Percent(percent) => write!(formatter, "{percent}%"),
        }
    }
}

impl FromStr for Threshold {
    type Err = ThresholdError;

    fn from_str(text: &str) -> Result<Self, ThresholdError> {
        let wrong = || ThresholdError(text.to_string());
        if let Some(percent) = text.strip_suffix('%') {
            let percent: f64 = percent.parse().map_err(|_| wrong())?;
            return if (0.0..100.0).contains(&percent) { Ok(Self::Percent(percent)) } else { Err(wrong()) };
        }
        let amount = quantity::parse(text).ok_or_else(wrong)?;
        u64::try_from(amount).map(Self::Amount).map_err(|_| wrong())
    }
}

impl FromStr for Thresholds {
    type Err = ThresholdError;

    fn from_str(text: &str) -> Result<Self, ThresholdError> {
        let mut all = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let wrong = || ThresholdError(part.to_string());
            let (signal, amount) = part.split_once('<').ok_or_else(wrong)?;
            let threshold = amount.parse().map_err(|_| wrong())?;
            let place = match signal {
                "memory.available" => &mut all.memory,
                "nodefs.available" | "imagefs.available" => &mut all.disk,
                "nodefs.inodesFree" | "imagefs.inodesFree" => &mut all.inodes,
                "pid.available" => &mut all.pids,
                _ => return Err(wrong()),
            };
            // Comparable without knowing the whole only when both are of a kind; then the stricter counts.
            *place = match (*place, threshold) {
                (Threshold::Percent(a), Threshold::Percent(b)) => Threshold::Percent(a.max(b)),
                (Threshold::Amount(a), Threshold::Amount(b)) => Threshold::Amount(a.max(b)),
                (_, later) => later,
            };
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_read_as_upstream_writes_them_and_the_unnamed_are_off() {
        let read: Thresholds =
            "memory.available<100Mi, nodefs.available<5%,imagefs.available<15%".parse().unwrap();
        assert_eq!(read.memory, Threshold::Amount(100 << 20));
        assert_eq!(read.disk.of(1000), 150);
        assert_eq!(read.pids, Threshold::Amount(0));
        assert_eq!("".parse(), Ok(Thresholds::default()));
    }

    #[test]
    fn nonsense_is_refused_and_named() {
        for text in
            ["memory.available>1", "memory.available<much", "swap.available<1Gi", "nodefs.available<100%"]
        {
            let error = text.parse::<Thresholds>().unwrap_err();
            assert!(error.to_string().starts_with(&format!("{text:?} is not")), "{error}");
        }
    }
}
