//! Methods that wait for the chain.

use std::time::Duration;

use bitcoin::BlockHash;
use cofferdam_ibd::BlockRef;
use serde_json::{Value, json};

use super::call::{Args, json as required, optional, optional_text, text};
use super::{Context, Method, RpcError, RpcResult, code};

pub(super) const METHODS: &[Method] = &[
    Method {
        name: "waitfornewblock",
        params: &[optional("timeout"), optional_text("current_tip")],
        help: "Waits for any new block and returns useful info about it. timeout is in milliseconds; 0 is for ever.",
        run: |context, args| {
            let current = match args.get(1) {
                Some(_) => args.hash(1)?,
                None => context.chain.view().tip.hash,
            };
            wait(context, args, 0, move |tip| tip.hash != current)
        },
    },
    Method {
        name: "waitforblock",
        params: &[text("blockhash"), optional("timeout")],
        help: "Waits for a specific new block and returns useful info about it.",
        run: |context, args| {
            let wanted: BlockHash = args.hash(0)?;
            wait(context, args, 1, move |tip| tip.hash == wanted)
        },
    },
    Method {
        name: "waitforblockheight",
        params: &[required("height"), optional("timeout")],
        help: "Waits for (at least) block height and returns the height and hash of the current tip.",
        run: |context, args| {
            let wanted = args.integer(0)?;
            wait(context, args, 1, move |tip| i64::from(tip.height) >= wanted)
        },
    },
    Method {
        name: "syncwithvalidationinterfacequeue",
        params: &[],
        help: "Waits for everything that blocks caused before this call.",
        run: |context, _| {
            context.chain.settle()?;
            Ok(Value::Null)
        },
    },
];

fn wait(
    context: &Context,
    args: &Args,
    timeout: usize,
    wanted: impl Fn(BlockRef) -> bool,
) -> RpcResult {
    let milliseconds = u64::try_from(args.optional_integer(timeout)?.unwrap_or(0))
        .map_err(|_| RpcError::new(code::MISC_ERROR, "Negative timeout"))?;
    let time = (milliseconds > 0).then(|| Duration::from_millis(milliseconds));
    let tip = context.chain.wait_for_tip(time, wanted);
    Ok(json!({"hash": tip.hash.to_string(), "height": tip.height}))
}
