//! Headers of a peer: let through the gate against made-up chains, taken in, asked for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bitcoin::block::Header;
use bitcoin::{BlockHash, Work};
use cofferdam_ibd::headers::{HeadersSync, Salt, SyncPhase};
use cofferdam_ibd::sync::{HEADERS_MAX, HeadersWork, PeerId, check_headers_alone, headers_work};
use cofferdam_ibd::{Chainstate, HeaderRef, Rejection};

use super::dispatch::End;
use super::manager::{PeerManager, random_nonce};
use super::message::{Message, no_stop};
use super::peer::Peer;
use super::sync::blame;
use crate::chain::Stopped;

/// Headers that do not connect and are still taken for an announcement (BIP-0130; Bitcoin Core's
/// `MAX_BLOCKS_TO_ANNOUNCE`).
const UNCONNECTED_HEADERS_MAX: usize = 8;

/// Least time between two lines about a pre-synchronisation: peers must not fill the log.
const REPORT_INTERVAL: Duration = Duration::from_millis(250);

/// What became of headers that passed the gate.
enum HeadersOutcome {
    Accepted {
        last: HeaderRef,
        is_better_than_tip: bool,
    },
    Unconnected,
    /// Too little work so far, and more to come.
    Doubtful(Box<HeadersSync>, Vec<Header>),
    /// Too little work, and no more to come; the height.
    Worthless(u32),
    Rejected(Rejection),
}

impl PeerManager {
    pub(super) fn on_headers(&self, peer: &Arc<Peer>, headers: Vec<Header>) -> Result<(), End> {
        let Some(last) = headers.last().map(Header::block_hash) else {
            peer.gate().clear();
            self.headers_done(peer, false);
            return Ok(());
        };
        check_headers_alone(&headers, self.chain.params()).map_err(String::from)?;
        let (count, full) = (headers.len(), headers.len() >= HEADERS_MAX);
        let passed = peer.gate().receive(headers, full);
        let asked = passed.ask.is_some();
        if let Some(locator) = passed.ask {
            peer.send(Message::GetHeaders(locator, no_stop()), self.clock.now());
        }
        if passed.headers.is_empty() {
            self.headers_done(peer, asked);
            return Ok(());
        }
        let (headers, checked) = (passed.headers, passed.checked);
        let outcome = self.chain.change(move |worker| {
            let now = worker.clock.seconds();
            take_headers(&mut worker.chainstate, headers, checked, now)
        })?;
        match outcome {
            HeadersOutcome::Accepted { last: at, is_better_than_tip } => {
                let more = full && !asked && peer.gate().sync().is_none();
                self.headers_done(peer, asked || more);
                self.learn_best(peer, at)?;
                if more {
                    self.ask_headers_from(peer, Some(at))?;
                }
                if is_better_than_tip { Ok(self.ask_blocks(peer)?) } else { Ok(()) }
            }
            HeadersOutcome::Doubtful(sync, headers) => {
                let ask = peer.gate().start(*sync, headers);
                self.headers_done(peer, ask.is_some());
                if let Some(locator) = ask {
                    peer.send(Message::GetHeaders(locator, no_stop()), self.clock.now());
                }
                Ok(())
            }
            HeadersOutcome::Worthless(height) => {
                tracing::debug!("Ignoring low-work chain (height={height}) from peer={}", peer.id);
                self.headers_done(peer, asked);
                Ok(())
            }
            HeadersOutcome::Unconnected => {
                self.headers_done(peer, asked);
                if count > UNCONNECTED_HEADERS_MAX {
                    return Ok(());
                }
                tracing::debug!(
                    "received header {last}: missing prev block, sending getheaders peer={}",
                    peer.id
                );
                self.sync().headers.asked(peer.id, self.clock.now());
                Ok(self.ask_headers_from(peer, None)?)
            }
            HeadersOutcome::Rejected(rejection) => {
                self.headers_done(peer, asked);
                blame(peer, &rejection, "invalid header received")
            }
        }
    }

    /// Notes that a message of headers was handled, and whether the peer was asked for more.
    fn headers_done(&self, peer: &Peer, more: bool) {
        let progress = peer.gate().sync().map(Progress::of);
        let report = {
            let mut sync = self.sync();
            sync.headers.headers_received(peer.id, more, self.clock.now());
            sync.presync.update(peer.id, progress, Instant::now())
        };
        if let Some((height, time)) = report
            && self.chain.view().initial_download
        {
            let spacing = i64::from(self.chain.params().pow_target_spacing);
            let now = i64::try_from(self.clock.now().as_secs()).unwrap_or(i64::MAX);
            let left = (now.saturating_sub(i64::from(time)) / spacing).max(0);
            let percent = share(height, u32::try_from(left).unwrap_or(u32::MAX));
            tracing::info!("Pre-synchronizing blockheaders, height: {height} (~{percent:.2}%)");
        }
    }

    /// Sends `getheaders` with a locator of `from`, or of the best header.
    pub(super) fn ask_headers_from(
        &self,
        peer: &Peer,
        from: Option<HeaderRef>,
    ) -> Result<(), Stopped> {
        let locator: Vec<BlockHash> = self.chain.query(move |chain| {
            let headers = chain.headers();
            headers.locator(from.unwrap_or_else(|| headers.best()))
        })?;
        peer.send(Message::GetHeaders(locator, no_stop()), self.clock.now());
        Ok(())
    }

    /// Asks from one before the best header: who has nothing new sends that one, and so says what
    /// it has (as Bitcoin Core does).
    pub(super) fn ask_headers_from_parent(&self, peer: &Peer) -> Result<(), Stopped> {
        let from = self.chain.query(|chain| {
            let headers = chain.headers();
            headers.entry(headers.best()).parent
        })?;
        self.ask_headers_from(peer, from)
    }
}

fn take_headers(
    chain: &mut Chainstate,
    headers: Vec<Header>,
    checked: bool,
    now: u32,
) -> cofferdam_ibd::Result<HeadersOutcome> {
    let params = Arc::clone(chain.params());
    match headers_work(chain.headers(), chain.tip_ref(), &params, &headers) {
        HeadersWork::Unconnected => return Ok(HeadersOutcome::Unconnected),
        HeadersWork::Low { start, threshold, height } if !checked => {
            if headers.len() < HEADERS_MAX {
                return Ok(HeadersOutcome::Worthless(height));
            }
            let salt = Salt { keys: [random_nonce(), random_nonce()], offset: random_nonce() };
            let sync = HeadersSync::new(&params, start, threshold, now, salt);
            return Ok(HeadersOutcome::Doubtful(Box::new(sync), headers));
        }
        HeadersWork::Low { .. } | HeadersWork::Enough => {}
    }
    let last = match chain.accept_headers(&headers, now)? {
        Ok(accepted) => chain.headers().get(&accepted.last.hash),
        Err(rejection) => return Ok(HeadersOutcome::Rejected(rejection)),
    };
    let tree = chain.headers();
    Ok(last.map_or(HeadersOutcome::Unconnected, |last| HeadersOutcome::Accepted {
        last,
        is_better_than_tip: tree.entry(last).chain_work > tree.entry(chain.tip_ref()).chain_work,
    }))
}

fn share(done: u32, left: u32) -> f64 {
    100.0 * f64::from(done) / (f64::from(done) + f64::from(left)).max(1.0)
}

/// How far a peer's chain of unknown work has come.
#[derive(Clone, Copy, PartialEq, PartialOrd, Debug)]
struct Progress {
    work: Work,
    /// Height and time of the last header; none once the chain is downloaded again.
    presync: Option<(u32, u32)>,
}

impl Progress {
    fn of(sync: &HeadersSync) -> Self {
        let at = (sync.presync_height(), sync.presync_time());
        let presync = (sync.phase() == SyncPhase::Presync).then_some(at);
        Self { work: sync.presync_work(), presync }
    }
}

/// Which peer's chain of unknown work to tell of (`m_headers_presync_stats`).
#[derive(Debug, Default)]
pub(super) struct PresyncStats {
    peers: BTreeMap<PeerId, Progress>,
    best: Option<PeerId>,
    reported: Option<Instant>,
}

impl PresyncStats {
    /// Notes how far a peer is; returns height and time to report, if it is the best and the last
    /// report is old enough.
    fn update(
        &mut self,
        peer: PeerId,
        progress: Option<Progress>,
        now: Instant,
    ) -> Option<(u32, u32)> {
        let Some(progress) = progress else {
            self.remove(peer);
            return None;
        };
        self.peers.insert(peer, progress);
        let best = self.best.and_then(|best| Some((best, self.peers.get(&best)?)));
        if best.is_none_or(|(best, known)| best == peer || progress > *known) {
            let most = self.peers.iter().reduce(|a, b| if b.1 > a.1 { b } else { a });
            self.best = most.map(|(peer, _)| *peer);
        }
        let due = self.reported.is_none_or(|last| now >= last + REPORT_INTERVAL);
        let report = progress.presync.filter(|_| due && self.best == Some(peer))?;
        self.reported = Some(now);
        Some(report)
    }

    /// Forgets a peer.
    pub(super) fn remove(&mut self, peer: PeerId) {
        self.peers.remove(&peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(work: u8, presync: Option<(u32, u32)>) -> Option<Progress> {
        let mut bytes = [0; 32];
        bytes[31] = work;
        Some(Progress { work: Work::from_be_bytes(bytes), presync })
    }

    #[test]
    fn the_best_peer_is_told_of_four_times_a_second() {
        let mut stats = PresyncStats::default();
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        assert_eq!(stats.update(1, progress(5, Some((10, 7))), at(0)), Some((10, 7)));
        assert_eq!(stats.update(1, progress(6, Some((11, 7))), at(249)), None, "too soon");
        assert_eq!(stats.update(2, progress(3, Some((6, 7))), at(300)), None, "not the best");
        assert_eq!(stats.update(2, progress(9, Some((18, 7))), at(301)), Some((18, 7)));
        assert_eq!(stats.update(2, progress(9, None), at(600)), None, "downloaded again");
        assert_eq!(stats.update(2, None, at(900)), None, "done");
        assert_eq!(stats.update(1, progress(7, Some((14, 8))), at(901)), Some((14, 8)));
    }

    #[test]
    fn the_share_of_an_empty_chain_is_a_number() {
        assert_eq!(format!("{:.2} {:.2}", share(0, 0), share(1, 2)), "0.00 33.33");
    }
}
