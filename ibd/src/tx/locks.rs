//! When a transaction may be in a block: lock time and relative lock times (`IsFinalTx` and
//! `SequenceLocks` in Bitcoin Core's `consensus/tx_verify.cpp`; BIP-0068, BIP-0113).

use crate::coin::CoinRef;
use crate::pow::{HeaderChain, median_time_past, median_time_past_at};
use crate::rejection::Rejection;
use crate::wire::TxRef;

/// Lock times below are heights, others are seconds since 1970.
const LOCKTIME_THRESHOLD: u32 = 500_000_000;
const SEQUENCE_FINAL: u32 = 0xffff_ffff;
/// The input has no relative lock time.
const SEQUENCE_DISABLE_FLAG: u32 = 1 << 31;
/// The relative lock time is in units of 512 seconds, not in blocks.
const SEQUENCE_TYPE_FLAG: u32 = 1 << 22;
const SEQUENCE_MASK: u32 = 0xffff;
const SEQUENCE_GRANULARITY: u32 = 9;

/// Returns whether the lock time allows the transaction in a block at `height` with `time` to
/// compare to (the median time past of its parent since BIP-0113).
#[must_use]
pub fn is_final_tx(tx: TxRef<'_>, height: u32, time: u32) -> bool {
    let lock_time = tx.lock_time();
    let reached = if lock_time < LOCKTIME_THRESHOLD { height } else { time };
    lock_time == 0
        || lock_time < reached
        || tx.inputs().all(|input| input.sequence() == SEQUENCE_FINAL)
}

/// Checks the relative lock times of a transaction in the block after `parent`. Whether they are in
/// force there is for the caller to know.
///
/// `spent` has the coins of all inputs, in their order; none is from above that block.
///
/// # Errors
///
/// Returns `bad-txns-nonfinal`.
pub fn check_sequence_locks(
    parent: &impl HeaderChain,
    tx: TxRef<'_>,
    spent: &[CoinRef<'_>],
) -> Result<(), Rejection> {
    // The version is unsigned for this rule: -1 counts as 2 and more.
    if tx.version().cast_unsigned() < 2 {
        return Ok(());
    }
    let height = parent.height() + 1;
    for (input, coin) in tx.inputs().zip(spent) {
        let sequence = input.sequence();
        if sequence & SEQUENCE_DISABLE_FLAG != 0 {
            continue;
        }
        let lock = i64::from(sequence & SEQUENCE_MASK);
        // As with nLockTime, the last height or time that is too early.
        let reached = if sequence & SEQUENCE_TYPE_FLAG == 0 {
            i64::from(coin.height) + lock - 1 < i64::from(height)
        } else {
            let from = median_time_past_at(parent, coin.height.saturating_sub(1));
            let last = i64::from(from) + (lock << SEQUENCE_GRANULARITY) - 1;
            last < i64::from(median_time_past(parent))
        };
        if !reached {
            let detail = format!("contains a non-BIP68-final transaction {}", tx.txid());
            return Err(Rejection::consensus("bad-txns-nonfinal").with_detail(detail));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::{ChainParams, Network};
    use crate::testing::{Chain, coin, outpoint, parsed, payment};
    use bitcoin::Sequence;
    use bitcoin::absolute::LockTime;
    use bitcoin::transaction::Version;

    #[test]
    fn lock_times_are_the_last_height_or_time_too_early() {
        let mut tx = payment(&[outpoint(1), outpoint(2)], &[1]);
        tx.input[1].sequence = Sequence::from_consensus(0xffff_fffe);
        let cases = [
            (0, 0, 0, true),
            (10, 10, 0, false),
            (10, 11, 0, true),
            (499_999_999, 499_999_999, u32::MAX, false),
            (500_000_000, u32::MAX, 500_000_000, false),
            (500_000_000, 0, 500_000_001, true),
            (u32::MAX, u32::MAX, u32::MAX, false),
        ];
        for (lock, height, time, ok) in cases {
            tx.lock_time = LockTime::from_consensus(lock);
            assert_eq!(
                is_final_tx(parsed(&tx).first().unwrap(), height, time),
                ok,
                "{lock} {height} {time}"
            );
        }
        tx.input[1].sequence = Sequence::from_consensus(SEQUENCE_FINAL);
        assert!(is_final_tx(parsed(&tx).first().unwrap(), 0, 0));
    }

    /// A chain of 200 headers, 600 seconds apart, and a transaction that spends coins of height
    /// 10 and 100.
    #[track_caller]
    fn check(version: i32, sequences: [u32; 2], ok: bool) {
        let params = ChainParams::new(Network::Regtest);
        let chain = Chain::new(&params.genesis.header, 199, 600);
        let mut tx = payment(&[outpoint(1), outpoint(2)], &[1]);
        tx.version = Version(version);
        for (input, sequence) in tx.input.iter_mut().zip(sequences) {
            input.sequence = Sequence::from_consensus(sequence);
        }
        let spent = [coin(10, false, 1), coin(100, false, 1)];
        let result = check_sequence_locks(&chain, parsed(&tx).first().unwrap(), &spent);
        assert_eq!(result.err().map(|r| r.code).as_deref(), (!ok).then_some("bad-txns-nonfinal"));
    }

    const OFF: u32 = SEQUENCE_DISABLE_FLAG;

    #[test]
    fn relative_heights_count_from_the_coin() {
        // The block is at height 200.
        check(2, [190, OFF], true);
        check(2, [191, OFF], false);
        check(2, [OFF, 100], true);
        check(2, [OFF, 101], false);
        check(2, [OFF | 0xffff, OFF | 0xffff], true);
        // Bits outside of the mask have no meaning.
        check(2, [0x003f_0000 | 190, OFF], true);
    }

    #[test]
    fn relative_times_count_from_the_parent_of_the_coins_block() {
        // Medians are five blocks behind: from 99 to 199 it is 100 blocks, 60,000 seconds, which
        // are 117.2 units of 512.
        check(2, [OFF, SEQUENCE_TYPE_FLAG | 117], true);
        check(2, [OFF, SEQUENCE_TYPE_FLAG | 118], false);
    }

    #[test]
    fn version_1_has_no_relative_lock_and_negative_ones_do() {
        check(1, [0xffff, 0xffff], true);
        check(0, [0xffff, 0xffff], true);
        check(-1, [0xffff, 0xffff], false);
        check(i32::MIN, [0xffff, 0xffff], false);
    }
}
