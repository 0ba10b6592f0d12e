//! The text of a line: Bitcoin Core's prefix, the message, the fields.

use std::fmt::Write as _;
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata};

use super::category::Category;
use crate::clock::iso8601;
use crate::config::LogConfig;

/// Returns the whole line of an event.
pub(super) fn line(
    config: &LogConfig,
    event: &Event<'_>,
    now: Duration,
    mock_time: Option<Duration>,
) -> String {
    let mut message = Message::default();
    event.record(&mut message);
    let text = escaped(&format!("{}{}", message.text, message.fields));
    prefix(config, event.metadata(), now, mock_time) + text.trim_end_matches('\n') + "\n"
}

/// Returns a line of the log about itself.
pub(super) fn own_line(config: &LogConfig, level: Level, text: &str, now: Duration) -> String {
    format!("{}{}{text}\n", time(config, now, None), marks(config, None, level))
}

fn prefix(
    config: &LogConfig,
    metadata: &Metadata<'_>,
    now: Duration,
    mock_time: Option<Duration>,
) -> String {
    let mut prefix = time(config, now, mock_time);
    if config.thread_names {
        let thread = std::thread::current();
        let _ = write!(prefix, "[{}] ", thread.name().unwrap_or("unknown"));
    }
    if config.source_locations {
        let (file, line) = (metadata.file().unwrap_or_default(), metadata.line().unwrap_or(0));
        let module = metadata.module_path().unwrap_or_default();
        let _ = write!(prefix, "[{file}:{line}] [{module}] ");
    }
    // As in Bitcoin Core, where only debug lines have a category.
    let category =
        (*metadata.level() > Level::INFO).then(|| Category::of_target(metadata.target())).flatten();
    prefix + &marks(config, category, *metadata.level())
}

fn time(config: &LogConfig, now: Duration, mock_time: Option<Duration>) -> String {
    if !config.timestamps {
        return String::new();
    }
    let mut text = iso8601(now.as_secs());
    if config.time_micros {
        text.pop();
        let _ = write!(text, ".{:06}Z", now.subsec_micros());
    }
    if let Some(time) = mock_time {
        let _ = write!(text, " (mocktime: {})", iso8601(time.as_secs()));
    }
    text.push(' ');
    text
}

/// Returns `[net] `, `[net:trace] ` or `[warning] `.
fn marks(config: &LogConfig, category: Option<Category>, level: Level) -> String {
    let name = category.map_or("all", Category::name);
    match category {
        _ if config.level_always => format!("[{name}:{}] ", level_name(level)),
        Some(_) if level == Level::DEBUG => format!("[{name}] "),
        Some(_) => format!("[{name}:{}] ", level_name(level)),
        None if level == Level::INFO => String::new(),
        None => format!("[{}] ", level_name(level)),
    }
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warning",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

/// Returns the text with control characters but line feeds written out: what a peer sends must not
/// reach a terminal that shows the log.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        if char != '\n' && (char < ' ' || char == '\x7f') {
            let _ = write!(escaped, "\\x{:02x}", u32::from(char));
        } else {
            escaped.push(char);
        }
    }
    escaped
}

#[derive(Default)]
struct Message {
    text: String,
    fields: String,
}

impl Visit for Message {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.text.push_str(value);
        } else {
            let _ = write!(self.fields, " {}={value}", field.name());
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.text, "{value:?}");
        } else {
            let _ = write!(self.fields, " {}={value:?}", field.name());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_bitcoin_core_s() {
        let config = LogConfig::default();
        let net = Category::named("net");
        let now = Duration::from_micros(1_700_000_000_000_123);
        assert_eq!(time(&config, now, None), "2023-11-14T22:13:20Z ");
        let micros = LogConfig { time_micros: true, ..LogConfig::default() };
        assert_eq!(time(&micros, now, None), "2023-11-14T22:13:20.000123Z ");
        assert_eq!(
            time(&config, now, Some(Duration::from_secs(1))),
            "2023-11-14T22:13:20Z (mocktime: 1970-01-01T00:00:01Z) "
        );
        assert_eq!(marks(&config, net, Level::DEBUG), "[net] ");
        assert_eq!(marks(&config, net, Level::TRACE), "[net:trace] ");
        assert_eq!(marks(&config, None, Level::INFO), "");
        assert_eq!(marks(&config, None, Level::WARN), "[warning] ");
        let always = LogConfig { level_always: true, ..LogConfig::default() };
        assert_eq!(marks(&always, None, Level::INFO), "[all:info] ");
        assert_eq!(marks(&always, net, Level::DEBUG), "[net:debug] ");
    }

    #[test]
    fn what_could_move_a_cursor_is_written_out() {
        assert_eq!(escaped("a\x1b[2J\nb\x7f₿"), "a\\x1b[2J\nb\\x7f₿");
    }
}
