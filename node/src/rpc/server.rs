//! HTTP/1.1 for JSON-RPC: who may connect, how much may be sent, how many calls run at a time.
//!
//! Order of the checks: method and path, `Host` and `Origin` (a web page must not reach the node
//! through a name that resolves to this machine), credentials, then the body. Calls run on threads
//! of their own; a failed login waits without holding one.

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method as HttpMethod, StatusCode, header};
use axum::response::Response;
use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinHandle;

use super::envelope::{Reply, answer};
use super::{Context, Credentials, execute};
use crate::config::RpcConfig;

/// Connections at a time; more wait to be accepted.
const CONNECTIONS_MAX: usize = 64;

/// Most bytes of a body: a block of 4 MB in hexadecimal digits, and a little more.
const BODY_BYTES_MAX: usize = 9 << 20;

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// What a wrong password costs (as in Bitcoin Core).
const WRONG_PASSWORD_PAUSE: Duration = Duration::from_millis(250);

/// How long calls may go on when the node stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// The server; it answers until it is stopped.
#[derive(Debug)]
pub(crate) struct RpcServer {
    runtime: Runtime,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    addresses: Vec<SocketAddr>,
}

#[derive(Clone)]
struct Shared {
    context: Arc<Context>,
    credentials: Credentials,
    /// One permit for each call that runs or waits.
    queue: Arc<Semaphore>,
}

impl RpcServer {
    /// Listens on all addresses of the configuration.
    pub(crate) fn start(
        config: &RpcConfig,
        context: Arc<Context>,
        credentials: Credentials,
    ) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(config.threads)
            .thread_name("rpc")
            .enable_all()
            .build()
            .context("starting the RPC threads")?;
        let (stop, stopped) = watch::channel(false);
        let queue = Arc::new(Semaphore::new(config.threads.saturating_add(config.work_queue)));
        let shared = Shared { context, credentials, queue };
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let (mut tasks, mut addresses) = (Vec::new(), Vec::new());
        for address in &config.bind {
            let listener = runtime
                .block_on(TcpListener::bind(address))
                .with_context(|| format!("Unable to bind to {address} for RPC"))?;
            addresses.push(listener.local_addr().unwrap_or(*address));
            let listener = BoundedListener { listener, permits: Arc::clone(&permits) };
            let app = Router::new().fallback(handle).with_state(shared.clone());
            let mut stopped = stopped.clone();
            let until = async move {
                let _ = stopped.wait_for(|stop| *stop).await;
            };
            tasks.push(runtime.spawn(async move {
                if let Err(error) = axum::serve(listener, app).with_graceful_shutdown(until).await {
                    tracing::error!("RPC server failed: {error}");
                }
            }));
        }
        Ok(Self { runtime, stop, tasks, addresses })
    }

    /// Returns the addresses listened on.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Accepts no more calls, and waits for those that run.
    pub(crate) fn stop(self) {
        let _ = self.stop.send(true);
        self.runtime.block_on(async {
            for task in self.tasks {
                let _ = tokio::time::timeout(STOP_TIMEOUT, task).await;
            }
        });
        self.runtime.shutdown_timeout(STOP_TIMEOUT);
    }
}

async fn handle(State(shared): State<Shared>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    if parts.method != HttpMethod::POST {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "JSONRPC server handles only POST requests");
    }
    if parts.uri.path() != "/" {
        return plain(StatusCode::NOT_FOUND, "");
    }
    if !is_from_this_machine(&parts.headers) {
        return plain(StatusCode::FORBIDDEN, "");
    }
    let given = parts.headers.get(header::AUTHORIZATION);
    if !given.is_some_and(|given| shared.credentials.accept(given.as_bytes())) {
        if given.is_some() {
            tracing::warn!("ThreadRPCServer incorrect password attempt");
            tokio::time::sleep(WRONG_PASSWORD_PAUSE).await;
        }
        let mut response = plain(StatusCode::UNAUTHORIZED, "");
        let realm = header::HeaderValue::from_static("Basic realm=\"jsonrpc\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, realm);
        return response;
    }
    let Ok(body) = tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, BODY_BYTES_MAX)).await else {
        return plain(StatusCode::REQUEST_TIMEOUT, "");
    };
    let Ok(body) = body else {
        return plain(StatusCode::PAYLOAD_TOO_LARGE, "");
    };
    let Ok(permit) = Arc::clone(&shared.queue).try_acquire_owned() else {
        return plain(StatusCode::SERVICE_UNAVAILABLE, "Work queue depth exceeded");
    };
    let context = Arc::clone(&shared.context);
    let call = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        answer(&body, |method, params| {
            tracing::debug!("ThreadRPCServer method={method}");
            execute(&context, method, params)
        })
    });
    match call.await {
        Ok(reply) => json(reply),
        Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, "the call failed"),
    }
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

fn json(reply: Reply) -> Response {
    let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = Response::new(Body::from(reply.body));
    *response.status_mut() = status;
    if status != StatusCode::NO_CONTENT {
        let json = header::HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
    }
    response
}

fn plain(status: StatusCode, text: &'static str) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response
}

/// Accepts a connection when fewer than [`CONNECTIONS_MAX`] are open.
struct BoundedListener {
    listener: TcpListener,
    permits: Arc<Semaphore>,
}

impl Listener for BoundedListener {
    type Io = BoundedStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (BoundedStream, SocketAddr) {
        let permit = Arc::clone(&self.permits).acquire_owned().await.ok();
        let (stream, address) = Listener::accept(&mut self.listener).await;
        let _ = stream.set_nodelay(true);
        (BoundedStream { stream, _permit: permit }, address)
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection with its permit.
struct BoundedStream {
    stream: TcpStream,
    _permit: Option<OwnedSemaphorePermit>,
}

impl AsyncRead for BoundedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for BoundedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
