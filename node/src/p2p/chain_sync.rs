//! Outbound peers that fall behind: given time to catch up, and replaced if they do not.
//!
//! As in Bitcoin Core (`ConsiderEviction`): a peer that we chose and whose best block has less work
//! than our tip has 20 minutes to reach what was the tip when that was noticed. Then it is asked
//! once, and two minutes later the connection ends. Four peers that were once level with us are
//! exempt, so that a chain with more work which we take for invalid cannot cost us all of them.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::BlockHash;
use cofferdam_ibd::{Chainstate, HeaderRef};

use super::manager::PeerManager;
use super::message::{Message, no_stop};
use super::peer::{Kind, Peer};
use crate::chain::Stopped;

/// How long a peer may be behind (Core's `CHAIN_SYNC_TIMEOUT`).
const CATCH_UP_TIME: Duration = Duration::from_secs(20 * 60);

/// How long it has for its answer when it is asked in the end (`HEADERS_RESPONSE_TIME`).
const ANSWER_TIME: Duration = Duration::from_secs(2 * 60);

/// Peers that are exempt (`MAX_OUTBOUND_PEERS_TO_PROTECT_FROM_DISCONNECT`).
const PROTECTED_MAX: usize = 4;

/// How a peer keeps up.
#[derive(Debug, Default)]
pub(crate) struct ChainSync {
    /// Whether it was asked for its headers: before that nothing can be expected of it.
    pub(super) started: bool,
    /// Whether it is exempt.
    pub(super) is_protected: bool,
    /// When it last announced a block that was new and better than our tip.
    pub(super) last_announcement: Duration,
    behind: Option<Behind>,
    /// The peer's best header and our tip when that was last looked at.
    judged: Option<(Option<HeaderRef>, BlockHash)>,
}

/// A peer that is behind.
#[derive(Clone, Copy, Debug)]
struct Behind {
    deadline: Duration,
    /// What it has to reach: the tip when it was noticed.
    mark: HeaderRef,
    asked: bool,
}

/// Where a peer stands.
#[derive(Clone, Copy, Debug)]
struct Standing {
    tip: HeaderRef,
    /// Whether its best block has as much work as the tip.
    is_level: bool,
    /// Whether it has as much as what it had to reach.
    at_mark: bool,
}

/// What to do about a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    Fine,
    /// Ask it for headers up to this one.
    Ask(HeaderRef),
    /// It had its time.
    Drop,
}

impl ChainSync {
    /// Returns whether there may be something to do: what is known has changed, or time is over.
    fn is_due(&self, best: Option<HeaderRef>, tip: BlockHash, now: Duration) -> bool {
        let is_late = self.behind.is_some_and(|behind| now > behind.deadline);
        !self.is_protected && self.started && (is_late || self.judged != Some((best, tip)))
    }

    fn judge(&mut self, standing: Standing, now: Duration) -> Verdict {
        let Standing { tip, is_level, at_mark } = standing;
        let fresh = Behind { deadline: now + CATCH_UP_TIME, mark: tip, asked: false };
        match &mut self.behind {
            _ if is_level => self.behind = None,
            Some(behind) if !at_mark => {
                if now > behind.deadline && behind.asked {
                    return Verdict::Drop;
                }
                if now > behind.deadline {
                    *behind = Behind { deadline: now + ANSWER_TIME, asked: true, ..*behind };
                    return Verdict::Ask(behind.mark);
                }
            }
            _ => self.behind = Some(fresh),
        }
        Verdict::Fine
    }
}

impl PeerManager {
    /// Disconnects a peer that we chose and that does not keep up, or asks it one last time.
    pub(super) fn consider_eviction(&self, peer: &Arc<Peer>) -> Result<(), Stopped> {
        if !peer.is_disposable() {
            return Ok(());
        }
        let (now, tip) = (self.clock.now(), self.chain.view().tip.hash);
        let best = peer.state().best_known;
        let mark = {
            let link = peer.link();
            if !link.chain_sync.is_due(best, tip, now) {
                return Ok(());
            }
            link.chain_sync.behind.map(|behind| behind.mark)
        };
        let (standing, best_hash) =
            self.chain.query(move |chain| (standing(chain, best, mark), hash_of(chain, best)))?;
        let verdict = {
            let mut link = peer.link();
            link.chain_sync.judged = Some((best, tip));
            link.chain_sync.judge(standing, now)
        };
        match verdict {
            Verdict::Fine => {}
            Verdict::Ask(mark) => self.ask_to_catch_up(peer, mark, &best_hash)?,
            Verdict::Drop => {
                let text = format!("Outbound peer has old chain, best known block = {best_hash}");
                tracing::info!("{text}, disconnecting {}", peer.in_log());
                peer.close();
            }
        }
        Ok(())
    }

    fn ask_to_catch_up(&self, peer: &Peer, mark: HeaderRef, best: &str) -> Result<(), Stopped> {
        let now = self.clock.now();
        let (locator, hash) = self.chain.query(move |chain| {
            let headers = chain.headers();
            let entry = headers.entry(mark);
            (headers.locator(entry.parent.unwrap_or(mark)), entry.hash)
        })?;
        // With a request under way its answer will tell as much.
        if self.sync().headers.ask(peer.id, now) {
            peer.send(Message::GetHeaders(locator, no_stop()), now);
        }
        tracing::debug!(
            "sending getheaders to outbound peer={} to verify chain work (current best known block:{best}, benchmark blockhash: {hash})",
            peer.id
        );
        Ok(())
    }

    /// Exempts a peer that is level with us, if few are exempt yet. Peers for blocks alone never are.
    pub(super) fn protect_if_level(&self, peer: &Peer) -> Result<(), Stopped> {
        let is_candidate = peer.kind == Kind::OutboundFullRelay
            && !peer.is_closing()
            && !peer.link().chain_sync.is_protected;
        if !is_candidate {
            return Ok(());
        }
        let peers = self.peers();
        let protected = peers.iter().filter(|peer| peer.link().chain_sync.is_protected).count();
        let best = peer.state().best_known;
        if protected < PROTECTED_MAX
            && self.chain.query(move |chain| standing(chain, best, None).is_level)?
        {
            tracing::debug!("Protecting outbound peer={} from eviction", peer.id);
            peer.link().chain_sync.is_protected = true;
        }
        Ok(())
    }
}

fn standing(chain: &Chainstate, best: Option<HeaderRef>, mark: Option<HeaderRef>) -> Standing {
    let headers = chain.headers();
    let work = |at| headers.entry(at).chain_work;
    let reaches = |wanted| best.is_some_and(|best| work(best) >= work(wanted));
    let tip = chain.tip_ref();
    Standing { tip, is_level: reaches(tip), at_mark: mark.is_some_and(reaches) }
}

fn hash_of(chain: &Chainstate, at: Option<HeaderRef>) -> String {
    at.map_or_else(|| "<none>".into(), |at| chain.headers().entry(at).hash.to_string())
}

#[cfg(test)]
mod tests {
    use bitcoin::constants::genesis_block;
    use cofferdam_ibd::HeaderTree;

    use super::*;

    fn tip() -> HeaderRef {
        HeaderTree::new(genesis_block(bitcoin::Network::Regtest).header).genesis()
    }

    fn standing(is_level: bool, at_mark: bool) -> Standing {
        Standing { tip: tip(), is_level, at_mark }
    }

    const fn at(minutes: u64) -> Duration {
        Duration::from_secs(1_000_000 + minutes * 60)
    }

    #[test]
    fn a_peer_that_stays_behind_is_asked_once_and_goes() {
        let mut peer = ChainSync::default();
        let behind = standing(false, false);
        assert_eq!(peer.judge(behind, at(0)), Verdict::Fine);
        assert_eq!(peer.judge(behind, at(20)), Verdict::Fine);
        assert_eq!(peer.judge(behind, at(21)), Verdict::Ask(tip()));
        assert_eq!(peer.judge(behind, at(23)), Verdict::Fine);
        assert_eq!(peer.judge(behind, at(24)), Verdict::Drop);
    }

    #[test]
    fn a_peer_that_reaches_what_was_the_tip_has_as_much_time_again() {
        let mut peer = ChainSync::default();
        assert_eq!(peer.judge(standing(false, false), at(0)), Verdict::Fine);
        assert_eq!(peer.judge(standing(false, false), at(21)), Verdict::Ask(tip()));
        assert_eq!(peer.judge(standing(false, true), at(22)), Verdict::Fine);
        assert_eq!(peer.judge(standing(false, false), at(41)), Verdict::Fine);
        assert_eq!(peer.judge(standing(false, false), at(43)), Verdict::Ask(tip()));
        // Level with us: nothing is counted any more.
        assert_eq!(peer.judge(standing(true, true), at(44)), Verdict::Fine);
        assert_eq!(peer.judge(standing(false, false), at(90)), Verdict::Fine);
    }

    #[test]
    fn nothing_is_asked_of_the_chain_while_nothing_changes() {
        let mut peer = ChainSync { started: true, ..ChainSync::default() };
        let (first, second) = ([1; 32], [2; 32]);
        let hash = <BlockHash as bitcoin::hashes::Hash>::from_byte_array;
        assert!(peer.is_due(None, hash(first), at(0)));
        peer.judged = Some((None, hash(first)));
        assert_eq!(peer.judge(standing(false, false), at(0)), Verdict::Fine);
        assert!(!peer.is_due(None, hash(first), at(20)));
        assert!(peer.is_due(None, hash(second), at(20)));
        assert!(peer.is_due(Some(tip()), hash(first), at(20)));
        assert!(peer.is_due(None, hash(first), at(21)));
        peer.is_protected = true;
        assert!(!peer.is_due(None, hash(first), at(21)));
    }
}
