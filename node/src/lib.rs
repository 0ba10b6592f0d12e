//! A Bitcoin node over `cofferdam-ibd`: sockets, threads, the user's files, JSON-RPC and the
//! command line. It knows no consensus rule.
//!
//! ```no_run
//! use cofferdam_node::{Config, Node, Shutdown};
//!
//! let config = Config::new("regtest".parse().unwrap(), std::path::Path::new("/tmp/node")).unwrap();
//! let node = Node::start(&config, Shutdown::default()).unwrap();
//! println!("peers may connect to {:?}", node.p2p_addresses());
//! node.stop().unwrap();
//! ```

mod busy;
mod chain;
mod chain_options;
mod chain_parts;
mod cli;
mod clock;
mod coin_scan;
mod config;
mod daemon;
mod data_dir;
mod failure;
#[doc(hidden)]
pub mod fuzz;
mod import;
mod index;
mod json_pairs;
mod logging;
mod monitor;
mod node;
mod notify;
mod open_files;
mod options;
mod p2p;
mod prune;
mod queue_file;
mod rebuild;
mod rpc;
mod run;
mod settings;
mod shutdown;
mod start_checks;
mod submit;
mod terminal;
mod tools;
mod tx_queue;
mod unrequested;
mod waits;

pub use cli::{Args, Command};
pub use config::{
    AssumeValidOption, BlocksConfig, CheckBlocks, Config, IndexConfig, LogConfig, MiningConfig,
    Net, NotifyConfig, P2pConfig, ProxyConfig, PruneMode, RebuildOption, RpcConfig,
};
pub use logging::Filter;
pub use node::Node;
pub use rpc::{CallError, RpcClient};
pub use run::run;
pub use settings::{OptionValue, Options};
pub use shutdown::Shutdown;
pub use tools::Tool;
