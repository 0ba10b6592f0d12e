//! Log segments built byte by byte as `FORMAT.md` says, damaged, and their checksums put right.

use crc32fast::Hasher;

use crate::batch::Batch;
use crate::testing::fuzz::decoders::repair;
use crate::testing::fuzz::input::Input;
use crate::wal_buffered::{BlockBatch, Lsn, Tip};

const PAGE_BYTES: usize = 4096;
const HEAD_BYTES: usize = 25;
/// The fields of a header page; what follows them is zeros.
const FIELDS_BYTES: usize = 48;

/// A segment's file.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    /// The number in its name.
    pub(super) number: u64,
    pub(super) bytes: Vec<u8>,
}

/// What a sound log says.
#[derive(Debug, Clone)]
pub(super) enum Logged {
    Block(BlockBatch),
    Plain(Batch),
}

/// Segments as a store would write them, and then perhaps not quite.
#[derive(Debug)]
pub(super) struct Built {
    pub(super) segments: Vec<Segment>,
    /// The number of the first record.
    pub(super) first_lsn: Lsn,
    /// What was logged, as long as nothing is wrong with any of it.
    pub(super) sound: Option<Vec<Logged>>,
}

/// Builds up to three segments from the bytes, and damages them as the bytes say.
pub(super) fn build(input: &mut Input<'_>) -> Built {
    let count = input.below(4);
    let first_lsn = 1 + u64::from(input.byte() & 3);
    let mut writer = Writer {
        number: 1 + u64::from(input.byte() & 15),
        next_lsn: first_lsn,
        generation: 0,
        chain: 0,
        tip: None,
        sound: Some(Vec::new()),
        out: Vec::new(),
    };
    let mut segments = Vec::new();
    for _ in 0..count {
        writer.begin(input);
        for _ in 0..input.below(8) {
            writer.record(input);
        }
        let raw_len = input.below(64);
        let raw = if input.flag() { input.bytes(raw_len) } else { &[] };
        if !raw.is_empty() {
            writer.sound = None;
            writer.out.extend_from_slice(raw);
        }
        segments.push(Segment { number: writer.number, bytes: std::mem::take(&mut writer.out) });
        writer.number += 1;
    }
    let mut sound = writer.sound;
    for _ in 0..input.below(4) {
        let target = input.below(segments.len());
        if let Some(segment) = segments.get_mut(target) {
            sound = None;
            damage(segment, input);
        }
    }
    let repairs = input.byte();
    if sound.is_none() && repairs & 1 == 1 {
        let mut chain = 0;
        for segment in &mut segments {
            chain = put_right(&mut segment.bytes, (repairs & 2 == 2).then_some(chain));
        }
    }
    Built { segments, first_lsn, sound }
}

/// Writes segments.
struct Writer {
    number: u64,
    next_lsn: Lsn,
    generation: u64,
    chain: u32,
    tip: Option<Tip>,
    sound: Option<Vec<Logged>>,
    out: Vec<u8>,
}

impl Writer {
    /// Writes a header page.
    fn begin(&mut self, input: &mut Input<'_>) {
        self.generation = u64::from(input.u16());
        let mut page = [
            &b"CFDAMWAL"[..],
            &1_u32.to_le_bytes(),
            &[0; 4],
            &self.number.to_le_bytes(),
            &self.next_lsn.to_le_bytes(),
            &self.generation.to_le_bytes(),
            &self.chain.to_le_bytes(),
        ]
        .concat();
        page.resize(PAGE_BYTES, 0);
        repair(&mut page);
        self.chain = page.last_chunk().copied().map_or(0, u32::from_le_bytes);
        self.out = page;
    }

    /// Writes a record: a block or a plain batch, and seldom something else.
    fn record(&mut self, input: &mut Input<'_>) {
        let how = input.byte();
        let (mut lsn, mut durable) = (self.next_lsn, self.next_lsn - 1);
        if how & 8 == 8 {
            durable = durable.saturating_sub(u64::from(input.byte()));
        }
        if how & 0xf0 == 0xf0 {
            lsn ^= u64::from(input.byte());
            self.sound = None;
        }
        let (kind, payload) = match how & 7 {
            0..=3 => (1, self.block(input)),
            4..=6 => (2, self.plain(input)),
            _ => {
                let (kind, len) = (input.byte(), input.below(100));
                self.sound = None;
                (kind, input.bytes(len).to_vec())
            }
        };
        let start = self.out.len();
        self.out.extend_from_slice(&head(payload.len(), self.generation, (lsn, durable), kind));
        self.out.extend_from_slice(&payload);
        let covered = self.out.get(start..).unwrap_or_default();
        self.chain = record_crc(self.chain, self.generation, covered);
        self.out.extend_from_slice(&self.chain.to_le_bytes());
        self.next_lsn += 1;
    }

    fn block(&mut self, input: &mut Input<'_>) -> Vec<u8> {
        let mut prev_hash = self.tip.map_or([0; 32], |tip| tip.hash);
        if input.byte() == u8::MAX {
            prev_hash = [0xee; 32];
            self.sound = None;
        }
        let height = self.tip.map_or(0, |tip| tip.height + 1);
        let tip = Tip { height, hash: [1 + input.byte() % 0x7f; 32] };
        self.tip = Some(tip);
        let batch = input.batch();
        let payload =
            [&tip.height.to_le_bytes()[..], &tip.hash, &prev_hash, batch.as_bytes()].concat();
        if let Some(sound) = &mut self.sound {
            sound.push(Logged::Block(BlockBatch { tip, prev_hash, batch }));
        }
        payload
    }

    fn plain(&mut self, input: &mut Input<'_>) -> Vec<u8> {
        let batch = input.batch();
        let payload = batch.as_bytes().to_vec();
        if let Some(sound) = &mut self.sound {
            sound.push(Logged::Plain(batch));
        }
        payload
    }
}

/// A record's header.
fn head(payload_len: usize, generation: u64, (lsn, durable): (Lsn, Lsn), kind: u8) -> Vec<u8> {
    let length = u32::try_from(payload_len).unwrap_or(u32::MAX).to_le_bytes();
    let (lsn, durable) = (lsn.to_le_bytes(), durable.to_le_bytes());
    let crc = head_crc(generation, &[&length[..], &lsn, &durable, &[kind]].concat());
    [&length[..], &crc.to_le_bytes(), &lsn, &durable, &[kind]].concat()
}

fn head_crc(generation: u64, fields: &[u8]) -> u32 {
    record_crc(0, generation, fields)
}

fn record_crc(chain: u32, generation: u64, bytes: &[u8]) -> u32 {
    let mut hasher = Hasher::new_with_initial(chain);
    hasher.update(&generation.to_le_bytes());
    hasher.update(bytes);
    hasher.finalize()
}

/// One change anywhere in a file.
fn damage(segment: &mut Segment, input: &mut Input<'_>) {
    let (how, at, value) = (input.byte(), usize::from(input.u16()), input.byte());
    let bytes = &mut segment.bytes;
    let at = if how & 0x80 == 0x80 {
        at % FIELDS_BYTES
    } else {
        let behind = bytes.len().saturating_sub(PAGE_BYTES);
        PAGE_BYTES + at.checked_rem(behind).unwrap_or(0)
    };
    match how & 7 {
        0 | 1 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        2 | 3 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << (value & 7);
            }
        }
        4 => bytes.truncate(at),
        5 => bytes.resize(bytes.len() + usize::from(value) * 8, 0),
        6 => {
            let copy: Vec<u8> = bytes.iter().skip(at).take(usize::from(value)).copied().collect();
            bytes.extend_from_slice(&copy);
        }
        _ => segment.number ^= u64::from(value & 3),
    }
}

/// Puts the checksums of a segment right, also the previous chain value in its header if one is
/// given; returns the chain value at its end.
fn put_right(bytes: &mut [u8], previous: Option<u32>) -> u32 {
    let Some((page, mut rest)) = bytes.split_at_mut_checked(PAGE_BYTES) else {
        return 0;
    };
    if let (Some(previous), Some(field)) = (previous, page.get_mut(40..44)) {
        field.copy_from_slice(&previous.to_le_bytes());
    }
    repair(page);
    let generation = page.get(32..40).and_then(|field| field.first_chunk().copied());
    let generation = generation.map_or(0, u64::from_le_bytes);
    let mut chain = page.last_chunk().copied().map_or(0, u32::from_le_bytes);
    while let Some((head, behind)) = rest.split_first_chunk_mut::<HEAD_BYTES>() {
        let [l0, l1, l2, l3, _, _, _, _, fields @ ..] = *head;
        let length = [l0, l1, l2, l3];
        let crc = head_crc(generation, &[&length[..], &fields].concat());
        *head = {
            let [c0, c1, c2, c3] = crc.to_le_bytes();
            let mut fixed = *head;
            if let Some(place) = fixed.get_mut(4..8) {
                place.copy_from_slice(&[c0, c1, c2, c3]);
            }
            fixed
        };
        let len = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
        let Some((payload, behind)) = behind.split_at_mut_checked(len) else {
            return chain;
        };
        let Some((trailer, behind)) = behind.split_first_chunk_mut::<4>() else {
            return chain;
        };
        chain = record_crc(chain, generation, &[&head[..], payload].concat());
        *trailer = chain.to_le_bytes();
        rest = behind;
    }
    chain
}
