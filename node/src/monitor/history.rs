//! `History`: what the figures were over the last minutes, for rates and the plot.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::snapshot::Snapshot;

/// Samples kept for the plot: ten minutes, one a second.
const SAMPLES_MAX: usize = 600;
/// Over how long rates are taken.
const RATE_WINDOW: Duration = Duration::from_secs(60);

/// One moment.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Sample {
    at: Instant,
    /// Blocks, transactions and bytes connected since the start.
    connected: [f64; 3],
    back_pressure: f64,
    /// Transactions a second at that moment.
    pub(super) rate: f64,
}

/// The last minutes.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    samples: VecDeque<Sample>,
    /// Since when the log has had records to replay.
    behind_since: Option<Instant>,
}

impl History {
    /// Adds a moment.
    pub(crate) fn add(&mut self, now: &Snapshot) {
        self.add_at(Instant::now(), now);
    }

    fn add_at(&mut self, at: Instant, now: &Snapshot) {
        let connected = ["connected_blocks", "connected_transactions", "connected_bytes"];
        let connected = connected.map(|name| now.get(name));
        let rate = self.samples.back().map_or(0.0, |last| {
            let seconds = at.saturating_duration_since(last.at).as_secs_f64().max(1e-3);
            (connected[1] - last.connected[1]) / seconds
        });
        let back_pressure = now.get("back_pressure_waits");
        self.samples.push_back(Sample { at, connected, back_pressure, rate });
        if self.samples.len() > SAMPLES_MAX {
            self.samples.pop_front();
        }
        let is_behind = now.get("log_records_to_replay") > 0.0;
        self.behind_since = is_behind.then(|| self.behind_since.unwrap_or(at));
    }

    /// Blocks, transactions and bytes a second.
    pub(crate) fn rates(&self) -> [f64; 3] {
        let Some(last) = self.samples.back() else { return [0.0; 3] };
        let is_recent =
            |sample: &&Sample| last.at.saturating_duration_since(sample.at) <= RATE_WINDOW;
        let Some(first) = self.samples.iter().find(is_recent) else { return [0.0; 3] };
        let seconds = last.at.saturating_duration_since(first.at).as_secs_f64();
        if seconds <= 0.0 {
            return [0.0; 3];
        }
        let [a, b, c] = last.connected;
        let [x, y, z] = first.connected;
        [(a - x) / seconds, (b - y) / seconds, (c - z) / seconds]
    }

    /// For how long the database has not held everything.
    pub(super) fn checkpoint_age(&self, records_to_replay: u64) -> f64 {
        let since = self.behind_since.filter(|_| records_to_replay > 0);
        since.map_or(0.0, |since| since.elapsed().as_secs_f64().floor())
    }

    /// Whether a commit has waited for a write-back since the last moment.
    pub(super) fn back_pressure_since(&self, waits: f64) -> bool {
        self.samples.back().is_some_and(|last| waits > last.back_pressure)
    }

    /// Transactions a second over time, the oldest first.
    pub(super) fn plot(&self) -> impl ExactSizeIterator<Item = f64> + '_ {
        self.samples.iter().map(|sample| sample.rate.max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(blocks: f64, transactions: f64, behind: f64) -> Snapshot {
        Snapshot {
            figures: vec![
                ("connected_blocks", blocks),
                ("connected_transactions", transactions),
                ("connected_bytes", transactions * 100.0),
                ("log_records_to_replay", behind),
            ],
            ..Snapshot::default()
        }
    }

    #[test]
    fn rates_are_of_the_last_minute_and_samples_are_bounded() {
        let (mut history, begun) = (History::default(), Instant::now());
        assert_eq!(history.rates(), [0.0; 3]);
        for second in 0..2000_u32 {
            // Fast at first, ten transactions a second in the end.
            let transactions = if second < 1000 { second * 100 } else { 100_000 + second * 10 };
            let at = begun + Duration::from_secs(second.into());
            history.add_at(at, &snapshot(f64::from(second), f64::from(transactions), 0.0));
        }
        assert_eq!(history.rates(), [1.0, 10.0, 1000.0]);
        assert_eq!(history.plot().len(), SAMPLES_MAX);
    }

    #[test]
    fn a_checkpoint_has_an_age_while_something_is_left_to_replay() {
        let mut history = History::default();
        history.add_at(Instant::now() - Duration::from_secs(7), &snapshot(0.0, 0.0, 3.0));
        history.add(&snapshot(0.0, 0.0, 5.0));
        assert!(history.checkpoint_age(5) >= 7.0);
        history.add(&snapshot(0.0, 0.0, 0.0));
        assert_eq!(history.checkpoint_age(0), 0.0);
    }
}
