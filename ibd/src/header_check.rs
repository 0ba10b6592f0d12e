//! What a header owes to its ancestors and to the clock (`ContextualCheckBlockHeader` in Bitcoin
//! Core's `validation.cpp`).

use std::borrow::Cow;

use bitcoin::block::Header;

use crate::params::ChainParams;
use crate::pow::{HeaderChain, median_time_past, next_work_required};
use crate::rejection::{Rejection, RejectionScope};

/// A header may be this many seconds in the future (`MAX_FUTURE_BLOCK_TIME`).
const FUTURE_SECONDS_MAX: i64 = 2 * 60 * 60;
/// The first header of a period may be this many seconds before its parent (BIP-0094).
pub(crate) const TIMEWARP_SECONDS_MAX: u32 = 600;

/// Checks a header as a child of the last one of `parent`; `now` is the time in seconds since
/// 1970.
///
/// # Errors
///
/// Returns `bad-diffbits`, `time-too-old`, `time-timewarp-attack`, `time-too-new` or
/// `bad-version(0x...)`.
pub fn check_header_context(
    params: &ChainParams,
    parent: &impl HeaderChain,
    header: &Header,
    now: u32,
) -> Result<(), Rejection> {
    let height = parent.height() + 1;
    if header.bits != next_work_required(params, parent, header.time) {
        return Err(Rejection::consensus("bad-diffbits").with_detail("incorrect proof of work"));
    }
    if header.time <= median_time_past(parent) {
        let detail = "block's timestamp is too early";
        return Err(Rejection::consensus("time-too-old").with_detail(detail));
    }
    let time = i64::from(header.time);
    if params.enforce_bip94 && height.is_multiple_of(params.difficulty_adjustment_interval()) {
        let parent_time = i64::from(parent.header(height - 1).time);
        if time < parent_time - i64::from(TIMEWARP_SECONDS_MAX) {
            let detail = "block's timestamp is too early on diff adjustment block";
            return Err(Rejection::consensus("time-timewarp-attack").with_detail(detail));
        }
    }
    if time > i64::from(now) + FUTURE_SECONDS_MAX {
        let detail = "block timestamp too far in the future";
        return Err(Rejection::new("time-too-new", RejectionScope::Time).with_detail(detail));
    }
    let version = header.version.to_consensus();
    let outdated = [(2, params.bip34_height), (3, params.bip66_height), (4, params.bip65_height)];
    if outdated.iter().any(|&(version_min, first)| version < version_min && height >= first) {
        return Err(Rejection {
            code: Cow::Owned(format!("bad-version(0x{version:08x})")),
            scope: RejectionScope::Header,
            reason: None,
            detail: Some(format!("rejected nVersion=0x{version:08x} block")),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::Network;
    use crate::testing::Chain;
    use bitcoin::CompactTarget;
    use bitcoin::block::Version;

    const SPACING: u32 = 600;

    /// Checks the child of a regtest chain of `height - 1`, changed by `change`.
    #[track_caller]
    fn check(height: u32, change: impl FnOnce(&mut ChainParams, &mut Header), code: &str) {
        let mut params = ChainParams::new(Network::Regtest);
        let chain = Chain::new(&params.genesis.header, height - 1, SPACING);
        let mut header = chain.header(height - 1);
        header.time += SPACING;
        header.version = Version::from_consensus(4);
        let now = header.time;
        change(&mut params, &mut header);
        let result = check_header_context(&params, &chain, &header, now);
        assert_eq!(result.err().map_or("ok".into(), |rejection| rejection.code), code);
    }

    #[test]
    fn the_difficulty_is_the_networks() {
        check(3, |_, _| {}, "ok");
        check(
            3,
            |_, header| header.bits = CompactTarget::from_consensus(0x207f_fffe),
            "bad-diffbits",
        );
    }

    #[test]
    fn the_time_is_after_the_median() {
        // The median of headers 9 to 19 is the time of header 14.
        check(20, |_, header| header.time -= 6 * SPACING - 1, "ok");
        check(20, |_, header| header.time -= 6 * SPACING, "time-too-old");
    }

    #[test]
    fn the_time_is_at_most_two_hours_from_now() {
        check(3, |_, header| header.time += 7200, "ok");
        check(3, |_, header| header.time += 7201, "time-too-new");
    }

    #[test]
    fn a_period_begins_at_most_ten_minutes_back() {
        // A time after the median, and back before the parent.
        let back = |seconds| {
            move |params: &mut ChainParams, header: &mut Header| {
                params.enforce_bip94 = true;
                header.time -= SPACING + seconds;
            }
        };
        check(144, back(600), "ok");
        check(144, back(601), "time-timewarp-attack");
        check(143, back(601), "ok");
        check(145, back(601), "ok");
        check(144, |_, header| header.time -= SPACING + 601, "ok");
    }

    #[test]
    fn old_versions_end_with_their_soft_forks() {
        let set = |version, heights: [u32; 3]| {
            move |params: &mut ChainParams, header: &mut Header| {
                [params.bip34_height, params.bip66_height, params.bip65_height] = heights;
                header.version = Version::from_consensus(version);
            }
        };
        check(5, set(1, [6, 6, 6]), "ok");
        check(5, set(1, [5, 6, 6]), "bad-version(0x00000001)");
        check(5, set(2, [5, 6, 6]), "ok");
        check(5, set(2, [5, 5, 6]), "bad-version(0x00000002)");
        check(5, set(3, [5, 5, 6]), "ok");
        check(5, set(3, [5, 5, 5]), "bad-version(0x00000003)");
        check(5, set(4, [5, 5, 5]), "ok");
        check(5, set(0x2000_0000, [5, 5, 5]), "ok");
        check(5, set(-1, [5, 5, 5]), "bad-version(0xffffffff)");
    }

    #[test]
    fn only_the_future_may_pass() {
        let params = ChainParams::new(Network::Regtest);
        let mut chain = Chain::new(&params.genesis.header, 1, SPACING);
        let mut header = *chain.last();
        header.time += 10_000;
        let rejection = check_header_context(&params, &chain, &header, 0).unwrap_err();
        assert_eq!(rejection.scope, RejectionScope::Time);
    }
}
