//! Descriptors read, derived and written, against Core.

use super::*;

/// From Core's `rpc_scantxoutset.py`: a master key and what its children's descriptors are.
const MASTER: &str = "tprv8ZgxMBicQKsPd7Uf69XL1XwhmjHopUGep8GuEiJDZmbQz6o58LninorQAfcKZWARbtRtfnLcJ5MQ2AtHcQJCCRUcMRvmDUjyEmNUWwx8UbK";
const KEY: &str = "026dbd8b2315f296d36e6b6920b1579ca75569464875c7ebe869b536a7d9503c8c";

/// A key in the long form.
const LONG: &str = "0479be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8";

fn read(text: &str) -> Result<Descriptor, String> {
    Descriptor::parse(text, Network::Regtest)
}

fn texts(text: &str, index: u32) -> Vec<String> {
    let derived = read(text).expect("valid").derive(index).expect("derivable");
    derived.into_iter().map(|derived| derived.descriptor).collect()
}

#[test]
fn descriptors_become_scripts() {
    let parse = |text| parse(text, Network::Regtest);
    assert_eq!(parse("raw(51)").unwrap().as_bytes(), [0x51]);
    assert_eq!(parse("raw(deadbeef)#89f8spxm").unwrap().len(), 4);
    assert!(parse("raw(deadbeef)#89f8spxx").unwrap_err().message.contains("does not match"));
    let script = parse("addr(mjTkW3DjgyZck4KbiRusZsqTgaYTxdSz6z)").unwrap();
    assert_eq!(
        infer(&script, Network::Regtest).split('#').next(),
        Some("addr(mjTkW3DjgyZck4KbiRusZsqTgaYTxdSz6z)")
    );
    assert!(parse(&format!("combo({KEY})")).unwrap().is_p2wpkh());
}

#[test]
fn children_of_a_master_key_show_their_origin() {
    let one = texts(&format!("combo({MASTER}/0'/0'/0)"), 0);
    let expected = format!("pkh([0c5f9a1e/0h/0h/0]{KEY})");
    assert_eq!(one[1], with_checksum(&expected));
    // With the checksums of Core's test.
    let all = format!("combo({MASTER}/1/1/*)");
    let xpub = "tpubD6NzVbkrYhZ4WaWSyoBvQwbpLkojyoTZPRsgXELWz3Popb3qkjcJyJUGLnL4qHHoQvao8ESaAstxYSnhyswJ76uZPStJRJCTKvosUCJZL5B";
    for text in [all, format!("combo({xpub}/1/1/*)")] {
        assert!(read(&text).unwrap().is_range());
        for (index, key, checksum) in [
            (0, "03e1c5b6e650966971d7e71ef2674f80222752740fc1dfd63bbbd220d2da9bd0fb", "cxmct4w8"),
            (1, "030d820fc9e8211c4169be8530efbc632775d8286167afd178caaf1089b77daba7", "z2t3ypsa"),
            (
                1500,
                "03832901c250025da2aebae2bfb38d5c703a57ab66ad477f9c578bfbcd78abca6f",
                "vchwd07g",
            ),
        ] {
            let expected = format!("pkh([0c5f9a1e/1/1/{index}]{key})#{checksum}");
            assert_eq!(texts(&text, index)[1], expected);
        }
    }
    // And with the addresses that it pays to.
    for (text, index, address_text) in [
        ("/0'/0h/*h", 1500, "n37dAGe6Mq1HGM9t4b6rFEEsDGq7Fcgfqg"),
        ("/0h/0'/*", 1, "mnTg5gVWr3rbhHaKjJv7EEEc76ZqHgSj4S"),
        ("/1/1/*'", 0, "mj8zFzrbBcdaWXowCQ1oPZ4qioBVzLzAp7"),
    ] {
        let scripts = read(&format!("combo({MASTER}{text})")).unwrap().derive(index).unwrap();
        assert_eq!(Some(&scripts[1].script), address(address_text, Network::Regtest).as_ref());
    }
}

#[test]
fn every_function_has_its_script() {
    let kind = |text: &str| read(text).unwrap().derive(0).unwrap()[0].script.clone();
    assert!(kind(&format!("pk({KEY})")).is_p2pk());
    assert!(kind(&format!("wpkh({KEY})")).is_p2wpkh());
    assert!(kind(&format!("sh(wpkh({KEY}))")).is_p2sh());
    assert!(kind(&format!("wsh(multi(1,{KEY}))")).is_p2wsh());
    assert!(kind(&format!("multi(1,{KEY})")).is_multisig());
    assert!(kind(&format!("tr({})", &KEY[2..])).is_p2tr());
    assert!(kind(&format!("rawtr({})", &KEY[2..])).is_p2tr());
    assert_ne!(kind(&format!("rawtr({})", &KEY[2..])), kind(&format!("tr({})", &KEY[2..])));
    let two = read(&format!("pkh({MASTER}/<0;1>/5)")).unwrap().derive(0).unwrap();
    assert_eq!(two.len(), 2);
    let sorted = texts(&format!("sh(sortedmulti(1,{KEY},{MASTER}/7))"), 0);
    assert!(sorted[0].starts_with("sh(multi(1,["), "{}", sorted[0]);
}

#[test]
fn sorted_keys_stand_in_the_order_of_their_bytes_wherever_they_are() {
    let (one, two) = (
        format!("02{}", &KEY[2..]),
        format!("03{}", "c6047f9441ed7d6d3045406e95c07cd85c778e4b8cef3ca7abac09b95c709ee5"),
    );
    let script = |text: &str| read(text).unwrap().derive(0).unwrap()[0].script.clone();
    let sorted = script(&format!("sortedmulti(1,{two},{one})"));
    assert_eq!(sorted, script(&format!("multi(1,{one},{two})")));
    for wrap in ["sh", "wsh"] {
        let sorted = script(&format!("{wrap}(sortedmulti(1,{two},{one}))"));
        assert_eq!(sorted, script(&format!("{wrap}(multi(1,{one},{two}))")));
    }
    // By x-only keys the other way round.
    let (x_one, x_two) = (&one[2..], &two[2..]);
    let mut x_only = [x_one, x_two];
    x_only.sort_unstable();
    let [first, second] = x_only;
    let text = format!("tr({x_one},{{sortedmulti_a(2,{second},{first}),pk({x_two})}})");
    let plain = format!("tr({x_one},{{multi_a(2,{first},{second}),pk({x_two})}})");
    assert_eq!(script(&text), script(&plain));
    // Which come first differs from index to index.
    let ranged = format!("sortedmulti(1,{MASTER}/0/*,{MASTER}/1/*)");
    let firsts: Vec<bool> = (0..16)
        .map(|index| texts(&ranged, index)[0].split(',').nth(1).unwrap().contains("/0/"))
        .collect();
    assert!(firsts.contains(&true) && firsts.contains(&false), "{firsts:?}");
}

#[test]
fn what_is_no_descriptor_is_refused_in_words() {
    for (text, message) in [
        ("wpkh(x)", "wpkh(): key 'x' is not valid"),
        ("pkh()", "No key provided"),
        ("what(51)", "'what(51)' is not a valid descriptor function"),
        ("raw(5)", "Raw script is not hex"),
        ("raw()", "Raw script is not hex"),
        ("addr(1BoatSLRHtKNngkdXEeobR76b53LETtpyT)", "Address is not valid"),
        ("wsh(", "'wsh(' is not a valid descriptor function"),
        (
            "sh(multi(2))",
            "Cannot have 0 keys in multisig; must have between 1 and 20 keys, inclusive",
        ),
        ("pkh([0c5f9a1]x)", "Fingerprint is not 4 bytes (7 characters instead of 8 characters)"),
        ("pkh(02)", "Pubkey '02' is invalid"),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.contains(message), "{text}: {error}");
    }
    // Hardened children need the private key.
    let xpub = "tpubD6NzVbkrYhZ4WaWSyoBvQwbpLkojyoTZPRsgXELWz3Popb3qkjcJyJUGLnL4qHHoQvao8ESaAstxYSnhyswJ76uZPStJRJCTKvosUCJZL5B";
    assert!(read(&format!("pkh({xpub}/1/*)")).unwrap().derive(5).is_some());
    assert!(read(&format!("pkh({xpub}/1/*h)")).unwrap().derive(5).is_none());
}

#[test]
fn a_function_or_a_key_in_the_wrong_place_is_refused_as_by_core() {
    let x_only = &KEY[2..];
    for (text, message) in [
        (format!("wpkh({LONG})"), "wpkh(): Uncompressed keys are not allowed"),
        (format!("sh(wpkh({LONG}))"), "wpkh(): Uncompressed keys are not allowed"),
        (format!("wsh(pk({LONG}))"), "pk(): Uncompressed keys are not allowed"),
        (format!("wsh(multi(1,{LONG}))"), "Multi: Uncompressed keys are not allowed"),
        (format!("wsh(and_v(v:pk({LONG}),older(1)))"), "Uncompressed keys are not allowed"),
        (format!("tr({LONG})"), "tr(): Uncompressed keys are not allowed"),
        (format!("pkh( {KEY})"), &format!("pkh(): Key ' {KEY}' is invalid due to whitespace")),
        ("sh(raw(51))".into(), "Can only have raw() at top level"),
        ("wsh(addr(x))".into(), "Can only have addr() at top level"),
        (format!("sh(combo({KEY}))"), "Can only have combo() at top level"),
        (format!("wsh(sh(pk({KEY})))"), "Can only have sh() at top level"),
        (format!("wsh(wsh(pk({KEY})))"), "Can only have wsh() at top level or inside sh()"),
        (format!("wsh(wpkh({KEY}))"), "Can only have wpkh() at top level or inside sh()"),
        (format!("sh(tr({x_only}))"), "Can only have tr at top level"),
        (format!("sh(rawtr({x_only}))"), "Can only have rawtr at top level"),
        (
            format!("tr({x_only},multi(1,{KEY}))"),
            "Can only have multi/sortedmulti at top level, in sh(), or in wsh()",
        ),
        (format!("wsh(multi_a(1,{KEY}))"), "Can only have multi_a/sortedmulti_a inside tr()"),
        ("wsh(0)".into(), "0 is not satisfiable"),
        ("wsh(1)".into(), "1 is not sane: witnesses without signature exist"),
        (
            format!("wsh(and_v(v:pk({KEY}),and_v(v:older(1),older(4194305))))"),
            "and_v(v:older(1),older(4194305)) is not sane: contains mixes of timelocks expressed in blocks and seconds",
        ),
        (
            format!("wsh(and_v(v:sha256({}?),pk({KEY})))", "11".repeat(31)),
            "A function is needed within P2WSH",
        ),
        // A key comes before what is wrong with the whole.
        ("wsh(or_b(pk(x),s:pk(x)))".into(), "key 'x' is not valid"),
        ("<0;1>raw(51)".into(), "'<0;1>raw(51)' is not a valid descriptor function"),
        ("addr(x)y)".into(), "'addr(x)y' is not a valid descriptor function"),
        // What follows a descriptor has no words in Core.
        (format!("pk({KEY}))"), ""),
        (format!("sh(pk({KEY}),{KEY})"), ""),
        (format!("rawtr({x_only},{x_only})"), "rawtr(): only one key expected."),
        (
            format!("wsh(multi(1,{MASTER}/<0;1>,{MASTER}/<2;3;4>))"),
            "multi(): Multipath derivation paths have mismatched lengths",
        ),
        (format!("sh({KEY})"), "A function is needed within P2SH"),
        (format!("wsh({KEY})"), "A function is needed within P2WSH"),
        (
            format!("sh(and_v(v:pk({KEY}),older(1)))"),
            "Miniscript expressions can only be used in wsh or tr.",
        ),
    ] {
        assert_eq!(read(&text).unwrap_err(), message, "{text}");
    }
}

#[test]
fn the_arguments_of_a_multisignature_and_of_a_path_are_judged_as_by_core() {
    let (x_only, keys) = (&KEY[2..], |count: usize| [KEY].repeat(count).join(","));
    for (text, message) in [
        (format!("multi(0,{KEY})"), "Multisig threshold cannot be 0, must be at least 1"),
        (format!("multi(+1,{KEY})"), "Multi threshold '+1' is not valid"),
        (
            format!("multi(2,{KEY})"),
            "Multisig threshold cannot be larger than the number of keys; threshold is 2 but only 1 keys specified",
        ),
        (
            format!("multi(1,{})", keys(4)),
            "Cannot have 4 pubkeys in bare multisig; only at most 3 pubkeys",
        ),
        (
            format!("sh(multi(1,{}))", keys(16)),
            "P2SH script is too large, 547 bytes is larger than 520 bytes",
        ),
        (
            format!("pkh({MASTER}/<0;1>/<2;3>)"),
            "pkh(): Multiple multipath key path specifiers found",
        ),
        (
            format!("pkh({MASTER}/<1;2;01>)"),
            "pkh(): Duplicated key path value 1 in multipath specifier",
        ),
        (
            format!("pkh({MASTER}/<1h;1'>)"),
            "pkh(): Duplicated key path value 2147483649 in multipath specifier",
        ),
    ] {
        assert_eq!(read(&text).unwrap_err(), message, "{text}");
    }
    for text in [
        format!("pkh({LONG})"),
        format!("sh(multi(1,{LONG}))"),
        format!("sh(wsh(multi(1,{KEY})))"),
        format!("wsh(multi(1,{MASTER}/<0;1>,{MASTER}/<2;3>))"),
        format!("tr({x_only},{{pk({KEY}),and_v(v:pk({x_only}),older(1))}})"),
        format!("tr({x_only},multi_a(1,{x_only}))"),
        // A part that cannot be satisfied is no fault.
        format!("wsh(thresh(2,pk({KEY}),s:pk({MASTER}/1),sln:older(9)))"),
        format!("wsh(and_v(v:sha256({}),pk({KEY})))", "1A".repeat(32)),
    ] {
        assert!(read(&text).is_ok(), "{text}: {:?}", read(&text));
    }
}

#[test]
fn what_only_looks_like_a_key_is_told_as_by_core() {
    let (off, half) = ("ff".repeat(32), "11".repeat(64));
    for (script, text) in [
        // No descriptor may name these keys, but Core's own texts do.
        (format!("2102{off}ac"), format!("pk(02{off})")),
        (format!("512102{off}51ae"), format!("multi(1,02{off})")),
        (format!("4107{half}ac"), format!("raw(4107{half}ac)")),
        (format!("514107{half}51ae"), format!("raw(514107{half}51ae)")),
        // OP_TUCK is no number, two keys are not one, and 17 has no operation.
        (format!("5121{KEY}7dae"), format!("raw(5121{KEY}7dae)")),
        (format!("5121{KEY}21{KEY}51ae"), format!("raw(5121{KEY}21{KEY}51ae)")),
        (format!("5121{KEY}51ae51"), format!("raw(5121{KEY}51ae51)")),
        (
            format!("51{}0111ae", format!("21{KEY}").repeat(17)),
            format!("multi(1,{})", [KEY].repeat(17).join(",")),
        ),
    ] {
        let script = ScriptBuf::from_hex(&script).unwrap();
        assert_eq!(infer(&script, Network::Regtest), with_checksum(&text));
    }
    let taproot = ScriptBuf::from_hex(&format!("5120{off}")).unwrap();
    let address = Address::from_script(&taproot, Network::Regtest).unwrap();
    assert_eq!(infer(&taproot, Network::Regtest), with_checksum(&format!("addr({address})")));
}

#[test]
fn the_tree_of_a_taproot_descriptor_is_judged_as_by_core() {
    let key = &KEY[2..];
    let deep = |levels: usize| {
        let (open, close) = (format!("{{pk({key}),").repeat(levels), "}".repeat(levels));
        format!("{open}pk({key}){close}")
    };
    let many = |count: u32| {
        let keys: Vec<String> = (0..count).map(|child| format!("{MASTER}/{child}")).collect();
        keys.join(",")
    };
    for (tree, message) in [
        (String::new(), "'' is not a valid descriptor function"),
        (format!("{{pk({key})}}"), "tr(): expected ',' after script expression"),
        (format!("{{pk({key}),pk({key})"), "tr(): expected '}' after script expression"),
        (format!("pk({key}),pk({key})"), "tr(): expected ')' after script expression"),
        (format!("{{pk({key}),what(1)}}"), "'what(1)' is not a valid descriptor function"),
        (deep(129), "tr() supports at most 128 nesting levels"),
        ("older(1)".into(), "older(1) is not sane: witnesses without signature exist"),
        (
            "multi_a(1)".into(),
            "Cannot have 0 keys in multi_a; must have between 1 and 999 keys, inclusive",
        ),
    ] {
        let text = format!("tr({key},{tree})");
        assert_eq!(read(&text).unwrap_err(), message, "{text}");
    }
    assert_eq!(read(&format!("tr({key}){{)")).unwrap_err(), "tr: expected ',', got ')'");
    for tree in [deep(1), deep(128), format!("multi_a(21,{})", many(21))] {
        let text = format!("tr({key},{tree})");
        assert!(read(&text).is_ok(), "{text}: {:?}", read(&text));
    }
}

#[test]
fn what_a_block_cannot_pay_to_is_told_as_in_core() {
    let xpub = "tpubD6NzVbkrYhZ4XgiXtGrdW5XDAPFCL9h7we1vwNCpn8tGbBcgfVYjXyhWo4E1xkh56hjod1RhGjxbaTLV3X4FyWuejifB9jusQ46QzG87VKp";
    for (path, code, message) in [
        ("0'/0", -5, "Cannot derive script without private keys"),
        ("0/*h", -8, "Ranged descriptor not accepted. Maybe pass through deriveaddresses first?"),
        ("<0;1>/2", -8, "Multipath descriptor not accepted"),
    ] {
        let error = parse(&format!("pkh({xpub}/{path})"), Network::Regtest).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (code, message));
    }
    // It is a descriptor all the same.
    assert!(read(&format!("pkh({xpub}/0'/0)")).unwrap().derive(0).is_none());
}

#[test]
fn multisignature_scripts_show_their_keys_also_behind_a_hash() {
    let other = "02c6047f9441ed7d6d3045406e95c07cd85c778e4b8cef3ca7abac09b95c709ee5";
    let script = ScriptBuf::from_hex(&format!("5221{KEY}21{other}52ae")).unwrap();
    let inner = format!("multi(2,{KEY},{other})");
    assert_eq!(infer(&script, Network::Regtest), with_checksum(&inner));
    assert_eq!(infer_witness(&script), Some(with_checksum(&format!("wsh({inner})"))));
    // A miniscript, and one that anybody could satisfy.
    let script = ScriptBuf::from_hex(&format!("21{KEY}ad029000b2")).unwrap();
    let inner = format!("wsh(and_v(v:pk({KEY}),older(144)))");
    assert_eq!(infer_witness(&script), Some(with_checksum(&inner)));
    assert_eq!(infer_witness(Script::from_bytes(&[0x51])), None);
}
