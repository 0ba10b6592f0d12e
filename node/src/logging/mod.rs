//! `debug.log`: one line an event, written before the call that logs returns.
//!
//! Tests of other projects look for a line as soon as they have the reply that follows it, so
//! nothing is buffered here. Prefix, categories and limits are those of Bitcoin Core's
//! `logging.cpp`.

mod category;
mod line;
mod rate_limit;
mod sink;

pub(crate) use category::Category;
pub use category::Filter;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use anyhow::{Result, anyhow};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

use crate::clock::Clock;
use crate::config::LogConfig;
use rate_limit::{PLACE_BYTES_MAX, Place, RateLimiter, Verdict, WINDOW};
use sink::Sink;

/// The log; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    config: LogConfig,
    filter: RwLock<Filter>,
    /// The time that a node pretends, once it has a clock.
    clock: OnceLock<Clock>,
    out: Mutex<Out>,
}

#[derive(Debug, Default)]
struct Out {
    sink: Sink,
    limiter: Option<RateLimiter>,
}

impl Log {
    /// Opens the log and sends the lines of this process there.
    ///
    /// One process has one log: the first call decides, later ones change nothing.
    ///
    /// # Errors
    ///
    /// Returns an error, in `bitcoind`'s words, if the file cannot be opened.
    pub(crate) fn start(config: &LogConfig, chain_dir: &Path) -> Result<Self> {
        let path = config.path(chain_dir);
        let shown = path.clone().unwrap_or_default();
        let sink = Sink::open(path, config.console, config.shrink)
            .map_err(|_| anyhow!("Could not open debug log file {}", shown.display()))?;
        let limiter = config.rate_limit.then(RateLimiter::default);
        let log = Self(Arc::new(Inner {
            config: config.clone(),
            filter: RwLock::new(config.filter.clone()),
            clock: OnceLock::new(),
            out: Mutex::new(Out { sink, limiter }),
        }));
        let subscriber = tracing_subscriber::registry().with(log.clone());
        let _ = tracing::subscriber::set_global_default(subscriber);
        Ok(log)
    }

    /// Lets the lines show the time that this clock pretends.
    pub(crate) fn set_clock(&self, clock: Clock) {
        let _ = self.0.clock.set(clock);
    }

    /// Opens the file again at its path (SIGHUP).
    pub(crate) fn reopen(&self) {
        self.out().sink.reopen();
    }

    /// Returns which categories are written.
    pub(crate) fn filter(&self) -> Filter {
        self.0.filter.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes which categories are written.
    pub(crate) fn set_filter(&self, filter: Filter) {
        *self.0.filter.write().unwrap_or_else(PoisonError::into_inner) = filter;
    }

    fn out(&self) -> MutexGuard<'_, Out> {
        self.0.out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shows(&self, metadata: &Metadata<'_>) -> bool {
        if *metadata.level() <= Level::INFO {
            return true;
        }
        let filter = self.0.filter.read().unwrap_or_else(PoisonError::into_inner);
        Category::of_target(metadata.target())
            .is_some_and(|category| filter.shows(category, *metadata.level()))
    }
}

impl<S: Subscriber> Layer<S> for Log {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if *metadata.level() <= Level::INFO {
            return Interest::always();
        }
        match Category::of_target(metadata.target()) {
            // What is switched on may change (RPC `logging`).
            Some(_) => Interest::sometimes(),
            // Details of libraries.
            None => Interest::never(),
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.shows(metadata)
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let config = &self.0.config;
        let now = Clock::default().now();
        let mock_time = self.0.clock.get().and_then(Clock::mock);
        let line = line::line(config, event, now, mock_time);
        let metadata = event.metadata();
        let limited = *metadata.level() <= Level::INFO;
        self.out().write(config, &line, now, limited.then(|| place(metadata)));
    }
}

fn place(metadata: &Metadata<'static>) -> Place {
    (metadata.file().unwrap_or_default(), metadata.line().unwrap_or_default())
}

impl Out {
    /// Writes a line; one with a place counts against the place's limit.
    fn write(
        &mut self,
        config: &LogConfig,
        line: &str,
        now: std::time::Duration,
        place: Option<Place>,
    ) {
        let Some(limiter) = &mut self.limiter else {
            return self.sink.write(line, true);
        };
        let own = |text: &str| line::own_line(config, Level::WARN, text, now);
        for ((file, number), bytes) in limiter.renew(now) {
            let seconds = WINDOW.as_secs();
            self.sink.write(&own(&format!("Restarting logging from {file}:{number}: {bytes} bytes were dropped during the last {seconds}s.")), true);
        }
        let verdict = place.map_or(Verdict::Write, |place| limiter.consume(place, line.len()));
        if let (Verdict::WriteLast, Some((file, number))) = (verdict, place) {
            let seconds = WINDOW.as_secs();
            self.sink.write(&own(&format!("Excessive logging detected from {file}:{number}: >{PLACE_BYTES_MAX} bytes logged during the last time window of {seconds}s. Suppressing logging to disk from this source location until time window resets. Console logging unaffected. Last log entry.")), true);
        }
        // Who looks for a fault should know that lines are missing.
        let mark = if limiter.is_active() { "[*] " } else { "" };
        self.sink.write(&format!("{mark}{line}"), verdict != Verdict::Drop);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only lines of this thread: the global log belongs to all tests of the process.
    fn written(config: &LogConfig, run: impl FnOnce(&Log)) -> String {
        let dir = tempfile::tempdir().unwrap();
        let log = Log(Arc::new(Inner {
            config: config.clone(),
            filter: RwLock::new(config.filter.clone()),
            clock: OnceLock::new(),
            out: Mutex::new(Out {
                sink: Sink::open(config.path(dir.path()), false, false).unwrap(),
                limiter: config.rate_limit.then(RateLimiter::default),
            }),
        }));
        let subscriber = tracing_subscriber::registry().with(log.clone());
        tracing::subscriber::with_default(subscriber, || run(&log));
        std::fs::read_to_string(dir.path().join("debug.log")).unwrap()
    }

    fn plain() -> LogConfig {
        LogConfig { timestamps: false, ..LogConfig::default() }
    }

    #[test]
    fn lines_have_category_fields_and_level() {
        let mut config = plain();
        assert!(config.filter.set("net", true));
        let text = written(&config, |log| {
            tracing::info!("told");
            tracing::warn!(height = 7, "odd");
            tracing::debug!(target: "net", "shown");
            tracing::trace!(target: "net", "hidden");
            tracing::debug!(target: "rpc", "hidden");
            tracing::debug!(target: "somebody_else", "hidden");
            let mut filter = log.filter();
            assert!(filter.set("rpc", true) && filter.set("net", false));
            log.set_filter(filter);
            tracing::debug!(target: "rpc", "shown as well\n");
            tracing::debug!(target: "net", "hidden");
        });
        assert_eq!(
            text.trim_start(),
            "told\n[warning] odd height=7\n[net] shown\n[rpc] shown as well\n"
        );
    }

    /// Bitcoin Core wrote a line whenever somebody connected who claimed to be the node itself.
    #[test]
    fn cve_2025_54604_a_loud_place_is_cut_off_and_quiet_ones_go_on() {
        let long = "x".repeat(PLACE_BYTES_MAX / 2);
        let run = |_: &Log| {
            for _ in 0..4 {
                tracing::info!("{long}");
            }
            tracing::info!("quiet");
        };
        let text = written(&LogConfig { rate_limit: true, ..plain() }, run);
        // One fits, the second is one too many with its line feed and is written all the same.
        assert_eq!(text.matches(&long).count(), 2);
        assert!(text.contains("[warning] Excessive logging detected from"), "no word of it");
        assert!(text.ends_with("[*] quiet\n"));
        let all = written(&LogConfig { rate_limit: false, ..plain() }, run);
        assert_eq!(all.matches(&long).count(), 4);
    }
}
