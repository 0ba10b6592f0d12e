//! The batches that a worker writes, derived from a seed and a number, so that whoever knows both
//! knows the state after any of them.

use cofferdam_storage::testing::{Model, Random};
use cofferdam_storage::{Batch, Tip, Tree};

/// Rows that are made once and die once, as coins do.
pub(crate) const COINS: Tree = Tree { id: 1, name: "coins" };
/// A few rows that are overwritten and deleted again and again.
pub(crate) const INDEX: Tree = Tree { id: 2, name: "index" };
/// One row a batch: which batches are there, for stores that keep no count of their own.
pub(crate) const MARKS: Tree = Tree { id: 3, name: "marks" };
pub(crate) const TREES: [Tree; 3] = [COINS, INDEX, MARKS];

/// After how many batches a batch's coins are deleted. Those of one batch cancel out in memory,
/// those of hundreds are in the engine by then; the last coin stays.
const LIVES: [u64; 8] = [1, 1, 2, 5, 20, 60, 200, u64::MAX];
/// Small, so that a row of it is written by many batches.
const INDEX_ROWS: usize = 200;
/// One coin in so many has a value of several pages.
const LARGE_VALUE_ONE_IN: usize = 40;

/// Batches `1, 2, ...` of one seed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chain {
    pub(crate) seed: u64,
}

impl Chain {
    fn random(self, number: u64, purpose: u64) -> Random {
        let mut random = Random::new(self.seed ^ number.rotate_left(17) ^ (purpose << 56));
        // Neighbouring seeds give neighbouring first states.
        Random::new(random.next())
    }

    fn coin_key(self, number: u64, coin: usize) -> Vec<u8> {
        let mut key = self.random(number, 1).bytes(32);
        key.push(u8::try_from(coin).expect("as many as LIVES"));
        key
    }

    /// The tip after batch `number`; none before the first.
    pub(crate) fn tip(self, number: u64) -> Option<Tip> {
        let height = u32::try_from(number.checked_sub(1)?).expect("a short chain");
        let hash = self.random(number, 2).bytes(32).try_into().expect("32 bytes");
        Some(Tip { height, hash })
    }

    /// Batch `number`, from 1 on.
    pub(crate) fn batch(self, number: u64) -> Batch {
        let mut random = self.random(number, 3);
        let mut batch = Batch::new();
        for (coin, life) in LIVES.into_iter().enumerate() {
            let large = random.one_in(LARGE_VALUE_ONE_IN);
            let len = if large { 5_000 + random.below(15_000) } else { 20 + random.below(100) };
            batch.put_new(COINS, &self.coin_key(number, coin), &random.bytes(len));
            if let Some(born) = number.checked_sub(life).filter(|born| *born > 0) {
                batch.delete(COINS, &self.coin_key(born, coin));
            }
        }
        for _ in 0..4 {
            let row = u32::try_from(random.below(INDEX_ROWS)).expect("small").to_be_bytes();
            if random.one_in(4) {
                batch.delete(INDEX, &row);
            } else {
                let len = random.below(60);
                batch.put(INDEX, &row, &random.bytes(len));
            }
        }
        batch.put_new(MARKS, &number.to_be_bytes(), &[]);
        batch
    }

    /// The state after the given batches, in their order.
    pub(crate) fn state(self, numbers: impl IntoIterator<Item = u64>) -> Model {
        let mut model = Model::default();
        numbers.into_iter().for_each(|number| model.apply(&self.batch(number)));
        model
    }
}
