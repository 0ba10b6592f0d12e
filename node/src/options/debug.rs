//! Options for tests and for those who look for a fault.

use super::Rule::DebugOnly;
use super::{OptionSpec, ignored, option};

pub(super) const OPTIONS: &[OptionSpec] = &[
    option("help-debug", "", "Print the help with the options for debugging and exit", &[]),
    option("fastprune", "", "Small block files and early pruning, for tests", &[DebugOnly]),
    option(
        "maxtipage",
        "n",
        "Age of the tip in seconds above which the node is in initial block download (default: 86400)",
        &[DebugOnly],
    ),
    option(
        "mocktime",
        "n",
        "Pretend that it is this UNIX time; regtest only (default: 0)",
        &[DebugOnly],
    ),
    option(
        "stopafterblockimport",
        "",
        "Stop when all block files are imported (default: 0)",
        &[DebugOnly],
    ),
    option(
        "stopatheight",
        "n",
        "Stop when the chain has this height; 0: never (default: 0)",
        &[DebugOnly],
    ),
    option(
        "test",
        "option",
        "For tests only: bip94: the difficulty rules of testnet4; addrman: a deterministic address manager; reindex_after_failure_noninteractive_yes: rebuild what cannot be opened",
        &[DebugOnly],
    ),
    option(
        "testactivationheight",
        "name@height",
        "Height from which segwit, bip34, dersig, cltv or csv holds; not on the main network",
        &[DebugOnly],
    ),
    option(
        "checkblocks",
        "n",
        "Verify so many blocks again at the start; 0: all (default: none, or 6 if -checklevel is given)",
        &[DebugOnly],
    ),
    option(
        "checklevel",
        "n",
        "How thoroughly -checkblocks verifies, 0 to 4 (default: 3)",
        &[DebugOnly],
    ),
    option("uacomment", "cmt", "Comment in the user agent. May be repeated", &[]),
    ignored("acceptstalefeeestimates"),
    ignored("capturemessages"),
    option(
        "checkaddrman",
        "n",
        "Look whether the tables of addresses are sound once in so many uses; 0: never (default: 0)",
        &[DebugOnly],
    ),
    ignored("checkblockindex"),
    ignored("checkmempool"),
    ignored("dbcrashratio"),
    ignored("deprecatedrpc"),
    ignored("forcecompactdb"),
    ignored("limitancestorcount"),
    ignored("limitclustercount"),
    ignored("limitclustersize"),
    ignored("limitdescendantcount"),
    ignored("maxsigcachesize"),
    ignored("printpriority"),
];
