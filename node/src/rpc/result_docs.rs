//! What methods return, for their help.

/// Returns the description of a method's result, if there is one.
pub(super) fn result(method: &str) -> Option<&'static str> {
    RESULTS.iter().find(|(name, _)| *name == method).map(|(_, text)| *text)
}

const RESULTS: &[(&str, &str)] = &[
    ("createmultisig", "{address, redeemScript, descriptor}    (json object)"),
    ("deriveaddresses", "[\"address\", ...]    (json array) The derived addresses"),
    ("estimaterawfee", "{short, medium, long}    (json object) Estimates by horizon"),
    ("estimatesmartfee", "{feerate | errors, blocks}    (json object)"),
    ("generateblock", "{hash, hex}    (json object) hex only if the block was not submitted"),
    ("generatetoaddress", "[\"hex\", ...]    (json array) Hashes of the blocks"),
    ("generatetodescriptor", "[\"hex\", ...]    (json array) Hashes of the blocks"),
    ("getbestblockhash", "\"hex\"    (string) The block hash, hex-encoded"),
    ("getblock", "\"hex\" or {...}    (string or json object) By verbosity"),
    ("getblockcount", "n    (numeric) The current block count"),
    ("getblockhash", "\"hex\"    (string) The block hash"),
    ("getblockheader", "{...} or \"hex\"    (json object or string) By verbose"),
    ("getchaintips", "[{height, hash, branchlen, status}, ...]    (json array)"),
    ("getconnectioncount", "n    (numeric) The connection count"),
    (
        "getdescriptorinfo",
        "{descriptor, multipath_expansion, checksum, isrange, issolvable, hasprivatekeys}    (json object)",
    ),
    ("getdifficulty", "n    (numeric) A multiple of the minimum difficulty"),
    ("getmemoryinfo", "{locked: {...}} or \"xml\"    (json object or string) By mode"),
    ("getrpcinfo", "{active_commands: [{method, duration}, ...], logpath}    (json object)"),
    ("gettxout", "null or {...}    (json object) null if it is spent or unknown"),
    ("help", "\"str\"    (string) The help text"),
    ("signmessagewithprivkey", "\"str\"    (string) The signature in base 64"),
    ("stop", "\"str\"    (string) That the node is stopping"),
    ("submitblock", "null or \"str\"    (string) null if accepted, else why not"),
    ("uptime", "n    (numeric) Seconds since the start"),
    (
        "validateaddress",
        "{isvalid, address, scriptPubKey, isscript, iswitness, ...}    (json object)",
    ),
    ("verifymessage", "true|false    (boolean) Whether the signature is right"),
    ("waitforblock", "{hash, height}    (json object) The tip"),
    ("waitforblockheight", "{hash, height}    (json object) The tip"),
    ("waitfornewblock", "{hash, height}    (json object) The tip"),
];
