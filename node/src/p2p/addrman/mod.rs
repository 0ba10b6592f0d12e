//! `AddrMan`: addresses of nodes, in tables that nobody can fill alone.
//!
//! As Bitcoin Core's `addrman.cpp`: addresses that were heard of are in the *new* table, those that
//! we connected to in the *tried* table. Where an address may be depends on a secret key, its group
//! of networks and, in the new table, the group of who told us: one attacker has 64 of 1,024
//! buckets there, and 8 of 256 tried buckets for each group of his own. The places are Core's, so
//! that its file is read and written. Different from Core:
//!
//! - An address in the tried table gives way to another once a connection to it failed; no feeler is
//!   sent to it before that, nor is the other one kept waiting.
//! - An address in the new table gets one place there (it keeps more that a file gives it).
//! - Only what can be dialled is drawn; later draws get easier by steps, and after some thousands
//!   the choice is given up.

mod restore;

use std::collections::HashMap;
use std::sync::Arc;

use bitcoin::consensus::encode::{VarInt, serialize};
use bitcoin::hashes::{Hash as _, HashEngine as _, sha256d};

pub(super) use restore::Saved;

use super::net_addr::{Host, NodeAddr};
use super::net_group::NetGroups;
use crate::config::Net;

/// Buckets of the two tables, and places of a bucket.
pub(super) const NEW_BUCKETS: u32 = 1024;
pub(super) const TRIED_BUCKETS: u32 = 256;
pub(super) const BUCKET_SIZE: u32 = 64;

/// Most places of an address in the new table.
const PLACES_MAX: u8 = 8;

/// Buckets of the new table that one group of sources can reach, and of the tried table that one
/// group of addresses can.
const NEW_BUCKETS_PER_SOURCE: u64 = 64;
const TRIED_BUCKETS_PER_GROUP: u64 = 8;

/// An address not heard of for this long is as good as gone.
const HORIZON: u64 = 30 * 24 * 60 * 60;
/// An address that never answered so many attempts, or so many in a row for this long, is bad.
const RETRIES: u32 = 3;
const FAILURES_MAX: u32 = 10;
const FAILING_TIME: u64 = 7 * 24 * 60 * 60;
/// Times further in the future than this are made up.
const FUTURE: u64 = 10 * 60;

/// What is known of an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    /// Where it listens.
    pub(crate) address: NodeAddr,
    /// Who told us first.
    pub(crate) source: Host,
    /// What it is said to offer.
    pub(crate) services: u64,
    /// When it was last heard of, in seconds since 1970.
    pub(crate) time: u64,
    pub(super) last_try: u64,
    /// The last attempt that counted.
    pub(super) last_counted: u64,
    pub(super) last_success: u64,
    pub(super) attempts: u32,
    pub(super) tried: bool,
    /// Places in the new table.
    pub(super) places: u8,
}

impl Entry {
    pub(super) const fn new(address: NodeAddr, source: Host, services: u64, time: u64) -> Self {
        Self {
            address,
            source,
            services,
            time,
            last_try: 0,
            last_counted: 0,
            last_success: 0,
            attempts: 0,
            tried: false,
            places: 0,
        }
    }

    /// Whether it is not worth its place.
    fn is_bad(&self, now: u64) -> bool {
        let age = now.saturating_sub(self.time);
        let failing = now.saturating_sub(self.last_success) > FAILING_TIME;
        now.saturating_sub(self.last_try) > 60
            && (self.time > now.saturating_add(FUTURE)
                || age > HORIZON
                || (self.last_success == 0 && self.attempts >= RETRIES)
                || (failing && self.attempts >= FAILURES_MAX))
    }

    /// Chance to be chosen, in thousandths: less soon after an attempt, and after failures.
    fn chance(&self, now: u64) -> u64 {
        let recent = now.saturating_sub(self.last_try) < 10 * 60;
        let base = if recent { 10 } else { 1000 };
        (0..self.attempts.min(8)).fold(base, |chance: u64, _| chance * 66 / 100).max(1)
    }
}

/// How many addresses there are.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Counts {
    pub(crate) new: usize,
    pub(crate) tried: usize,
}

/// Bucket, and position in it.
type Place = (u32, u32);

/// Addresses of nodes; times are seconds since 1970.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct AddrMan {
    pub(super) key: [u8; 32],
    pub(super) groups: Arc<NetGroups>,
    entries: HashMap<NodeAddr, Entry>,
    new: HashMap<Place, NodeAddr>,
    tried: HashMap<Place, NodeAddr>,
    /// When a connection last worked; later than never, so that first attempts count.
    last_good: u64,
}

impl AddrMan {
    /// Makes empty tables; the key is random and secret.
    pub(crate) fn new(key: [u8; 32], groups: Arc<NetGroups>) -> Self {
        let (entries, new, tried) = Default::default();
        Self { key, groups, entries, new, tried, last_good: 1 }
    }

    /// Returns a secret that is the same in every run.
    pub(super) fn secret(&self) -> [u64; 2] {
        let mut engine = sha256d::Hash::engine();
        engine.input(&self.key);
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, ..] =
            sha256d::Hash::from_engine(engine).to_byte_array();
        let first = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        [first, u64::from_le_bytes([i, j, k, l, m, n, o, p])]
    }

    /// Adds an address that `source` told of; returns whether it is new. Its time is taken to be
    /// earlier by `penalty`, unless the source tells of itself.
    pub(crate) fn add(
        &mut self,
        (address, services, time): (NodeAddr, u64, u64),
        source: Host,
        penalty: u64,
        now: u64,
    ) -> bool {
        if !address.host.is_routable() {
            return false;
        }
        let penalty = if address.host == source { 0 } else { penalty };
        let time = time.saturating_sub(penalty);
        if let Some(entry) = self.entries.get_mut(&address) {
            let is_online = now.saturating_sub(time) < 24 * 60 * 60;
            let interval = if is_online { 60 * 60 } else { 24 * 60 * 60 };
            if entry.time.saturating_add(interval) < time {
                entry.time = time;
            }
            entry.services |= services;
            return false;
        }
        let place = self.new_place(address, source);
        if let Some(there) = self.new.get(&place) {
            let stays = |entry: &Entry| !entry.is_bad(now) && entry.places <= 1;
            if self.entries.get(there).is_some_and(stays) {
                return false;
            }
            self.clear_new(place);
        }
        self.entries.insert(address, Entry::new(address, source, services, time));
        self.put_new(place, address);
        tracing::debug!("Added {address}{} to new[{}][{}]", self.mapped(address), place.0, place.1);
        true
    }

    fn mapped(&self, address: NodeAddr) -> String {
        let system = self.groups.system(&address.host);
        system.map_or_else(String::new, |system| format!(" mapped to AS{system}"))
    }

    /// Notes that a connection worked; returns whether the address is in the tried table then.
    pub(crate) fn good(&mut self, address: NodeAddr, now: u64) -> bool {
        self.last_good = now;
        let Some(entry) = self.entries.get_mut(&address) else {
            return false;
        };
        entry.last_success = now;
        entry.last_try = now;
        entry.attempts = 0;
        if entry.tried {
            return true;
        }
        let place = self.tried_place(address);
        if let Some(there) = self.tried.get(&place).copied() {
            let holds = self.entries.get(&there).is_some_and(|entry| entry.attempts == 0);
            if holds {
                tracing::debug!(
                    "Collision with {there} while attempting to move {address} to tried table."
                );
                return false;
            }
            // First, since the other one may go to the same place.
            self.new.retain(|_, there| *there != address);
            self.demote(there, place);
        }
        self.new.retain(|_, there| *there != address);
        if let Some(entry) = self.entries.get_mut(&address) {
            entry.tried = true;
            entry.places = 0;
        }
        self.tried.insert(place, address);
        let mapped = self.mapped(address);
        tracing::debug!("Moved {address}{mapped} to tried[{}][{}]", place.0, place.1);
        true
    }

    /// Notes an attempt to connect. One `counts` against the address if a failure would not be ours,
    /// and if some connection worked since the last that did.
    pub(crate) fn attempt(&mut self, address: NodeAddr, counts: bool, now: u64) {
        if let Some(entry) = self.entries.get_mut(&address) {
            entry.last_try = now;
            if counts && entry.last_counted < self.last_good {
                entry.last_counted = now;
                entry.attempts = entry.attempts.saturating_add(1);
            }
        }
    }

    /// Notes that a connection ended that had worked.
    pub(crate) fn connected(&mut self, address: NodeAddr, now: u64) {
        if let Some(entry) = self.entries.get_mut(&address)
            && now.saturating_sub(entry.time) > 20 * 60
        {
            entry.time = now;
        }
    }

    /// Notes what a node itself says that it offers.
    pub(crate) fn set_services(&mut self, address: NodeAddr, services: u64) {
        if let Some(entry) = self.entries.get_mut(&address) {
            entry.services = services;
        }
    }

    /// Returns what addresses are chosen from, as often as is wanted.
    pub(crate) fn choices(&self) -> Choices<'_> {
        Choices { entries: &self.entries, tried: buckets(&self.tried), new: buckets(&self.new) }
    }

    /// Returns good addresses in random order: at most `max`, and `percent` of all.
    pub(crate) fn sample(
        &self,
        max: usize,
        percent: usize,
        net: Option<Net>,
        now: u64,
        mut random: impl FnMut() -> u64,
    ) -> Vec<Entry> {
        let mut addresses: Vec<&NodeAddr> = self.entries.keys().collect();
        addresses.sort();
        let share = (addresses.len() * percent).div_euclid(100).max(usize::from(percent == 100));
        let wanted = if percent == 0 { addresses.len() } else { share };
        let wanted = if max == 0 { wanted } else { wanted.min(max) };
        let mut found = Vec::new();
        while found.len() < wanted && !addresses.is_empty() {
            let length = u64::try_from(addresses.len()).unwrap_or(u64::MAX);
            let index = usize::try_from(random() % length).unwrap_or(0);
            let address = addresses.swap_remove(index);
            let entry = self.entries.get(address).filter(|entry| !entry.is_bad(now));
            let fits = |entry: &&Entry| net.is_none_or(|net| entry.address.host.net() == Some(net));
            found.extend(entry.filter(fits).copied());
        }
        found
    }

    /// Counts the addresses of a network, or all.
    pub(crate) fn counts(&self, net: Option<Net>) -> Counts {
        let fits = |entry: &&Entry| net.is_none_or(|net| entry.address.host.net() == Some(net));
        let mut counts = Counts::default();
        for entry in self.entries.values().filter(fits) {
            if entry.tried {
                counts.tried += 1;
            } else {
                counts.new += 1;
            }
        }
        counts
    }

    /// Lists the places of a table that are taken, by bucket and position.
    pub(crate) fn places(&self, tried: bool) -> Vec<(Place, Entry)> {
        let table = if tried { &self.tried } else { &self.new };
        let mut places: Vec<(Place, Entry)> = table
            .iter()
            .filter_map(|(place, address)| Some((*place, *self.entries.get(address)?)))
            .collect();
        places.sort_by_key(|(place, _)| *place);
        places
    }

    /// Moves an address from the tried table to the new one.
    fn demote(&mut self, address: NodeAddr, from: Place) {
        self.tried.remove(&from);
        let Some(source) = self.entries.get(&address).map(|entry| entry.source) else {
            return;
        };
        let place = self.new_place(address, source);
        self.clear_new(place);
        if let Some(entry) = self.entries.get_mut(&address) {
            entry.tried = false;
        }
        self.put_new(place, address);
    }

    /// Gives a place of the new table that is free to an address that is known.
    fn put_new(&mut self, place: Place, address: NodeAddr) {
        if let Some(entry) = self.entries.get_mut(&address) {
            entry.places = entry.places.saturating_add(1);
            self.new.insert(place, address);
        }
    }

    fn clear_new(&mut self, place: Place) {
        let Some(address) = self.new.remove(&place) else { return };
        if let Some(entry) = self.entries.get_mut(&address) {
            entry.places = entry.places.saturating_sub(1);
            if entry.places == 0 {
                self.entries.remove(&address);
            }
        }
    }

    fn new_place(&self, address: NodeAddr, source: Host) -> Place {
        let source = list(&self.groups.group(&source));
        let spread = self.hash(&[&list(&self.groups.group(&address.host)), &source])
            % NEW_BUCKETS_PER_SOURCE;
        let bucket = self.hash(&[&source, &spread.to_le_bytes()]);
        self.position(b'N', modulo(bucket, NEW_BUCKETS), address)
    }

    fn tried_place(&self, address: NodeAddr) -> Place {
        let spread = self.hash(&[&list(&bytes(address))]) % TRIED_BUCKETS_PER_GROUP;
        let group = list(&self.groups.group(&address.host));
        let bucket = self.hash(&[&group, &spread.to_le_bytes()]);
        self.position(b'K', modulo(bucket, TRIED_BUCKETS), address)
    }

    fn position(&self, table: u8, bucket: u32, address: NodeAddr) -> Place {
        let hash = self.hash(&[&[table], &bucket.to_le_bytes(), &list(&bytes(address))]);
        (bucket, modulo(hash, BUCKET_SIZE))
    }

    /// Core's `GetCheapHash` of the key and these.
    fn hash(&self, parts: &[&[u8]]) -> u64 {
        let mut engine = sha256d::Hash::engine();
        engine.input(&self.key);
        for part in parts {
            engine.input(part);
        }
        let [a, b, c, d, e, f, g, h, ..] = sha256d::Hash::from_engine(engine).to_byte_array();
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }
}

/// Positions that are taken, in their order, and by whom; never empty.
type Bucket = Vec<(u32, NodeAddr)>;

/// All addresses, in an order to draw from.
#[derive(Debug)]
pub(crate) struct Choices<'a> {
    entries: &'a HashMap<NodeAddr, Entry>,
    tried: Vec<Bucket>,
    new: Vec<Bucket>,
}

impl Choices<'_> {
    /// Chooses an address that can be dialled: of either table with equal chance, or of the new one; `random` gives
    /// random numbers. A bucket is drawn first: whoever fills his buckets gains no more draws by it.
    pub(crate) fn select(
        &self,
        new_only: bool,
        now: u64,
        mut random: impl FnMut() -> u64,
    ) -> Option<Entry> {
        /// Draws after which the choice is given up; each accepts one in a thousand at least.
        const DRAWS_MAX: u32 = 5_000;
        let (tried, new) = (&self.tried, &self.new);
        let from_tried = !new_only && !tried.is_empty() && (new.is_empty() || random() & 1 == 0);
        let table = if from_tried { tried } else { new };
        let length = u64::try_from(table.len()).ok().filter(|length| *length > 0)?;
        for draw in 0..DRAWS_MAX {
            let bucket = table.get(usize::try_from(random() % length).ok()?)?;
            let begin = modulo(random(), BUCKET_SIZE);
            let after = bucket.iter().find(|(position, _)| *position >= begin);
            let (_, address) = after.or_else(|| bucket.first())?;
            let entry = self.entries.get(address)?;
            // Later draws are easier, so that something is found in the end.
            if random() % 1000 < entry.chance(now).saturating_mul(u64::from(draw) / 100 + 1) {
                return Some(*entry);
            }
        }
        None
    }
}

/// The buckets with anything that can be dialled, in an order that does not depend on the process.
fn buckets(table: &HashMap<Place, NodeAddr>) -> Vec<Bucket> {
    let dialled = table.iter().filter(|(_, address)| address.socket().is_some());
    let mut places: Vec<(Place, NodeAddr)> = dialled.map(|(at, address)| (*at, *address)).collect();
    places.sort_unstable();
    let of_bucket = |places: &[(Place, NodeAddr)]| {
        places.iter().map(|((_, position), address)| (*position, *address)).collect()
    };
    places.chunk_by(|((one, _), _), ((other, _), _)| one == other).map(of_bucket).collect()
}

fn modulo(hash: u64, count: u32) -> u32 {
    u32::try_from(hash % u64::from(count)).unwrap_or(0)
}

/// Bytes as Core writes them to be hashed: their number first.
fn list(bytes: &[u8]) -> Vec<u8> {
    let mut out = serialize(&VarInt::from(bytes.len()));
    out.extend(bytes);
    out
}

/// Core's `CService::GetKey`.
fn bytes(address: NodeAddr) -> Vec<u8> {
    let mut bytes = address.host.hash_bytes();
    bytes.extend_from_slice(&address.port.to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr};

    use super::*;

    const NOW: u64 = 1_800_000_000;

    /// Numbers that look random and are the same each time.
    fn random() -> impl FnMut() -> u64 {
        let mut state = 1_u64;
        move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state >> 33
        }
    }

    fn address(number: u32) -> NodeAddr {
        // Public, and each in a group of its own for some thousands.
        let [_, a, b, c] = number.to_be_bytes();
        NodeAddr { host: IpAddr::from([20 + a, c, b, 1]).into(), port: 8333 }
    }

    fn source(number: u8) -> Host {
        IpAddr::from([30, number, 1, 1]).into()
    }

    fn add(manager: &mut AddrMan, address: NodeAddr, source: Host) -> bool {
        manager.add((address, 9, NOW), source, 7200, NOW)
    }

    /// Connections to an address fail, and others between them work.
    fn fail(manager: &mut AddrMan, failing: NodeAddr, times: u64, now: u64) {
        for time in (0..times).map(|before| now - before).rev() {
            manager.attempt(failing, true, time - 1);
            manager.good(address(1_000_000), time);
        }
    }

    #[test]
    fn addresses_are_added_once_and_only_if_they_may_be_reached() {
        let mut manager = AddrMan::new([1; 32], Arc::default());
        assert!(add(&mut manager, address(1), source(1)));
        assert!(!add(&mut manager, address(1), source(1)));
        let parse = |text: &str| NodeAddr::from(text.parse::<SocketAddr>().expect("address"));
        for unreachable in ["127.0.0.1:1", "10.0.0.1:1", "[::1]:1", "[fe80::1]:1"] {
            assert!(!add(&mut manager, parse(unreachable), source(1)));
        }
        assert!(add(&mut manager, parse("[2a00::1]:8333"), source(1)));
        assert_eq!(manager.counts(None), Counts { new: 2, tried: 0 });
        assert_eq!(manager.counts(Some(Net::Ipv6)), Counts { new: 1, tried: 0 });
    }

    /// Bitcoin Core numbered addresses by 32 bits, which a flood of them ran over. Here they have places in
    /// tables and no numbers, and a flood has few of the places.
    #[test]
    fn cve_2024_52919_one_source_cannot_fill_the_tables() {
        let mut manager = AddrMan::new([1; 32], Arc::default());
        for number in 0..200_000 {
            add(&mut manager, address(number), source(7));
        }
        let from_one = manager.counts(None).new;
        assert!(from_one <= 64 * 64, "{from_one} from one source");
        // Others still find room.
        let others = (0..250_u32).filter(|number| {
            add(&mut manager, address(300_000 + number * 7), source((number % 200) as u8 + 20))
        });
        assert!(others.count() > 200);
    }

    #[test]
    fn what_worked_stays_until_it_fails() {
        let mut manager = AddrMan::new([1; 32], Arc::default());
        let count = 60_000;
        for number in 0..count {
            add(&mut manager, address(number), source((number % 250) as u8));
            manager.good(address(number), NOW);
        }
        let tried = manager.counts(None).tried;
        assert!(tried <= 256 * 64);
        // Of two that fight for a place the first one has it.
        let first: Vec<Entry> = manager.places(true).into_iter().map(|(_, entry)| entry).collect();
        for number in count..2 * count {
            add(&mut manager, address(number), source((number % 250) as u8));
            manager.good(address(number), NOW);
        }
        let kept = first
            .iter()
            .filter(|entry| manager.entries.get(&entry.address).is_some_and(|now| now.tried));
        assert_eq!(kept.count(), first.len());
        // One that failed gives way.
        let failed = first[0].address;
        manager.attempt(failed, true, NOW);
        let place = manager.tried_place(failed);
        let rival =
            (2 * count..40 * count).map(address).find(|rival| manager.tried_place(*rival) == place);
        let rival = rival.expect("some address fits there");
        add(&mut manager, rival, source(3));
        if manager.entries.contains_key(&rival) {
            assert!(manager.good(rival, NOW));
            assert!(manager.entries.get(&failed).is_none_or(|entry| !entry.tried));
        }
    }

    #[test]
    fn two_addresses_may_change_places() {
        let mut manager = AddrMan::new([1; 32], Arc::default());
        let first = address(0);
        let place = manager.tried_place(first);
        let rival = (1..1_000_000).map(address).find(|at| manager.tried_place(*at) == place);
        let rival = rival.expect("some address fits there");
        // And who tell of them make both stand in one place of the new table.
        let tellers =
            || (0..100_000_u128).map(|number| Host::Ip(IpAddr::V6((number << 96).into())));
        let mut fits = tellers().map(|teller| (teller, manager.new_place(first, teller)));
        let fits = fits.find(|(_, place)| manager.position(b'N', place.0, rival) == *place);
        let (teller, place) = fits.expect("somebody");
        let mut others = tellers();
        let other = others.find(|other| manager.new_place(rival, *other) == place);
        add(&mut manager, first, teller);
        assert!(manager.good(first, NOW));
        manager.attempt(first, true, NOW);
        assert!(add(&mut manager, rival, other.expect("somebody")));
        assert!(manager.good(rival, NOW));
        let tried = |at: NodeAddr| manager.entries.get(&at).map(|entry| entry.tried);
        assert_eq!((tried(first), tried(rival)), (Some(false), Some(true)));
    }

    #[test]
    fn bad_addresses_are_not_told_and_give_way() {
        let mut manager = AddrMan::new([1; 32], Arc::default());
        for number in 0..50 {
            add(&mut manager, address(number), source(1));
        }
        let before = manager.sample(0, 0, None, NOW, random()).len();
        fail(&mut manager, address(7), 3, NOW - 100);
        assert_eq!(manager.sample(0, 0, None, NOW, random()).len(), before - 1);
        assert_eq!(manager.sample(5, 0, None, NOW, random()).len(), 5);
        assert_eq!(manager.sample(0, 23, None, NOW, random()).len(), before * 23 / 100);
        assert_eq!(manager.sample(0, 0, Some(Net::Ipv6), NOW, random()).len(), 0);
        assert!(manager.sample(0, 0, None, NOW + HORIZON + 1, random()).is_empty(), "too old");
    }

    #[test]
    fn what_may_be_our_own_failure_is_not_the_addresses() {
        let mut manager = AddrMan::new([1; 32], Arc::default());
        add(&mut manager, address(1), source(1));
        let attempts = |manager: &AddrMan| manager.entries.get(&address(1)).expect("kept").attempts;
        for time in NOW..NOW + 20 {
            manager.attempt(address(1), false, time);
        }
        assert_eq!(attempts(&manager), 0);
        // Once, until some connection works.
        for time in NOW..NOW + 20 {
            manager.attempt(address(1), true, time);
        }
        assert_eq!(attempts(&manager), 1);
        manager.good(address(2), NOW + 30);
        manager.attempt(address(1), true, NOW + 31);
        assert_eq!(attempts(&manager), 2);
        assert_eq!(manager.entries.get(&address(1)).expect("kept").last_try, NOW + 31);
    }

    #[test]
    fn every_address_is_chosen_sooner_or_later_and_failed_ones_seldom() {
        let mut manager = AddrMan::new([1; 32], Arc::default());
        assert_eq!(manager.choices().select(false, NOW, random()), None);
        for number in 0..20 {
            add(&mut manager, address(number), source(u8::try_from(number).unwrap()));
        }
        manager.good(address(3), NOW - 10_000);
        fail(&mut manager, address(5), 8, NOW - 10_000);
        let mut numbers = random();
        let chosen: Vec<NodeAddr> = (0..2000)
            .map(|_| manager.choices().select(false, NOW, &mut numbers).expect("some").address)
            .collect();
        let count = |number| chosen.iter().filter(|chosen| **chosen == address(number)).count();
        assert!(count(3) > 800, "half of the choices are of the tried table");
        assert!(count(5) < 30 && count(6) > 20, "{} and {}", count(5), count(6));
        assert_ne!(
            manager.choices().select(true, NOW, random()).map(|entry| entry.address),
            Some(address(3))
        );
    }

    #[test]
    fn who_fills_his_buckets_is_not_drawn_oftener() {
        let mut manager = AddrMan::new([1; 32], Arc::default());
        for number in 0..100_000 {
            add(&mut manager, address(number), source(7));
        }
        let from_one = manager.counts(None).new;
        for number in 0..600_u32 {
            let teller = Host::Ip([40, (number % 250) as u8, 1, 1].into());
            add(&mut manager, address(500_000 + number * 7), teller);
        }
        let others = manager.counts(None).new - from_one;
        assert!(from_one > 5 * others, "{from_one} and {others}");
        let (mut numbers, choices) = (random(), manager.choices());
        let drawn: Vec<Entry> =
            (0..2000).filter_map(|_| choices.select(false, NOW, &mut numbers)).collect();
        assert_eq!(drawn.len(), 2000);
        let count = drawn.iter().filter(|entry| entry.source == source(7)).count();
        // 64 of some five hundred buckets, and not nine tenths of all addresses.
        assert!((100..500).contains(&count), "{count} of 2000");
    }

    #[test]
    fn places_are_those_of_core() {
        let mut key = [0; 32];
        key[0] = 1;
        let mut manager = AddrMan::new(key, Arc::default());
        // The table of Core's `rpc_net.py`.
        for (text, port, tried, bucket, position) in [
            ("2.0.0.0", 8333, false, 82, 8),
            ("2803:0:1234:abcd::1", 45324, false, 613, 6),
            ("c4gfnttsuwqomiygupdqqqyy5y5emnk5c73hrfvatri67prd7vyq.b32.i2p", 8333, false, 963, 46),
            ("1.2.3.4", 8333, true, 6, 33),
            (
                "nrfj6inpyf73gpkyool35hcmne5zwfmse3jl3aw23vk7chdemalyaqad.onion",
                45324,
                true,
                139,
                46,
            ),
        ] {
            let host: Host = text.parse().expect("address");
            let address = NodeAddr { host, port };
            assert!(add(&mut manager, address, host), "{text}");
            assert!(!tried || manager.good(address, NOW), "{text}");
            let places = manager.places(tried);
            let place = places.iter().find(|(_, entry)| entry.address == address);
            assert_eq!(place.map(|(place, _)| *place), Some((bucket, position)), "{text}");
        }
        let cjdns = Host::of("fc00:1:2:3:4:5:6:7".parse().expect("address"), true);
        assert_eq!(manager.new_place(NodeAddr { host: cjdns, port: 8333 }, cjdns), (336, 24));
    }
}
