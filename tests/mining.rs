//! Are mined regtest blocks the very bytes that Bitcoin Core mines?
//!
//! The reference is the chain of 199 blocks that the functional test framework of Bitcoin Core mines
//! with a real `bitcoind` before its tests: 25 blocks at a time to four addresses in turn, at the
//! genesis block's time.

use std::str::FromStr as _;

use bitcoin::hex::DisplayHex as _;
use bitcoin::{Address, ScriptBuf};
use cofferdam_ibd::{Network, mining};
use cofferdam_storage::BackendKind;
use cofferdam_tests::chain;

const ADDRESSES: [&str; 4] = [
    "mjTkW3DjgyZck4KbiRusZsqTgaYTxdSz6z",
    "msX6jQXvxiNhx3Q62PKeLPrhrqZQdSimTg",
    "mnonCMyH9TmAsSj3M59DsbH8H63U3RKoFP",
    "bcrt1p9yfmy5h72durp7zrhlw9lf7jpwjgvwdg0jr0lqmmjtgg83266lqsekaqka",
];

const HASHES: [(u32, &str); 6] = [
    (1, "4a31ceeaab3807a7441be5f951d86a4682a217bff37123f34196e2709d852f5e"),
    (2, "196ee3a1a6db2353965081c48ef8e6b031cb2115d084bec6fec937e91a2c6277"),
    (25, "1c26c01bfaa31f32c900b9bfca7000f2b719013f1234d3b15aa8e8a512ca7b1f"),
    (100, "0722dc8920f2e32ee39c8a0fe304e359c61023dc76772ef29b4098f2235e3fb9"),
    (150, "69fb4080328217f2e27992a84fc5950663c4242eaf272691dcc6697a06be2946"),
    (199, "70561696b71207e34ce30fd728f44836b9a49b391af801d77b4621e3cb16e888"),
];

const BLOCK_1: &str = "0000002006226e46111a0b59caaf126043eb5bbf28c34f3a5e332a1fc7b2b73cf188910f\
    35b99ed4e2e165de2ad77f1bba48049358c9bb740445f3c83ebdb3e83aa5bca8dbe5494dffff7f200000000001020000\
    000001010000000000000000000000000000000000000000000000000000000000000000ffffffff025100feffffff02\
    00f2052a010000001976a9142b4569203694fc997e13f2c0a1383b9e16c77a0d88ac0000000000000000266a24aa21a9\
    ede2f61c3f71d1defd3fa999dfa36953755c690689799962b48bebd836974e8cf9012000000000000000000000000000\
    0000000000000000000000000000000000000000000000";

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
            assert_eq!(raw.to_lower_hex_string(), BLOCK_1.replace(' ', ""));
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
    assert_eq!(
        state.hash_serialized_3,
        "b39c1e0941942fde2c51653ff4dd182472878a1c882ca3cc790688db33e469d1"
    );
    assert_eq!(state.muhash, "36534f06309cd7f54739afe99c2224e39a53a759da8973f057fe257b1b961c79");
}
