//! Version bits: how miners signal for a rule change, and what became of it (BIP-0009; Bitcoin
//! Core's `versionbits.cpp`).
//!
//! Validation reads no state from here: every deployment that changed a rule is buried at a height.

use std::collections::HashMap;

use crate::headers::{HeaderRef, HeaderTree};
use crate::params::ChainParams;

const TOP_MASK: i32 = 0xe000_0000_u32.cast_signed();
const TOP_BITS: i32 = 0x2000_0000;
/// Bits that a version has for signals (`VERSIONBITS_NUM_BITS`).
pub(crate) const BITS: u8 = 29;

/// Returns the bits that a version signals by.
pub(crate) const fn signals(version: i32) -> u32 {
    if version & TOP_MASK == TOP_BITS { (version & !TOP_MASK).cast_unsigned() } else { 0 }
}

/// One rule change that miners signal for (`BIP9Deployment`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Deployment {
    /// Its name, as in `getdeploymentinfo`.
    pub name: &'static str,
    /// The bit of a block's version, below 29.
    pub bit: u8,
    /// Median time from which the bit has its meaning.
    pub start_time: i64,
    /// Median time after which it is given up.
    pub timeout: i64,
    /// First height at which the rule may hold.
    pub min_activation_height: i64,
    /// Blocks of a signalling period, not 0.
    pub period: u32,
    /// Blocks of a period that have to signal.
    pub threshold: u32,
}

impl Deployment {
    /// [`Deployment::start_time`] of a rule that has always held.
    pub const ALWAYS_ACTIVE: i64 = -1;
    /// [`Deployment::start_time`] of a rule that never holds.
    pub const NEVER_ACTIVE: i64 = -2;
    /// [`Deployment::timeout`] of one that is never given up.
    pub const NO_TIMEOUT: i64 = i64::MAX;

    /// Returns whether a block of that version signals.
    #[must_use]
    pub const fn is_signalled_by(&self, version: i32) -> bool {
        version & TOP_MASK == TOP_BITS && version & self.mask() != 0
    }

    const fn mask(&self) -> i32 {
        1 << self.bit
    }
}

/// How far a deployment is; all blocks of a period have the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ThresholdState {
    /// Nothing has begun.
    Defined,
    /// Signals count.
    Started,
    /// Enough signals came: a period's notice, or until the least height.
    LockedIn,
    /// The rule holds, for good.
    Active,
    /// Given up, for good.
    Failed,
}

impl ThresholdState {
    /// Returns Bitcoin Core's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Defined => "defined",
            Self::Started => "started",
            Self::LockedIn => "locked_in",
            Self::Active => "active",
            Self::Failed => "failed",
        }
    }
}

/// The signals of the period that a block is in, up to that block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SignalStatistics {
    /// Blocks of a period.
    pub period: u32,
    /// Blocks that have to signal.
    pub threshold: u32,
    /// Whether each block of the period so far signals; the first one first.
    pub signalling: Vec<bool>,
    /// How many do.
    pub count: u32,
    /// Whether the threshold can still be met.
    pub possible: bool,
}

/// All that can be said of a deployment at a block (`BIP9Info`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeploymentInfo {
    /// First height with the block's state.
    pub since: u32,
    /// The block's state.
    pub state: ThresholdState,
    /// The next block's state.
    pub next_state: ThresholdState,
    /// The signals, while they mean something. Once locked in, threshold is 0.
    pub statistics: Option<SignalStatistics>,
    /// Height from which the rule holds, if that is known.
    pub active_since: Option<u32>,
}

/// States by the parent of a period's first block; `None` is before the genesis block.
type States = HashMap<Option<HeaderRef>, ThresholdState>;

/// The states that were found so far, one entry a period and branch of the tree that was asked for.
#[derive(Debug, Default)]
pub(crate) struct VersionBitsCache {
    by_name: HashMap<&'static str, States>,
}

impl VersionBitsCache {
    /// Returns the version of a new block on `parent` (`ComputeBlockVersion`).
    pub(crate) fn block_version(
        &mut self,
        tree: &HeaderTree,
        params: &ChainParams,
        parent: Option<HeaderRef>,
    ) -> i32 {
        let mut version = TOP_BITS;
        for deployment in &params.deployments {
            let state = self.state(tree, deployment, parent);
            if matches!(state, ThresholdState::Started | ThresholdState::LockedIn) {
                version |= deployment.mask();
            }
        }
        version
    }

    /// Returns the state of the block after `parent` (`GetStateFor`).
    pub(crate) fn state(
        &mut self,
        tree: &HeaderTree,
        deployment: &Deployment,
        parent: Option<HeaderRef>,
    ) -> ThresholdState {
        match deployment.start_time {
            Deployment::ALWAYS_ACTIVE => return ThresholdState::Active,
            Deployment::NEVER_ACTIVE => return ThresholdState::Failed,
            _ => {}
        }
        let states = self.by_name.entry(deployment.name).or_default();
        let checker = Checker { tree, deployment };
        let mut parent = parent.and_then(|parent| checker.period_parent(parent));
        let mut unknown = Vec::new();
        let mut state = loop {
            if let Some(known) = states.get(&parent) {
                break *known;
            }
            match parent {
                // Every earlier block is before the start too: median times never go back.
                Some(at) if checker.median_time(at) >= deployment.start_time => {
                    unknown.push(at);
                    parent = checker.period_before(at);
                }
                _ => {
                    states.insert(parent, ThresholdState::Defined);
                    break ThresholdState::Defined;
                }
            }
        };
        while let Some(at) = unknown.pop() {
            state = checker.step(state, at);
            states.insert(Some(at), state);
        }
        state
    }

    /// Returns the first height that has the state of the block after `parent`
    /// (`GetStateSinceHeightFor`).
    pub(crate) fn since(
        &mut self,
        tree: &HeaderTree,
        deployment: &Deployment,
        parent: Option<HeaderRef>,
    ) -> u32 {
        let is_fixed =
            matches!(deployment.start_time, Deployment::ALWAYS_ACTIVE | Deployment::NEVER_ACTIVE);
        let state = self.state(tree, deployment, parent);
        if is_fixed || state == ThresholdState::Defined {
            return 0;
        }
        let checker = Checker { tree, deployment };
        let Some(mut at) = parent.and_then(|parent| checker.period_parent(parent)) else {
            return 0;
        };
        while let Some(before) = checker.period_before(at) {
            if self.state(tree, deployment, Some(before)) != state {
                break;
            }
            at = before;
        }
        tree.entry(at).height + 1
    }

    /// Describes a deployment at a block (`VersionBitsCache::Info`).
    pub(crate) fn info(
        &mut self,
        tree: &HeaderTree,
        deployment: &Deployment,
        block: HeaderRef,
    ) -> DeploymentInfo {
        let entry = tree.entry(block);
        let state = self.state(tree, deployment, entry.parent);
        let next_state = self.state(tree, deployment, Some(block));
        let since = self.since(tree, deployment, entry.parent);
        let checker = Checker { tree, deployment };
        let statistics = match state {
            ThresholdState::Started => Some(checker.statistics(block)),
            ThresholdState::LockedIn => Some(SignalStatistics {
                threshold: 0,
                possible: false,
                ..checker.statistics(block)
            }),
            _ => None,
        };
        let active_since = match (state, next_state) {
            (ThresholdState::Active, _) => Some(since),
            (_, ThresholdState::Active) => Some(entry.height + 1),
            _ => None,
        };
        DeploymentInfo { since, state, next_state, statistics, active_since }
    }
}

/// A deployment on a tree of headers.
struct Checker<'a> {
    tree: &'a HeaderTree,
    deployment: &'a Deployment,
}

impl Checker<'_> {
    /// Returns the last block of the last whole period up to `at`: the parent of the first block of
    /// the period that the block after `at` is in.
    fn period_parent(&self, at: HeaderRef) -> Option<HeaderRef> {
        let height = self.tree.entry(at).height;
        let into_period = (height + 1) % self.deployment.period;
        self.tree.ancestor(at, height.checked_sub(into_period)?)
    }

    /// Returns the parent of the period before the one whose parent is `at`.
    fn period_before(&self, at: HeaderRef) -> Option<HeaderRef> {
        let height = self.tree.entry(at).height;
        self.tree.ancestor(at, height.checked_sub(self.deployment.period)?)
    }

    fn median_time(&self, at: HeaderRef) -> i64 {
        i64::from(self.tree.median_time_past(at))
    }

    /// Returns the state of the period after the one that `last` ends.
    fn step(&self, state: ThresholdState, last: HeaderRef) -> ThresholdState {
        let deployment = self.deployment;
        match state {
            ThresholdState::Defined if self.median_time(last) >= deployment.start_time => {
                ThresholdState::Started
            }
            ThresholdState::Started if self.statistics(last).count >= deployment.threshold => {
                ThresholdState::LockedIn
            }
            ThresholdState::Started if self.median_time(last) >= deployment.timeout => {
                ThresholdState::Failed
            }
            ThresholdState::LockedIn
                if i64::from(self.tree.entry(last).height) + 1
                    >= deployment.min_activation_height =>
            {
                ThresholdState::Active
            }
            state => state,
        }
    }

    /// Counts the signals of the period that `at` is in, up to it (`GetStateStatisticsFor`).
    fn statistics(&self, at: HeaderRef) -> SignalStatistics {
        let Deployment { period, threshold, .. } = *self.deployment;
        let elapsed = self.tree.entry(at).height % period + 1;
        let mut signalling = Vec::new();
        let mut walk = Some(at);
        for _ in 0..elapsed {
            let Some(at) = walk else { break };
            let entry = self.tree.entry(at);
            let version = entry.header.version.to_consensus();
            signalling.push(self.deployment.is_signalled_by(version));
            walk = entry.parent;
        }
        signalling.reverse();
        let signals = signalling.iter().filter(|signals| **signals).count();
        let count = u32::try_from(signals).unwrap_or(u32::MAX);
        let possible = period.saturating_sub(threshold) >= elapsed.saturating_sub(count);
        SignalStatistics { period, threshold, signalling, count, possible }
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::block::{Header, Version};
    use cofferdam_storage::testing::{Random, effort};

    use super::ThresholdState::{Active, Defined, Failed, LockedIn, Started};
    use super::*;
    use crate::params::Network;

    /// A version that signals for bit 8, one for another bit, one for both.
    const SIGNAL: i32 = 0x100;
    const OTHER: i32 = 0x200;
    const BOTH: i32 = 0x101;
    /// Checkers of each kind, of which each is asked half as often as the one before: what is in
    /// the cache must not matter.
    const CHECKERS: u32 = 6;

    /// One block every ten minutes, from November 2014 on.
    const fn test_time(height: u32) -> u32 {
        1_415_926_536 + 600 * height
    }

    fn normal() -> Deployment {
        Deployment {
            name: "normal",
            bit: 8,
            start_time: i64::from(test_time(10_000)),
            timeout: i64::from(test_time(20_000)),
            min_activation_height: 0,
            period: 1000,
            threshold: 900,
        }
    }

    /// A made-up chain: only heights, times and versions count.
    struct Tester {
        tree: Option<HeaderTree>,
        tip: Option<HeaderRef>,
        base: i32,
        random: Random,
        caches: Vec<VersionBitsCache>,
    }

    impl Tester {
        fn new(base: i32, seed: u64) -> Self {
            let caches = (0..CHECKERS).map(|_| VersionBitsCache::default()).collect();
            Self { tree: None, tip: None, base, random: Random::new(seed), caches }
        }

        fn length(&self) -> u32 {
            match (&self.tree, self.tip) {
                (Some(tree), Some(tip)) => tree.entry(tip).height + 1,
                _ => 0,
            }
        }

        /// Mines until the chain has that many blocks, the genesis block included.
        fn mine(&mut self, length: u32, time: u32, version: i32) -> &mut Self {
            let genesis = ChainParams::new(Network::Regtest).genesis.header;
            while self.length() < length {
                let version = Version::from_consensus(self.base | version);
                let mut header = Header { version, time, nonce: self.length(), ..genesis };
                match &mut self.tree {
                    Some(tree) => {
                        let tip = self.tip.expect("not empty");
                        header.prev_blockhash = tree.entry(tip).hash;
                        let at = tree.insert(&header, header.block_hash(), tip).expect("room");
                        self.tip = Some(at);
                    }
                    None => {
                        let tree = HeaderTree::new(header);
                        self.tip = Some(tree.genesis());
                        self.tree = Some(tree);
                    }
                }
            }
            self
        }

        /// Expects of the next block states and the heights since when they hold, without and with
        /// a least height of activation.
        fn expect(&mut self, at_once: (ThresholdState, u32), delayed: (ThresholdState, u32)) {
            // Before the genesis block there is no tree to look at; a stand-in is not looked at.
            let stand_in = HeaderTree::new(ChainParams::new(Network::Regtest).genesis.header);
            let tree = self.tree.as_ref().unwrap_or(&stand_in);
            let late = Deployment { name: "delayed", min_activation_height: 15_000, ..normal() };
            let start = |name, start_time| Deployment { name, start_time, ..normal() };
            let cases = [
                (normal(), at_once),
                (late, delayed),
                (start("always", Deployment::ALWAYS_ACTIVE), (Active, 0)),
                (start("never", Deployment::NEVER_ACTIVE), (Failed, 0)),
            ];
            for (number, cache) in (0..).zip(&mut self.caches) {
                if self.random.below(1 << number) != 0 {
                    continue;
                }
                for (deployment, expected) in &cases {
                    let found = (
                        cache.state(tree, deployment, self.tip),
                        cache.since(tree, deployment, self.tip),
                    );
                    let height = self.tip.map_or(0, |tip| tree.entry(tip).height + 1);
                    assert_eq!(found, *expected, "{} at height {height}", deployment.name);
                }
            }
        }
    }

    /// Length of the chain, time and version of the new blocks, and what is then expected of the next
    /// block, without and (if that differs) with a least height of activation.
    type Step = (u32, u32, i32, (ThresholdState, u32), Option<(ThresholdState, u32)>);

    const fn step(length: u32, time: u32, version: i32, state: ThresholdState, since: u32) -> Step {
        (length, test_time(time), version, (state, since), None)
    }

    /// Active since 4000, while one with a least height of 15,000 waits.
    const fn waiting(length: u32, time: u32) -> Step {
        (length, test_time(time), 0, (Active, 4000), Some((LockedIn, 3000)))
    }

    const fn both_active(length: u32) -> Step {
        (length, test_time(40_000), 0, (Active, 4000), Some((Active, 15_000)))
    }

    /// One second before the start.
    const fn early(length: u32, version: i32) -> Step {
        (length, test_time(10_000) - 1, version, (Defined, 0), None)
    }

    const START_AND_TIMEOUT_AT_ONCE: &[Step] = &[
        step(1, 1, SIGNAL, Defined, 0),
        step(11, 11, SIGNAL, Defined, 0),
        step(989, 989, SIGNAL, Defined, 0),
        step(999, 20_000, SIGNAL, Defined, 0),
        step(1000, 20_000, 0, Started, 1000),
        step(1999, 30_001, 0, Started, 1000),
        step(2000, 30_002, SIGNAL, Failed, 2000),
        step(2001, 30_003, SIGNAL, Failed, 2000),
        step(2999, 30_004, SIGNAL, Failed, 2000),
        step(3000, 30_005, SIGNAL, Failed, 2000),
        step(4000, 30_006, SIGNAL, Failed, 2000),
    ];

    const ONE_SIGNAL_TOO_FEW: &[Step] = &[
        step(1, 1, 0, Defined, 0),
        early(1000, SIGNAL),
        step(2000, 10_000, SIGNAL, Started, 2000),
        step(2051, 10_010, 0, Started, 2000),
        step(2950, 10_020, SIGNAL, Started, 2000),
        step(3000, 20_000, 0, Failed, 3000),
        step(4000, 20_010, SIGNAL, Failed, 3000),
    ];

    const LOCKED_IN_AFTER_THE_TIMEOUT: &[Step] = &[
        step(1, 1, 0, Defined, 0),
        early(1000, BOTH),
        step(2000, 10_000, BOTH, Started, 2000),
        step(2999, 30_000, SIGNAL, Started, 2000),
        step(3000, 30_000, SIGNAL, LockedIn, 3000),
        step(3999, 30_001, 0, LockedIn, 3000),
        waiting(4000, 30_002),
        waiting(14_333, 30_003),
        both_active(24_000),
    ];

    const JUST_ENOUGH_SIGNALS: &[Step] = &[
        step(1, 1, 0, Defined, 0),
        early(1000, BOTH),
        step(2000, 10_000, BOTH, Started, 2000),
        step(2050, 10_010, OTHER, Started, 2000),
        step(2950, 10_020, SIGNAL, Started, 2000),
        step(2999, 19_999, OTHER, Started, 2000),
        step(3000, 29_999, OTHER, LockedIn, 3000),
        step(3999, 30_001, 0, LockedIn, 3000),
        waiting(4000, 30_002),
        waiting(14_333, 30_003),
        both_active(15_000),
        both_active(24_000),
    ];

    const SEVERAL_PERIODS_OF_EACH: &[Step] = &[
        step(999, 999, 0, Defined, 0),
        step(1000, 1000, 0, Defined, 0),
        step(2000, 2000, 0, Defined, 0),
        step(3000, 10_000, 0, Started, 3000),
        step(4000, 10_000, 0, Started, 3000),
        step(5000, 10_000, 0, Started, 3000),
        step(5999, 20_000, 0, Started, 3000),
        step(6000, 20_000, 0, Failed, 6000),
        step(7000, 20_000, SIGNAL, Failed, 6000),
        step(24_000, 20_000, SIGNAL, Failed, 6000),
    ];

    /// Core's `versionbits_test`.
    #[test]
    fn states_follow_one_another_as_in_core() {
        for seed in 0..effort().pick(4, 64, 64) {
            for steps in [
                START_AND_TIMEOUT_AT_ONCE,
                ONE_SIGNAL_TOO_FEW,
                LOCKED_IN_AFTER_THE_TIMEOUT,
                JUST_ENOUGH_SIGNALS,
                SEVERAL_PERIODS_OF_EACH,
            ] {
                let mut tester = Tester::new(TOP_BITS, seed);
                tester.expect((Defined, 0), (Defined, 0));
                for &(length, time, version, state, delayed) in steps {
                    tester.mine(length, time, version);
                    tester.expect(state, delayed.unwrap_or(state));
                }
            }
        }
    }

    /// What a new block after the tester's chain does, by a cache that lives on.
    struct Miner<'a> {
        params: &'a ChainParams,
        deployment: &'a Deployment,
        cache: VersionBitsCache,
    }

    impl Miner<'_> {
        fn expect(&mut self, chain: &Tester, signals: bool, active: bool) {
            let tree = chain.tree.as_ref().expect("mined");
            let version = self.cache.block_version(tree, self.params, chain.tip);
            assert_eq!(version & TOP_MASK, TOP_BITS);
            let found = (
                version & self.deployment.mask() != 0,
                self.cache.state(tree, self.deployment, chain.tip) == Active,
            );
            assert_eq!(found, (signals, active), "after {} blocks", chain.length());
        }
    }

    /// Core's `check_computeblockversion`: what a deployment makes miners signal until it fails, and
    /// until it is active.
    fn check_block_version(params: &ChainParams, deployment: &Deployment) {
        const OLD: i32 = 4;
        let Deployment { period, threshold, start_time, timeout, .. } = *deployment;
        assert!(period > 0 && threshold > 0 && threshold < period && deployment.bit < 29);
        let is_fixed =
            start_time == Deployment::ALWAYS_ACTIVE || start_time == Deployment::NEVER_ACTIVE;
        let tree = HeaderTree::new(params.genesis.header);
        let mut cache = VersionBitsCache::default();
        assert_eq!(cache.block_version(&tree, params, None), TOP_BITS);
        if is_fixed {
            let state = cache.state(&tree, deployment, None);
            assert_eq!(state == Active, start_time == Deployment::ALWAYS_ACTIVE);
            assert_eq!((deployment.min_activation_height, timeout), (0, Deployment::NO_TIMEOUT));
            return;
        }
        let start = u32::try_from(start_time).expect("a time");
        let mut miner = Miner { params, deployment, cache };
        let mut chain = Tester::new(0, 0);
        if start == 0 {
            chain.mine(period - 1, 0, OLD);
            miner.expect(&chain, false, false);
        } else {
            for length in [period, 2 * period - 5] {
                chain.mine(length, start - 1, OLD);
                miner.expect(&chain, false, false);
            }
            // The median time passes the start after six of these; they are five.
            chain.mine(2 * period, start, OLD);
            miner.expect(&chain, false, false);
        }
        chain.mine(3 * period, start, OLD);
        miner.expect(&chain, true, false);
        let mut time = start;
        for length in 3 * period + 1..=5 * period {
            time = time.saturating_add(600).min(u32::try_from(timeout).map_or(u32::MAX, |t| t - 1));
            chain.mine(length, time, OLD);
            miner.expect(&chain, true, false);
        }
        if let Ok(timeout) = u32::try_from(timeout) {
            chain.mine(6 * period - 1, timeout, OLD);
            miner.expect(&chain, true, false);
            chain.mine(6 * period, timeout, OLD);
            miner.expect(&chain, false, false);
        }

        let mut chain = Tester::new(0, 0);
        let mut miner = Miner { params, deployment, cache: VersionBitsCache::default() };
        chain.mine(period, start, OLD);
        miner.expect(&chain, true, false);
        chain.mine(2 * period, start, TOP_BITS | deployment.mask());
        miner.expect(&chain, true, false);
        chain.mine(3 * period - 1, start, OLD);
        miner.expect(&chain, true, false);
        chain.mine(3 * period, start, OLD);
        let least = u32::try_from(deployment.min_activation_height).expect("a height");
        if chain.length() < least {
            chain.mine(least - 1, start, OLD);
            miner.expect(&chain, true, false);
            chain.mine(least, start, OLD);
        }
        miner.expect(&chain, false, true);
    }

    /// Core's `versionbits_computeblockversion`.
    #[test]
    fn new_blocks_signal_while_a_deployment_is_started_or_locked_in() {
        for network in Network::ALL {
            let params = ChainParams::new(network);
            let mut bits: Vec<u8> = params.deployments.iter().map(|it| it.bit).collect();
            bits.sort_unstable();
            bits.dedup();
            assert_eq!(bits.len(), params.deployments.len(), "{network}: bits are used once");
            for deployment in &params.deployments {
                check_block_version(&params, deployment);
            }
        }
        for text in ["testdummy:1199145601:1230767999", "testdummy:1199145601:1230767999:403200"] {
            let params = ChainParams::new(Network::Regtest).with_version_bits(text).expect("fine");
            check_block_version(&params, &params.deployments[0]);
        }
    }

    #[test]
    fn testdummy_is_signalled_from_144_to_431_and_described() {
        let params = ChainParams::new(Network::Regtest);
        let [testdummy] = params.deployments.as_slice() else { panic!("one deployment") };
        let mut tree = HeaderTree::new(params.genesis.header);
        let mut cache = VersionBitsCache::default();
        let mut tip = tree.genesis();
        let mut info = Vec::new();
        for height in 1..600_u32 {
            let version = cache.block_version(&tree, &params, Some(tip));
            let expected = if (144..432).contains(&height) { 0x3000_0000 } else { TOP_BITS };
            assert_eq!(version, expected, "at height {height}");
            let parent = tree.entry(tip);
            let header = Header {
                version: Version::from_consensus(version),
                prev_blockhash: parent.hash,
                time: parent.header.time + 1,
                ..parent.header
            };
            tip = tree.insert(&header, header.block_hash(), tip).expect("room");
            info.push(cache.info(&tree, testdummy, tip));
        }
        let at = |height: usize| info[height - 1].clone();
        assert_eq!((at(143).state, at(143).next_state, at(143).since), (Defined, Started, 0));
        let started = at(200).statistics.expect("started");
        assert_eq!((at(200).since, started.count, started.possible), (144, 57, true));
        assert_eq!((started.period, started.threshold), (144, 108));
        assert_eq!(started.signalling, [true; 57]);
        let locked_in = at(431);
        assert_eq!((locked_in.state, locked_in.since), (LockedIn, 288));
        assert_eq!(locked_in.active_since, Some(432));
        let statistics = locked_in.statistics.expect("locked in");
        assert_eq!((statistics.threshold, statistics.possible), (0, false));
        let active = at(599);
        assert_eq!((active.state, active.active_since), (Active, Some(432)));
        assert_eq!((active.since, active.statistics), (432, None));
    }

    #[test]
    fn a_period_with_too_many_silent_blocks_cannot_make_it() {
        let mut chain = Tester::new(TOP_BITS, 0);
        chain.mine(1000, test_time(20_000), 0).mine(1100, test_time(20_000), 0);
        let tree = chain.tree.as_ref().expect("mined");
        let possible = |at| {
            let info = VersionBitsCache::default().info(tree, &normal(), at);
            info.statistics.expect("started").possible
        };
        let tip = chain.tip.expect("mined");
        assert!(possible(tip), "100 silent blocks");
        chain.mine(1101, test_time(20_000), 0);
        let tree = chain.tree.as_ref().expect("mined");
        let tip = chain.tip.expect("mined");
        let info = VersionBitsCache::default().info(tree, &normal(), tip);
        assert!(!info.statistics.expect("started").possible, "101 silent blocks");
    }
}
