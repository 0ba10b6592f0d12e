//! What a connection needs from time to time: signs of life, limits of silence, messages that
//! follow from what is known by now. All by the node's clock, which tests move.

use std::sync::Arc;
use std::time::Duration;

use super::manager::{PeerManager, random_nonce};
use super::message::Message;
use super::peer::{Kind, Peer};
use super::permissions::Permissions;
use super::ping;

/// How long the answer to a wish for addresses may take (ten times Bitcoin Core's
/// `AVG_ADDRESS_BROADCAST_INTERVAL`).
const ADDR_FETCH_TIMEOUT: Duration = Duration::from_secs(300);

/// The fee rate that nobody pays, as Core rounds it: "tell me of no transaction".
const FEE_FILTER_MAX: u64 = 9_936_506;

/// The fee rate from which Core relays transactions, in satoshis per 1000 bytes.
const FEE_FILTER_MIN: u64 = 100;

impl PeerManager {
    /// Disconnects a peer from which, or to which, nothing came for too long.
    pub(super) fn check_silence(&self, peer: &Peer) {
        let now = self.clock.now();
        if !self.is_past_grace(peer, now) {
            return;
        }
        let (sent, received, ready) = {
            let state = peer.state();
            (state.sent.last, state.received.last, state.ready)
        };
        let reason = if received.is_zero() || sent.is_zero() {
            let never = |missing: bool, text| if missing { text } else { "" };
            format!(
                "socket no message in first {} seconds{}{}",
                self.config.peer_timeout.as_secs(),
                never(received.is_zero(), ", never received from peer"),
                never(sent.is_zero(), ", never sent to peer")
            )
        } else if now > sent + ping::TIMEOUT {
            format!("socket sending timeout: {}s", (now - sent).as_secs())
        } else if now > received + ping::TIMEOUT {
            format!("socket receive timeout: {}s", (now - received).as_secs())
        } else if !ready {
            let is_detecting = peer.transport().name == "detecting";
            let what = if is_detecting { "V2" } else { "version" };
            format!("{what} handshake timeout")
        } else {
            return;
        };
        peer.disconnect(&reason);
    }

    /// Sends what is due on a connection. Runs after every message and at every tick.
    pub(super) fn look_after(&self, peer: &Arc<Peer>) {
        if !peer.is_ready() || peer.is_closing() {
            return;
        }
        let now = self.clock.now();
        if peer.kind == Kind::AddrFetch && now > peer.connected_at + ADDR_FETCH_TIMEOUT {
            peer.disconnect("addrfetch connection timeout");
            return;
        }
        let overdue = peer.state().ping.overdue(now);
        if let Some(time) = overdue.filter(|_| self.is_past_grace(peer, now)) {
            peer.disconnect(&format!("ping timeout: {:.6}s", time.as_secs_f64()));
            return;
        }
        let nonce = random_nonce().max(1);
        let is_due = peer.state().ping.due(nonce, now);
        if is_due {
            peer.send(Message::Ping(nonce), now);
        }
        self.ask_for_headers_announcements(peer, now);
        self.tell_fee_filter(peer, now);
        // A chain that has stopped ends the connection too.
        let _ = self.consider_eviction(peer);
    }

    /// Asks every peer for a sign of life.
    pub(crate) fn ping_all(&self) {
        for peer in self.peers() {
            peer.state().ping.queued = true;
            self.look_after(&peer);
        }
    }

    /// Says that new blocks may be announced by headers, once the peer's chain is one to follow:
    /// before that they would mix with the headers that it was asked for.
    fn ask_for_headers_announcements(&self, peer: &Peer, now: Duration) {
        let best = {
            let mut state = peer.state();
            let (best, before) = (state.best_known, state.judged_best);
            state.judged_best = best;
            // The chain's thread is asked once for each header.
            best.filter(|_| !state.sent_send_headers && best != before)
        };
        let Some(best) = best else {
            return;
        };
        let has_work = self.chain.query(move |chain| {
            chain.headers().entry(best).chain_work > chain.params().minimum_chain_work
        });
        if has_work.unwrap_or(false)
            && !std::mem::replace(&mut peer.state().sent_send_headers, true)
        {
            peer.send(Message::SendHeaders, now);
        }
    }

    /// Says which transactions are of interest: none, but for what suites expect on regtest.
    fn tell_fee_filter(&self, peer: &Peer, now: Duration) {
        if self.config.blocks_only
            || peer.kind == Kind::BlockRelayOnly
            || peer.may(Permissions::FORCE_RELAY)
        {
            return;
        }
        let wants_some = self.relays_transactions() && !self.chain.view().initial_download;
        let rate = if wants_some { FEE_FILTER_MIN } else { FEE_FILTER_MAX };
        if peer.state().fee_filter_sent.replace(rate) != Some(rate) {
            peer.send(Message::FeeFilter(rate), now);
        }
    }

    /// Returns whether the time is over in which a connection need not do anything.
    fn is_past_grace(&self, peer: &Peer, now: Duration) -> bool {
        peer.connected_at.checked_add(self.config.peer_timeout).is_some_and(|end| end < now)
    }
}
