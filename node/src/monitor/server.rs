//! The metrics listener: `/` is the page, `/metrics` the figures for Prometheus. It reads nothing but
//! the path, changes nothing, and asks no password: it is for the machine itself.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use super::{Recorder, Seen, lock, page};

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
        runtime.spawn(async move {
            if let Err(error) = axum::serve(listener, app).await {
                tracing::error!("the metrics listener failed: {error}");
            }
        });
        Ok(Self { runtime })
    }

    /// Ends it.
    pub(super) fn stop(self) {
        self.runtime.shutdown_timeout(STOP_TIMEOUT);
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
