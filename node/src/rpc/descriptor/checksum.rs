//! The checksum of descriptors (`DescriptorChecksum` in Bitcoin Core's `script/descriptor.cpp`).

/// Adds the checksum.
pub(crate) fn with_checksum(descriptor: &str) -> String {
    match checksum(descriptor) {
        Some(checksum) => format!("{descriptor}#{checksum}"),
        None => descriptor.to_owned(),
    }
}

/// Takes the checksum off, after comparing it; it may be missing.
///
/// # Errors
///
/// Returns what is wrong, in Core's words.
pub(crate) fn without_checksum(text: &str) -> Result<&str, String> {
    let mut parts = text.split('#');
    let descriptor = parts.next().unwrap_or_default();
    let given = parts.next();
    if parts.next().is_some() {
        return Err("Multiple '#' symbols".into());
    }
    if let Some(given) = given.filter(|given| given.len() != 8) {
        return Err(format!("Expected 8 character checksum, not {} characters", given.len()));
    }
    let computed = checksum(descriptor).ok_or("Invalid characters in payload")?;
    match given {
        Some(given) if given != computed => Err(format!(
            "Provided checksum '{given}' does not match computed checksum '{computed}'"
        )),
        _ => Ok(descriptor),
    }
}

/// Computes the checksum; `None` for characters that no descriptor has.
pub(crate) fn checksum(descriptor: &str) -> Option<String> {
    const INPUT: &str = "0123456789()[],'/*abcdefgh@:$%{}IJKLMNOPQRSTUVWXYZ&+-.;<=>?!^_|~ijklmnopqrstuvwxyzABCDEFGH`#\"\\ ";
    const OUTPUT: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
    let (mut state, mut class, mut count) = (1, 0, 0);
    for character in descriptor.chars() {
        let position = u64::try_from(INPUT.find(character)?).ok()?;
        state = poly_mod(state, position & 31);
        class = class * 3 + (position >> 5);
        count += 1;
        if count == 3 {
            state = poly_mod(state, class);
            (class, count) = (0, 0);
        }
    }
    if count > 0 {
        state = poly_mod(state, class);
    }
    for _ in 0..8 {
        state = poly_mod(state, 0);
    }
    state ^= 1;
    let symbol = |index: u64| {
        OUTPUT.get(usize::try_from(state >> (5 * (7 - index)) & 31).ok()?).map(|b| char::from(*b))
    };
    (0..8).map(symbol).collect()
}

const fn poly_mod(state: u64, value: u64) -> u64 {
    const GENERATORS: [u64; 5] =
        [0xf5_dee5_1989, 0xa9_fdca_3312, 0x1b_ab10_e32d, 0x37_06b1_677a, 0x64_4d62_6ffd];
    let [g0, g1, g2, g3, g4] = GENERATORS;
    let top = state >> 35;
    let mut next = ((state & 0x7_ffff_ffff) << 5) ^ value;
    next ^= if top & 1 != 0 { g0 } else { 0 };
    next ^= if top & 2 != 0 { g1 } else { 0 };
    next ^= if top & 4 != 0 { g2 } else { 0 };
    next ^= if top & 8 != 0 { g3 } else { 0 };
    next ^ if top & 16 != 0 { g4 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_core() {
        // From Core's descriptor tests and documentation.
        assert_eq!(with_checksum("raw(deadbeef)"), "raw(deadbeef)#89f8spxm");
        assert_eq!(
            with_checksum("addr(mkmZxiEcEd8ZqjQWVZuC6so5dFMKEFpN2j)"),
            "addr(mkmZxiEcEd8ZqjQWVZuC6so5dFMKEFpN2j)#02wpgw69"
        );
        assert_eq!(without_checksum("raw(deadbeef)#89f8spxm"), Ok("raw(deadbeef)"));
        assert_eq!(without_checksum("raw(51)"), Ok("raw(51)"));
        for (text, error) in [
            ("raw(51)#89f8spxm", "Provided checksum '89f8spxm' does not match"),
            ("raw(51)#a", "Expected 8 character checksum, not 1 characters"),
            ("raw(51)#a#b", "Multiple '#' symbols"),
            ("raw(\u{20bf})", "Invalid characters in payload"),
        ] {
            assert!(without_checksum(text).unwrap_err().contains(error), "{text}");
        }
    }
}
