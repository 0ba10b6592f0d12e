//! Are mined regtest blocks the very bytes that Bitcoin Core mines?
//!
//! The reference is the chain of `cofferdam_tests::core_chain`. Over RPC: `tests/contract/framework.rs`.

use std::str::FromStr as _;

use bitcoin::hex::DisplayHex as _;
use bitcoin::{Address, ScriptBuf};
use cofferdam_ibd::{Network, mining};
use cofferdam_storage::BackendKind;
use cofferdam_tests::chain;
use cofferdam_tests::core_chain::{ADDRESSES, BLOCK_1, HASH_SERIALIZED_3, HASHES, MUHASH};

fn script(address: &str) -> ScriptBuf {
    let address = Address::from_str(address).expect("an address");
    address.require_network(bitcoin::Network::Regtest).expect("of regtest").script_pubkey()
}

#[test]
fn two_hundred_blocks_equal_bitcoind_s() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut chainstate = chain::open(Network::Regtest, BackendKind::Memory, dir.path());
    let now = chainstate.params().genesis.header.time;
    for height in 1..200_u32 {
        let turn = (height as usize - 1) / 25 % ADDRESSES.len();
        let mut block = mining::assemble_block(&chainstate, &script(ADDRESSES[turn]), now);
        let mut tries = 1_000_000;
        assert!(mining::solve(&mut block, chainstate.params(), &mut tries));
        let raw = bitcoin::consensus::serialize(&block);
        if height == 1 {
            assert_eq!(raw.to_lower_hex_string(), BLOCK_1);
        }
        chain::store(&mut chainstate, &[raw]);
        assert_eq!(chain::advance(&mut chainstate).connected, 1, "at height {height}");
        if let Some((_, hash)) = HASHES.iter().find(|(at, _)| *at == height) {
            assert_eq!(chainstate.tip().hash.to_string(), *hash, "at height {height}");
        }
    }
    let state = chain::state(&chainstate);
    assert_eq!((state.height, state.utxo_count), (199, 199));
    assert_eq!(state.total_amount, 8_700 * 100_000_000);
    assert_eq!((&*state.hash_serialized_3, &*state.muhash), (HASH_SERIALIZED_3, MUHASH));
}
