//! `Filter`: which keys a run certainly does not have (a blocked Bloom filter: Putze, Sanders and
//! Singler, "Cache-, Hash- and Space-Efficient Bloom Filters", 2007).
//!
//! A key sets [`PROBES`] bits, all in one line of 64 bytes, so that asking costs one miss of the
//! processor's cache. With ten bits a key about one absent key in eighty passes.

/// Memory for a key.
const BITS_PER_KEY: usize = 10;
/// Bits that a key sets.
const PROBES: u32 = 6;
/// A line of the processor's cache.
pub(super) const LINE_BYTES: usize = 64;
/// Lines of a set that may have fewer keys than was thought are a multiple of this, which has many
/// divisors ...
const FOLD_LINES: usize = 60;
/// ... if there are so many that rounding up matters little.
const FOLDABLE_LINES_MIN: usize = 32 * FOLD_LINES;
/// Bits of a position within a line.
const POSITION_BITS: u32 = 9;

/// An odd number without pattern: the golden ratio.
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

/// The hash of a key. Part of the stored format, unlike those of tables in memory.
pub(super) fn key_hash(seed: u64, tree_id: u8, key: &[u8]) -> u64 {
    let len = u64::try_from(key.len()).unwrap_or(u64::MAX);
    let mut hash = seed ^ (u64::from(tree_id) << 32) ^ len;
    let (words, rest) = key.as_chunks::<8>();
    for word in words {
        hash = fold(hash ^ u64::from_le_bytes(*word));
    }
    let mut last = [0; 8];
    last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    fold(fold(hash ^ u64::from_le_bytes(last)))
}

/// The halves of a product, one over the other; what makes both factors zero is not lost.
fn fold(value: u64) -> u64 {
    let product = (u128::from(value) * u128::from(MIX)).to_le_bytes();
    let (halves, _) = product.as_chunks::<8>();
    halves.iter().fold(value.rotate_left(32), |sum, half| sum ^ u64::from_le_bytes(*half))
}

/// Keys that are added together: their lines are in no cache, and the processor fetches several at
/// once if nothing stands in between.
const GROUP: usize = 64;

/// A set of keys that says "no" or "perhaps".
#[derive(Debug, Default)]
pub(super) struct Filter {
    lines: Vec<[u8; LINE_BYTES]>,
}

/// A set that is being made.
#[derive(Debug)]
pub(super) struct FilterBuilder {
    filter: Filter,
    keys: usize,
    /// Hashes of keys that are not yet in it, fewer than [`GROUP`].
    waiting: Vec<u64>,
}

/// The lines of a set of so many keys.
fn lines_for(keys: usize) -> usize {
    keys.saturating_mul(BITS_PER_KEY).div_ceil(8 * LINE_BYTES).max(1)
}

/// So many keys or a few more, so that a set made for them can be folded to about the size that it
/// turns out to need.
pub(super) fn foldable_keys(keys: usize) -> usize {
    let lines = lines_for(keys);
    if lines < FOLDABLE_LINES_MIN {
        return keys;
    }
    lines.next_multiple_of(FOLD_LINES).saturating_mul(8 * LINE_BYTES) / BITS_PER_KEY
}

impl FilterBuilder {
    /// An empty set with room for so many keys.
    pub(super) fn for_keys(keys: usize) -> Self {
        let filter = Filter::of_lines(lines_for(keys));
        Self { filter, keys: 0, waiting: Vec::with_capacity(GROUP) }
    }

    /// Adds a key by its hash.
    pub(super) fn add(&mut self, hash: u64) {
        self.keys += 1;
        self.waiting.push(hash);
        if self.waiting.len() == GROUP {
            self.add_waiting();
        }
    }

    /// The set of all that were added, with no more lines than they need, as far as the number of
    /// lines can be divided.
    pub(super) fn finish(mut self) -> Filter {
        self.add_waiting();
        let (lines, needed) = (self.filter.lines(), lines_for(self.keys));
        let fits = |by: &usize| lines.is_multiple_of(*by) && lines / *by >= needed;
        self.filter.fold((1..=FOLD_LINES).rev().find(fits).unwrap_or(1));
        self.filter
    }

    fn add_waiting(&mut self) {
        for hash in self.waiting.drain(..) {
            self.filter.add(hash);
        }
    }
}

impl Filter {
    /// An empty set of so many lines.
    pub(super) fn of_lines(lines: usize) -> Self {
        Self { lines: vec![[0; LINE_BYTES]; lines] }
    }

    /// Its bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        self.lines.as_flattened()
    }

    /// Its bytes, to be read into.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        self.lines.as_flattened_mut()
    }

    /// The number of its lines.
    pub(super) const fn lines(&self) -> usize {
        self.lines.len()
    }

    fn add(&mut self, hash: u64) {
        let at = self.line_of(hash);
        if let Some(line) = self.lines.get_mut(at) {
            for (byte, mask) in positions(hash) {
                if let Some(byte) = line.get_mut(byte) {
                    *byte |= mask;
                }
            }
        }
    }

    /// Makes one line of each `by`, a divisor of their number: that line has a key's bits where
    /// [`Self::line_of`] looks for them, since `floor(floor(x * by) / by) = floor(x)`.
    fn fold(&mut self, by: usize) {
        if by <= 1 {
            return;
        }
        let lines = self.lines.len() / by;
        for to in 0..lines {
            let mut folded = [0; LINE_BYTES];
            for line in self.lines.get(to * by..(to + 1) * by).unwrap_or_default() {
                folded.iter_mut().zip(line).for_each(|(to, from)| *to |= from);
            }
            if let Some(line) = self.lines.get_mut(to) {
                *line = folded;
            }
        }
        self.lines.truncate(lines);
        self.lines.shrink_to_fit();
    }

    /// Whether a key may be in the set.
    pub(super) fn may_have(&self, hash: u64) -> bool {
        let Some(line) = self.lines.get(self.line_of(hash)) else {
            return false;
        };
        positions(hash).all(|(byte, mask)| line.get(byte).is_some_and(|byte| byte & mask != 0))
    }

    /// The upper half of the hash chooses the line.
    fn line_of(&self, hash: u64) -> usize {
        let lines = u64::try_from(self.lines.len()).unwrap_or(u64::MAX);
        usize::try_from(((hash >> 32) * lines) >> 32).unwrap_or(usize::MAX)
    }
}

/// The bits of a key within its line, as byte and mask; the lower half of the hash chooses them.
fn positions(hash: u64) -> impl Iterator<Item = (usize, u8)> {
    let bits = (hash & 0xffff_ffff).wrapping_mul(MIX);
    (0..PROBES).map(move |probe| {
        let position = (bits >> (64 - POSITION_BITS * (probe + 1))) & ((1 << POSITION_BITS) - 1);
        (usize::try_from(position >> 3).unwrap_or(0), 1 << (position & 7))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_added_passes_and_few_others_do() {
        let keys = 50_000_u64;
        let hash = |n: u64| key_hash(7, 1, &n.to_be_bytes().repeat(4));
        let mut filter = FilterBuilder::for_keys(50_000);
        (0..keys).for_each(|n| filter.add(hash(n)));
        let filter = filter.finish();
        assert!((0..keys).all(|n| filter.may_have(hash(n))));
        let others = (keys..2 * keys).filter(|n| filter.may_have(hash(*n))).count();
        assert!((100..1500).contains(&others), "{others} of 50,000");
    }

    fn set(keys_max: usize, keys: u64) -> Filter {
        let mut filter = FilterBuilder::for_keys(keys_max);
        (0..keys).for_each(|n| filter.add(key_hash(7, 1, &n.to_le_bytes())));
        filter.finish()
    }

    /// How many of 100,000 absent keys pass.
    fn passing(filter: &Filter) -> usize {
        let others = 1_u64 << 40..(1 << 40) + 100_000;
        others.filter(|n| filter.may_have(key_hash(7, 1, &n.to_le_bytes()))).count()
    }

    #[test]
    fn a_set_of_fewer_keys_than_thought_is_as_small_and_as_sharp_as_one_of_their_number() {
        let keys = 60_000;
        let exact = set(60_000, keys);
        for (thought, by) in [(120_500, 2), (210_000, 3), (240_500, 4), (2_000_000, 30)] {
            let folded = set(foldable_keys(thought), keys);
            assert_eq!(folded.lines(), lines_for(foldable_keys(thought)) / by, "{thought}");
            assert!((exact.lines()..exact.lines() * 4 / 3).contains(&folded.lines()));
            let hash = |n: u64| key_hash(7, 1, &n.to_le_bytes());
            assert!((0..keys).all(|n| folded.may_have(hash(n))), "{thought}");
            let (folded, exact) = (passing(&folded), passing(&exact));
            assert!(folded <= exact * 21 / 20, "{thought}: {folded}, {exact}");
        }
    }

    #[test]
    fn a_set_of_the_number_that_was_thought_stays_as_it_is() {
        for keys in [0_usize, 1, 1000, 100_000, 123_457] {
            let lines = (10 * keys).div_ceil(512).max(1);
            assert_eq!(set(keys, u64::try_from(keys).unwrap()).lines(), lines);
            assert!(lines_for(foldable_keys(keys)) <= lines + lines / 32 + 1);
        }
    }

    #[test]
    fn tree_seed_length_and_every_byte_count() {
        let key = [0; 36];
        let mut all = vec![key_hash(1, 1, &key), key_hash(2, 1, &key), key_hash(1, 2, &key)];
        all.push(key_hash(1, 1, &key[..35]));
        for at in 0..36 {
            let mut other = key;
            other[at] = 1;
            all.push(key_hash(1, 1, &other));
        }
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 40);
    }
}
