//! Settings of the log.

use std::path::{Path, PathBuf};

use crate::logging::Filter;
use crate::settings::Settings;

/// Settings of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "one an option")]
pub struct LogConfig {
    /// The file, relative to the chain directory; `None`: no file.
    pub file: Option<PathBuf>,
    /// Whether lines go to the standard output as well.
    pub console: bool,
    /// Which debug lines are written.
    pub filter: Filter,
    /// Whether lines begin with the time, and that with microseconds.
    pub timestamps: bool,
    /// See `timestamps`.
    pub time_micros: bool,
    /// Whether lines have the name of the thread.
    pub thread_names: bool,
    /// Whether lines have the place in the source.
    pub source_locations: bool,
    /// Whether every line has a category and a level.
    pub level_always: bool,
    /// Whether a place of the code may write so much only.
    pub rate_limit: bool,
    /// Whether a file that is too long is cut at the start.
    pub shrink: bool,
}

impl Default for LogConfig {
    /// What `bitcoind` does without options, but for the standard output.
    fn default() -> Self {
        Self {
            file: Some("debug.log".into()),
            console: false,
            filter: Filter::default(),
            timestamps: true,
            time_micros: false,
            thread_names: false,
            source_locations: false,
            level_always: false,
            rate_limit: true,
            shrink: true,
        }
    }
}

impl LogConfig {
    /// Reads the options.
    ///
    /// # Errors
    ///
    /// Returns the text for the user.
    pub(super) fn from_settings(settings: &Settings) -> Result<Self, String> {
        let default = Self::default();
        let filter = filter(settings)?;
        Ok(Self {
            file: settings.path("debuglogfile", "debug.log"),
            console: settings.flag("printtoconsole", !settings.flag("daemon", false)),
            timestamps: settings.flag("logtimestamps", default.timestamps),
            time_micros: settings.flag("logtimemicros", default.time_micros),
            thread_names: settings.flag("logthreadnames", default.thread_names),
            source_locations: settings.flag("logsourcelocations", default.source_locations),
            level_always: settings.flag("loglevelalways", default.level_always),
            rate_limit: settings.flag("logratelimit", default.rate_limit),
            shrink: settings.flag("shrinkdebugfile", filter.is_empty()),
            filter,
        })
    }

    /// Returns where the file is.
    pub(crate) fn path(&self, chain_dir: &Path) -> Option<PathBuf> {
        self.file.as_ref().map(|file| chain_dir.join(file))
    }
}

fn filter(settings: &Settings) -> Result<Filter, String> {
    let mut filter = Filter::default();
    for level in settings.all("loglevel") {
        filter.set_level(level)?;
    }
    let names = settings.all("debug");
    // What stands before a 0 is taken back, as by -nodebug.
    let first = names.iter().rposition(|name| matches!(*name, "0" | "none"));
    for name in names.iter().skip(first.map_or(0, |index| index + 1)) {
        if !filter.set(name, true) {
            return Err(format!("Unsupported logging category -debug={name}."));
        }
    }
    for name in settings.all("debugexclude") {
        if !filter.set(name, false) {
            return Err(format!("Unsupported logging category -debugexclude={name}."));
        }
    }
    Ok(filter)
}

#[cfg(test)]
mod tests {
    use crate::config::tests::load;
    use crate::logging::Category;

    fn enabled(line: &str) -> Vec<&'static str> {
        let filter = load(line, "").unwrap().log.filter;
        Category::all().filter(|of| filter.is_enabled(*of)).map(Category::name).collect()
    }

    #[test]
    fn categories_are_those_after_the_last_that_takes_all_back() {
        assert_eq!(enabled(""), [""; 0]);
        assert_eq!(enabled("-debug=net -debug=rpc -debugexclude=net"), ["rpc"]);
        for none in ["-debug=0", "-debug=none", "-nodebug"] {
            assert_eq!(enabled(&format!("-debug=abc -debug=http {none} -debug=net")), ["net"]);
        }
        assert!(enabled("-debug").len() > 20);
        for option in ["debug", "debugexclude"] {
            assert_eq!(
                load(&format!("-{option}=abc"), "").unwrap_err(),
                format!("Unsupported logging category -{option}=abc.")
            );
        }
    }

    #[test]
    fn the_file_may_be_elsewhere_or_not_at_all() {
        let path = |line| load(line, "").unwrap().log.path("/d".as_ref());
        assert_eq!(path(""), Some("/d/debug.log".into()));
        assert_eq!(path("-debuglogfile=a/b.log"), Some("/d/a/b.log".into()));
        assert_eq!(path("-debuglogfile=/a"), Some("/a".into()));
        assert_eq!(path("-nodebuglogfile"), None);
    }

    #[test]
    fn debug_lines_keep_an_old_log_whole() {
        assert!(load("", "").unwrap().log.shrink);
        assert!(!load("-debug", "").unwrap().log.shrink);
        assert!(load("-debug -shrinkdebugfile", "").unwrap().log.shrink);
    }
}
