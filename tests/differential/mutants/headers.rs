//! Faults of a header.

use bitcoin::block::Version;
use bitcoin::hashes::Hash as _;
use bitcoin::{BlockHash, CompactTarget, Target};

use crate::draft::{Draft, solve};
use crate::pair::now;

/// How far in the future a header may be.
const FUTURE_SECONDS_MAX: u32 = 2 * 60 * 60;
/// The clock goes on while the test runs.
const MARGIN_SECONDS: u32 = 120;

pub(super) fn work(draft: &mut Draft<'_>) -> Option<()> {
    let header = &mut draft.block.header;
    let target = Target::from_compact(header.bits);
    while target.is_met_by(header.block_hash()) {
        header.nonce += 1;
    }
    Some(())
}

/// A target that is a number, and above what the network allows.
pub(super) fn easy_target(draft: &mut Draft<'_>) -> Option<()> {
    bits(draft, 0x2100_ffff)
}

pub(super) fn negative_target(draft: &mut Draft<'_>) -> Option<()> {
    draft.block.header.bits = CompactTarget::from_consensus(0x2080_0001);
    Some(())
}

pub(super) fn hard_target(draft: &mut Draft<'_>) -> Option<()> {
    bits(draft, 0x207f_fffe)
}

/// The same target as the network's, written in another way.
pub(super) fn other_bits(draft: &mut Draft<'_>) -> Option<()> {
    bits(draft, 0x2100_7fff)
}

fn bits(draft: &mut Draft<'_>, bits: u32) -> Option<()> {
    draft.block.header.bits = CompactTarget::from_consensus(bits);
    solve(&mut draft.block);
    Some(())
}

pub(super) fn median_time(draft: &mut Draft<'_>) -> Option<()> {
    time(draft, draft.median_time_past())
}

pub(super) fn time_zero(draft: &mut Draft<'_>) -> Option<()> {
    time(draft, 0)
}

pub(super) fn far_future(draft: &mut Draft<'_>) -> Option<()> {
    time(draft, now() + FUTURE_SECONDS_MAX + MARGIN_SECONDS)
}

pub(super) fn last_time(draft: &mut Draft<'_>) -> Option<()> {
    time(draft, u32::MAX)
}

fn time(draft: &mut Draft<'_>, time: u32) -> Option<()> {
    draft.block.header.time = time;
    solve(&mut draft.block);
    Some(())
}

pub(super) fn version_1(draft: &mut Draft<'_>) -> Option<()> {
    version(draft, 1)
}

pub(super) fn version_2(draft: &mut Draft<'_>) -> Option<()> {
    version(draft, 2)
}

pub(super) fn version_3(draft: &mut Draft<'_>) -> Option<()> {
    version(draft, 3)
}

pub(super) fn version_0(draft: &mut Draft<'_>) -> Option<()> {
    version(draft, 0)
}

pub(super) fn version_negative(draft: &mut Draft<'_>) -> Option<()> {
    version(draft, -1)
}

fn version(draft: &mut Draft<'_>, version: i32) -> Option<()> {
    draft.block.header.version = Version::from_consensus(version);
    solve(&mut draft.block);
    Some(())
}

pub(super) fn unknown_parent(draft: &mut Draft<'_>) -> Option<()> {
    let bytes = draft.random.bytes(32).try_into().ok()?;
    draft.block.header.prev_blockhash = BlockHash::from_byte_array(bytes);
    solve(&mut draft.block);
    Some(())
}
