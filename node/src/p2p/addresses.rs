//! Addresses of nodes: told to us, told on, and kept.
//!
//! As Bitcoin Core does it: a peer may tell of one node in ten seconds, and of a thousand more when
//! it was asked; a few fresh ones are told on to two others, which stay the same for a day, so that
//! telling often makes no address better known.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bitcoin::hashes::{HashEngine as _, siphash24};

use super::addrman::{AddrMan, Counts, Entry};
use super::dispatch::End;
use super::gossip_message::{ADDRESSES_MAX, Addresses, Told, encode};
use super::manager::{PeerManager, random_nonce};
use super::net_addr::NodeAddr;
use super::peer::{Kind, Peer};
use super::peers_file;
use super::permissions::Permissions;
use crate::config::Net;

/// Addresses a second that a peer may tell of, and how many it may save up.
const TOKENS_PER_SECOND: f64 = 0.1;
const TOKENS_MAX: f64 = 1000.0;

/// Share of all addresses told to one peer, in percent.
const TOLD_PERCENT: usize = 23;

/// How long the same answer to `getaddr` is given, so that asking often tells no more.
const ANSWER_TIME: Duration = Duration::from_secs(24 * 60 * 60);

/// Doors whose answers are remembered; with more, all are forgotten.
const DOORS_MAX: usize = 64;

/// Mean time between two messages of addresses to one peer.
const SEND_INTERVAL: Duration = Duration::from_secs(30);

/// Addresses that a peer is known to know; with more, all are forgotten.
const KNOWN_MAX: usize = 5000;

/// How much older addresses are taken to be that others tell of.
const PENALTY_SECONDS: u64 = 2 * 60 * 60;

/// How often the addresses are written.
const SAVE_INTERVAL: Duration = Duration::from_secs(15 * 60);

/// The key of the tables with `-test=addrman`: Core's tests know where each address goes then.
const TEST_KEY: [u8; 32] = {
    let mut key = [0; 32];
    key[0] = 1;
    key
};

/// What the exchange of addresses remembers of one peer.
#[derive(Debug)]
pub(crate) struct AddressLink {
    /// Whether addresses are exchanged with it.
    pub(crate) enabled: bool,
    /// Addresses that were taken in.
    pub(crate) processed: u64,
    /// Addresses that came too fast.
    pub(crate) rate_limited: u64,
    tokens: f64,
    tokens_at: Option<Duration>,
    was_answered: bool,
    was_asked: bool,
    known: HashSet<NodeAddr>,
    to_send: Vec<Told>,
    next_send: Duration,
    /// When to tell it our own address; 0: at once.
    pub(super) next_own: Duration,
}

impl Default for AddressLink {
    fn default() -> Self {
        Self {
            enabled: false,
            processed: 0,
            rate_limited: 0,
            tokens: 1.0,
            tokens_at: None,
            was_answered: false,
            was_asked: false,
            known: HashSet::new(),
            to_send: Vec::new(),
            next_send: Duration::ZERO,
            next_own: Duration::ZERO,
        }
    }
}

impl AddressLink {
    fn refill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.tokens_at.unwrap_or(now)).as_secs_f64();
        if self.tokens < TOKENS_MAX {
            self.tokens = (self.tokens + passed * TOKENS_PER_SECOND).min(TOKENS_MAX);
        }
        self.tokens_at = Some(now);
    }

    /// Returns whether one more address may be taken in.
    fn take_token(&mut self) -> bool {
        let may = self.tokens >= 1.0;
        if may {
            self.tokens -= 1.0;
        }
        may
    }

    fn learn(&mut self, address: NodeAddr) -> bool {
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        self.known.insert(address)
    }

    /// Has all addresses told to it once more.
    pub(super) fn forget_known(&mut self) {
        self.known.clear();
    }

    /// Takes what waits and can be told to the peer: what it does not know and understands.
    fn take_due(&mut self, wants_v2: bool) -> Vec<Told> {
        let mut list = std::mem::take(&mut self.to_send);
        list.retain(|told| told.address.is_some_and(|at| at.host.fits(wants_v2) && self.learn(at)));
        list
    }

    pub(super) fn push(&mut self, told: Told) {
        let is_known = told.address.is_none_or(|address| self.known.contains(&address));
        if is_known {
            return;
        }
        if self.to_send.len() < ADDRESSES_MAX {
            self.to_send.push(told);
        } else if let Some(place) = self.to_send.get_mut(index(ADDRESSES_MAX)) {
            *place = told;
        }
    }
}

/// The tables, and what is done with them from time to time.
#[derive(Debug)]
pub(super) struct AddressBook(Mutex<State>);

#[derive(Debug)]
struct State {
    manager: AddrMan,
    file: Option<PathBuf>,
    saved_at: Duration,
    answers: HashMap<Door, Answer>,
}

/// Where somebody came in: whoever comes in by two doors must not learn that both are ours.
type Door = (bool, Option<SocketAddr>);

/// An answer to `getaddr`, and until when it is given.
#[derive(Debug, Default)]
struct Answer {
    entries: Vec<Entry>,
    until: Duration,
}

impl AddressBook {
    /// Makes an empty book; the key is random and secret.
    pub(super) fn new(key: [u8; 32]) -> Self {
        Self(Mutex::new(State {
            manager: AddrMan::new(key, Arc::default()),
            file: None,
            saved_at: Duration::ZERO,
            answers: HashMap::new(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PeerManager {
    /// Reads the addresses of earlier runs.
    ///
    /// # Errors
    ///
    /// Returns what is wrong with their file, for the user.
    pub(crate) fn open_addresses(&self, chain_dir: &Path) -> Result<(), String> {
        let path = chain_dir.join("peers.dat");
        let fresh = self.addresses.state().manager.key;
        let key = if self.config.test_addresses { TEST_KEY } else { fresh };
        let magic = self.chain.params().magic;
        let manager = peers_file::load(&path, magic, key, &self.groups)?;
        let Counts { new, tried } = manager.counts(None);
        tracing::info!("Loaded {} addresses from peers.dat", new + tried);
        let mut state = self.addresses.state();
        state.manager = manager;
        state.file = Some(path);
        state.saved_at = self.clock.now();
        drop(state);
        self.look_at_map();
        Ok(())
    }

    /// Writes the addresses.
    pub(super) fn save_addresses(&self) {
        let (path, manager) = {
            let mut state = self.addresses.state();
            state.saved_at = self.clock.now();
            (state.file.clone(), state.manager.clone())
        };
        if let Some(path) = path {
            peers_file::save(&path, self.chain.params().magic, &manager);
        }
    }

    /// Works on the tables, for a few lines.
    pub(crate) fn with_addresses<T>(&self, work: impl FnOnce(&mut AddrMan) -> T) -> T {
        let mut state = self.addresses.state();
        self.check_addresses(&state.manager);
        let result = work(&mut state.manager);
        self.check_addresses(&state.manager);
        result
    }

    /// Returns addresses in random order; 0 means all.
    pub(crate) fn sample_addresses(&self, max: usize, net: Option<Net>) -> Vec<Entry> {
        let now = self.clock.now().as_secs();
        self.with_addresses(|manager| manager.sample(max, 0, net, now, random_nonce))
    }

    /// Begins the exchange with a peer whose handshake is done.
    pub(super) fn addresses_ready(&self, peer: &Peer) {
        if peer.is_inbound() {
            return;
        }
        self.note_good(peer);
        if peer.kind.relays_addresses() {
            let link = &mut peer.link().addresses;
            link.enabled = true;
            link.was_asked = true;
            link.tokens += TOKENS_MAX;
        }
    }

    /// Notes that a node was there until now.
    pub(super) fn note_gone(&self, peer: &Peer) {
        if peer.is_ready() && !peer.is_inbound() && peer.kind.relays_addresses() {
            let now = self.clock.now().as_secs();
            self.with_addresses(|manager| manager.connected(self.node_addr(peer.address), now));
        }
    }

    /// Notes that a node is where we found it.
    pub(super) fn note_good(&self, peer: &Peer) {
        let services = peer.state().version.as_ref().map_or(0, |version| version.services);
        let now = self.clock.now().as_secs();
        let address = self.node_addr(peer.address);
        self.with_addresses(|manager| {
            manager.set_services(address, services);
            manager.good(address, now);
        });
    }

    pub(super) fn on_addresses(
        &self,
        peer: &Arc<Peer>,
        command: &'static str,
        addresses: Addresses,
    ) -> Result<(), End> {
        if !peer.kind.relays_addresses() {
            tracing::debug!(
                "ignoring {command} message from {} peer={}",
                peer.kind.name(),
                peer.id
            );
            return Ok(());
        }
        let list = match addresses {
            Addresses::List(list) => list,
            Addresses::TooMany(count) => {
                return Err(format!("{command} message size = {count}").into());
            }
        };
        let (now, count) = (self.clock.now(), list.len());
        let limited = !peer.may(Permissions::ADDR);
        let mut fresh = Vec::new();
        let mut kept = Vec::new();
        let (mut processed, mut rate_limited) = (0_u64, 0_u64);
        {
            let mut link = peer.link();
            let link = &mut link.addresses;
            link.enabled = true;
            link.refill(now);
            for mut told in shuffled(list) {
                if !link.take_token() && limited {
                    rate_limited += 1;
                    continue;
                }
                // Only nodes that serve blocks are of use.
                if told.services & 1 == 0 && told.services & (1 << 10) == 0 {
                    continue;
                }
                let address = told.address;
                if let Some(address) = address {
                    link.learn(address);
                }
                if address.and_then(|at| at.host.ip()).is_some_and(|ip| self.is_shunned(ip)) {
                    continue;
                }
                processed += 1;
                let Some(address) = address else { continue };
                let seconds = now.as_secs();
                if told.time <= 100_000_000 || told.time > seconds + 600 {
                    told.time = seconds.saturating_sub(5 * 24 * 60 * 60);
                }
                let is_fresh = told.time > seconds.saturating_sub(600);
                if is_fresh && !link.was_asked && count <= 10 && address.host.is_routable() {
                    fresh.push(told);
                }
                if address.host.net().is_some_and(|net| self.config.proxies.reaches(net)) {
                    kept.push((address, told.services, told.time));
                }
            }
            link.processed += processed;
            link.rate_limited += rate_limited;
            link.was_asked &= count >= ADDRESSES_MAX;
        }
        tracing::debug!(
            "Received addr: {count} addresses ({processed} processed, {rate_limited} rate-limited) from peer={}",
            peer.id
        );
        for told in fresh {
            self.relay_address(peer, told);
        }
        self.keep_addresses(peer, &kept);
        if peer.kind == Kind::AddrFetch && count > 1 {
            peer.disconnect("addrfetch connection completed");
        }
        Ok(())
    }

    fn keep_addresses(&self, peer: &Peer, kept: &[(NodeAddr, u64, u64)]) {
        let (now, source) = (self.clock.now().as_secs(), self.host(peer.address.ip()));
        let (added, counts) = self.with_addresses(|manager| {
            let mut added = 0;
            for told in kept {
                added += u32::from(manager.add(*told, source, PENALTY_SECONDS, now));
            }
            (added, manager.counts(None))
        });
        if added > 0 {
            let Counts { new, tried } = counts;
            let of = kept.len();
            tracing::debug!(
                "Added {added} addresses (of {of}) from {source}: {tried} tried, {new} new"
            );
        }
    }

    /// Tells two peers of an address, the same two for a day.
    fn relay_address(&self, from: &Peer, told: Told) {
        let Some(address) = told.address else { return };
        let [a, b] = self.addresses.state().manager.secret();
        let hash = |words: &[u64]| {
            let mut engine = siphash24::HashEngine::with_keys(a, b);
            engine.input(address.to_string().as_bytes());
            words.iter().for_each(|word| engine.input(&word.to_le_bytes()));
            siphash24::Hash::from_engine_to_u64(engine)
        };
        // The change of the day is at another hour for each address.
        let day = self.clock.now().as_secs().wrapping_add(hash(&[]) >> 1) / (24 * 60 * 60);
        let mut others: Vec<Arc<Peer>> = self.peers();
        others.retain(|peer| {
            let understands = address.host.fits(peer.state().wants_addr_v2);
            understands && peer.id != from.id && peer.link().addresses.enabled
        });
        others.sort_by_key(|peer| std::cmp::Reverse(hash(&[day, peer.id])));
        let is_reached = address.host.net().is_some_and(|net| self.config.proxies.reaches(net));
        // Where we cannot go ourselves is told on less.
        let count = if is_reached || hash(&[day, u64::MAX]) & 1 == 1 { 2 } else { 1 };
        for peer in others.into_iter().take(count) {
            peer.link().addresses.push(told);
        }
    }

    /// Answers `getaddr`.
    pub(super) fn serve_addresses(&self, peer: &Peer) {
        if !peer.is_inbound() {
            let kind = peer.kind.name();
            tracing::debug!("Ignoring \"getaddr\" from {kind} connection. peer={}", peer.id);
            return;
        }
        let was_answered = {
            let link = &mut peer.link().addresses;
            link.enabled = true;
            std::mem::replace(&mut link.was_answered, true)
        };
        if was_answered {
            tracing::debug!("Ignoring repeated \"getaddr\". peer={}", peer.id);
            return;
        }
        let answer = self.answer(peer);
        let link = &mut peer.link().addresses;
        link.to_send.clear();
        for Entry { time, services, address, .. } in answer {
            link.push(Told { time, services, address: Some(address) });
        }
    }

    fn answer(&self, peer: &Peer) -> Vec<Entry> {
        let now = self.clock.now();
        let mut state = self.addresses.state();
        let sample = |manager: &AddrMan| {
            let mut sample =
                manager.sample(ADDRESSES_MAX, TOLD_PERCENT, None, now.as_secs(), random_nonce);
            sample.retain(|entry| !entry.address.host.ip().is_some_and(|ip| self.is_shunned(ip)));
            sample
        };
        if peer.may(Permissions::ADDR) {
            return sample(&state.manager);
        }
        let door = (peer.through_onion, peer.bind);
        let known = state.answers.get(&door).filter(|answer| now < answer.until);
        if let Some(answer) = known {
            return answer.entries.clone();
        }
        let entries = sample(&state.manager);
        if state.answers.len() >= DOORS_MAX {
            state.answers.clear();
        }
        state.answers.insert(door, Answer { entries: entries.clone(), until: now + ANSWER_TIME });
        entries
    }

    /// Sends each peer the addresses that it is to be told of, and writes the file when it is time.
    pub(super) fn tick_addresses(&self) {
        let now = self.clock.now();
        // Either way: the clock may have gone back.
        let due = now.abs_diff(self.addresses.state().saved_at) >= SAVE_INTERVAL;
        if due {
            self.save_addresses();
        }
        for peer in self.peers() {
            self.send_addresses(&peer);
        }
    }

    /// Sends a peer the addresses that it is to be told of, if it is time.
    pub(super) fn send_addresses(&self, peer: &Peer) {
        let now = self.clock.now();
        self.tell_own_address(peer, now);
        let wants_v2 = peer.state().wants_addr_v2;
        let (command, payload) = {
            let mut link = peer.link();
            let link = &mut link.addresses;
            if !link.enabled || now < link.next_send {
                return;
            }
            link.next_send = now + SEND_INTERVAL.mul_f64(exponential());
            let list = link.take_due(wants_v2);
            if list.is_empty() {
                return;
            }
            let command = if wants_v2 { "addrv2" } else { "addr" };
            (command, encode(&list, wants_v2))
        };
        peer.send_bytes(command.into(), payload);
    }
}

/// A random place among `count`.
fn index(count: usize) -> usize {
    let count = u64::try_from(count).unwrap_or(u64::MAX).max(1);
    usize::try_from(random_nonce() % count).unwrap_or(0)
}

fn shuffled<T>(mut items: Vec<T>) -> Vec<T> {
    for end in (1..items.len()).rev() {
        items.swap(end, index(end + 1));
    }
    items
}

/// A random time with mean 1, so that nobody can tell when the next message comes.
pub(super) fn exponential() -> f64 {
    let high = u32::try_from(random_nonce() >> 32).unwrap_or(u32::MAX);
    let uniform = (f64::from(high) + 1.0) / (f64::from(u32::MAX) + 2.0);
    -uniform.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(number: u8) -> Told {
        let address = Some(SocketAddr::from(([1, 2, 3, number], 8333)).into());
        Told { time: 1, services: 9, address }
    }

    #[test]
    fn addresses_are_taken_in_at_a_tenth_a_second() {
        let mut link = AddressLink::default();
        let at = Duration::from_secs;
        link.refill(at(100));
        assert!(link.take_token() && !link.take_token(), "one at first");
        link.refill(at(150));
        assert_eq!((0..10).filter(|_| link.take_token()).count(), 5);
        link.refill(at(1_000_000));
        assert_eq!((0..2000).filter(|_| link.take_token()).count(), 1000, "no more is saved up");
        // A clock that goes back gives nothing.
        link.refill(at(10));
        assert!(!link.take_token());
    }

    #[test]
    fn nobody_is_told_what_he_knows_and_what_waits_is_bounded() {
        let mut link = AddressLink::default();
        link.learn(told(1).address.expect("some"));
        link.push(told(1));
        link.push(told(2));
        assert_eq!(link.to_send, [told(2)]);
        for _ in 0..5000 {
            link.push(told(3));
        }
        assert_eq!(link.to_send.len(), ADDRESSES_MAX);
    }

    #[test]
    fn nobody_is_told_of_networks_that_he_has_not_asked_for() {
        let host = super::super::net_addr::Host::Onion([7; 32]);
        let onion = Told { address: Some(NodeAddr { host, port: 8333 }), ..told(1) };
        for (wants_v2, right) in [(false, vec![told(1)]), (true, vec![onion, told(1)])] {
            let mut link = AddressLink::default();
            link.push(onion);
            link.push(told(1));
            assert_eq!(link.take_due(wants_v2), right);
            assert_eq!(link.take_due(wants_v2), []);
        }
    }

    #[test]
    fn random_times_have_the_mean_asked_for() {
        let sum: f64 = (0..20_000).map(|_| exponential()).sum();
        let mean = sum / 20_000.0;
        assert!((0.9..1.1).contains(&mean), "{mean}");
    }
}
