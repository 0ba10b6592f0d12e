//! The page at `/`: plain HTML that loads itself again, and a plot drawn as SVG. It has no script and
//! refers to nothing outside itself.

use super::Seen;
use super::render::{bytes, counted, duration, group, share};
use super::snapshot::Snapshot;

/// Seconds between two loads.
const REFRESH_SECONDS: u32 = 2;
/// Size of the plot, in units of its own: it is stretched over its place.
const PLOT_WIDTH: f64 = 600.0;
const PLOT_HEIGHT: f64 = 100.0;
/// Seconds that the plot shows at least: a node just started has a short line at the right.
const PLOT_SECONDS_MIN: usize = 60;
/// A gauge fuller than this is shown in another colour.
const NEARLY_FULL: f64 = 0.9;

/// The largest scale.
const SCALE_MAX: f64 = 1e15;

const STYLE: &str = include_str!("page.css");

/// The page.
pub(super) fn page(seen: &Seen) -> String {
    let now = &seen.now;
    let percent = percent(now);
    format!(
        "<!doctype html><html lang=en><head><meta charset=utf-8>\n\
         <meta name=viewport content=\"width=device-width,initial-scale=1\">\n\
         <meta http-equiv=refresh content={REFRESH_SECONDS}>\n\
         <title>{percent} % - Cofferdam</title>\n<style>\n{STYLE}</style></head><body>\n\
         {}{}<div class=tiles>\n{}</div>\n{}<div class=\"tiles wide\">\n{}</div>\n\
         <footer><span id=up>up {}</span>\
         <span>every {REFRESH_SECONDS} s anew; <a href=\"/metrics\">figures for Prometheus</a></span></footer>\n\
         </body></html>\n",
        heading(now),
        progress(now),
        tiles(now),
        plot(seen.history.plot()),
        gauges(now),
        duration(now.get("uptime_seconds")),
    )
}

/// The share that is done; never rounded up to all of it.
fn percent(now: &Snapshot) -> String {
    format!("{:.2}", (now.get("progress_ratio") * 10_000.0).floor() / 100.0)
}

fn heading(now: &Snapshot) -> String {
    let (class, state) = if now.get("importing") > 0.0 {
        ("busy", "importing")
    } else if now.get("initial_block_download") > 0.0 {
        ("busy", "syncing")
    } else {
        ("synced", "in sync")
    };
    format!(
        "<header><h1>Cofferdam</h1><span class=chain>on {}</span>\
         <span class=\"state {class}\" id=state>{state}</span></header>\n",
        escape(&now.chain)
    )
}

fn progress(now: &Snapshot) -> String {
    let is_busy = now.get("initial_block_download") > 0.0 || now.get("importing") > 0.0;
    let left = match (is_busy, now.get("remaining_seconds")) {
        (false, _) => format!("tip {} old", duration(now.get("tip_age_seconds"))),
        (true, seconds) if seconds < 0.0 => "time left: not known yet".to_owned(),
        (true, seconds) => format!("{} left", duration(seconds)),
    };
    format!(
        "<section><div class=top><span class=share id=share>{} %</span>\
         <span class=left id=left>{left}</span></div>\n{}\
         <p class=note><strong>Bottleneck</strong> <span id=bottleneck>{}</span></p></section>\n",
        percent(now),
        bar("bar", "progress", now.get("progress_ratio")),
        escape(&now.bottleneck)
    )
}

fn tiles(now: &Snapshot) -> String {
    let g = |name: &str| now.get(name);
    let read = format!("{} so far", bytes(g("connected_bytes")));
    let to_come = match g("remaining_bytes") {
        left if left > 0.0 => format!("{} to come", bytes(left)),
        _ => read,
    };
    let inbound = (g("peers") - g("peers_outbound")).max(0.0);
    [
        tile(
            "Blocks",
            "blocks",
            &group(g("blocks")),
            &format!("of {} headers", group(g("headers"))),
        ),
        tile(
            "Speed",
            "rate",
            &format!("{} tx/s", group(g("transactions_per_second").round())),
            &format!("{} blocks/s", group_tenths(g("blocks_per_second"))),
        ),
        tile("Blocks read", "bytes", &format!("{}/s", bytes(g("bytes_per_second"))), &to_come),
        tile(
            "Peers",
            "peers",
            &group(g("peers")),
            &format!("{} out, {} in", g("peers_outbound"), inbound),
        ),
    ]
    .concat()
}

fn gauges(now: &Snapshot) -> String {
    let g = |name: &str| now.get(name);
    let (cache, limit) = (g("cache_bytes"), g("cache_limit_bytes"));
    let checkpoint = match g("checkpoint_age_seconds") {
        age if age > 0.0 => format!("checkpoint {} old", duration(age)),
        _ => "everything written back".to_owned(),
    };
    let full = share(cache, limit);
    format!(
        "<section><h2>Cache of coins</h2><p id=cache>{} of {}</p>{}\
         <p class=note>{}, {} for one</p></section>\n\
         <section><h2>Write-ahead log</h2><p id=log>{} in {}</p>\
         <p class=note>{} to replay after a crash, {} not durable yet; {checkpoint}</p></section>\n",
        bytes(cache),
        bytes(limit),
        bar(if full > NEARLY_FULL { "bar thin full" } else { "bar thin" }, "cache", full),
        counted(g("write_backs"), "write-back"),
        counted(g("back_pressure_waits"), "wait"),
        bytes(g("log_bytes")),
        counted(g("log_segments"), "file"),
        counted(g("log_records_to_replay"), "record"),
        group(g("log_records_not_durable")),
    )
}

/// A number with one decimal, and without where it has no meaning any more.
fn group_tenths(number: f64) -> String {
    if number < 100.0 { format!("{number:.1}") } else { group(number.round()) }
}

/// A figure with its name and a remark.
fn tile(name: &str, id: &str, value: &str, remark: &str) -> String {
    format!("<section><h2>{name}</h2><b id={id}>{value}</b><p class=note>{remark}</p></section>\n")
}

/// A bar, for eyes and for readers of screens.
fn bar(class: &str, name: &str, ratio: f64) -> String {
    let percent = ratio.clamp(0.0, 1.0) * 100.0;
    format!(
        "<div class=\"{class}\" role=progressbar aria-label={name} aria-valuenow={percent:.0} \
         aria-valuemin=0 aria-valuemax=100><i style=\"width:{percent:.2}%\"></i></div>\n"
    )
}

/// A line over time, the last moment at the right.
fn plot(values: impl ExactSizeIterator<Item = f64>) -> String {
    let values: Vec<f64> = values.collect();
    let most = round_up(values.iter().copied().fold(1.0, f64::max));
    let seconds = values.len().max(PLOT_SECONDS_MIN);
    let span = u32::try_from(seconds.saturating_sub(1)).unwrap_or(u32::MAX);
    let step = PLOT_WIDTH / f64::from(span);
    let empty = u32::try_from(seconds - values.len()).unwrap_or(u32::MAX);
    let first = f64::from(empty) * step;
    let mut points = String::new();
    for (at, value) in (empty..).zip(&values) {
        let (x, y) = (f64::from(at) * step, PLOT_HEIGHT - value / most * PLOT_HEIGHT);
        points.push_str(&format!("{x:.1},{y:.1} "));
    }
    let points = points.trim_end();
    let half = PLOT_HEIGHT / 2.0;
    format!(
        "<section><figure><figcaption><h2>Transactions a second</h2>\
         <span class=note>up to {}</span></figcaption>\n\
         <svg viewBox=\"0 -1 {PLOT_WIDTH} {}\" preserveAspectRatio=none role=img \
         aria-label=\"Transactions a second over the last {} seconds\">\
         <line x1=0 x2={PLOT_WIDTH} y1=0 y2=0 /><line x1=0 x2={PLOT_WIDTH} y1={half} y2={half} />\
         <line x1=0 x2={PLOT_WIDTH} y1={PLOT_HEIGHT} y2={PLOT_HEIGHT} />\
         <polygon points=\"{first:.1},{PLOT_HEIGHT} {points} {PLOT_WIDTH},{PLOT_HEIGHT}\"/>\
         <polyline points=\"{points}\"/></svg>\n\
         <p class=\"note ends\"><span>{} ago</span><span>now</span></p></figure></section>\n",
        group(most),
        PLOT_HEIGHT + 2.0,
        values.len(),
        match seconds % 60 {
            0 => format!("{} min", seconds / 60),
            _ => duration(f64::from(span) + 1.0),
        },
    )
}

/// The next larger of some round numbers: a scale that does not change at every look.
fn round_up(most: f64) -> f64 {
    let (most, mut unit) = (most.min(SCALE_MAX), 1.0);
    while unit * 10.0 <= most {
        unit *= 10.0;
    }
    let round = [1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0].map(|times| times * unit);
    round.into_iter().find(|at| *at >= most).unwrap_or(10.0 * unit)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_page_refers_to_nothing_outside_and_loads_itself_again() {
        let now = Snapshot::from_json(&json!({
            "chain": "<main>", "bottleneck": "none", "progress_ratio": 0.5, "peers": 10, "peers_outbound": 8,
            "initial_block_download": 1, "remaining_seconds": 60,
        }));
        let mut seen = Seen { now, ..Seen::default() };
        for _ in 0..2 {
            seen.history.add(&seen.now);
        }
        let html = page(&seen);
        for absent in ["http://", "https://", "<script", "src=", "url(", "@import", "<main>"] {
            assert!(!html.contains(absent), "{absent} in {html}");
        }
        for present in [
            "http-equiv=refresh content=2",
            "50.00 %</span>",
            "1 min 0 s left",
            "<polyline points=\"589.8,100.0 600.0,100.0\"",
            "on &lt;main&gt;",
            "8 out, 2 in",
        ] {
            assert!(html.contains(present), "{present} in {html}");
        }
    }

    #[test]
    fn a_sync_is_not_shown_as_done_before_it_is() {
        let at = |ratio: f64| percent(&Snapshot::from_json(&json!({ "progress_ratio": ratio })));
        assert_eq!([0.0, 0.5, 0.999_99, 1.0].map(at), ["0.00", "50.00", "99.99", "100.00"]);
    }

    #[test]
    fn scales_are_round_and_large_enough() {
        let scales = [0.0, 1.2, 4.9, 8.1, 2000.0, 2001.0].map(round_up);
        assert_eq!(scales, [1.0, 1.5, 5.0, 10.0, 2000.0, 3000.0]);
        assert!(round_up(f64::INFINITY).is_finite());
    }
}
