//! `getblockfrompeer`: one block, from a peer of the user's choice.

use bitcoin::BlockHash;
use serde_json::json;

use super::call::{Args, json as required, text};
use super::{Context, Method, RpcError, RpcResult, code};

pub(super) const METHODS: &[Method] = &[Method {
    name: "getblockfrompeer",
    params: &[text("blockhash"), required("peer_id")],
    run: get_block_from_peer,
}];

fn get_block_from_peer(context: &Context, args: &Args) -> RpcResult {
    let hash: BlockHash = args.hash(0)?;
    let id: i64 = args.integer(1)?;
    let fault = |text: &str| RpcError::new(code::MISC_ERROR, text);
    let is_stored = context.chain.query(move |chain| {
        let headers = chain.headers();
        headers.get(&hash).map(|at| headers.entry(at).block.is_some())
    })?;
    match is_stored {
        None => return Err(fault("Block header missing")),
        Some(true) => return Err(fault("Block already downloaded")),
        Some(false) => {}
    }
    let id = u64::try_from(id).map_err(|_| fault("Peer does not exist"))?;
    context.peers.fetch_block(id, hash).map_err(fault)?;
    Ok(json!({}))
}
