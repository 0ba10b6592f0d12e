//! `Snapshot`: all that is shown of a node at one moment, as fields with names: the same in the page,
//! the figures, the bars and the method `getsyncstatus`.

use std::sync::Arc;
use std::time::Instant;

use cofferdam_ibd::Chainstate;
use serde_json::{Map, Value, json};

use super::history::History;
use crate::chain::{ChainHandle, Stopped};
use crate::clock::Clock;
use crate::p2p::PeerManager;

/// Blocks above the tip that are looked at to tell whether blocks or hands are lacking.
const AHEAD_MAX: u32 = 64;
/// With fewer blocks waiting than this, validation waits for peers.
const FEW_AHEAD: u64 = 4;

/// A node at one moment. All numbers are as JSON and Prometheus have them.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Snapshot {
    /// `main`, `regtest`...
    pub(crate) chain: String,
    /// What holds the sync up most, in words.
    pub(crate) bottleneck: String,
    /// Figures by name, in the order they are shown in.
    pub(crate) figures: Vec<(&'static str, f64)>,
}

/// Names and meanings of the figures.
pub(crate) const FIGURES: &[(&str, &str)] = &[
    ("uptime_seconds", "Time since the start"),
    ("blocks", "Height of the connected chain"),
    ("headers", "Height of the best header"),
    ("tip_age_seconds", "Age of the tip by its own time"),
    ("initial_block_download", "1 while the chain is being downloaded"),
    ("importing", "1 while block files are being imported"),
    ("progress_ratio", "Share of all transactions that is verified, by an estimate"),
    ("transactions", "Transactions of the connected chain"),
    ("connected_blocks", "Blocks connected since the start"),
    ("connected_transactions", "Transactions connected since the start"),
    ("connected_inputs", "Inputs connected since the start"),
    ("connected_bytes", "Bytes of blocks connected since the start"),
    ("blocks_per_second", "Blocks connected a second, over the last minute"),
    ("transactions_per_second", "Transactions connected a second, over the last minute"),
    ("bytes_per_second", "Bytes of blocks connected a second, over the last minute"),
    ("remaining_seconds", "Time to the end of the sync at this rate, by transactions; -1: unknown"),
    ("remaining_bytes", "Bytes of blocks to come, by an estimate; -1: unknown"),
    ("blocks_ahead", "Blocks stored above the tip, at most 64"),
    ("peers", "Connections to peers"),
    ("peers_outbound", "Connections that this node began"),
    ("cache_bytes", "Memory of coins that are not written back yet"),
    ("cache_limit_bytes", "Memory at which they are written back"),
    ("log_bytes", "Bytes of the write-ahead log on the disk"),
    ("log_segments", "Files of the write-ahead log"),
    ("log_records_to_replay", "Records that a start after a crash replays"),
    ("log_records_not_durable", "Records that a power cut would take"),
    ("checkpoint_age_seconds", "Time since the database held everything; 0 if it does"),
    ("write_backs", "Write-backs since the start"),
    ("back_pressure_waits", "Commits that waited for a write-back"),
];

impl Snapshot {
    /// Returns a figure; 0 if it is not there.
    pub(crate) fn get(&self, name: &str) -> f64 {
        self.figures.iter().find(|(known, _)| *known == name).map_or(0.0, |(_, value)| *value)
    }

    /// The snapshot as the answer to `getsyncstatus`.
    pub(crate) fn to_json(&self) -> Value {
        let mut fields = Map::new();
        fields.insert("chain".into(), json!(self.chain));
        fields.insert("bottleneck".into(), json!(self.bottleneck));
        for (name, value) in &self.figures {
            fields.insert((*name).into(), json!(value));
        }
        Value::Object(fields)
    }

    /// Reads such an answer.
    pub(crate) fn from_json(value: &Value) -> Self {
        let text =
            |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let figure = |(name, _): &(&'static str, &str)| {
            (*name, value.get(*name).and_then(Value::as_f64).unwrap_or(0.0))
        };
        Self {
            chain: text("chain"),
            bottleneck: text("bottleneck"),
            figures: FIGURES.iter().map(figure).collect(),
        }
    }
}

/// Where snapshots are taken from.
#[derive(Clone, Debug)]
pub(crate) struct Sources {
    pub(crate) chain: ChainHandle,
    pub(crate) peers: Arc<PeerManager>,
    pub(crate) clock: Clock,
    pub(crate) started: Instant,
    pub(crate) cache_limit_bytes: usize,
}

/// What only the chain's thread knows.
struct Chain {
    progress: f64,
    transactions: u64,
    tip_time: u32,
    ahead: u64,
    connected: cofferdam_ibd::Progress,
    store: cofferdam_storage::Stats,
}

impl Sources {
    /// Takes a snapshot.
    pub(crate) fn look(&self, history: &History) -> Result<Snapshot, Stopped> {
        let now = self.clock.seconds();
        let chain = self.chain.query(move |chain| look_at_chain(chain, now))?;
        let view = self.chain.view();
        let network = self.chain.params().network;
        let done = number(chain.transactions);
        let at_tip = view.tip == view.best_header && !view.initial_download;
        let progress = if at_tip { 1.0 } else { chain.progress };
        // What is done, and what share of all that is, tell what is left.
        let left = if progress > 0.0 { (done / progress - done).max(0.0) } else { 0.0 };
        let [block_rate, transaction_rate, byte_rate] = history.rates();
        let rate = |per_transaction: f64, rate: f64| {
            if left <= 0.0 {
                0.0
            } else if rate > 0.0 {
                left * per_transaction
            } else {
                -1.0
            }
        };
        let seconds = rate(1.0 / transaction_rate.max(1e-9), transaction_rate);
        let bytes = rate(byte_rate / transaction_rate.max(1e-9), transaction_rate);
        let peers = self.peers.peers();
        let outbound = peers.iter().filter(|peer| !peer.is_inbound()).count();
        let store = chain.store;
        let to_replay = store.lsn.saturating_sub(store.applied_lsn);
        let flag = |on: bool| if on { 1.0 } else { 0.0 };
        let values = [
            self.started.elapsed().as_secs_f64().floor(),
            f64::from(view.tip.height),
            f64::from(view.best_header.height),
            f64::from(now.saturating_sub(chain.tip_time)),
            flag(view.initial_download),
            flag(self.chain.is_loading()),
            progress,
            done,
            number(chain.connected.blocks),
            number(chain.connected.transactions),
            number(chain.connected.inputs),
            number(chain.connected.bytes),
            block_rate,
            transaction_rate,
            byte_rate,
            seconds,
            bytes,
            number(chain.ahead),
            count(peers.len()),
            count(outbound),
            number(store.active_bytes.saturating_add(store.frozen_bytes)),
            count(self.cache_limit_bytes),
            number(store.log_bytes),
            number(store.segments),
            number(to_replay),
            number(store.lsn.saturating_sub(store.durable_lsn)),
            history.checkpoint_age(to_replay),
            number(store.flushes),
            number(store.back_pressure_waits),
        ];
        let waits = history.back_pressure_since(number(store.back_pressure_waits));
        let bottleneck = bottleneck(at_tip, waits, chain.ahead, peers.len());
        Ok(Snapshot {
            chain: network.to_string(),
            bottleneck: bottleneck.into(),
            figures: FIGURES.iter().zip(values).map(|((name, _), value)| (*name, value)).collect(),
        })
    }
}

fn look_at_chain(chain: &Chainstate, now: u32) -> Chain {
    let headers = chain.headers();
    let tip = headers.entry(chain.tip_ref());
    let is_stored = |height| {
        let at = headers.ancestor(headers.best(), height);
        at.is_some_and(|at| headers.entry(at).block.is_some())
    };
    let above = tip.height.saturating_add(1)..=tip.height.saturating_add(AHEAD_MAX);
    let ahead = above.take_while(|height| is_stored(*height)).count();
    Chain {
        progress: chain.verification_progress(chain.tip_ref(), now),
        transactions: tip.chain_tx_count,
        tip_time: tip.header.time,
        ahead: u64::try_from(ahead).unwrap_or(0),
        connected: chain.progress(),
        store: chain.store().stats(),
    }
}

/// What the sync waits for.
const fn bottleneck(at_tip: bool, disk_waits: bool, ahead: u64, peers: usize) -> &'static str {
    if at_tip {
        "none: at the tip"
    } else if disk_waits {
        "disk: commits wait for a write-back"
    } else if ahead >= FEW_AHEAD {
        "processor: blocks wait to be verified"
    } else if peers == 0 {
        "network: no peer"
    } else {
        "network: verification waits for blocks"
    }
}

/// A count as a figure; beyond 2^53 digits are lost, and nothing here gets there.
#[expect(clippy::cast_precision_loss, reason = "figures are for people")]
pub(super) const fn number(count: u64) -> f64 {
    count as f64
}

fn count(count: usize) -> f64 {
    number(u64::try_from(count).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_survives_json() {
        let figures = FIGURES.iter().enumerate();
        let figures = figures.map(|(at, (name, _))| (*name, count(at) + 0.5)).collect();
        let snapshot = Snapshot { chain: "main".into(), bottleneck: "none".into(), figures };
        assert_eq!(Snapshot::from_json(&snapshot.to_json()), snapshot);
        assert_eq!(snapshot.get("headers"), 2.5);
    }

    #[test]
    fn what_lacks_is_named() {
        assert!(bottleneck(true, true, 9, 1).starts_with("none"));
        assert!(bottleneck(false, true, 9, 1).starts_with("disk"));
        assert!(bottleneck(false, false, 9, 1).starts_with("processor"));
        assert!(bottleneck(false, false, 3, 1).starts_with("network: verification"));
        assert!(bottleneck(false, false, 0, 0).starts_with("network: no peer"));
    }
}
