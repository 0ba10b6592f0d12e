//! Are scripts left out exactly where Bitcoin Core leaves them out (`ConnectBlock` in its
//! `validation.cpp`): below the assumed-valid block, in the best header chain, of the minimum work,
//! more than two weeks of work deep? A block with a bad script shows whether it was looked at.

use std::io;
use std::sync::{Arc, Mutex};

use bitcoin::block::Header;
use bitcoin::hashes::Hash as _;
use bitcoin::{Block, BlockHash};
use cofferdam_ibd::testing::{Fault, ModelChain};
use cofferdam_ibd::{AssumeValid, ChainParams, ChainstateOptions, Network, mining};
use cofferdam_storage::BackendKind;
use cofferdam_storage::testing::Random;
use cofferdam_tests::chain::{self, NOW};

/// Headers above the bad block that are just enough: two weeks are 2,016 blocks, and it takes more.
const DEEP: usize = 2_017;

/// A chain whose last but two blocks is bad, and what is assumed of it.
struct Case {
    fault: Fault,
    assume: AssumeValid,
    /// Headers from the bad block on, it left out.
    above: usize,
    /// Headers of a branch beside the bad block that has more work.
    beside: usize,
    /// Whether the minimum work is more than there is.
    too_little_work: bool,
}

/// The blocks: all up to the bad one, and two behind it.
fn blocks(fault: Fault) -> (Vec<Block>, usize) {
    let (mut model, mut blocks) = ModelChain::funded(24);
    let mut random = Random::new(1);
    let bad = model.faulty_block(fault, &mut random).expect("there are coins");
    let at = blocks.len();
    model.connect(&bad);
    blocks.push(bad);
    for number in 0..2 {
        let block = model.block(number, Vec::new());
        model.connect(&block);
        blocks.push(block);
    }
    (blocks, at)
}

/// Headers on top of one, a second apart.
fn headers_on(mut parent: Header, count: usize, nonce: u32) -> Vec<Header> {
    let params = ChainParams::new(Network::Regtest);
    let child = |_| {
        let header = Header {
            prev_blockhash: parent.block_hash(),
            time: parent.time + 1,
            nonce,
            merkle_root: bitcoin::TxMerkleNode::from_byte_array([7; 32]),
            ..parent
        };
        let mut block = Block { header, txdata: Vec::new() };
        assert!(mining::solve(&mut block, &params, &mut 10_000), "regtest is easy");
        parent = block.header;
        parent
    };
    (0..count).map(child).collect()
}

/// What is logged while something is done.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Does something, and returns what was logged meanwhile by this thread.
fn logged<T>(run: impl FnOnce() -> T) -> (T, String) {
    let lines = Lines::default();
    let writer = lines.clone();
    let log = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
    let done = tracing::subscriber::with_default(log.finish(), run);
    let bytes = lines.0.lock().expect("no panic").clone();
    (done, String::from_utf8(bytes).expect("UTF-8"))
}

/// Returns the reason for which the chain is refused, if it is.
fn refused(case: &Case) -> Option<String> {
    let (blocks, at) = blocks(case.fault);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut params = ChainParams::new(Network::Regtest);
    if case.too_little_work {
        params.minimum_chain_work = bitcoin::Work::from_be_bytes([1; 32]);
    }
    let options = ChainstateOptions {
        assume_valid: case.assume,
        params: Arc::new(params),
        ..chain::options(Network::Regtest, dir.path())
    };
    let mut chainstate = chain::open_with(options, BackendKind::Memory);
    let mut headers: Vec<Header> = blocks.iter().map(|block| block.header).collect();
    let last = *headers.last().expect("there are blocks");
    headers.extend(headers_on(last, case.above - 2, 0));
    headers.extend(headers_on(blocks.get(at - 1).expect("funded").header, case.beside, 1 << 30));
    chainstate.accept_headers(&headers, NOW).expect("works").expect("fine headers");
    let raw: Vec<Vec<u8>> = blocks.iter().map(bitcoin::consensus::serialize).collect();
    chain::store(&mut chainstate, &raw);
    let advance = chain::advance(&mut chainstate);
    let invalid = advance.invalid.first().map(|(hash, rejection)| {
        assert_eq!(Some(*hash), blocks.get(at).map(Block::block_hash));
        rejection.code.to_string()
    });
    let expected = if invalid.is_some() { at } else { blocks.len() };
    assert_eq!(chainstate.tip().height as usize, expected);
    invalid
}

#[test]
fn scripts_are_left_out_under_cores_conditions_alone() {
    let (blocks, at) = blocks(Fault::Script);
    let hash = |at: usize| blocks.get(at).expect("in the chain").block_hash();
    let block = |at| AssumeValid::Block(hash(at));
    let script = Some(Fault::Script.code().to_owned());
    let case = |assume, above, beside, too_little_work| Case {
        fault: Fault::Script,
        assume,
        above,
        beside,
        too_little_work,
    };
    let unknown = AssumeValid::Block(BlockHash::from_byte_array([9; 32]));
    let on = |height: usize, why: &str| {
        format!("Enabling script verification at block #{height} ({}): {why}.", hash(height - 1))
    };
    let off = format!("Disabling script verification at block #1 ({}).", hash(0));
    let branch = headers_on(blocks.get(at - 1).expect("funded").header, 5, 1 << 30);
    let branch = AssumeValid::Block(branch.last().expect("five").block_hash());
    let elsewhere = on(at + 1, "block not in assumevalid chain");
    let parent_only = on(at + 1, "block height above assumevalid height");
    for (name, case, expected, line) in [
        (
            "nothing",
            case(AssumeValid::Off, DEEP, 0, false),
            &script,
            on(1, "assumevalid=0 (always verify)"),
        ),
        ("the block itself", case(block(at), DEEP, 0, false), &None, off.clone()),
        ("a block above", case(block(at + 2), DEEP, 0, false), &None, off.clone()),
        ("a block of a branch", case(branch, DEEP, 5, false), &script, elsewhere),
        ("only its parent", case(block(at - 1), DEEP, 0, false), &script, parent_only),
        (
            "an unknown block",
            case(unknown, DEEP, 0, false),
            &script,
            on(1, "assumevalid hash not in headers"),
        ),
        (
            "two weeks of work above it",
            case(block(at), DEEP - 1, 0, false),
            &script,
            on(at + 1, "block too recent relative to best header"),
        ),
        (
            "less than the minimum work",
            case(block(at), DEEP, 0, true),
            &script,
            on(1, "best header chainwork below minimumchainwork"),
        ),
        (
            "the best headers are others",
            case(block(at), DEEP, DEEP + 2, false),
            &script,
            on(at + 1, "block not in best header chain"),
        ),
        ("others have as much work", case(block(at), DEEP, DEEP + 1, false), &None, off),
    ] {
        let (found, lines) = logged(|| refused(&case));
        assert_eq!(found, *expected, "{name}");
        assert!(lines.contains(&line), "{name}: {line} in {lines}");
    }
}

#[test]
fn nothing_but_scripts_is_left_out() {
    for fault in [Fault::Reward, Fault::MissingInput, Fault::Premature, Fault::SequenceLock] {
        let (blocks, at) = blocks(fault);
        let assume = AssumeValid::Block(blocks.get(at).expect("in the chain").block_hash());
        let case = Case { fault, assume, above: DEEP, beside: 0, too_little_work: false };
        assert_eq!(refused(&case).as_deref(), Some(fault.code()));
    }
}
