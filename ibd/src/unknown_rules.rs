//! Rules that miners signal for and that are not known here: whoever sees them become active runs a
//! program that is too old (Bitcoin Core's `WarningBitsConditionChecker`).

use std::collections::HashMap;

use crate::headers::{HeaderRef, HeaderTree};
use crate::params::{ChainParams, Network};
use crate::versionbits::{BITS, VersionBitsCache, signals};

/// Blocks of a period of the main chain, and how many of them have to signal (BIP-0341's 90 %).
const MAIN_PERIOD: u32 = 2016;
const MAIN_THRESHOLD: u32 = 1815;

/// What unknown rules there are for the block after another one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct UnknownRules {
    locked_in: u32,
    active: u32,
}

impl UnknownRules {
    /// Returns the bits of rules that hold in the next period.
    pub fn locked_in(self) -> impl Iterator<Item = u8> {
        bits(self.locked_in)
    }

    /// Returns the bits of rules that hold.
    pub fn active(self) -> impl Iterator<Item = u8> {
        bits(self.active)
    }

    /// Returns what holds in the period after one with enough signals for `enough`.
    const fn step(self, enough: u32) -> Self {
        let active = self.active | self.locked_in;
        Self { locked_in: enough & !active, active }
    }
}

fn bits(set: u32) -> impl Iterator<Item = u8> {
    (0..BITS).filter(move |bit| set >> bit & 1 == 1)
}

/// What was found so far, by the last block of a period: one entry a period and branch of the tree
/// that was asked for.
#[derive(Debug, Default)]
pub(crate) struct UnknownRulesCache(HashMap<HeaderRef, UnknownRules>);

impl UnknownRulesCache {
    /// Returns the unknown rules of the block after `block` (`CheckUnknownActivations`).
    pub(crate) fn after(
        &mut self,
        tree: &HeaderTree,
        params: &ChainParams,
        versions: &mut VersionBitsCache,
        block: HeaderRef,
    ) -> UnknownRules {
        let mut checker = Checker::new(tree, params, versions);
        let mut unknown = Vec::new();
        let mut last = checker.last_of_period(block);
        let mut rules = loop {
            // Nothing is counted in the first period, nor before the first height that counts.
            let Some(at) = last.filter(|at| checker.may_count(*at)) else {
                break UnknownRules::default();
            };
            if let Some(known) = self.0.get(&at) {
                break *known;
            }
            unknown.push(at);
            last = checker.before(at);
        };
        while let Some(at) = unknown.pop() {
            rules = rules.step(checker.enough(at));
            self.0.insert(at, rules);
        }
        rules
    }
}

struct Checker<'a> {
    tree: &'a HeaderTree,
    params: &'a ChainParams,
    versions: &'a mut VersionBitsCache,
    period: u32,
    threshold: u32,
}

impl<'a> Checker<'a> {
    fn new(
        tree: &'a HeaderTree,
        params: &'a ChainParams,
        versions: &'a mut VersionBitsCache,
    ) -> Self {
        let (period, threshold) = match params.network {
            Network::Mainnet => (MAIN_PERIOD, MAIN_THRESHOLD),
            // 75 % on test networks (BIP-0009).
            _ => {
                let period = params.difficulty_adjustment_interval();
                (period, period * 3 / 4)
            }
        };
        Self { tree, params, versions, period, threshold }
    }

    /// Returns the last block of the last whole period up to `at`.
    fn last_of_period(&self, at: HeaderRef) -> Option<HeaderRef> {
        let height = self.tree.entry(at).height;
        self.tree.ancestor(at, height.checked_sub((height + 1) % self.period)?)
    }

    fn before(&self, at: HeaderRef) -> Option<HeaderRef> {
        self.tree.ancestor(at, self.tree.entry(at).height.checked_sub(self.period)?)
    }

    fn may_count(&self, last: HeaderRef) -> bool {
        let height = self.tree.entry(last).height;
        height >= self.params.min_version_warning_height && height >= self.period
    }

    /// Returns the bits with enough signals in the period that `last` ends.
    fn enough(&mut self, last: HeaderRef) -> u32 {
        let mut counts = [0_u32; BITS as usize];
        let mut walk = Some(last);
        for _ in 0..self.period {
            let Some(at) = walk else { break };
            let entry = self.tree.entry(at);
            walk = entry.parent;
            let signalled = signals(entry.header.version.to_consensus());
            if signalled == 0 || entry.height < self.params.min_version_warning_height {
                continue;
            }
            let ours = self.versions.block_version(self.tree, self.params, entry.parent);
            let unknown = signalled & !signals(ours);
            for (bit, count) in counts.iter_mut().enumerate() {
                *count += unknown >> bit & 1;
            }
        }
        let enough = counts.iter().enumerate().filter(|(_, count)| **count >= self.threshold);
        enough.fold(0, |set, (bit, _)| set | 1 << bit)
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::block::{Header, Version};

    use super::*;

    const SIGNAL: i32 = 0x2000_0010;
    const KNOWN: i32 = 0x1000_0000;
    const PLAIN: i32 = 0x2000_0000;

    /// A made-up chain of regtest, whose periods have 144 blocks: only versions count.
    struct Chain {
        params: ChainParams,
        tree: HeaderTree,
        tip: HeaderRef,
        rules: UnknownRulesCache,
        versions: VersionBitsCache,
    }

    impl Chain {
        fn new(params: ChainParams) -> Self {
            let tree = HeaderTree::new(params.genesis.header);
            let tip = tree.genesis();
            let (rules, versions) = (UnknownRulesCache::default(), VersionBitsCache::default());
            Self { params, tree, tip, rules, versions }
        }

        fn mine(&mut self, blocks: u32, version: i32) -> &mut Self {
            for _ in 0..blocks {
                let parent = self.tree.entry(self.tip);
                let header = Header {
                    prev_blockhash: parent.hash,
                    version: Version::from_consensus(version),
                    time: parent.header.time + 1,
                    ..parent.header
                };
                let hash = header.block_hash();
                self.tip = self.tree.insert(&header, hash, self.tip).expect("room");
            }
            self
        }

        /// Expects bits that are locked in, and active ones.
        #[track_caller]
        fn expect(&mut self, locked_in: &[u8], active: &[u8]) -> &mut Self {
            let Self { params, tree, tip, rules, versions } = self;
            let cached = rules.after(tree, params, versions, *tip);
            let fresh = UnknownRulesCache::default().after(tree, params, versions, *tip);
            assert_eq!(cached, fresh, "a cache changes nothing");
            let found = (cached.locked_in().collect(), cached.active().collect());
            assert_eq!(found, (locked_in.to_vec(), active.to_vec()));
            self
        }
    }

    #[test]
    fn an_unknown_rule_is_seen_once_three_quarters_signal() {
        let mut chain = Chain::new(ChainParams::new(Network::Regtest));
        // The genesis block is of the first period, in which nothing counts.
        chain.mine(143, SIGNAL).expect(&[], &[]);
        chain.mine(107, SIGNAL).mine(37, PLAIN).expect(&[], &[]);
        chain.mine(36, PLAIN).mine(107, SIGNAL).expect(&[], &[]);
        chain.mine(1, SIGNAL).expect(&[4], &[]);
        chain.mine(143, PLAIN).expect(&[4], &[]);
        chain.mine(1, PLAIN).expect(&[], &[4]);
        chain.mine(400, PLAIN).expect(&[], &[4]);
    }

    #[test]
    fn what_is_known_and_what_is_no_signal_is_no_unknown_rule() {
        let params = ChainParams::new(Network::Regtest)
            .with_version_bits("testdummy:0:999999999999")
            .expect("a deployment");
        let mut chain = Chain::new(params);
        // Bit 28 is that of a rule that is signalled for here as well, until it is active.
        chain.mine(143, PLAIN).mine(144, PLAIN | KNOWN).expect(&[], &[]);
        chain.mine(144, PLAIN | KNOWN).expect(&[], &[]);
        chain.mine(144, PLAIN | KNOWN).expect(&[28], &[]);
        // Other versions do not signal.
        chain.mine(144, 0x3000_0010_u32.cast_signed() | 0x4000_0000).expect(&[], &[28]);
        chain.mine(144, 4).expect(&[], &[28]);
    }

    #[test]
    fn only_blocks_from_a_height_on_count() {
        let mut params = ChainParams::new(Network::Regtest);
        params.min_version_warning_height = 144 + 37;
        let mut chain = Chain::new(params.clone());
        chain.mine(143 + 144, SIGNAL).expect(&[], &[]);
        chain.mine(144, SIGNAL).expect(&[4], &[]);
        params.min_version_warning_height -= 1;
        Chain::new(params).mine(143 + 144, SIGNAL).expect(&[4], &[]);
    }
}
