//! Would a bug that other implementations have had be one here? One test for each, by its number.
#![expect(clippy::indexing_slicing, reason = "a test fails by a panic")]

mod amounts;
mod limits;
mod messages;
mod mutation;
mod peer;
mod repeats;
mod scripts;
mod splits;

use std::path::Path;

use bitcoin::consensus::serialize;
use bitcoin::{Amount, Block, BlockHash, ScriptBuf, TxOut};
use cofferdam_ibd::headers::HeaderStatus;
use cofferdam_ibd::{BlockAccepted, Chainstate, Network};
use cofferdam_storage::BackendKind;
use cofferdam_tests::chain::{self, NOW};

const BACKENDS: [BackendKind; 4] = BackendKind::ALL;

/// Opens a chainstate with blocks connected.
fn with(backend: BackendKind, dir: &Path, blocks: &[Block]) -> Chainstate {
    let mut chainstate = chain::open(Network::Regtest, backend, dir);
    give(&mut chainstate, blocks);
    chainstate
}

/// Gives blocks that have to be fine, and connects them.
fn give(chainstate: &mut Chainstate, blocks: &[Block]) {
    let raw: Vec<_> = blocks.iter().map(serialize).collect();
    chain::store(chainstate, &raw);
    chain::settle(chainstate);
}

/// Gives a block that has to be refused as it arrives; returns Bitcoin Core's reason.
fn refused(chainstate: &mut Chainstate, block: &Block) -> String {
    match chainstate.accept_block(serialize(block), NOW).expect("works") {
        BlockAccepted::Rejected(rejection) => rejection.code.into_owned(),
        other => panic!("{other:?}"),
    }
}

/// Gives a block that is found to be invalid when it is connected; returns Bitcoin Core's reason.
fn invalid(chainstate: &mut Chainstate, block: &Block) -> String {
    chain::store(chainstate, &[serialize(block)]);
    let advance = chain::advance(chainstate);
    let [(hash, rejection)] = advance.invalid.as_slice() else { panic!("{advance:?}") };
    assert_eq!(*hash, block.block_hash());
    rejection.code.to_string()
}

fn is_condemned(chainstate: &Chainstate, hash: BlockHash) -> bool {
    let headers = chainstate.headers();
    headers.get(&hash).is_some_and(|at| headers.entry(at).status.has(HeaderStatus::FAILED))
}

/// An output that anybody can spend.
fn anyones(value: u64) -> TxOut {
    TxOut { value: Amount::from_sat(value), script_pubkey: anyone() }
}

fn anyone() -> ScriptBuf {
    vec![0x51].into()
}
