//! Options of the storage engine, which `bitcoind` does not have.

use super::{OptionSpec, option};

pub(super) const OPTIONS: &[OptionSpec] = &[
    option(
        "backend",
        "name",
        "Database engine: rocksdb, sled or memory (default: the best that is built in)",
        &[],
    ),
    option(
        "durability",
        "mode",
        "What survives a power cut: strict, batched, relaxed or async (default: relaxed)",
        &[],
    ),
    option(
        "minfreespace",
        "n",
        "Pause while the disk has less free space, in MiB, than this and the buffer; 0: never (default: 64)",
        &[],
    ),
];
