//! Peers at the other end of one slow line of ours, in virtual time: is each block sent once?
//!
//! Whoever has something to send has an equal part of the line, sends its blocks in the order in which
//! it was asked for them, and sends on what was asked of another meanwhile.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::simulation::{hash, height};
use super::{DOWNLOAD_WINDOW, DownloadScheduler, Missing, PeerId};
use crate::BlockRef;

const STEP: Duration = Duration::from_millis(100);
const STEPS_A_SECOND: u64 = 10;
const SPACING: Duration = Duration::from_secs(600);

/// How often the node looks after its peers: more often changes nothing.
const TICK_STEPS: u64 = 5;

/// What silent peers may cost a download of more than an hour.
const A_FEW_MINUTES: Duration = Duration::from_secs(180);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// We chose it.
    Chosen,
    /// We chose it, and it sends nothing.
    Silent,
    /// It connected to us, and is spared while one that we chose is willing.
    Inbound,
}

struct Peer {
    id: PeerId,
    kind: Kind,
    /// What it was asked for, and what of the first of it has come.
    queue: VecDeque<u32>,
    sent: u64,
    bytes: u64,
}

impl Peer {
    const fn new(id: PeerId, kind: Kind) -> Self {
        Self { id, kind, queue: VecDeque::new(), sent: 0, bytes: 0 }
    }

    /// Returns the next block that has come, if one has.
    fn next(&mut self, size: u64) -> Option<u32> {
        let height = if self.sent < size { None } else { self.queue.pop_front() };
        // With nothing more to send it sends nothing.
        let is_idle = self.queue.is_empty() && (height.is_some() || self.sent >= size);
        self.sent = if is_idle { 0 } else { self.sent - height.map_or(0, |_| size) };
        height
    }
}

struct Simulation {
    /// Bytes that come in a step, and those of a block.
    line: u64,
    size: u64,
    scheduler: DownloadScheduler,
    peers: Vec<Peer>,
    next_id: PeerId,
    stored: BTreeSet<u32>,
    missing: Missing,
    /// Heights of the best header, and of the connected chain.
    best: u32,
    tip: u32,
    steps: u64,
    /// Blocks that were asked for, and came, however often.
    asked: u32,
    came: u32,
    /// Most peers that sent the same block at the same time.
    copies: usize,
}

impl Simulation {
    /// With a line of so many bytes a second, and blocks of so many.
    fn new(line: u64, size: u64, kinds: &[(Kind, usize)]) -> Self {
        let kinds = kinds.iter().flat_map(|(kind, count)| std::iter::repeat_n(*kind, *count));
        let peers: Vec<_> = (0..).zip(kinds).map(|(id, kind)| Peer::new(id, kind)).collect();
        Self {
            line: line / STEPS_A_SECOND,
            size,
            scheduler: DownloadScheduler::default(),
            next_id: 1000,
            peers,
            stored: BTreeSet::new(),
            missing: Missing::default(),
            best: 0,
            tip: 0,
            steps: 0,
            asked: 0,
            came: 0,
            copies: 0,
        }
    }

    fn now(&self) -> Duration {
        STEP * u32::try_from(self.steps).expect("a few hours")
    }

    fn look_for_missing(&mut self) {
        let window_end = self.tip + DOWNLOAD_WINDOW;
        let heights = self.tip + 1..=self.best.min(window_end + 1);
        let heights = heights.filter(|height| !self.stored.contains(height));
        let blocks = heights.map(|height| BlockRef { height, hash: hash(height) }).collect();
        self.missing = Missing { blocks, window_end };
    }

    fn ask(&mut self, index: usize) {
        if self.missing.blocks.is_empty() {
            return;
        }
        let (now, id, kind) = (self.now(), self.peers[index].id, self.peers[index].kind);
        let mut chosen = self.peers.iter().filter(|peer| peer.kind != Kind::Inbound);
        let is_spared =
            kind == Kind::Inbound && chosen.any(|peer| !self.scheduler.is_held_back(peer.id));
        let request = if is_spared {
            self.scheduler.request_if_needed(id, &self.missing, now)
        } else {
            self.scheduler.request(id, &self.missing, now)
        };
        self.asked += u32::try_from(request.blocks.len()).expect("few");
        self.peers[index].queue.extend(request.blocks.iter().map(height));
    }

    /// Has one peer send its part of the line.
    fn send(&mut self, index: usize, part: u64) {
        let peer = &mut self.peers[index];
        peer.sent += part;
        peer.bytes += part;
        while let Some(height) = self.peers[index].next(self.size) {
            self.take(self.peers[index].id, height);
            self.ask(index);
        }
    }

    fn take(&mut self, peer: PeerId, height: u32) {
        let (now, bytes) = (self.now(), usize::try_from(self.size).expect("small"));
        self.came += 1;
        if !self.scheduler.received(peer, &hash(height), bytes, now) {
            return;
        }
        self.scheduler.stored(&hash(height), bytes, now);
        self.stored.insert(height);
        let before = self.tip;
        while self.stored.remove(&(self.tip + 1)) {
            self.tip += 1;
        }
        let _ = self.scheduler.connected(self.tip - before);
        self.look_for_missing();
    }

    fn step(&mut self) {
        let now = self.now();
        if self.steps.is_multiple_of(TICK_STEPS) {
            let heard = self.peers.iter().map(|peer| (peer.id, peer.bytes));
            self.scheduler.heard(heard, now);
            (0..self.peers.len()).for_each(|index| self.ask(index));
        }
        let is_sending = |peer: &Peer| peer.kind != Kind::Silent && !peer.queue.is_empty();
        let sending = self.peers.iter().filter(|peer| is_sending(peer));
        let firsts: Vec<u32> = sending.filter_map(|peer| peer.queue.front().copied()).collect();
        let part = self.line / u64::try_from(firsts.len()).expect("few").max(1);
        let same = |first: &u32| firsts.iter().filter(|other| *other == first).count();
        self.copies = self.copies.max(firsts.iter().map(same).max().unwrap_or(0));
        for index in 0..self.peers.len() {
            if is_sending(&self.peers[index]) {
                self.send(index, part);
            }
        }
        for dropped in self.scheduler.poll(now, SPACING) {
            let place = self.peers.iter_mut().find(|peer| peer.id == dropped.peer);
            let place = place.expect("it is there");
            assert!(place.kind == Kind::Silent, "dropped at {now:?}: {}", dropped.reason);
            // Another of its kind takes its place.
            *place = Peer::new(self.next_id, Kind::Silent);
            self.next_id += 1;
        }
        self.steps += 1;
    }

    /// Downloads so many blocks; returns how long the line alone would take.
    fn download(&mut self, blocks: u32) -> Duration {
        self.best = blocks;
        self.look_for_missing();
        let ideal = u64::from(blocks) * self.size / self.line;
        while self.tip < blocks {
            assert!(self.steps < 10 * ideal, "height {} after {:?}", self.tip, self.now());
            self.step();
        }
        STEP * u32::try_from(ideal).expect("a few hours")
    }
}

#[test]
fn a_slow_line_is_not_spent_on_second_copies() {
    for line in [250_000, 1_000_000, 4_000_000] {
        for (chosen, inbound) in [(10, 0), (10, 1), (10, 30), (1, 3)] {
            let kinds = [(Kind::Chosen, chosen), (Kind::Inbound, inbound)];
            let mut simulation = Simulation::new(line, 1_600_000, &kinds);
            let (ideal, time) = (simulation.download(300), simulation.now());
            let run = format!("{chosen} chosen, {inbound} inbound, {line} bytes a second");
            assert!(time <= ideal.mul_f64(1.1), "{run}: {time:?} instead of {ideal:?}");
            assert_eq!(simulation.came, 300, "each comes once: {run}");
        }
    }
}

#[test]
fn a_slow_line_keeps_up_with_blocks_at_the_tip() {
    for line in [10_000, 20_000, 30_000, 50_000, 200_000] {
        let mut simulation = Simulation::new(line, 1_800_000, &[(Kind::Chosen, 10)]);
        for block in 1..=6 {
            simulation.best = block;
            simulation.look_for_missing();
            for _ in 0..600 * STEPS_A_SECOND {
                simulation.step();
            }
            assert_eq!(simulation.tip, block, "{line} bytes a second");
        }
        assert_eq!((simulation.asked, simulation.copies), (6, 1), "{line} bytes a second");
    }
}

#[test]
fn one_peer_that_connected_to_us_suffices_if_all_that_we_chose_are_silent() {
    for (line, size, blocks) in [(4_000_000, 1_600_000, 10_000), (1_000_000, 200_000, 20_000)] {
        for silent in [1, 3, 8, 10] {
            let kinds = [(Kind::Silent, silent), (Kind::Inbound, 1)];
            let mut simulation = Simulation::new(line, size, &kinds);
            let (ideal, time) = (simulation.download(blocks), simulation.now());
            let run = format!("{silent} silent ones, blocks of {size} bytes");
            assert!(time <= ideal + A_FEW_MINUTES, "{run}: {time:?} instead of {ideal:?}");
        }
    }
}
