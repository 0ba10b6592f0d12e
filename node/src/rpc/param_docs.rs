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

use JsonType::{Array, Flag, Number, Object, Text, Unchecked};

const PARAMS: &[ParamDoc] = &[
    doc("absolute", Flag, "Whether the time is a UNIX time, and not seconds from now"),
    doc("address", Text, "An address"),
    doc("address_type", Text, "\"legacy\", \"p2sh-segwit\" or \"bech32\""),
    doc("bantime", Number, "For how many seconds, or until when; 0: the time of -bantime"),
    doc("blockhash", Text, "The block hash"),
    doc("checklevel", Number, "How thorough the verification is (0 to 4)"),
    doc("command", Text, "What to do"),
    doc("conf_target", Number, "Confirmation target in blocks (1 - 1008)"),
    doc("count", Number, "How many to return"),
    doc("current_tip", Text, "The tip from which a change is waited for"),
    doc("delta_time", Number, "Seconds to go forward"),
    doc("descriptor", Text, "The output descriptor"),
    doc("estimate_mode", Text, "\"unset\", \"economical\" or \"conservative\""),
    doc("filtertype", Text, "The type of the filter: \"basic\""),
    doc("hash_or_height", Unchecked, "The hash or the height of the block"),
    doc("hash_type", Text, "\"hash_serialized_3\", \"muhash\" or \"none\""),
    doc("height", Number, "The height"),
    doc("hexdata", Text, "The bytes in hexadecimal digits"),
    doc("hexstring", Text, "The bytes in hexadecimal digits"),
    doc("include_mempool", Flag, "Whether transactions that wait are looked at"),
    doc("index_name", Text, "The index to return"),
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
    doc("path", Text, "The file"),
    doc("peer_id", Number, "The peer's number, as in getpeerinfo"),
    doc("privkey", Text, "The private key"),
    doc("range", Unchecked, "The end, or begin and end, of the positions to derive"),
    doc("signature", Text, "The signature in base 64"),
    doc("state", Flag, "Whether to switch it on"),
    doc("submit", Flag, "Whether to take the block in before returning"),
    doc("subnet", Text, "An address or a range of addresses"),
    doc("threshold", Number, "Success rate of the estimate"),
    doc("timeout", Number, "How many milliseconds to wait; 0: without end"),
    doc("timestamp", Number, "A UNIX time; 0: the system's time"),
    doc("txid", Text, "The transaction"),
    doc("use_index", Flag, "Whether an index may be used"),
    doc("v2transport", Flag, "Whether to speak the encrypted protocol (BIP324)"),
    doc("verbose", Flag, "True for an object, false for hexadecimal digits or a list"),
    doc("verbosity", Unchecked, "0 for hexadecimal digits, 1 for an object, more for more of it"),
];
