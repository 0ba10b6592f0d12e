//! Which function may stand where in a descriptor, and the arguments of those with keys (`ParseScript`
//! in Bitcoin Core's `script/descriptor.cpp`). Miniscript is left to its crate.

use std::str::FromStr as _;

use miniscript::iter::TreeLike as _;
use miniscript::{Miniscript, ScriptContext, Segwitv0, Tap, Terminal};

use super::keys::KeyForm;

/// Most keys of a `multi()` (`MAX_PUBKEYS_PER_MULTISIG`), of one that stands alone, and of a
/// `multi_a()` (`MAX_PUBKEYS_PER_MULTI_A`).
const KEYS_MAX: usize = 20;
const BARE_KEYS_MAX: usize = 3;
const TAPROOT_KEYS_MAX: usize = 999;
/// Deepest script of a `tr()` (`TAPROOT_CONTROL_MAX_NODE_COUNT`).
const DEPTH_MAX: usize = 128;
/// Longest script behind a `sh()` (`MAX_SCRIPT_ELEMENT_SIZE`).
const SCRIPT_BYTES_MAX: usize = 520;

/// What a function stands in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Top,
    Sh,
    Wsh,
    Tr,
}

impl Place {
    const fn key_form(self) -> KeyForm {
        match self {
            Self::Top | Self::Sh => KeyForm::Any,
            Self::Wsh => KeyForm::Compressed,
            Self::Tr => KeyForm::XOnly,
        }
    }
}

/// Reads a key in the form that its place asks for; returns its length in a script.
type KeyReader<'a> = &'a dyn Fn(&str, KeyForm) -> Result<usize, String>;

/// Looks at a descriptor.
///
/// # Errors
///
/// Returns what is wrong, in Core's words.
pub(super) fn check(text: &str, key: KeyReader<'_>) -> Result<(), String> {
    check_all(text, Place::Top, key)
}

fn check_all(text: &str, place: Place, key: KeyReader<'_>) -> Result<(), String> {
    let (expression, rest) = split_expression(text);
    check_at(expression, place, key)?;
    // Core has no words for what follows.
    if rest.is_empty() { Ok(()) } else { Err(String::new()) }
}

/// Splits off what follows the expression that a text begins with (`Expr`).
fn split_expression(text: &str) -> (&str, &str) {
    let mut depth = 0_u32;
    let end = text.find(|sign| {
        match sign {
            '(' | '{' => depth += 1,
            ')' | '}' if depth > 0 => depth -= 1,
            ')' | '}' | ',' => return depth == 0,
            _ => {}
        }
        false
    });
    text.split_at(end.unwrap_or(text.len()))
}

/// Says which key it is whose path is wrong, given the text in front of it.
pub(super) fn of_key(before: &str, fault: &str) -> String {
    match function_around(before) {
        name @ ("pk" | "pkh" | "wpkh" | "combo" | "tr" | "rawtr") => format!("{name}(): {fault}"),
        "multi" | "sortedmulti" | "multi_a" | "sortedmulti_a" => format!("Multi: {fault}"),
        _ => fault.into(),
    }
}

/// Says that keys have different numbers of paths, given the text in front of one of them.
pub(super) fn mismatch(before: &str) -> String {
    let paths = "Multipath derivation paths have mismatched lengths";
    match function_around(before) {
        "multi" | "sortedmulti" | "multi_a" | "sortedmulti_a" => format!("multi(): {paths}"),
        _ => format!("Miniscript: {paths}"),
    }
}

fn function_around(before: &str) -> &str {
    let name = before.rsplit_once('(').map_or("", |(name, _)| name);
    let is_name = |sign: char| sign.is_ascii_lowercase() || sign == '_';
    name.rsplit(|sign| !is_name(sign)).next().unwrap_or_default()
}

fn check_at(text: &str, place: Place, key: KeyReader<'_>) -> Result<(), String> {
    let Some((name, inner)) = text.strip_suffix(')').and_then(|text| text.split_once('(')) else {
        return no_function(text, place, key);
    };
    let (is_top, is_above) = (place == Place::Top, matches!(place, Place::Top | Place::Sh));
    let named = |error: String| format!("{name}(): {error}");
    let fault = match name {
        "pk" => return key(inner, place.key_form()).map(drop).map_err(named),
        "pkh" if place != Place::Tr => {
            return key(inner, place.key_form()).map(drop).map_err(named);
        }
        "combo" if is_top => return key(inner, KeyForm::Any).map(drop).map_err(named),
        "combo" => "Can only have combo() at top level",
        "multi" | "sortedmulti" if place == Place::Tr => {
            "Can only have multi/sortedmulti at top level, in sh(), or in wsh()"
        }
        "multi" | "sortedmulti" => return check_multi(inner, place, key),
        "multi_a" | "sortedmulti_a" if place != Place::Tr => {
            "Can only have multi_a/sortedmulti_a inside tr()"
        }
        "multi_a" | "sortedmulti_a" => return check_multi(inner, place, key),
        "wpkh" if is_above => return key(inner, KeyForm::Compressed).map(drop).map_err(named),
        "wpkh" => "Can only have wpkh() at top level or inside sh()",
        "sh" if is_top => return check_all(inner, Place::Sh, key),
        "sh" => "Can only have sh() at top level",
        "wsh" if is_above => return check_all(inner, Place::Wsh, key),
        "wsh" => "Can only have wsh() at top level or inside sh()",
        "tr" if is_top => return check_tree(inner, key),
        "tr" => "Can only have tr at top level",
        "rawtr" if is_top && !split_expression(inner).1.is_empty() => {
            "rawtr(): only one key expected."
        }
        "rawtr" if is_top => return key(inner, KeyForm::XOnly).map(drop).map_err(named),
        "rawtr" => "Can only have rawtr at top level",
        "addr" | "raw" if is_top => return Ok(()),
        "addr" => "Can only have addr() at top level",
        "raw" => "Can only have raw() at top level",
        _ => return no_function(text, place, key),
    };
    Err(fault.into())
}

/// What is no function of descriptors: a miniscript, or nothing.
fn no_function(text: &str, place: Place, key: KeyReader<'_>) -> Result<(), String> {
    let keys = |text: &str| key(text, place.key_form()).map(drop);
    let nothing = format!("'{text}' is not a valid descriptor function");
    match place {
        Place::Wsh => {
            check_miniscript::<Segwitv0>(text, &keys, "A function is needed within P2WSH")
        }
        Place::Tr => check_miniscript::<Tap>(text, &keys, &nothing),
        _ if Miniscript::<String, Tap>::from_str_insane(text).is_ok() => {
            Err("Miniscript expressions can only be used in wsh or tr.".into())
        }
        Place::Sh => Err("A function is needed within P2SH".into()),
        Place::Top => Err(nothing),
    }
}

/// Looks at a miniscript; `nothing` is said of what is none.
fn check_miniscript<C: ScriptContext>(
    text: &str,
    key: &dyn Fn(&str) -> Result<(), String>,
    nothing: &str,
) -> Result<(), String> {
    if text == "0" {
        return Err("0 is not satisfiable".into());
    }
    let miniscript = Miniscript::<String, C>::from_str_insane(text).map_err(|_| nothing)?;
    miniscript.iter_pk().try_for_each(|text| key(&text))?;
    let parts = || miniscript.post_order_iter().map(|item| item.node);
    if !parts().all(has_sound_hashes) {
        return Err(nothing.into());
    }
    // The innermost part is named that nobody should use (`FindInsaneSub`).
    let part = parts().find_map(|part| Some((part, insanity(part)?)));
    let (part, fault) = match part {
        // That no signature is needed is a fault of the whole alone, and the second to be looked for.
        Some((part, fault)) if fault == MALLEABLE || !std::ptr::eq(part, &raw const miniscript) => {
            (part, fault)
        }
        _ if !miniscript.requires_sig() => (&miniscript, NO_SIGNATURE),
        Some(found) => found,
        // What cannot be satisfied has no witness either, which is no fault of a part.
        None if !miniscript.within_resource_limits() => (&miniscript, TOO_LARGE),
        None => return Ok(()),
    };
    Err(format!("{part} is not sane: {fault}"))
}

const MALLEABLE: &str = "malleable witnesses exist";
const NO_SIGNATURE: &str = "witnesses without signature exist";
const TOO_LARGE: &str = "needs witnesses that may exceed resource limits";

/// Returns why nobody should use a part of a miniscript, or all of it.
fn insanity<C: ScriptContext>(part: &Miniscript<String, C>) -> Option<&'static str> {
    if !part.is_non_malleable() {
        Some(MALLEABLE)
    } else if part.has_mixed_timelocks() {
        Some("contains mixes of timelocks expressed in blocks and seconds")
    } else if part.has_repeated_keys() {
        Some("contains duplicate public keys")
    } else {
        None
    }
}

/// Returns whether a hash in it has its length: a template takes any text.
fn has_sound_hashes<C: ScriptContext>(part: &Miniscript<String, C>) -> bool {
    let is_hash = |text: &str, digits: usize| {
        text.len() == digits && text.bytes().all(|digit| digit.is_ascii_hexdigit())
    };
    match &part.node {
        Terminal::Sha256(hash) | Terminal::Hash256(hash) => is_hash(hash, 64),
        Terminal::Ripemd160(hash) | Terminal::Hash160(hash) => is_hash(hash, 40),
        _ => true,
    }
}

fn check_multi(text: &str, place: Place, key: KeyReader<'_>) -> Result<(), String> {
    let mut arguments = text.split(',');
    let threshold = arguments.next().unwrap_or_default();
    let is_number = !threshold.is_empty() && threshold.bytes().all(|byte| byte.is_ascii_digit());
    let needed = u32::from_str(threshold).ok().filter(|_| is_number);
    let needed = needed.ok_or_else(|| format!("Multi threshold '{threshold}' is not valid"))?;
    let (mut keys, mut script_bytes) = (0, 0);
    for text in arguments {
        script_bytes +=
            1 + key(text, place.key_form()).map_err(|error| format!("Multi: {error}"))?;
        keys += 1;
    }
    let (kind, most) =
        if place == Place::Tr { ("multi_a", TAPROOT_KEYS_MAX) } else { ("multisig", KEYS_MAX) };
    if keys == 0 || keys > most {
        let range = format!("must have between 1 and {most} keys, inclusive");
        return Err(format!("Cannot have {keys} keys in {kind}; {range}"));
    }
    if needed < 1 {
        return Err(format!("Multisig threshold cannot be {needed}, must be at least 1"));
    }
    if usize::try_from(needed).is_ok_and(|needed| needed > keys) {
        let but = format!("threshold is {needed} but only {keys} keys specified");
        let text = "Multisig threshold cannot be larger than the number of keys";
        return Err(format!("{text}; {but}"));
    }
    if place == Place::Top && keys > BARE_KEYS_MAX {
        let most = format!("only at most {BARE_KEYS_MAX} pubkeys");
        return Err(format!("Cannot have {keys} pubkeys in bare multisig; {most}"));
    }
    // Both numbers and the operation.
    let script_bytes = script_bytes + 3;
    if place == Place::Sh && script_bytes > SCRIPT_BYTES_MAX {
        let than = format!("{script_bytes} bytes is larger than {SCRIPT_BYTES_MAX} bytes");
        return Err(format!("P2SH script is too large, {than}"));
    }
    Ok(())
}

/// Looks at the key of a `tr()`, and at the tree of its scripts.
fn check_tree(text: &str, key: KeyReader<'_>) -> Result<(), String> {
    let (internal, rest) = split_expression(text);
    key(internal, KeyForm::XOnly).map_err(|error| format!("tr(): {error}"))?;
    let Some(found) = rest.chars().next() else { return Ok(()) };
    let mut rest =
        rest.strip_prefix(',').ok_or_else(|| format!("tr: expected ',', got '{found}'"))?;
    // For each branch that a script is in, the innermost last, whether it is the right one.
    let mut branches = Vec::new();
    loop {
        while let Some(inner) = rest.strip_prefix('{') {
            branches.push(false);
            if branches.len() > DEPTH_MAX {
                return Err(format!("tr() supports at most {DEPTH_MAX} nesting levels"));
            }
            rest = inner;
        }
        let (script, after) = split_expression(rest);
        check_at(script, Place::Tr, key)?;
        rest = after;
        while branches.last() == Some(&true) {
            rest = rest.strip_prefix('}').ok_or("tr(): expected '}' after script expression")?;
            branches.pop();
        }
        let Some(is_right) = branches.last_mut() else { break };
        *is_right = true;
        rest = rest.strip_prefix(',').ok_or("tr(): expected ',' after script expression")?;
    }
    if rest.is_empty() { Ok(()) } else { Err("tr(): expected ')' after script expression".into()) }
}
