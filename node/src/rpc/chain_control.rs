//! Methods that decide about blocks against the rules: reject, reconsider, prefer.

use std::time::{Duration, Instant};

use bitcoin::BlockHash;
use serde_json::Value;

use super::blockchain::find;
use super::call::{Args, text};
use super::{Context, Method, RpcError, RpcResult};
use crate::chain::Worker;

/// How long the chain's thread is taken at a time.
const SLICE: Duration = Duration::from_millis(200);

pub(super) const METHODS: &[Method] = &[
    Method { name: "invalidateblock", params: &[text("blockhash")], run: invalidate_block },
    Method {
        name: "preciousblock",
        params: &[text("blockhash")],
        run: |context, args| {
            let hash: BlockHash = args.hash(0)?;
            context.chain.query(move |chain| {
                let at = find(chain, &hash)?;
                chain.precious_block(at);
                Ok::<_, RpcError>(())
            })??;
            connect(context)
        },
    },
    Method {
        name: "reconsiderblock",
        params: &[text("blockhash")],
        run: |context, args| {
            let hash: BlockHash = args.hash(0)?;
            let at = context.chain.query(move |chain| find(chain, &hash))??;
            context.chain.change(move |worker| worker.chainstate.reconsider_block(at))?;
            connect(context)
        },
    },
];

fn invalidate_block(context: &Context, args: &Args) -> RpcResult {
    let hash: BlockHash = args.hash(0)?;
    let at = context.chain.query(move |chain| find(chain, &hash))??;
    let step = move |worker: &mut Worker| {
        let step = worker.chainstate.invalidate_block(at, Instant::now() + SLICE)?;
        // Not if it could not be marked: nothing is known to be wrong with it then.
        if step.done && !worker.chainstate.is_connected(at) {
            worker.tell_invalidated(at)?;
        }
        Ok(step)
    };
    while !context.chain.change(step)?.done {
        if context.shutdown.is_requested() {
            return Ok(Value::Null);
        }
    }
    connect(context)
}

/// Moves the tip to the best block before the call returns.
fn connect(context: &Context) -> RpcResult {
    while !context.chain.change(|worker| worker.connect(SLICE))?.done {
        if context.shutdown.is_requested() {
            break;
        }
    }
    Ok(Value::Null)
}
