//! `Busy`: how long the chain's thread was away for a single thing that it did.
//!
//! Whoever sends us something waits for that thread in the end, and nothing is read of what he sends
//! next. A block can keep it for minutes: that time says nothing of anybody's line.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::clock::Clock;

/// What a step may take until those who wait for it are cut off: what is on its way until then waits
/// in sockets.
const STEP: Duration = Duration::from_secs(1);

/// Adds up what the steps of a thread took beyond [`STEP`]; clones share the sum.
#[derive(Clone, Debug, Default)]
pub(crate) struct Busy {
    clock: Clock,
    steps: Arc<Mutex<Steps>>,
}

#[derive(Debug, Default)]
struct Steps {
    /// When the present step began.
    began: Option<Instant>,
    /// Of the steps before.
    away: Duration,
}

impl Steps {
    fn away(&self, now: Instant) -> Duration {
        let step = self.began.map_or(Duration::ZERO, |began| now.saturating_duration_since(began));
        self.away + step.saturating_sub(STEP)
    }

    fn end(&mut self, now: Instant) {
        self.away = self.away(now);
        self.began = None;
    }
}

impl Busy {
    /// Begins with no steps; `clock` is what others tell the time by.
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, ..Self::default() }
    }

    /// Does a step.
    pub(crate) fn during<T>(&self, step: impl FnOnce() -> T) -> T {
        self.steps().began = Some(Instant::now());
        let done = step();
        self.steps().end(Instant::now());
        done
    }

    /// Returns what all steps took beyond [`STEP`], the present one as well: a time less this stands
    /// still while the thread is away. A pretended time does so without.
    pub(crate) fn away(&self) -> Duration {
        if self.clock.mock().is_some() {
            return Duration::ZERO;
        }
        self.steps().away(Instant::now())
    }

    fn steps(&self) -> MutexGuard<'_, Steps> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_step_takes_beyond_a_second_adds_up_as_it_goes() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut steps = Steps::default();
        for (began, ended, away) in [(0, 1, 0), (2, 12, 9), (20, 21, 9), (30, 33, 11)] {
            let before = steps.away(at(began));
            steps.began = Some(at(began));
            for now in began..=ended {
                let step = Duration::from_secs((now - began).saturating_sub(1));
                assert_eq!(steps.away(at(now)), before + step);
            }
            steps.end(at(ended));
            assert_eq!(steps.away(at(ended + 5)), Duration::from_secs(away));
        }
    }
}
