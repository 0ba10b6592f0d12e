//! What parameters are, by name: the same name means the same in every method.
//!
//! The types are checked before a method runs, and both columns are in its help.

/// JSON type of a parameter, as Core's help and errors call it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum JsonType {
    /// A text.
    Text,
    /// A number.
    Number,
    /// A truth value.
    Flag,
    /// An array.
    Array,
    /// An object.
    Object,
    /// The method looks itself.
    Unchecked,
}

impl JsonType {
    /// Returns the name in help texts.
    pub(super) const fn in_help(self) -> &'static str {
        match self {
            Self::Text => "string",
            Self::Number => "numeric",
            Self::Flag => "boolean",
            Self::Array => "json array",
            Self::Object => "json object",
            Self::Unchecked => "numeric or string",
        }
    }

    /// Returns the name in errors; `None` if anything goes.
    pub(super) const fn in_errors(self) -> Option<&'static str> {
        match self {
            Self::Text => Some("string"),
            Self::Number => Some("number"),
            Self::Flag => Some("bool"),
            Self::Array => Some("array"),
            Self::Object => Some("object"),
            Self::Unchecked => None,
        }
    }
}

/// A parameter's type and meaning.
#[derive(Clone, Copy, Debug)]
pub(super) struct ParamDoc {
    name: &'static str,
    /// Its type.
    pub(super) kind: JsonType,
    /// What it is for.
    pub(super) about: &'static str,
}

impl ParamDoc {
    /// Returns what is known of a parameter, by its first name.
    pub(super) fn find(name: &str) -> Option<&'static Self> {
        PARAMS.iter().find(|doc| doc.name == name)
    }
}

const fn doc(name: &'static str, kind: JsonType, about: &'static str) -> ParamDoc {
    ParamDoc { name, kind, about }
}

/// Returns the options of a method that may be given as arguments by their names.
pub(super) fn option_names(method: &str) -> &'static [&'static str] {
    match method {
        "dumptxoutset" => &["rollback", "in_memory"],
        "gettxspendingprevout" => &["mempool_only", "return_spending_tx"],
        "importmempool" => {
            &["use_current_time", "apply_fee_delta_priority", "apply_unbroadcast_set"]
        }
        "scanblocks" => &["filter_false_positives"],
        _ => &[],
    }
}

/// Returns how a parameter is written in a usage line, where its name is not enough.
pub(super) fn usage(method: &str, name: &str) -> Option<&'static str> {
    let row = USAGES.iter().find(|(methods, known, _)| {
        *known == name && (methods.is_empty() || methods.contains(&method))
    });
    row.map(|(.., text)| *text)
}

/// Methods (none: all), parameter, text.
const USAGES: &[(&[&str], &str, &str)] = &[
    (&[], "blockhashes", "[\"blockhash\",...]"),
    (&[], "exclude", "[\"exclude_category\",...]"),
    (&[], "include", "[\"include_category\",...]"),
    (&[], "inputs", "[{\"txid\":\"hex\",\"vout\":n,\"sequence\":n},...]"),
    (&[], "keys", "[\"key\",...]"),
    (&["dumptxoutset"], "options", "{\"rollback\":n,\"in_memory\":bool,...}"),
    (
        &["gettxspendingprevout"],
        "options",
        "{\"mempool_only\":bool,\"return_spending_tx\":bool,...}",
    ),
    (&["gettxspendingprevout"], "outputs", "[{\"txid\":\"hex\",\"vout\":n},...]"),
    (&[], "outputs", "[{\"address\":amount,...},{\"data\":\"hex\"},...]"),
    (&[], "package", "[\"rawtx\",...]"),
    (
        &[],
        "prevtxs",
        "[{\"txid\":\"hex\",\"vout\":n,\"scriptPubKey\":\"hex\",\"redeemScript\":\"hex\",\"witnessScript\":\"hex\",\"amount\":amount},...]",
    ),
    (&[], "privkeys", "[\"privatekey\",...]"),
    (&[], "rawtxs", "[\"rawtx\",...]"),
    (
        &[],
        "template_request",
        "{\"mode\":\"str\",\"capabilities\":[\"str\",...],\"rules\":[\"segwit\",\"str\",...],\"longpollid\":\"str\",\"data\":\"hex\"}",
    ),
    (&[], "transactions", "[\"rawtx/txid\",...]"),
    (&[], "txids", "[\"txid\",...]"),
    (&[], "txs", "[\"hexstring\",...]"),
];

use JsonType::{Array, Flag, Number, Object, Text, Unchecked};

const PARAMS: &[ParamDoc] = &[
    doc("absolute", Flag, "Whether the time is a UNIX time, and not seconds from now"),
    doc("address", Text, "An address"),
    doc("address_type", Text, "\"legacy\", \"p2sh-segwit\" or \"bech32\""),
    doc("bantime", Number, "For how many seconds, or until when; 0: the time of -bantime"),
    doc("blockhash", Text, "The block hash"),
    doc("blockhashes", Array, "The block hashes"),
    doc("checklevel", Number, "How thorough the verification is (0 to 4)"),
    doc("command", Text, "What to do"),
    doc("conf_target", Number, "Confirmation target in blocks (1 - 1008)"),
    doc("count", Number, "How many to return"),
    doc("current_tip", Text, "The tip from which a change is waited for"),
    doc("delta_time", Number, "Seconds to go forward"),
    doc("descriptor", Text, "The output descriptor"),
    doc("estimate_mode", Text, "\"unset\", \"economical\" or \"conservative\""),
    doc("exclude", Array, "The categories to take out of the debug log"),
    doc("filtertype", Text, "The type of the filter: \"basic\""),
    doc("hash_or_height", Unchecked, "The hash or the height of the block"),
    doc("hash_type", Text, "\"hash_serialized_3\", \"muhash\" or \"none\""),
    doc("height", Number, "The height"),
    doc("hexdata", Text, "The bytes in hexadecimal digits"),
    doc("hexstring", Text, "The bytes in hexadecimal digits"),
    doc("include", Array, "The categories to put into the debug log"),
    doc("include_mempool", Flag, "Whether transactions that wait are looked at"),
    doc("index_name", Text, "The index to return"),
    doc("inputs", Array, "The inputs: each txid, vout and perhaps sequence"),
    doc("keys", Array, "The public keys in hexadecimal digits"),
    doc("maxtries", Number, "How many nonces to try"),
    doc("mempool_sequence", Flag, "Whether the sequence number is returned as well"),
    doc("message", Text, "The message"),
    doc("mode", Text, "What to return: \"stats\" or \"mallocinfo\""),
    doc("n", Number, "Index of the output"),
    doc("nblocks", Number, "The number of blocks"),
    doc("node", Text, "The address of the peer"),
    doc("nodeid", Number, "The peer's number, as in getpeerinfo"),
    doc("nrequired", Number, "How many of the keys have to sign"),
    doc("num_blocks", Number, "How many blocks to mine"),
    doc("options", Object, "Further settings"),
    doc("outputs", Unchecked, "The outputs"),
    doc("path", Text, "The file"),
    doc("peer_id", Number, "The peer's number, as in getpeerinfo"),
    doc("privkey", Text, "The private key"),
    doc("privkeys", Array, "The private keys in base58"),
    doc("range", Unchecked, "The end, or begin and end, of the positions to derive"),
    doc("scanobjects", Array, "Descriptors, or objects with desc and range"),
    doc("signature", Text, "The signature in base 64"),
    doc("state", Flag, "Whether to switch it on"),
    doc("submit", Flag, "Whether to take the block in before returning"),
    doc("subnet", Text, "An address or a range of addresses"),
    doc("threshold", Number, "Success rate of the estimate"),
    doc("timeout", Number, "How many milliseconds to wait; 0: without end"),
    doc("timestamp", Number, "A UNIX time; 0: the system's time"),
    doc("transactions", Array, "Transactions in hexadecimal digits, or ids of such that wait"),
    doc("txid", Text, "The transaction"),
    doc("txids", Array, "The transactions"),
    doc("txs", Array, "The transactions in hexadecimal digits"),
    doc("use_index", Flag, "Whether an index may be used"),
    doc("v2transport", Flag, "Whether to speak the encrypted protocol (BIP324)"),
    doc("verbose", Flag, "True for an object, false for hexadecimal digits or a list"),
    doc("verbosity", Unchecked, "0 for hexadecimal digits, 1 for an object, more for more of it"),
    doc("wait", Number, "How many milliseconds to wait"),
];
