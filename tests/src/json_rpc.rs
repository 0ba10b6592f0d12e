//! A JSON-RPC client that says what it was answered, to the letter.
//!
//! Not the one of `cofferdam rpc`, which shares code with the server that is tested.

use std::io::{BufRead as _, BufReader, Error, ErrorKind, Read as _, Result, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

/// How long a call may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Why a call has no result.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RpcError {
    /// The node's error code; 0 if it was not the node that failed.
    pub code: i64,
    /// The text.
    pub message: String,
}

/// Calls a node at a port of the loopback interface, over a connection for each call.
#[derive(Debug)]
pub struct Client {
    port: u16,
    authorization: String,
}

impl Client {
    /// Returns a client of `user:password`.
    #[must_use]
    pub fn new(port: u16, user: &str) -> Self {
        Self { port, authorization: BASE64_STANDARD.encode(user) }
    }

    /// Calls a method; parameters are an array, or an object of named ones.
    ///
    /// # Errors
    ///
    /// Returns the node's error, or code 0 and what is wrong with the connection or the reply.
    pub fn call(&self, method: &str, params: &Value) -> std::result::Result<Value, RpcError> {
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let failed = |what: String| RpcError { code: 0, message: what };
        let (status, body) =
            self.post(&request.to_string()).map_err(|error| failed(error.to_string()))?;
        let reply: Value = serde_json::from_str(&body)
            .map_err(|error| failed(format!("{status}: {error}: {body}")))?;
        if let Some(error) = reply.get("error") {
            let message = error.get("message").and_then(Value::as_str).unwrap_or_default();
            let code = error.get("code").and_then(Value::as_i64).unwrap_or_default();
            return Err(RpcError { code, message: message.to_owned() });
        }
        reply.get("result").cloned().ok_or_else(|| failed(format!("no result: {body}")))
    }

    /// Sends a body as it is; returns the status and the body of the reply.
    ///
    /// # Errors
    ///
    /// Fails if the connection does, or if the reply is not HTTP.
    pub fn post(&self, body: &str) -> Result<(u16, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(
            stream,
            "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nAuthorization: Basic {}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.authorization,
            body.len()
        )?;
        let invalid = || Error::from(ErrorKind::InvalidData);
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let mut length = 0;
        loop {
            line.clear();
            if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or_else(invalid)?;
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().map_err(|_| invalid())?;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        Ok((status.ok_or_else(invalid)?, String::from_utf8(body).map_err(|_| invalid())?))
    }
}
