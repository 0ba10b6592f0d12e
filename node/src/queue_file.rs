//! `mempool.dat`: the transaction queue over a restart, in Bitcoin Core's format
//! (`node/mempool_persist.cpp`).
//!
//! ```text
//! version u64 LE, 1 or 2 | in version 2: key length 1, key 8
//! count u64 LE | for each: transaction, time i64, pretended fee i64
//! count VARINT | for each other transaction with a pretended fee: id 32, fee i64
//! count VARINT | ids 32 of those not yet sent to a peer: ours are never sent, and none are written
//! ```
//!
//! In version 2 all that follows the key is combined with it by exclusive or, by the place in the file. Version 1 is
//! what is written here, as with Core's `-persistmempoolv1`.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use bitcoin::consensus::encode::{Decodable, VarInt};
use bitcoin::consensus::serialize;
use bitcoin::{Transaction, Txid};
use cofferdam_ibd::TxQueue;
use cofferdam_storage::{FileSystem as _, StdFileSystem, write_atomic};

use crate::chain::{ChainHandle, Worker};
use crate::shutdown::Shutdown;

/// Versions of the format: plain, and under a key.
const VERSION_PLAIN: u64 = 1;
const VERSION_XORED: u64 = 2;
/// Bytes of the key, which its length precedes.
const KEY_LEN: u8 = 8;

/// Longest file that is read: three times what the queue holds by default.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// Transactions that are taken in at a time: the chain's thread has others to serve.
const SLICE: usize = 64;

/// What the file has of one transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Saved {
    tx: Transaction,
    time: i64,
    delta: i64,
}

/// All that a file has.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Contents {
    txs: Vec<Saved>,
    deltas: Vec<(Txid, i64)>,
}

/// What of a file is taken over beside the transactions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Import {
    /// When transactions entered: now, or as the file says.
    pub(crate) use_current_time: bool,
    /// Pretended fees.
    pub(crate) apply_deltas: bool,
}

/// Writes the queue.
///
/// # Errors
///
/// Returns an error if the file cannot be written.
pub(crate) fn save(chain: &ChainHandle, path: &Path) -> Result<()> {
    let queue = chain.queue().read().clone();
    let bytes = encode(&queue);
    tracing::info!("Writing {} mempool transactions to file...", queue.len());
    let what = || format!("writing {}", path.display());
    // Under this name drivers of `bitcoind` look for the file that is not whole yet.
    let fresh = path.with_extension("dat.new");
    write_atomic(&StdFileSystem, &fresh, &bytes).with_context(what)?;
    StdFileSystem.rename(&fresh, path).with_context(what)?;
    StdFileSystem.sync_dir(path.parent().unwrap_or(path)).with_context(what)?;
    Ok(())
}

/// Reads a file's transactions into the queue, as far as they are valid.
///
/// # Errors
///
/// Returns an error if the file cannot be read, or is none, or if the node stops meanwhile.
pub(crate) fn load(
    chain: &ChainHandle,
    path: &Path,
    import: Import,
    shutdown: &Shutdown,
) -> Result<()> {
    let what = || format!("reading {}", path.display());
    let metadata = fs::metadata(path).with_context(what)?;
    if !metadata.is_file() || metadata.len() > FILE_BYTES_MAX {
        bail!("{} is no file, or longer than any mempool", path.display());
    }
    let contents = decode(&fs::read(path).with_context(what)?).with_context(what)?;
    tracing::info!("Loading {} mempool transactions from file...", contents.txs.len());
    let mut imported = Imported::default();
    let mut rest = contents.txs.into_iter();
    loop {
        let some: Vec<Saved> = rest.by_ref().take(SLICE).collect();
        if some.is_empty() {
            break;
        }
        if shutdown.is_requested() {
            bail!("the node stops");
        }
        imported = chain.change(move |worker| worker.import(some, import, imported))?;
    }
    if import.apply_deltas {
        let deltas = contents.deltas;
        chain.change(move |worker| {
            for (txid, delta) in deltas {
                worker.prioritise(txid, delta);
            }
            Ok(())
        })?;
    }
    let Imported { count, failed, known } = imported;
    tracing::info!(
        "Imported mempool transactions from file: {count} succeeded, {failed} failed, 0 expired, {known} already there, 0 waiting for initial broadcast"
    );
    Ok(())
}

/// Fills the queue of a node that starts with what waited when it stopped, if that is kept.
pub(crate) fn load_at_start(chain: &ChainHandle, path: Option<&Path>, shutdown: &Shutdown) {
    let import = Import { use_current_time: false, apply_deltas: true };
    if let Some(path) = path.filter(|path| path.exists())
        && let Err(error) = load(chain, path, import, shutdown)
    {
        tracing::warn!("Failed to deserialize mempool data on file: {error:#}. Continuing anyway.");
    }
    // A node that stops may not have read all of it.
    if !shutdown.is_requested() {
        chain.queue_loaded();
    }
}

/// What became of transactions of a file.
#[derive(Clone, Copy, Debug, Default)]
struct Imported {
    count: u32,
    failed: u32,
    known: u32,
}

impl Worker {
    fn import(
        &mut self,
        txs: Vec<Saved>,
        import: Import,
        mut imported: Imported,
    ) -> cofferdam_ibd::Result<Imported> {
        for Saved { tx, time, delta } in txs {
            let txid = tx.compute_txid();
            if import.apply_deltas && delta != 0 {
                self.prioritise(txid, delta);
            }
            let now = self.clock.seconds();
            let time = u32::try_from(time).unwrap_or(now);
            let time = if import.use_current_time { now } else { time };
            if self.queue().read().get(&txid).is_some() {
                imported.known += 1;
                continue;
            }
            match self.accept_transaction_of(tx, time, |_| Ok(()))? {
                Ok(_) => imported.count += 1,
                Err(rejection) => {
                    tracing::debug!("{txid} of the mempool file is not valid: {rejection}");
                    imported.failed += 1;
                }
            }
        }
        Ok(imported)
    }
}

fn encode(queue: &TxQueue) -> Vec<u8> {
    let mut bytes = serialize(&VERSION_PLAIN);
    bytes.extend(serialize(&(queue.len() as u64)));
    for queued in queue.iter() {
        bytes.extend(serialize(&queued.tx));
        bytes.extend(serialize(&i64::from(queued.time)));
        bytes.extend(serialize(&queue.delta(&queued.txid)));
    }
    let others: Vec<_> = queue.deltas().filter(|(txid, _)| queue.get(txid).is_none()).collect();
    bytes.extend(serialize(&VarInt::from(others.len())));
    for (txid, delta) in others {
        bytes.extend(serialize(&txid));
        bytes.extend(serialize(&delta));
    }
    bytes.extend(serialize(&VarInt(0)));
    bytes
}

pub(crate) fn decode(bytes: &[u8]) -> Result<Contents> {
    let mut rest = bytes;
    let plain;
    match u64::consensus_decode(&mut rest)? {
        VERSION_PLAIN => {}
        VERSION_XORED => {
            plain = unmasked(bytes)?;
            rest = &plain;
        }
        version => bail!("version {version} is not known"),
    }
    let mut contents = Contents::default();
    // As many as there are: the number may be anything.
    for _ in 0..u64::consensus_decode(&mut rest)? {
        contents.txs.push(Saved {
            tx: Decodable::consensus_decode(&mut rest)?,
            time: Decodable::consensus_decode(&mut rest)?,
            delta: Decodable::consensus_decode(&mut rest)?,
        });
    }
    for _ in 0..VarInt::consensus_decode(&mut rest)?.0 {
        let txid = Decodable::consensus_decode(&mut rest)?;
        contents.deltas.push((txid, Decodable::consensus_decode(&mut rest)?));
    }
    Ok(contents)
}

/// Returns what follows the key of version 2, without its XOR.
fn unmasked(bytes: &[u8]) -> Result<Vec<u8>> {
    let front = size_of::<u64>();
    let Some((&KEY_LEN, rest)) = bytes.get(front..).and_then(<[u8]>::split_first) else {
        bail!("the key has not {KEY_LEN} bytes");
    };
    let key: [u8; 8] = *rest.first_chunk().context("the key is cut short")?;
    let start = front + 1 + key.len();
    // The key's bytes count from the begin of the file, which is a multiple of its length.
    let masked = bytes.iter().zip(key.iter().cycle()).skip(start);
    Ok(masked.map(|(byte, mask)| byte ^ mask).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::absolute::LockTime;
    use bitcoin::hashes::Hash as _;
    use bitcoin::transaction::Version;
    use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, TxIn, TxOut, Witness};

    fn contents() -> (Vec<u8>, Contents) {
        let tx = Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![TxIn {
                previous_output: OutPoint::new(Txid::all_zeros(), 7),
                script_sig: ScriptBuf::new(),
                sequence: Sequence::MAX,
                witness: Witness::from_slice(&[[1; 3]]),
            }],
            output: vec![TxOut { value: Amount::from_sat(5), script_pubkey: ScriptBuf::new() }],
        };
        let other = Txid::from_byte_array([9; 32]);
        let mut bytes = [serialize(&1_u64), serialize(&1_u64), serialize(&tx)].concat();
        bytes.extend([serialize(&77_i64), serialize(&-3_i64)].concat());
        bytes.extend([vec![1], serialize(&other), serialize(&5_i64), vec![0]].concat());
        let contents =
            Contents { txs: vec![Saved { tx, time: 77, delta: -3 }], deltas: vec![(other, 5)] };
        (bytes, contents)
    }

    #[test]
    fn a_file_is_read_in_both_versions() {
        let (plain, contents) = contents();
        assert_eq!(decode(&plain).unwrap(), contents);
        let key = [1, 2, 3, 4, 5, 6, 7, 8];
        let mut masked = serialize(&2_u64);
        masked.push(8);
        masked.extend(key);
        masked.extend(&plain[8..]);
        for (at, byte) in masked.iter_mut().enumerate().skip(17) {
            *byte ^= key[at % 8];
        }
        assert_eq!(decode(&masked).unwrap(), contents);
    }

    #[test]
    fn what_is_no_such_file_is_an_error() {
        let (plain, _) = contents();
        for len in 0..plain.len() - 1 {
            assert!(decode(&plain[..len]).is_err(), "{len}");
        }
        assert!(decode(&serialize(&3_u64)).is_err());
        assert!(decode(&[serialize(&2_u64), vec![7; 20]].concat()).is_err());
        assert!(decode(&[serialize(&1_u64), vec![0xff; 8]].concat()).is_err());
    }

    #[test]
    fn an_empty_queue_is_a_file_too() {
        let bytes = encode(&TxQueue::default());
        assert_eq!(bytes, [serialize(&1_u64), vec![0; 10]].concat());
        assert_eq!(decode(&bytes).unwrap(), Contents::default());
    }
}
