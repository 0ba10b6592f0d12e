//! Options of the storage engine, which `bitcoind` does not have.

use super::{OptionSpec, option};

pub(super) const OPTIONS: &[OptionSpec] = &[
    option(
        "backend",
        "name",
        "Database engine: lsm, rocksdb, sled or memory (default: lsm, or what the directory has)",
        &[],
    ),
    option("copy", "", "With import --from-core: copy block files instead of linking them", &[]),
    option(
        "durability",
        "mode",
        "What survives a power cut: strict, batched, relaxed or async (default: relaxed)",
        &[],
    ),
    option(
        "from-core",
        "dir",
        "With import: take over the block files of this data directory of Bitcoin Core, in place",
        &[],
    ),
    option(
        "metrics",
        "addr[:port]",
        "Show a status page at / and figures for Prometheus at /metrics here (default: off; without a value 127.0.0.1:9332)",
        &[],
    ),
    option(
        "minfreespace",
        "n",
        "Pause while the disk has less free space, in MiB, than this and the buffer; 0: never (default: 64)",
        &[],
    ),
];
