//! How an import is getting on: a bar on a terminal, a log line now and then elsewhere.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::terminal;

/// Time between log lines.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Counts what was imported.
pub(crate) struct ProgressReport {
    bar: Option<ProgressBar>,
    bytes_all: u64,
    bytes: u64,
    blocks: usize,
    height: u32,
    began: Instant,
    line_at: Instant,
}

impl ProgressReport {
    /// Begins an import of so many bytes.
    pub(crate) fn start(bytes_all: u64, for_person: bool) -> Self {
        let bar = (for_person && terminal::is_terminal()).then(|| {
            let template =
                "{bar:30} {percent}% {bytes}/{total_bytes} {bytes_per_sec} ETA {eta} {msg}";
            let style = ProgressStyle::with_template(template)
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(bytes_all).with_style(style)
        });
        let began = Instant::now();
        Self { bar, bytes_all, bytes: 0, blocks: 0, height: 0, began, line_at: began }
    }

    /// Adds blocks that were imported; the chain has this height now.
    pub(crate) fn add(&mut self, blocks: usize, bytes: u64, height: u32) {
        self.blocks += blocks;
        self.bytes += bytes;
        self.height = height;
        let text = self.text();
        if let Some(bar) = &self.bar {
            bar.set_position(self.bytes);
            bar.set_message(text);
        } else if self.line_at.elapsed() >= LINE_INTERVAL {
            self.line_at = Instant::now();
            tracing::info!("import: {text}");
        }
    }

    /// Ends it.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        tracing::info!("import: {}", self.text());
    }

    fn text(&self) -> String {
        let seconds = self.began.elapsed().as_secs_f64().max(0.001);
        let blocks = u32::try_from(self.blocks).map_or(f64::MAX, f64::from);
        let megabytes = f64::from(u32::try_from(self.bytes >> 10).unwrap_or(u32::MAX)) / 1000.0;
        let all = f64::from(u32::try_from(self.bytes_all >> 10).unwrap_or(u32::MAX)) / 1000.0;
        let rate = megabytes / seconds;
        let left = if rate > 0.0 { (all - megabytes) / rate } else { 0.0 };
        format!(
            "height {}, {:.0} blocks/s, {rate:.1} MB/s, {left:.0} s left",
            self.height,
            blocks / seconds
        )
    }
}
