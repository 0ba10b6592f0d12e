//! `run`: what the program does with a command line, and its exit code.
//!
//! Standard error stays empty unless something is wrong: programs that start a node look at it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, anyhow, bail};
use bitcoin::hex::DisplayHex as _;
use cofferdam_ibd::Network;
use rustix::fs::Mode;
use serde_json::Value;

use crate::cli::{Args, Command};
use crate::config::{Config, LogConfig};
use crate::daemon;
use crate::data_dir::{DataDir, chain_dir};
use crate::import;
use crate::logging::Log;
use crate::monitor::watch_status;
use crate::node::Node;
use crate::rebuild::NeedsRebuild;
use crate::rpc::{RpcClient, typed_arguments};
use crate::shutdown::{Shutdown, on_hangup};
use crate::waits::EndedByStop;
use crate::{open_files, terminal, tools};

/// Runs the program with a command line, its own name left out.
pub fn run(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    // What is written is the user's alone: Bitcoin Core's `SetupEnvironment`.
    let _ = rustix::process::umask(Mode::RWXG | Mode::RWXO);
    match try_run(words) {
        Ok(code) => code,
        Err(error) => {
            match error.downcast_ref::<NeedsRebuild>() {
                Some(question) => terminal::print_question(&question.to_string()),
                None => terminal::print_error(&format!("{error:#}")),
            }
            ExitCode::FAILURE
        }
    }
}

fn try_run(words: impl IntoIterator<Item = OsString>) -> Result<ExitCode> {
    let words: Vec<OsString> = words.into_iter().collect();
    daemon::let_go_of_terminal(&words);
    let args = Args::parse(words.iter().cloned()).map_err(|text| anyhow!(text))?;
    let command = match args.command {
        Command::Print(text) => {
            terminal::print(&text);
            return Ok(ExitCode::SUCCESS);
        }
        Command::Tool(tool) if args.options.is_empty() => return tools::run(&tool),
        Command::Tool(_) => bail!("`wal`, `db` and `bench` take a directory and no options"),
        command => command,
    };
    let mut config = Config::load(args.options).map_err(|text| anyhow!(text))?;
    config.warnings.splice(0..0, args.warnings);
    for line in &config.complaints {
        terminal::print_complaint(line);
    }
    match command {
        Command::Rpc { method, args } => run_rpc(&config, &method, &args),
        Command::Status => {
            watch_status(&rpc_client(&config)?)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Import { files } => run_import(&config, &files),
        _ if config.daemon || config.daemon_wait => {
            // While somebody listens: the process in the background has no standard error.
            DataDir::probe(&config)?;
            daemon::start(&words, config.daemon_wait)
        }
        _ => run_sync(&config, &words),
    }
}

fn run_sync(config: &Config, words: &[OsString]) -> Result<ExitCode> {
    let shutdown = Shutdown::default();
    shutdown.on_signals()?;
    let data_dir = DataDir::open(config)?;
    if let Some(file) = &config.settings_file {
        file.write_back().map_err(|text| anyhow!(text))?;
    }
    // Log lines and bars on one screen would spoil both.
    let mut config = config.clone();
    config.show_bars = config.log.console && terminal::is_terminal();
    config.log.console &= !config.show_bars;
    let log = start_log(&config, &config.log)?;
    let reopened = log.clone();
    on_hangup(move || reopened.reopen())?;
    if let Some(warning) = open_files::settle(&mut config).inspect_err(log_error)? {
        terminal::print_warning(&warning);
        tracing::warn!("{warning}");
    }
    let node = match Node::start_in(data_dir, &config, shutdown, log) {
        Ok(node) => node,
        Err(error) if error.is::<EndedByStop>() => {
            tracing::info!("{error}");
            return Ok(ExitCode::SUCCESS);
        }
        Err(error) => {
            log_error(&error);
            return Err(error);
        }
    };
    daemon::tell_ready(words);
    node.wait();
    node.stop()?;
    Ok(ExitCode::SUCCESS)
}

fn run_import(config: &Config, files: &[PathBuf]) -> Result<ExitCode> {
    let shutdown = Shutdown::default();
    shutdown.on_signals()?;
    let data_dir = DataDir::open(config)?;
    // Log lines and a bar on one screen would spoil both.
    let console = config.log.console && !terminal::is_terminal();
    start_log(config, &LogConfig { console, ..config.log.clone() })?;
    import::run_import(config, &data_dir, &shutdown, files).inspect_err(log_error)
}

fn run_rpc(config: &Config, method: &str, args: &[String]) -> Result<ExitCode> {
    let client = rpc_client(config)?;
    match client.call(method, &typed_arguments(method, args)) {
        Ok(Value::Null) => {}
        Ok(Value::String(text)) => terminal::print_line(&text),
        Ok(value) => terminal::print_line(&format!("{value:#}")),
        Err(error) => {
            terminal::print_call_error(&error.to_string());
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The way to a running node.
fn rpc_client(config: &Config) -> Result<RpcClient> {
    let secret = match &config.rpc.user {
        Some((user, password)) => format!("{user}:{password}"),
        None => {
            let file = config.rpc.cookie_file.as_ref().context(
                "Cookie file was disabled via -norpccookiefile and no rpcpassword was specified.",
            )?;
            let path = chain_dir(config).join(file);
            std::fs::read_to_string(&path).with_context(|| {
                format!(
                    "Could not read {}: is the node running? (or use -rpcuser and -rpcpassword)",
                    path.display()
                )
            })?
        }
    };
    Ok(RpcClient::new(config.rpc.connect.clone(), &secret, config.rpc.client_timeout))
}

/// Starts the log of the locked directory: a second process is refused before it writes a line.
fn start_log(config: &Config, log: &LogConfig) -> Result<Log> {
    let log = Log::start(log, &chain_dir(config))?;
    tracing::info!("Cofferdam version v{}", env!("CARGO_PKG_VERSION"));
    if config.network == Network::Signet {
        let magic = config.params.magic.to_lower_hex_string();
        tracing::info!("Signet derived magic (message start): {magic}");
    }
    tracing::info!("Using data directory {}", chain_dir(config).display());
    match &config.config_file {
        Some(path) if path.exists() => tracing::info!("Config file: {}", path.display()),
        Some(path) => {
            tracing::info!("Config file: {} (not found, skipping)", path.display());
        }
        None => tracing::info!("Config file: <disabled>"),
    }
    for line in &config.set_options {
        tracing::info!("{line}");
    }
    for line in &config.warnings {
        tracing::warn!("{line}");
    }
    Ok(log)
}

fn log_error(error: &anyhow::Error) {
    tracing::error!("Error: {error:#}");
}
