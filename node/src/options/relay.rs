//! Options of relaying transactions and of building blocks.

use super::{OptionSpec, ignored, option};

pub(super) const RELAY_OPTIONS: &[OptionSpec] = &[
    ignored("acceptnonstdtxn"),
    ignored("blockreconstructionextratxn"),
    option("blocksonly", "", "Tell peers that no transactions are wanted", &[]),
    ignored("bytespersigop"),
    ignored("datacarrier"),
    ignored("datacarriersize"),
    ignored("dustrelayfee"),
    ignored("incrementalrelayfee"),
    ignored("maxmempool"),
    ignored("maxorphantx"),
    ignored("mempoolexpiry"),
    ignored("mempoolfullrbf"),
    ignored("minrelaytxfee"),
    ignored("permitbaremultisig"),
    ignored("persistmempool"),
    ignored("persistmempoolv1"),
    ignored("privatebroadcast"),
    ignored("whitelistforcerelay"),
    ignored("whitelistrelay"),
];

pub(super) const BLOCK_CREATION_OPTIONS: &[OptionSpec] = &[
    ignored("blockmaxweight"),
    ignored("blockmintxfee"),
    ignored("blockreservedweight"),
    ignored("blockversion"),
];
