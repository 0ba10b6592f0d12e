//! One value of one option, as `-NAME`, `-NAME=VALUE`, `-noNAME` and the lines of a file give it.

use crate::options::{OptionSpec, Rule};

/// One value of an option (Bitcoin Core's `SettingsValue`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OptionValue {
    /// Negated: `-noNAME`.
    Off,
    /// Negated twice: `-noNAME=0`.
    On,
    /// Given; without a value the text is empty.
    Text(String),
}

impl OptionValue {
    /// Returns the value as a text: `0` and `1` for the negated ones.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Off => "0",
            Self::On => "1",
            Self::Text(text) => text,
        }
    }

    /// Returns the value as a truth value.
    #[must_use]
    pub fn as_bool(&self) -> bool {
        match self {
            Self::Off => false,
            Self::On => true,
            Self::Text(text) => is_true(text),
        }
    }
}

/// Returns the truth value of a text (`InterpretBool`): what is no number is false.
pub(super) fn is_true(text: &str) -> bool {
    let text = text.trim_start();
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let number = digits.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    text.is_empty() || number.contains(|digit| digit != '0')
}

/// A name as typed: `noport` or `regtest.port`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Key<'a> {
    /// What stands before the dot.
    pub(crate) section: Option<&'a str>,
    /// The option without `no`.
    pub(crate) name: &'a str,
    negated: bool,
}

impl<'a> Key<'a> {
    /// Takes a name apart (`InterpretKey`).
    pub(crate) fn parse(text: &'a str) -> Self {
        let (section, rest) = match text.split_once('.') {
            Some((section, rest)) => (Some(section), rest),
            None => (None, text),
        };
        match rest.strip_prefix("no") {
            Some(name) => Self { section, name, negated: true },
            None => Self { section, name: rest, negated: false },
        }
    }

    /// Returns the value that the text gives the option (`InterpretValue`); what is odd about it
    /// is added to `warnings`.
    ///
    /// # Errors
    ///
    /// Returns the text for the user if the option may not be negated or left empty.
    pub(crate) fn value(
        &self,
        spec: &OptionSpec,
        text: Option<&str>,
        warnings: &mut Vec<String>,
    ) -> Result<OptionValue, String> {
        let name = self.name;
        match text {
            _ if self.negated && spec.has(Rule::NoNegation) => {
                Err(format!("Negating of -{name} is meaningless and therefore forbidden"))
            }
            Some(text) if self.negated && !is_true(text) => {
                warnings
                    .push(format!("Parsed potentially confusing double-negative -{name}={text}"));
                Ok(OptionValue::On)
            }
            _ if self.negated => Ok(OptionValue::Off),
            None if spec.has(Rule::NeedsValue) => Err(format!(
                "Can not set -{name} with no value. Please specify value with -{name}=value."
            )),
            text => Ok(OptionValue::Text(text.unwrap_or_default().to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_number_other_than_zero_and_nothing_at_all_are_true() {
        for text in ["", "1", "-1", "+2", "10", "7x"] {
            assert!(is_true(text), "{text}");
        }
        for text in ["0", "-0", "00", "false", "true", "yes", "x7"] {
            assert!(!is_true(text), "{text}");
        }
    }

    #[test]
    fn negation_and_section_stand_before_the_name() {
        let key = |text| Key::parse(text);
        assert_eq!(key("port"), Key { section: None, name: "port", negated: false });
        assert_eq!(key("test.noport"), Key { section: Some("test"), name: "port", negated: true });
    }
}
