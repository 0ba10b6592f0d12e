//! `RpcClient`: calls a node's methods; what `cofferdam rpc` is made of.

use std::fmt;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use super::auth;
use super::call::Kind;

/// Most bytes of a reply: a block with all its transactions explained is far below.
const REPLY_BYTES_MAX: u64 = 1 << 30;

/// Most bytes of a line of the reply's header.
const LINE_BYTES_MAX: u64 = 16 << 10;

/// Why a call has no result.
#[derive(Debug)]
#[non_exhaustive]
pub enum CallError {
    /// The node cannot be reached.
    Connection(std::io::Error),
    /// The node does not accept the user and password.
    Unauthorized,
    /// The reply is not JSON-RPC.
    Reply(String),
    /// The method failed.
    Method {
        /// Bitcoin Core's error code.
        code: i64,
        /// The text.
        message: String,
    },
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection(error) => write!(f, "error: Could not connect to the server: {error}"),
            Self::Unauthorized => {
                f.write_str("error: Authorization failed: Incorrect rpcuser or rpcpassword")
            }
            Self::Reply(text) => write!(f, "error: couldn't parse reply from server: {text}"),
            Self::Method { code, message } => {
                write!(f, "error code: {code}\nerror message:\n{message}")
            }
        }
    }
}

impl std::error::Error for CallError {}

impl From<std::io::Error> for CallError {
    fn from(error: std::io::Error) -> Self {
        Self::Connection(error)
    }
}

/// Calls methods of the node at an address.
#[derive(Clone)]
pub struct RpcClient {
    address: String,
    authorization: String,
    timeout: Option<Duration>,
}

impl fmt::Debug for RpcClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RpcClient").field("address", &self.address).finish_non_exhaustive()
    }
}

impl RpcClient {
    /// Creates a client of the node at `host:port`; `secret` is `user:password`, or what is in the
    /// cookie file. Calls that take longer than `timeout` fail.
    #[must_use]
    pub fn new(address: impl Into<String>, secret: &str, timeout: Option<Duration>) -> Self {
        Self { address: address.into(), authorization: auth::header(secret), timeout }
    }

    /// Calls a method; `params` is a JSON array or object.
    ///
    /// # Errors
    ///
    /// Returns a [`CallError`] if the node cannot be reached or the method fails.
    pub fn call(&self, method: &str, params: &Value) -> Result<Value, CallError> {
        let body =
            json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
        let stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(self.timeout)?;
        let head = format!(
            "POST / HTTP/1.1\r\nHost: {}\r\nAuthorization: {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            self.address,
            self.authorization,
            body.len()
        );
        (&stream).write_all(head.as_bytes())?;
        (&stream).write_all(body.as_bytes())?;
        let (status, body) = read_reply(&stream)?;
        if status == 401 {
            return Err(CallError::Unauthorized);
        }
        let mut reply: Value = serde_json::from_slice(&body).map_err(|_| {
            CallError::Reply(format!("HTTP {status}: {}", String::from_utf8_lossy(&body)))
        })?;
        match reply.get("error") {
            None | Some(Value::Null) => {
                Ok(reply.get_mut("result").map(Value::take).unwrap_or_default())
            }
            Some(error) => Err(CallError::Method {
                code: error.get("code").and_then(Value::as_i64).unwrap_or_default(),
                message: error
                    .get("message")
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .to_owned(),
            }),
        }
    }
}

/// Returns typed arguments as JSON: texts where the method wants texts, else what they read as.
pub(crate) fn typed_arguments(method: &str, words: &[String]) -> Value {
    let params = super::method(method).map(|method| method.params).unwrap_or_default();
    let values = words.iter().enumerate().map(|(index, word)| {
        let is_text = params.get(index).is_some_and(|param| param.kind == Kind::Text);
        let text = || Value::String(word.clone());
        if is_text { text() } else { serde_json::from_str(word).unwrap_or_else(|_| text()) }
    });
    values.collect()
}

fn read_reply(stream: &TcpStream) -> Result<(u16, Vec<u8>), CallError> {
    let mut reader = BufReader::new(stream);
    let status_line = read_line(&mut reader)?;
    let status = status_line.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| CallError::Reply(status_line.clone()))?;
    let mut length = None;
    loop {
        let line = read_line(&mut reader)?;
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().ok();
        }
    }
    let mut body = Vec::new();
    reader.take(length.unwrap_or(REPLY_BYTES_MAX).min(REPLY_BYTES_MAX)).read_to_end(&mut body)?;
    Ok((status, body))
}

fn read_line(reader: &mut BufReader<&TcpStream>) -> Result<String, CallError> {
    let mut line = String::new();
    let read = reader.take(LINE_BYTES_MAX).read_line(&mut line)?;
    if read == 0 {
        return Err(CallError::Connection(std::io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(line.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn words_become_what_the_method_wants() {
        assert_eq!(typed_arguments("getblockhash", &words(&["5"])), json!([5]));
        let digits = "1".repeat(64);
        assert_eq!(typed_arguments("getblock", &words(&[&digits, "2"])), json!([digits, 2]));
        assert_eq!(
            typed_arguments("unknown", &words(&["[1]", "a", "true"])),
            json!([[1], "a", true])
        );
    }
}
