//! A regtest chain with payments in it, as a file that both nodes can read (`-loadblock`, `import`).

use std::io::Write as _;
use std::path::{Path, PathBuf};

use bitcoin::consensus::serialize;
use bitcoin::{Block, BlockHash};
use cofferdam_ibd::testing::ModelChain;
use cofferdam_storage::testing::Random;

const MAGIC: [u8; 4] = [0xfa, 0xbf, 0xb5, 0xda];
/// Coinbases that can be spent when the payments begin.
const FUNDS: u32 = 40;

/// Writes `blocks` blocks with up to `txs` payments each; returns the path and the last hash.
pub(crate) fn write(dir: &Path, seed: u64, blocks: usize, txs: usize) -> (PathBuf, BlockHash) {
    let mut random = Random::new(seed);
    let (mut chain, mut all) = ModelChain::funded(FUNDS);
    while all.len() < blocks {
        let block = chain.random_block(&mut random, txs);
        chain.connect(&block);
        all.push(block);
    }
    let path = dir.join("chain.blkdat");
    std::fs::write(&path, records(&all)).expect("room");
    (path, chain.tip().hash)
}

/// The blocks as Bitcoin Core's files have them, without obfuscation.
pub(crate) fn records(blocks: &[Block]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for block in blocks {
        let raw = serialize(block);
        let length = u32::try_from(raw.len()).expect("small");
        bytes.write_all(&MAGIC).expect("memory");
        bytes.write_all(&length.to_le_bytes()).expect("memory");
        bytes.write_all(&raw).expect("memory");
    }
    bytes
}
