//! Proof of work, difficulty and median time (`pow.cpp`, `chain.h` of Bitcoin Core).

use bitcoin::block::Header;
use bitcoin::{BlockHash, CompactTarget, Target, Work};

use crate::params::ChainParams;
use crate::rejection::Rejection;

/// Headers the median time past is taken of.
const MEDIAN_TIME_SPAN: usize = 11;

/// A chain of headers from the genesis block to a last one.
pub trait HeaderChain {
    /// Returns the height of the last header; 0 is the genesis block.
    fn height(&self) -> u32;

    /// Returns the header at `height`.
    ///
    /// # Panics
    ///
    /// May panic if `height` is above [`HeaderChain::height`].
    fn header(&self, height: u32) -> Header;

    /// Returns the headers from the one at `height` down to the genesis block.
    fn headers_down_from(&self, height: u32) -> impl Iterator<Item = Header> {
        (0..=height).rev().map(|at| self.header(at))
    }
}

/// Returns the median of the times of the last eleven headers, or of all if there are fewer.
#[must_use]
pub fn median_time_past(chain: &impl HeaderChain) -> u32 {
    median_time_past_at(chain, chain.height())
}

/// Returns the median time past of the header at `height`.
///
/// # Panics
///
/// May panic if `height` is above the chain's.
#[must_use]
pub fn median_time_past_at(chain: &impl HeaderChain, height: u32) -> u32 {
    let mut times = [0; MEDIAN_TIME_SPAN];
    let mut count = 0;
    for (time, header) in times.iter_mut().zip(chain.headers_down_from(height)) {
        *time = header.time;
        count += 1;
    }
    let (times, _) = times.split_at_mut(count);
    times.sort_unstable();
    let median = times.get(times.len() / 2);
    *median.expect("a chain has at least the genesis block")
}

/// Returns the target that `bits` stands for, unless it is negative, zero, above 256 bits or easier
/// than `limit` (`DeriveTarget`).
#[must_use]
pub fn derive_target(bits: CompactTarget, limit: Target) -> Option<Target> {
    let bits = bits.to_consensus();
    let size = bits >> 24;
    let word = bits & 0x007f_ffff;
    // arith_uint256::SetCompact: the sign and the overflow are looked at after the shift to the
    // right, and not at all if nothing is left of the mantissa, which is the target zero.
    let word = if size <= 3 { word >> (8 * (3 - size)) } else { word };
    let negative = bits & 0x0080_0000 != 0;
    let overflow = size > 34 || (word > 0xff && size > 33) || (word > 0xffff && size > 32);
    if word == 0 || negative || overflow {
        return None;
    }
    let target = Target::from_compact(CompactTarget::from_consensus(bits));
    (target <= limit).then_some(target)
}

/// Checks that the header's hash meets the target it claims, and that this target is one.
///
/// # Errors
///
/// Returns `high-hash`.
pub fn check_proof_of_work(header: &Header, params: &ChainParams) -> Result<(), Rejection> {
    check_work_of(&header.block_hash(), header.bits, params)
}

/// Checks a header's hash as [`check_proof_of_work`] does.
pub(crate) fn check_work_of(
    hash: &BlockHash,
    bits: CompactTarget,
    params: &ChainParams,
) -> Result<(), Rejection> {
    let target = derive_target(bits, params.pow_limit);
    if target.is_some_and(|target| target.is_met_by(*hash)) {
        Ok(())
    } else {
        Err(Rejection::consensus("high-hash").with_detail("proof of work failed"))
    }
}

/// Returns the expected number of hashes that a header with these bits costs; zero if the bits are
/// no target (`GetBlockProof`).
#[must_use]
pub fn block_work(bits: CompactTarget) -> Work {
    match derive_target(bits, Target::from_be_bytes([0xff; 32])) {
        // The crate rounds 2^256 / 2 up to the largest number.
        Some(target) if target == Target::from_be_bytes(one()) => {
            let mut half = [0; 32];
            half[0] = 0x80;
            Work::from_be_bytes(half)
        }
        Some(target) => target.to_work(),
        None => Work::from_be_bytes([0; 32]),
    }
}

const fn one() -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[31] = 1;
    bytes
}

/// Returns the bits that a header with time `time` on top of `parent` has to have
/// (`GetNextWorkRequired`).
#[must_use]
pub fn next_work_required(
    params: &ChainParams,
    parent: &impl HeaderChain,
    time: u32,
) -> CompactTarget {
    let height = parent.height();
    let last = parent.header(height);
    let interval = params.difficulty_adjustment_interval();
    if (height + 1).is_multiple_of(interval) {
        // The first block of the period that `last` ends.
        let first = parent.header(height - (interval - 1));
        return retarget(params, &first, &last);
    }
    if !params.pow_allow_min_difficulty {
        return last.bits;
    }
    let limit = params.pow_limit.to_compact_lossy();
    if i64::from(time) > i64::from(last.time) + 2 * i64::from(params.pow_target_spacing) {
        return limit;
    }
    // The last block that was not mined under the 20-minute exception, within the period.
    if last.bits != limit {
        return last.bits;
    }
    let mut walk = (0..=height).rev().zip(parent.headers_down_from(height));
    let found = walk.find(|(at, header)| at.is_multiple_of(interval) || header.bits != limit);
    found.map_or(limit, |(_, header)| header.bits)
}

/// Returns the bits after the period from `first` to `last` (`CalculateNextWorkRequired`).
fn retarget(params: &ChainParams, first: &Header, last: &Header) -> CompactTarget {
    if params.pow_no_retargeting {
        return last.bits;
    }
    let aim = params.pow_target_timespan;
    let actual = i64::from(last.time) - i64::from(first.time);
    let actual = actual.clamp(i64::from(aim / 4), i64::from(aim) * 4);
    let actual = u32::try_from(actual).expect("clamped to at most 8 weeks");
    // BIP-0094: the first block of a period never has the 20-minute exception's difficulty.
    let bits = if params.enforce_bip94 { first.bits } else { last.bits };
    let target = scale(Target::from_compact(bits), actual, aim);
    target.min(params.pow_limit).to_compact_lossy()
}

/// Returns whether the difficulty may change like this at `height`, as far as can be said without
/// the times of the period (`PermittedDifficultyTransition`).
#[must_use]
pub fn permitted_difficulty_transition(
    params: &ChainParams,
    height: u32,
    old: CompactTarget,
    new: CompactTarget,
) -> bool {
    if params.pow_allow_min_difficulty {
        return true;
    }
    if !height.is_multiple_of(params.difficulty_adjustment_interval()) {
        return old == new;
    }
    let aim = params.pow_target_timespan;
    // Rounded as bits are.
    let bound = |mul, div| {
        let target = scale(Target::from_compact(old), mul, div).min(params.pow_limit);
        Target::from_compact(target.to_compact_lossy())
    };
    let new = Target::from_compact(new);
    new <= bound(aim * 4, aim) && new >= bound(aim / 4, aim)
}

/// Returns `target * mul / div`. Bits above 256 are lost as in Core, which happens with no target
/// that a network's limit allows.
fn scale(target: Target, mul: u32, div: u32) -> Target {
    // Limbs of 32 bits, least significant first.
    let mut limbs = [0_u32; 8];
    for (limb, bytes) in limbs.iter_mut().zip(target.to_le_bytes().chunks_exact(4)) {
        *limb = u32::from_le_bytes(bytes.try_into().expect("chunks of four"));
    }
    let mut carry = 0_u64;
    for limb in &mut limbs {
        let product = u64::from(*limb) * u64::from(mul) + carry;
        *limb = low_half(product);
        carry = product >> 32;
    }
    let mut rest = 0_u64;
    for limb in limbs.iter_mut().rev() {
        let dividend = (rest << 32) | u64::from(*limb);
        *limb = low_half(dividend / u64::from(div));
        rest = dividend % u64::from(div);
    }
    let mut bytes = [0; 32];
    for (chunk, limb) in bytes.chunks_exact_mut(4).zip(limbs) {
        chunk.copy_from_slice(&limb.to_le_bytes());
    }
    Target::from_le_bytes(bytes)
}

fn low_half(value: u64) -> u32 {
    u32::try_from(value & 0xffff_ffff).expect("masked to 32 bits")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::Network;
    use crate::testing::Chain;

    fn bits(bits: u32) -> CompactTarget {
        CompactTarget::from_consensus(bits)
    }

    /// A chain of which only the headers at some heights are known.
    struct Known(Vec<(u32, Header)>);

    impl HeaderChain for Known {
        fn height(&self) -> u32 {
            self.0.last().unwrap().0
        }

        fn header(&self, height: u32) -> Header {
            self.0.iter().find(|(at, _)| *at == height).unwrap().1
        }
    }

    fn header(time: u32, compact: u32) -> Header {
        let genesis = ChainParams::new(Network::Mainnet).genesis.header;
        Header { time, bits: bits(compact), ..genesis }
    }

    /// The cases of Core's `pow_tests.cpp`.
    #[test]
    fn retargets_are_cores() {
        let params = ChainParams::new(Network::Mainnet);
        let cases = [
            (1_261_130_161, 32_255, 1_262_152_739, 0x1d00_ffff, 0x1d00_d86a),
            // Not below the lowest difficulty.
            (1_231_006_505, 2_015, 1_233_061_996, 0x1d00_ffff, 0x1d00_ffff),
            // Not more than four times harder, nor easier.
            (1_279_008_237, 68_543, 1_279_297_671, 0x1c05_a3f4, 0x1c01_68fd),
            (1_263_163_443, 46_367, 1_269_211_443, 0x1c38_7f6f, 0x1d00_e1fd),
        ];
        for (first_time, height, last_time, last_bits, expected) in cases {
            let first = (height - 2015, header(first_time, last_bits));
            let chain = Known(vec![first, (height, header(last_time, last_bits))]);
            let next = next_work_required(&params, &chain, last_time + 600);
            assert_eq!(next, bits(expected), "{height}");
        }
        let within = Known(vec![(32_254, header(1, 0x1c05_a3f4))]);
        assert_eq!(next_work_required(&params, &within, 100_000), bits(0x1c05_a3f4));
    }

    #[test]
    fn testnet_allows_the_lowest_difficulty_after_20_minutes() {
        let params = ChainParams::new(Network::Testnet3);
        let easy = 0x1d00_ffff;
        let real = 0x1c05_a3f4;
        let chain = Known(vec![
            (4031, header(500, 0x1b00_ffff)),
            (4032, header(1_000, real)),
            (4033, header(3_000, easy)),
            (4034, header(5_000, easy)),
        ]);
        assert_eq!(next_work_required(&params, &chain, 6_201), bits(easy));
        // Exactly 20 minutes are not more: the last real difficulty holds.
        assert_eq!(next_work_required(&params, &chain, 6_200), bits(real));
        // The walk back ends with the period, even if its first block was easy.
        let chain = Known(vec![(4031, header(1, real)), (4032, header(1_000, easy))]);
        assert_eq!(next_work_required(&params, &chain, 1_600), bits(easy));
        // The last block of a period may be easy, and then the next period begins from it.
        let chain = Known(vec![(2016, header(0, real)), (4031, header(1_209_600, easy))]);
        assert_eq!(next_work_required(&params, &chain, 1_500_000), bits(easy));
    }

    #[test]
    fn testnet4_retargets_from_the_first_block_of_the_period() {
        let params = ChainParams::new(Network::Testnet4);
        let (easy, real) = (0x1d00_ffff, 0x1c05_a3f4);
        let chain = Known(vec![(2016, header(0, real)), (4031, header(1_209_600, easy))]);
        assert_eq!(next_work_required(&params, &chain, 1_500_000), bits(real));
    }

    /// The cases of Core's `pow_tests.cpp`, and the bounds from both sides.
    #[test]
    fn difficulty_moves_by_a_factor_of_four_at_most_and_only_between_periods() {
        let main = ChainParams::new(Network::Mainnet);
        let permitted =
            |height, old, new| permitted_difficulty_transition(&main, height, bits(old), bits(new));
        assert!(permitted(32_256, 0x1d00_ffff, 0x1d00_d86a));
        assert!(permitted(2_016, 0x1d00_ffff, 0x1d00_ffff));
        assert!(permitted(68_544, 0x1c05_a3f4, 0x1c01_68fd));
        assert!(!permitted(68_544, 0x1c05_a3f4, 0x1c01_68fc), "harder than four times");
        assert!(permitted(46_368, 0x1c38_7f6f, 0x1d00_e1fd));
        assert!(!permitted(46_368, 0x1c38_7f6f, 0x1d00_e1fe), "easier than four times");
        assert!(!permitted(2_016, 0x1d00_ffff, 0x1d01_0000), "below the lowest difficulty");
        assert!(permitted(2_017, 0x1c05_a3f4, 0x1c05_a3f4));
        assert!(!permitted(2_017, 0x1c05_a3f4, 0x1c05_a3f3), "within a period");
        for network in [Network::Testnet3, Network::Testnet4, Network::Regtest] {
            let easy = ChainParams::new(network);
            assert!(permitted_difficulty_transition(
                &easy,
                5,
                bits(0x1c05_a3f4),
                bits(0x1d00_ffff)
            ));
        }
    }

    #[test]
    fn regtest_never_retargets() {
        let params = ChainParams::new(Network::Regtest);
        let chain = Chain::new(&params.genesis.header, 143, 1);
        let next = next_work_required(&params, &chain, chain.0[143].time + 1);
        assert_eq!(next, params.genesis.header.bits);
    }

    #[test]
    fn bits_that_are_no_target_have_no_work() {
        let limit = ChainParams::new(Network::Mainnet).pow_limit;
        let all = Target::from_be_bytes([0xff; 32]);
        // Zero, negative, above 256 bits; the cases of Core's arith_uint256_tests.cpp.
        for none in
            [0, 0x0012_3456, 0x0100_3456, 0x0492_3456, 0x01fe_dcba, 0xff12_3456, 0x0100_0000]
        {
            assert_eq!(derive_target(bits(none), all), None, "{none:08x}");
            assert_eq!(block_work(bits(none)).to_be_bytes(), [0; 32]);
        }
        for overflow in [0x2300_0001, 0x2200_0100, 0x2101_0000] {
            assert_eq!(derive_target(bits(overflow), all), None, "{overflow:08x}");
        }
        for most in [0x2200_00ff, 0x2100_ffff, 0x2001_0000, 0x0112_3456, 0x0500_9234] {
            assert!(derive_target(bits(most), all).is_some(), "{most:08x}");
        }
        // Below the network's lowest difficulty.
        assert!(derive_target(bits(0x1d00_ffff), limit).is_some());
        assert_eq!(derive_target(bits(0x1d01_0000), limit), None);
    }

    #[test]
    fn work_is_the_expected_number_of_hashes() {
        let work = |compact| block_work(bits(compact)).to_be_bytes();
        let be = |value: u128| {
            let mut bytes = [0; 32];
            bytes[16..].copy_from_slice(&value.to_be_bytes());
            bytes
        };
        assert_eq!(work(0x1d00_ffff), be(0x1_0001_0001));
        assert_eq!(work(0x207f_ffff), be(2));
        let mut half = [0; 32];
        half[0] = 0x80;
        assert_eq!(work(0x0101_0000), half);
    }

    #[test]
    fn a_wrong_nonce_is_a_high_hash() {
        let params = ChainParams::new(Network::Mainnet);
        let mut header = params.genesis.header;
        header.nonce += 1;
        assert_eq!(check_proof_of_work(&header, &params).unwrap_err().code, "high-hash");
        let mut header = params.genesis.header;
        header.bits = bits(0x207f_ffff);
        assert_eq!(check_proof_of_work(&header, &params).unwrap_err().code, "high-hash");
    }

    #[test]
    fn the_median_is_of_eleven_or_fewer() {
        let genesis = ChainParams::new(Network::Regtest).genesis.header;
        let at =
            |times: &[u32]| Chain(times.iter().map(|&time| Header { time, ..genesis }).collect());
        assert_eq!(median_time_past(&at(&[7])), 7);
        // Of an even number the later one.
        assert_eq!(median_time_past(&at(&[7, 9])), 9);
        assert_eq!(median_time_past(&at(&[9, 7, 8])), 8);
        let chain = at(&[100, 0, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(median_time_past(&chain), 5);
        assert_eq!(median_time_past_at(&chain, 2), 10);
    }
}
