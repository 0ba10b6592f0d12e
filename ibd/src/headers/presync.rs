//! `HeadersSync`: a peer's chain of headers, downloaded twice, so that nothing of a chain with too
//! little work is kept (`headerssync.cpp` of Bitcoin Core; CVE-2019-25220).
//!
//! In the first phase only the work is added up, and one salted bit is kept of every so many
//! headers. If the chain turns out to have enough work, it is downloaded again: now each header
//! waits in a buffer until enough of those bits on top of it have matched. To store headers that
//! lead nowhere, an attacker has to do the work of the whole chain, or guess all those bits.
//!
//! Invariants:
//! - no header leaves before the peer has shown a chain of `minimum_work`;
//! - memory: at most `commitments_max` bits, and the buffer's headers plus those of one message.

use std::collections::VecDeque;
use std::sync::Arc;

use bitcoin::block::{Header, Version};
use bitcoin::hashes::{Hash as _, siphash24};
use bitcoin::{BlockHash, CompactTarget, TxMerkleNode, Work};

use super::entry::{HeaderRef, narrow, wide};
use super::tree::HeaderTree;
use crate::params::ChainParams;
use crate::pow::{block_work, permitted_difficulty_transition};

/// Blocks a second that the rule about the median time allows for ever.
const BLOCKS_A_SECOND: u64 = 6;
/// How far in the future a header may be (`MAX_FUTURE_BLOCK_TIME`).
const FUTURE_SECONDS_MAX: i64 = 2 * 60 * 60;

/// How much memory a chain of headers costs that may be made up (`HeadersSyncParams`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeadersSyncParams {
    /// Headers between two of which a bit is kept.
    pub commitment_period: u32,
    /// Headers that wait until the bits above them have matched.
    pub redownload_buffer: usize,
}

/// Randomness that a peer must not know.
#[derive(Clone, Copy, Debug)]
pub struct Salt {
    /// Keys of the hash that makes the bits.
    pub keys: [u64; 2],
    /// Decides at which heights bits are kept.
    pub offset: u64,
}

/// Where in its two phases a [`HeadersSync`] is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SyncPhase {
    /// The peer has not shown enough work yet.
    Presync,
    /// It has, and sends the chain again.
    Redownload,
    /// Over, well or not; nothing is kept.
    Final,
}

/// The known header that a peer's chain begins from.
#[derive(Clone, Debug)]
pub struct ChainStart {
    hash: BlockHash,
    height: u32,
    bits: CompactTarget,
    work: u128,
    median_time: u32,
    locator: Vec<BlockHash>,
}

impl ChainStart {
    /// Takes what is needed of a header.
    #[must_use]
    pub fn new(tree: &HeaderTree, at: HeaderRef) -> Self {
        let entry = tree.entry(at);
        Self {
            hash: entry.hash,
            height: entry.height,
            bits: entry.header.bits,
            work: tree.work(at),
            median_time: tree.median_time_past(at),
            locator: tree.locator(at),
        }
    }
}

/// What became of a message of headers.
#[must_use]
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Processed {
    /// Headers that may be stored: their chain has enough work.
    pub headers: Vec<Header>,
    /// Whether the headers were as expected; if not, all is over.
    pub success: bool,
    /// Whether to ask the peer for more, with [`HeadersSync::locator`].
    pub request_more: bool,
}

/// One peer's chain of headers, as long as its work is in doubt.
#[derive(Debug)]
pub struct HeadersSync {
    params: Arc<ChainParams>,
    limits: HeadersSyncParams,
    start: ChainStart,
    minimum_work: u128,
    salt: Salt,
    phase: SyncPhase,
    commitments: Bits,
    commitments_max: u64,
    /// The last header of the first phase.
    last: Last,
    /// The last header of the second phase, and those that wait.
    redownloaded: Last,
    buffer: VecDeque<Compressed>,
    /// The parent of the first header that waits.
    buffer_parent: BlockHash,
    /// The second chain has enough work: what waits may go.
    release_all: bool,
}

/// The end of a chain.
#[derive(Clone, Copy, Debug)]
struct Last {
    hash: BlockHash,
    height: u32,
    time: u32,
    bits: CompactTarget,
    work: u128,
}

impl HeadersSync {
    /// Begins with a chain that branches off `start`; `now` is the time in seconds since 1970.
    #[must_use]
    pub fn new(
        params: &Arc<ChainParams>,
        start: ChainStart,
        minimum_work: Work,
        now: u32,
        salt: Salt,
    ) -> Self {
        let limits = params.headers_sync;
        // No chain that follows the rules is longer than this today.
        let seconds = i64::from(now) - i64::from(start.median_time) + FUTURE_SECONDS_MAX;
        let blocks = BLOCKS_A_SECOND.saturating_mul(u64::try_from(seconds).unwrap_or(0));
        let last = Last {
            hash: start.hash,
            height: start.height,
            time: 0,
            bits: start.bits,
            work: start.work,
        };
        Self {
            params: Arc::clone(params),
            limits,
            minimum_work: narrow(minimum_work),
            salt: Salt { offset: salt.offset % u64::from(limits.commitment_period), ..salt },
            phase: SyncPhase::Presync,
            commitments: Bits::default(),
            commitments_max: blocks / u64::from(limits.commitment_period),
            last,
            redownloaded: last,
            buffer: VecDeque::new(),
            buffer_parent: start.hash,
            release_all: false,
            start,
        }
    }

    /// Returns the phase.
    #[must_use]
    pub const fn phase(&self) -> SyncPhase {
        self.phase
    }

    /// Returns the height that the first phase has reached.
    #[must_use]
    pub const fn presync_height(&self) -> u32 {
        self.last.height
    }

    /// Returns the time of the last header of the first phase.
    #[must_use]
    pub const fn presync_time(&self) -> u32 {
        self.last.time
    }

    /// Returns the work that the first phase has seen.
    #[must_use]
    pub fn presync_work(&self) -> Work {
        wide(self.last.work)
    }

    /// Returns how many bytes of memory this takes, apart from a constant.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.commitments.words.capacity() * 8
            + self.buffer.capacity() * size_of::<Compressed>()
            + self.start.locator.capacity() * size_of::<BlockHash>()
    }

    /// Processes the headers of a message, which are linked and have the work they claim; a full
    /// message means that there are more (`ProcessNextHeaders`).
    pub fn process(&mut self, headers: &[Header], full: bool) -> Processed {
        let mut done = Processed::default();
        if headers.is_empty() || self.phase == SyncPhase::Final {
            return done;
        }
        if self.phase == SyncPhase::Presync {
            done.success = self.commit_to(headers);
            // Once it has enough work, the chain is asked for from its beginning.
            done.request_more = done.success && (full || self.phase == SyncPhase::Redownload);
        } else {
            done.success = headers.iter().all(|header| self.check_again(header));
            if done.success {
                done.headers = self.pop_ready();
                let complete = self.buffer.is_empty() && self.release_all;
                // A peer that showed much work and does not send it again is given up.
                done.request_more = !complete && full;
            }
        }
        if !done.request_more {
            self.finish();
        }
        done
    }

    /// Returns the locator of the next request: it continues where this phase is.
    #[must_use]
    pub fn locator(&self) -> Vec<BlockHash> {
        let first = match self.phase {
            SyncPhase::Presync => self.last.hash,
            SyncPhase::Redownload => self.redownloaded.hash,
            SyncPhase::Final => return Vec::new(),
        };
        std::iter::once(first).chain(self.start.locator.iter().copied()).collect()
    }

    fn finish(&mut self) {
        self.phase = SyncPhase::Final;
        self.commitments = Bits::default();
        self.buffer = VecDeque::new();
        self.start.locator = Vec::new();
    }

    /// First phase: adds up the work, keeps the bits (`ValidateAndStoreHeadersCommitments`).
    fn commit_to(&mut self, headers: &[Header]) -> bool {
        for header in headers {
            let Some(next) = self.follow(self.last, header) else {
                return false;
            };
            if self.is_committed(next.height) {
                self.commitments.push(self.bit(&next.hash));
                if self.commitments.len() > self.commitments_max {
                    tracing::debug!(next.height, "headers sync: the chain is too long");
                    return false;
                }
            }
            self.last = next;
        }
        if self.last.work >= self.minimum_work {
            tracing::debug!(self.last.height, "headers sync: enough work, downloading again");
            self.phase = SyncPhase::Redownload;
        }
        true
    }

    /// Second phase: compares a header's bit, and lets it wait
    /// (`ValidateAndStoreRedownloadedHeader`).
    fn check_again(&mut self, header: &Header) -> bool {
        let Some(next) = self.follow(self.redownloaded, header) else {
            return false;
        };
        // With enough work the rest counts, even if the chain has grown since its bits were kept.
        self.release_all |= next.work >= self.minimum_work;
        if !self.release_all && self.is_committed(next.height) {
            let expected = self.commitments.pop();
            if expected != Some(self.bit(&next.hash)) {
                tracing::debug!(next.height, "headers sync: not the chain that was shown before");
                return false;
            }
        }
        self.buffer.push_back(Compressed::new(header));
        self.redownloaded = next;
        true
    }

    /// Returns the chain's new end, if the header belongs there (`PopHeadersReadyForAcceptance`).
    fn pop_ready(&mut self) -> Vec<Header> {
        let keep = if self.release_all { 0 } else { self.limits.redownload_buffer };
        let mut ready = Vec::with_capacity(self.buffer.len().saturating_sub(keep));
        while self.buffer.len() > keep {
            let Some(first) = self.buffer.pop_front() else { break };
            let header = first.full(self.buffer_parent);
            self.buffer_parent = header.block_hash();
            ready.push(header);
        }
        ready
    }

    /// Returns the chain's end after `header`; none if it does not belong there. Whoever can do
    /// little work has a better chance to be lucky with few hard headers: the difficulty must not
    /// grow faster than the rules allow.
    fn follow(&self, last: Last, header: &Header) -> Option<Last> {
        let height = last.height.checked_add(1)?;
        let params = &self.params;
        let belongs = header.prev_blockhash == last.hash
            && permitted_difficulty_transition(params, height, last.bits, header.bits);
        if !belongs {
            tracing::debug!(height, "headers sync: a header that does not belong there");
            return None;
        }
        let own = narrow(block_work(header.bits));
        Some(Last {
            hash: header.block_hash(),
            height,
            time: header.time,
            bits: header.bits,
            work: last.work.saturating_add(own),
        })
    }

    fn is_committed(&self, height: u32) -> bool {
        u64::from(height % self.limits.commitment_period) == self.salt.offset
    }

    fn bit(&self, hash: &BlockHash) -> bool {
        let [first, second] = self.salt.keys;
        siphash24::Hash::hash_to_u64_with_keys(first, second, hash.as_byte_array()) & 1 == 1
    }
}

/// A header without its parent's hash, 48 bytes (`CompressedHeader`).
#[derive(Clone, Copy, Debug)]
struct Compressed {
    merkle_root: TxMerkleNode,
    version: i32,
    time: u32,
    bits: u32,
    nonce: u32,
}

impl Compressed {
    fn new(header: &Header) -> Self {
        Self {
            merkle_root: header.merkle_root,
            version: header.version.to_consensus(),
            time: header.time,
            bits: header.bits.to_consensus(),
            nonce: header.nonce,
        }
    }

    fn full(&self, prev_blockhash: BlockHash) -> Header {
        Header {
            version: Version::from_consensus(self.version),
            prev_blockhash,
            merkle_root: self.merkle_root,
            time: self.time,
            bits: CompactTarget::from_consensus(self.bits),
            nonce: self.nonce,
        }
    }
}

/// A queue of bits: all are put in before the first is taken out.
#[derive(Debug, Default)]
struct Bits {
    words: Vec<u64>,
    pushed: u64,
    popped: u64,
}

impl Bits {
    const fn len(&self) -> u64 {
        self.pushed - self.popped
    }

    fn push(&mut self, bit: bool) {
        let place = self.pushed % 64;
        if place == 0 {
            self.words.push(0);
        }
        if let Some(word) = self.words.last_mut() {
            *word |= u64::from(bit) << place;
        }
        self.pushed += 1;
    }

    fn pop(&mut self) -> Option<bool> {
        if self.popped == self.pushed {
            return None;
        }
        let word = self.words.get(usize::try_from(self.popped / 64).ok()?)?;
        let bit = word >> (self.popped % 64) & 1 == 1;
        self.popped += 1;
        Some(bit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::Network;
    use crate::testing::mine_header;

    /// As in Core's `headers_sync_chainwork_tests.cpp`.
    const TARGET_BLOCKS: u32 = 15_000;
    const BUFFER: usize = 12_877;
    const PERIOD: u32 = 600;
    const NOW: u32 = 1_767_225_600;
    const SALT: Salt = Salt { keys: [1, 2], offset: 77 };

    fn genesis() -> Header {
        ChainParams::new(Network::Regtest).genesis.header
    }

    /// Two headers of work two are as much as one of Core's `CHAIN_WORK`.
    fn work_of(blocks: u32) -> Work {
        wide(u128::from(blocks) * 2)
    }

    fn chain(count: u32, root: u8) -> Vec<Header> {
        let mut last = genesis();
        let mut headers = Vec::new();
        for _ in 0..count {
            last.prev_blockhash = last.block_hash();
            last.merkle_root = TxMerkleNode::from_byte_array([root; 32]);
            last.time += 1;
            mine_header(&mut last);
            headers.push(last);
        }
        headers
    }

    fn first_chain() -> Vec<Header> {
        // The genesis block has work too.
        chain(TARGET_BLOCKS - 1, 0)
    }

    fn second_chain() -> Vec<Header> {
        chain(TARGET_BLOCKS - 2, 1)
    }

    fn sync_of(params: &ChainParams, now: u32) -> HeadersSync {
        let tree = HeaderTree::new(params.genesis.header);
        let start = ChainStart::new(&tree, tree.genesis());
        HeadersSync::new(&Arc::new(params.clone()), start, work_of(TARGET_BLOCKS), now, SALT)
    }

    fn sync() -> HeadersSync {
        let mut params = ChainParams::new(Network::Regtest);
        params.headers_sync =
            HeadersSyncParams { commitment_period: PERIOD, redownload_buffer: BUFFER };
        sync_of(&params, NOW)
    }

    /// Checks phase, success, whether more is asked for, and how many headers came out.
    fn expect(
        sync: &HeadersSync,
        done: &Processed,
        phase: SyncPhase,
        (success, more, headers): (bool, bool, usize),
    ) {
        assert_eq!(sync.phase(), phase);
        assert_eq!((done.success, done.request_more, done.headers.len()), (success, more, headers));
    }

    #[test]
    fn another_chain_in_the_second_download_is_noticed() {
        let (first, second) = (first_chain(), second_chain());
        let mut sync = sync();
        let done = sync.process(&first[..1], true);
        expect(&sync, &done, SyncPhase::Presync, (true, true, 0));
        assert_eq!(sync.locator()[0], first[0].block_hash());
        let done = sync.process(&first[1..], true);
        expect(&sync, &done, SyncPhase::Redownload, (true, true, 0));
        assert_eq!(sync.locator()[0], genesis().block_hash());
        let done = sync.process(&second, true);
        expect(&sync, &done, SyncPhase::Final, (false, false, 0));
        assert!(sync.locator().is_empty());
        assert_eq!(sync.memory_bytes(), 0);
        assert_eq!(sync.process(&first, true), Processed::default(), "over is over");
    }

    #[test]
    fn the_same_chain_twice_is_let_through_as_its_bits_match() {
        let first = first_chain();
        for full in [false, true] {
            let mut sync = sync();
            let done = sync.process(&first, full);
            expect(&sync, &done, SyncPhase::Redownload, (true, true, 0));
            let done = sync.process(&first[..BUFFER], true);
            expect(&sync, &done, SyncPhase::Redownload, (true, true, 0));
            assert_eq!(sync.locator()[0], first[BUFFER - 1].block_hash());
            let done = sync.process(&first[BUFFER..=BUFFER], true);
            expect(&sync, &done, SyncPhase::Redownload, (true, true, 1));
            assert_eq!(done.headers, first[..1]);
            let done = sync.process(&first[BUFFER + 1..], full);
            expect(&sync, &done, SyncPhase::Final, (true, false, first.len() - 1));
            assert_eq!(done.headers, first[1..]);
        }
    }

    /// Nothing below the minimum work is given out, whatever the peer does: that was the hole.
    #[test]
    fn cve_2019_25220_a_chain_with_too_little_work_leaves_nothing() {
        let second = second_chain();
        let mut sync = sync();
        let done = sync.process(&second[..1], true);
        expect(&sync, &done, SyncPhase::Presync, (true, true, 0));
        let done = sync.process(&second[1..], false);
        expect(&sync, &done, SyncPhase::Final, (true, false, 0));
        assert_eq!(sync.memory_bytes(), 0);
    }

    #[test]
    fn a_chain_that_grew_meanwhile_is_let_through() {
        let longer = chain(TARGET_BLOCKS + 700, 0);
        let shown = &longer[..TARGET_BLOCKS as usize - 1];
        let mut sync = sync();
        let _ = sync.process(shown, true);
        let done = sync.process(&longer, false);
        expect(&sync, &done, SyncPhase::Final, (true, false, longer.len()));
    }

    #[test]
    fn a_peer_that_does_not_send_the_chain_again_is_given_up() {
        let first = first_chain();
        let mut sync = sync();
        let _ = sync.process(&first, true);
        let done = sync.process(&first[..100], false);
        expect(&sync, &done, SyncPhase::Final, (true, false, 0));
    }

    #[test]
    fn headers_that_do_not_connect_end_it_in_both_phases() {
        let first = first_chain();
        let mut first_phase = sync();
        let done = first_phase.process(&first[1..2], true);
        expect(&first_phase, &done, SyncPhase::Final, (false, false, 0));
        let mut second_phase = sync();
        let _ = second_phase.process(&first, true);
        let done = second_phase.process(&first[1..2], true);
        expect(&second_phase, &done, SyncPhase::Final, (false, false, 0));
    }

    #[test]
    fn difficulty_that_jumps_ends_it() {
        let params = ChainParams::new(Network::Mainnet);
        let mut header = params.genesis.header;
        header.prev_blockhash = header.block_hash();
        header.bits = CompactTarget::from_consensus(0x1c00_ffff);
        let mut sync = sync_of(&params, NOW);
        let done = sync.process(&[header], true);
        expect(&sync, &done, SyncPhase::Final, (false, false, 0));
    }

    /// Headers that never end and have no work to speak of, on every network: the bits end at the
    /// bound that the rules give, and the second phase holds no more than its buffer and a message.
    #[test]
    fn cve_2019_25220_memory_of_a_peer_is_bounded_on_every_network() {
        const MESSAGE: usize = 2000;
        for network in Network::ALL {
            let params = ChainParams::new(network);
            let seconds = u64::from(NOW - params.genesis.header.time) + 7200;
            let bits = 6 * seconds / u64::from(params.headers_sync.commitment_period);
            // A vector may have twice the room it uses.
            let words = 2 * 8 * usize::try_from(bits / 64 + 1).expect("small");
            let buffer = 2 * 48 * (params.headers_sync.redownload_buffer + MESSAGE);
            let most = words + buffer + 32;
            assert!(most < 4_000_000, "{network}: {most} bytes a peer");

            // A short time, so that the test is: the same bound, reached.
            let now = params.genesis.header.time + 1000;
            let mut sync = sync_of(&params, now);
            sync.minimum_work = u128::MAX;
            let limit = 6 * (1000 + 7200) / params.headers_sync.commitment_period;
            let mut header = params.genesis.header;
            let mut sent = 0;
            loop {
                header.prev_blockhash = header.block_hash();
                header.time += 1;
                sent += 1;
                if !sync.process(&[header], true).success {
                    break;
                }
                assert!(sync.commitments.len() <= u64::from(limit), "{network}");
                assert!(sync.memory_bytes() <= 2 * (limit as usize / 8 + 8) + 32 * 4, "{network}");
            }
            assert!(sent <= (limit + 1) * params.headers_sync.commitment_period, "{network}");
            assert_eq!((sync.phase(), sync.memory_bytes()), (SyncPhase::Final, 0), "{network}");
        }
    }

    #[test]
    fn the_buffer_holds_no_more_than_its_size_and_a_message() {
        let long = chain(10_000, 0);
        let mut params = ChainParams::new(Network::Regtest);
        params.headers_sync = HeadersSyncParams { commitment_period: 10, redownload_buffer: 500 };
        let mut sync = sync_of(&params, NOW);
        sync.minimum_work = 2 * 10_001;
        let mut given = 0;
        for _ in 0..2 {
            for message in long.chunks(100) {
                let done = sync.process(message, true);
                assert!(done.success);
                given += done.headers.len();
                assert!(sync.buffer.len() <= 500, "after {given}");
            }
        }
        assert_eq!((given, sync.phase()), (10_000, SyncPhase::Final));
    }

    #[test]
    fn bits_come_out_as_they_went_in() {
        let mut bits = Bits::default();
        let pattern = |n: u32| n.is_multiple_of(3) || n % 7 == 2;
        (0..300).for_each(|n| bits.push(pattern(n)));
        assert_eq!(bits.len(), 300);
        assert!((0..300).all(|n| bits.pop() == Some(pattern(n))));
        assert_eq!((bits.pop(), bits.len()), (None, 0));
    }
}
