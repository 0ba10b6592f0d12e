//! Options of the node as a whole.

use super::Rule::{DebugOnly, NoNegation};
use super::{OptionSpec, ignored, option};

pub(super) const OPTIONS: &[OptionSpec] = &[
    option("help", "", "Print this help and exit (also -h or -?)", &[]),
    option("version", "", "Print version and exit", &[]),
    option(
        "alertnotify",
        "cmd",
        "Run this command when there is a warning about the chain (%s in it is the warning)",
        &[],
    ),
    option(
        "allowignoredconf",
        "",
        "A bitcoin.conf in the data directory that is not read is a warning instead of an error",
        &[],
    ),
    option("assumevalid", "hex", "Skip script checks of this block's ancestors; 0: check all", &[]),
    option(
        "blocksdir",
        "dir",
        "Directory of the subdirectory blocks with the block files (default: the data directory)",
        &[],
    ),
    option(
        "blockfilterindex",
        "type",
        "Keep the filter of each block (BIP 157); the type is basic, as is 1 (default: 0)",
        &[],
    ),
    option(
        "blocknotify",
        "cmd",
        "Run this command when the best block changes (%s in it is the block's hash)",
        &[],
    ),
    option(
        "conf",
        "file",
        "Configuration file, relative to the data directory; only on the command line (default: bitcoin.conf)",
        &[],
    ),
    option(
        "coinstatsindex",
        "",
        "Keep size and muhash of the UTXO set for every block, for gettxoutsetinfo (default: 0)",
        &[],
    ),
    option("daemon", "", "Run in the background (default: 0)", &[]),
    option("daemonwait", "", "As -daemon, and return when the node is ready (default: 0)", &[]),
    option("datadir", "dir", "Data directory (default: ~/.cofferdam)", &[NoNegation]),
    option("dbcache", "n", "Memory for the UTXO set in MiB (default: 450)", &[]),
    option(
        "includeconf",
        "file",
        "One more configuration file, relative to the data directory; only in the configuration file",
        &[],
    ),
    option("loadblock", "file", "Import blocks from this file at the start. May be repeated", &[]),
    option("minimumchainwork", "hex", "Minimum work of a chain worth following", &[DebugOnly]),
    option(
        "par",
        "n",
        "Threads for script checks; 0: one a core, -n: leave n cores free (default: 0)",
        &[],
    ),
    option(
        "pid",
        "file",
        "File of the process id, relative to the directory of the network (default: bitcoind.pid)",
        &[],
    ),
    option(
        "prune",
        "n",
        "Remove old block files: 0 never, 1 when pruneblockchain asks, from 550 on to stay below so many MiB. Not with -txindex; going back needs -reindex, which downloads the chain again (default: 0)",
        &[],
    ),
    option("reindex", "", "Build block index and UTXO set anew from the block files", &[]),
    option(
        "reindex-chainstate",
        "",
        "Build the UTXO set anew from the blocks that are indexed",
        &[],
    ),
    option(
        "settings",
        "file",
        "File of settings that other programs change, relative to the directory of the network; -nosettings: none (default: settings.json)",
        &[],
    ),
    option("shutdownnotify", "cmd", "Run this command before the node stops", &[]),
    option("startupnotify", "cmd", "Run this command when the node is ready", &[]),
    option(
        "txindex",
        "",
        "Keep where each transaction is, for getrawtransaction. With -backend=lsm this takes some 2 GB of memory on the main network, up to twice that for a while (default: 0)",
        &[],
    ),
    option(
        "blocksxor",
        "",
        "Obfuscate the block files of a new data directory with a random key (default: 1)",
        &[],
    ),
    ignored("dbbatchsize"),
    ignored("prevoutfetchthreads"),
    option(
        "txospenderindex",
        "",
        "Not in this program, which refuses to start with it (default: 0)",
        &[DebugOnly],
    ),
];
