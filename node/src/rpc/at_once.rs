//! Calls that are answered by the thread that read them: what they ask for is in memory, and handing
//! a call to another thread takes longer than the answer.
//!
//! Invariant: nothing here waits for the chain's thread, for a disk or for a lock that is held over
//! either: one thread reads all connections. A call whose answer is not at hand is answered as any
//! other.

use serde_json::Value;

use super::{Context, RpcResult, WarmUp};

/// Most bytes of a request that is read for this: those of these methods are shorter.
pub(super) const REQUEST_BYTES_MAX: usize = 512;

/// Returns the result of a call if it is at hand.
pub(super) fn at_once(warm_up: &WarmUp, method: &str, params: &Value) -> Option<RpcResult> {
    let context = warm_up.context().ok()?;
    match method {
        "getbestblockhash" | "getblockcount" => {
            Some(super::execute(warm_up, method, params.clone()))
        }
        "getblockheader" => header(context, params).map(Ok),
        _ => None,
    }
}

/// Describes a header of which only the hash is given.
fn header(context: &Context, params: &Value) -> Option<Value> {
    let [Value::String(hash)] = params.as_array()?.as_slice() else { return None };
    let _active = context.calls.enter("getblockheader");
    context.headers.fields_at_hand(&context.chain, &hash.parse().ok()?).map(Value::Object)
}
