//! Requests and replies: JSON-RPC 1.0, 1.1 and 2.0 as Bitcoin Core answers them.
//!
//! | request | success | failure |
//! |---|---|---|
//! | `"jsonrpc":"2.0"` | 200, no key `error` | 200, no key `result` |
//! | others | 200, `error` is null | 404 unknown method, 400 bad request, 500 others; `result` is null |
//! | 2.0 without id (a notification) | 204, no body | 204, no body |
//! | array | 200, array of replies | errors are inside |

use serde_json::{Map, Value, json};

use super::{RpcError, RpcResult, code};

/// Requests of one array: each may be slow.
const BATCH_MAX: usize = 1000;

/// Status and body of an HTTP reply.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Reply {
    /// The status.
    pub(crate) status: u16,
    /// The body.
    pub(crate) body: String,
}

#[derive(Debug)]
struct Request {
    id: Option<Value>,
    is_v2: bool,
}

/// Answers the body of a request; `run` executes a method.
pub(crate) fn answer(body: &[u8], run: impl Fn(&str, Value) -> RpcResult) -> Reply {
    match serde_json::from_slice::<Value>(body) {
        Ok(Value::Array(requests)) if requests.len() <= BATCH_MAX => {
            let is_empty = requests.is_empty();
            let answers: Vec<Value> =
                requests.into_iter().filter_map(|request| reply_value(request, &run).1).collect();
            // A batch of notifications alone has no reply.
            if answers.is_empty() && !is_empty {
                return Reply { status: 204, body: String::new() };
            }
            Reply::json(200, &Value::Array(answers))
        }
        Ok(Value::Array(_)) => Reply::error(code::INVALID_REQUEST, "Too many requests in a batch"),
        Ok(value @ Value::Object(_)) => match reply_value(value, &run) {
            (status, Some(value)) => Reply::json(status, &value),
            (status, None) => Reply { status, body: String::new() },
        },
        Ok(_) => Reply::error(code::PARSE_ERROR, "Top-level object parse error"),
        Err(_) => Reply::error(code::PARSE_ERROR, "Parse error"),
    }
}

impl Reply {
    fn json(status: u16, value: &Value) -> Self {
        Self { status, body: format!("{value}\n") }
    }

    fn error(code: i32, message: &str) -> Self {
        let request = Request { id: None, is_v2: false };
        let (status, value) = request.reply(Err(RpcError::new(code, message)));
        Self::json(status, &value.unwrap_or_default())
    }
}

/// Returns the HTTP status and the reply; none to a notification.
fn reply_value(value: Value, run: &impl Fn(&str, Value) -> RpcResult) -> (u16, Option<Value>) {
    let Value::Object(mut fields) = value else {
        let request = Request { id: None, is_v2: false };
        return request.reply(Err(RpcError::new(code::INVALID_REQUEST, "Invalid Request object")));
    };
    let mut request = Request { id: fields.remove("id"), is_v2: false };
    match version(&fields) {
        Ok(is_v2) => request.is_v2 = is_v2,
        Err(error) => return request.reply(Err(error)),
    }
    let result = call(&mut fields).and_then(|(method, params)| run(&method, params));
    request.reply(result)
}

fn version(fields: &Map<String, Value>) -> Result<bool, RpcError> {
    match fields.get("jsonrpc") {
        None => Ok(false),
        Some(Value::String(version)) if version == "1.0" || version == "1.1" => Ok(false),
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
    fn reply(&self, result: RpcResult) -> (u16, Option<Value>) {
        if self.is_v2 && self.id.is_none() {
            return (204, None);
        }
        let id = self.id.clone().unwrap_or_default();
        let error = |error: &RpcError| json!({"code": error.code, "message": error.message});
        if self.is_v2 {
            let reply = match result {
                Ok(result) => json!({"jsonrpc": "2.0", "result": result, "id": id}),
                Err(failure) => json!({"jsonrpc": "2.0", "error": error(&failure), "id": id}),
            };
            return (200, Some(reply));
        }
        match result {
            Ok(result) => (200, Some(json!({"result": result, "error": null, "id": id}))),
            Err(failure) => {
                let status = match failure.code {
                    code::METHOD_NOT_FOUND => 404,
                    code::INVALID_REQUEST => 400,
                    _ => 500,
                };
                (status, Some(json!({"result": null, "error": error(&failure), "id": id})))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(request: &str, status: u16, body: &str) {
        let run = |method: &str, params: Value| match method {
            "echo" => Ok(params),
            "fail" => Err(RpcError::new(-5, "Block not found")),
            _ => Err(RpcError::new(code::METHOD_NOT_FOUND, "Method not found")),
        };
        let reply = answer(request.as_bytes(), run);
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
    fn hostile_depth_is_an_error() {
        let deep = "[".repeat(100_000);
        let reply = answer(deep.as_bytes(), |_, _| Ok(Value::Null));
        assert_eq!(reply.status, 500);
    }
}
