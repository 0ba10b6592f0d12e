//! Types of parameters, by name: the same name means the same in every method.
//!
//! They are checked before a method runs.

/// JSON type of a parameter, as Core's errors call it.
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

/// Returns the type of a parameter that is not a text, by its first name.
pub(super) fn type_of(name: &str) -> JsonType {
    TYPES.iter().find(|(known, _)| *known == name).map_or(Unchecked, |(_, kind)| *kind)
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

use JsonType::{Array, Flag, Number, Object, Unchecked};

const TYPES: &[(&str, JsonType)] = &[
    ("absolute", Flag),
    ("bantime", Number),
    ("blockhashes", Array),
    ("checklevel", Number),
    ("conf_target", Number),
    ("count", Number),
    ("delta_time", Number),
    ("exclude", Array),
    ("height", Number),
    ("include", Array),
    ("include_mempool", Flag),
    ("inputs", Array),
    ("keys", Array),
    ("maxtries", Number),
    ("mempool_sequence", Flag),
    ("n", Number),
    ("nblocks", Number),
    ("nodeid", Number),
    ("nrequired", Number),
    ("num_blocks", Number),
    ("options", Object),
    ("peer_id", Number),
    ("privkeys", Array),
    ("scanobjects", Array),
    ("state", Flag),
    ("submit", Flag),
    ("threshold", Number),
    ("timeout", Number),
    ("timestamp", Number),
    ("transactions", Array),
    ("txids", Array),
    ("txs", Array),
    ("use_index", Flag),
    ("v2transport", Flag),
    ("verbose", Flag),
    ("wait", Number),
];
