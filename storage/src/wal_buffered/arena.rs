//! `Arena`: the bytes of a memtable's entries, addressed by 32-bit handles.
//!
//! Entries lie in large chunks, on multiples of eight bytes:
//!
//! ```text
//! state u8 | 0 | key length u16 | value length u32 | key | value | padding
//! ```
//!
//! A handle is `chunk << 17 | unit`, a unit being eight bytes of the chunk: 2^15 chunks of 1 MiB
//! can be addressed. Freed entries of up to [`REUSED_UNITS_MAX`] units are used again for entries
//! of the same number of units, so that keys which live shortly take no new memory.

use std::mem::size_of;

/// Eight bytes: the alignment and the unit of size.
const UNIT_BYTES: usize = 8;
const HEADER_BYTES: usize = 8;
/// The full size of a chunk.
const CHUNK_BYTES: usize = 1 << 20;
/// The first chunks are smaller, so that a small table is small.
const FIRST_CHUNK_BYTES: usize = 1 << 12;
const UNIT_BITS: u32 = 17;
/// The largest entry that is used again when freed: 512 bytes, far above a usual entry.
const REUSED_UNITS_MAX: usize = 64;

/// What the processor reads at once from memory.
const CACHE_LINE_BYTES: usize = 64;

/// The most bytes that handles can address, less room for the last batch.
pub(crate) const ARENA_BYTES_MAX: usize = 28 << 30;

/// Where an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Handle(u32);

impl Handle {
    fn new(chunk: usize, unit: usize) -> Self {
        let chunk = u32::try_from(chunk).ok().filter(|chunk| *chunk < 1 << (32 - UNIT_BITS));
        let unit = u32::try_from(unit).ok().filter(|unit| *unit < 1 << UNIT_BITS);
        let handle = chunk.zip(unit).map(|(chunk, unit)| chunk << UNIT_BITS | unit);
        Self(handle.expect("an arena is frozen before it has ARENA_BYTES_MAX bytes"))
    }

    fn locate(self) -> (usize, usize) {
        let chunk = usize::try_from(self.0 >> UNIT_BITS).unwrap_or(usize::MAX);
        let unit = usize::try_from(self.0 & ((1 << UNIT_BITS) - 1)).unwrap_or(usize::MAX);
        (chunk, unit * UNIT_BYTES)
    }
}

/// An entry, read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stored<'a> {
    /// The caller's state code.
    pub(crate) state: u8,
    /// The key.
    pub(crate) key: &'a [u8],
    /// The value.
    pub(crate) value: &'a [u8],
}

/// Entries by handle.
#[derive(Debug, Default)]
pub(crate) struct Arena {
    chunks: Vec<Box<[u8]>>,
    /// The first free byte of the last chunk.
    tail: usize,
    /// Freed entries by their number of units.
    free: Vec<Vec<Handle>>,
    chunk_bytes: usize,
}

impl Arena {
    /// Memory held, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let free: usize = self.free.iter().map(Vec::capacity).sum();
        self.chunk_bytes + free * size_of::<Handle>()
    }

    /// The most memory that storing entries of that many bytes in all can take. What does not fit
    /// into the rest of a chunk leaves it unused: that is less than the entry itself.
    pub(crate) fn growth(&self, entry_bytes: usize) -> usize {
        let room = self.chunks.last().map_or(0, |chunk| chunk.len().saturating_sub(self.tail));
        if entry_bytes <= room { 0 } else { 2 * entry_bytes + self.next_chunk_bytes() }
    }

    /// Stores an entry.
    pub(crate) fn insert(&mut self, state: u8, key: &[u8], value: &[u8]) -> Handle {
        let units = units(key.len(), value.len());
        let freed = self.free.get_mut(units).and_then(Vec::pop);
        let handle = freed.unwrap_or_else(|| self.grow(units));
        self.write(handle, state, key, value);
        handle
    }

    /// Gives an entry another state and value; it may move.
    pub(crate) fn replace(
        &mut self,
        handle: Handle,
        state: u8,
        key: &[u8],
        value: &[u8],
    ) -> Handle {
        let before = self.get(handle);
        if units(before.key.len(), before.value.len()) == units(key.len(), value.len()) {
            self.write(handle, state, key, value);
            return handle;
        }
        self.remove(handle);
        self.insert(state, key, value)
    }

    /// Frees an entry.
    pub(crate) fn remove(&mut self, handle: Handle) {
        let before = self.get(handle);
        let units = units(before.key.len(), before.value.len());
        if units <= REUSED_UNITS_MAX {
            if self.free.is_empty() {
                self.free.resize_with(REUSED_UNITS_MAX + 1, Vec::new);
            }
            if let Some(free) = self.free.get_mut(units) {
                free.push(handle);
            }
        }
    }

    /// Reads an entry.
    pub(crate) fn get(&self, handle: Handle) -> Stored<'_> {
        let (chunk, at) = handle.locate();
        self.chunks
            .get(chunk)
            .and_then(|chunk| parse(chunk.get(at..)?))
            .expect("a handle comes from this arena's insert")
    }

    /// Reads a byte of each of the first two cache lines of an entry: keys and coins need no more.
    pub(crate) fn touch(&self, handle: Handle) -> u8 {
        let (chunk, at) = handle.locate();
        let Some(chunk) = self.chunks.get(chunk) else {
            return 0;
        };
        let byte = |at: usize| chunk.get(at).copied().unwrap_or_default();
        byte(at) ^ byte(at + CACHE_LINE_BYTES)
    }

    fn write(&mut self, handle: Handle, state: u8, key: &[u8], value: &[u8]) {
        let (chunk, at) = handle.locate();
        let size = HEADER_BYTES + key.len() + value.len();
        let entry = self.chunks.get_mut(chunk).and_then(|chunk| chunk.get_mut(at..at + size));
        let entry = entry.expect("insert made room for the entry");
        let key_len = u16::try_from(key.len()).expect("a batch bounds keys to 16 bits");
        let value_len = u32::try_from(value.len()).expect("a batch bounds values to 32 bits");
        let (header, rest) = entry.split_at_mut(HEADER_BYTES);
        let [key_low, key_high] = key_len.to_le_bytes();
        let [v0, v1, v2, v3] = value_len.to_le_bytes();
        header.copy_from_slice(&[state, 0, key_low, key_high, v0, v1, v2, v3]);
        let (key_to, value_to) = rest.split_at_mut(key.len());
        key_to.copy_from_slice(key);
        value_to.copy_from_slice(value);
    }

    fn next_chunk_bytes(&self) -> usize {
        CHUNK_BYTES.min(FIRST_CHUNK_BYTES << self.chunks.len().min(16))
    }

    /// Takes `units` new units at the end.
    fn grow(&mut self, units: usize) -> Handle {
        let size = units * UNIT_BYTES;
        let room = self.chunks.last().map_or(0, |chunk| chunk.len().saturating_sub(self.tail));
        if room < size {
            let chunk = vec![0; self.next_chunk_bytes().max(size)].into_boxed_slice();
            self.chunk_bytes += chunk.len();
            self.chunks.push(chunk);
            self.tail = 0;
        }
        let handle = Handle::new(self.chunks.len() - 1, self.tail / UNIT_BYTES);
        self.tail += size;
        handle
    }
}

/// The number of units of an entry.
const fn units(key_len: usize, value_len: usize) -> usize {
    (HEADER_BYTES + key_len + value_len).div_ceil(UNIT_BYTES)
}

fn parse(bytes: &[u8]) -> Option<Stored<'_>> {
    let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>()?;
    let [state, _, key_low, key_high, v0, v1, v2, v3] = *header;
    let (key, rest) =
        rest.split_at_checked(usize::from(u16::from_le_bytes([key_low, key_high])))?;
    let value_len = usize::try_from(u32::from_le_bytes([v0, v1, v2, v3])).ok()?;
    Some(Stored { state, key, value: rest.get(..value_len)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_all_sizes_are_read_back() {
        let mut arena = Arena::default();
        let sizes = [0, 1, 7, 8, 9, 100, 4000, 70_000, CHUNK_BYTES, 3 * CHUNK_BYTES, 5];
        let value = vec![0xab; 3 * CHUNK_BYTES];
        let handles: Vec<Handle> =
            sizes.iter().map(|size| arena.insert(3, b"key", &value[..*size])).collect();
        for (handle, size) in handles.into_iter().zip(sizes) {
            let stored = arena.get(handle);
            assert_eq!((stored.state, stored.key, stored.value.len()), (3, &b"key"[..], size));
            assert_eq!(stored.value, &value[..size]);
        }
    }

    #[test]
    fn memory_of_removed_entries_is_used_again() {
        let mut arena = Arena::default();
        let handle = arena.insert(0, b"first", &[1; 60]);
        let bytes = arena.chunk_bytes;
        arena.remove(handle);
        for round in 0..100_000_u32 {
            let handle = arena.insert(0, &round.to_le_bytes(), &[1; 61]);
            arena.remove(handle);
        }
        assert_eq!(arena.chunk_bytes, bytes);
    }

    #[test]
    fn replace_keeps_the_place_if_the_size_allows() {
        let mut arena = Arena::default();
        let first = arena.insert(0, b"k", b"1234567");
        assert_eq!(arena.replace(first, 1, b"k", b"123456"), first);
        let moved = arena.replace(first, 2, b"k", &[9; 100]);
        assert_ne!(moved, first);
        assert_eq!((arena.get(moved).state, arena.get(moved).value.len()), (2, 100));
    }
}
