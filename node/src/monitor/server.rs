//! The metrics listener: `/` is the page, `/metrics` the figures for Prometheus. It reads nothing but
//! the path, changes nothing, and asks no password: it is for the machine itself.
//!
//! Who may connect may do so as often as he likes: connections are few and short, so that the files
//! that the node may have open are left to the database.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::{Recorder, Seen, lock, page};

/// Connections at a time; more wait in the system's queue, where they take no file.
pub(crate) const CONNECTIONS_MAX: usize = 32;
/// How long a connection may last; it is for one request.
const CONNECTION_TIME: Duration = Duration::from_secs(10);
/// How long nothing is accepted after the system refused to: it is out of files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long requests may go on when the node stops.
const STOP_TIMEOUT: Duration = Duration::from_millis(200);
/// The content type of Prometheus' text format.
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The listener.
#[derive(Debug)]
pub(super) struct PageServer {
    runtime: Runtime,
}

#[derive(Clone)]
struct Shown {
    seen: Arc<Mutex<Seen>>,
    recorder: Recorder,
}

impl PageServer {
    /// Listens.
    pub(super) fn start(address: SocketAddr, seen: Arc<Mutex<Seen>>) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("metrics")
            .enable_all()
            .build()
            .context("starting the thread of the metrics listener")?;
        let listener = runtime
            .block_on(TcpListener::bind(address))
            .with_context(|| format!("Unable to bind to {address} for -metrics"))?;
        tracing::info!("Status page at http://{}/", listener.local_addr().unwrap_or(address));
        let app = Router::new()
            .route("/", get(show_page))
            .route("/metrics", get(show_figures))
            .with_state(Shown { seen, recorder: Recorder::install() });
        runtime.spawn(accept(listener, app, CONNECTION_TIME));
        Ok(Self { runtime })
    }

    /// Ends it.
    pub(super) fn stop(self) {
        self.runtime.shutdown_timeout(STOP_TIMEOUT);
    }
}

async fn accept(listener: TcpListener, app: Router, time: Duration) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    // It is never closed.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let app = app.clone();
                tokio::spawn(async move {
                    // Who is late hears nothing.
                    let _ = timeout(time, serve(stream, app)).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!("Cannot accept new connection for -metrics: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, app: Router) {
    let service = TowerToHyperService::new(app);
    let connection = http1::Builder::new()
        .keep_alive(false)
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!("metrics client: {error}");
    }
}

async fn show_page(State(shown): State<Shown>, headers: HeaderMap) -> Response {
    if let Some(refused) = refused(&headers) {
        return refused;
    }
    answer("text/html; charset=utf-8", page::page(&lock(&shown.seen)))
}

async fn show_figures(State(shown): State<Shown>, headers: HeaderMap) -> Response {
    if let Some(refused) = refused(&headers) {
        return refused;
    }
    let text = shown.recorder.render(&lock(&shown.seen).now);
    answer(PROMETHEUS_TEXT, text)
}

/// A page of another site must not read this one under a name that it lets resolve to this machine.
fn refused(headers: &HeaderMap) -> Option<Response> {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let is_address = name.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok();
    let is_ours = is_address || name == "localhost" || name.is_empty();
    (!is_ours).then(|| StatusCode::FORBIDDEN.into_response())
}

fn answer(content_type: &'static str, text: String) -> Response {
    let fixed: [(HeaderName, &str); 4] = [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'"),
    ];
    (fixed, text).into_response()
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;
    use std::time::Instant;

    use super::*;

    #[test]
    fn idle_connections_are_bounded_and_end() {
        const TIME: Duration = Duration::from_secs(1);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("binds");
        let address = listener.local_addr().expect("bound");
        let app = Router::new().route("/", get(|| async { "here" }));
        runtime.spawn(accept(listener, app, TIME));
        let connect = || {
            let stream = TcpStream::connect(address).expect("listens");
            stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
            stream
        };

        let started = Instant::now();
        let mut idle: Vec<TcpStream> = (0..CONNECTIONS_MAX).map(|_| connect()).collect();
        let mut late = connect();
        late.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
        let mut answer = String::new();
        late.read_to_string(&mut answer).expect("answered, and closed");
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("here"), "{answer}");
        assert!(started.elapsed() >= TIME, "served beside {CONNECTIONS_MAX} others");
        for stream in &mut idle {
            assert_eq!(stream.read(&mut [0]).expect("closed"), 0);
        }
    }
}
