//! The table of options: every name that the command line and `bitcoin.conf` may use.
//!
//! A section of the help text is a file here; [`SECTIONS`] has them in the order of the help.
//! Names, and which of them are for one network only, are Bitcoin Core's (`init.cpp`).

mod chain;
mod client;
mod connection;
mod debug;
mod general;
mod help;
mod ignored;
mod log;
mod relay;
mod rpc;
mod storage;

pub(crate) use help::help;

/// What is particular to an option.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rule {
    /// At the top of the file it is for the main network only.
    NetworkOnly,
    /// Shown by `-help-debug` only.
    DebugOnly,
    /// Its value is not written to the log.
    Sensitive,
    /// `-noNAME` is an error.
    NoNegation,
    /// `-NAME` without a value is an error.
    NeedsValue,
    /// Accepted, so that command lines and files written for `bitcoind` work, without effect, and
    /// not in the help.
    Ignored,
}

/// One option.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OptionSpec {
    /// The name without dashes.
    pub(crate) name: &'static str,
    /// What the value is (`file`); empty for a truth value.
    pub(crate) value: &'static str,
    /// What it does, for the help text.
    pub(crate) help: &'static str,
    rules: &'static [Rule],
}

/// Options that the help text shows together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OptionSection {
    /// The heading; empty: none of the options is shown.
    pub(crate) title: &'static str,
    /// The options.
    pub(crate) options: &'static [OptionSpec],
}

const fn section(title: &'static str, options: &'static [OptionSpec]) -> OptionSection {
    OptionSection { title, options }
}

/// All options, in the order of the help text.
pub(crate) const SECTIONS: &[OptionSection] = &[
    section("Options", general::OPTIONS),
    section("Storage options", storage::OPTIONS),
    section("Connection options", connection::OPTIONS),
    section("Log options", log::OPTIONS),
    section("Debugging/Testing options", debug::OPTIONS),
    section("Chain selection options", chain::OPTIONS),
    section("Node relay options", relay::RELAY_OPTIONS),
    section("Block creation options", relay::BLOCK_CREATION_OPTIONS),
    section("RPC server options", rpc::OPTIONS),
    section("Options of cofferdam rpc", client::OPTIONS),
    section("", ignored::OPTIONS),
];

impl OptionSpec {
    /// Returns the option of that name.
    pub(crate) fn find(name: &str) -> Option<&'static Self> {
        SECTIONS.iter().flat_map(|section| section.options).find(|spec| spec.name == name)
    }

    /// Returns whether a rule holds for the option.
    pub(crate) fn has(&self, rule: Rule) -> bool {
        self.rules.contains(&rule)
    }
}

/// A row of a table.
const fn option(
    name: &'static str,
    value: &'static str,
    help: &'static str,
    rules: &'static [Rule],
) -> OptionSpec {
    OptionSpec { name, value, help, rules }
}

/// A row for a name that is accepted and does nothing.
const fn ignored(name: &'static str) -> OptionSpec {
    option(name, "", "Accepted and ignored", &[Rule::Ignored])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_stands_twice_or_reads_as_the_negation_of_another() {
        let mut names: Vec<&str> =
            SECTIONS.iter().flat_map(|section| section.options).map(|spec| spec.name).collect();
        names.sort_unstable();
        for pair in names.windows(2) {
            assert_ne!(pair[0], pair[1]);
        }
        for name in &names {
            assert!(!name.starts_with("no"), "{name} could never be given");
            assert!(!name.contains(['-', '=']) || name.contains("-"), "{name}");
        }
    }

    #[test]
    fn what_is_for_one_network_only_is_what_core_says() {
        let all = SECTIONS.iter().flat_map(|section| section.options);
        let mut names: Vec<&str> =
            all.filter(|spec| spec.has(Rule::NetworkOnly)).map(|spec| spec.name).collect();
        names.sort_unstable();
        assert_eq!(names, ["addnode", "bind", "connect", "port", "rpcbind", "rpcport"]);
    }

    #[test]
    fn every_option_that_does_something_says_what() {
        for spec in SECTIONS.iter().flat_map(|section| section.options) {
            assert!(!spec.help.is_empty() && !spec.help.ends_with('.'), "{}", spec.name);
        }
    }
}
