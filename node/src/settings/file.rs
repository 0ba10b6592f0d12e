//! The text of a configuration file taken apart.

use super::value::{Key, OptionValue};
use crate::options::OptionSpec;

/// What a configuration file says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct FileText {
    /// The lines that set something, in order.
    pub(crate) entries: Vec<FileEntry>,
    /// Names of sections, with the number of their line.
    pub(crate) sections: Vec<(String, usize)>,
    /// What is worth a warning in the log.
    pub(crate) warnings: Vec<String>,
}

/// One `name=value` of the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct FileEntry {
    /// The section; `None` at the top of the file.
    pub(crate) section: Option<String>,
    /// The option.
    pub(crate) name: &'static str,
    /// Its value.
    pub(crate) value: OptionValue,
}

impl FileText {
    /// Parses the text of a file. Unknown options are worth a warning only.
    ///
    /// # Errors
    ///
    /// Returns a text that names the line that is not `name=value`, a section or a comment.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut found = Self::default();
        let mut lines = Vec::new();
        let mut prefix = String::new();
        // As Bitcoin Core: the whole file is read before the first of its options is looked at.
        for (index, line) in text.lines().enumerate() {
            let number = index + 1;
            let bare = line.split('#').next().unwrap_or_default().trim_matches(WHITE);
            if bare.is_empty() {
                continue;
            }
            if let Some(name) = bare.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                found.sections.push((name.to_owned(), number));
                prefix = format!("{name}.");
                continue;
            }
            let (name, value) = name_and_value(bare, number)?;
            let name = format!("{prefix}{name}");
            if bare.len() < line.trim_matches(WHITE).len() && name.contains("rpcpassword") {
                return Err(format!(
                    "parse error on line {number}, using # in rpcpassword can be ambiguous and should be avoided"
                ));
            }
            if let Some((section, _)) = name.rsplit_once('.')
                && prefix.len() <= section.len()
            {
                found.sections.push((section.to_owned(), number));
            }
            lines.push((name, value));
        }
        for (name, value) in lines {
            found.add(&name, value)?;
        }
        Ok(found)
    }

    fn add(&mut self, name: &str, value: &str) -> Result<(), String> {
        let key = Key::parse(name);
        if key.name == "conf" {
            return Err("conf cannot be set in the configuration file; use includeconf= if you want to include additional config files".into());
        }
        if key.name == "reindex" {
            self.warnings.push("reindex=1 is set in the configuration file, which will significantly slow down startup. Consider removing or commenting out this option for better performance, unless there is currently a condition which makes rebuilding the indexes necessary".into());
        }
        let Some(spec) = OptionSpec::find(key.name) else {
            self.warnings.push(format!("Ignoring unknown configuration value {name}"));
            return Ok(());
        };
        let value = key.value(spec, Some(value), &mut self.warnings)?;
        let section = key.section.map(str::to_owned);
        self.entries.push(FileEntry { section, name: spec.name, value });
        Ok(())
    }
}

/// What is cut off around names and values.
const WHITE: [char; 4] = [' ', '\t', '\r', '\n'];

fn name_and_value(bare: &str, number: usize) -> Result<(&str, &str), String> {
    if bare.starts_with('-') {
        return Err(format!(
            "parse error on line {number}: {bare}, options in configuration file must be specified without leading -"
        ));
    }
    let Some((name, value)) = bare.split_once('=') else {
        let hint = if bare.starts_with("no") {
            format!(", if you intended to specify a negated option, use {bare}=1 instead")
        } else {
            String::new()
        };
        return Err(format!("parse error on line {number}: {bare}{hint}"));
    };
    Ok((name.trim_matches(WHITE), value.trim_matches(WHITE)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_lines_are_named() {
        let error = |text| FileText::parse(text).unwrap_err();
        assert_eq!(error("\n\nabc\n"), "parse error on line 3: abc");
        assert_eq!(
            error("nolisten"),
            "parse error on line 1: nolisten, if you intended to specify a negated option, use nolisten=1 instead"
        );
        assert!(error("-port=1\n").contains("without leading -"));
        assert!(error("rpcpassword=a # b").contains("using # in rpcpassword"));
        assert!(error("conf=a").starts_with("conf cannot be set in the configuration file"));
        assert!(error("nodatadir=1").contains("Negating of -datadir is meaningless"));
    }

    #[test]
    fn unknown_options_and_double_negatives_are_told_and_not_fatal() {
        let found = FileText::parse("foo=1\nport=2\n[x]\nnobar=1\nnolisten=0\n").unwrap();
        assert_eq!(found.entries.len(), 2);
        assert_eq!(found.entries[0].value, OptionValue::Text("2".into()));
        assert_eq!(found.entries[1].section.as_deref(), Some("x"));
        assert_eq!(found.entries[1].value, OptionValue::On);
        assert_eq!(
            found.warnings,
            [
                "Ignoring unknown configuration value foo",
                "Ignoring unknown configuration value x.nobar",
                "Parsed potentially confusing double-negative -listen=0"
            ]
        );
    }

    #[test]
    fn sections_are_noted_with_their_lines() {
        let found = FileText::parse("a.port=1\n[regtest]\nport=2\nb.c=1\n").unwrap();
        let names: Vec<_> =
            found.sections.iter().map(|(name, line)| (name.as_str(), *line)).collect();
        assert_eq!(names, [("a", 1), ("regtest", 2), ("regtest.b", 4)]);
    }
}
