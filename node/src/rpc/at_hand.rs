//! Calls whose answer is at hand: they wait for nobody, so that another thread need not be woken for
//! them.

use bitcoin::BlockHash;
use serde_json::Value;

use super::WarmUp;

/// Longest body that is looked at: there is a method, and perhaps a hash.
const BODY_BYTES_MAX: usize = 512;

/// Methods that read only what is known beside the chain's thread.
const METHODS: [&str; 3] = ["getblockcount", "getbestblockhash", "uptime"];

/// Returns whether a request is one call that is answered without waiting. A tip that moves at this
/// very moment may still make a header be asked for.
pub(super) fn is_at_hand(warm_up: &WarmUp, body: &[u8]) -> bool {
    if body.len() > BODY_BYTES_MAX {
        return false;
    }
    let Ok(request) = serde_json::from_slice::<Value>(body) else { return false };
    let method = request.get("method").and_then(Value::as_str).unwrap_or_default();
    match method {
        "getblockheader" => is_header_kept(warm_up, &request),
        "getblockhash" => is_hash_kept(warm_up, &request),
        _ => METHODS.contains(&method),
    }
}

/// Whether a header is asked for, described, that was described before.
fn is_header_kept(warm_up: &WarmUp, request: &Value) -> bool {
    let params = request.get("params").and_then(Value::as_array).map(Vec::as_slice);
    let hash = match params {
        Some([hash] | [hash, Value::Bool(true)]) => hash.as_str(),
        _ => None,
    };
    let hash = hash.and_then(|hash| hash.parse::<BlockHash>().ok());
    let context = warm_up.context().ok();
    hash.zip(context).is_some_and(|(hash, context)| context.headers.has(&context.chain, &hash))
}

/// Whether a hash is asked for that was asked for before, or the one of a neighbour.
fn is_hash_kept(warm_up: &WarmUp, request: &Value) -> bool {
    let params = request.get("params").and_then(Value::as_array).map(Vec::as_slice);
    let Some([height]) = params else { return false };
    let height = height.as_u64().and_then(|height| u32::try_from(height).ok());
    let kept = height.zip(warm_up.context().ok());
    kept.is_some_and(|(height, context)| {
        context.headers.known_hash_at(&context.chain, height).is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_wait_is_not_at_hand() {
        let warm_up = WarmUp::default();
        let at_hand = |body: &str| is_at_hand(&warm_up, body.as_bytes());
        assert!(at_hand(r#"{"method":"getblockcount","id":1}"#));
        assert!(!at_hand(r#"[{"method":"getblockcount","id":1}]"#), "what else is in it?");
        assert!(!at_hand(r#"{"method":"waitfornewblock"}"#) && !at_hand("{"));
        assert!(!at_hand(&format!(r#"{{"method":"getblockcount","id":"{}"}}"#, "x".repeat(512))));
        let hash = "00".repeat(32);
        assert!(!at_hand(&format!(r#"{{"method":"getblockheader","params":["{hash}"]}}"#)));
    }
}
