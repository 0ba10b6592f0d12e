//! `cofferdam status`: one screen of a running node, asked over RPC.

use std::time::Duration;

use anyhow::{Result, anyhow};
use serde_json::Value;

use super::render::screen;
use super::snapshot::Snapshot;
use crate::rpc::RpcClient;
use crate::shutdown::Shutdown;
use crate::terminal;

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// Clears a terminal, and goes to its top.
const CLEAR: &str = "\u{1b}[2J\u{1b}[H";

/// Shows the screen once, or again and again if it is a terminal.
///
/// # Errors
///
/// Returns an error if the node does not answer.
pub(crate) fn watch_status(client: &RpcClient) -> Result<()> {
    let shutdown = Shutdown::default();
    shutdown.on_signals()?;
    loop {
        let answer = client.call("getsyncstatus", &Value::Array(Vec::new()));
        let answer = answer.map_err(|error| anyhow!("{error}"))?;
        let text = screen(&Snapshot::from_json(&answer));
        if !terminal::is_screen() {
            terminal::print(&text);
            return Ok(());
        }
        terminal::print(&format!("{CLEAR}{text}\nCtrl-C ends this view; the node goes on.\n"));
        if shutdown.wait_for(INTERVAL) {
            return Ok(());
        }
    }
}
