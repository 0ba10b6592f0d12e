//! The command line and `bitcoin.conf` merged, by `bitcoind`'s rules of precedence.
//!
//! The command line beats the file. On the command line the last value of a single-valued option
//! counts, in the file the first; the section of the network beats the top of the file, where
//! options about addresses and ports are for the main network only.

use crate::cli::{Options, interpret};
use crate::options::{Kind, OptionSpec};

/// One `name=value` of the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct FileEntry {
    /// The section; `None` at the top of the file.
    pub(crate) section: Option<String>,
    /// The option, negation resolved.
    pub(crate) name: String,
    /// The value.
    pub(crate) value: String,
}

/// Parses the text of a configuration file; unknown options are left out (and returned apart).
///
/// # Errors
///
/// Returns a text that names the line that is not `name=value`, a section or a comment.
pub(crate) fn parse_file(text: &str) -> Result<(Vec<FileEntry>, Vec<String>), String> {
    let mut section = None;
    let (mut entries, mut unknown) = (Vec::new(), Vec::new());
    for (index, line) in text.lines().enumerate() {
        let bare = line.split('#').next().unwrap_or_default().trim();
        if bare.is_empty() {
            continue;
        }
        if let Some(name) = bare.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = Some(name.to_owned());
            continue;
        }
        let number = index + 1;
        if bare.starts_with('-') {
            return Err(format!(
                "parse error on line {number}: {bare}, options in configuration file must be specified without leading -"
            ));
        }
        let Some((name, value)) = bare.split_once('=') else {
            return Err(format!("parse error on line {number}: {bare}"));
        };
        let (name, value) = (name.trim(), value.trim());
        // `regtest.port=1` is `port=1` in section regtest.
        let (prefix, name) = match name.rsplit_once('.') {
            Some((prefix, name)) => (Some(prefix.to_owned()), name),
            None => (section.clone(), name),
        };
        match interpret(name, Some(value)) {
            Some((name, value)) => {
                entries.push(FileEntry { section: prefix, name: name.to_owned(), value });
            }
            None => unknown.push(name.to_owned()),
        }
    }
    Ok((entries, unknown))
}

/// All that was set, and for which network it is read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    /// From the command line.
    pub(crate) typed: Options,
    /// From the file, in order.
    pub(crate) file: Vec<FileEntry>,
    /// Name of the network, which is the name of its section.
    pub(crate) network: String,
}

impl Settings {
    /// Returns the value that counts.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let typed = self.typed.get(name).and_then(|values| values.last());
        typed.map(String::as_str).or_else(|| self.in_file(name).first().copied())
    }

    /// Returns all values; a `0` (from `-noNAME` or `-NAME=0`) takes back those before it.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let typed = self.typed.get(name).into_iter().flatten().map(String::as_str);
        let values: Vec<&str> = typed.chain(self.in_file(name)).collect();
        if self.typed.get(name).and_then(|typed| typed.last()).is_some_and(|last| last == "0") {
            return Vec::new();
        }
        values.into_iter().filter(|value| *value != "0").collect()
    }

    /// Returns whether the option was set at all.
    pub(crate) fn is_set(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Returns the value as a truth value, as Bitcoin Core's `InterpretBool`.
    pub(crate) fn flag(&self, name: &str, default: bool) -> bool {
        self.get(name).map_or(default, |value| value.is_empty() || !matches!(value, "0" | "false"))
    }

    /// Returns the value as a number.
    ///
    /// # Errors
    ///
    /// Returns a text that names the option if the value is not such a number.
    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, String> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        value.parse().map(Some).map_err(|_| format!("Invalid value for -{name}: '{value}'"))
    }

    /// Returns the values of the file, the section's first.
    fn in_file(&self, name: &str) -> Vec<&str> {
        let kind = OptionSpec::find(name).map(|spec| spec.kind);
        let of_network = matches!(kind, Some(Kind::SingleOfNetwork | Kind::ManyOfNetwork));
        let top_counts = !of_network || self.network == "main";
        let of = |section: Option<&str>| {
            let entries = self
                .file
                .iter()
                .filter(|entry| entry.section.as_deref() == section && entry.name == name);
            entries.map(|entry| entry.value.as_str()).collect::<Vec<_>>()
        };
        let mut values = if self.network.is_empty() { Vec::new() } else { of(Some(&self.network)) };
        if top_counts {
            values.extend(of(None));
        }
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAMEWORK: &str = "regtest=1\n[regtest]\nport=11000 # P2P\nrpcport=16000\nrpcport=1\nserver=1\n\
        connect=0\nfallbackfee=0.0002\nnodebug=1\nbind=127.0.0.1\n";

    fn settings(text: &str, network: &str) -> Settings {
        let (file, _) = parse_file(text).unwrap();
        Settings { typed: Options::new(), file, network: network.into() }
    }

    #[test]
    fn the_framework_file_is_read_with_its_section() {
        let settings = settings(FRAMEWORK, "regtest");
        assert!(settings.flag("regtest", false));
        assert_eq!(settings.get("rpcport"), Some("16000"), "the first of the file counts");
        assert_eq!(settings.get("port"), Some("11000"));
        assert_eq!(settings.all("bind"), ["127.0.0.1"]);
        assert!(settings.all("connect").is_empty());
        assert!(settings.is_set("connect"));
        assert!(settings.all("debug").is_empty());
    }

    #[test]
    fn ports_at_the_top_are_for_main_only() {
        let text = "port=1\nrpcuser=me\n[regtest]\nrpcuser=you\n";
        assert_eq!(settings(text, "main").get("port"), Some("1"));
        assert_eq!(settings(text, "regtest").get("port"), None);
        assert_eq!(settings(text, "main").get("rpcuser"), Some("me"));
        assert_eq!(settings(text, "regtest").get("rpcuser"), Some("you"));
        assert_eq!(settings("test.port=7\n", "test").get("port"), Some("7"));
    }

    #[test]
    fn the_command_line_beats_the_file_and_its_last_value_counts() {
        let mut settings = settings("[regtest]\nport=1\nconnect=b\n", "regtest");
        settings.typed.insert("port".into(), vec!["2".into(), "3".into()]);
        settings.typed.insert("connect".into(), vec!["a".into()]);
        assert_eq!(settings.number("port"), Ok(Some(3_u16)));
        assert_eq!(settings.all("connect"), ["a", "b"]);
        settings.typed.insert("port".into(), vec!["x".into()]);
        assert!(settings.number::<u16>("port").unwrap_err().contains("-port: 'x'"));
    }

    #[test]
    fn broken_lines_are_named_and_unknown_options_are_not_fatal() {
        assert_eq!(parse_file("\n\nabc\n").unwrap_err(), "parse error on line 3: abc");
        assert!(parse_file("-port=1\n").unwrap_err().contains("without leading -"));
        let (entries, unknown) = parse_file("foo=1\nport=2\n").unwrap();
        assert_eq!((entries.len(), unknown), (1, vec!["foo".to_owned()]));
    }
}
