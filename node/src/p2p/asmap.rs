//! Maps from addresses to the autonomous systems they belong to.
//!
//! The file is Bitcoin Core's (`util/asmap.cpp`): a trie over the bits of an address, written as a
//! program of four instructions, bit after bit.

use bitcoin::hashes::{Hash as _, sha256d};

/// Bits of an address.
const ADDRESS_BITS: usize = 128;

/// What the four instructions and their arguments take: bits of each class of numbers.
const TYPE_BITS: &[u32] = &[0, 0, 1];
const SYSTEM_BITS: &[u32] = &[15, 16, 17, 18, 19, 20, 21, 22, 23, 24];
const MATCH_BITS: &[u32] = &[1, 2, 3, 4, 5, 6, 7, 8];
const JUMP_BITS: &[u32] = &[
    5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29,
    30,
];

/// A map that was looked over whole.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct AsMap(Vec<u8>);

/// One step of the program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// This is the system.
    Return(u32),
    /// With a bit of 1 go on so many bits later.
    Jump(usize),
    /// So many bits have to be these, else the default is the system.
    Match { bits: u32, pattern: u32 },
    /// This is the default from here on.
    Default(u32),
}

impl AsMap {
    /// Takes a map; none if it is not sound.
    pub(crate) fn new(bytes: Vec<u8>) -> Option<Self> {
        is_sound(&bytes).then_some(Self(bytes))
    }

    /// Returns the system of an address in IPv6's form; 0: of none.
    pub(crate) fn system(&self, address: [u8; 16]) -> u32 {
        self.run(address).unwrap_or(0)
    }

    /// Returns the hash of the map, by which it is known; zero without one.
    pub(crate) fn version(&self) -> [u8; 32] {
        if self.0.is_empty() {
            return [0; 32];
        }
        sha256d::Hash::hash(&self.0).to_byte_array()
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn run(&self, address: [u8; 16]) -> Option<u32> {
        let mut bits = (0..ADDRESS_BITS).map(|at| {
            let byte = address.get(at / 8).copied().unwrap_or(0);
            u32::from(byte >> (7 - at % 8) & 1)
        });
        let mut reader = Reader { bytes: &self.0, at: 0 };
        let mut default = 0;
        loop {
            match reader.step()? {
                Step::Return(system) => return Some(system),
                Step::Jump(by) if bits.next()? == 1 => reader.at += by,
                Step::Jump(_) => {}
                Step::Match { bits: count, pattern } => {
                    for shift in (0..count).rev() {
                        if bits.next()? != pattern >> shift & 1 {
                            return Some(default);
                        }
                    }
                }
                Step::Default(system) => default = system,
            }
        }
    }
}

/// Reads bits, the lowest of each byte first.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn end(&self) -> usize {
        self.bytes.len() * 8
    }

    fn bit(&mut self) -> Option<u32> {
        let byte = self.bytes.get(self.at / 8)?;
        let bit = byte >> (self.at % 8) & 1;
        self.at += 1;
        Some(bit.into())
    }

    /// Reads a number: one bit of 1 for each class that it is beyond, then its place in its class,
    /// the highest bit first.
    fn number(&mut self, least: u32, classes: &[u32]) -> Option<u32> {
        let mut value = least;
        for (index, size) in classes.iter().enumerate() {
            let is_last = index + 1 == classes.len();
            if !is_last && self.bit()? == 1 {
                value += 1 << size;
                continue;
            }
            for shift in (0..*size).rev() {
                value += self.bit()? << shift;
            }
            return Some(value);
        }
        None
    }

    fn step(&mut self) -> Option<Step> {
        Some(match self.number(0, TYPE_BITS)? {
            0 => Step::Return(self.number(1, SYSTEM_BITS)?),
            1 => Step::Jump(usize::try_from(self.number(17, JUMP_BITS)?).ok()?),
            2 => {
                let argument = self.number(2, MATCH_BITS)?;
                // The highest bit only tells how many follow it.
                let bits = argument.ilog2();
                Step::Match { bits, pattern: argument - (1 << bits) }
            }
            _ => Step::Default(self.number(1, SYSTEM_BITS)?),
        })
    }
}

/// Looks at every way through the program (Core's `SanityCheckAsmap`): each ends, none leads into the
/// middle of a step, asks for more bits than an address has, or is written longer than it must be.
fn is_sound(bytes: &[u8]) -> bool {
    let mut reader = Reader { bytes, at: 0 };
    let mut bits_left = ADDRESS_BITS;
    // Where steps jump to, the nearest last, and the bits left there; a jump takes a bit, so that
    // there are no more of them than bits.
    let mut jumps: Vec<(usize, usize)> = Vec::new();
    let mut previous = Step::Jump(0);
    let mut had_short_match = false;
    while reader.at != reader.end() {
        if jumps.last().is_some_and(|(target, _)| reader.at >= *target) {
            return false;
        }
        let Some(step) = reader.step() else { return false };
        match step {
            Step::Return(_) if matches!(previous, Step::Default(_)) => return false,
            Step::Return(_) => {
                let Some((target, left)) = jumps.pop() else { return is_padded(&mut reader) };
                if reader.at != target {
                    return false;
                }
                bits_left = left;
                previous = Step::Jump(0);
                continue;
            }
            Step::Jump(by) => {
                let target = reader.at + by;
                let crosses = jumps.last().is_some_and(|(other, _)| target >= *other);
                if target > reader.end() || bits_left == 0 || crosses {
                    return false;
                }
                bits_left -= 1;
                jumps.push((target, bits_left));
            }
            Step::Match { bits, .. } => {
                let is_first = !matches!(previous, Step::Match { .. });
                had_short_match &= !is_first;
                let is_short = bits < 8;
                let bits = usize::try_from(bits).unwrap_or(usize::MAX);
                if is_short && had_short_match || bits_left < bits {
                    return false;
                }
                had_short_match = is_short;
                bits_left -= bits;
            }
            Step::Default(_) if matches!(previous, Step::Default(_)) => return false,
            Step::Default(_) => {}
        }
        previous = step;
    }
    false
}

/// Returns whether nothing but the zeros of the last byte follow.
fn is_padded(reader: &mut Reader<'_>) -> bool {
    let is_short = reader.end() - reader.at < 8;
    is_short && std::iter::from_fn(|| reader.bit()).all(|bit| bit == 0)
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    /// Writes bits as the program has them.
    #[derive(Default)]
    struct Writer(Vec<bool>);

    impl Writer {
        fn number(&mut self, mut value: u32, least: u32, classes: &[u32]) {
            value -= least;
            for (index, size) in classes.iter().enumerate() {
                let is_last = index + 1 == classes.len();
                if value < 1 << size {
                    if !is_last {
                        self.0.push(false);
                    }
                    self.0.extend((0..*size).rev().map(|shift| value >> shift & 1 == 1));
                    return;
                }
                self.0.push(true);
                value -= 1 << size;
            }
            panic!("too large");
        }

        fn give_back(&mut self, system: u32) {
            self.number(0, 0, TYPE_BITS);
            self.number(system, 1, SYSTEM_BITS);
        }

        fn jump(&mut self, over: &Self) {
            self.number(1, 0, TYPE_BITS);
            self.number(u32::try_from(over.0.len()).unwrap(), 17, JUMP_BITS);
            self.0.extend(&over.0);
        }

        fn matching(&mut self, argument: u32) {
            self.number(2, 0, TYPE_BITS);
            self.number(argument, 2, MATCH_BITS);
        }

        fn bytes(&self) -> Vec<u8> {
            let byte = |bits: &[bool]| {
                bits.iter().enumerate().fold(0, |byte, (at, bit)| byte | u8::from(*bit) << at)
            };
            self.0.chunks(8).map(byte).collect()
        }
    }

    /// IPv4 alone: the upper half of 0.0.0.0/0 is system 20,000, of the rest 0.0.0.0/8 is 7.
    pub(in crate::p2p) fn program() -> Vec<u8> {
        let mut out = Writer::default();
        for _ in 0..10 {
            out.matching(0x100);
        }
        out.matching(0x1ff);
        out.matching(0x1ff);
        let mut lower = Writer::default();
        lower.matching(0x80);
        lower.give_back(7);
        out.jump(&lower);
        out.give_back(20_000);
        out.bytes()
    }

    fn system(map: &AsMap, ip: [u8; 4]) -> u32 {
        map.system(Ipv4Addr::from(ip).to_ipv6_mapped().octets())
    }

    #[test]
    fn addresses_are_mapped_to_their_systems() {
        let map = AsMap::new(program()).expect("sound");
        assert_eq!([200, 128, 0, 1].map(|a| system(&map, [a, 1, 2, 3])), [20_000, 20_000, 7, 0]);
        assert_eq!(map.system([0x20; 16]), 0, "of IPv6 there is nothing");
        assert_eq!(system(&AsMap::default(), [200, 1, 2, 3]), 0);
        assert_ne!(map.version(), AsMap::default().version());
    }

    #[test]
    fn a_map_that_is_not_whole_is_refused_and_none_leads_astray() {
        let sound = program();
        for length in 0..sound.len() {
            assert_eq!(AsMap::new(sound[..length].to_vec()), None, "cut at {length}");
        }
        assert_eq!(AsMap::new([&sound[..], &[0]].concat()), None, "padded too far");
        for at in 0..sound.len() * 8 {
            let mut changed = sound.clone();
            changed[at / 8] ^= 1 << (at % 8);
            if let Some(map) = AsMap::new(changed) {
                for a in 0..=255 {
                    assert!(map.run(Ipv4Addr::new(a, 1, 2, 3).to_ipv6_mapped().octets()).is_some());
                }
            }
        }
    }
}
