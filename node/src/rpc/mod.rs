//! JSON-RPC: the table of methods, and what they have in common.
//!
//! A method is one function and one row of a table. Names, parameters, fields and error codes are
//! Bitcoin Core's.

mod activity;
mod address;
mod addresses;
mod amounts;
mod at_once;
mod auth;
mod bans;
mod bech32_errors;
mod block_fetch;
mod block_stats;
mod blockchain;
mod call;
mod chain_control;
mod chain_info;
mod chain_wait;
mod client;
mod control;
mod cookie;
mod decode_script;
mod deployments;
mod descriptor;
mod envelope;
mod filters;
pub(crate) mod fuzz;
mod generate;
mod header_cache;
mod help;
mod http;
mod key_scripts;
mod logging;
mod mempool;
mod message;
mod mining;
mod network;
mod output_script;
mod param_types;
mod peer_info;
mod prune;
mod query;
mod raw_tx;
mod repeats;
mod rest;
mod rest_coins;
mod scan;
mod send;
mod server;
mod sign;
mod signer;
mod snapshot;
mod stored_block;
mod template;
mod tx_bytes;
mod tx_json;
mod tx_out_proof;
mod util;
mod utxo_set;
mod warm_up;

pub(crate) use amounts::parse_money;
pub(crate) use auth::{Credentials, header as authorization};
pub(crate) use client::typed_arguments;
pub use client::{CallError, RpcClient};
pub(crate) use cookie::start;
pub(crate) use header_cache::HeaderCache;
pub(crate) use mining::MiningState;
pub(crate) use server::{CONNECTIONS_MAX, RpcServer};
pub(crate) use warm_up::{ActiveCalls, WarmUp};

use std::path::PathBuf;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use serde_json::Value;

use crate::chain::{ChainHandle, Stopped};
use crate::clock::Clock;
use crate::index::Indexes;
use crate::logging::Log;
use crate::monitor::Seen;
use crate::notify::Warnings;
use crate::p2p::PeerManager;
use crate::shutdown::Shutdown;
use call::{Args, Param};

/// Error codes (Bitcoin Core's `rpc/protocol.h`).
pub(crate) mod code {
    pub(crate) const MISC_ERROR: i32 = -1;
    pub(crate) const TYPE_ERROR: i32 = -3;
    pub(crate) const INVALID_ADDRESS_OR_KEY: i32 = -5;
    pub(crate) const INVALID_PARAMETER: i32 = -8;
    pub(crate) const CLIENT_NOT_CONNECTED: i32 = -9;
    pub(crate) const CLIENT_IN_INITIAL_DOWNLOAD: i32 = -10;
    pub(crate) const DESERIALIZATION_ERROR: i32 = -22;
    pub(crate) const CLIENT_NODE_ALREADY_ADDED: i32 = -23;
    pub(crate) const CLIENT_NODE_NOT_ADDED: i32 = -24;
    pub(crate) const VERIFY_ERROR: i32 = -25;
    pub(crate) const VERIFY_REJECTED: i32 = -26;
    pub(crate) const VERIFY_ALREADY_IN_UTXO_SET: i32 = -27;
    pub(crate) const IN_WARMUP: i32 = -28;
    pub(crate) const CLIENT_NODE_NOT_CONNECTED: i32 = -29;
    pub(crate) const CLIENT_INVALID_IP_OR_SUBNET: i32 = -30;
    pub(crate) const CLIENT_NODE_CAPACITY_REACHED: i32 = -34;
    pub(crate) const INVALID_REQUEST: i32 = -32600;
    pub(crate) const METHOD_NOT_FOUND: i32 = -32601;
    pub(crate) const INVALID_PARAMS: i32 = -32602;
    pub(crate) const INTERNAL_ERROR: i32 = -32603;
    pub(crate) const PARSE_ERROR: i32 = -32700;
}

/// Why a call has no result.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RpcError {
    /// One of [`code`].
    pub(crate) code: i32,
    /// The text, in Core's words where it has some.
    pub(crate) message: String,
}

impl RpcError {
    /// Creates an error.
    pub(crate) fn new(code: i32, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl From<Stopped> for RpcError {
    fn from(stopped: Stopped) -> Self {
        Self::new(code::CLIENT_NOT_CONNECTED, stopped.to_string())
    }
}

impl From<cofferdam_ibd::Error> for RpcError {
    fn from(error: cofferdam_ibd::Error) -> Self {
        Self::new(code::INTERNAL_ERROR, crate::chain::describe(&error))
    }
}

/// The result of a call.
pub(crate) type RpcResult = Result<Value, RpcError>;

/// What methods work on.
#[derive(Debug)]
pub(crate) struct Context {
    /// The chain.
    pub(crate) chain: ChainHandle,
    /// The peers.
    pub(crate) peers: Arc<PeerManager>,
    /// The time.
    pub(crate) clock: Clock,
    /// The wish to stop.
    pub(crate) shutdown: Shutdown,
    /// What the monitor saw last.
    pub(crate) seen: Arc<Mutex<Seen>>,
    /// The calls that run.
    pub(crate) calls: ActiveCalls,
    /// When the node was started.
    pub(crate) started: Instant,
    /// The chain directory.
    pub(crate) chain_dir: PathBuf,
    /// Where block files are.
    pub(crate) blocks_dir: PathBuf,
    /// What is wrong with the chain.
    pub(crate) warnings: Warnings,
    /// The log, and where its file is.
    pub(crate) log: Log,
    pub(crate) log_path: Option<PathBuf>,
    /// How the node names itself to peers.
    pub(crate) user_agent: String,
    /// Indexes beside the chain state.
    pub(crate) indexes: Arc<Indexes>,
    /// How blocks are built.
    pub(crate) mining: MiningState,
    /// Headers that were described.
    pub(crate) headers: HeaderCache,
    /// Scans that are going on.
    pub(crate) scans: Scans,
}

/// Scans that calls start and other calls watch.
#[derive(Debug, Default)]
pub(crate) struct Scans {
    /// Of `scantxoutset`.
    coins: scan::ScanState,
    /// Of `scanblocks`, with the height of the last block looked at.
    blocks: (scan::ScanState, AtomicU32),
}

/// A method.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Method {
    /// Its name.
    pub(crate) name: &'static str,
    /// Its parameters.
    pub(crate) params: &'static [Param],
    /// Runs it.
    pub(crate) run: fn(&Context, &Args) -> RpcResult,
}

/// The methods; their texts in `help/` tell under which heading each is listed.
const TABLES: &[&[Method]] = &[
    blockchain::METHODS,
    activity::METHODS,
    block_fetch::METHODS,
    block_stats::METHODS,
    chain_control::METHODS,
    chain_info::METHODS,
    chain_wait::METHODS,
    filters::METHODS,
    mempool::METHODS,
    prune::METHODS,
    scan::METHODS,
    snapshot::METHODS,
    tx_out_proof::METHODS,
    control::METHODS,
    logging::METHODS,
    generate::METHODS,
    mining::METHODS,
    template::METHODS,
    network::METHODS,
    bans::METHODS,
    raw_tx::METHODS,
    addresses::METHODS,
    send::METHODS,
    sign::METHODS,
    message::METHODS,
    output_script::METHODS,
    util::METHODS,
];

/// Returns the method of that name.
pub(crate) fn method(name: &str) -> Option<&'static Method> {
    TABLES.iter().copied().flatten().find(|method| method.name == name)
}

/// Runs a method; parameters are a JSON array or object.
pub(crate) fn execute(warm_up: &WarmUp, name: &str, params: Value) -> RpcResult {
    let context = warm_up.context()?;
    let method =
        method(name).ok_or_else(|| RpcError::new(code::METHOD_NOT_FOUND, "Method not found"))?;
    let _active = context.calls.enter(method.name);
    let args = Args::bind(method, params)?;
    (method.run)(context, &args)
}
