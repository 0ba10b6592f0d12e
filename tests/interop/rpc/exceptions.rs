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

/// Every difference that is meant.
pub(super) const EXCEPTIONS: &[Exception] = &[
    row("help", "", "our help names our methods, and describes them shorter"),
    row("getblockchaininfo", "size_on_disk", "our files do not end in room for more; other bytes"),
    row("*", "warnings", "Core says that it is a build of an unreleased source"),
    row("gettxoutsetinfo", "disk_size", "another database"),
    row("getrpcinfo", "logpath", "another directory"),
    row("getrpcinfo", "active_commands*", NOT_YET),
    row("getnetworkinfo", "version", "our own version"),
    row("getnetworkinfo", "subversion", "our own name"),
    row("getnetworkinfo", "protocolversion", NOT_YET),
    row("getnetworkinfo", "localservices*", NOT_YET),
    row("getnetworkinfo", "localrelay", "we relay no transactions"),
    row("getnetworkinfo", "networks", "there is no Tor, I2P and CJDNS"),
    row("getnettotals", "timemillis", NOT_YET),
    row("getnettotals", "uploadtarget", NOT_YET),
    row("addnode", "error", NOT_YET),
    row("getblock", "error", NOT_YET),
    row("getblockhash", "error", NOT_YET),
    row("getblockheader", "error", NOT_YET),
    row("getrawmempool", "*", NOT_YET),
    row("gettxoutsetinfo", "error", NOT_YET),
];

/// Methods of Core's that we do not have, and why.
pub(super) const MISSING: &[(&str, &str)] = &[
    ("abortprivatebroadcast", "transactions are not relayed"),
    ("addconnection", NOT_YET),
    ("addpeeraddress", NOT_YET),
    ("analyzepsbt", "a wallet's tool"),
    ("clearbanned", NOT_YET),
    ("combinepsbt", "a wallet's tool"),
    ("combinerawtransaction", NOT_YET),
    ("converttopsbt", "a wallet's tool"),
    ("createmultisig", NOT_YET),
    ("createpsbt", "a wallet's tool"),
    ("createrawtransaction", NOT_YET),
    ("decodepsbt", "a wallet's tool"),
    ("decoderawtransaction", NOT_YET),
    ("decodescript", NOT_YET),
    ("deriveaddresses", NOT_YET),
    ("descriptorprocesspsbt", "a wallet's tool"),
    ("dumptxoutset", NOT_YET),
    ("echo", NOT_YET),
    ("echojson", NOT_YET),
    ("estimatesmartfee", NOT_YET),
    ("exportasmap", "there is no map of networks in the program"),
    ("finalizepsbt", "a wallet's tool"),
    ("generate", NOT_YET),
    ("generateblock", NOT_YET),
    ("getaddednodeinfo", NOT_YET),
    ("getaddrmaninfo", NOT_YET),
    ("getblockfilter", NOT_YET),
    ("getblockfrompeer", NOT_YET),
    ("getblockstats", NOT_YET),
    ("getblocktemplate", NOT_YET),
    ("getchainstates", NOT_YET),
    ("getchaintxstats", NOT_YET),
    ("getdescriptoractivity", NOT_YET),
    ("getdescriptorinfo", NOT_YET),
    ("getindexinfo", NOT_YET),
    ("getmemoryinfo", NOT_YET),
    ("getmempoolancestors", NOT_YET),
    ("getmempoolcluster", NOT_YET),
    ("getmempooldescendants", NOT_YET),
    ("getmempoolentry", NOT_YET),
    ("getmininginfo", NOT_YET),
    ("getnetworkhashps", NOT_YET),
    ("getnodeaddresses", NOT_YET),
    ("getorphantxs", NOT_YET),
    ("getprioritisedtransactions", NOT_YET),
    ("getprivatebroadcastinfo", "transactions are not relayed"),
    ("getrawaddrman", NOT_YET),
    ("getrawtransaction", NOT_YET),
    ("gettxoutproof", NOT_YET),
    ("gettxspendingprevout", NOT_YET),
    ("importmempool", NOT_YET),
    ("joinpsbts", "a wallet's tool"),
    ("listbanned", NOT_YET),
    ("loadtxoutset", NOT_YET),
    ("logging", NOT_YET),
    ("mockscheduler", NOT_YET),
    ("prioritisetransaction", NOT_YET),
    ("pruneblockchain", NOT_YET),
    ("savemempool", NOT_YET),
    ("scanblocks", NOT_YET),
    ("scantxoutset", NOT_YET),
    ("sendmsgtopeer", NOT_YET),
    ("sendrawtransaction", NOT_YET),
    ("setban", NOT_YET),
    ("setnetworkactive", NOT_YET),
    ("signmessagewithprivkey", NOT_YET),
    ("signrawtransactionwithkey", NOT_YET),
    ("submitpackage", NOT_YET),
    ("testmempoolaccept", NOT_YET),
    ("utxoupdatepsbt", "a wallet's tool"),
    ("validateaddress", NOT_YET),
    ("verifychain", NOT_YET),
    ("verifymessage", NOT_YET),
    ("verifytxoutproof", NOT_YET),
];
