//! `dumptxoutset`: the UTXO set in a file of Bitcoin Core's format (`node/utxo_snapshot.h`).
//!
//! ```text
//! "utxo" ff | version 2 u16 LE | network magic 4 | block hash 32 | coins u64 LE
//! (txid 32 | coins of it CompactSize | (output index CompactSize | coin as in the set)*)*
//! ```

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{BufWriter, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use bitcoin::consensus::Encodable as _;
use bitcoin::hashes::Hash as _;
use bitcoin::{OutPoint, VarInt};
use cofferdam_ibd::params::Network;
use cofferdam_ibd::undo::BlockUndo;
use cofferdam_ibd::{
    BlockFiles, BlockRef, ChainParams, Chainstate, CheckedBlock, Coin, CoinChanges, HeaderEntry,
    UtxoHash, UtxoStats,
};
use serde_json::json;

use super::call::{Args, optional, optional_text, text};
use super::utxo_set::HashOrHeight;
use super::{Context, Method, RpcError, RpcResult, code};
use crate::coin_scan::{Coins, PinnedCoins};

/// First bytes of a file, and its version.
const MAGIC: &[u8; 7] = b"utxo\xff\x02\x00";
/// Where the number of coins stands.
const COUNT_OFFSET: u64 = 7 + 4 + 32;
/// Coins that may differ from the set as it is: some 8 GB of memory.
const CHANGES_MAX: usize = 50_000_000;

pub(super) const METHODS: &[Method] = &[
    Method {
        name: "dumptxoutset",
        params: &[text("path"), optional_text("type"), optional("options")],
        run: dump_tx_out_set,
    },
    Method {
        name: "loadtxoutset",
        params: &[text("path")],
        run: |context, args| {
            let path = context.chain_dir.join(args.text(0)?);
            if File::open(&path).is_err() {
                let text = format!("Couldn't open file {} for reading.", path.display());
                return Err(RpcError::new(code::INVALID_PARAMETER, text));
            }
            let text = format!(
                "Unable to load UTXO snapshot: this node validates every block and takes no set as given. ({})",
                path.display()
            );
            Err(RpcError::new(code::INTERNAL_ERROR, text))
        },
    },
];

fn internal(text: impl std::fmt::Display) -> RpcError {
    RpcError::new(code::INTERNAL_ERROR, text.to_string())
}

fn dump_tx_out_set(context: &Context, args: &Args) -> RpcResult {
    let invalid = |text: String| RpcError::new(code::INVALID_PARAMETER, text);
    let path = context.chain_dir.join(args.text(0)?);
    let kind = args.optional_text(1)?.unwrap_or_default();
    let target = target(args, kind, context.chain.params().network)?;
    // A block that does not exist is told before a file is made.
    context.chain.query(move |chain| target.map(|target| target.find(chain)).transpose())??;
    // Who reads a pipe has the set as it is written; a file gets its name when it is whole.
    let is_pipe = fs::metadata(&path).is_ok_and(|metadata| metadata.file_type().is_fifo());
    let written = if is_pipe {
        path.clone()
    } else {
        PathBuf::from(format!("{}.incomplete", path.display()))
    };
    if path.exists() && !is_pipe {
        return Err(invalid(format!(
            "{} already exists. If you are sure this is what you want, move it out of the way first",
            path.display()
        )));
    }
    let file = File::create(&written)
        .map_err(|_| invalid(format!("Couldn't open file {} for writing.", written.display())))?;
    let dumped = dump(context, target, &path, (file, is_pipe));
    if is_pipe {
        return dumped;
    }
    if dumped.is_err() {
        // Of no use to anybody, and in the way of the next.
        let _ = fs::remove_file(&written);
    }
    let dumped = dumped?;
    fs::rename(&written, &path).map_err(internal)?;
    Ok(dumped)
}

/// The last height of the assumed UTXO sets in Core's `kernel/chainparams.cpp`.
const fn last_known_height(network: Network) -> i32 {
    match network {
        Network::Mainnet => 935_000,
        Network::Testnet3 => 4_840_000,
        Network::Testnet4 => 120_000,
        Network::Signet => 290_000,
        Network::Regtest => 299,
    }
}

/// The block asked for; `None` for the tip.
fn target(args: &Args, kind: &str, network: Network) -> Result<Option<HashOrHeight>, RpcError> {
    let invalid = |text: String| RpcError::new(code::INVALID_PARAMETER, text);
    let rollback = args.get(2).and_then(|options| options.get("rollback"));
    match (rollback, kind) {
        (Some(value), "" | "rollback") => HashOrHeight::from_value("rollback", value).map(Some),
        (Some(_), _) => {
            Err(invalid(format!("Invalid snapshot type \"{kind}\" specified with rollback option")))
        }
        (None, "latest") => Ok(None),
        // As Core: the last block of which its source knows the set.
        (None, "rollback") => Ok(Some(HashOrHeight::Height(last_known_height(network)))),
        (None, _) => Err(invalid(format!(
            "Invalid snapshot type \"{kind}\" specified. Please specify \"rollback\" or \"latest\""
        ))),
    }
}

fn dump(
    context: &Context,
    target: Option<HashOrHeight>,
    path: &Path,
    (file, is_pipe): (File, bool),
) -> RpcResult {
    let (pinned, plan) = PinnedCoins::take(&context.chain, move |chain| Plan::new(chain, target))?;
    let plan = plan?;
    let (count, stats) = if is_pipe {
        // What a pipe has taken cannot be mended: the number of coins has to be known before.
        pinned.read_twice(|counted, coins| plan.write(context, file, Some(counted), coins))??
    } else {
        pinned.read(|coins| plan.write(context, file, None, coins))??
    };
    Ok(json!({
        "coins_written": count,
        "base_hash": plan.base.hash.to_string(),
        "base_height": plan.base.height,
        "path": path.display().to_string(),
        "txoutset_hash": stats.hash_serialized_3.map(|hash| hash.to_string()),
        "nchaintx": plan.chain_tx_count,
    }))
}

/// What has to be taken back from the set as it is.
struct Plan {
    base: BlockRef,
    chain_tx_count: u64,
    /// From the tip down.
    above: Vec<HeaderEntry>,
    files: std::sync::Arc<BlockFiles>,
}

impl Plan {
    fn new(chain: &Chainstate, target: Option<HashOrHeight>) -> Result<Self, RpcError> {
        let headers = chain.headers();
        let at = target.map_or(Ok(chain.tip_ref()), |target| target.find(chain))?;
        if !chain.is_connected(at) {
            return Err(internal("The block is not in the connected chain"));
        }
        let base = headers.entry(at);
        let heights = base.height + 1..=chain.tip().height;
        let above: Vec<HeaderEntry> = heights
            .rev()
            .filter_map(|height| headers.ancestor(chain.tip_ref(), height))
            .map(|at| headers.entry(at))
            .collect();
        if above.iter().any(|entry| entry.block.is_none() || entry.undo.is_none()) {
            let text = "Could not roll back to requested height since necessary block data is already pruned.";
            return Err(RpcError::new(code::MISC_ERROR, text));
        }
        Ok(Self {
            base: BlockRef { height: base.height, hash: base.hash },
            chain_tx_count: base.chain_tx_count,
            above,
            files: std::sync::Arc::clone(chain.files()),
        })
    }

    /// Writes the set and returns its size and hash; `counted` are the same coins for who needs the
    /// number of coins first.
    fn write(
        &self,
        context: &Context,
        file: File,
        counted: Option<&mut Coins<'_>>,
        coins: &mut Coins<'_>,
    ) -> Result<(u64, UtxoStats), RpcError> {
        // Only now: the chain may go on since the iteration has begun.
        let changes = self.changes(context)?;
        let has_failed = Cell::new(false);
        let goes_on = |_: &_| !has_failed.get() && !context.shutdown.is_requested();
        let count = counted.map(|coins| {
            let mut coins = changes.apply(coins.take_while(goes_on));
            coins.try_fold(0_u64, |count, entry| entry.map(|_| count + 1))
        });
        let count = count.transpose()?;
        let mut writer = SnapshotWriter::begin(file, context.chain.params(), self.base, count)?;
        let written = changes.apply(coins.take_while(goes_on)).map(|entry| {
            let (outpoint, coin) = entry?;
            writer.add(outpoint, &coin);
            // Who reads a pipe may have gone: nothing is gained by the rest.
            has_failed.set(writer.failure.is_some());
            Ok((outpoint, coin))
        });
        let stats = UtxoStats::compute(written, UtxoHash::Serialized3)?;
        if context.shutdown.is_requested() {
            return Err(internal("Shutting down"));
        }
        let count = writer.finish().map_err(internal)?;
        Ok((count, stats))
    }

    fn changes(&self, context: &Context) -> Result<CoinChanges, RpcError> {
        let mut changes = CoinChanges::default();
        for entry in &self.above {
            if context.shutdown.is_requested() {
                return Err(internal("Shutting down"));
            }
            if changes.len() > CHANGES_MAX {
                return Err(internal("Too many coins differ from the set as it is"));
            }
            self.take_back(entry, context.chain.params(), &mut changes).ok_or_else(|| {
                internal(format!("Failed to roll back block at height {}", entry.height))
            })?;
        }
        Ok(changes)
    }

    fn take_back(
        &self,
        entry: &HeaderEntry,
        params: &ChainParams,
        changes: &mut CoinChanges,
    ) -> Option<()> {
        let raw = self.files.read_block(entry.block?).ok()?;
        let block = CheckedBlock::parse(raw, params).ok()?;
        let undo = BlockUndo::decode(&self.files.read_undo(entry.undo?).ok()?).ok()?;
        let at = BlockRef { height: entry.height, hash: entry.hash };
        changes.disconnect(params, &block, at, undo).ok()
    }
}

/// Writes coins that come in order; the first failure is told at the end.
struct SnapshotWriter {
    file: BufWriter<File>,
    /// Coins of the transaction that is being written.
    pending: Vec<(u32, Vec<u8>)>,
    txid: Option<bitcoin::Txid>,
    count: u64,
    /// The number of coins, if the header has it already.
    told: Option<u64>,
    failure: Option<std::io::Error>,
}

impl SnapshotWriter {
    fn begin(
        file: File,
        params: &ChainParams,
        base: BlockRef,
        told: Option<u64>,
    ) -> Result<Self, RpcError> {
        let mut file = BufWriter::new(file);
        let count = told.unwrap_or_default().to_le_bytes();
        let header = [MAGIC.as_slice(), &params.magic, base.hash.as_byte_array(), &count].concat();
        file.write_all(&header).map_err(internal)?;
        Ok(Self { file, pending: Vec::new(), txid: None, count: 0, told, failure: None })
    }

    fn add(&mut self, outpoint: OutPoint, coin: &Coin) {
        if self.txid != Some(outpoint.txid) {
            self.write_pending();
            self.txid = Some(outpoint.txid);
        }
        self.pending.push((outpoint.vout, coin.encode()));
        self.count += 1;
    }

    fn write_pending(&mut self) {
        let Some(txid) = self.txid.filter(|_| self.failure.is_none()) else {
            self.pending.clear();
            return;
        };
        let mut record = txid.as_byte_array().to_vec();
        push_size(&mut record, self.pending.len() as u64);
        for (vout, coin) in self.pending.drain(..) {
            push_size(&mut record, u64::from(vout));
            record.extend_from_slice(&coin);
        }
        self.failure = self.file.write_all(&record).err();
    }

    /// Writes the number of coins and makes the file durable, unless the number was told; returns it.
    fn finish(mut self) -> std::io::Result<u64> {
        self.write_pending();
        if let Some(error) = self.failure {
            return Err(error);
        }
        let mut file = self.file.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        if let Some(told) = self.told {
            let other = || std::io::Error::other(format!("{} coins, not {told}", self.count));
            return if told == self.count { Ok(told) } else { Err(other()) };
        }
        file.seek(SeekFrom::Start(COUNT_OFFSET))?;
        file.write_all(&self.count.to_le_bytes())?;
        file.sync_all()?;
        Ok(self.count)
    }
}

fn push_size(out: &mut Vec<u8>, size: u64) {
    // Writing to memory does not fail.
    let _ = VarInt(size).consensus_encode(out);
}
