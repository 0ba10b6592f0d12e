//! The page at `/`: plain HTML that loads itself again, and a plot drawn as SVG. It refers to nothing
//! outside itself.

use super::Seen;
use super::render::{bytes, duration, group, share};

/// Seconds between two loads.
const REFRESH_SECONDS: u32 = 2;
/// Size of the plot.
const PLOT_WIDTH: f64 = 600.0;
const PLOT_HEIGHT: f64 = 120.0;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:2rem auto;padding:0 1rem;\
color:#1b2733;background:#fff}h1{font-size:1.4rem;margin:0}table{border-collapse:collapse;width:100%}\
th{text-align:left;font-weight:normal;color:#5a6b7b;padding:.15rem 1rem .15rem 0;white-space:nowrap}\
td{font-variant-numeric:tabular-nums}progress{width:100%;height:1rem;accent-color:#0b6e99}\
svg{width:100%;height:auto;background:#f2f5f8}polyline{fill:none;stroke:#0b6e99;stroke-width:1.5}\
.big{font-size:1.8rem;margin:.2rem 0}@media(prefers-color-scheme:dark){body{color:#dfe7ee;background:#12181f}\
svg{background:#1b242d}th{color:#93a5b5}}";

/// The page.
pub(super) fn page(seen: &Seen) -> String {
    let now = &seen.now;
    let g = |name: &str| now.get(name);
    let percent = g("progress_ratio") * 100.0;
    let row = |name: &str, value: String| format!("<tr><th>{name}<td>{value}\n");
    let gauge = |name: &str, part: f64, whole: f64, text: String| {
        let bar = share(part, whole);
        row(name, format!("<progress value=\"{bar:.4}\"></progress>{text}"))
    };
    let mut rows = vec![
        gauge("headers", 1.0, 1.0, group(g("headers"))),
        gauge(
            "blocks",
            g("progress_ratio"),
            1.0,
            format!("{} ({percent:.2} %)", group(g("blocks"))),
        ),
        row(
            "rate",
            format!(
                "{:.1} blocks/s, {} transactions/s, {}/s",
                g("blocks_per_second"),
                group(g("transactions_per_second").round()),
                bytes(g("bytes_per_second"))
            ),
        ),
        row("bottleneck", escape(&now.bottleneck)),
        row("peers", format!("{} ({} outbound)", g("peers"), g("peers_outbound"))),
    ];
    let (cache, limit) = (g("cache_bytes"), g("cache_limit_bytes"));
    rows.push(gauge("cache", cache, limit, format!("{} of {}", bytes(cache), bytes(limit))));
    rows.push(row(
        "log",
        format!(
            "{} in {} files, {} records to replay, checkpoint {} old",
            bytes(g("log_bytes")),
            g("log_segments"),
            group(g("log_records_to_replay")),
            duration(g("checkpoint_age_seconds"))
        ),
    ));
    rows.push(row("tip", format!("{} old", duration(g("tip_age_seconds")))));
    rows.push(row("up", duration(g("uptime_seconds"))));
    let left = match g("remaining_seconds") {
        _ if g("initial_block_download") == 0.0 && g("importing") == 0.0 => "in sync".to_owned(),
        seconds => format!("{} left, {} to come", duration(seconds), bytes(g("remaining_bytes"))),
    };
    format!(
        "<!doctype html><html lang=en><head><meta charset=utf-8>\n\
         <meta name=viewport content=\"width=device-width\">\n\
         <meta http-equiv=refresh content={REFRESH_SECONDS}>\n\
         <title>{percent:.1} % - Cofferdam</title><style>{STYLE}</style></head><body>\n\
         <h1>Cofferdam on {}</h1><p class=big>{percent:.2} %: {left}</p>\n\
         <table>{}</table><p>Transactions a second</p>\n{}\n\
         <p><a href=\"/metrics\">Figures for Prometheus</a></p></body></html>\n",
        escape(&now.chain),
        rows.concat(),
        plot(seen.history.plot())
    )
}

/// A line over time, in a box of fixed size.
fn plot(values: impl ExactSizeIterator<Item = f64>) -> String {
    let values: Vec<f64> = values.collect();
    let most = values.iter().copied().fold(1.0, f64::max);
    let last = u32::try_from(values.len().saturating_sub(1)).unwrap_or(u32::MAX);
    let step = PLOT_WIDTH / f64::from(last.max(1));
    let mut points = String::new();
    for (at, value) in (0_u32..).zip(&values) {
        let (x, y) = (f64::from(at) * step, PLOT_HEIGHT - value / most * (PLOT_HEIGHT - 14.0));
        points.push_str(&format!("{x:.1},{y:.1} "));
    }
    format!(
        "<svg viewBox=\"0 0 {PLOT_WIDTH} {PLOT_HEIGHT}\" role=img aria-label=\"Transactions a second over the last {} seconds\">\
         <polyline points=\"{}\"/><text x=4 y=11 font-size=10 fill=currentColor>{}</text></svg>",
        values.len(),
        points.trim_end(),
        group(most)
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::snapshot::Snapshot;
    use serde_json::json;

    #[test]
    fn the_page_refers_to_nothing_outside_and_loads_itself_again() {
        let now = Snapshot::from_json(&json!({
            "chain": "<main>", "bottleneck": "none", "progress_ratio": 0.5,
            "initial_block_download": 1, "remaining_seconds": 60,
        }));
        let mut seen = Seen { now, ..Seen::default() };
        for _ in 0..5 {
            seen.history.add(&seen.now);
        }
        let html = page(&seen);
        for absent in ["http://", "https://", "<script", "src=", "url(", "@import", "<main>"] {
            assert!(!html.contains(absent), "{absent} in {html}");
        }
        for present in [
            "http-equiv=refresh content=2",
            "50.00 %: 1 min 0 s left",
            "<polyline points=\"0.0,120.0 150.0,120.0",
            "Cofferdam on &lt;main&gt;",
        ] {
            assert!(html.contains(present), "{present} in {html}");
        }
    }
}
