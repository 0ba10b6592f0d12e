//! Where our answers are not Bitcoin Core's, and why: all of it.
//!
//! The test fails over a difference that is not listed, and over a row that nothing needs any more.

/// A difference that is meant.
#[derive(Debug)]
pub(super) struct Exception {
    /// The method; `*` for all of them.
    pub(super) method: &'static str,
    /// The place, as `Difference` has it; a `*` at the end stands for anything.
    pub(super) path: &'static str,
    /// Why.
    pub(super) reason: &'static str,
}

const fn row(method: &'static str, path: &'static str, reason: &'static str) -> Exception {
    Exception { method, path, reason }
}

/// For what Core has and we are to have: such a row may be more than is needed.
pub(super) const NOT_YET: &str = "not yet";

/// For what depends on when it is asked: it differs or not.
pub(super) const MOMENT: &str = "another moment";

/// Every difference that is meant.
pub(super) const EXCEPTIONS: &[Exception] = &[
    row("help", "", "ours lists our methods"),
    row("getblockchaininfo", "size_on_disk", "our files do not end in room for more; other bytes"),
    row("*", "warnings", "Core says that it is a build of an unreleased source"),
    row("gettxoutsetinfo", "disk_size", "another database"),
    row("getrpcinfo", "logpath", "another directory"),
    row("getrpcinfo", "active_commands[].duration", MOMENT),
    row("uptime", "", MOMENT),
    row("getnetworkinfo", "version", "our own version"),
    row("getnetworkinfo", "subversion", "our own name"),
    row("getnettotals", "timemillis", "another moment; Core's is not the pretended time"),
    row("getrawmempool", "*", "no policy: what is taken back from blocks waits; none for relay"),
    row("addconnection", "error", "the text is our help of the method"),
    row("getchainstates", "chainstates[].coins_db_cache_bytes", "another database"),
    row("getchainstates", "chainstates[].coins_tip_cache_bytes", "another cache"),
    row("getmemoryinfo", "locked*", "no wallet: no pool of memory for secrets"),
    row("estimaterawfee", "*", "transactions are not relayed, there is nothing to estimate from"),
    row("estimatesmartfee", "blocks", "Core counts the blocks since it first saw a transaction"),
    row("getmempoolinfo", "usage", "memory of another program"),
    row(
        "getmempoolinfo",
        "unbroadcastcount",
        "transactions are not relayed, nothing waits for that",
    ),
    row("getmempoolentry", "unbroadcast", "transactions are not relayed, nothing waits for that"),
    row("getblocktemplate", "longpollid", "its end counts changes of another program's queue"),
    row(
        "getblocktemplate",
        "*",
        "Core gives the same template for five seconds, and the pretended time stands still",
    ),
    row("getmininginfo", "currentblock*", "of the last template, see getblocktemplate"),
    row("savemempool", "filename", "another directory"),
    row("sendrawtransaction", "error", "a rival is refused: there is no replacement by fee"),
    row("testmempoolaccept", "[].reject-*", "no policy for scripts: refused for another reason"),
];

/// Methods of Core's that we do not have, and why.
pub(super) const MISSING: &[(&str, &str)] = &[
    ("abortprivatebroadcast", "transactions are not relayed"),
    ("analyzepsbt", "a wallet's tool"),
    ("combinepsbt", "a wallet's tool"),
    ("converttopsbt", "a wallet's tool"),
    ("createpsbt", "a wallet's tool"),
    ("decodepsbt", "a wallet's tool"),
    ("descriptorprocesspsbt", "a wallet's tool"),
    ("exportasmap", "there is no map of networks in the program"),
    ("finalizepsbt", "a wallet's tool"),
    ("getprivatebroadcastinfo", "transactions are not relayed"),
    ("joinpsbts", "a wallet's tool"),
    ("utxoupdatepsbt", "a wallet's tool"),
];

/// Methods whose help is not Core's, and why.
pub(super) const HELP: &[(&str, &str)] = &[
    ("dumptxoutset", "what differs is kept in memory; Core's node loads the file, not ours"),
    ("echo", "Core's does not say what is returned"),
    ("echojson", "Core's does not say what is returned"),
    ("estimaterawfee", "transactions are not relayed, there is never an estimate"),
    ("estimatesmartfee", "transactions are not relayed, there is never an estimate"),
    ("generatetoaddress", "no wallet in the examples"),
    ("getblockchaininfo", "no -deprecatedrpc"),
    ("getchainstates", "other caches"),
    ("getmemoryinfo", "no wallet, no mallocinfo"),
    ("getmininginfo", "no -deprecatedrpc"),
    ("getnetworkinfo", "no -deprecatedrpc"),
    ("getorphantxs", "transactions are not relayed, there are never orphans"),
    ("getrawtransaction", "no wallet"),
    ("gettxout", "no wallet in the examples"),
    ("loadtxoutset", "every block is validated"),
    ("sendrawtransaction", "no relay, no policy, no wallet"),
    ("stop", "our own name"),
    ("submitpackage", "no relay, no policy"),
    ("testmempoolaccept", "no policy, no wallet"),
    ("verifymessage", "no wallet in the examples"),
];
