//! `LowWorkGate`: lets a peer's headers through to the tree only if their chain has enough work
//! (`ProcessHeadersMessage` and what it calls in Bitcoin Core's `net_processing.cpp`).

use bitcoin::block::Header;
use bitcoin::{BlockHash, Work};

use crate::headers::{ChainStart, HeaderRef, HeaderTree, HeadersSync, SyncPhase};
use crate::params::ChainParams;
use crate::pow::{block_work, check_work_of};

/// Blocks below the tip down to which forks are taken in at once (`GetAntiDoSWorkThreshold`).
const NEAR_TIP_BLOCKS: u128 = 144;

/// Checks what can be said of a message of headers alone: each has the work it claims, and is the
/// parent of the next.
///
/// # Errors
///
/// Returns what the peer did wrong.
pub fn check_headers_alone(headers: &[Header], params: &ChainParams) -> Result<(), &'static str> {
    let mut hashes = Vec::with_capacity(headers.len());
    for header in headers {
        let hash = header.block_hash();
        if check_work_of(&hash, header.bits, params).is_err() {
            return Err("header with invalid proof of work");
        }
        hashes.push(hash);
    }
    let mut linked = hashes.iter().zip(headers.iter().skip(1));
    if linked.all(|(parent, child)| child.prev_blockhash == *parent) {
        Ok(())
    } else {
        Err("non-continuous headers sequence")
    }
}

/// What the work of a message of headers is worth.
#[derive(Debug)]
pub enum HeadersWork {
    /// The parent of the first is not known.
    Unconnected,
    /// They may be stored: they are known, or their chain has enough work.
    Enough,
    /// Their chain is not worth storing, so far.
    Low {
        /// The known header that they begin from.
        start: ChainStart,
        /// How much would be enough.
        threshold: Work,
        /// Height of the last of them.
        height: u32,
    },
}

/// Judges headers that [`check_headers_alone`] passed; `tip` ends the connected chain.
#[must_use]
pub fn headers_work(
    tree: &HeaderTree,
    tip: HeaderRef,
    params: &ChainParams,
    headers: &[Header],
) -> HeadersWork {
    let start = headers.first().and_then(|first| tree.get(&first.prev_blockhash));
    let (Some(start), Some(last)) = (start, headers.last()) else {
        return HeadersWork::Unconnected;
    };
    // Known headers take no more memory.
    let known = tree.get(&last.block_hash());
    if known.is_some_and(|at| tree.is_ancestor(at, tree.best()) || tree.is_ancestor(at, tip)) {
        return HeadersWork::Enough;
    }
    let claimed = headers.iter().map(|header| block_work(header.bits));
    let work = claimed.fold(tree.entry(start).chain_work, |sum, work| sum + work);
    let threshold = work_threshold(tree, tip, params);
    if work >= threshold {
        return HeadersWork::Enough;
    }
    let count = u32::try_from(headers.len()).unwrap_or(u32::MAX);
    let height = tree.entry(start).height.saturating_add(count);
    HeadersWork::Low { start: ChainStart::new(tree, start), threshold, height }
}

/// Returns how much work a chain needs to be stored.
#[must_use]
pub fn work_threshold(tree: &HeaderTree, tip: HeaderRef, params: &ChainParams) -> Work {
    let entry = tree.entry(tip);
    let block = block_work(entry.header.bits);
    let near_tip = (0..NEAR_TIP_BLOCKS).try_fold(entry.chain_work, |left, _| {
        // Nothing is left: the chain is shorter.
        (left >= block).then(|| left - block)
    });
    near_tip.unwrap_or(params.minimum_chain_work).max(params.minimum_chain_work)
}

/// What came through.
#[must_use]
#[derive(Debug, Default)]
pub struct Passed {
    /// Headers to go on with.
    pub headers: Vec<Header>,
    /// Whether their chain is known to have enough work; if not, [`headers_work`] has to say.
    pub checked: bool,
    /// The locator of a request to send.
    pub ask: Option<Vec<BlockHash>>,
}

/// The gate of one peer.
#[derive(Debug, Default)]
pub struct LowWorkGate {
    sync: Option<Box<HeadersSync>>,
}

impl LowWorkGate {
    /// Takes a message of headers in, which [`check_headers_alone`] passed. If the chain is not
    /// the one that was expected, the headers go on as if there had been none.
    pub fn receive(&mut self, headers: Vec<Header>, full: bool) -> Passed {
        let Some(sync) = &mut self.sync else {
            return Passed { headers, checked: false, ask: None };
        };
        let done = sync.process(&headers, full);
        let ask = done.request_more.then(|| sync.locator());
        if sync.phase() == SyncPhase::Final {
            self.sync = None;
        }
        let headers = if done.success { done.headers } else { headers };
        Passed { headers, checked: done.success, ask }
    }

    /// Begins with a chain of little work; returns the locator of the next request.
    pub fn start(&mut self, sync: HeadersSync, headers: Vec<Header>) -> Option<Vec<BlockHash>> {
        self.sync = Some(Box::new(sync));
        self.receive(headers, true).ask
    }

    /// Gives up: the peer has no more headers.
    pub fn clear(&mut self) {
        self.sync = None;
    }

    /// Returns the sync that is under way.
    #[must_use]
    pub fn sync(&self) -> Option<&HeadersSync> {
        self.sync.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::headers::{HeadersSyncParams, Salt};
    use crate::params::Network;
    use crate::testing::mine_header;

    const MESSAGE: usize = 100;

    fn params(blocks_of_work: u8) -> Arc<ChainParams> {
        let mut params = ChainParams::new(Network::Regtest);
        let mut work = [0; 32];
        // Every header of regtest is worth two hashes.
        work[30..].copy_from_slice(&(u16::from(blocks_of_work) * 2).to_be_bytes());
        params.minimum_chain_work = Work::from_be_bytes(work);
        params.headers_sync =
            HeadersSyncParams { commitment_period: 7, redownload_buffer: 2 * MESSAGE };
        Arc::new(params)
    }

    fn mine(mut last: Header, count: usize, salt: u32) -> Vec<Header> {
        let mut headers = Vec::new();
        for _ in 0..count {
            last.prev_blockhash = last.block_hash();
            last.time += 600 + salt;
            mine_header(&mut last);
            headers.push(last);
        }
        headers
    }

    /// A node that has headers only, and one peer that answers its requests.
    struct Node {
        tree: HeaderTree,
        params: Arc<ChainParams>,
        gate: LowWorkGate,
        /// Most headers that the tree had before the minimum work was shown.
        messages: usize,
    }

    impl Node {
        fn new(params: Arc<ChainParams>) -> Self {
            let tree = HeaderTree::new(params.genesis.header);
            Self { tree, params, gate: LowWorkGate::default(), messages: 0 }
        }

        /// Syncs with a peer that shows `first`, and `second` when asked again from the start.
        fn sync(&mut self, first: &[Header], second: &[Header]) {
            let mut ask = Some(self.tree.locator(self.tree.best()));
            let mut redownload = false;
            while let Some(locator) = ask.take() {
                self.messages += 1;
                assert!(self.messages < 100, "it never ends");
                redownload |=
                    self.gate.sync().is_some_and(|sync| sync.phase() == SyncPhase::Redownload);
                let chain = if redownload { second } else { first };
                let after = |hash| chain.iter().position(|header| header.block_hash() == hash);
                let from = locator.iter().find_map(|&hash| after(hash)).map_or(0, |at| at + 1);
                let end = chain.len().min(from + MESSAGE);
                let message = chain[from..end].to_vec();
                if message.is_empty() {
                    self.gate.clear();
                    return;
                }
                ask = self.receive(message);
            }
        }

        fn receive(&mut self, headers: Vec<Header>) -> Option<Vec<BlockHash>> {
            let full = headers.len() == MESSAGE;
            assert_eq!(check_headers_alone(&headers, &self.params), Ok(()));
            let passed = self.gate.receive(headers, full);
            if passed.headers.is_empty() {
                return passed.ask;
            }
            let genesis = self.tree.genesis();
            if !passed.checked {
                match headers_work(&self.tree, genesis, &self.params, &passed.headers) {
                    HeadersWork::Unconnected => return None,
                    HeadersWork::Enough => {}
                    HeadersWork::Low { start, threshold, .. } if full => {
                        let salt = Salt { keys: [3, 4], offset: 5 };
                        let now = 1_767_225_600;
                        let sync = HeadersSync::new(&self.params, start, threshold, now, salt);
                        return self.gate.start(sync, passed.headers);
                    }
                    HeadersWork::Low { .. } => return None,
                }
            }
            for header in &passed.headers {
                let parent = self.tree.get(&header.prev_blockhash).expect("linked");
                self.tree.insert(header, header.block_hash(), parent).expect("room");
            }
            let more = full && self.gate.sync().is_none();
            passed.ask.or_else(|| more.then(|| self.tree.locator(self.tree.best())))
        }
    }

    /// Before that it was a flood of headers of the least difficulty (CVE-2024-52916).
    #[test]
    fn cve_2019_25220_cve_2024_52916_nothing_below_the_minimum_work_is_stored() {
        let genesis = params(0).genesis.header;
        for length in [1, 50, MESSAGE, MESSAGE + 1, 249, 250] {
            let mut node = Node::new(params(251));
            let chain = mine(genesis, length, 0);
            // 250 and the genesis block are 251 blocks of work.
            node.sync(&chain, &chain);
            let stored = if length == 250 { 251 } else { 1 };
            assert_eq!(node.tree.len(), stored, "{length} headers");
            assert!(node.gate.sync().is_none(), "{length} headers");
        }
    }

    #[test]
    fn cve_2019_25220_showing_one_chain_and_sending_another_stores_nothing() {
        let genesis = params(0).genesis.header;
        let mut node = Node::new(params(251));
        let honest = mine(genesis, 300, 0);
        let made_up = mine(genesis, 240, 1);
        node.sync(&honest, &made_up);
        // Of the chain sent, a buffer and seven headers a matched bit at most could have come
        // through; with this salt, none did.
        assert_eq!(node.tree.len(), 1);
    }

    #[test]
    fn a_chain_with_enough_work_is_stored_whole_and_goes_on_without_the_gate() {
        let genesis = params(0).genesis.header;
        let chain = mine(genesis, 555, 0);
        let mut node = Node::new(params(251));
        node.sync(&chain, &chain);
        assert_eq!(node.tree.len(), 556);
        // 3 messages to show the work, 3 again, and the rest as it comes.
        assert_eq!(node.messages, 9);
    }

    #[test]
    fn known_headers_and_forks_near_the_tip_pass_and_deeper_ones_do_not() {
        let params = params(0);
        let mut node = Node::new(Arc::clone(&params));
        let chain = mine(params.genesis.header, 200, 0);
        node.sync(&chain, &chain);
        let tip = node.tree.best();
        let work = |headers: &[Header]| headers_work(&node.tree, tip, &params, headers);
        assert!(matches!(work(&chain[3..5]), HeadersWork::Enough), "known");
        // The threshold is the work of 200 - 144 blocks above the genesis block.
        let near = mine(chain[54], 1, 1);
        assert!(matches!(work(&near), HeadersWork::Enough));
        let deep = mine(chain[53], 1, 1);
        let HeadersWork::Low { height, .. } = work(&deep) else { panic!("taken in") };
        assert_eq!(height, 55);
        assert!(matches!(work(&near[1..]), HeadersWork::Unconnected));
        assert!(matches!(work(&mine(deep[0], 2, 1)[1..]), HeadersWork::Unconnected));
        // A short chain has no 144 blocks to go back.
        let genesis = node.tree.genesis();
        assert_eq!(work_threshold(&node.tree, genesis, &params), params.minimum_chain_work);
    }

    #[test]
    fn headers_without_work_or_out_of_order_are_the_peers_fault() {
        let params = params(0);
        let mut chain = mine(params.genesis.header, 3, 0);
        assert_eq!(check_headers_alone(&chain, &params), Ok(()));
        assert_eq!(check_headers_alone(&[], &params), Ok(()));
        let lone = [chain[0], chain[2]];
        assert_eq!(check_headers_alone(&lone, &params), Err("non-continuous headers sequence"));
        chain[1].bits = bitcoin::CompactTarget::from_consensus(0x1d00_ffff);
        assert_eq!(check_headers_alone(&chain, &params), Err("header with invalid proof of work"));
    }
}
