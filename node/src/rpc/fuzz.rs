//! What fuzzers call: any bytes as the body of a call, as far as no node is needed.

use std::cell::Cell;

use serde_json::Value;

use super::call::Args;
use super::envelope::answer;
use super::{RpcError, code, method};

/// Answers any bytes as a request, binding its arguments to the method it names. Returns whether a
/// method was reached.
///
/// # Panics
///
/// Panics if the reply is not what clients can read: JSON with a status of Core's, or nothing.
#[must_use]
pub fn rpc_request(data: &[u8]) -> bool {
    let reached = Cell::new(false);
    let reply = answer(data, None, |name, params| {
        let not_found = || RpcError::new(code::METHOD_NOT_FOUND, "Method not found");
        let method = method(name).ok_or_else(not_found)?;
        reached.set(true);
        let args = Args::bind(method, params)?;
        assert!(args.len() <= method.params.len(), "no more arguments than parameters");
        Ok(Value::Array(args.values().to_vec()))
    });
    assert!([200, 204, 400, 404, 500].contains(&reply.status), "{}", reply.status);
    assert_eq!(reply.body.is_empty(), reply.status == 204, "only a notification has no reply");
    if !reply.body.is_empty() {
        assert!(serde_json::from_str::<Value>(&reply.body).is_ok(), "a reply that is not JSON");
    }
    reached.get()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// Fewest files of a corpus that is there.
    const FILES_MIN: usize = 20;

    #[test]
    fn the_corpus_is_answered_both_ways() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/rpc_request");
        let (mut reached, mut refused) = (0, 0);
        for entry in std::fs::read_dir(dir).expect("the corpus") {
            let bytes = std::fs::read(entry.expect("readable").path()).expect("readable");
            if rpc_request(&bytes) { reached += 1 } else { refused += 1 }
        }
        assert!(reached > 0 && refused > 0, "{reached} reached a method, {refused} did not");
        assert!(reached + refused >= FILES_MIN, "the corpus is gone");
    }

    /// Every file of the corpus with every byte changed, and cut off at every place.
    #[test]
    fn damaged_requests_are_answered() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/rpc_request");
        for entry in std::fs::read_dir(dir).expect("the corpus") {
            let bytes = std::fs::read(entry.expect("readable").path()).expect("readable");
            for at in 0..bytes.len().min(400) {
                let _ = rpc_request(&bytes[..at]);
                let mut damaged = bytes.clone();
                for change in [0x00, b'"', b'[', b'}', 0xff] {
                    damaged[at] = change;
                    let _ = rpc_request(&damaged);
                }
            }
        }
    }
}
