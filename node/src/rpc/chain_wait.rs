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
        run: |context, args| {
            let wanted: BlockHash = args.hash(0)?;
            wait(context, args, 1, move |tip| tip.hash == wanted)
        },
    },
    Method {
        name: "waitforblockheight",
        params: &[required("height"), optional("timeout")],
        run: |context, args| {
            let wanted: i32 = args.integer(0)?;
            wait(context, args, 1, move |tip| i64::from(tip.height) >= i64::from(wanted))
        },
    },
    Method {
        name: "syncwithvalidationinterfacequeue",
        params: &[],
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
    let milliseconds = u64::try_from(args.optional_integer::<i32>(timeout)?.unwrap_or(0))
        .map_err(|_| RpcError::new(code::MISC_ERROR, "Negative timeout"))?;
    let time = (milliseconds > 0).then(|| Duration::from_millis(milliseconds));
    let tip = context.chain.wait_for_tip(time, wanted);
    Ok(json!({"hash": tip.hash.to_string(), "height": tip.height}))
}
