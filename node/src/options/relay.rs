//! Options of relaying transactions and of building blocks.

use super::Rule::DebugOnly;
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
    option(
        "maxmempool",
        "n",
        "Memory in MB for transactions that wait for a block (default: 300)",
        &[],
    ),
    ignored("maxorphantx"),
    ignored("mempoolexpiry"),
    ignored("mempoolfullrbf"),
    ignored("minrelaytxfee"),
    ignored("permitbaremultisig"),
    option(
        "persistmempool",
        "",
        "Write the transactions that wait for a block to mempool.dat at a stop, and read them at the start (default: 1)",
        &[],
    ),
    ignored("persistmempoolv1"),
    ignored("privatebroadcast"),
    option(
        "whitelistforcerelay",
        "",
        "Give forcerelay where -whitelist or -whitebind names no permissions (default: 0)",
        &[],
    ),
    option(
        "whitelistrelay",
        "",
        "Give relay where -whitelist or -whitebind names no permissions (default: 1)",
        &[],
    ),
];

pub(super) const BLOCK_CREATION_OPTIONS: &[OptionSpec] = &[
    option("blockmaxweight", "n", "Most weight of a new block (default: 4000000)", &[DebugOnly]),
    option(
        "blockmintxfee",
        "amt",
        "Least fee rate in BTC/kvB of transactions in a new block (default: 0.00000001)",
        &[],
    ),
    option(
        "blockreservedweight",
        "n",
        "Weight that a new block leaves for its header and coinbase (default: 8000)",
        &[],
    ),
    option("blockversion", "n", "Version of new blocks; regtest only", &[DebugOnly]),
];
