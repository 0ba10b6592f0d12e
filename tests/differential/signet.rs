//! Signets: a block needs the signers' solution (BIP-0325).
//!
//! Mining one takes some four million hashes: each block here has its nonce written down.

use bitcoin::consensus::{deserialize, serialize};
use bitcoin::script::Builder;
use bitcoin::{Amount, Block, ScriptBuf, Target, TxOut};
use cofferdam_ibd::{ChainParams, Network, RejectionScope};
use cofferdam_tests::data;

use crate::draft::{COMMITMENT_PREFIX, set_merkle_root};
use crate::pair::Pair;
use crate::wallet::push_bytes;

const FILE: &str = "signet/chain-0-120.blkdat";
const BAD: &str = "bad-signet-blksig";
/// What the push with the solution begins with.
const SOLUTION_PREFIX: [u8; 4] = [0xec, 0xc7, 0xda, 0xa2];

fn block_1() -> Block {
    deserialize(&data::blocks(FILE)[1]).expect("a block")
}

/// The script with commitment and solution.
fn script(block: &mut Block) -> &mut ScriptBuf {
    &mut block.txdata[0].output[1].script_pubkey
}

/// Makes the block anew; `nonce` is the one that is known to do.
fn mine(block: &mut Block, nonce: u32) {
    set_merkle_root(block);
    let target = Target::from_compact(block.header.bits);
    block.header.nonce = nonce;
    if !target.is_met_by(block.block_hash()) {
        let met = |nonce: &u32| {
            block.header.nonce = *nonce;
            target.is_met_by(block.block_hash())
        };
        let found = (0..u32::MAX).find(met);
        panic!("write down another nonce than {nonce}: {found:?}");
    }
}

/// Delivers a block that is mined and has the fault, and then the genuine one.
fn rejected(change: impl FnOnce(&mut Block), nonce: u32) {
    let mut block = block_1();
    change(&mut block);
    mine(&mut block, nonce);
    let mut pair = Pair::open(Network::Signet, "signet");
    let outcome = pair.deliver(&serialize(&block));
    assert_eq!(outcome.fault().map(|fault| fault.reason.as_str()), Some(BAD));
    assert_eq!(pair.deliver(&serialize(&block_1())).fault(), None);
    assert_eq!(pair.tip().0, 1);
}

#[test]
fn a_block_needs_a_solution() {
    // The last byte of the signature's second number.
    rejected(
        |block| {
            let mut bytes = script(block).to_bytes();
            let at = bytes.len() - 3;
            bytes[at] ^= 1;
            *script(block) = bytes.into();
        },
        NONCES[0],
    );
    // Without the solution, and without the commitment that has it.
    rejected(|block| *script(block) = script(block).as_bytes()[..38].to_vec().into(), NONCES[1]);
    rejected(
        |block| {
            block.txdata[0].output.truncate(1);
            block.txdata[0].input[0].witness.clear();
        },
        NONCES[2],
    );
    // Signed, and changed later.
    rejected(|block| block.txdata[0].output[0].value -= Amount::ONE_SAT, NONCES[3]);
}

/// Here the reasons differ, on purpose: Core verifies the signature before it compares the merkle
/// root, and blames the block; here it is found that the header does not commit to these bytes.
/// Neither remembers the block.
#[test]
fn transactions_that_are_not_the_headers_own_condemn_nothing() {
    let mut block = block_1();
    block.txdata[0].output[0].value -= Amount::ONE_SAT;
    let mut pair = Pair::open(Network::Signet, "signet");
    let (ours, core) = pair.compare(&serialize(&block));
    let (ours, core) = (ours.fault().expect("rejected"), core.fault().expect("rejected"));
    assert_eq!((ours.reason.as_str(), ours.scope), ("bad-txnmrklroot", RejectionScope::Bytes));
    assert_eq!(core.reason, BAD);
    assert_eq!(pair.deliver(&serialize(&block_1())).fault(), None);
    assert_eq!(pair.tip().0, 1);
}

/// A signet with a challenge of its own: `OP_TRUE`, which needs no solution, but none that cannot
/// be read either.
#[test]
fn a_challenge_that_anyone_meets() {
    let challenge = ScriptBuf::from_bytes(vec![0x51]);
    let commitment = |solution: &[u8]| {
        let mut block = block_1();
        let push = [&SOLUTION_PREFIX, solution].concat();
        let rest = Builder::new().push_slice(push_bytes(&push)).into_script();
        let front = script(&mut block).as_bytes()[..38].to_vec();
        let with = if solution.is_empty() { Vec::new() } else { rest.to_bytes() };
        *script(&mut block) = [front, with].concat().into();
        block
    };
    assert!(script(&mut block_1()).as_bytes().starts_with(&COMMITMENT_PREFIX));
    let cases: [(&[u8], Option<&str>, u32); 4] = [
        (&[], None, NONCES[4]),
        // An empty script and an empty witness.
        (&[0, 0], None, NONCES[5]),
        (&[0], Some(BAD), NONCES[6]),
        (&[0, 0, 0], Some(BAD), NONCES[7]),
    ];
    for (solution, reason, nonce) in cases {
        let mut block = commitment(solution);
        // A further output, which nobody looks at.
        let script_pubkey = vec![0x6a].into();
        block.txdata[0].output.push(TxOut { value: Amount::ZERO, script_pubkey });
        mine(&mut block, nonce);
        let params = ChainParams::signet(challenge.clone());
        let mut pair = Pair::open_params(params, "a signet of OP_TRUE");
        let outcome = pair.deliver(&serialize(&block));
        assert_eq!(outcome.fault().map(|fault| fault.reason.as_str()), reason, "{solution:?}");
        pair.check_coins();
    }
}

/// Nonces of the blocks above.
const NONCES: [u32; 8] =
    [3_470_858, 4_186_569, 10_406_697, 1_075_003, 4_460_793, 1_521_179, 11_563_249, 602_756];
