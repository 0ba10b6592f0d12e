//! Settings of the indexes.

use crate::settings::Settings;

/// Which indexes are kept, and who may ask for them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct IndexConfig {
    /// Where each transaction is (`-txindex`).
    pub transactions: bool,
    /// The basic filter of each block (`-blockfilterindex`).
    pub filters: bool,
    /// Filters are served to peers (`-peerblockfilters`).
    pub serve_filters: bool,
}

impl IndexConfig {
    /// Reads the options.
    ///
    /// # Errors
    ///
    /// Returns the text for the user.
    pub(super) fn from_settings(settings: &Settings) -> Result<Self, String> {
        let filters = match settings.get("blockfilterindex") {
            None | Some("0") => false,
            Some("" | "1") => true,
            Some(_) => {
                let names = settings.all("blockfilterindex");
                if let Some(unknown) = names.iter().find(|name| **name != "basic") {
                    return Err(format!("Unknown -blockfilterindex value {unknown}."));
                }
                true
            }
        };
        let serve_filters = settings.flag("peerblockfilters", false);
        if serve_filters && !filters {
            return Err("Cannot set -peerblockfilters without -blockfilterindex.".into());
        }
        let transactions = settings.flag("txindex", false);
        if transactions && settings.get("prune").is_some_and(|target| target != "0") {
            return Err("Prune mode is incompatible with -txindex.".into());
        }
        // Without it gettxspendingprevout would tell spent outputs as unspent.
        if settings.flag("txospenderindex", false) {
            let text = "-txospenderindex is not supported: this program has no index of spending transactions.";
            return Err(text.into());
        }
        Ok(Self { transactions, filters, serve_filters })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::OptionValue;

    fn read(options: &[(&str, &str)]) -> Result<IndexConfig, String> {
        let mut settings = Settings { network: "regtest".into(), ..Settings::default() };
        for (name, value) in options {
            let value = OptionValue::Text((*value).to_owned());
            settings.typed.entry((*name).to_owned()).or_default().push(value);
        }
        IndexConfig::from_settings(&settings)
    }

    #[test]
    fn indexes_are_asked_for_by_name_and_wrong_ones_refused_in_core_s_words() {
        assert_eq!(read(&[]), Ok(IndexConfig::default()));
        for value in ["1", "basic", ""] {
            assert!(read(&[("blockfilterindex", value)]).is_ok_and(|config| config.filters));
        }
        assert!(read(&[("blockfilterindex", "0")]).is_ok_and(|config| !config.filters));
        assert_eq!(read(&[("txospenderindex", "0")]), Ok(IndexConfig::default()));
        for (options, error) in [
            (vec![("blockfilterindex", "abc")], "Unknown -blockfilterindex value abc."),
            (
                vec![("peerblockfilters", "1")],
                "Cannot set -peerblockfilters without -blockfilterindex.",
            ),
            (vec![("txindex", "1"), ("prune", "550")], "Prune mode is incompatible with -txindex."),
            (
                vec![("txospenderindex", "1")],
                "-txospenderindex is not supported: this program has no index of spending transactions.",
            ),
        ] {
            assert_eq!(read(&options), Err(error.to_owned()));
        }
    }
}
