//! `getblockfrompeer`: one block, from a peer of the user's choice.

use bitcoin::BlockHash;
use serde_json::json;

use super::call::{Args, json as required, text};
use super::{Context, Method, RpcError, RpcResult, code};
use crate::config::PruneMode;

const AHEAD: &str = "In prune mode, only blocks that the node has already synced previously can be fetched from a peer";

pub(super) const METHODS: &[Method] = &[Method {
    name: "getblockfrompeer",
    params: &[text("blockhash"), required("peer_id")],
    run: get_block_from_peer,
}];

fn get_block_from_peer(context: &Context, args: &Args) -> RpcResult {
    let hash: BlockHash = args.hash(0)?;
    let id: i64 = args.integer(1)?;
    let fault = |text: &str| RpcError::new(code::MISC_ERROR, text);
    let known = context.chain.query(move |chain| {
        let headers = chain.headers();
        let entry = headers.get(&hash).map(|at| headers.entry(at));
        entry.map(|entry| (entry.height > chain.tip().height, entry.block.is_some()))
    })?;
    let (is_ahead, is_stored) = known.ok_or_else(|| fault("Block header missing"))?;
    // A block from far ahead would keep the file it is put into from being pruned.
    if is_ahead && context.chain.prune_mode() != PruneMode::Off {
        return Err(fault(AHEAD));
    }
    if is_stored {
        return Err(fault("Block already downloaded"));
    }
    let id = u64::try_from(id).map_err(|_| fault("Peer does not exist"))?;
    context.peers.fetch_block(id, hash).map_err(fault)?;
    Ok(json!({}))
}
