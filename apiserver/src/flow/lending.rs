//! How seats are divided anew: levels that need few lend some to those that need more. Pure.
//!
//! As upstream (KEP-1040): of its nominal share a level lends at most what it says it does, and borrows at most what it
//! says it does. What it needs is told by the seats that were taken or waited for in the last period.

use std::time::Duration;

use tokio::time::Instant;

/// How slowly a level's need is forgotten: it halves in five minutes of periods of ten seconds.
const SMOOTHING: f64 = 0.977;
/// Without any need a level still counts for something.
const TARGET_MIN: f64 = 0.001;

/// The seats that a level's configuration gives it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Share {
    pub nominal: usize,
    /// What is left when all that it lends is lent.
    pub min: usize,
    /// With all that it may borrow.
    pub max: usize,
    /// Takes what it needs and asks nobody.
    pub is_exempt: bool,
}

/// What a level needed in a period: seats taken and waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Need {
    pub high: usize,
    pub average: f64,
    pub deviation: f64,
    pub smoothed: f64,
}

impl Need {
    /// After another period.
    pub fn after(self, observed: Need) -> Need {
        let envelope = observed.average + observed.deviation;
        let smoothed = envelope.max(SMOOTHING * self.smoothed + (1.0 - SMOOTHING) * envelope);
        Need { smoothed, ..observed }
    }
}

/// Integrates what is needed over time.
#[derive(Debug)]
pub(super) struct Meter {
    seats: usize,
    high: usize,
    begin: Instant,
    since: Instant,
    area: f64,
    squares: f64,
}

impl Meter {
    pub fn new() -> Self {
        let now = Instant::now();
        Self { seats: 0, high: 0, begin: now, since: now, area: 0.0, squares: 0.0 }
    }

    /// From now on so many.
    pub fn set(&mut self, seats: usize) {
        let now = Instant::now();
        let (seconds, was) = (seconds(now - self.since), as_float(self.seats));
        self.area += was * seconds;
        self.squares += was * was * seconds;
        self.since = now;
        self.seats = seats;
        self.high = self.high.max(seats);
    }

    /// What was needed since the last time, and begins anew.
    pub fn take(&mut self) -> Need {
        self.set(self.seats);
        let duration = seconds(self.since - self.begin);
        let (average, mean_square) =
            if duration > 0.0 { (self.area / duration, self.squares / duration) } else { Default::default() };
        let deviation = (mean_square - average * average).max(0.0).sqrt();
        let need = Need { high: self.high, average, deviation, smoothed: 0.0 };
        *self = Self { seats: self.seats, high: self.seats, ..Self::new() };
        need
    }
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

/// Seats are far fewer than a float can tell apart.
#[allow(clippy::cast_precision_loss)]
pub(super) fn as_float(seats: usize) -> f64 {
    seats as f64
}

/// Never negative, never large.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub(super) fn rounded(seats: f64) -> usize {
    seats.round().max(0.0) as usize
}

/// The seats of each level for the next period, in their order, and the fair fraction of their targets.
pub(super) fn divide(levels: &[(Share, Need)]) -> (Vec<usize>, f64) {
    let exempt = |share: &Share, need: &Need| share.min.max(need.high);
    let lower = |share: &Share, need: &Need| share.min.max(share.nominal.min(need.high));
    let nominal: usize = levels.iter().map(|(share, _)| share.nominal).sum();
    let taken: usize =
        levels.iter().filter(|(share, _)| share.is_exempt).map(|(share, need)| exempt(share, need)).sum();
    let limited = || levels.iter().filter(|(share, _)| !share.is_exempt);
    let rest = nominal.saturating_sub(taken);
    let least: usize = limited().map(|(share, _)| share.min).sum();
    let wanted: usize = limited().map(|(share, need)| lower(share, need)).sum();
    let fraction = if rest <= wanted { 0.0 } else { fair_fraction(rest, levels) };
    let seats = |(share, need): &(Share, Need)| {
        if share.is_exempt {
            exempt(share, need)
        } else if rest <= least {
            share.min
        } else if rest <= wanted {
            let part = as_float(rest - least) / as_float(wanted - least);
            share.min + rounded(as_float(lower(share, need) - share.min) * part)
        } else {
            rounded(between(share, need, fraction))
        }
    };
    (levels.iter().map(seats).collect(), fraction)
}

/// What a level aims at.
pub(super) fn target(share: &Share, need: &Need) -> f64 {
    as_float(share.min.max(share.nominal.min(need.high))).max(need.smoothed).max(TARGET_MIN)
}

/// A fraction of the target, within the level's bounds.
fn between(share: &Share, need: &Need, fraction: f64) -> f64 {
    let lower = as_float(share.min.max(share.nominal.min(need.high)));
    (fraction * target(share, need)).clamp(lower, as_float(share.max).max(lower))
}

/// The fraction of their targets with which the levels share out all there is. More of it never gives anybody less, so
/// it is found by halving.
fn fair_fraction(rest: usize, levels: &[(Share, Need)]) -> f64 {
    let sum = |fraction: f64| -> f64 {
        let limited = levels.iter().filter(|(share, _)| !share.is_exempt);
        limited.map(|(share, need)| between(share, need, fraction)).sum()
    };
    let (mut low, mut high) = (0.0, as_float(rest) / TARGET_MIN);
    for _ in 0..80 {
        let middle = (low + high) / 2.0;
        if sum(middle) < as_float(rest) { low = middle } else { high = middle }
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(nominal: usize, lendable: usize, borrowing: usize) -> Share {
        Share { nominal, min: nominal - lendable, max: nominal + borrowing, is_exempt: false }
    }

    fn needs(high: usize) -> Need {
        Need { high, average: as_float(high), deviation: 0.0, smoothed: as_float(high) }
    }

    #[test]
    fn seats_go_where_they_are_needed_and_stay_within_the_bounds() {
        let exempt = Share { is_exempt: true, ..Share::default() };
        for (what, levels, expected) in [
            (
                "nobody lends",
                vec![(share(50, 0, 100), needs(0)), (share(50, 0, 100), needs(90))],
                vec![50, 50],
            ),
            (
                "one lends half",
                vec![(share(50, 25, 100), needs(0)), (share(50, 0, 100), needs(90))],
                vec![25, 75],
            ),
            (
                "and needs it itself",
                vec![(share(50, 25, 100), needs(50)), (share(50, 0, 100), needs(90))],
                vec![50, 50],
            ),
            (
                "and needs a part",
                vec![(share(50, 25, 100), needs(30)), (share(50, 0, 100), needs(900))],
                vec![30, 70],
            ),
            (
                "borrowing has its limit",
                vec![(share(50, 25, 100), needs(0)), (share(50, 0, 10), needs(90))],
                vec![40, 60],
            ),
            (
                "nobody borrows",
                vec![(share(50, 25, 0), needs(0)), (share(50, 0, 0), needs(90))],
                vec![50, 50],
            ),
            (
                "two share evenly",
                vec![
                    (share(40, 40, 100), needs(0)),
                    (share(30, 0, 100), needs(80)),
                    (share(30, 0, 100), needs(80)),
                ],
                vec![0, 50, 50],
            ),
            (
                "the exempt take theirs",
                vec![(exempt, needs(20)), (share(100, 50, 100), needs(60))],
                vec![20, 80],
            ),
            (
                "as much as they need",
                vec![(exempt, needs(80)), (share(100, 50, 100), needs(60))],
                vec![80, 50],
            ),
            (
                "then nobody gets all he wants",
                vec![(exempt, needs(30)), (share(50, 50, 0), needs(50)), (share(50, 50, 0), needs(50))],
                vec![30, 35, 35],
            ),
        ] {
            assert_eq!(divide(&levels).0, expected, "{what}");
        }
    }

    #[test]
    fn all_seats_are_given_and_no_bound_is_broken_whatever_is_needed() {
        let mut seed = 1_u64;
        let mut next = |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(seed >> 33).unwrap() % below
        };
        for _ in 0..2000 {
            let levels: Vec<(Share, Need)> = (0..8)
                .map(|_| {
                    let nominal = 1 + next(200);
                    (share(nominal, next(nominal + 1), 600), needs(next(400)))
                })
                .collect();
            let (seats, _) = divide(&levels);
            for ((share, _), seats) in levels.iter().zip(&seats) {
                assert!((share.min..=share.max).contains(seats), "{levels:?} {seats}");
            }
            let nominal: usize = levels.iter().map(|(share, _)| share.nominal).sum();
            assert!(seats.iter().sum::<usize>().abs_diff(nominal) <= 8, "but for rounding: {levels:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_meter_knows_the_mean_the_spread_and_the_most() {
        let mut meter = Meter::new();
        meter.set(10);
        tokio::time::advance(Duration::from_secs(5)).await;
        meter.set(0);
        tokio::time::advance(Duration::from_secs(5)).await;
        let need = Need::default().after(meter.take());
        assert_eq!((need.high, need.average, need.deviation, need.smoothed), (10, 5.0, 5.0, 10.0));
        tokio::time::advance(Duration::from_secs(10)).await;
        let later = need.after(meter.take());
        assert_eq!((later.high, later.average), (0, 0.0));
        assert!((9.0..10.0).contains(&later.smoothed), "it is forgotten slowly");
    }
}
