//! Exponential delays with jitter.

use std::time::Duration;

use rand::Rng;

/// Doubles from `first` to `longest`; jitter spreads callers that failed together.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// A backoff that starts at `first` and never exceeds `longest` (before jitter).
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0 }
    }

    /// The delay before the next attempt: between 75 % and 125 % of the nominal delay.
    pub fn next_delay(&mut self) -> Duration {
        let nominal = nominal_delay(self.first, self.longest, self.failures);
        self.failures = self.failures.saturating_add(1);
        nominal.mul_f64(rand::rng().random_range(0.75..1.25))
    }

    /// Starts over after a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// `first` doubled `failures` times, at most `longest`.
pub fn nominal_delay(first: Duration, longest: Duration, failures: u32) -> Duration {
    let factor = 1u32.checked_shl(failures.min(31)).unwrap_or(u32::MAX);
    first.checked_mul(factor).map_or(longest, |delay| delay.min(longest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_and_stop_at_the_longest() {
        let (first, longest) = (Duration::from_millis(5), Duration::from_secs(1000));
        let delays: Vec<_> =
            (0..3).map(|failures| nominal_delay(first, longest, failures).as_millis()).collect();
        assert_eq!(delays, [5, 10, 20]);
        assert_eq!(nominal_delay(first, longest, 1000), longest);
    }
}
