//! Building blocks on the tip, for regtest: the same bytes as Bitcoin Core's `generatetoaddress`.

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::hashes::{Hash as _, sha256d};
use bitcoin::script::Builder;
use bitcoin::transaction::Version as TxVersion;
use bitcoin::{
    Amount, Block, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode, TxOut, Witness,
};

use crate::block::merkle_root;
use crate::chainstate::Chainstate;
use crate::header_check::TIMEWARP_SECONDS_MAX;
use crate::params::ChainParams;
use crate::pow::{HeaderChain, check_proof_of_work, median_time_past, next_work_required};
use crate::subsidy::block_subsidy;

/// What precedes the witness commitment in its output (BIP-0141): `OP_RETURN`, a push of 36 bytes,
/// and the commitment's header.
const COMMITMENT_PREFIX: [u8; 6] = [0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];

/// Builds a block on the tip that pays subsidy to `script`; its proof of work is missing.
///
/// `now` is the time in seconds since 1970; the block's time is later if its ancestors ask
/// for it. The block has no transaction but the coinbase; see [`assemble_block_of`].
#[must_use]
pub fn assemble_block(chainstate: &Chainstate, script: &ScriptBuf, now: u32) -> Block {
    assemble_block_of(chainstate, script, now, BlockParts::default())
}

/// What a new block has beside its coinbase.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BlockParts {
    /// The transactions, parents before their children.
    pub transactions: Vec<Transaction>,
    /// What the coinbase gets beside the subsidy, in satoshis.
    pub fees: u64,
    /// The version, if not the one that signals for deployments (`-blockversion`).
    pub version: Option<i32>,
}

/// Builds a block as [`assemble_block`] does, of these parts.
#[must_use]
pub fn assemble_block_of(
    chainstate: &Chainstate,
    script: &ScriptBuf,
    now: u32,
    parts: BlockParts,
) -> Block {
    let params = chainstate.params();
    let parent = chainstate.headers().chain(chainstate.tip_ref());
    let time = now.max(minimum_time(params, &parent));
    let mut block = Block {
        header: Header {
            version: Version::from_consensus(
                parts.version.unwrap_or_else(|| chainstate.next_block_version()),
            ),
            prev_blockhash: chainstate.tip().hash,
            merkle_root: TxMerkleNode::all_zeros(),
            time,
            bits: next_work_required(params, &parent, time),
            nonce: 0,
        },
        txdata: vec![coinbase(parent.height() + 1, script, params, parts.fees)],
    };
    block.txdata.extend(parts.transactions);
    commit_to_witnesses(&mut block);
    if let Some(root) = block.compute_merkle_root() {
        block.header.merkle_root = root;
    }
    block
}

/// Returns the earliest time of a block on `parent` (`GetMinimumTime`): after the median, and at the
/// begin of a difficulty period not far before the parent. That is BIP-0094's rule, which is kept
/// on all networks so that it may become one of theirs.
#[must_use]
pub fn minimum_time(params: &ChainParams, parent: &impl HeaderChain) -> u32 {
    let height = parent.height();
    let after_median = median_time_past(parent).saturating_add(1);
    if (height + 1).is_multiple_of(params.difficulty_adjustment_interval()) {
        after_median.max(parent.header(height).time.saturating_sub(TIMEWARP_SECONDS_MAX))
    } else {
        after_median
    }
}

/// Counts the nonce up until the block's hash meets its target; returns whether it does after at
/// most `max_tries` hashes, and takes the tries off.
pub fn solve(block: &mut Block, params: &ChainParams, max_tries: &mut u64) -> bool {
    while *max_tries > 0 {
        if check_proof_of_work(&block.header, params).is_ok() {
            return true;
        }
        *max_tries -= 1;
        let Some(nonce) = block.header.nonce.checked_add(1) else {
            return false;
        };
        block.header.nonce = nonce;
    }
    false
}

/// Puts the commitment to the witnesses into the coinbase's second output.
fn commit_to_witnesses(block: &mut Block) {
    let reserved = [0_u8; 32];
    // The coinbase's own id is zero there.
    let ids = block.txdata.iter().skip(1).map(|tx| tx.compute_wtxid().to_byte_array());
    let (root, _) = merkle_root([[0; 32]].into_iter().chain(ids).collect());
    let commitment = sha256d::Hash::hash(&[root, reserved].concat());
    let mut script = COMMITMENT_PREFIX.to_vec();
    script.extend_from_slice(commitment.as_byte_array());
    let output = block.txdata.first_mut().and_then(|coinbase| coinbase.output.get_mut(1));
    if let Some(output) = output {
        output.script_pubkey = ScriptBuf::from_bytes(script);
    }
}

fn coinbase(height: u32, script: &ScriptBuf, params: &ChainParams, fees: u64) -> Transaction {
    let mut script_sig = Builder::new().push_int(i64::from(height)).into_script();
    if height <= 16 {
        // A coinbase script has at least two bytes (`bad-cb-length`).
        script_sig.push_opcode(bitcoin::opcodes::OP_0);
    }
    let reserved = [0_u8; 32];
    Transaction {
        version: TxVersion::TWO,
        lock_time: LockTime::from_consensus(height - 1),
        input: vec![TxIn {
            previous_output: OutPoint::null(),
            script_sig,
            sequence: Sequence::ENABLE_LOCKTIME_NO_RBF,
            // A witness before BIP-0141 would break a rule; the commitment does not.
            witness: if height >= params.segwit_height {
                Witness::from_slice(&[reserved])
            } else {
                Witness::new()
            },
        }],
        output: vec![
            TxOut {
                value: Amount::from_sat(block_subsidy(height, params).saturating_add(fees)),
                script_pubkey: script.clone(),
            },
            // Of the commitment to the witnesses, which is made last.
            TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::new() },
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header_check::check_header_context;
    use crate::params::Network;
    use crate::testing::Chain;

    #[test]
    fn a_block_is_never_before_what_its_ancestors_allow() {
        let mut params = ChainParams::new(Network::Regtest);
        params.enforce_bip94 = true;
        for height in [5, 143, 144, 145, 288] {
            let mut chain = Chain::new(&params.genesis.header, height - 1, 1);
            // A parent from the future, as far as a rule allows.
            chain.last().time += 7200;
            let parent = *chain.last();
            let time = minimum_time(&params, &chain);
            let expected = if height % 144 == 0 { parent.time - 600 } else { 0 };
            assert_eq!(time, expected.max(median_time_past(&chain) + 1), "at height {height}");
            let version = Version::from_consensus(4);
            let mut header = Header { time, version, ..parent };
            assert_eq!(check_header_context(&params, &chain, &header, time), Ok(()));
            header.time -= 1;
            let error = check_header_context(&params, &chain, &header, time).unwrap_err();
            let code = if height % 144 == 0 { "time-timewarp-attack" } else { "time-too-old" };
            assert_eq!(error.code, code, "at height {height}");
        }
    }
}
