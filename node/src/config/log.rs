//! Settings of the log.

use crate::settings::Settings;

/// Settings of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogConfig {
    /// The most detailed lines that are written.
    pub level: tracing::Level,
    /// Whether lines go to the standard output as well.
    pub console: bool,
}

impl LogConfig {
    /// Reads the options.
    pub(super) fn from_settings(settings: &Settings) -> Self {
        let debug = settings.all("debug").last().is_some_and(|last| !matches!(*last, "0" | "none"));
        let trace = settings.all("loglevel").contains(&"trace");
        let level = match (debug, trace) {
            (true, true) => tracing::Level::TRACE,
            (true, false) => tracing::Level::DEBUG,
            (false, _) => tracing::Level::INFO,
        };
        Self { level, console: settings.flag("printtoconsole", true) }
    }
}
