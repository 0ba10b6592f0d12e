//! Where a text in bech32 is wrong: up to two symbols, as Bitcoin Core's `LocateErrors` finds them.
//!
//! The checksum is linear: a wrong symbol adds a value of its own to it, whatever the others are. One
//! or two such values that give the sum found are the mistake; the code has room for no other.

use std::collections::HashMap;

/// The generator (BIP173).
const GENERATOR: [u32; 5] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];

/// What the checksum of a right text is: in bech32 and bech32m.
const RIGHT: [(&str, u32); 2] =
    [("Invalid Bech32 checksum", 1), ("Invalid Bech32m checksum", 0x2bc8_30a3)];

/// Returns the reason in Core's words and the indices of the wrong characters. `values` are the
/// symbols after the separator, `length` the characters of the whole text.
pub(super) fn locate(hrp: &str, values: &[u8], length: usize) -> (&'static str, Vec<usize>) {
    let sum = checksum(hrp, values);
    let (mut text, mut places) = ("Invalid checksum", Vec::new());
    for (name, right) in RIGHT {
        let found = wrong_symbols(sum ^ right, values.len());
        if places.is_empty() || (!found.is_empty() && found.len() < places.len()) {
            places = found;
            if !places.is_empty() {
                text = name;
            }
        }
    }
    // Places count from the right.
    let mut at: Vec<usize> =
        places.iter().filter_map(|place| length.checked_sub(place + 1)).collect();
    at.sort_unstable();
    (text, at)
}

fn checksum(hrp: &str, values: &[u8]) -> u32 {
    let high = hrp.bytes().map(|byte| u32::from(byte >> 5));
    let low = hrp.bytes().map(|byte| u32::from(byte & 31));
    let values = values.iter().map(|value| u32::from(*value));
    high.chain([0]).chain(low).chain(values).fold(1, step)
}

fn step(sum: u32, value: u32) -> u32 {
    let top = sum >> 25;
    let mut next = ((sum & 0x01ff_ffff) << 5) ^ value;
    for (bit, generator) in GENERATOR.iter().enumerate() {
        if (top >> bit) & 1 == 1 {
            next ^= generator;
        }
    }
    next
}

/// Returns the places of one or two symbols, from the right, whose change by some value makes the
/// difference.
fn wrong_symbols(difference: u32, count: usize) -> Vec<usize> {
    let mut changes: Vec<u32> = (1..32).collect();
    let mut place_of: HashMap<u32, usize> = HashMap::new();
    let mut pair = Vec::new();
    for place in 0..count {
        for change in &changes {
            if *change == difference {
                return vec![place];
            }
            if let Some(other) = place_of.get(&(*change ^ difference)).filter(|at| **at != place) {
                pair = vec![*other, place];
            }
            place_of.insert(*change, place);
        }
        for change in &mut changes {
            *change = step(*change, 0);
        }
    }
    pair
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::bech32::Fe32;

    #[track_caller]
    fn check(text: &str, expected: &[usize]) {
        let (hrp, data) = text.rsplit_once('1').unwrap();
        let values: Vec<u8> =
            data.chars().map(|symbol| Fe32::from_char(symbol).unwrap().to_u8()).collect();
        let found = locate(&hrp.to_lowercase(), &values, text.len());
        assert_eq!(found, ("Invalid Bech32 checksum", expected.to_vec()), "{text}");
    }

    /// Addresses of Bitcoin Core's `rpc_invalid_address_message.py`.
    #[test]
    fn one_or_two_wrong_characters_are_found() {
        check("bcrt1q049edschfnwystcqnsvyfpj23mpsg3jcedq9xv", &[9]);
        check("bcrt1qax9suht3qv95sw33xavx8crpxduefdrsvgsklu", &[22, 43]);
        check("BCRT1QPLMTZKC2XHARPPZDLNPAQL78RSHJ68U32RAH7R", &[38]);
        check("bcrt1qdg3myrgvzw7ml8q0ejxhlkyxn7vl9r56yzkfgvzclrf4hkpx9yfqhpsuks", &[19, 30]);
        check("bcrt1ptmp74ayg7p24uslctssvjm06q5phz4yrxucgnv", &[5]);
    }
}
