//! The bytes of the log: segment header, record, block payload. Pure, no I/O.
//!
//! `FORMAT.md` describes them; `tests::the_example_of_the_format_document` holds its example.
//! All integers are little-endian.

use crc32fast::Hasher;

use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::mutation::{Mutation, mutated};
use crate::wal::pack::{pack, unpack};
use crate::wal_buffered::{BlockBatch, Lsn, Tip};

/// The version of the segments that this build writes. It reads the earlier ones too: version 2 has
/// no packed records, version 1 neither compressed ones nor room behind them, and its headers have
/// zeros for flags and `applied_lsn`.
pub(crate) const VERSION: u32 = 3;
/// The version that added what a header says beyond version 1.
const VERSION_FLAGS: u32 = 2;
/// The oldest version of segments that is read.
pub(crate) const VERSION_MIN: u32 = 1;
/// A segment's header has a page of its own, so that no record's write can tear it.
pub(crate) const SEGMENT_HEADER_BYTES: usize = 4096;
/// Length, header CRC, LSN, durable LSN, type.
pub(crate) const RECORD_HEADER_BYTES: usize = 25;
/// The record's CRC.
pub(crate) const RECORD_TRAILER_BYTES: usize = 4;
/// The longest payload of a log record, before it is packed and compressed: a batch, and 68 bytes if it is a block's.
///
/// To connect a block changes a few megabytes at most. To disconnect one can restore 234 MiB: a block may have 24,390
/// inputs, each of a few bytes that spend a coin of 10,000 and more. Who logs blocks has to be able to take back each
/// that it connects.
pub const PAYLOAD_BYTES_MAX: usize = 256 << 20;
/// What precedes the batch in the payload of a block record: height, hash, previous hash.
pub(crate) const BLOCK_PREFIX_BYTES: usize = 4 + 32 + 32;

/// Bound of segment numbers and LSNs, far beyond any real one: adding to one cannot overflow.
pub(crate) const NUMBER_MAX: u64 = u64::MAX / 2;

const SEGMENT_MAGIC: [u8; 8] = *b"CFDAMWAL";
/// Flag of a segment: its file has room behind the records. See [`SegmentHeader::roomy`].
const FLAG_ROOMY: u32 = 1;
/// Bit of a record's type: the payload is compressed.
const COMPRESSED: u8 = 0x80;
/// Bit of a record's type: the batch is packed.
const PACKED: u8 = 0x40;
/// What precedes the compressed bytes: the size that they have when decompressed.
const COMPRESSED_PREFIX_BYTES: usize = 4;
/// Memory for a record that is kept for later ones. Blocks need less; the few that need more are not to leave a process
/// with it.
pub(super) const BUFFER_KEPT_BYTES: usize = 8 << 20;
/// LZ4 makes at most that many bytes of one: bounds what a length can ask for.
const LZ4_RATIO_MAX: usize = 255;

/// A fixed-size piece of a byte string, or none if it is too short.
pub(super) fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk::<N>().copied()
}

/// The first bytes of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// The number in the file's name: a renamed file is found out.
    pub(crate) number: u64,
    /// The LSN of the first record. All below it were durable when the segment was made.
    pub(crate) base_lsn: Lsn,
    /// A random number that seeds every CRC: records of another life do not pass.
    pub(crate) generation: u64,
    /// The chain value of the previous segment after its record `base_lsn - 1`; 0 if none.
    pub(crate) previous_chain: u32,
    /// The checkpoint mark: the database durably held all up to here when the segment was made.
    pub(crate) applied_lsn: Lsn,
    /// The file was allocated ahead or used before, so that what follows the last record are not
    /// records: zeros, where the next header would be, say that there is none.
    pub(crate) roomy: bool,
}

impl SegmentHeader {
    /// The header's page.
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        self.encode_as(VERSION)
    }

    /// The page as that version of the format has it.
    pub(crate) fn encode_as(&self, version: u32) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut page = [0; SEGMENT_HEADER_BYTES];
        let fields = [
            &SEGMENT_MAGIC[..],
            &version.to_le_bytes(),
            &if self.roomy { FLAG_ROOMY } else { 0 }.to_le_bytes(),
            &self.number.to_le_bytes(),
            &self.base_lsn.to_le_bytes(),
            &self.generation.to_le_bytes(),
            &self.previous_chain.to_le_bytes(),
            &self.applied_lsn.to_le_bytes(),
        ]
        .concat();
        if let Some(front) = page.first_chunk_mut::<52>() {
            front.copy_from_slice(&fields);
        }
        if let Some((body, crc)) = page.split_last_chunk_mut::<4>() {
            *crc = crc32fast::hash(body).to_le_bytes();
        }
        page
    }

    /// Reads a page; returns also the chain value with which the segment's records begin.
    pub(crate) fn decode(page: &[u8; SEGMENT_HEADER_BYTES]) -> Result<(Self, u32)> {
        let (body, crc) = page.split_last_chunk::<4>().unwrap_or((&[], &[0; 4]));
        let chain = crc32fast::hash(body);
        if chain != u32::from_le_bytes(*crc) {
            return Err(Error::corrupt("the checksum of a log segment's header is wrong"));
        }
        let (version, header) = Self::fields(body)
            .unwrap_or_else(|| Err(Error::corrupt("a log segment's header has another magic")))?;
        let of_later_version = version < VERSION_FLAGS && (header.roomy || header.applied_lsn > 0);
        if of_later_version || header.encode_as(version) != *page {
            return Err(Error::corrupt("a log segment's header has bytes where zeros must be"));
        }
        Ok((header, chain))
    }

    fn fields(body: &[u8]) -> Option<Result<(u32, Self)>> {
        if field::<8>(body, 0)? != SEGMENT_MAGIC {
            return None;
        }
        let found = u32::from_le_bytes(field(body, 8)?);
        let flags = u32::from_le_bytes(field(body, 12)?);
        if !(VERSION_MIN..=VERSION).contains(&found) || flags & !FLAG_ROOMY != 0 {
            return Some(Err(Error::Version { what: "log segment", found, supported: VERSION }));
        }
        let header = Self {
            number: u64::from_le_bytes(field(body, 16)?),
            base_lsn: u64::from_le_bytes(field(body, 24)?),
            generation: u64::from_le_bytes(field(body, 32)?),
            previous_chain: u32::from_le_bytes(field(body, 40)?),
            applied_lsn: u64::from_le_bytes(field(body, 44)?),
            roomy: flags & FLAG_ROOMY != 0,
        };
        let bounded = header.number <= NUMBER_MAX
            && (1..=NUMBER_MAX).contains(&header.base_lsn)
            && header.applied_lsn < header.base_lsn;
        let unbounded = || Error::corrupt("a log segment's header has a number out of bounds");
        Some(if bounded { Ok((found, header)) } else { Err(unbounded()) })
    }
}

/// What a record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RecordKind {
    /// Tip, previous hash, batch.
    Block,
    /// A batch that leaves the tip as it is.
    Plain,
}

impl RecordKind {
    const fn code(self) -> u8 {
        match self {
            Self::Block => 1,
            Self::Plain => 2,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Block),
            2 => Some(Self::Plain),
            _ => None,
        }
    }
}

/// What stands before a record's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    /// The payload's size in bytes.
    pub(crate) length: u32,
    /// The record's number.
    pub(crate) lsn: Lsn,
    /// The highest LSN that was known to be durable when the record was written.
    pub(crate) durable_lsn: Lsn,
    /// What the payload is.
    pub(crate) kind: RecordKind,
    /// Whether the batch in the payload is packed.
    pub(crate) packed: bool,
    /// Whether the payload is compressed.
    pub(crate) compressed: bool,
}

impl RecordHeader {
    /// The header's bytes in a segment of that generation.
    pub(crate) fn encode(&self, generation: u64) -> [u8; RECORD_HEADER_BYTES] {
        let mut bytes = [0; RECORD_HEADER_BYTES];
        let crc = self.crc(generation);
        let parts: [&[u8]; 5] = [
            &self.length.to_le_bytes(),
            &crc.to_le_bytes(),
            &self.lsn.to_le_bytes(),
            &self.durable_lsn.to_le_bytes(),
            &[self.code()],
        ];
        for (to, from) in bytes.iter_mut().zip(parts.into_iter().flatten()) {
            *to = *from;
        }
        bytes
    }

    /// Reads a header; none if its CRC does not fit the generation or a field is out of bounds.
    pub(crate) fn decode(bytes: &[u8; RECORD_HEADER_BYTES], generation: u64) -> Option<Self> {
        let code = *bytes.last()?;
        let header = Self {
            length: u32::from_le_bytes(field(bytes, 0)?),
            lsn: u64::from_le_bytes(field(bytes, 8)?),
            durable_lsn: u64::from_le_bytes(field(bytes, 16)?),
            kind: RecordKind::from_code(code & !(COMPRESSED | PACKED))?,
            packed: code & PACKED != 0,
            compressed: code & COMPRESSED != 0,
        };
        let bounded = header.payload_len() <= PAYLOAD_BYTES_MAX && header.durable_lsn < header.lsn;
        let crc = u32::from_le_bytes(field(bytes, 4)?);
        let valid = crc == header.crc(generation) || mutated(Mutation::HeaderUnchecked);
        (bounded && valid).then_some(header)
    }

    /// The number that a header states, right or wrong.
    pub(crate) fn lsn_of(bytes: &[u8; RECORD_HEADER_BYTES]) -> Lsn {
        field(bytes, 8).map_or(0, u64::from_le_bytes)
    }

    /// The payload's size as it is stored.
    pub(crate) fn payload_len(&self) -> usize {
        usize::try_from(self.length).unwrap_or(usize::MAX)
    }

    const fn code(&self) -> u8 {
        let packed = if self.packed { PACKED } else { 0 };
        self.kind.code() | packed | if self.compressed { COMPRESSED } else { 0 }
    }

    fn crc(&self, generation: u64) -> u32 {
        let generation = if mutated(Mutation::GenerationNotInHeader) { 0 } else { generation };
        let mut hasher = Hasher::new();
        hasher.update(&generation.to_le_bytes());
        hasher.update(&self.length.to_le_bytes());
        hasher.update(&self.lsn.to_le_bytes());
        hasher.update(&self.durable_lsn.to_le_bytes());
        hasher.update(&[self.code()]);
        hasher.finalize()
    }
}

/// The CRC of a record, which is also the chain value after it: seeded with the chain value before
/// it and the generation, over header and payload.
pub(crate) fn record_crc(chain: u32, generation: u64, header_and_payload: &[u8]) -> u32 {
    let chain = if mutated(Mutation::RecordsNotChained) { 0 } else { chain };
    let mut hasher = Hasher::new_with_initial(chain);
    hasher.update(&generation.to_le_bytes());
    hasher.update(header_and_payload);
    hasher.finalize()
}

/// What a record says is to be done.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Change<'a> {
    /// A step along the chain.
    Block(&'a BlockBatch),
    /// A batch that leaves the tip as it is.
    Plain(&'a Batch),
}

impl<'a> Change<'a> {
    /// The writes.
    pub(crate) const fn batch(&self) -> &'a Batch {
        match self {
            Self::Block(block) => &block.batch,
            Self::Plain(batch) => batch,
        }
    }

    /// The size of the record's payload, neither packed nor compressed: the most that is stored.
    pub(crate) const fn payload_len(&self) -> usize {
        match self {
            Self::Block(block) => BLOCK_PREFIX_BYTES + block.batch.byte_len(),
            Self::Plain(batch) => batch.byte_len(),
        }
    }

    const fn kind(&self) -> RecordKind {
        match self {
            Self::Block(_) => RecordKind::Block,
            Self::Plain(_) => RecordKind::Plain,
        }
    }

    /// Appends the payload, with the batch packed if that makes it shorter; says whether it is.
    fn write_payload(&self, out: &mut Vec<u8>) -> bool {
        if let Self::Block(block) = self {
            out.extend_from_slice(&block.tip.height.to_le_bytes());
            out.extend_from_slice(&block.tip.hash);
            out.extend_from_slice(&block.prev_hash);
        }
        let packed = pack(self.batch(), out);
        if !packed {
            out.extend_from_slice(self.batch().as_bytes());
        }
        packed
    }
}

/// Where a record stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Position {
    /// The chain value before it.
    pub(crate) chain: u32,
    /// The generation of its segment.
    pub(crate) generation: u64,
    /// Its number.
    pub(crate) lsn: Lsn,
    /// The highest LSN known to be durable.
    pub(crate) durable_lsn: Lsn,
}

/// Makes records; keeps the memory that compression needs.
#[derive(Debug, Default)]
pub(crate) struct Encoder {
    compress_bytes_min: Option<usize>,
    compressed: Vec<u8>,
}

impl Encoder {
    /// Payloads of at least so many bytes are compressed, if that makes them smaller.
    pub(crate) fn new(compress_bytes_min: Option<usize>) -> Self {
        Self { compress_bytes_min, ..Self::default() }
    }

    /// Appends a record to `out`; returns the chain value after it.
    pub(crate) fn encode(
        &mut self,
        out: &mut Vec<u8>,
        at: Position,
        change: Change<'_>,
    ) -> Result<u32> {
        let bytes = change.payload_len();
        if bytes > PAYLOAD_BYTES_MAX {
            return Err(payload_too_large(bytes));
        }
        let start = out.len();
        let body = start + RECORD_HEADER_BYTES;
        out.reserve(RECORD_HEADER_BYTES + bytes + RECORD_TRAILER_BYTES);
        out.resize(body, 0);
        let packed = change.write_payload(out);
        let worth_it = self.compress_bytes_min.is_some_and(|min| bytes >= min);
        let compressed = worth_it && self.compress(out.get(body..).unwrap_or_default());
        if compressed {
            out.truncate(body);
            out.extend_from_slice(&self.compressed);
        }
        self.compressed.clear();
        self.compressed.shrink_to(BUFFER_KEPT_BYTES);
        let header = RecordHeader {
            // Cannot fail: the payload was within its bound, and nothing has made it longer.
            length: u32::try_from(out.len() - body).map_err(|_| payload_too_large(bytes))?,
            lsn: at.lsn,
            durable_lsn: at.durable_lsn,
            kind: change.kind(),
            packed: packed && !mutated(Mutation::PackingNotMarked),
            compressed: compressed && !mutated(Mutation::CompressionNotMarked),
        };
        if let Some(front) = out.get_mut(start..).and_then(<[u8]>::first_chunk_mut) {
            *front = header.encode(at.generation);
        }
        let crc = record_crc(at.chain, at.generation, out.get(start..).unwrap_or_default());
        out.extend_from_slice(&crc.to_le_bytes());
        Ok(crc)
    }

    /// Compresses a payload into `self.compressed`; says whether that made it smaller.
    fn compress(&mut self, payload: &[u8]) -> bool {
        let Ok(payload_len) = u32::try_from(payload.len()) else { return false };
        let bound = lz4_flex::block::get_maximum_output_size(payload.len());
        self.compressed.resize(COMPRESSED_PREFIX_BYTES + bound, 0);
        let Some((prefix, rest)) =
            self.compressed.split_first_chunk_mut::<COMPRESSED_PREFIX_BYTES>()
        else {
            return false;
        };
        *prefix = payload_len.to_le_bytes();
        // Fails only without room, and there is room for the worst case.
        let stored = lz4_flex::block::compress_into(payload, rest)
            .map_or(usize::MAX, |bytes| COMPRESSED_PREFIX_BYTES + bytes);
        self.compressed.truncate(stored);
        stored < payload.len()
    }
}

/// Undoes [`Encoder::compress`].
///
/// The size stated is believed as far as LZ4 can reach from so many bytes: it cannot drive an
/// allocation beyond that.
fn decompress(stored: &[u8]) -> Result<Vec<u8>> {
    let bad = |why: &str| Error::corrupt(format!("a compressed log record {why}"));
    let (prefix, compressed) = stored
        .split_first_chunk::<COMPRESSED_PREFIX_BYTES>()
        .ok_or_else(|| bad("is shorter than its length field"))?;
    let bytes = usize::try_from(u32::from_le_bytes(*prefix)).unwrap_or(usize::MAX);
    if bytes > PAYLOAD_BYTES_MAX.min(compressed.len().saturating_mul(LZ4_RATIO_MAX)) {
        return Err(bad("states a length that it cannot have"));
    }
    let mut plain = vec![0; bytes];
    match lz4_flex::block::decompress_into(compressed, &mut plain) {
        Ok(written) if written == bytes => Ok(plain),
        Ok(_) => Err(bad("has another length than it states")),
        Err(error) => Err(bad(&format!("cannot be decompressed: {error}"))),
    }
}

/// The error for a batch that does not fit a record.
pub(crate) fn payload_too_large(bytes: usize) -> Error {
    Error::TooLarge {
        what: "a log record",
        bytes: u64::try_from(bytes).unwrap_or(u64::MAX),
        bytes_max: u64::try_from(PAYLOAD_BYTES_MAX).unwrap_or(u64::MAX),
    }
}

/// A record's payload, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Payload {
    /// A step along the chain.
    Block(BlockBatch),
    /// A batch that leaves the tip as it is.
    Plain(Batch),
}

impl Payload {
    /// Reads the payload of a record whose CRC was right.
    pub(crate) fn decode(header: &RecordHeader, stored: &[u8]) -> Result<Self> {
        if header.compressed {
            return Self::decode_plain(header, &decompress(stored)?);
        }
        Self::decode_plain(header, stored)
    }

    fn decode_plain(header: &RecordHeader, payload: &[u8]) -> Result<Self> {
        let decode = |batch| match header.packed {
            true => unpack(batch, PAYLOAD_BYTES_MAX),
            false => Batch::decode(batch),
        };
        match header.kind {
            RecordKind::Plain => decode(payload).map(Self::Plain),
            RecordKind::Block => {
                let short = || Error::corrupt("a block record is shorter than its fixed part");
                let (prefix, batch) =
                    payload.split_at_checked(BLOCK_PREFIX_BYTES).ok_or_else(short)?;
                let tip = field(prefix, 0)
                    .zip(field(prefix, 4))
                    .map(|(height, hash)| Tip { height: u32::from_le_bytes(height), hash });
                let (tip, prev_hash) = tip.zip(field(prefix, 36)).ok_or_else(short)?;
                Ok(Self::Block(BlockBatch { tip, prev_hash, batch: decode(batch)? }))
            }
        }
    }

    /// As what was logged.
    pub(crate) const fn as_change(&self) -> Change<'_> {
        match self {
            Self::Block(block) => Change::Block(block),
            Self::Plain(batch) => Change::Plain(batch),
        }
    }
}

/// The name of a segment's file.
pub(crate) fn segment_name(number: u64) -> String {
    format!("wal-{number:010}.log")
}

/// The number in a segment's file name. A name with more digits than it needs is a foreign file:
/// the file of that number has another one.
pub(crate) fn segment_number(name: &str) -> Option<u64> {
    let number = name.strip_prefix("wal-")?.strip_suffix(".log")?.parse().ok()?;
    (number <= NUMBER_MAX && segment_name(number) == name).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::Tree;
    use crate::error::hex;
    use crate::wal::marker::encode_marker;

    const HEADER: SegmentHeader = SegmentHeader {
        number: 3,
        base_lsn: 42,
        generation: 0x0123_4567_89ab_cdef,
        previous_chain: 0xdead_beef,
        applied_lsn: 40,
        roomy: true,
    };

    const RECORD: RecordHeader = RecordHeader {
        length: 0,
        lsn: 2,
        durable_lsn: 1,
        kind: RecordKind::Block,
        packed: false,
        compressed: false,
    };

    fn encode(encoder: &mut Encoder, at: (u32, u64, Lsn, Lsn), change: Change<'_>) -> Vec<u8> {
        let (chain, generation, lsn, durable_lsn) = at;
        let mut record = Vec::new();
        let at = Position { chain, generation, lsn, durable_lsn };
        encoder.encode(&mut record, at, change).unwrap();
        record
    }

    fn block() -> BlockBatch {
        let coins = Tree { id: 1, name: "coins" };
        let mut batch = Batch::new();
        batch.put_new(coins, b"new", b"coin");
        batch.delete(coins, b"spent");
        BlockBatch { tip: Tip { height: 7, hash: [0x77; 32] }, prev_hash: [0x66; 32], batch }
    }

    /// The worked example of `FORMAT.md`, byte for byte.
    #[test]
    fn the_example_of_the_format_document() {
        let page = HEADER.encode();
        assert_eq!(
            hex(&page[..52]),
            "434644414d57414c030000000100000003000000000000002a00000000000000\
             efcdab8967452301efbeadde2800000000000000"
        );
        assert!(page[52..4092].iter().all(|byte| *byte == 0));
        let document = include_str!("../../FORMAT.md");
        assert!(document.contains(&hex(&page[4092..])), "{}", hex(&page[4092..]));

        let (_, chain) = SegmentHeader::decode(&page).unwrap();
        let block = block();
        let at = (chain, HEADER.generation, 42, 41);
        let record = encode(&mut Encoder::default(), at, Change::Block(&block));
        let parts = [0..25, 25..93, 93..97, 97..108, 108..115, 115..119];
        assert_eq!(record.len(), 119);
        for part in parts {
            let text = hex(&record[part]);
            assert!(document.contains(&text), "{text}");
        }
        assert!(document.contains(&hex(&encode_marker(42))), "{}", hex(&encode_marker(42)));
    }

    #[test]
    fn segment_header_round_trip() {
        let (header, chain) = SegmentHeader::decode(&HEADER.encode()).unwrap();
        assert_eq!(header, HEADER);
        assert_eq!(chain.to_le_bytes(), HEADER.encode()[4092..]);
    }

    #[test]
    fn every_bit_flip_in_a_segment_header_is_found() {
        let page = HEADER.encode();
        for bit in 0..SEGMENT_HEADER_BYTES * 8 {
            let mut page = page;
            page[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(SegmentHeader::decode(&page), Err(Error::Corrupt { .. })), "{bit}");
        }
    }

    #[test]
    fn a_segment_of_another_version_says_so() {
        let plain = SegmentHeader { roomy: false, applied_lsn: 0, ..HEADER };
        for (at, byte, known) in
            [(8, 0, false), (8, 1, true), (8, 2, true), (8, 4, false), (12, 3, false)]
        {
            let mut page = plain.encode();
            page[at] = byte;
            let crc = crc32fast::hash(&page[..4092]);
            page[4092..].copy_from_slice(&crc.to_le_bytes());
            match SegmentHeader::decode(&page) {
                Ok((header, _)) => assert!(known && header == plain),
                Err(error) => assert!(!known && matches!(error, Error::Version { .. })),
            }
        }
    }

    #[test]
    fn bytes_that_mean_nothing_are_refused_even_with_a_right_checksum() {
        for (version, at) in [(3, 52), (2, 52), (2, 4091), (1, 12), (1, 44), (1, 52)] {
            let mut page = SegmentHeader { roomy: false, applied_lsn: 0, ..HEADER }.encode();
            (page[8], page[at]) = (version, 1);
            let crc = crc32fast::hash(&page[..4092]);
            page[4092..].copy_from_slice(&crc.to_le_bytes());
            assert!(matches!(SegmentHeader::decode(&page), Err(Error::Corrupt { .. })), "{at}");
        }
    }

    #[test]
    fn record_header_round_trip_and_bounds() {
        let header = RecordHeader { length: 100, lsn: 42, durable_lsn: 41, ..RECORD };
        for (packed, compressed) in [(false, false), (false, true), (true, false), (true, true)] {
            let header = RecordHeader { packed, compressed, ..header };
            assert_eq!(RecordHeader::decode(&header.encode(5), 5), Some(header));
        }
        assert_eq!(RecordHeader::decode(&header.encode(5), 6), None, "another generation");
        let large = u32::try_from(PAYLOAD_BYTES_MAX + 1).unwrap();
        for bad in
            [RecordHeader { length: large, ..header }, RecordHeader { durable_lsn: 42, ..header }]
        {
            assert_eq!(RecordHeader::decode(&bad.encode(5), 5), None, "{bad:?}");
        }
        for bit in 0..RECORD_HEADER_BYTES * 8 {
            let mut bytes = header.encode(5);
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(RecordHeader::decode(&bytes, 5), None, "bit {bit}");
        }
    }

    #[test]
    fn payloads_round_trip() {
        let mut block = block();
        let coins = Tree { id: 1, name: "coins" };
        for compress_bytes_min in [None, Some(0), Some(1 << 20)] {
            let mut encoder = Encoder::new(compress_bytes_min);
            for payload in [Payload::Block(block.clone()), Payload::Plain(block.batch.clone())] {
                let record = encode(&mut encoder, (1, 2, 3, 2), payload.as_change());
                let header = RecordHeader::decode(record.first_chunk().unwrap(), 2).unwrap();
                let body = &record[RECORD_HEADER_BYTES..record.len() - RECORD_TRAILER_BYTES];
                assert_eq!(Payload::decode(&header, body).unwrap(), payload);
                let plain_len = payload.as_change().payload_len();
                assert!(header.packed && body.len() < plain_len);
                let wanted = compress_bytes_min.is_some_and(|min| plain_len >= min);
                assert_eq!(header.compressed, wanted && plain_len > 1000, "{plain_len}");
            }
            block.batch.put(coins, b"compressible", &[7; 2000]);
        }
        assert!(Payload::decode(&RECORD, &[0; BLOCK_PREFIX_BYTES - 1]).is_err());
    }

    #[test]
    fn a_compressed_length_cannot_drive_an_allocation() {
        let plain = vec![7; 100_000];
        let mut stored = 100_000_u32.to_le_bytes().to_vec();
        stored.extend_from_slice(&lz4_flex::block::compress(&plain));
        assert_eq!(decompress(&stored).unwrap(), plain);
        for wrong in [99_999_u32, 100_001, u32::MAX] {
            stored[..4].copy_from_slice(&wrong.to_le_bytes());
            assert!(matches!(decompress(&stored), Err(Error::Corrupt { .. })), "{wrong}");
        }
        assert!(decompress(&[1, 0, 0]).is_err());
        assert!(decompress(&[0xff, 0xff, 0xff, 0x03, 9]).is_err());
    }

    #[test]
    fn segment_names_sort_as_their_numbers() {
        assert_eq!(segment_name(12), "wal-0000000012.log");
        assert_eq!(segment_number(&segment_name(NUMBER_MAX)), Some(NUMBER_MAX));
        assert_eq!(segment_number(&segment_name(NUMBER_MAX + 1)), None);
        for name in [
            "wal-12.log",
            "wal-00000000012.log",
            "wal-0000000012.log.tmp",
            "wal-00000000+1.log",
            "clean",
        ] {
            assert_eq!(segment_number(name), None, "{name}");
        }
    }
}
