//! The table of options: every name that the command line and `bitcoin.conf` may use.

/// How often an option may be given, and whether it does anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// The last one on the command line counts, or the first one of the file.
    Single,
    /// As [`Kind::Single`]; at the top of the file it is for the main network only.
    SingleOfNetwork,
    /// All count.
    Many,
    /// As [`Kind::Many`]; at the top of the file it is for the main network only.
    ManyOfNetwork,
    /// Accepted, so that command lines and files written for `bitcoind` work, and without effect.
    Ignored,
}

/// One option.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OptionSpec {
    /// The name without dashes.
    pub(crate) name: &'static str,
    /// How it is read.
    pub(crate) kind: Kind,
    /// What the value is, in capitals.
    pub(crate) value: &'static str,
    /// One line for the help text.
    pub(crate) help: &'static str,
}

impl OptionSpec {
    /// Returns the option of that name.
    pub(crate) fn find(name: &str) -> Option<&'static Self> {
        OPTIONS.iter().find(|spec| spec.name == name)
    }
}

const fn spec(
    name: &'static str,
    kind: Kind,
    value: &'static str,
    help: &'static str,
) -> OptionSpec {
    OptionSpec { name, kind, value, help }
}

const fn ignored(name: &'static str) -> OptionSpec {
    spec(name, Kind::Ignored, "VALUE", "Accepted and ignored")
}

use Kind::{Many, ManyOfNetwork, Single, SingleOfNetwork};

/// Every option.
pub(crate) const OPTIONS: &[OptionSpec] = &[
    spec("help", Single, "BOOL", "Print this help (-h, -?)"),
    spec("h", Kind::Ignored, "BOOL", "Print this help"),
    spec("?", Kind::Ignored, "BOOL", "Print this help"),
    spec("version", Single, "BOOL", "Print the version"),
    spec("datadir", Single, "DIR", "Data directory (default: ~/.cofferdam)"),
    spec(
        "conf",
        Single,
        "FILE",
        "Configuration file, relative to the data directory (default: bitcoin.conf)",
    ),
    spec("chain", Single, "NAME", "Network: main, test, testnet4, signet or regtest"),
    spec("regtest", Single, "BOOL", "Same as -chain=regtest"),
    spec("signet", Single, "BOOL", "Same as -chain=signet"),
    spec("testnet", Single, "BOOL", "Same as -chain=test"),
    spec("testnet4", Single, "BOOL", "Same as -chain=testnet4"),
    spec(
        "backend",
        Single,
        "NAME",
        "Database engine: rocksdb, sled or memory (default: the best that is built in)",
    ),
    spec(
        "durability",
        Single,
        "MODE",
        "What survives a power cut: strict, batched, relaxed (default) or async",
    ),
    spec("dbcache", Single, "MIB", "Memory for the UTXO set (default: 450)"),
    spec(
        "coinstatsindex",
        Single,
        "BOOL",
        "Keep size and muhash of the UTXO set for every block (gettxoutsetinfo)",
    ),
    spec(
        "minfreespace",
        Single,
        "MIB",
        "Pause while the disk has less free space than this and the buffer; 0: never (default: 64)",
    ),
    spec(
        "par",
        Single,
        "N",
        "Threads for script checks; 0: one a core, -N: leave N cores free (default: 0)",
    ),
    spec(
        "assumevalid",
        Single,
        "HASH",
        "Skip script checks of this block's ancestors; 0: check all",
    ),
    spec("minimumchainwork", SingleOfNetwork, "HEX", "Minimum work of a chain worth following"),
    spec(
        "testactivationheight",
        Many,
        "NAME@HEIGHT",
        "Height from which segwit, bip34, dersig, cltv or csv holds (regtest only)",
    ),
    spec(
        "vbparams",
        Many,
        "NAME:START:END[:HEIGHT]",
        "Times and least height of a version-bits deployment (regtest only)",
    ),
    spec("test", Many, "OPTION", "bip94: the difficulty rules of testnet4 (regtest only)"),
    spec("signetchallenge", Many, "HEX", "Script that the blocks of a signet satisfy"),
    spec("stopatheight", Single, "HEIGHT", "Stop when the chain has this height"),
    spec("mocktime", Single, "TIME", "Pretend that it is this time (regtest only)"),
    spec(
        "connect",
        ManyOfNetwork,
        "HOST[:PORT]",
        "Connect to this peer only; 0: to none. May be repeated",
    ),
    spec(
        "addnode",
        ManyOfNetwork,
        "HOST[:PORT]",
        "Connect to this peer and keep the connection. May be repeated",
    ),
    spec("listen", Single, "BOOL", "Accept connections (default: 1 unless -connect is used)"),
    spec(
        "bind",
        ManyOfNetwork,
        "ADDR[:PORT]",
        "Listen here (default: all addresses). May be repeated",
    ),
    spec("port", SingleOfNetwork, "PORT", "Port to listen on"),
    spec("maxconnections", Single, "N", "Most connections at a time (default: 125)"),
    spec("timeout", Single, "MS", "Time limit of a connection attempt (default: 5000)"),
    spec("peertimeout", Single, "S", "Time limit of the handshake (default: 60)"),
    spec("uacomment", Many, "TEXT", "Comment in the user agent. May be repeated"),
    spec("server", Single, "BOOL", "Serve JSON-RPC (default: 1)"),
    spec("rpcport", SingleOfNetwork, "PORT", "Port of JSON-RPC"),
    spec(
        "rpcbind",
        ManyOfNetwork,
        "ADDR[:PORT]",
        "Serve JSON-RPC here; loopback addresses only (default: 127.0.0.1)",
    ),
    spec("rpcconnect", Single, "HOST", "Where `rpc` finds the node (default: 127.0.0.1)"),
    spec("rpcuser", Single, "NAME", "User name of JSON-RPC besides the cookie"),
    spec("rpcpassword", Single, "TEXT", "Password of that user"),
    spec("rpcthreads", Single, "N", "Calls that run at a time (default: 16)"),
    spec("rpcworkqueue", Single, "N", "Calls that may wait (default: 64)"),
    spec(
        "rpcclienttimeout",
        Single,
        "S",
        "How long `rpc` waits for a reply; 0: for ever (default: 900)",
    ),
    spec("pid", Single, "FILE", "File of the process id (default: bitcoind.pid)"),
    spec("includeconf", Many, "FILE", "One more configuration file (in bitcoin.conf only)"),
    spec("debug", Many, "CATEGORY", "Write debug lines to debug.log"),
    spec("loglevel", Many, "LEVEL", "Detail of the debug lines: debug or trace"),
    spec(
        "printtoconsole",
        Single,
        "BOOL",
        "Write the log to the standard output as well (default: 1)",
    ),
    ignored("addresstype"),
    ignored("blocknotify"),
    ignored("checkblockindex"),
    ignored("checkblocks"),
    ignored("checklevel"),
    ignored("checkmempool"),
    ignored("daemon"),
    ignored("debugexclude"),
    ignored("disablewallet"),
    ignored("discover"),
    ignored("dns"),
    ignored("dnsseed"),
    ignored("fallbackfee"),
    ignored("fixedseeds"),
    ignored("keypool"),
    ignored("listenonion"),
    ignored("logips"),
    ignored("logratelimit"),
    ignored("logsourcelocations"),
    ignored("logthreadnames"),
    ignored("logtimemicros"),
    ignored("logtimestamps"),
    ignored("natpmp"),
    ignored("persistmempool"),
    ignored("prevoutfetchthreads"),
    ignored("rpcdoccheck"),
    ignored("rpcservertimeout"),
    ignored("shrinkdebugfile"),
    ignored("unsafesqlitesync"),
    ignored("upnp"),
    ignored("v2transport"),
    ignored("wallet"),
    ignored("walletnotify"),
    ignored("whitelist"),
];
