//! What a user decides against the rules: blocks to reject, to reconsider and to prefer
//! (`InvalidateBlock`, `ResetBlockFailureFlags` and `PreciousBlock` in Bitcoin Core's
//! `validation.cpp`).
//!
//! None of them connects a block: [`Chainstate::advance`] does, afterwards.

use std::time::Instant;

use super::{Chainstate, ROWS_MAX};
use crate::error::{Error, Result};
use crate::headers::{HeaderRef, HeaderStatus};

/// What [`Chainstate::invalidate_block`] did.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Invalidation {
    /// Blocks disconnected.
    pub disconnected: u32,
    /// Whether nothing is left to do; if not, the next call goes on. The block is marked then, unless
    /// it is still connected: the genesis block, or below one that cannot be read.
    pub done: bool,
}

impl Chainstate {
    /// Marks a block and its descendants as breaking a rule, for good; those of the connected chain
    /// are disconnected, until the deadline has passed, but at least one.
    ///
    /// Each block that was disconnected is marked in the same batch of the log: a crash or a pause
    /// leaves a chain that ends in a block that is not marked. The genesis block cannot be marked:
    /// nothing happens, as in Bitcoin Core. Nor can one below a block that cannot be taken back, since
    /// it was pruned, say: those above that one are marked and disconnected, and branches stay marked.
    ///
    /// # Errors
    ///
    /// Returns [`crate::Error`] if the machine failed.
    pub fn invalidate_block(&mut self, at: HeaderRef, until: Instant) -> Result<Invalidation> {
        let mut result = Invalidation::default();
        if at == self.headers.genesis() {
            result.done = true;
            return Ok(result);
        }
        // Branches off the connected chain go first, so that none takes over during a pause.
        let mut branches = self.headers.descendants(at);
        branches.retain(|&entry| !self.is_connected(entry));
        self.set_failed(&branches);
        self.write_index_if_large()?;
        let mut is_stuck = false;
        while self.is_connected(at) && (result.disconnected == 0 || Instant::now() < until) {
            let tip = self.tip;
            self.set_failed(&[tip]);
            match self.disconnect_tip() {
                Ok(()) => result.disconnected += 1,
                Err(error) => {
                    self.headers.entry_mut(tip).status.clear(HeaderStatus::FAILED);
                    let Error::Disconnect { source } = error else {
                        return Err(error);
                    };
                    // A user asked for too much, and the chain is whole: only a reorganisation that
                    // cannot be finished is fatal.
                    tracing::error!("DisconnectTip(): Failed to read block ({source})");
                    is_stuck = true;
                    break;
                }
            }
        }
        result.done = is_stuck || !self.is_connected(at);
        if self.headers.entry(self.headers.best()).status.has(HeaderStatus::FAILED) {
            self.headers.refresh_best(self.tip);
        }
        // Blocks with less work than the tip had may be the best now.
        self.candidates.rebuild(&self.headers, self.tip);
        self.write_index()?;
        Ok(result)
    }

    /// Takes the mark of breaking a rule from a block, its ancestors and its descendants; those
    /// that do break one are found out again when they are connected.
    ///
    /// # Errors
    ///
    /// Returns [`crate::Error`] if the machine failed.
    pub fn reconsider_block(&mut self, at: HeaderRef) -> Result<()> {
        // From the last descendant up to the first ancestor: after a crash amid these rows the marks
        // of the ancestors are passed on again, and nothing has changed.
        let mut line = self.headers.descendants(at);
        line.reverse();
        let mut above = self.headers.entry(at).parent;
        // An ancestor of a block that is not marked is not marked.
        while let Some(ancestor) = above.filter(|&ancestor| self.is_failed(ancestor)) {
            line.push(ancestor);
            above = self.headers.entry(ancestor).parent;
        }
        // New rows are written parents first.
        self.write_index()?;
        for part in line.chunks(ROWS_MAX) {
            for &at in part {
                if self.is_failed(at) {
                    self.headers.entry_mut(at).status.clear(HeaderStatus::FAILED);
                    self.dirty.insert(at);
                }
            }
            self.write_index()?;
        }
        self.headers.refresh_best(self.tip);
        self.candidates.rebuild(&self.headers, self.tip);
        Ok(())
    }

    /// Treats a block as if it had come before all others of the same work, until the chainstate is
    /// opened again. A block with less work than the tip is not heard.
    pub fn precious_block(&mut self, at: HeaderRef) {
        self.candidates.prefer(&mut self.headers, at, self.tip);
    }

    fn is_failed(&self, at: HeaderRef) -> bool {
        self.headers.entry(at).status.has(HeaderStatus::FAILED)
    }

    /// Marks these entries, and only these.
    fn set_failed(&mut self, entries: &[HeaderRef]) {
        for &at in entries {
            if !self.is_failed(at) {
                self.headers.entry_mut(at).status.set(HeaderStatus::FAILED);
                self.dirty.insert(at);
            }
        }
    }
}

#[cfg(test)]
#[cfg(feature = "kernel")]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use bitcoin::{BlockHash, ScriptBuf};

    use super::*;
    use crate::chainstate::BlockAccepted;
    use crate::chainstate::tests::{advance, dump, open};
    use crate::mining;
    use crate::params::{ChainParams, Network};
    use crate::tables::COINS;

    const NOW: u32 = 1_767_225_600;

    /// Two branches on a common block, `fork`; `a` was seen first and is the connected one.
    struct Fork {
        chain: Chainstate,
        a: Vec<BlockHash>,
        b: Vec<BlockHash>,
        fork: BlockHash,
    }

    /// Mines blocks on the tip and connects them; different salts make different blocks.
    fn mine(chain: &mut Chainstate, count: usize, salt: u8) -> Vec<Vec<u8>> {
        let script = ScriptBuf::from_bytes(vec![0x51, 0x01, salt]);
        let mut mined = Vec::new();
        for _ in 0..count {
            let mut block = mining::assemble_block(chain, &script, NOW);
            assert!(mining::solve(&mut block, chain.params(), &mut 1_000_000));
            let raw = bitcoin::consensus::serialize(&block);
            store(chain, &raw);
            assert_eq!(advance(chain).connected, 1);
            mined.push(raw);
        }
        mined
    }

    fn store(chain: &mut Chainstate, raw: &[u8]) -> BlockHash {
        match chain.accept_block(raw.to_vec(), NOW).expect("works") {
            BlockAccepted::Stored(block) | BlockAccepted::Duplicate(block) => block.hash,
            BlockAccepted::Rejected(rejection) => panic!("{rejection}"),
        }
    }

    /// Two blocks in common, then the branches of these lengths.
    fn forked(dir: &Path, a: usize, b: usize) -> Fork {
        let other_dir = tempfile::tempdir().expect("temporary");
        let mut other = open(ChainParams::new(Network::Regtest), other_dir.path());
        let common = mine(&mut other, 2, 1);
        let branch_b = mine(&mut other, b, 2);
        let mut chain = open(ChainParams::new(Network::Regtest), dir);
        let common: Vec<BlockHash> = common.iter().map(|raw| store(&mut chain, raw)).collect();
        let _ = advance(&mut chain);
        let branch_a = mine(&mut chain, a, 3);
        let a = branch_a.iter().map(|raw| store(&mut chain, raw)).collect();
        let b = branch_b.iter().map(|raw| store(&mut chain, raw)).collect();
        let _ = advance(&mut chain);
        Fork { chain, a, b, fork: common[1] }
    }

    impl Fork {
        fn at(&self, hash: &BlockHash) -> HeaderRef {
            self.chain.headers().get(hash).expect("known")
        }

        fn tip(&self) -> BlockHash {
            self.chain.tip().hash
        }

        fn best_header(&self) -> BlockHash {
            self.chain.headers().entry(self.chain.headers().best()).hash
        }

        fn invalidate(&mut self, hash: &BlockHash) -> Invalidation {
            let deadline = Instant::now() + Duration::from_secs(60);
            self.chain.invalidate_block(self.at(hash), deadline).expect("works")
        }

        fn reconsider(&mut self, hash: &BlockHash) {
            self.chain.reconsider_block(self.at(hash)).expect("works");
            let _ = advance(&mut self.chain);
        }

        fn precious(&mut self, hash: &BlockHash) {
            self.chain.precious_block(self.at(hash));
            let _ = advance(&mut self.chain);
        }

        fn failed(&self) -> Vec<BlockHash> {
            let headers = self.chain.headers();
            let failed = headers.iter().filter(|&at| self.chain.is_failed(at));
            failed.map(|at| headers.entry(at).hash).collect()
        }
    }

    #[test]
    fn an_invalidated_block_is_disconnected_and_its_rival_connected() {
        let dir = tempfile::tempdir().expect("temporary");
        let mut it = forked(dir.path(), 4, 3);
        let (a, b) = (it.a.clone(), it.b.clone());
        assert_eq!((it.tip(), it.best_header()), (a[3], a[3]));
        assert_eq!(it.invalidate(&a[1]), Invalidation { disconnected: 3, done: true });
        assert_eq!((it.tip(), it.best_header()), (a[0], b[2]));
        assert_eq!(it.failed(), a[1..]);
        assert_eq!(advance(&mut it.chain).connected, 3);
        assert_eq!(it.tip(), b[2]);
        // A child of a marked block is refused, and so is the block itself.
        let raw = it.chain.read_block(&a[2]).expect("works").expect("stored");
        let refused = it.chain.accept_block(raw, NOW).expect("works");
        let BlockAccepted::Rejected(rejection) = refused else { panic!("{refused:?}") };
        assert_eq!(rejection.code, "duplicate-invalid");
    }

    #[test]
    fn a_block_off_the_chain_is_invalidated_with_all_its_descendants() {
        let dir = tempfile::tempdir().expect("temporary");
        let mut it = forked(dir.path(), 3, 3);
        let (a, b) = (it.a.clone(), it.b.clone());
        assert_eq!(it.invalidate(&b[1]), Invalidation { disconnected: 0, done: true });
        assert_eq!(it.failed(), b[1..]);
        // The rival is out: without its marked blocks it has less work than what is left of a.
        assert_eq!(it.invalidate(&a[2]).disconnected, 1);
        assert!(advance(&mut it.chain).done);
        assert_eq!((it.tip(), it.best_header()), (a[1], a[1]));
    }

    #[test]
    fn the_fork_block_takes_both_branches_along() {
        let dir = tempfile::tempdir().expect("temporary");
        let mut it = forked(dir.path(), 3, 2);
        let fork = it.fork;
        assert_eq!(it.invalidate(&fork).disconnected, 4);
        assert_eq!(it.failed().len(), 6);
        assert!(advance(&mut it.chain).done);
        assert_eq!(it.chain.tip().height, 1);
        assert_eq!(it.best_header(), it.tip());
    }

    #[test]
    fn the_genesis_block_cannot_be_invalidated() {
        let dir = tempfile::tempdir().expect("temporary");
        let mut it = forked(dir.path(), 1, 1);
        let genesis = it.chain.params().genesis.block_hash();
        assert_eq!(it.invalidate(&genesis), Invalidation { disconnected: 0, done: true });
        assert_eq!((it.failed().len(), it.tip()), (0, it.a[0]));
    }

    #[test]
    fn a_pause_leaves_a_chain_that_stays_until_the_next_call() {
        let dir = tempfile::tempdir().expect("temporary");
        let mut it = forked(dir.path(), 4, 2);
        let (a, b) = (it.a.clone(), it.b.clone());
        let (at, past) = (it.at(&a[0]), Instant::now());
        for height in [5, 4] {
            let step = it.chain.invalidate_block(at, past).expect("works");
            assert_eq!(step, Invalidation { disconnected: 1, done: false });
            // The rival has less work, then as much: neither moves the tip.
            assert!(advance(&mut it.chain).done);
            assert_eq!(it.chain.tip().height, height);
        }
        assert_eq!((it.tip(), it.failed()), (a[1], a[2..].to_vec()));
        // A crash here leaves that chain too: what is marked is not connected.
        it.chain.sync().expect("works");
        drop(it.chain);
        let mut it = Fork { chain: open(ChainParams::new(Network::Regtest), dir.path()), ..it };
        assert_eq!((it.tip(), it.failed()), (a[1], a[2..].to_vec()));
        let at = it.at(&a[0]);
        let step = it.chain.invalidate_block(at, past).expect("works");
        assert_eq!(step, Invalidation { disconnected: 1, done: false });
        // Now the rival has more work: with it the marked block leaves the chain.
        assert!(advance(&mut it.chain).done);
        assert_eq!(it.tip(), b[1]);
        let step = it.chain.invalidate_block(at, past).expect("works");
        assert_eq!(step, Invalidation { disconnected: 0, done: true });
        assert_eq!((it.tip(), it.failed()), (b[1], a));
    }

    #[test]
    fn reconsidering_undoes_it_for_ancestors_and_descendants_but_no_cousins() {
        let dir = tempfile::tempdir().expect("temporary");
        let mut it = forked(dir.path(), 4, 3);
        let (a, b, fork) = (it.a.clone(), it.b.clone(), it.fork);
        let coins = dump(&it.chain, COINS);
        let _ = it.invalidate(&fork);
        assert_ne!(dump(&it.chain, COINS), coins);
        it.reconsider(&b[1]);
        assert_eq!((it.tip(), it.failed()), (b[2], a.clone()));
        it.reconsider(&a[3]);
        assert_eq!((it.tip(), it.best_header(), it.failed().len()), (a[3], a[3], 0));
        assert_eq!(dump(&it.chain, COINS), coins);
    }

    #[test]
    fn a_restart_keeps_invalid_blocks_and_forgets_precious_ones() {
        let dir = tempfile::tempdir().expect("temporary");
        let mut it = forked(dir.path(), 3, 3);
        let (a, b) = (it.a.clone(), it.b.clone());
        it.precious(&b[2]);
        let _ = it.invalidate(&b[2]);
        let _ = advance(&mut it.chain);
        assert_eq!(it.tip(), a[2]);
        let backend = it.chain.store().tip();
        it.chain.sync().expect("works");
        assert_eq!(backend.map(|tip| tip.height), Some(5));
        drop(it.chain);
        // The log is replayed: it holds every step.
        let mut it = Fork { chain: open(ChainParams::new(Network::Regtest), dir.path()), ..it };
        assert_eq!((it.tip(), it.failed()), (a[2], vec![b[2]]));
        it.reconsider(&b[2]);
        assert_eq!(it.tip(), a[2], "no longer precious");
        it.precious(&b[2]);
        assert_eq!(it.tip(), b[2]);
        drop(it.chain);
        // A tip that was precious stays the tip: it is where the chain was.
        let it = Fork { chain: open(ChainParams::new(Network::Regtest), dir.path()), ..it };
        assert_eq!(it.tip(), b[2]);
    }

    #[test]
    fn a_precious_block_moves_the_tip_among_equals_only() {
        let dir = tempfile::tempdir().expect("temporary");
        let mut it = forked(dir.path(), 3, 3);
        let (a, b) = (it.a.clone(), it.b.clone());
        for (wanted, tip) in [(&b[2], b[2]), (&a[2], a[2]), (&b[1], a[2]), (&b[2], b[2])] {
            it.precious(wanted);
            assert_eq!(it.tip(), tip);
        }
        let _ = mine(&mut it.chain, 1, 9);
        it.precious(&a[2]);
        assert_eq!(it.chain.tip().height, 6, "less work than the tip");
    }

    #[test]
    fn a_really_invalid_block_is_found_out_again_after_reconsidering() {
        let dir = tempfile::tempdir().expect("temporary");
        let mut chain = open(ChainParams::new(Network::Regtest), dir.path());
        let mut block = mining::assemble_block(&chain, &ScriptBuf::new(), NOW);
        // A unit more than a block may make, with the commitment to that.
        block.txdata[0].output[0].value = bitcoin::Amount::from_sat(50_0000_0001);
        block.header.merkle_root = block.compute_merkle_root().expect("a transaction");
        assert!(mining::solve(&mut block, chain.params(), &mut 1_000_000));
        let hash = store(&mut chain, &bitcoin::consensus::serialize(&block));
        for _ in 0..2 {
            let advanced = advance(&mut chain);
            assert_eq!(advanced.invalid.len(), 1, "{advanced:?}");
            assert_eq!(advanced.invalid[0].1.code, "bad-cb-amount");
            let at = chain.headers().get(&hash).expect("known");
            assert!(chain.is_failed(at));
            chain.reconsider_block(at).expect("works");
        }
    }
}
