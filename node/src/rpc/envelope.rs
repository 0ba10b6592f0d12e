//! Requests and replies: JSON-RPC 1.0 and 2.0 as Bitcoin Core answers them.
//!
//! | request | success | failure |
//! |---|---|---|
//! | `"jsonrpc":"2.0"` | 200, no key `error` | 200, no key `result` |
//! | others | 200, `error` is null | 404 unknown method, 500 others; `result` is null |
//! | no request (no method, wrong version) | | 400 |
//! | 2.0 without id (a notification) | 204, no body | 204, no body; 400 if it is no request |
//! | array | 200, array of replies | errors are inside; none of a notification |

use std::collections::HashSet;

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::{RpcError, RpcResult, code, repeats};

/// Requests of one array: more than any program sends at a time.
const BATCH_MAX: usize = 100_000;

/// Bytes of the reply to an array: requests are short, replies may be blocks.
const BATCH_REPLY_BYTES_MAX: usize = 512 << 20;

/// Status and body of an HTTP reply.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Reply {
    /// The status.
    pub(crate) status: u16,
    /// The body; JSON if there is one.
    pub(crate) body: String,
}

#[derive(Debug)]
struct Request {
    id: Option<Value>,
    is_v2: bool,
}

/// Answers the body of a request; `run` executes a method of a request with that id, `allowed` has the
/// methods that the user may call, if not all.
pub(crate) fn answer(
    body: &[u8],
    allowed: Option<&HashSet<String>>,
    run: impl Fn(&str, Value, Option<&Value>) -> RpcResult,
) -> Reply {
    let parsed = serde_json::from_slice::<Value>(body);
    if let Some(allowed) = allowed
        && !parsed.as_ref().is_ok_and(|value| may_call(value, allowed))
    {
        return Reply { status: 403, body: String::new() };
    }
    match parsed {
        Ok(Value::Array(requests)) if requests.len() <= BATCH_MAX => batch(requests, body, &run),
        Ok(Value::Array(_)) => Reply::error(code::INVALID_REQUEST, "Too many requests in a batch"),
        Ok(value @ Value::Object(_)) => match reply_value(value, text(body), &run) {
            (status, Some(value)) => Reply::json(status, &value),
            (status, None) => Reply { status, body: String::new() },
        },
        Ok(_) => Reply::error(code::PARSE_ERROR, "Top-level object parse error"),
        Err(_) => Reply::error(code::PARSE_ERROR, "Parse error"),
    }
}

/// Returns whether all methods of a request are on the list. What is no request is answered with
/// its fault, unless there is nothing at all that the user may call.
fn may_call(value: &Value, allowed: &HashSet<String>) -> bool {
    let is_fine = |request: &Value| {
        let method = request.get("method").and_then(Value::as_str);
        method.is_none_or(|method| allowed.contains(method))
    };
    !allowed.is_empty()
        && match value {
            Value::Array(requests) => requests.iter().all(is_fine),
            request => is_fine(request),
        }
}

/// Returns the text of what has been read as JSON.
fn text(body: &[u8]) -> &str {
    std::str::from_utf8(body).unwrap_or_default()
}

fn batch(
    requests: Vec<Value>,
    body: &[u8],
    run: &impl Fn(&str, Value, Option<&Value>) -> RpcResult,
) -> Reply {
    let is_empty = requests.is_empty();
    let texts: Vec<&RawValue> = serde_json::from_slice(body).unwrap_or_default();
    let texts = texts.into_iter().map(RawValue::get).chain(std::iter::repeat(""));
    let mut body = String::from("[");
    for (request, text) in requests.into_iter().zip(texts) {
        let is_answered = !is_notification(&request);
        let (_, reply) = reply_value(request, text, run);
        if let Some(reply) = reply.filter(|_| is_answered) {
            if body.len() > 1 {
                body.push(',');
            }
            body.push_str(&reply.to_string());
        }
        if body.len() > BATCH_REPLY_BYTES_MAX {
            return Reply::error(code::MISC_ERROR, "The reply to this batch is too large");
        }
    }
    // A batch of notifications alone has no reply.
    if body.len() == 1 && !is_empty {
        return Reply { status: 204, body: String::new() };
    }
    body.push_str("]\n");
    Reply { status: 200, body }
}

/// Returns whether nobody waits for a reply, not even to a request that cannot be run.
fn is_notification(value: &Value) -> bool {
    let fields = value.as_object();
    fields.is_some_and(|fields| !fields.contains_key("id") && version(fields) == Ok(true))
}

impl Reply {
    fn json(status: u16, value: &Value) -> Self {
        Self { status, body: format!("{value}\n") }
    }

    fn error(code: i32, message: &str) -> Self {
        let request = Request { id: Some(Value::Null), is_v2: false };
        let (status, value) = request.reply(Err(RpcError::new(code, message)));
        Self::json(status, &value.unwrap_or_default())
    }
}

/// Returns the HTTP status and the reply; none to a notification.
fn reply_value(
    value: Value,
    text: &str,
    run: &impl Fn(&str, Value, Option<&Value>) -> RpcResult,
) -> (u16, Option<Value>) {
    let Value::Object(mut fields) = value else {
        let request = Request { id: Some(Value::Null), is_v2: false };
        return request.reply(Err(RpcError::new(code::INVALID_REQUEST, "Invalid Request object")));
    };
    let mut request = Request { id: fields.remove("id"), is_v2: false };
    match version(&fields) {
        Ok(is_v2) => request.is_v2 = is_v2,
        Err(error) => return request.reply(Err(error)),
    }
    match call(&mut fields) {
        Ok((method, params)) => {
            let params = repeats::restore(&method, params, text);
            let result = params.and_then(|params| run(&method, params, request.id.as_ref()));
            if request.is_v2 && request.id.is_none() {
                return (204, None);
            }
            request.reply(result)
        }
        // What cannot be run is no request of any version: the status says so.
        Err(error) => (400, request.reply(Err(error)).1),
    }
}

fn version(fields: &Map<String, Value>) -> Result<bool, RpcError> {
    match fields.get("jsonrpc") {
        None | Some(Value::Null) => Ok(false),
        Some(Value::String(version)) if version == "1.0" => Ok(false),
        Some(Value::String(version)) if version == "2.0" => Ok(true),
        Some(Value::String(_)) => {
            Err(RpcError::new(code::INVALID_REQUEST, "JSON-RPC version not supported"))
        }
        Some(_) => Err(RpcError::new(code::INVALID_REQUEST, "jsonrpc field must be a string")),
    }
}

fn call(fields: &mut Map<String, Value>) -> Result<(String, Value), RpcError> {
    let invalid = |text: &str| Err(RpcError::new(code::INVALID_REQUEST, text));
    let method = match fields.remove("method") {
        Some(Value::String(method)) => method,
        None | Some(Value::Null) => return invalid("Missing method"),
        Some(_) => return invalid("Method must be a string"),
    };
    match fields.remove("params") {
        None | Some(Value::Null) => Ok((method, Value::Array(Vec::new()))),
        Some(params @ (Value::Array(_) | Value::Object(_))) => Ok((method, params)),
        Some(_) => invalid("Params must be an array or object"),
    }
}

impl Request {
    fn reply(self, result: RpcResult) -> (u16, Option<Value>) {
        let (status, mut fields) = match result {
            Ok(result) if self.is_v2 => (200, json!({"jsonrpc": "2.0", "result": result})),
            Ok(result) => (200, json!({"result": result, "error": null})),
            Err(failure) => {
                let error = json!({"code": failure.code, "message": failure.message});
                if self.is_v2 {
                    (200, json!({"jsonrpc": "2.0", "error": error}))
                } else {
                    let status = match failure.code {
                        code::METHOD_NOT_FOUND => 404,
                        code::INVALID_REQUEST => 400,
                        _ => 500,
                    };
                    (status, json!({"result": null, "error": error}))
                }
            }
        };
        // As in Core, who gives no id gets none.
        if let (Some(fields), Some(id)) = (fields.as_object_mut(), self.id) {
            fields.insert("id".into(), id);
        }
        (status, Some(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(request: &str, status: u16, body: &str) {
        let run = |method: &str, params: Value, id: Option<&Value>| match method {
            "id" => Ok(json!(id)),
            "echo" => Ok(params),
            "fail" => Err(RpcError::new(-5, "Block not found")),
            _ => Err(RpcError::new(code::METHOD_NOT_FOUND, "Method not found")),
        };
        let reply = answer(request.as_bytes(), None, run);
        assert_eq!((reply.status, reply.body.trim_end()), (status, body), "{request}");
    }

    #[test]
    fn version_two_has_result_or_error_and_always_200() {
        check(
            r#"{"jsonrpc":"2.0","method":"echo","params":[1],"id":7}"#,
            200,
            r#"{"jsonrpc":"2.0","result":[1],"id":7}"#,
        );
        check(
            r#"{"jsonrpc":"2.0","method":"fail","id":7}"#,
            200,
            r#"{"jsonrpc":"2.0","error":{"code":-5,"message":"Block not found"},"id":7}"#,
        );
        check(r#"{"jsonrpc":"2.0","method":"echo"}"#, 204, "");
    }

    #[test]
    fn a_method_is_told_of_the_id() {
        check(r#"{"method":"id","id":1.50}"#, 200, r#"{"result":1.50,"error":null,"id":1.50}"#);
        check(r#"{"method":"id"}"#, 200, r#"{"result":null,"error":null}"#);
    }

    #[test]
    fn older_versions_have_both_keys_and_a_status() {
        check(r#"{"method":"echo","id":"x"}"#, 200, r#"{"result":[],"error":null,"id":"x"}"#);
        check(
            r#"{"jsonrpc":"1.0","method":"fail","id":1}"#,
            500,
            r#"{"result":null,"error":{"code":-5,"message":"Block not found"},"id":1}"#,
        );
        check(
            r#"{"method":"nope","id":1}"#,
            404,
            r#"{"result":null,"error":{"code":-32601,"message":"Method not found"},"id":1}"#,
        );
        check(
            r#"{"method":5,"id":1}"#,
            400,
            r#"{"result":null,"error":{"code":-32600,"message":"Method must be a string"},"id":1}"#,
        );
        check(
            "{",
            500,
            r#"{"result":null,"error":{"code":-32700,"message":"Parse error"},"id":null}"#,
        );
    }

    #[test]
    fn an_array_is_answered_by_an_array() {
        check(
            r#"[{"jsonrpc":"2.0","method":"echo","id":1},5,{"method":"echo","id":2},{"jsonrpc":"2.0","method":"echo"}]"#,
            200,
            concat!(
                r#"[{"jsonrpc":"2.0","result":[],"id":1},"#,
                r#"{"result":null,"error":{"code":-32600,"message":"Invalid Request object"},"id":null},"#,
                r#"{"result":[],"error":null,"id":2}]"#
            ),
        );
        check("[]", 200, "[]");
        check(r#"[{"jsonrpc":"2.0","method":"echo"}]"#, 204, "");
    }

    #[test]
    fn a_notification_that_is_no_request_is_answered_alone_and_not_in_an_array() {
        for (fields, error) in [
            (r#""jsonrpc":"2.0""#, "Missing method"),
            (r#""jsonrpc":"2.0","method":5"#, "Method must be a string"),
            (r#""jsonrpc":"2.0","method":"x","params":1"#, "Params must be an array or object"),
        ] {
            let error = format!(r#"{{"code":-32600,"message":"{error}"}}"#);
            let reply = format!(r#"{{"jsonrpc":"2.0","error":{error}}}"#);
            check(&format!("{{{fields}}}"), 400, &reply);
            check(&format!("[{{{fields}}}]"), 204, "");
            let reply = format!(r#"{{"jsonrpc":"2.0","error":{error},"id":1}}"#);
            check(&format!(r#"[{{{fields}}},{{{fields},"id":1}}]"#), 200, &format!("[{reply}]"));
        }
        // Of another version, a request without an id is answered.
        let reply = r#"{"result":null,"error":{"code":-32600,"message":"Missing method"}}"#;
        check("[{}]", 200, &format!("[{reply}]"));
    }

    #[test]
    fn what_is_given_twice_is_told_alone_and_in_an_array() {
        let call = r#"{"jsonrpc":"2.0","id":1,"method":"echo","params":{"a":1,"a":1}}"#;
        let error = r#"{"code":-8,"message":"Parameter a specified multiple times"}"#;
        let reply = format!(r#"{{"jsonrpc":"2.0","error":{error},"id":1}}"#);
        check(call, 200, &reply);
        check(&format!("[{call}]"), 200, &format!("[{reply}]"));
    }

    #[test]
    fn what_is_no_request_has_status_400_in_every_version() {
        check(
            r#"{"jsonrpc":"2.0","id":1}"#,
            400,
            r#"{"jsonrpc":"2.0","error":{"code":-32600,"message":"Missing method"},"id":1}"#,
        );
        check(
            r#"{"jsonrpc":"2.1","method":"echo","id":1}"#,
            400,
            r#"{"result":null,"error":{"code":-32600,"message":"JSON-RPC version not supported"},"id":1}"#,
        );
        check(
            r#"{"jsonrpc":2,"method":"echo","id":1}"#,
            400,
            r#"{"result":null,"error":{"code":-32600,"message":"jsonrpc field must be a string"},"id":1}"#,
        );
        check(
            r#"{"method":"echo","params":1,"id":1}"#,
            400,
            r#"{"result":null,"error":{"code":-32600,"message":"Params must be an array or object"},"id":1}"#,
        );
        check(r#"{"method":"echo"}"#, 200, r#"{"result":[],"error":null}"#);
        check(
            r#"{"jsonrpc":"2.0","method":"echo","id":null}"#,
            200,
            r#"{"jsonrpc":"2.0","result":[],"id":null}"#,
        );
    }

    #[test]
    fn a_user_with_a_list_calls_what_is_on_it() {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let status = |request: &str, allowed: &HashSet<String>| {
            answer(request.as_bytes(), Some(allowed), |_, params, _| Ok(params)).status
        };
        let (one, none): (HashSet<String>, HashSet<String>) = (list(&["echo"]), list(&[]));
        assert_eq!(status(r#"{"method":"echo"}"#, &one), 200);
        assert_eq!(status(r#"{"method":"stop"}"#, &one), 403);
        assert_eq!(status(r#"[{"method":"echo"},{"method":"stop"}]"#, &one), 403);
        assert_eq!(status(r#"[{"method":"echo"}]"#, &one), 200);
        assert_eq!(status(r#"{"method":"echo"}"#, &none), 403);
        assert_eq!(status("[]", &none), 403);
    }

    #[test]
    fn hostile_depth_is_an_error() {
        let deep = "[".repeat(100_000);
        let reply = answer(deep.as_bytes(), None, |_, _, _| Ok(Value::Null));
        assert_eq!(reply.status, 500);
    }
}
