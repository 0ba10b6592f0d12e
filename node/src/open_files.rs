//! How many files may be open at once: as many as the node may come to need, or it has fewer peers
//! (Bitcoin Core's `AppInitParameterInteraction`).
//!
//! A node that runs out of them cannot make the next file of its database, and ends.

use anyhow::{Result, bail};
use cofferdam_storage::BackendKind;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;
use crate::data_dir::{chain_dir, written_backend};
use crate::{monitor, rpc};

/// Files of one engine: its runs, those that are being merged, and its lists. RocksDB keeps up to 256
/// tables open besides its own files.
const ENGINE_FILES: usize = 100;
const ROCKSDB_FILES: usize = 300;
/// Block files and undo files that are kept open for reading, 64 of each.
const BLOCK_FILES: usize = 128;
/// Logs, locks, standard streams, what the threads wait on, and files that are open for a moment.
const OTHER_FILES: usize = 64;
/// Connections that the user names: as many of `addnode` as Bitcoin Core has
/// (`MAX_ADDNODE_CONNECTIONS`), and attempts to reach more of them.
const NAMED_PEERS_MIN: usize = 24;

/// Connections to the RPC server that there are always; what others leave is for more of them.
const RPC_CONNECTIONS_MIN: usize = 32;

/// Raises the limit of open files to what the node may need. Where it stays lower there are fewer
/// connections, to the RPC server first, and the text that says so of peers is returned.
///
/// # Errors
///
/// Returns an error if it is too low for a node without peers.
pub(crate) fn settle(config: &mut Config) -> Result<Option<String>> {
    let (asked, reserve) = (config.p2p.max_connections, reserve(config));
    let more_rpc = if config.rpc.enabled { rpc::CONNECTIONS_MAX - RPC_CONNECTIONS_MIN } else { 0 };
    let available = raise(asked.saturating_add(reserve).saturating_add(more_rpc));
    let max = connections(available, reserve, asked)?;
    tracing::info!(
        "Using at most {max} automatic connections ({available} file descriptors available)"
    );
    config.p2p.max_connections = max;
    config.rpc.connections = RPC_CONNECTIONS_MIN + more_rpc.min(available - reserve - max);
    Ok((max < asked).then(|| {
        format!("Reducing -maxconnections from {asked} to {max}, because of system limitations.")
    }))
}

/// Returns how many files may be open besides connections to peers that the user does not name, and to
/// the RPC server but for a few.
fn reserve(config: &Config) -> usize {
    let p2p = &config.p2p;
    let named = (p2p.connect.len() + p2p.add_nodes.len()).max(NAMED_PEERS_MIN);
    let doors = p2p.bind.len() + p2p.onion_bind.len() + p2p.whitebind.len() + config.rpc.bind.len();
    // One that cannot be read is told of when the chain is opened.
    let written = written_backend(&chain_dir(config).join("chainstate")).ok().flatten();
    let engine = match written.or(config.backend) {
        Some(BackendKind::Rocksdb) => ROCKSDB_FILES,
        _ => ENGINE_FILES,
    };
    let indexes = config.indexes;
    let engines = 1 + usize::from(indexes.transactions) + usize::from(indexes.filters);
    let rpc = if config.rpc.enabled { RPC_CONNECTIONS_MIN } else { 0 };
    let metrics = config.metrics.map_or(0, |_| monitor::CONNECTIONS_MAX);
    let clients = rpc + metrics;
    engines * engine + BLOCK_FILES + OTHER_FILES + clients + named + doors
}

/// Raises the limit, as far as that may be; returns what it is then.
fn raise(wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let count = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
    let current = limit.current.map_or(usize::MAX, count);
    let target = limit.maximum.map_or(wanted, |maximum| wanted.min(count(maximum)));
    if current >= target {
        return current;
    }
    let raised = Rlimit { current: Some(target as u64), ..limit };
    if setrlimit(Resource::Nofile, raised).is_ok() { target } else { current }
}

fn connections(available: usize, reserve: usize, asked: usize) -> Result<usize> {
    match available.checked_sub(reserve) {
        Some(left) => Ok(left.min(asked)),
        None => bail!(
            "Not enough file descriptors available. {available} available, {reserve} required."
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_get_what_files_leave() {
        assert_eq!(connections(1900, 900, 125).unwrap(), 125);
        assert_eq!(connections(1900, 900, 1001).unwrap(), 1000);
        assert_eq!(connections(900, 900, 125).unwrap(), 0);
        let text = connections(899, 900, 125).unwrap_err().to_string();
        assert_eq!(text, "Not enough file descriptors available. 899 available, 900 required.");
    }

    #[test]
    fn a_plain_node_has_all_its_peers_under_the_usual_limit() {
        let reserve = |line: &str| reserve(&crate::config::tests::load(line, "").unwrap());
        assert!(reserve("-regtest") + 125 <= 512);
        assert!(reserve("-regtest -txindex -blockfilterindex -metrics") + 125 <= 1024);
        let more = |line: &str| reserve(&format!("-regtest {line}")) - reserve("-regtest");
        assert_eq!(more("-txindex -blockfilterindex"), 2 * ENGINE_FILES);
        assert_eq!(more("-backend=rocksdb"), ROCKSDB_FILES - ENGINE_FILES);
        assert_eq!(more("-metrics"), monitor::CONNECTIONS_MAX);
    }
}
