//! One HTTP request: who may ask, what may be asked, how much may be sent.
//!
//! Order of the checks: size, address, method, path, `Host` and `Origin` (a web page must not reach
//! the node through a name that resolves to this machine), credentials, then the body. Calls run
//! on threads of their own, but for those whose answer is at hand; a failed login waits without
//! holding one.

use std::borrow::Cow;
use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method as HttpMethod, Request, Response, StatusCode};
use serde_json::Value;
use tokio::sync::Semaphore;

use super::envelope::{Reply, answer};
use super::server::Peer;
use super::{Credentials, RpcError, WarmUp, at_once, code, execute, rest};
use crate::config::{RpcConfig, Subnet};

/// Most bytes of a request line with its headers (Core's `MAX_HEADERS_SIZE`).
const HEADER_BYTES_MAX: usize = 8192;

/// Most bytes of a body (Core's `MAX_BODY_SIZE`).
const BODY_BYTES_MAX: usize = 32 << 20;

/// Most bytes of a body whose sender is not known: of REST, and of calls without a password, where it
/// is read only to keep the connection.
const REFUSED_BODY_BYTES_MAX: usize = 64 << 10;

/// How long the next piece of a body may take where the configuration sets no limit.
const BODY_TIMEOUT: Duration = Duration::from_secs(600);

/// How long a refused body may take in all.
const REFUSED_BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// What a wrong password costs (as in Bitcoin Core).
const WRONG_PASSWORD_PAUSE: Duration = Duration::from_millis(250);

/// What a reply without a type is (as in Bitcoin Core).
const CONTENT_TYPE_DEFAULT: &str = "text/html; charset=ISO-8859-1";

/// A reply.
pub(super) type HttpResponse = Response<Full<Bytes>>;

/// Answers requests.
#[derive(Debug)]
pub(super) struct Http {
    warm_up: WarmUp,
    credentials: Arc<Credentials>,
    allow: Vec<Subnet>,
    rest: bool,
    timeout: Duration,
    log_ips: bool,
    /// One permit for each call that runs or waits.
    queue: Arc<Semaphore>,
}

impl Http {
    /// Creates the answering side of a configuration.
    pub(super) fn new(config: &RpcConfig, warm_up: WarmUp, credentials: Credentials) -> Self {
        Self {
            warm_up,
            credentials: Arc::new(credentials),
            allow: config.allow.clone(),
            rest: config.rest,
            timeout: config.server_timeout.unwrap_or(BODY_TIMEOUT),
            log_ips: config.log_ips,
            queue: Arc::new(Semaphore::new(config.threads.saturating_add(config.work_queue))),
        }
    }

    /// Answers a request.
    pub(super) async fn answer(&self, peer: &Peer, request: Request<Incoming>) -> HttpResponse {
        let (parts, body) = request.into_parts();
        let response = match self.refusal(peer, &parts, &body) {
            Some(response) => response,
            None if parts.uri.path() != "/" => self.rest(parts, body).await,
            None => self.call(peer, &parts, body).await,
        };
        with_default_type(response)
    }

    /// Returns the answer to a request that nobody may make.
    fn refusal(&self, peer: &Peer, parts: &Parts, body: &Incoming) -> Option<HttpResponse> {
        if header_bytes(parts) > HEADER_BYTES_MAX {
            return Some(closing(StatusCode::BAD_REQUEST));
        }
        let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        if announced > BODY_BYTES_MAX {
            return Some(closing(StatusCode::PAYLOAD_TOO_LARGE));
        }
        let ip = peer.ip();
        if !ip.is_loopback() && !self.allow.iter().any(|subnet| subnet.contains(ip)) {
            tracing::debug!(
                "HTTP request from {} rejected: Client network is not allowed RPC access",
                peer.address
            );
            return Some(plain(StatusCode::FORBIDDEN, ""));
        }
        let known = [HttpMethod::GET, HttpMethod::POST, HttpMethod::HEAD, HttpMethod::PUT];
        if !known.contains(&parts.method) {
            return Some(plain(StatusCode::METHOD_NOT_ALLOWED, ""));
        }
        let is_root = parts.uri.path() == "/" && parts.uri.query().is_none();
        let is_rest = self.rest && parts.uri.path().starts_with("/rest/");
        if !is_root && !is_rest {
            return Some(plain(StatusCode::NOT_FOUND, ""));
        }
        // With -rpcallowip the node serves under names that it cannot know.
        if self.allow.is_empty() && !is_from_this_machine(&parts.headers) {
            return Some(plain(StatusCode::FORBIDDEN, ""));
        }
        None
    }

    async fn call(&self, peer: &Peer, parts: &Parts, body: Incoming) -> HttpResponse {
        if parts.method != HttpMethod::POST {
            let text = "JSONRPC server handles only POST requests";
            return plain(StatusCode::METHOD_NOT_ALLOWED, text);
        }
        let given = parts.headers.get(header::AUTHORIZATION);
        let Some(user) = given.and_then(|given| self.credentials.user(given.as_bytes())) else {
            if given.is_some() {
                tracing::warn!("ThreadRPCServer incorrect password attempt from {}", peer.address);
                tokio::time::sleep(WRONG_PASSWORD_PAUSE).await;
            }
            return refuse(body).await;
        };
        peer.set_authenticated();
        let body = match read(body, BODY_BYTES_MAX, self.timeout).await {
            Ok(body) => body,
            Err(status) => return closing(status),
        };
        let caller = Caller { user, address: self.log_ips.then_some(peer.address) };
        if let Some(response) = self.at_once(&body, &caller) {
            return response;
        }
        let (warm_up, credentials) = (self.warm_up.clone(), Arc::clone(&self.credentials));
        let work = move || {
            let run = |method: &str, params, id: Option<&Value>| {
                caller.log_call(method, id);
                execute(&warm_up, method, params)
            };
            let reply = answer(&body, credentials.allowed(&caller.user), run);
            if reply.status == 403 {
                tracing::warn!("RPC User {} not allowed to call method", caller.user);
            }
            json(reply)
        };
        self.work(work).await
    }

    /// Answers a single call whose answer is at hand.
    fn at_once(&self, body: &[u8], caller: &Caller) -> Option<HttpResponse> {
        if body.len() > at_once::REQUEST_BYTES_MAX || body.first() != Some(&b'{') {
            return None;
        }
        let is_at_hand = Cell::new(false);
        let run = |method: &str, params, id: Option<&Value>| {
            let Some(result) = at_once::at_once(&self.warm_up, method, &params) else {
                return Err(RpcError::new(code::INTERNAL_ERROR, "not at hand"));
            };
            is_at_hand.set(true);
            caller.log_call(method, id);
            result
        };
        let reply = answer(body, self.credentials.allowed(&caller.user), run);
        is_at_hand.get().then(|| json(reply))
    }

    async fn rest(&self, parts: Parts, body: Incoming) -> HttpResponse {
        let body = match read(body, REFUSED_BODY_BYTES_MAX, self.timeout).await {
            Ok(body) => body,
            Err(status) => return closing(status),
        };
        let warm_up = self.warm_up.clone();
        self.work(move || rest::answer(&warm_up, &parts.uri, &body)).await
    }

    /// Runs work on a thread that may wait, if not too much waits already.
    async fn work(&self, work: impl FnOnce() -> HttpResponse + Send + 'static) -> HttpResponse {
        let Ok(permit) = Arc::clone(&self.queue).try_acquire_owned() else {
            tracing::warn!(
                "Request rejected because http work queue depth exceeded, it can be increased with the -rpcworkqueue= setting"
            );
            return plain(StatusCode::SERVICE_UNAVAILABLE, "Work queue depth exceeded");
        };
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work()
        });
        done.await.unwrap_or_else(|_| closing(StatusCode::INTERNAL_SERVER_ERROR))
    }
}

/// Who calls.
struct Caller {
    user: String,
    /// For the log; none where it has no addresses.
    address: Option<SocketAddr>,
}

impl Caller {
    /// Notes a call, in Core's words.
    fn log_call(&self, method: &str, id: Option<&Value>) {
        if tracing::enabled!(target: "rpc", tracing::Level::DEBUG) {
            let (method, user, id) = (printable(method), &self.user, printable(&id_text(id)));
            let address = self.address.map(|address| format!(" peeraddr={address}"));
            let address = address.unwrap_or_default();
            tracing::debug!(target: "rpc", "ThreadRPCServer method={method} user={user}{address} id={id}");
        }
    }
}

/// Returns an id as Core's `UniValue` tells its value.
fn id_text(id: Option<&Value>) -> Cow<'_, str> {
    match id {
        Some(Value::String(text)) => text.as_str().into(),
        Some(Value::Number(number)) => number.to_string().into(),
        Some(Value::Bool(true)) => "1".into(),
        _ => "".into(),
    }
}

/// Returns what of a text may stand in the log (Core's `SanitizeString`).
fn printable(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_alphanumeric() || " .,;-_/:?@()".contains(*c)).collect()
}

/// Returns the size of a request line and its headers, as they were sent but for spaces.
fn header_bytes(parts: &Parts) -> usize {
    let target = parts.uri.path_and_query().map_or(0, |target| target.as_str().len());
    let fields = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
    parts.method.as_str().len() + target + "  HTTP/1.1\r\n\r\n".len() + fields.sum::<usize>()
}

/// Reads a body; the error is the status to answer with.
async fn read(mut body: Incoming, bytes_max: usize, idle: Duration) -> Result<Vec<u8>, StatusCode> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let mut bytes = Vec::with_capacity(announced.min(bytes_max));
    loop {
        let Ok(frame) = tokio::time::timeout(idle, body.frame()).await else {
            return Err(StatusCode::REQUEST_TIMEOUT);
        };
        let Some(frame) = frame else { return Ok(bytes) };
        let frame = frame.map_err(|_| StatusCode::BAD_REQUEST)?;
        // Trailers are not looked at.
        if let Some(data) = frame.data_ref() {
            if bytes.len() + data.len() > bytes_max {
                return Err(StatusCode::PAYLOAD_TOO_LARGE);
            }
            bytes.extend_from_slice(data);
        }
    }
}

/// Asks for credentials. A short body is read, so that the connection can be used again.
async fn refuse(body: Incoming) -> HttpResponse {
    let rest = read(body, REFUSED_BODY_BYTES_MAX, REFUSED_BODY_TIMEOUT);
    let rest = tokio::time::timeout(REFUSED_BODY_TIMEOUT, rest).await;
    let mut response = match rest {
        Ok(Ok(_)) => plain(StatusCode::UNAUTHORIZED, ""),
        _ => closing(StatusCode::UNAUTHORIZED),
    };
    let realm = HeaderValue::from_static("Basic realm=\"jsonrpc\"");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, realm);
    response
}

/// Returns whether a request names this machine: programs do, pages of other sites do not.
fn is_from_this_machine(headers: &HeaderMap) -> bool {
    let names_this_machine = |host: &str| {
        let host = host.strip_prefix("http://").unwrap_or(host);
        let name = host
            .rsplit_once(':')
            .map_or(host, |(name, port)| if port.parse::<u16>().is_ok() { name } else { host });
        let name = name.trim_matches(['[', ']']);
        name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    };
    let is_fine =
        |name| headers.get(name).is_none_or(|value| value.to_str().is_ok_and(names_this_machine));
    is_fine(header::HOST) && is_fine(header::ORIGIN)
}

fn json(reply: Reply) -> HttpResponse {
    let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let is_empty = reply.body.is_empty();
    let mut response = Response::new(Full::new(Bytes::from(reply.body)));
    *response.status_mut() = status;
    if !is_empty {
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
    }
    response
}

fn plain(status: StatusCode, text: &'static str) -> HttpResponse {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response
}

/// An answer after which the connection ends: what follows on it is not a request.
fn closing(status: StatusCode) -> HttpResponse {
    let mut response = plain(status, "");
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

fn with_default_type(mut response: HttpResponse) -> HttpResponse {
    if response.status() != StatusCode::NO_CONTENT {
        let headers = response.headers_mut();
        let kind = headers.entry(header::CONTENT_TYPE);
        kind.or_insert(HeaderValue::from_static(CONTENT_TYPE_DEFAULT));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ids_are_logged_as_core_does() {
        for (id, text) in [
            (json!("curl\ntest[1]"), "curltest1"),
            (json!(1.5), "1.5"),
            (json!(-7), "-7"),
            (json!(true), "1"),
            (json!(false), ""),
            (json!([1]), ""),
            (json!({"a": 1}), ""),
            (Value::Null, ""),
        ] {
            assert_eq!(printable(&id_text(Some(&id))), text, "{id}");
        }
        assert_eq!(printable(&id_text(None)), "");
    }

    #[test]
    fn only_names_of_this_machine_are_served() {
        let check = |name: &'static str, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, header::HeaderValue::from_static(value));
            is_from_this_machine(&headers)
        };
        for host in ["127.0.0.1:18443", "localhost", "[::1]:8332", "127.0.0.1"] {
            assert!(check("host", host), "{host}");
        }
        for host in ["evil.example", "evil.example:18443", "127.0.0.1.evil.example", ""] {
            assert!(!check("host", host), "{host}");
        }
        assert!(!check("origin", "https://evil.example"));
        assert!(check("origin", "http://localhost:3000"));
        assert!(is_from_this_machine(&HeaderMap::new()));
    }
}
