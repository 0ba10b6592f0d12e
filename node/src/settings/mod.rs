//! The command line and `bitcoin.conf` merged, by `bitcoind`'s rules of precedence
//! (`common/settings.cpp`).
//!
//! The command line beats `settings.json`, which beats the file. On the command line the last value of
//! a single-valued option counts, in the file the first; the section of the network beats the top of
//! the file, where options about addresses and ports are for the main network only.

mod dynamic;
mod file;
mod value;

pub(crate) use dynamic::{SettingsFile, parse as dynamic_settings};
pub(crate) use file::{FileEntry, FileText};
pub(crate) use value::Key;
pub use value::OptionValue;

use std::collections::BTreeMap;
use std::path::{Component, PathBuf};

use crate::options::{OptionSpec, Rule};

/// What was typed: the values of each option in order.
pub type Options = BTreeMap<String, Vec<OptionValue>>;

/// All that was set, and for which network it is read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    /// From the command line.
    pub(crate) typed: Options,
    /// From `settings.json`.
    pub(crate) dynamic: Options,
    /// From the file, in order.
    pub(crate) file: Vec<FileEntry>,
    /// Name of the network, which is the name of its section.
    pub(crate) network: String,
}

/// Values from one place, in order.
struct Span<'a> {
    values: Vec<&'a OptionValue>,
    source: Source,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    CommandLine,
    Dynamic,
    Section,
    Top,
}

impl<'a> Span<'a> {
    /// Returns the values after the last negation.
    fn live(&self) -> &[&'a OptionValue] {
        self.values.get(self.negated()..).unwrap_or_default()
    }

    /// Returns how many values the last negation takes back, itself included.
    fn negated(&self) -> usize {
        let last = self.values.iter().rposition(|value| **value == OptionValue::Off);
        last.map_or(0, |index| index + 1)
    }

    fn last_negated(&self) -> bool {
        self.values.last().is_some_and(|value| **value == OptionValue::Off)
    }
}

impl Settings {
    /// Returns the value that counts as a text; a negated option is `0`.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.value(name).map(OptionValue::as_str)
    }

    /// Returns all values; a negation takes back those before it. `-NAME=0` is a value.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let (mut values, mut done, mut negated_to_nothing) = (Vec::new(), false, false);
        for span in self.spans(name) {
            if span.source == Source::Top && !self.top_counts(name) {
                continue;
            }
            // A value after a negation on the command line brings those of the file back, as in
            // Bitcoin Core.
            let of_file = matches!(span.source, Source::Section | Source::Top);
            let zombies = of_file && !negated_to_nothing;
            if !done || zombies {
                values.extend(span.live().iter().map(|value| value.as_str()));
            }
            done |= span.negated() > 0;
            negated_to_nothing |= span.last_negated() && values.is_empty();
        }
        values
    }

    /// Takes over what `settings.json` says.
    pub(crate) fn add_dynamic(&mut self, file: &SettingsFile) {
        self.dynamic = file.options();
    }

    /// Returns whether the option was set at all, if only by negation.
    pub(crate) fn is_set(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    /// Returns whether the option was negated: `-noNAME`.
    pub(crate) fn is_negated(&self, name: &str) -> bool {
        self.value(name) == Some(&OptionValue::Off)
    }

    /// Returns the value as a truth value, as Bitcoin Core's `InterpretBool`.
    pub(crate) fn flag(&self, name: &str, default: bool) -> bool {
        self.value(name).map_or(default, OptionValue::as_bool)
    }

    /// Returns the value as a number; an empty one is zero.
    ///
    /// # Errors
    ///
    /// Returns a text that names the option if the value is not such a number.
    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, String> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let number = if value.is_empty() { "0" } else { value };
        number.parse().map(Some).map_err(|_| format!("Invalid value for -{name}: '{value}'"))
    }

    /// Returns the value as a path without `.`, `..` and a slash at its end; `None` if the option
    /// was negated.
    pub(crate) fn path(&self, name: &str, default: &str) -> Option<PathBuf> {
        if self.is_negated(name) {
            return None;
        }
        let text = self.get(name).filter(|text| !text.is_empty());
        Some(text.map_or_else(|| PathBuf::from(default), normal))
    }

    /// Returns whether one of the four names of networks is set. As in Bitcoin Core a negation on
    /// the command line is passed over, and the last value of the file counts.
    pub(crate) fn chain_flag(&self, name: &str) -> bool {
        let spans = self.spans(name);
        let mut counting = spans.iter().filter(|span| !span.last_negated());
        counting.next().and_then(|span| span.values.last()).is_some_and(|value| value.as_bool())
    }

    /// Returns the options about addresses and ports that stand only at the top of the file, where
    /// they are for the main network.
    pub(crate) fn misplaced(&self) -> Vec<&'static str> {
        let mut names: Vec<&'static str> = self.file.iter().map(|entry| entry.name).collect();
        names.sort_unstable();
        names.dedup();
        names.retain(|name| {
            let lives = |span: &Span<'_>| !span.live().is_empty();
            let spans = self.spans(name);
            !self.top_counts(name)
                && spans.iter().any(|span| span.source == Source::Top && lives(span))
                && !spans.iter().any(|span| span.source != Source::Top && lives(span))
        });
        names
    }

    /// Returns a line for each value that was set; passwords are left out.
    pub(crate) fn shown(&self) -> Vec<String> {
        let shown = |name: &str, value: &OptionValue| match value {
            _ if OptionSpec::find(name).is_some_and(|spec| spec.has(Rule::Sensitive)) => {
                format!("{name}=****")
            }
            OptionValue::Off => format!("{name}=false"),
            OptionValue::On => format!("{name}=true"),
            OptionValue::Text(text) => format!("{name}={}", serde_json::Value::from(text.as_str())),
        };
        let file = self.file.iter().map(|entry| {
            let section = entry.section.as_deref().map(|section| format!("[{section}] "));
            let section = section.unwrap_or_default();
            format!("Config file arg: {section}{}", shown(entry.name, &entry.value))
        });
        let typed = self.typed.iter().flat_map(|(name, values)| {
            values.iter().map(move |value| format!("Command-line arg: {}", shown(name, value)))
        });
        file.chain(typed).collect()
    }

    fn value(&self, name: &str) -> Option<&OptionValue> {
        for span in self.spans(name) {
            // A negation at the top of the file holds for every network.
            if span.source == Source::Top && !self.top_counts(name) && !span.last_negated() {
                continue;
            }
            let live = span.live();
            let counts = match span.source {
                Source::CommandLine | Source::Dynamic => live.last(),
                Source::Section | Source::Top => live.first(),
            };
            if let Some(value) = counts.or_else(|| span.values.last()) {
                return Some(value);
            }
        }
        None
    }

    /// Returns where the option is set, by precedence.
    fn spans(&self, name: &str) -> Vec<Span<'_>> {
        let of = |section: Option<&str>| {
            let entries = self
                .file
                .iter()
                .filter(|entry| entry.section.as_deref() == section && entry.name == name);
            entries.map(|entry| &entry.value).collect::<Vec<_>>()
        };
        let section =
            if self.network.is_empty() { Vec::new() } else { of(Some(self.network.as_str())) };
        let all = [
            (Source::CommandLine, in_order(&self.typed, name)),
            (Source::Dynamic, in_order(&self.dynamic, name)),
            (Source::Section, section),
            (Source::Top, of(None)),
        ];
        let spans = all.into_iter().map(|(source, values)| Span { values, source });
        spans.filter(|span| !span.values.is_empty()).collect()
    }

    fn top_counts(&self, name: &str) -> bool {
        let network_only = OptionSpec::find(name).is_some_and(|spec| spec.has(Rule::NetworkOnly));
        !network_only || self.network.is_empty() || self.network == "main"
    }
}

fn in_order<'a>(options: &'a Options, name: &str) -> Vec<&'a OptionValue> {
    options.get(name).into_iter().flatten().collect()
}

/// Returns a path without `.` and `..`, as far as its text tells.
fn normal(text: &str) -> PathBuf {
    let mut path = PathBuf::new();
    for component in PathBuf::from(text).components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if path.file_name().is_some() => {
                path.pop();
            }
            component => path.push(component),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAMEWORK: &str = "regtest=1\n[regtest]\nport=11000 # P2P\nrpcport=16000\nrpcport=1\nserver=1\n\
        connect=0\nfallbackfee=0.0002\nnodebug=1\nbind=127.0.0.1\n";

    fn settings(line: &str, text: &str, network: &str) -> Settings {
        let args = crate::cli::Args::parse(line.split_whitespace().map(Into::into)).unwrap();
        let file = FileText::parse(text).unwrap().entries;
        Settings { typed: args.options, file, network: network.into(), ..Settings::default() }
    }

    #[test]
    fn the_framework_file_is_read_with_its_section() {
        let settings = settings("", FRAMEWORK, "regtest");
        assert!(settings.flag("regtest", false));
        assert_eq!(settings.get("rpcport"), Some("16000"), "the first of the file counts");
        assert_eq!(settings.get("port"), Some("11000"));
        assert_eq!(settings.all("bind"), ["127.0.0.1"]);
        assert_eq!(settings.all("connect"), ["0"]);
        assert!(settings.is_set("debug") && settings.is_negated("debug"));
        assert!(settings.all("debug").is_empty());
    }

    #[test]
    fn ports_at_the_top_are_for_main_only() {
        let text = "port=1\nrpcuser=me\n[regtest]\nrpcuser=you\n";
        assert_eq!(settings("", text, "main").get("port"), Some("1"));
        assert_eq!(settings("", text, "regtest").get("port"), None);
        assert_eq!(settings("", text, "main").get("rpcuser"), Some("me"));
        assert_eq!(settings("", text, "regtest").get("rpcuser"), Some("you"));
        assert_eq!(settings("", "test.port=7\n", "test").get("port"), Some("7"));
        assert_eq!(settings("", text, "regtest").misplaced(), ["port"]);
        assert!(settings("-port=2", text, "regtest").misplaced().is_empty());
        assert!(settings("", text, "main").misplaced().is_empty());
        // Core has no such rule for this one.
        let text = "whitebind=127.0.0.1:5\n";
        assert_eq!(settings("", text, "regtest").all("whitebind"), ["127.0.0.1:5"]);
        assert!(settings("", text, "regtest").misplaced().is_empty());
        assert_eq!(
            settings("", "noconnect=1", "regtest").get("connect"),
            Some("0"),
            "negations do"
        );
    }

    #[test]
    fn the_command_line_beats_the_file_and_its_last_value_counts() {
        let file = "[regtest]\nport=1\nconnect=b\n";
        let of = |line| settings(line, file, "regtest");
        assert_eq!(of("-port=2 -port=3").number("port"), Ok(Some(3_u16)));
        assert_eq!(of("-connect=a").all("connect"), ["a", "b"]);
        assert!(of("-port=x").number::<u16>("port").unwrap_err().contains("-port: 'x'"));
        assert_eq!(of("-port").number("port"), Ok(Some(0_u16)));
    }

    #[test]
    fn a_negation_takes_back_what_stands_before_it_and_in_the_file() {
        let of = |line| settings(line, "[regtest]\nconnect=f\n", "regtest");
        assert!(of("-connect=a -noconnect").all("connect").is_empty());
        assert_eq!(of("-connect=a -noconnect").get("connect"), Some("0"));
        // As in Bitcoin Core, a later value brings those of the file back.
        assert_eq!(of("-connect=a -noconnect -connect=b").all("connect"), ["b", "f"]);
        assert_eq!(of("-noconnect=0").get("connect"), Some("1"));
        assert!(!of("-nolisten -listen=0").flag("listen", true));
        assert!(of("-nolisten=0").flag("listen", false));
    }

    #[test]
    fn paths_lose_what_means_nothing_and_negated_ones_are_none() {
        let of = |line| settings(line, "", "main");
        assert_eq!(of("-datadir=/a/./b/../c/").path("datadir", ""), Some("/a/c".into()));
        assert_eq!(of("-datadir=../x").path("datadir", ""), Some("../x".into()));
        assert_eq!(of("-pid=").path("pid", "d"), Some("d".into()));
        assert_eq!(of("-nopid").path("pid", "d"), None);
        assert_eq!(of("").path("pid", "d"), Some("d".into()));
    }

    #[test]
    fn what_was_set_is_shown_without_passwords() {
        let lines =
            settings("-nolisten -dbcache=9", "rpcpassword=x\n[regtest]\nport=1\n", "regtest");
        assert_eq!(
            lines.shown(),
            [
                "Config file arg: rpcpassword=****",
                "Config file arg: [regtest] port=\"1\"",
                "Command-line arg: dbcache=\"9\"",
                "Command-line arg: listen=false"
            ]
        );
    }

    #[test]
    fn a_network_negated_on_the_command_line_is_still_that_of_the_file() {
        assert!(settings("-noregtest", "regtest=1", "").chain_flag("regtest"));
        assert!(!settings("", "regtest=1\nregtest=0", "").chain_flag("regtest"));
        assert!(settings("-regtest", "", "").chain_flag("regtest"));
    }
}
