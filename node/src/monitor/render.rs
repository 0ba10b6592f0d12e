//! Figures in words: one screen of text, and numbers as people read them.

use super::snapshot::Snapshot;

/// Columns of a bar.
const BAR_COLUMNS: f64 = 40.0;

/// The screen of `cofferdam status`.
pub(super) fn screen(now: &Snapshot) -> String {
    let g = |name: &str| now.get(name);
    let state = if g("importing") > 0.0 {
        "importing block files"
    } else if g("initial_block_download") > 0.0 {
        "downloading the chain"
    } else {
        "in sync"
    };
    let cache = share(g("cache_bytes"), g("cache_limit_bytes"));
    let lines = [
        format!("Cofferdam on {}: {state}", now.chain),
        String::new(),
        format!("headers     {} {}", bar(1.0), group(g("headers"))),
        format!(
            "blocks      {} {} ({:.2} %)",
            bar(g("progress_ratio")),
            group(g("blocks")),
            g("progress_ratio") * 100.0
        ),
        format!(
            "rate        {:.1} blocks/s   {} transactions/s   {}/s",
            g("blocks_per_second"),
            group(g("transactions_per_second").round()),
            bytes(g("bytes_per_second"))
        ),
        format!(
            "left        {} by transactions   {} of blocks",
            duration(g("remaining_seconds")),
            bytes(g("remaining_bytes"))
        ),
        format!("bottleneck  {}", now.bottleneck),
        format!("peers       {} ({} outbound)", g("peers"), g("peers_outbound")),
        format!(
            "cache       {} {} of {}",
            bar(cache),
            bytes(g("cache_bytes")),
            bytes(g("cache_limit_bytes"))
        ),
        format!(
            "log         {} in {}; {} to replay, {} not durable, checkpoint {} old",
            bytes(g("log_bytes")),
            counted(g("log_segments"), "file"),
            counted(g("log_records_to_replay"), "record"),
            g("log_records_not_durable"),
            duration(g("checkpoint_age_seconds"))
        ),
        format!("up          {}", duration(g("uptime_seconds"))),
    ];
    lines.join("\n") + "\n"
}

/// A share of a limit, between 0 and 1.
pub(super) fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { (part / whole).clamp(0.0, 1.0) } else { 0.0 }
}

fn bar(ratio: f64) -> String {
    let filled = (ratio.clamp(0.0, 1.0) * BAR_COLUMNS).floor();
    let mut text = String::from("[");
    let mut column = 0.0;
    while column < BAR_COLUMNS {
        text.push(if column < filled { '#' } else { '.' });
        column += 1.0;
    }
    text + "]"
}

/// A number with commas.
pub(super) fn group(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of things.
pub(super) fn counted(number: f64, thing: &str) -> String {
    format!("{} {thing}{}", group(number), if number == 1.0 { "" } else { "s" })
}

/// A number of bytes, with a unit.
pub(super) fn bytes(number: f64) -> String {
    if number < 0.0 {
        return "?".into();
    }
    let (mut value, mut unit) = (number, "B");
    for larger in ["kB", "MB", "GB", "TB"] {
        if value < 1000.0 {
            break;
        }
        (value, unit) = (value / 1000.0, larger);
    }
    if unit == "B" { format!("{value:.0} B") } else { format!("{value:.1} {unit}") }
}

/// A time, in its two largest units.
pub(super) fn duration(seconds: f64) -> String {
    if seconds < 0.0 {
        return "unknown time".into();
    }
    let part = |unit: f64| (seconds / unit).floor();
    let rest = |unit: f64, of: f64| part(unit) - part(of) * (of / unit);
    match seconds {
        s if s < 60.0 => format!("{s:.0} s"),
        s if s < 3600.0 => format!("{} min {} s", part(60.0), rest(1.0, 60.0)),
        s if s < 86_400.0 => format!("{} h {} min", part(3600.0), rest(60.0, 3600.0)),
        _ => format!("{} days {} h", part(86_400.0), rest(3600.0, 86_400.0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_read_well() {
        assert_eq!(
            [0.0, 999.0, 1000.0, 1_234_567.0, -1000.0].map(group),
            ["0", "999", "1,000", "1,234,567", "-1,000"]
        );
        assert_eq!([12.0, 1500.0, 7.5e11, -1.0].map(bytes), ["12 B", "1.5 kB", "750.0 GB", "?"]);
        assert_eq!(
            [5.0, 65.0, 3661.0, 90_000.0, -1.0].map(duration),
            ["5 s", "1 min 5 s", "1 h 1 min", "1 days 1 h", "unknown time"]
        );
    }

    #[test]
    fn one_thing_is_no_things() {
        assert_eq!(
            [0.0, 1.0, 1200.0].map(|n| counted(n, "file")),
            ["0 files", "1 file", "1,200 files"]
        );
    }

    #[test]
    fn one_screen_says_it_all() {
        let now = Snapshot::from_json(&json!({
            "chain": "main", "bottleneck": "disk: commits wait for a write-back",
            "headers": 900_000, "blocks": 450_000, "progress_ratio": 0.25,
            "initial_block_download": 1, "remaining_seconds": 7200, "remaining_bytes": 5e11,
            "cache_bytes": 1e8, "cache_limit_bytes": 2e8, "peers": 10, "peers_outbound": 8,
        }));
        let text = screen(&now);
        assert!(text.lines().count() < 24, "a terminal has 24 lines");
        assert!(text.lines().all(|line| line.len() < 100), "{text}");
        for part in [
            "on main: downloading the chain",
            "450,000 (25.00 %)",
            "2 h 0 min by transactions   500.0 GB of blocks",
            "bottleneck  disk",
            "100.0 MB of 200.0 MB",
            "10 (8 outbound)",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
