//! HTTP/1.1 connections: who is let in, how many, for how long, and in which order they end.
//!
//! hyper reads and writes the messages. Of the connections that never gave a right password the
//! oldest makes room for a new one when there are too many; a header that does not arrive, and a
//! connection without a request, end after `-rpcservertimeout`.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::http::Http;
use super::{Credentials, WarmUp};
use crate::config::RpcConfig;

/// Connections at a time.
pub(crate) const CONNECTIONS_MAX: usize = 512;

/// Most bytes that are read ahead of a header: larger than what is accepted, so that too large a
/// header is answered as Bitcoin Core does.
const READ_BYTES_MAX: usize = 128 << 10;

/// Lines of a header: as many as are worth sending within its size. A place is set aside for each with
/// every call: as many as could fit into that size would take a twelfth of a short call.
const HEADERS_MAX: usize = 512;

/// How long calls may go on when the node stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// How long nothing is accepted after the system refused to: it is out of files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The server; it answers until it is stopped.
#[derive(Debug)]
pub(crate) struct RpcServer {
    runtime: Runtime,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    addresses: Vec<SocketAddr>,
}

impl RpcServer {
    /// Listens on the addresses of the configuration; one that can be had is enough.
    pub(crate) fn start(
        config: &RpcConfig,
        warm_up: WarmUp,
        credentials: Credentials,
    ) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            // It reads and writes; a second one would be woken at every request, to find nothing.
            .worker_threads(1)
            .max_blocking_threads(config.threads)
            .thread_name("http")
            .enable_all()
            .build()
            .context("starting the RPC threads")?;
        let (stop, stopped) = watch::channel(false);
        let shared = Arc::new(Shared {
            http: Http::new(config, warm_up, credentials),
            peers: Mutex::default(),
            places: config.connections,
            timeout: config.server_timeout,
        });
        let (mut tasks, mut addresses) = (Vec::new(), Vec::new());
        for address in &config.bind {
            let (ip, port) = (address.ip(), address.port());
            tracing::info!("Binding RPC on address {ip} port {port}");
            match runtime.block_on(TcpListener::bind(address)) {
                Ok(listener) => {
                    addresses.push(listener.local_addr().unwrap_or(*address));
                    let accepting = accept(listener, Arc::clone(&shared), stopped.clone());
                    tasks.push(runtime.spawn(accepting));
                }
                Err(error) => {
                    tracing::warn!("Binding RPC on address {ip} port {port} failed: {error}");
                }
            }
        }
        if addresses.is_empty() {
            bail!("Unable to bind any endpoint for RPC server");
        }
        tracing::info!("Starting HTTP server with {} worker threads", config.threads);
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

/// A connection, as what is answered on it sees it.
#[derive(Debug)]
pub(super) struct Peer {
    /// The other end.
    pub(super) address: SocketAddr,
    authenticated: AtomicBool,
    close: Notify,
}

impl Peer {
    fn new(address: SocketAddr) -> Self {
        Self { address, authenticated: AtomicBool::new(false), close: Notify::new() }
    }

    /// Returns the address of the other end.
    pub(super) fn ip(&self) -> IpAddr {
        self.address.ip().to_canonical()
    }

    /// Notes that a right password was given.
    pub(super) fn set_authenticated(&self) {
        self.authenticated.store(true, Ordering::Relaxed);
    }
}

struct Shared {
    http: Http,
    /// The oldest first.
    peers: Mutex<Vec<Arc<Peer>>>,
    /// Connections at a time.
    places: usize,
    timeout: Option<Duration>,
}

impl Shared {
    /// Takes a connection in, if there is room or can be made.
    fn enter(&self, address: SocketAddr) -> Option<Arc<Peer>> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if peers.len() >= self.places {
            let oldest = peers.iter().position(|peer| !peer.authenticated.load(Ordering::Relaxed));
            peers.remove(oldest?).close.notify_one();
        }
        let peer = Arc::new(Peer::new(address));
        peers.push(Arc::clone(&peer));
        Some(peer)
    }

    fn leave(&self, peer: &Arc<Peer>) {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.retain(|known| !Arc::ptr_eq(known, peer));
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, mut stopped: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    let for_connections = stopped.clone();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, address)) => {
                    let _ = stream.set_nodelay(true);
                    let Some(peer) = shared.enter(address) else {
                        tracing::warn!("HTTP connection from {address} dropped: too many");
                        continue;
                    };
                    let served = serve(stream, peer, Arc::clone(&shared), for_connections.clone());
                    connections.spawn(served);
                }
                Err(error) => {
                    tracing::warn!("Cannot accept new connection: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            () = is_stopped(&mut stopped) => break,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Waits for the stop; the guard that the channel returns must not live on in a task.
async fn is_stopped(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stop| *stop).await;
}

async fn serve(
    stream: TcpStream,
    peer: Arc<Peer>,
    shared: Arc<Shared>,
    mut stopped: watch::Receiver<bool>,
) {
    let service = service_fn(|request| {
        let (shared, peer) = (Arc::clone(&shared), Arc::clone(&peer));
        async move { Ok::<_, Infallible>(shared.http.answer(&peer, request).await) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(shared.timeout);
    builder.max_buf_size(READ_BYTES_MAX).max_header_size(READ_BYTES_MAX).max_headers(HEADERS_MAX);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut stopping = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                match ended {
                    Err(error) if error.is_timeout() => {
                        tracing::debug!("HTTP client idle timeout {}", peer.address);
                    }
                    Err(error) => tracing::debug!("HTTP client {}: {error}", peer.address),
                    Ok(()) => {}
                }
                break;
            }
            () = peer.close.notified() => break,
            () = is_stopped(&mut stopped), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
    shared.leave(&peer);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use cofferdam_ibd::params::Network;

    #[test]
    fn a_new_connection_takes_the_place_of_the_oldest_that_never_logged_in() {
        let config = Config::new(Network::Regtest, std::path::Path::new("/")).unwrap().rpc;
        let http = Http::new(&config, WarmUp::default(), Credentials::default());
        let places = config.connections;
        let shared = Shared { http, peers: Mutex::default(), places, timeout: None };
        let address = "127.0.0.1:1".parse().unwrap();
        let peers: Vec<_> = (0..places).map(|_| shared.enter(address).expect("room")).collect();
        peers[0].set_authenticated();
        let next = shared.enter(address).expect("room is made");
        let is_in = |peer: &Arc<Peer>| {
            shared.peers.lock().unwrap().iter().any(|known| Arc::ptr_eq(known, peer))
        };
        assert!(is_in(&peers[0]) && !is_in(&peers[1]) && is_in(&peers[2]) && is_in(&next));
        for peer in &peers {
            peer.set_authenticated();
        }
        next.set_authenticated();
        assert!(shared.enter(address).is_none(), "those who logged in stay");
        shared.leave(&next);
        assert!(shared.enter(address).is_some());
    }
}
