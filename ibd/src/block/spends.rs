//! `Spends`: where the coin of each input of a block comes from, found without looking at any coin.
//!
//! An input that spends an output of a transaction before it in the block never asks the table of
//! coins. All others do: also one that names a transaction behind it, since the same id may be
//! that of an older coin (BIP-0030).

use std::hash::BuildHasher as _;

use bitcoin::Txid;
use bitcoin::hashes::Hash as _;
use hashbrown::{DefaultHashBuilder, HashTable};

use crate::coin::OUTPOINT_KEY_LEN;
use crate::wire::{InputRef, Transactions, TxRef};

/// Marks a coin from before the block. (Outputs of a block are fewer.)
const EXTERNAL: u32 = u32::MAX;
/// Marks a coin that an input before spends.
const REPEATED: u32 = u32::MAX - 1;

/// Where an input's coin comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Source {
    /// The output with this index among those of the block.
    Own(usize),
    /// The coins from before the block.
    External,
    /// Nowhere: an input before spends the same.
    Repeated,
}

/// Where the coins of a block's inputs come from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spends {
    /// For each input after the coinbase's, in order.
    sources: Vec<u32>,
    /// Keys of the coins from before the block, in the order of the inputs that spend them.
    keys: Vec<[u8; OUTPOINT_KEY_LEN]>,
    repeats: bool,
}

impl Spends {
    /// Returns the sources of all inputs after the coinbase's, in order.
    pub(crate) fn sources(&self) -> impl ExactSizeIterator<Item = Source> + '_ {
        self.sources.iter().map(|&source| match source {
            EXTERNAL => Source::External,
            REPEATED => Source::Repeated,
            output => Source::Own(output as usize),
        })
    }

    /// Returns whether any coin is spent twice. (The coinbase spends none, and every other
    /// transaction has inputs of its own: so no transaction spends one twice if this is false.)
    pub(super) const fn repeats(&self) -> bool {
        self.repeats
    }

    /// Returns the keys of the coins from before the block, in the order of the inputs.
    pub(crate) fn external_keys(&self) -> &[[u8; OUTPOINT_KEY_LEN]] {
        &self.keys
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.sources.capacity() * size_of::<u32>() + self.keys.capacity() * OUTPOINT_KEY_LEN
    }
}

/// Finds the sources of a block's inputs; `txids` are the ids of its transactions.
pub(super) fn resolve_spends(block: &Transactions, txids: &[Txid]) -> Spends {
    let inputs = block.input_count();
    let mut outpoints = Vec::with_capacity(inputs);
    outpoints.extend(block.iter().skip(1).flat_map(TxRef::inputs).map(InputRef::outpoint_bytes));
    let hasher = DefaultHashBuilder::default();
    let mut ids = FirstOf::new(txids.len(), &hasher);
    for txid in txids {
        ids.insert(txid.as_byte_array(), |at| txids.get(at).map(|txid| txid.as_byte_array()));
    }
    let mut seen = FirstOf::new(outpoints.len(), &hasher);
    let mut spends = Spends {
        sources: Vec::with_capacity(inputs),
        keys: Vec::with_capacity(inputs),
        repeats: false,
    };
    for (at, tx) in block.iter().enumerate().skip(1) {
        for input in tx.inputs() {
            if !seen.insert(input.outpoint_bytes(), |at| outpoints.get(at).copied()) {
                spends.sources.push(REPEATED);
                spends.repeats = true;
                continue;
            }
            let (txid, vout) = input.txid_and_vout();
            let found = ids.get(txid, |at| txids.get(at).map(|txid| txid.as_byte_array()));
            let before = found.filter(|&found| found < at);
            let source = before.and_then(|found| output_index(block, found, vout));
            if source.is_none() {
                spends.keys.push(input_key(input));
            }
            spends.sources.push(source.unwrap_or(EXTERNAL));
        }
    }
    spends
}

/// The key of the spent coin: as [`outpoint_key`](crate::coin::outpoint_key) makes it.
fn input_key(input: InputRef<'_>) -> [u8; OUTPOINT_KEY_LEN] {
    let mut key = *input.outpoint_bytes();
    if let Some(vout) = key.last_chunk_mut::<4>() {
        vout.reverse();
    }
    key
}

/// The index of an output among those of the block; `None` if the transaction has none such.
fn output_index(block: &Transactions, tx: usize, vout: u32) -> Option<u32> {
    let tx = block.get(tx)?;
    let vout = usize::try_from(vout).ok().filter(|&vout| vout < tx.output_count())?;
    u32::try_from(tx.first_output() + vout).ok()
}

/// Finds the first of a row of keys that is equal to another, by its index.
///
/// The hash is keyed anew for each block, so that nobody can make one whose keys collide.
struct FirstOf<'a> {
    slots: HashTable<u32>,
    hasher: &'a DefaultHashBuilder,
    len: u32,
}

impl<'a> FirstOf<'a> {
    fn new(capacity: usize, hasher: &'a DefaultHashBuilder) -> Self {
        Self { slots: HashTable::with_capacity(capacity), hasher, len: 0 }
    }

    /// Adds the next key of the row, which `key_at` gives; returns whether it is the first.
    fn insert<'k, const N: usize>(
        &mut self,
        key: &[u8; N],
        key_at: impl Fn(usize) -> Option<&'k [u8; N]>,
    ) -> bool {
        let at = self.len;
        self.len += 1;
        if self.get(key, &key_at).is_some() {
            return false;
        }
        let hasher = self.hasher;
        let rehash = |slot: &u32| hasher.hash_one(key_at(*slot as usize).map(<[u8; N]>::as_slice));
        self.slots.insert_unique(hasher.hash_one(Some(key.as_slice())), at, rehash);
        true
    }

    fn get<'k, const N: usize>(
        &self,
        key: &[u8; N],
        key_at: impl Fn(usize) -> Option<&'k [u8; N]>,
    ) -> Option<usize> {
        let hash = self.hasher.hash_one(Some(key.as_slice()));
        let found = self.slots.find(hash, |slot| key_at(*slot as usize) == Some(key));
        found.map(|slot| *slot as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coin::outpoint_key;
    use crate::testing::{block, checked, coinbase, outpoint, payment};
    use bitcoin::OutPoint;

    #[test]
    fn a_coin_of_the_block_is_one_of_a_transaction_before() {
        let own = payment(&[outpoint(1)], &[1, 2]);
        let later = payment(&[outpoint(9)], &[3]);
        let of = |tx: &bitcoin::Transaction, vout| OutPoint::new(tx.compute_txid(), vout);
        let spends = [of(&own, 1), of(&own, 2), of(&later, 0), outpoint(5)];
        let first = coinbase(1, 50);
        let spender = payment(&spends, &[1]);
        let again = payment(&[outpoint(5), spends[0], outpoint(6)], &[1]);
        let checked = checked(&block(vec![first, own, spender, later, again]));
        // Outputs: 0 of the coinbase, 1 and 2 of `own`. There is no output 2 of it, and `later` is
        // behind the spender.
        let sources: Vec<Source> = checked.spends.sources().collect();
        let (e, o, r) = (Source::External, Source::Own, Source::Repeated);
        assert_eq!(sources, [e, o(2), e, e, e, e, r, r, e]);
        let keys = [outpoint(1), spends[1], spends[2], outpoint(5), outpoint(9), outpoint(6)];
        assert_eq!(checked.spends.external_keys(), keys.each_ref().map(outpoint_key));
    }
}
