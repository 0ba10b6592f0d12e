//! `AddrMan`: addresses of nodes, in tables that nobody can fill alone.
//!
//! As Bitcoin Core's `addrman.cpp`: addresses that were heard of are in the *new* table, those that
//! we connected to in the *tried* table. Where an address may be depends on a secret key, its group
//! of networks and, in the new table, the group of who told us: one attacker has 64 of 1,024
//! buckets there, and 8 of 256 tried buckets for each group of his own. Different from Core: an
//! address in the tried table gives way to another only once a connection to it failed, one in the
//! new table has one place there, and addresses are of IPv4 and IPv6 alone.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use bitcoin::hashes::{HashEngine as _, siphash24};

use super::is_routable;

/// Buckets of the two tables, and places of a bucket.
const NEW_BUCKETS: u64 = 1024;
const TRIED_BUCKETS: u64 = 256;
const BUCKET_SIZE: u64 = 64;

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
    pub(crate) address: SocketAddr,
    /// Who told us first.
    pub(crate) source: IpAddr,
    /// What it is said to offer.
    pub(crate) services: u64,
    /// When it was last heard of, in seconds since 1970.
    pub(crate) time: u64,
    pub(super) last_try: u64,
    pub(super) last_success: u64,
    pub(super) attempts: u32,
    pub(super) tried: bool,
}

impl Entry {
    pub(super) const fn new(address: SocketAddr, source: IpAddr, services: u64, time: u64) -> Self {
        Self {
            address,
            source,
            services,
            time,
            last_try: 0,
            last_success: 0,
            attempts: 0,
            tried: false,
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

/// A family of addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Family {
    Ipv4,
    Ipv6,
}

impl Family {
    pub(crate) const fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::Ipv4,
            IpAddr::V6(_) => Self::Ipv6,
        }
    }
}

/// Addresses of nodes; times are seconds since 1970.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct AddrMan {
    pub(super) key: [u64; 2],
    entries: HashMap<SocketAddr, Entry>,
    new: HashMap<(u64, u64), SocketAddr>,
    tried: HashMap<(u64, u64), SocketAddr>,
}

impl AddrMan {
    /// Makes empty tables; the key is random and secret.
    pub(crate) fn new(key: [u64; 2]) -> Self {
        Self { key, entries: HashMap::new(), new: HashMap::new(), tried: HashMap::new() }
    }

    /// Adds an address that `source` told of; returns whether it is new. Its time is taken to be
    /// earlier by `penalty`, unless the source tells of itself.
    pub(crate) fn add(
        &mut self,
        (address, services, time): (SocketAddr, u64, u64),
        source: IpAddr,
        penalty: u64,
        now: u64,
    ) -> bool {
        if !is_routable(address.ip()) || address.port() == 0 {
            return false;
        }
        let penalty = if address.ip() == source { 0 } else { penalty };
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
            if self.entries.get(there).is_some_and(|entry| !entry.is_bad(now)) {
                return false;
            }
            self.clear_new(place);
        }
        self.entries.insert(address, Entry::new(address, source, services, time));
        self.new.insert(place, address);
        true
    }

    /// Notes that a connection worked; returns whether the address is in the tried table then.
    pub(crate) fn good(&mut self, address: SocketAddr, now: u64) -> bool {
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
                return false;
            }
            // First, since the other one may go to the same place.
            self.new.retain(|_, there| *there != address);
            self.demote(there, place);
        }
        self.new.retain(|_, there| *there != address);
        if let Some(entry) = self.entries.get_mut(&address) {
            entry.tried = true;
        }
        self.tried.insert(place, address);
        true
    }

    /// Notes an attempt to connect.
    pub(crate) fn attempt(&mut self, address: SocketAddr, now: u64) {
        if let Some(entry) = self.entries.get_mut(&address) {
            entry.last_try = now;
            entry.attempts = entry.attempts.saturating_add(1);
        }
    }

    /// Notes that a connection ended that had worked.
    pub(crate) fn connected(&mut self, address: SocketAddr, now: u64) {
        if let Some(entry) = self.entries.get_mut(&address)
            && now.saturating_sub(entry.time) > 20 * 60
        {
            entry.time = now;
        }
    }

    /// Notes what a node itself says that it offers.
    pub(crate) fn set_services(&mut self, address: SocketAddr, services: u64) {
        if let Some(entry) = self.entries.get_mut(&address) {
            entry.services = services;
        }
    }

    /// Returns what addresses are chosen from, as often as is wanted.
    pub(crate) fn choices(&self) -> Choices<'_> {
        Choices { entries: &self.entries, tried: sorted(&self.tried), new: sorted(&self.new) }
    }

    /// Returns good addresses in random order: at most `max`, and `percent` of all.
    pub(crate) fn sample(
        &self,
        max: usize,
        percent: usize,
        family: Option<Family>,
        now: u64,
        mut random: impl FnMut() -> u64,
    ) -> Vec<Entry> {
        let mut addresses: Vec<&SocketAddr> = self.entries.keys().collect();
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
            let fits = |entry: &&Entry| {
                family.is_none_or(|family| family == Family::of(entry.address.ip()))
            };
            found.extend(entry.filter(fits).copied());
        }
        found
    }

    /// Counts the addresses of a family, or all.
    pub(crate) fn counts(&self, family: Option<Family>) -> Counts {
        let fits =
            |entry: &&Entry| family.is_none_or(|family| family == Family::of(entry.address.ip()));
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

    /// Returns all that is known, in the order of addresses.
    pub(super) fn entries(&self) -> Vec<Entry> {
        let mut entries: Vec<Entry> = self.entries.values().copied().collect();
        entries.sort_by_key(|entry| entry.address);
        entries
    }

    /// Lists the places of a table that are taken, by bucket and position.
    pub(crate) fn places(&self, tried: bool) -> Vec<((u64, u64), Entry)> {
        let table = if tried { &self.tried } else { &self.new };
        let mut places: Vec<((u64, u64), Entry)> = table
            .iter()
            .filter_map(|(place, address)| Some((*place, *self.entries.get(address)?)))
            .collect();
        places.sort_by_key(|(place, _)| *place);
        places
    }

    /// Puts an entry back that was saved; of several with one address the first.
    pub(super) fn restore(&mut self, entry: Entry) {
        let address = entry.address;
        if self.entries.contains_key(&address) {
            return;
        }
        if entry.tried {
            let place = self.tried_place(address);
            if !self.tried.contains_key(&place) {
                self.entries.insert(address, entry);
                self.tried.insert(place, address);
                return;
            }
        }
        let place = self.new_place(address, entry.source);
        if !self.new.contains_key(&place) {
            self.entries.insert(address, Entry { tried: false, ..entry });
            self.new.insert(place, address);
        }
    }

    /// Moves an address from the tried table to the new one.
    fn demote(&mut self, address: SocketAddr, from: (u64, u64)) {
        self.tried.remove(&from);
        let Some(source) = self.entries.get(&address).map(|entry| entry.source) else {
            return;
        };
        let place = self.new_place(address, source);
        self.clear_new(place);
        if let Some(entry) = self.entries.get_mut(&address) {
            entry.tried = false;
        }
        self.new.insert(place, address);
    }

    fn clear_new(&mut self, place: (u64, u64)) {
        if let Some(address) = self.new.remove(&place) {
            self.entries.remove(&address);
        }
    }

    fn new_place(&self, address: SocketAddr, source: IpAddr) -> (u64, u64) {
        let source = group(source);
        let spread = self.hash(&[b"n1", &group(address.ip()), &source]) % NEW_BUCKETS_PER_SOURCE;
        let bucket = self.hash(&[b"n2", &source, &spread.to_le_bytes()]) % NEW_BUCKETS;
        (bucket, self.position(b"n3", bucket, address))
    }

    fn tried_place(&self, address: SocketAddr) -> (u64, u64) {
        let spread = self.hash(&[b"t1", &bytes(address)]) % TRIED_BUCKETS_PER_GROUP;
        let group = group(address.ip());
        let bucket = self.hash(&[b"t2", &group, &spread.to_le_bytes()]) % TRIED_BUCKETS;
        (bucket, self.position(b"t3", bucket, address))
    }

    fn position(&self, table: &[u8], bucket: u64, address: SocketAddr) -> u64 {
        self.hash(&[table, &bucket.to_le_bytes(), &bytes(address)]) % BUCKET_SIZE
    }

    fn hash(&self, parts: &[&[u8]]) -> u64 {
        let [a, b] = self.key;
        let mut engine = siphash24::HashEngine::with_keys(a, b);
        for part in parts {
            // Lengths keep parts apart.
            engine.input(&[u8::try_from(part.len()).unwrap_or(u8::MAX)]);
            engine.input(part);
        }
        siphash24::Hash::from_engine_to_u64(engine)
    }
}

/// All addresses, in an order to draw from.
#[derive(Debug)]
pub(crate) struct Choices<'a> {
    entries: &'a HashMap<SocketAddr, Entry>,
    tried: Vec<SocketAddr>,
    new: Vec<SocketAddr>,
}

impl Choices<'_> {
    /// Chooses an address: of either table with equal chance, or of the new one; `random` gives
    /// random numbers.
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
            let index = usize::try_from(random() % length).ok()?;
            let entry = self.entries.get(table.get(index)?)?;
            // Later draws are easier, so that something is found in the end.
            if random() % 1000 < entry.chance(now).saturating_mul(u64::from(draw) / 100 + 1) {
                return Some(*entry);
            }
        }
        None
    }
}

/// In an order that does not depend on the process.
fn sorted(table: &HashMap<(u64, u64), SocketAddr>) -> Vec<SocketAddr> {
    let mut addresses: Vec<SocketAddr> = table.values().copied().collect();
    addresses.sort();
    addresses
}

fn bytes(address: SocketAddr) -> Vec<u8> {
    let mut bytes = wide(address.ip()).octets().to_vec();
    bytes.extend_from_slice(&address.port().to_be_bytes());
    bytes
}

/// Returns an address as IPv6 has it.
pub(super) const fn wide(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

/// Returns the network that an address belongs to as far as one owner may have all of it: /16 of
/// IPv4, /32 of IPv6.
pub(crate) fn group(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => vec![4, ip.octets()[0], ip.octets()[1]],
        IpAddr::V6(ip) => {
            let [a, b, ..] = ip.segments();
            let mut group = vec![6];
            group.extend(a.to_be_bytes());
            group.extend(b.to_be_bytes());
            group
        }
    }
}

#[cfg(test)]
mod tests {
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

    fn address(number: u32) -> SocketAddr {
        // Public, and each in a group of its own for some thousands.
        let [_, a, b, c] = number.to_be_bytes();
        SocketAddr::from(([20 + a, c, b, 1], 8333))
    }

    fn source(number: u8) -> IpAddr {
        IpAddr::from([30, number, 1, 1])
    }

    fn add(manager: &mut AddrMan, address: SocketAddr, source: IpAddr) -> bool {
        manager.add((address, 9, NOW), source, 7200, NOW)
    }

    #[test]
    fn addresses_are_added_once_and_only_if_they_may_be_reached() {
        let mut manager = AddrMan::new([1, 2]);
        assert!(add(&mut manager, address(1), source(1)));
        assert!(!add(&mut manager, address(1), source(1)));
        for unreachable in ["127.0.0.1:1", "10.0.0.1:1", "[::1]:1", "[fe80::1]:1", "8.8.8.8:0"] {
            assert!(!add(&mut manager, unreachable.parse().expect("address"), source(1)));
        }
        assert!(add(&mut manager, "[2a00::1]:8333".parse().expect("address"), source(1)));
        assert_eq!(manager.counts(None), Counts { new: 2, tried: 0 });
        assert_eq!(manager.counts(Some(Family::Ipv6)), Counts { new: 1, tried: 0 });
    }

    /// Bitcoin Core numbered addresses by 32 bits, which a flood of them ran over. Here they have places in
    /// tables and no numbers, and a flood has few of the places.
    #[test]
    fn cve_2024_52919_one_source_cannot_fill_the_tables() {
        let mut manager = AddrMan::new([1, 2]);
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
        let mut manager = AddrMan::new([1, 2]);
        let count = 60_000;
        for number in 0..count {
            add(&mut manager, address(number), source((number % 250) as u8));
            manager.good(address(number), NOW);
        }
        let tried = manager.counts(None).tried;
        assert!(tried <= 256 * 64);
        // Of two that fight for a place the first one has it.
        let first: Vec<Entry> = manager.entries().into_iter().filter(|entry| entry.tried).collect();
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
        manager.attempt(failed, NOW);
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
        let mut manager = AddrMan::new([1, 2]);
        let first = address(0);
        let place = manager.tried_place(first);
        let rival = (1..1_000_000).map(address).find(|at| manager.tried_place(*at) == place);
        let rival = rival.expect("some address fits there");
        // And who tell of them make both stand in one place of the new table.
        let tellers = || (0..100_000_u128).map(|number| IpAddr::V6((number << 96).into()));
        let mut fits = tellers().map(|teller| (teller, manager.new_place(first, teller)));
        let fits = fits.find(|(_, (bucket, at))| manager.position(b"n3", *bucket, rival) == *at);
        let (teller, place) = fits.expect("somebody");
        let mut others = tellers();
        let other = others.find(|other| manager.new_place(rival, *other) == place);
        add(&mut manager, first, teller);
        assert!(manager.good(first, NOW));
        manager.attempt(first, NOW);
        assert!(add(&mut manager, rival, other.expect("somebody")));
        assert!(manager.good(rival, NOW));
        let tried = |at: SocketAddr| manager.entries.get(&at).map(|entry| entry.tried);
        assert_eq!((tried(first), tried(rival)), (Some(false), Some(true)));
    }

    #[test]
    fn bad_addresses_are_not_told_and_give_way() {
        let mut manager = AddrMan::new([1, 2]);
        for number in 0..50 {
            add(&mut manager, address(number), source(1));
        }
        let before = manager.sample(0, 0, None, NOW, random()).len();
        for _ in 0..3 {
            manager.attempt(address(7), NOW - 100);
        }
        assert_eq!(manager.sample(0, 0, None, NOW, random()).len(), before - 1);
        assert_eq!(manager.sample(5, 0, None, NOW, random()).len(), 5);
        assert_eq!(manager.sample(0, 23, None, NOW, random()).len(), before * 23 / 100);
        assert_eq!(manager.sample(0, 0, Some(Family::Ipv6), NOW, random()).len(), 0);
        assert!(manager.sample(0, 0, None, NOW + HORIZON + 1, random()).is_empty(), "too old");
    }

    #[test]
    fn every_address_is_chosen_sooner_or_later_and_failed_ones_seldom() {
        let mut manager = AddrMan::new([1, 2]);
        assert_eq!(manager.choices().select(false, NOW, random()), None);
        for number in 0..20 {
            add(&mut manager, address(number), source(u8::try_from(number).unwrap()));
        }
        manager.good(address(3), NOW - 10_000);
        for _ in 0..8 {
            manager.attempt(address(5), NOW - 10_000);
        }
        let mut numbers = random();
        let chosen: Vec<SocketAddr> = (0..2000)
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
}
