//! Commands that are run when something happens.

use crate::settings::Settings;

/// Commands for the shell; `%s` in one stands for what it is told.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NotifyConfig {
    /// When there is a warning about the chain; told the warning.
    pub alert: Option<String>,
    /// When the best block changes after initial block download; told its hash.
    pub block: Option<String>,
    /// When the node is ready.
    pub startup: Option<String>,
    /// Before the node stops; may be several.
    pub shutdown: Vec<String>,
}

impl NotifyConfig {
    /// Reads the options.
    pub(super) fn from_settings(settings: &Settings) -> Self {
        let command = |name| {
            let text = settings.get(name).filter(|text| !text.is_empty());
            text.filter(|_| !settings.is_negated(name)).map(str::to_owned)
        };
        Self {
            alert: command("alertnotify"),
            block: command("blocknotify"),
            startup: command("startupnotify"),
            shutdown: settings.all("shutdownnotify").into_iter().map(str::to_owned).collect(),
        }
    }
}
