//! Headers of a peer: let through the gate against made-up chains, taken in, asked for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bitcoin::block::Header;
use bitcoin::{BlockHash, Work};
use cofferdam_ibd::headers::{HeadersSync, Salt, SyncPhase};
use cofferdam_ibd::sync::{HEADERS_MAX, HeadersWork, PeerId, check_headers_alone, headers_work};
use cofferdam_ibd::{BlockRef, Chainstate, HeaderRef, Rejection};

use super::Supply;
use super::dispatch::End;
use super::manager::{PeerManager, random_nonce};
use super::message::{Message, no_stop};
use super::peer::Peer;
use super::sync::{Order, blame, learn, order_announced};
use crate::chain::Stopped;

/// Least time between two lines about a pre-synchronisation: peers must not fill the log.
const REPORT_INTERVAL: Duration = Duration::from_millis(250);

/// What became of headers that passed the gate.
enum HeadersOutcome {
    Accepted(Accepted),
    Unconnected(BlockRef),
    /// Too little work so far, and more to come.
    Doubtful(Box<HeadersSync>, Vec<Header>),
    /// Too little work, and no more to come; the height.
    Worthless(u32),
    Rejected(Rejection),
}

/// Headers that are in the tree now.
struct Accepted {
    last: HeaderRef,
    block: BlockRef,
    time: u32,
    is_new: bool,
    is_new_best: bool,
    /// Whether the chain is still being downloaded.
    initial_download: bool,
    /// What to ask their sender for.
    order: Order,
    /// Whether it has more work than the tip.
    is_better: bool,
    /// Whether the chain that they end has less than the minimum work.
    is_low: bool,
}

impl PeerManager {
    pub(super) fn on_headers(&self, peer: &Arc<Peer>, headers: Vec<Header>) -> Result<(), End> {
        self.on_answer(peer, headers)?;
        Ok(self.ask_for_missed(peer)?)
    }

    /// Asks once more for what a peer announced while it was being asked. Bitcoin Core does not, and
    /// waits for the next block.
    fn ask_for_missed(&self, peer: &Arc<Peer>) -> Result<(), Stopped> {
        let Some(hash) = peer.link().unknown else {
            return Ok(());
        };
        // While its headers are only looked at it is asked for more of them anyway.
        let is_looked_at = peer.gate().sync().is_some();
        if is_looked_at || !self.sync().headers.ask_missed(peer.id, self.clock.now()) {
            return Ok(());
        }
        if self.chain.query(move |chain| chain.headers().get(&hash).is_some())? {
            self.sync().headers.answered(peer.id);
            return Ok(());
        }
        tracing::debug!("getheaders for {hash}, announced meanwhile, to peer={}", peer.id);
        self.send_getheaders(peer, None)
    }

    fn on_answer(&self, peer: &Arc<Peer>, headers: Vec<Header>) -> Result<(), End> {
        if headers.is_empty() {
            peer.gate().clear();
            let mut sync = self.sync();
            sync.presync.remove(peer.id);
            sync.headers.answered(peer.id);
            sync.headers.ended(peer.id, false, self.clock.now());
            return Ok(());
        }
        check_headers_alone(&headers, self.chain.params()).map_err(String::from)?;
        let full = headers.len() >= HEADERS_MAX;
        let passed = peer.gate().receive(headers, full);
        if passed.checked {
            self.sync().headers.answered(peer.id);
        }
        if let Some(locator) = passed.ask {
            self.ask_headers(peer, locator);
        }
        self.report_presync(peer);
        if passed.headers.is_empty() {
            self.end_if_over(peer);
            return Ok(());
        }
        self.take_in_headers(peer, passed.headers, passed.checked, full)
    }

    /// Handles headers that the gate let through; `checked`: their chain has enough work.
    pub(super) fn take_in_headers(
        &self,
        peer: &Arc<Peer>,
        headers: Vec<Header>,
        checked: bool,
        full: bool,
    ) -> Result<(), End> {
        let last = headers.last().map(Header::block_hash);
        let checked = checked || peer.is_protected();
        let (sender, sync) = (Arc::clone(peer), Arc::clone(&self.sync));
        let supply = if self.chain.is_loading() { Supply::Never } else { self.supply(peer) };
        let outcome = self.chain.change(move |worker| {
            let now = worker.clock.now();
            let chain = &mut worker.chainstate;
            let mut outcome = take_headers(chain, headers, checked, worker.clock.seconds())?;
            if let HeadersOutcome::Accepted(accepted) = &mut outcome {
                // At once, so that of several that announce a block the first one is asked.
                learn(chain, &sender, accepted.last);
                accepted.order =
                    order_announced(chain, &sync, &sender, (accepted.last, supply), now);
            }
            Ok(outcome)
        })?;
        let HeadersOutcome::Unconnected(best) = outcome else {
            self.sync().headers.answered(peer.id);
            return self.on_connected_headers(peer, outcome, full);
        };
        // It may be an announcement: what is between is asked for, and the block once it is known.
        if self.sync().headers.ask(peer.id, self.clock.now()) {
            tracing::debug!(
                "received header {}: missing prev block, sending getheaders ({}) to end (peer={})",
                last.map(|hash| hash.to_string()).unwrap_or_default(),
                best.height,
                peer.id
            );
            self.send_getheaders(peer, None)?;
        }
        Ok(self.learn_announced(peer, last)?)
    }

    fn on_connected_headers(
        &self,
        peer: &Arc<Peer>,
        outcome: HeadersOutcome,
        full: bool,
    ) -> Result<(), End> {
        match outcome {
            HeadersOutcome::Accepted(accepted) => self.on_accepted_headers(peer, accepted, full),
            HeadersOutcome::Doubtful(sync, headers) => {
                let ask = peer.gate().start(*sync, headers);
                self.report_presync(peer);
                if let Some(locator) = ask {
                    self.ask_headers(peer, locator);
                }
                self.end_if_over(peer);
                Ok(())
            }
            HeadersOutcome::Worthless(height) => {
                tracing::debug!("Ignoring low-work chain (height={height}) from peer={}", peer.id);
                self.sync().headers.ended(peer.id, false, self.clock.now());
                Ok(())
            }
            HeadersOutcome::Rejected(rejection) => {
                blame(peer, &rejection, false, "invalid header received")?;
                // Whoever keeps the connection is asked for no more either.
                self.sync().headers.ended(peer.id, false, self.clock.now());
                Ok(())
            }
            HeadersOutcome::Unconnected(_) => Ok(()),
        }
    }

    /// Notes that a peer has no more headers if its chain has ended with too little work, or turned
    /// out to be none: it is asked for no more, and the others must not wait for it.
    fn end_if_over(&self, peer: &Peer) {
        if peer.gate().sync().is_none() {
            self.sync().headers.ended(peer.id, false, self.clock.now());
        }
    }

    fn on_accepted_headers(
        &self,
        peer: &Arc<Peer>,
        accepted: Accepted,
        full: bool,
    ) -> Result<(), End> {
        let BlockRef { height, hash } = accepted.block;
        if accepted.is_new {
            let line = format!("Saw new header hash={hash} height={height} peer={}", peer.id);
            if accepted.initial_download {
                tracing::debug!("{line}");
            } else {
                tracing::info!("{line}");
            }
        }
        if accepted.is_new_best && accepted.initial_download {
            let percent = self.share_of_headers(height, accepted.time);
            tracing::info!("Synchronizing blockheaders, height: {height} (~{percent:.2}%)");
        }
        if full && peer.gate().sync().is_none() {
            if self.sync().headers.ask(peer.id, self.clock.now()) {
                tracing::debug!("more getheaders ({height}) to end to peer={}", peer.id);
                self.send_getheaders(peer, Some(accepted.last))?;
            }
        } else if !full {
            self.sync().headers.ended(peer.id, true, self.clock.now());
        }
        if accepted.is_new && accepted.is_better {
            peer.link().chain_sync.last_announcement = self.clock.now();
        }
        let is_useless = accepted.initial_download && !full && accepted.is_low;
        if is_useless && peer.is_disposable() {
            // All that it has is not enough to begin with.
            peer.disconnect("outbound peer headers chain has insufficient work");
            return Ok(());
        }
        self.send_order(peer, accepted.order);
        Ok(self.protect_if_level(peer)?)
    }

    /// Tells how far the pre-synchronisation of the best such peer is.
    fn report_presync(&self, peer: &Peer) {
        let progress = peer.gate().sync().map(Progress::of);
        let report = self.sync().presync.update(peer.id, progress, Instant::now());
        if let Some((height, time)) = report
            && self.chain.view().initial_download
        {
            let percent = self.share_of_headers(height, time);
            tracing::info!("Pre-synchronizing blockheaders, height: {height} (~{percent:.2}%)");
        }
    }

    /// Returns how many percent of all headers there are up to one of that height and time.
    fn share_of_headers(&self, height: u32, time: u32) -> f64 {
        let spacing = u64::from(self.chain.params().pow_target_spacing);
        let left = self.clock.now().as_secs().saturating_sub(u64::from(time)) / spacing.max(1);
        share(height, u32::try_from(left).unwrap_or(u32::MAX))
    }

    /// Sends `getheaders` with that locator, unless one is under way.
    fn ask_headers(&self, peer: &Peer, locator: Vec<BlockHash>) {
        let now = self.clock.now();
        if self.sync().headers.ask(peer.id, now) {
            if let Some(first) = locator.first() {
                tracing::debug!("more getheaders (from {first}) to peer={}", peer.id);
            }
            peer.send(Message::GetHeaders(locator, no_stop()), now);
        }
    }

    /// Sends `getheaders` with a locator of `from`, or of the best header.
    pub(super) fn send_getheaders(
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
    pub(super) fn send_first_getheaders(&self, peer: &Peer) -> Result<(), Stopped> {
        let (from, height) = self.chain.query(|chain| {
            let headers = chain.headers();
            let best = headers.best();
            let from = headers.entry(best).parent.unwrap_or(best);
            (from, headers.entry(from).height)
        })?;
        tracing::debug!("initial getheaders ({height}) to peer={}", peer.id);
        peer.link().chain_sync.started = true;
        self.send_getheaders(peer, Some(from))
    }
}

fn take_headers(
    chain: &mut Chainstate,
    headers: Vec<Header>,
    checked: bool,
    now: u32,
) -> cofferdam_ibd::Result<HeadersOutcome> {
    let params = Arc::clone(chain.params());
    let best_before = chain.headers().best();
    match headers_work(chain.headers(), chain.tip_ref(), &params, &headers) {
        HeadersWork::Unconnected => {
            let best = chain.headers().entry(best_before);
            let best = BlockRef { height: best.height, hash: best.hash };
            return Ok(HeadersOutcome::Unconnected(best));
        }
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
    let last = headers.last().map(Header::block_hash);
    let is_new = last.is_some_and(|hash| chain.headers().get(&hash).is_none());
    let accepted = match chain.accept_headers(&headers, now)? {
        Ok(accepted) => accepted,
        Err(rejection) => return Ok(HeadersOutcome::Rejected(rejection)),
    };
    let initial_download = chain.is_initial_block_download(now);
    let tree = chain.headers();
    let last = tree.get(&accepted.last.hash).unwrap_or_else(|| tree.genesis());
    let entry = tree.entry(last);
    Ok(HeadersOutcome::Accepted(Accepted {
        last,
        block: accepted.last,
        time: entry.header.time,
        is_new,
        is_new_best: tree.best() != best_before,
        is_better: entry.chain_work > tree.entry(chain.tip_ref()).chain_work,
        initial_download,
        order: Order::default(),
        is_low: entry.chain_work < params.minimum_chain_work,
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
