//! What a node shows a person: bars on a terminal, `cofferdam status`, a page, figures for Prometheus.
//!
//! All of them show the same [`Snapshot`], which is taken from the parts of the node once a second by
//! one thread; nothing here is asked for more often, and nothing waits for it.

mod bars;
mod history;
mod page;
mod recorder;
mod render;
mod server;
mod snapshot;
mod status;

pub(crate) use recorder::Recorder;
pub(crate) use server::CONNECTIONS_MAX;
pub(crate) use snapshot::{Snapshot, Sources};
pub(crate) use status::watch_status;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};

use self::bars::Bars;
use self::history::History;
use self::server::PageServer;
use crate::shutdown::Shutdown;

/// Time between two snapshots.
const INTERVAL: Duration = Duration::from_secs(1);

/// What was seen last, and over the time before.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) now: Snapshot,
    pub(crate) history: History,
}

/// The thread that looks, and the listener that shows.
#[derive(Debug)]
pub(crate) struct Monitor {
    seen: Arc<Mutex<Seen>>,
    thread: JoinHandle<()>,
    server: Option<PageServer>,
}

impl Monitor {
    /// Starts it: with bars if a person watches, with a page if an address is given.
    ///
    /// # Errors
    ///
    /// Returns an error if the address cannot be listened on.
    pub(crate) fn start(
        sources: Sources,
        shutdown: Shutdown,
        address: Option<SocketAddr>,
        with_bars: bool,
    ) -> Result<Self> {
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let server = address.map(|address| PageServer::start(address, Arc::clone(&seen)));
        let server = server.transpose()?;
        let look = {
            let seen = Arc::clone(&seen);
            move || {
                let mut bars = with_bars.then(Bars::start);
                loop {
                    // The chain may take a while to answer; nobody waits for the lock meanwhile.
                    let history = lock(&seen).history.clone();
                    let Ok(now) = sources.look(&history) else { break };
                    if let Some(bars) = &mut bars {
                        bars.show(&now);
                    }
                    let mut seen = lock(&seen);
                    seen.history.add(&now);
                    seen.now = now;
                    drop(seen);
                    if shutdown.wait_for(INTERVAL) {
                        break;
                    }
                }
                if let Some(bars) = bars {
                    bars.end();
                }
            }
        };
        let thread = std::thread::Builder::new().name("monitor".into()).spawn(look);
        Ok(Self { seen, thread: thread.context("starting the thread that watches")?, server })
    }

    /// Returns what was seen last.
    pub(crate) fn seen(&self) -> Arc<Mutex<Seen>> {
        Arc::clone(&self.seen)
    }

    /// Ends it; a stop was asked for.
    pub(crate) fn stop(self) {
        if let Some(server) = self.server {
            server.stop();
        }
        let _ = self.thread.join();
    }
}

pub(crate) fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
