//! `run`: what the program does with a command line, and its exit code.
//!
//! Standard error stays empty unless something is wrong: programs that start a node look at it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::Value;

use crate::cli::{Args, Command};
use crate::clock::Clock;
use crate::config::{Config, LogConfig};
use crate::daemon;
use crate::data_dir::{DataDir, chain_dir, cookie_path};
use crate::import::{import, print_summary};
use crate::logging::Log;
use crate::node::{Node, open_chainstate};
use crate::rpc::{RpcClient, typed_arguments};
use crate::shutdown::{Shutdown, on_hangup};
use crate::waits::EndedByStop;
use crate::{terminal, tools};

/// Runs the program with a command line, its own name left out.
pub fn run(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    match try_run(words) {
        Ok(code) => code,
        Err(error) => {
            terminal::print_error(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn try_run(words: impl IntoIterator<Item = OsString>) -> Result<ExitCode> {
    let words: Vec<OsString> = words.into_iter().collect();
    let args = Args::parse(words.iter().cloned()).map_err(|text| anyhow!(text))?;
    let command = match args.command {
        Command::Print(text) => {
            terminal::print(&text);
            return Ok(ExitCode::SUCCESS);
        }
        Command::Tool(tool) if args.options.is_empty() => return tools::run(&tool),
        Command::Tool(_) => bail!("`wal` and `db` take a directory and no options"),
        command => command,
    };
    let mut config = Config::load(args.options).map_err(|text| anyhow!(text))?;
    config.warnings.splice(0..0, args.warnings);
    for line in &config.complaints {
        terminal::print_complaint(line);
    }
    match command {
        Command::Rpc { method, args } => run_rpc(&config, &method, &args),
        Command::Import { files } => run_import(&config, &files),
        _ if config.daemon || config.daemon_wait => {
            let pid_file = chain_dir(&config).join(&config.pid_file);
            daemon::start(&words, config.daemon_wait.then_some(pid_file.as_path()))
        }
        _ => run_sync(&config),
    }
}

fn run_sync(config: &Config) -> Result<ExitCode> {
    let shutdown = Shutdown::default();
    shutdown.on_signals()?;
    let data_dir = DataDir::open(config)?;
    let log = start_log(config, &config.log)?;
    let reopened = log.clone();
    on_hangup(move || reopened.reopen())?;
    let node = match Node::start_in(data_dir, config, shutdown, log) {
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
    let mut chainstate = open_chainstate(config, &data_dir, &shutdown).inspect_err(log_error)?;
    let imported = import(&mut chainstate, files, &Clock::default(), &shutdown);
    let imported = match imported {
        Ok(imported) => imported,
        Err(error) => {
            let failed = error.downcast_ref();
            let ended = failed.and_then(|failed| EndedByStop::from_error(failed, &shutdown));
            let error = ended.map_or(error, Into::into);
            log_error(&error);
            // What was imported is kept, if the machine allows; the first error is the one to tell.
            let _ = chainstate.shutdown();
            return Err(error);
        }
    };
    for warning in &imported.warnings {
        tracing::warn!("{warning}");
        terminal::print_warning(warning);
    }
    if !imported.interrupted {
        print_summary(&chainstate)?;
    }
    let tip = chainstate.tip();
    chainstate.shutdown().map_err(|error| anyhow!(crate::chain::describe(&error)))?;
    drop(data_dir);
    if imported.interrupted {
        return Err(anyhow!(
            "interrupted at height {}; the same command goes on from there",
            tip.height
        ));
    }
    if imported.rejected > 0 {
        return Err(anyhow!("blocks that are not valid: {}", imported.rejected));
    }
    Ok(ExitCode::SUCCESS)
}

fn run_rpc(config: &Config, method: &str, args: &[String]) -> Result<ExitCode> {
    let secret = match &config.rpc.user {
        Some((user, password)) => format!("{user}:{password}"),
        None => {
            let path = cookie_path(&chain_dir(config));
            std::fs::read_to_string(&path).with_context(|| {
                format!(
                    "Could not read {}: is the node running? (or use -rpcuser and -rpcpassword)",
                    path.display()
                )
            })?
        }
    };
    let client = RpcClient::new(config.rpc.connect.clone(), &secret, config.rpc.client_timeout);
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

/// Starts the log of the locked directory: a second process is refused before it writes a line.
fn start_log(config: &Config, log: &LogConfig) -> Result<Log> {
    let log = Log::start(log, &chain_dir(config))?;
    tracing::info!("Cofferdam version v{}", env!("CARGO_PKG_VERSION"));
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
