//! `Pair`: Bitcoin Core and Cofferdam, given the same bytes in the same order, compared each time.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bitcoin::block::Header;
use bitcoin::hex::DisplayHex as _;
use bitcoin::{Block, BlockHash};
use cofferdam_ibd::{
    BlockAccepted, ChainParams, Chainstate, ChainstateOptions, Network, RejectionScope, UtxoHash,
};
use cofferdam_storage::BackendKind;
use cofferdam_tests::chain;

use crate::coin_set::{CoinSet, Summary};
use crate::kernel::Kernel;
use crate::verdict::{Accepted, Fault, Outcome};

/// What a [`Pair`] has been through.
#[derive(Clone, Default, Debug)]
pub(crate) struct Counts {
    /// Blocks delivered.
    pub(crate) blocks: u64,
    /// And those whose parent was not known.
    pub(crate) early: u64,
    /// Transactions in the blocks.
    pub(crate) transactions: u64,
    /// Headers delivered on their own.
    pub(crate) headers: u64,
    /// Deliveries after which the tip was not a descendant of the one before.
    pub(crate) reorganisations: u64,
    /// Times that the whole UTXO set was compared.
    pub(crate) sets: u64,
    /// Times that its size and `MuHash` were: after every step that moved the tip.
    pub(crate) muhashes: u64,
    /// Times that our side was closed and opened again.
    pub(crate) restarts: u64,
    /// Blocks that were found bad, by reason.
    pub(crate) faults: BTreeMap<String, u64>,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.blocks += other.blocks;
        self.early += other.early;
        self.transactions += other.transactions;
        self.headers += other.headers;
        self.reorganisations += other.reorganisations;
        self.sets += other.sets;
        self.muhashes += other.muhashes;
        self.restarts += other.restarts;
        for (reason, count) in other.faults {
            *self.faults.entry(reason).or_default() += count;
        }
    }
}

impl Counts {
    #[expect(clippy::print_stdout, reason = "a test that passes says what it has seen")]
    pub(crate) fn print(&self, label: &str) {
        println!("{label}: {self:#?}");
    }
}

/// Bitcoin Core and Cofferdam on the same network, from the genesis block on.
pub(crate) struct Pair {
    /// Always there, but while it is opened again.
    ours: Option<Chainstate>,
    params: Arc<ChainParams>,
    backend: BackendKind,
    core: Kernel,
    coins: CoinSet,
    pub(crate) counts: Counts,
    /// Said in every failure: what repeats it.
    label: String,
    dir: tempfile::TempDir,
}

impl Pair {
    pub(crate) fn open(network: Network, label: impl Into<String>) -> Self {
        Self::open_params(ChainParams::new(network), label)
    }

    pub(crate) fn open_params(params: ChainParams, label: impl Into<String>) -> Self {
        Self::open_on(params, BackendKind::Memory, label)
    }

    /// Opens with our side on an engine that survives [`Pair::restart`].
    pub(crate) fn open_on(
        params: ChainParams,
        backend: BackendKind,
        label: impl Into<String>,
    ) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let params = Arc::new(params);
        Self {
            ours: Some(open_ours(&params, backend, dir.path())),
            backend,
            core: Kernel::open(&params, &dir.path().join("core")),
            params,
            coins: CoinSet::new(),
            counts: Counts::default(),
            label: label.into(),
            dir,
        }
    }

    /// Closes our side and opens it again, while Core goes on: all that matters was kept.
    pub(crate) fn restart(&mut self) {
        self.ours.take().expect("open").shutdown().expect("closes");
        self.ours = Some(open_ours(&self.params, self.backend, self.dir.path()));
        self.counts.restarts += 1;
        self.tip();
    }

    const fn ours(&self) -> &Chainstate {
        self.ours.as_ref().expect("open")
    }

    const fn ours_mut(&mut self) -> &mut Chainstate {
        self.ours.as_mut().expect("open")
    }

    /// Gives both a block's bytes; returns what ours did and what Core did.
    pub(crate) fn compare(&mut self, raw: &[u8]) -> (Outcome, Outcome) {
        let core = self.core.deliver(raw);
        (deliver(self.ours_mut(), raw), core)
    }

    /// Gives both a block's bytes; both do the same, or this panics.
    #[track_caller]
    pub(crate) fn deliver(&mut self, raw: &[u8]) -> Outcome {
        let before = self.core.tip();
        let (ours, core) = self.compare(raw);
        assert_eq!(ours, core, "{}: left ours, right Core's, of {}", self.label, short(raw));
        let tip = self.tip();
        assert!(tip.0 >= before.0 || core.connected > 0, "{}: fell to {tip:?}", self.label);
        self.count(raw, &core, before.1);
        if tip != before {
            self.check_muhash();
        }
        core
    }

    /// Gives both a block's bytes, of which Core makes all it can, while our side only stores the
    /// block: what of it is connected when is for [`Pair::advance`] and [`Pair::settle`]. So only
    /// tips and UTXO sets can be compared, then and later on: our side may have stored descendants
    /// of a block that Core knew to be bad. Returns what Core did.
    pub(crate) fn store(&mut self, raw: &[u8]) -> Outcome {
        let before = self.core.tip();
        let core = self.core.deliver(raw);
        let _ = self.ours_mut().accept_block(raw.to_vec(), now()).expect("the machine works");
        self.count(raw, &core, before.1);
        core
    }

    /// The same for a header.
    pub(crate) fn store_header(&mut self, header: &Header) {
        let _ = self.core.deliver_header(header);
        let _ = self.ours_mut().accept_headers(&[*header], now()).expect("the machine works");
    }

    /// Lets our side connect as little as it can at a time.
    pub(crate) fn advance(&mut self) {
        let _ = self.ours_mut().advance(Instant::now()).expect("the machine works");
    }

    /// Lets our side connect all that is stored: it has to end where Core is.
    #[track_caller]
    pub(crate) fn settle(&mut self) {
        assert!(chain::advance(self.ours_mut()).done);
        self.tip();
    }

    fn count(&mut self, raw: &[u8], core: &Outcome, tip_before: BlockHash) {
        if !self.core.is_active(&tip_before) {
            self.counts.reorganisations += 1;
        }
        let missing = |fault: &Fault| fault.scope == RejectionScope::MissingPrev;
        if core.fault().is_some_and(missing) {
            self.counts.early += 1;
            return;
        }
        self.counts.blocks += 1;
        if let Ok(block) = bitcoin::consensus::deserialize::<Block>(raw) {
            self.counts.transactions += block.txdata.len() as u64;
        }
        let own = match &core.accepted {
            Accepted::Rejected(fault) => Some(fault),
            _ => None,
        };
        for fault in own.into_iter().chain(core.invalid.iter().map(|(_, fault)| fault)) {
            *self.counts.faults.entry(fault.reason.clone()).or_default() += 1;
        }
    }

    /// Gives both a header; both do the same, or this panics.
    #[track_caller]
    pub(crate) fn deliver_header(&mut self, header: &Header) -> Result<(), Fault> {
        let core = self.core.deliver_header(header);
        let ours = self.ours_mut().accept_headers(&[*header], now()).expect("the machine works");
        let ours = ours.map(|_| ()).map_err(|rejection| Fault::from(&rejection));
        assert_eq!(ours, core, "{}: left ours, right Core's, of {header:?}", self.label);
        self.counts.headers += 1;
        core
    }

    /// The tip, which both have.
    #[track_caller]
    pub(crate) fn tip(&self) -> (u32, BlockHash) {
        let (ours, core) = (self.ours().tip(), self.core.tip());
        assert_eq!((ours.height, ours.hash), core, "{}: tips, left ours", self.label);
        core
    }

    /// Compares the hashes of the UTXO sets that both sides keep from block to block: ours the product's
    /// own, Core's by the blocks and undo data that it has on its disk.
    #[track_caller]
    fn check_muhash(&mut self) {
        self.coins.follow(&self.core);
        let tip = self.tip();
        let kept = self.ours().coin_stats(&tip.1).expect("readable").expect("kept");
        let ours = (kept.muhash.to_string(), kept.txouts);
        assert_eq!(ours, self.coins.muhash(), "{}: at {tip:?}, left ours", self.label);
        self.counts.muhashes += 1;
    }

    /// Compares the UTXO sets.
    #[track_caller]
    pub(crate) fn check_coins(&mut self) -> Summary {
        self.coins.follow(&self.core);
        let core = self.coins.summary();
        let stats = self.ours().utxo_stats(UtxoHash::Serialized3).expect("the set can be read");
        let ours = Summary {
            coins: stats.txouts,
            amount: stats.total_amount,
            hash_serialized_3: stats.hash_serialized_3.expect("asked for").to_string(),
        };
        assert_eq!(ours, core, "{}: UTXO sets at {:?}, left ours", self.label, self.tip());
        self.counts.sets += 1;
        core
    }

    /// Prints what it has been through.
    pub(crate) fn print_counts(&self) {
        self.counts.print(&self.label);
    }

    /// Sets what is said in every failure.
    pub(crate) fn set_label(&mut self, label: impl Into<String>) {
        self.label = label.into();
    }

    pub(crate) fn label(&self) -> &str {
        &self.label
    }
}

fn open_ours(params: &Arc<ChainParams>, backend: BackendKind, dir: &Path) -> Chainstate {
    let options = chain::options(params.network, &dir.join("ours"));
    let params = Arc::clone(params);
    chain::open_with(ChainstateOptions { params, coin_stats: true, ..options }, backend)
}

fn deliver(chainstate: &mut Chainstate, raw: &[u8]) -> Outcome {
    let accepted = match chainstate.accept_block(raw.to_vec(), now()).expect("the machine works") {
        BlockAccepted::Stored(_) => Accepted::Stored,
        BlockAccepted::Duplicate(_) => Accepted::Duplicate,
        BlockAccepted::Rejected(rejection) => Accepted::Rejected(Fault::from(&rejection)),
    };
    let advance = chain::advance(chainstate);
    assert!(advance.done);
    let invalid = advance.invalid.iter().map(|(hash, rejection)| (*hash, Fault::from(rejection)));
    Outcome { accepted, connected: advance.connected, invalid: invalid.collect() }
}

/// Seconds since 1970: Core reads the wall clock, so both have to.
#[expect(clippy::disallowed_methods, reason = "Core reads the wall clock and cannot be told")]
pub(crate) fn now() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u32::try_from(since.as_secs()).expect("before 2106")
}

/// The bytes of a block for a message: all if they are few.
fn short(raw: &[u8]) -> String {
    const BYTES_MAX: usize = 4_000;
    let hex = raw[..raw.len().min(BYTES_MAX)].to_lower_hex_string();
    format!("{} bytes {hex}{}", raw.len(), if raw.len() > BYTES_MAX { ".." } else { "" })
}
