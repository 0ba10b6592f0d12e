//! What a block owes to its height and its ancestors (`ContextualCheckBlock` in Bitcoin Core's
//! `validation.cpp`).

use bitcoin::script::Builder;

use super::witness::check_witnesses;
use super::{CheckedBlock, WEIGHT_MAX};
use crate::params::ChainParams;
use crate::pow::{HeaderChain, median_time_past};
use crate::rejection::Rejection;
use crate::tx::is_final_tx;

/// Checks a block as a child of the last header of `parent`.
///
/// # Errors
///
/// Returns `bad-txns-nonfinal`, `bad-cb-height`, `bad-witness-nonce-size`,
/// `bad-witness-merkle-match`, `unexpected-witness` or `bad-blk-weight`.
pub fn check_block_context(
    params: &ChainParams,
    parent: &impl HeaderChain,
    block: &CheckedBlock,
) -> Result<(), Rejection> {
    let height = parent.height() + 1;
    let time =
        if height >= params.csv_height { median_time_past(parent) } else { block.header().time };
    if !block.txs().iter().all(|tx| is_final_tx(tx, height, time)) {
        let detail = "non-final transaction";
        return Err(Rejection::consensus("bad-txns-nonfinal").with_detail(detail));
    }
    if height >= params.bip34_height && !begins_with_height(block, height) {
        let detail = "block height mismatch in coinbase";
        return Err(Rejection::consensus("bad-cb-height").with_detail(detail));
    }
    check_block_witnesses(block, height >= params.segwit_height)?;
    // Not before: as long as the coinbase's witness was not checked, anyone could make it long.
    if block.weight() as u64 > WEIGHT_MAX {
        let detail = "ContextualCheckBlock : weight limit failed";
        return Err(Rejection::consensus("bad-blk-weight").with_detail(detail));
    }
    Ok(())
}

/// Checks that a block's witnesses are those that it commits to. It is what shows for a block that
/// was read back whether its witnesses are still those that were accepted. `expected` says whether a
/// commitment may be due at its height.
///
/// # Errors
///
/// Returns `bad-witness-nonce-size`, `bad-witness-merkle-match` or `unexpected-witness`.
pub(crate) fn check_block_witnesses(block: &CheckedBlock, expected: bool) -> Result<(), Rejection> {
    check_witnesses(block.commitment(), block.has_witness, expected)
}

/// BIP-0034: the coinbase's script begins with a push of the height, as Core's `CScript` makes it.
fn begins_with_height(block: &CheckedBlock, height: u32) -> bool {
    let expected = Builder::new().push_int(i64::from(height)).into_script();
    let input = block.txs().first().and_then(|coinbase| coinbase.inputs().next());
    input.is_some_and(|input| input.script_sig().as_bytes().starts_with(expected.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::merkle_root;
    use crate::hash::hash_pair;
    use crate::params::Network;
    use crate::rejection::RejectionScope;
    use crate::testing::{Chain, block, checked, coinbase, mine, outpoint, payment};
    use bitcoin::absolute::LockTime;
    use bitcoin::hashes::Hash as _;
    use bitcoin::{Amount, Block, ScriptBuf, Sequence, TxOut, Witness};

    #[track_caller]
    fn check(block: Block, params: &ChainParams, expected: Option<(&str, RejectionScope)>) {
        let parent = Chain(vec![params.genesis.header]);
        let block = checked(&block);
        let result = check_block_context(params, &parent, &block).err();
        let result = result.as_ref().map(|rejection| (&*rejection.code, rejection.scope));
        assert_eq!(result, expected);
    }

    fn regtest() -> ChainParams {
        ChainParams::new(Network::Regtest)
    }

    fn good() -> Block {
        block(vec![coinbase(1, 50), payment(&[outpoint(1)], &[1])])
    }

    /// Adds a witness to the payment, and what commits to it.
    fn with_witness(witness: &[u8]) -> Block {
        let mut block = good();
        block.txdata[1].input[0].witness.push(witness);
        commit(&mut block);
        block
    }

    fn commit(block: &mut Block) {
        let wtxid = |tx: &bitcoin::Transaction| tx.compute_wtxid().to_byte_array();
        let (root, _) = merkle_root(vec![[0; 32], wtxid(&block.txdata[1])]);
        let hash = hash_pair(&root, &[7; 32]);
        let script = [&[0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed], hash.as_slice()].concat();
        let script_pubkey = ScriptBuf::from_bytes(script);
        block.txdata[0].output.push(TxOut { value: Amount::ZERO, script_pubkey });
        block.txdata[0].input[0].witness = Witness::from_slice(&[[7; 32]]);
        mine(block);
    }

    #[test]
    fn the_coinbase_has_the_height() {
        check(good(), &regtest(), None);
        let other = block(vec![coinbase(2, 50)]);
        check(other.clone(), &regtest(), Some(("bad-cb-height", RejectionScope::Header)));
        check(other, &ChainParams { bip34_height: 2, ..regtest() }, None);
        // The whole push has to be there; more may follow.
        for (height, script, ok) in [
            (1, "51", true),
            (16, "60", true),
            (17, "0111", true),
            (17, "0112", false),
            (128, "028000", true),
            (128, "0180", false),
            (0x12_3456, "03563412ff", true),
            (0x12_3456, "0356", false),
        ] {
            let mut tx = coinbase(1, 50);
            tx.input[0].script_sig = ScriptBuf::from_hex(script).unwrap();
            if tx.input[0].script_sig.len() < 2 {
                tx.input[0].script_sig.push_opcode(bitcoin::opcodes::OP_0);
            }
            let block = checked(&block(vec![tx]));
            assert_eq!(begins_with_height(&block, height), ok, "{height} {script}");
        }
    }

    #[test]
    fn transactions_are_final() {
        let mut locked = good();
        // The parent's median time is what counts since BIP-0113, the block's own before.
        let time = regtest().genesis.header.time;
        locked.txdata[1].lock_time = LockTime::from_consensus(time);
        locked.txdata[1].input[0].sequence = Sequence::ZERO;
        mine(&mut locked);
        let nonfinal = Some(("bad-txns-nonfinal", RejectionScope::Header));
        check(locked.clone(), &regtest(), nonfinal);
        check(locked.clone(), &ChainParams { csv_height: 2, ..regtest() }, None);
        locked.txdata[1].lock_time = LockTime::from_consensus(time - 1);
        mine(&mut locked);
        check(locked.clone(), &regtest(), None);
        locked.txdata[1].lock_time = LockTime::from_consensus(1);
        mine(&mut locked);
        check(locked, &regtest(), nonfinal);
    }

    #[test]
    fn witnesses_are_those_committed_to() {
        let good = with_witness(b"good");
        check(good.clone(), &regtest(), None);

        let mut other = good.clone();
        other.txdata[1].input[0].witness = Witness::from_slice(&[b"bad"]);
        let mismatch = Some(("bad-witness-merkle-match", RejectionScope::Bytes));
        check(other, &regtest(), mismatch);

        let size = Some(("bad-witness-nonce-size", RejectionScope::Bytes));
        for witness in
            [Witness::new(), Witness::from_slice(&[[7; 31]]), Witness::from_slice(&[[7; 32]; 2])]
        {
            let mut nonce = good.clone();
            nonce.txdata[0].input[0].witness = witness;
            check(nonce, &regtest(), size);
        }

        // Before segwit a commitment has no meaning, and a witness no place.
        let before = ChainParams { segwit_height: 2, ..regtest() };
        let unexpected = Some(("unexpected-witness", RejectionScope::Bytes));
        check(good.clone(), &before, unexpected);
        let mut bare = good;
        bare.txdata[0].input[0].witness = Witness::new();
        bare.txdata[1].input[0].witness = Witness::new();
        check(bare, &before, None);
    }

    #[test]
    fn a_witness_needs_a_commitment() {
        let mut block = good();
        block.txdata[1].input[0].witness.push(b"free");
        check(block, &regtest(), Some(("unexpected-witness", RejectionScope::Bytes)));
    }

    #[test]
    fn the_last_commitment_counts() {
        let mut block = good();
        block.txdata[1].input[0].witness.push(b"good");
        let mut wrong = vec![0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];
        wrong.resize(38, 0);
        let script_pubkey = ScriptBuf::from_bytes(wrong);
        let wrong = TxOut { value: Amount::ZERO, script_pubkey };
        block.txdata[0].output.push(wrong.clone());
        commit(&mut block);
        check(block.clone(), &regtest(), None);
        block.txdata[0].output.push(wrong);
        mine(&mut block);
        check(block, &regtest(), Some(("bad-witness-merkle-match", RejectionScope::Bytes)));
    }

    #[test]
    fn the_weight_is_bounded() {
        let long = with_witness(&vec![0; 4_000_000]);
        check(long, &regtest(), Some(("bad-blk-weight", RejectionScope::Header)));
        let rest = with_witness(&vec![0; 3_900_000]).weight().to_wu();
        let fitting =
            with_witness(&vec![0; 3_900_000 + usize::try_from(WEIGHT_MAX - rest).unwrap()]);
        assert_eq!(fitting.weight().to_wu(), WEIGHT_MAX);
        check(fitting, &regtest(), None);
    }
}
