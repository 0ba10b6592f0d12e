//! Bars on a terminal while a node runs: headers, blocks, and a line of what else matters.

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::render::{bytes, counted, duration, group, share};
use super::snapshot::Snapshot;

/// The bars.
pub(super) struct Bars {
    all: MultiProgress,
    headers: ProgressBar,
    blocks: ProgressBar,
    cache: ProgressBar,
    line: ProgressBar,
}

impl Bars {
    /// Shows them, empty.
    pub(super) fn start() -> Self {
        let all = MultiProgress::new();
        let add = |name: &str| {
            let template = format!("{name:8} {{bar:40}} {{msg}}");
            let style = ProgressStyle::with_template(&template)
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            // Parts of a million: what is shown is a share.
            all.add(ProgressBar::new(1_000_000).with_style(style))
        };
        let (headers, blocks, cache) = (add("headers"), add("blocks"), add("cache"));
        let style = ProgressStyle::with_template("{msg}");
        let line = ProgressBar::new(1).with_style(style.unwrap_or_else(|_| {
            // The template is a constant; this is what indicatif has by itself.
            ProgressStyle::default_bar()
        }));
        let line = all.add(line);
        Self { all, headers, blocks, cache, line }
    }

    /// Shows a snapshot.
    pub(super) fn show(&self, now: &Snapshot) {
        let g = |name: &str| now.get(name);
        set(&self.headers, 1.0, group(g("headers")));
        let blocks = format!(
            "{} ({:.2} %), {} left ({})",
            group(g("blocks")),
            g("progress_ratio") * 100.0,
            duration(g("remaining_seconds")),
            bytes(g("remaining_bytes"))
        );
        set(&self.blocks, g("progress_ratio"), blocks);
        let cache = share(g("cache_bytes"), g("cache_limit_bytes"));
        set(&self.cache, cache, bytes(g("cache_bytes")));
        self.line.set_message(format!(
            "{:.1} blocks/s, {} tx/s, {}/s, {}; {}",
            g("blocks_per_second"),
            group(g("transactions_per_second").round()),
            bytes(g("bytes_per_second")),
            counted(g("peers"), "peer"),
            now.bottleneck
        ));
    }

    /// Takes them away.
    pub(super) fn end(&self) {
        // A terminal that is gone needs no cleaning.
        let _ = self.all.clear();
    }
}

fn set(bar: &ProgressBar, ratio: f64, text: String) {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and a million"
    )]
    bar.set_position((ratio.clamp(0.0, 1.0) * 1e6) as u64);
    bar.set_message(text);
}
