//! `Config`: what the options mean. The only reader of the environment and of `bitcoin.conf`.

mod blocks;
mod files;
mod index;
mod interaction;
mod log;
mod mining;
mod notify;
mod p2p;
mod proxy;
mod rpc;

pub use blocks::{BlocksConfig, CheckBlocks, PruneMode, RebuildOption};
pub use index::IndexConfig;
pub use log::LogConfig;
pub use mining::MiningConfig;
pub use notify::NotifyConfig;
pub use p2p::P2pConfig;
pub use proxy::{Net, ProxyConfig};
pub use rpc::RpcConfig;
pub(crate) use rpc::Subnet;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use bitcoin::BlockHash;
use bitcoin::hashes::Hash as _;
use cofferdam_ibd::params::{ChainParams, Network};
use cofferdam_storage::{BackendKind, Durability};

use crate::chain_options::chain_params;
use crate::settings::{Options, Settings, SettingsFile};

/// Memory for the UTXO set, in MiB (Bitcoin Core's default).
const DB_CACHE_MIB_DEFAULT: usize = 450;

/// Free space that is kept on the disk, in MiB: the reserve of [`WalOptions`].
///
/// [`WalOptions`]: cofferdam_storage::WalOptions
const MIN_FREE_SPACE_MIB_DEFAULT: u64 = 64;

/// Age of a tip that is no sign of initial block download, in seconds (Bitcoin Core's
/// `DEFAULT_MAX_TIP_AGE`).
const MAX_TIP_AGE_SECONDS_DEFAULT: u32 = 24 * 60 * 60;
/// Port of the figures for Prometheus (the one that exporters for Bitcoin nodes use).
const METRICS_PORT: u16 = 9332;

/// How the scripts of old blocks are treated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AssumeValidOption {
    /// As the network's parameters say.
    Default,
    /// Every script is checked.
    CheckAll,
    /// Ancestors of this block are not.
    Block(BlockHash),
}

/// All that a node is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// The network.
    pub network: Network,
    /// The data directory; other networks than main have a directory inside.
    pub data_dir: PathBuf,
    /// The directory that has the block files of all networks; `None`: the data directory.
    pub blocks_dir: Option<PathBuf>,
    /// How old a tip may be, in seconds, that is no sign of initial block download.
    pub max_tip_age: u32,
    /// Whether the node runs in the background, and whether its start is waited for.
    pub daemon: bool,
    /// See `daemon`.
    pub daemon_wait: bool,
    /// What is run when something happens.
    pub notify: NotifyConfig,
    /// The database engine; `None`: the one the directory has, or the best for a new one.
    pub backend: Option<BackendKind>,
    /// What a power cut may take.
    pub durability: Durability,
    /// Memory for the UTXO set.
    pub cache_bytes: usize,
    /// Free space below which the node pauses; 0: never.
    pub min_free_bytes: u64,
    /// Whether statistics of the UTXO set are kept for every block (`-coinstatsindex`).
    pub coin_stats: bool,
    /// Indexes of transactions and filters.
    pub indexes: IndexConfig,
    /// Threads for checks.
    pub threads: usize,
    /// Treatment of old blocks' scripts.
    pub assume_valid: AssumeValidOption,
    /// The network's rules.
    pub params: ChainParams,
    /// Height to stop at.
    pub stop_at_height: Option<u32>,
    /// The time to pretend.
    pub mock_time: Option<u32>,
    /// File of the process id, relative to the chain directory; none if it is not wanted.
    pub pid_file: Option<PathBuf>,
    /// Where the status page and the figures for Prometheus are shown, if at all.
    pub metrics: Option<SocketAddr>,
    /// Whether a person watches the standard error: bars are drawn there.
    pub show_bars: bool,
    /// Block files.
    pub blocks: BlocksConfig,
    /// Connections to peers.
    pub p2p: P2pConfig,
    /// JSON-RPC.
    pub rpc: RpcConfig,
    /// The transaction queue, and the building of blocks.
    pub mining: MiningConfig,
    /// The log.
    pub log: LogConfig,
    /// The configuration file, there or not.
    pub config_file: Option<PathBuf>,
    /// Settings that other programs change while a node runs.
    pub(crate) settings_file: Option<SettingsFile>,
    /// What was set and where: for the log.
    pub set_options: Vec<String>,
    /// What is odd about the options: worth a line in the log.
    pub warnings: Vec<String>,
    /// What is odder: worth a line on the standard error.
    pub complaints: Vec<String>,
}

impl Config {
    /// Reads options and the configuration file.
    ///
    /// # Errors
    ///
    /// Returns the text for the user, in `bitcoind`'s words where it has some.
    pub fn load(typed: Options) -> Result<Self, String> {
        let loaded = files::load(typed)?;
        let network = loaded.network;
        let misplaced: Vec<String> = loaded
            .settings
            .misplaced()
            .into_iter()
            .map(|name| {
                format!("Config setting for -{name} only applied on {network} network when in [{network}] section.\n")
            })
            .collect();
        if !misplaced.is_empty() {
            return Err(misplaced.concat());
        }
        interaction::check(&loaded.settings, network)?;
        let mut config = Self::from_settings(&loaded.settings, network, loaded.data_dir)?;
        config.set_options = loaded.dynamic.iter().flat_map(SettingsFile::shown).collect();
        config.set_options.extend(loaded.settings.shown());
        config.settings_file = loaded.dynamic;
        config.warnings = loaded.warnings;
        config.warnings.extend(interaction::without_effect(&loaded.settings));
        config.complaints = loaded.complaints;
        config.complaints.extend(interaction::complaints(&loaded.settings));
        config.config_file = loaded.path;
        Ok(config)
    }

    /// Returns the settings of a node without options: for tests and embedders.
    ///
    /// # Errors
    ///
    /// Never for the networks there are; the signature is that of [`Config::load`].
    pub fn new(network: Network, data_dir: &Path) -> Result<Self, String> {
        let settings = Settings { network: network.to_string(), ..Settings::default() };
        Self::from_settings(&settings, network, data_dir.to_owned())
    }

    fn from_settings(
        settings: &Settings,
        network: Network,
        data_dir: PathBuf,
    ) -> Result<Self, String> {
        let params = chain_params(settings, network)?;
        let cache_mib = settings.number("dbcache")?.unwrap_or(DB_CACHE_MIB_DEFAULT).max(4);
        let free_mib = settings.number("minfreespace")?.unwrap_or(MIN_FREE_SPACE_MIB_DEFAULT);
        let mock_time = settings.number("mocktime")?.filter(|time| *time != 0);
        if mock_time.is_some() && network != Network::Regtest {
            return Err("-mocktime is for regression testing (-regtest mode) only".into());
        }
        Ok(Self {
            network,
            data_dir,
            blocks_dir: blocks_dir(settings)?,
            max_tip_age: max_tip_age(settings)?,
            daemon: settings.flag("daemon", false),
            daemon_wait: settings.flag("daemonwait", false),
            notify: NotifyConfig::from_settings(settings),
            backend: parsed(settings, "backend")?,
            durability: durability(settings)?,
            cache_bytes: cache_mib.saturating_mul(1 << 20),
            min_free_bytes: free_mib.saturating_mul(1 << 20),
            coin_stats: settings.flag("coinstatsindex", false),
            indexes: IndexConfig::from_settings(settings)?,
            threads: threads(settings)?,
            assume_valid: assume_valid(settings)?,
            stop_at_height: settings.number("stopatheight")?.filter(|height| *height != 0),
            mock_time,
            pid_file: settings.path("pid", "bitcoind.pid"),
            metrics: metrics(settings)?,
            show_bars: false,
            blocks: BlocksConfig::from_settings(settings)?,
            p2p: P2pConfig::from_settings(settings, &params)?,
            rpc: RpcConfig::from_settings(settings, &params)?,
            mining: MiningConfig::from_settings(settings, &params)?,
            params,
            log: LogConfig::from_settings(settings)?,
            config_file: None,
            settings_file: None,
            set_options: Vec::new(),
            warnings: Vec::new(),
            complaints: Vec::new(),
        })
    }
}

fn blocks_dir(settings: &Settings) -> Result<Option<PathBuf>, String> {
    let Some(typed) = settings.get("blocksdir") else {
        return Ok(None);
    };
    let path = std::path::absolute(settings.path("blocksdir", "").unwrap_or_default());
    match path {
        Ok(path) if path.is_dir() => Ok(Some(path)),
        _ => Err(format!("Specified blocks directory \"{typed}\" does not exist.")),
    }
}

fn default_data_dir() -> Result<PathBuf, String> {
    #[expect(clippy::disallowed_methods, reason = "this module is the reader of the environment")]
    let home = std::env::var_os("HOME");
    let home = home.ok_or("no home directory: name a data directory with -datadir=DIR")?;
    Ok(PathBuf::from(home).join(".cofferdam"))
}

fn network(settings: &Settings) -> Result<Network, String> {
    let flags = [
        ("regtest", Network::Regtest),
        ("signet", Network::Signet),
        ("testnet", Network::Testnet3),
        ("testnet4", Network::Testnet4),
    ];
    let mut chosen =
        flags.iter().filter(|(name, _)| settings.chain_flag(name)).map(|(_, network)| *network);
    match (chosen.next(), chosen.next(), settings.get("chain")) {
        (Some(network), None, None) => Ok(network),
        (None, None, None) => Ok(Network::Mainnet),
        (None, None, Some(name)) => name.parse().map_err(|_| format!("Unknown chain {name}.")),
        _ => Err("Invalid combination of -regtest, -signet, -testnet, -testnet4 and -chain. Can use at most one.".into()),
    }
}

fn parsed<T: std::str::FromStr>(settings: &Settings, name: &str) -> Result<Option<T>, String>
where
    T::Err: std::fmt::Display,
{
    let Some(value) = settings.get(name) else {
        return Ok(None);
    };
    value.parse().map(Some).map_err(|e| format!("Invalid value for -{name}: '{value}': {e}"))
}

fn durability(settings: &Settings) -> Result<Durability, String> {
    match settings.get("durability") {
        None | Some("relaxed") => Ok(Durability::default()),
        Some("strict") => Ok(Durability::Strict),
        // A chain has one writer, which waits the whole interval for each group: a short one.
        Some("batched") => Ok(Durability::Batched { blocks: 32, interval_ms: 20 }),
        Some("async") => Ok(Durability::Async),
        Some(other) => Err(format!(
            "Invalid value for -durability: '{other}': strict, batched, relaxed or async"
        )),
    }
}

fn threads(settings: &Settings) -> Result<usize, String> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let asked: i64 = settings.number("par")?.unwrap_or(0);
    let count = usize::try_from(asked.unsigned_abs()).unwrap_or(usize::MAX);
    Ok(match asked {
        0 => cores,
        1.. => count.min(256),
        _ => cores.saturating_sub(count).max(1),
    })
}

/// Returns how old the tip may be; more than a time stamp can say is as much as it can.
fn max_tip_age(settings: &Settings) -> Result<u32, String> {
    let seconds: Option<u64> = settings.number("maxtipage")?;
    let seconds = seconds.map(|seconds| u32::try_from(seconds).unwrap_or(u32::MAX));
    Ok(seconds.unwrap_or(MAX_TIP_AGE_SECONDS_DEFAULT))
}

fn assume_valid(settings: &Settings) -> Result<AssumeValidOption, String> {
    match settings.get("assumevalid") {
        None => Ok(AssumeValidOption::Default),
        Some(text) => {
            let hex = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
            let hash: BlockHash = format!("{hex:0>64}")
                .parse()
                .map_err(|_| format!("Invalid assumevalid block hash specified ({text}), must be up to 64 hex digits (or 0 to disable)"))?;
            let is_none = hash.to_byte_array() == [0; 32];
            Ok(if is_none { AssumeValidOption::CheckAll } else { AssumeValidOption::Block(hash) })
        }
    }
}

fn port(settings: &Settings, name: &str, default: u16) -> Result<u16, String> {
    let Some(text) = settings.get(name) else {
        return Ok(default);
    };
    let port = text.parse().ok().filter(|port| *port != 0);
    port.ok_or_else(|| format!("Invalid port specified in -{name}: '{text}'"))
}

/// Refuses addresses with a port that is none, before anything else is said of them
/// (`CheckHostPortOptions` in Bitcoin Core's `init.cpp`).
fn check_ports(settings: &Settings) -> Result<(), String> {
    for option in ["i2psam", "onion", "proxy", "bind", "torcontrol", "whitebind"] {
        // A network may follow, as `=onion`.
        let has_network = matches!(option, "proxy" | "bind");
        let may_be_path = matches!(option, "proxy" | "onion");
        for text in settings.all(option) {
            let bare = text.rsplit_once('=').filter(|_| has_network).map_or(text, |(at, _)| at);
            if split_port(bare).is_none() && !(may_be_path && text.starts_with("unix:")) {
                return Err(format!("Invalid port specified in -{option}: '{text}'"));
            }
        }
    }
    Ok(())
}

/// Splits an address into host and port, if it has one; `None` if that is no port (Core's
/// `SplitHostPort`). Of a bare address of IPv6 no colon is a port's.
fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    let is_of_v6 = |host: &str| !host.ends_with(']') && host.contains(':');
    let split = text.rsplit_once(':').filter(|(host, _)| !is_of_v6(host));
    let Some((host, port)) = split else { return Some((bare(text), None)) };
    let is_number = port.bytes().all(|digit| digit.is_ascii_digit());
    let port = port.parse().ok().filter(|port| is_number && *port != 0)?;
    Some((bare(host), Some(port)))
}

/// Takes the brackets off an address of IPv6.
fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// The listener of figures: off unless asked for, and then of this machine unless told otherwise.
fn metrics(settings: &Settings) -> Result<Option<SocketAddr>, String> {
    match settings.get("metrics") {
        None | Some("0") => Ok(None),
        Some("" | "1") => Ok(Some(SocketAddr::from(([127, 0, 0, 1], METRICS_PORT)))),
        Some(text) => bind_address("metrics", text, METRICS_PORT).map(Some),
    }
}

fn bind_address(option: &str, text: &str, default_port: u16) -> Result<SocketAddr, String> {
    if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, default_port));
    }
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    let ip = host.trim_matches(['[', ']']).parse::<IpAddr>();
    match (ip, port.parse::<u16>()) {
        (Ok(ip), Ok(port)) if port != 0 => Ok(SocketAddr::new(ip, port)),
        (Ok(_), _) => Err(format!("Invalid port specified in -{option}: '{text}'")),
        (Err(_), _) => Err(format!("Cannot resolve -{option} address: '{text}'")),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::cli::Args;

    /// The settings of a command line and a file.
    pub(crate) fn load(line: &str, conf: &str) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("bitcoin.conf"), conf).unwrap();
        let words = line.split_whitespace().map(str::to_owned);
        let words = words.chain([format!("-datadir={}", dir.path().display())]);
        Config::load(Args::parse(words.map(Into::into)).unwrap().options)
    }

    #[test]
    fn the_network_comes_from_either_and_only_once() {
        assert_eq!(load("", "").unwrap().network, Network::Mainnet);
        assert_eq!(load("-regtest", "").unwrap().network, Network::Regtest);
        assert_eq!(load("-chain=testnet4", "").unwrap().network, Network::Testnet4);
        assert_eq!(load("", "signet=1").unwrap().network, Network::Signet);
        assert!(load("-regtest -signet", "").unwrap_err().contains("at most one"));
        assert_eq!(load("-chain=foo", "").unwrap_err(), "Unknown chain foo.");
    }

    #[test]
    fn figures_are_shown_on_this_machine_and_only_when_asked_for() {
        let address = |line| load(line, "").map(|config| config.metrics);
        assert_eq!(address(""), Ok(None));
        assert_eq!(address("-nometrics"), Ok(None));
        assert_eq!(address("-metrics"), Ok(Some("127.0.0.1:9332".parse().unwrap())));
        assert_eq!(address("-metrics=10.0.0.1:99"), Ok(Some("10.0.0.1:99".parse().unwrap())));
        assert!(address("-metrics=somewhere").is_err());
    }

    #[test]
    fn free_space_is_kept_unless_told_otherwise() {
        let bytes = |words| load(words, "").map(|config| config.min_free_bytes);
        assert_eq!(bytes(""), Ok(64 << 20));
        assert_eq!(bytes("-minfreespace=7"), Ok(7 << 20));
        assert_eq!(bytes("-nominfreespace"), Ok(0));
        assert!(bytes("-minfreespace=-1").unwrap_err().contains("-minfreespace"));
    }

    #[test]
    fn a_port_follows_the_last_colon_unless_that_is_of_an_address() {
        for (text, split) in [
            ("a.b:5", Some(("a.b", Some(5)))),
            ("a.b", Some(("a.b", None))),
            ("[::1]:5", Some(("::1", Some(5)))),
            ("[::1]", Some(("::1", None))),
            ("::1", Some(("::1", None))),
            (":5", Some(("", Some(5)))),
            ("a:0", None),
            ("a:65536", None),
            ("a:+5", None),
            ("a:", None),
            ("[::1]:b", None),
        ] {
            assert_eq!(split_port(text), split, "{text}");
        }
    }

    #[test]
    fn hexadecimal_options_are_checked() {
        let work = load("-minimumchainwork=0x65", "").unwrap().params.minimum_chain_work;
        assert_eq!(work.to_be_bytes()[31], 0x65);
        let assumed =
            |text: &str| load(&format!("-assumevalid={text}"), "").map(|c| c.assume_valid);
        for none in ["0", "0x", "0x00"] {
            assert_eq!(assumed(none), Ok(AssumeValidOption::CheckAll));
        }
        let hash = format!("{:0>64}", "1a").parse().unwrap();
        assert_eq!(assumed("0x1A"), Ok(AssumeValidOption::Block(hash)));
        for bad in ["x", &"1".repeat(65)] {
            assert!(assumed(bad).unwrap_err().contains("must be up to 64 hex digits"), "{bad}");
        }
    }

    #[test]
    fn a_broken_file_is_an_error_and_an_unknown_option_is_not() {
        assert!(
            load("", "abc")
                .unwrap_err()
                .starts_with("Error reading configuration file: parse error on line 1")
        );
        assert_eq!(
            load("", "foo=1").unwrap().warnings,
            ["Ignoring unknown configuration value foo"]
        );
    }
}
