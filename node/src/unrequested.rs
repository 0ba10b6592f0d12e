//! Blocks that nobody asked for: which of them are stored.

use std::sync::Arc;

use bitcoin::block::Header;
use cofferdam_ibd::pow::{block_work, check_proof_of_work};
use cofferdam_ibd::sync::work_threshold;
use cofferdam_ibd::{Chainstate, Rejection};

/// How far above the tip a block may be that nobody asked for (Core's `MIN_BLOCKS_TO_KEEP`).
const UNREQUESTED_AHEAD_MAX: u32 = 288;

/// Whether a block is wanted that nobody asked for.
pub(crate) enum Welcome {
    /// It is stored.
    Yes,
    /// It is left out.
    No,
    /// Its header breaks a rule.
    Rejected(Rejection),
}

/// Takes the header of a block in that nobody asked for, if its chain has enough work, and returns
/// whether the block is worth storing: with the minimum work, no worse than the tip, and near it
/// (Bitcoin Core's `AcceptBlock`).
pub(crate) fn welcome(
    chainstate: &mut Chainstate,
    header: &Header,
    now: u32,
) -> cofferdam_ibd::Result<Welcome> {
    let params = Arc::clone(chainstate.params());
    let hash = header.block_hash();
    let headers = chainstate.headers();
    let parent = headers.get(&header.prev_blockhash).map(|parent| headers.entry(parent));
    if let Some(parent) = parent.filter(|_| headers.get(&hash).is_none()) {
        // The work that a header claims counts only once it is done.
        let is_worked = check_proof_of_work(header, &params).is_ok();
        let work = || parent.chain_work + block_work(header.bits);
        if is_worked && work() < work_threshold(headers, chainstate.tip_ref(), &params) {
            let text = "missing anti-dos proof-of-work validation";
            tracing::debug!("AcceptBlockHeader: not adding new block header {hash}, {text}");
            return Ok(Welcome::No);
        }
    }
    if let Err(rejection) = chainstate.accept_headers(&[*header], now)? {
        return Ok(Welcome::Rejected(rejection));
    }
    let headers = chainstate.headers();
    let tip = headers.entry(chainstate.tip_ref());
    let entry = headers.get(&hash).map(|at| headers.entry(at));
    let is_welcome = entry.is_some_and(|entry| {
        // A block that was there and was pruned is wanted by nobody.
        entry.tx_count == 0
            && entry.chain_work >= tip.chain_work
            && entry.chain_work >= params.minimum_chain_work
            && entry.height <= tip.height.saturating_add(UNREQUESTED_AHEAD_MAX)
    });
    Ok(if is_welcome { Welcome::Yes } else { Welcome::No })
}
