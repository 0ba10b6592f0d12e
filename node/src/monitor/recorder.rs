//! `Recorder`: the counters and histograms that the store reports through the facade `metrics`, kept
//! and written in the text format of Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use metrics::{
    Counter, CounterFn, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, SharedString, Unit,
};

use super::snapshot::{FIGURES, Snapshot};

/// Upper bounds of the buckets, in seconds: fsyncs of a fast disk to the replay of a long log.
const BUCKETS: [f64; 12] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 5.0, 30.0, 300.0];
/// Names that are kept; the store has a dozen, and labels are not told apart.
const NAMES_MAX: usize = 256;

/// Keeps what is reported.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recorder(Arc<Mutex<Registry>>);

#[derive(Debug, Default)]
struct Registry {
    counters: BTreeMap<String, Arc<Count>>,
    histograms: BTreeMap<String, Arc<Buckets>>,
}

#[derive(Debug, Default)]
struct Count(AtomicU64);

#[derive(Debug, Default)]
struct Buckets(Mutex<Sums>);

#[derive(Clone, Debug, Default)]
struct Sums {
    counts: [u64; BUCKETS.len()],
    count: u64,
    sum: f64,
}

static INSTALLED: OnceLock<Recorder> = OnceLock::new();

impl Recorder {
    /// Makes a recorder the process's own, the first time; returns that one.
    pub(crate) fn install() -> Self {
        INSTALLED
            .get_or_init(|| {
                let recorder = Self::default();
                // Who embeds a node may have one already; then this one stays empty.
                let _ = metrics::set_global_recorder(recorder.clone());
                recorder
            })
            .clone()
    }

    /// Writes all that was reported, and a snapshot.
    pub(crate) fn render(&self, now: &Snapshot) -> String {
        let mut text = String::new();
        for (name, help) in FIGURES {
            let _ = writeln!(text, "# HELP cofferdam_{name} {help}");
            let _ = writeln!(text, "# TYPE cofferdam_{name} gauge");
            let _ = writeln!(text, "cofferdam_{name} {}", now.get(name));
        }
        let registry = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, count) in &registry.counters {
            let _ = writeln!(text, "# TYPE cofferdam_{name} counter");
            let _ = writeln!(text, "cofferdam_{name} {}", count.0.load(Ordering::Relaxed));
        }
        for (name, buckets) in &registry.histograms {
            let sums = buckets.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let _ = writeln!(text, "# TYPE cofferdam_{name} histogram");
            let mut below = 0;
            for (bound, count) in BUCKETS.iter().zip(sums.counts) {
                below += count;
                let _ = writeln!(text, "cofferdam_{name}_bucket{{le=\"{bound}\"}} {below}");
            }
            let _ = writeln!(text, "cofferdam_{name}_bucket{{le=\"+Inf\"}} {}", sums.count);
            let _ = writeln!(text, "cofferdam_{name}_sum {}", sums.sum);
            let _ = writeln!(text, "cofferdam_{name}_count {}", sums.count);
        }
        text
    }
}

impl CounterFn for Count {
    fn increment(&self, value: u64) {
        self.0.fetch_add(value, Ordering::Relaxed);
    }

    fn absolute(&self, value: u64) {
        self.0.fetch_max(value, Ordering::Relaxed);
    }
}

impl HistogramFn for Buckets {
    fn record(&self, value: f64) {
        let mut sums = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = BUCKETS.iter().position(|bound| value <= *bound)
            && let Some(count) = sums.counts.get_mut(at)
        {
            *count += 1;
        }
        sums.count += 1;
        sums.sum += value;
    }
}

impl metrics::Recorder for Recorder {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let mut registry = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if registry.counters.len() >= NAMES_MAX && !registry.counters.contains_key(key.name()) {
            return Counter::noop();
        }
        Counter::from_arc(Arc::clone(registry.counters.entry(key.name().into()).or_default()))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        // Gauges come from the snapshot.
        Gauge::noop()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        let mut registry = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if registry.histograms.len() >= NAMES_MAX && !registry.histograms.contains_key(key.name()) {
            return Histogram::noop();
        }
        Histogram::from_arc(Arc::clone(registry.histograms.entry(key.name().into()).or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reported_is_written_with_cumulative_buckets() {
        let recorder = Recorder::default();
        metrics::with_local_recorder(&recorder, || {
            metrics::counter!("commits_total").increment(3);
            metrics::counter!("commits_total").increment(4);
            for seconds in [0.0004, 0.02, 0.02, 1000.0] {
                metrics::histogram!("fsync_seconds").record(seconds);
            }
        });
        let now = Snapshot { figures: vec![("blocks", 7.0)], ..Snapshot::default() };
        let text = recorder.render(&now);
        for line in [
            "cofferdam_blocks 7",
            "# TYPE cofferdam_commits_total counter",
            "cofferdam_commits_total 7",
            "cofferdam_fsync_seconds_bucket{le=\"0.0005\"} 1",
            "cofferdam_fsync_seconds_bucket{le=\"0.025\"} 3",
            "cofferdam_fsync_seconds_bucket{le=\"300\"} 3",
            "cofferdam_fsync_seconds_bucket{le=\"+Inf\"} 4",
            "cofferdam_fsync_seconds_count 4",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
    }
}
