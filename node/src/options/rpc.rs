//! Options of the JSON-RPC server.

use super::Rule::{DebugOnly, NetworkOnly, Sensitive};
use super::{OptionSpec, ignored, option};

pub(super) const OPTIONS: &[OptionSpec] = &[
    option("rest", "", "Serve REST, without a password (default: 0)", &[]),
    option(
        "rpcallowip",
        "ip",
        "Let this address or subnet (1.2.3.4, 1.2.3.4/24, 1.2.3.4/255.255.255.0) call. May be repeated",
        &[],
    ),
    option(
        "rpcauth",
        "userpw",
        "A user with a hashed password: USER:SALT$HASH, the hash HMAC-SHA256. May be repeated",
        &[Sensitive],
    ),
    option(
        "rpcbind",
        "addr[:port]",
        "Serve JSON-RPC here; ignored without -rpcallowip (default: 127.0.0.1 and ::1). May be repeated",
        &[NetworkOnly],
    ),
    option(
        "rpccookiefile",
        "loc",
        "File of the secret, relative to the directory of the network (default: .cookie)",
        &[],
    ),
    option(
        "rpccookieperms",
        "readable-by",
        "Who may read that file: owner, group or all (default: owner)",
        &[],
    ),
    option("rpcpassword", "pw", "Password of -rpcuser; there is no cookie then", &[Sensitive]),
    option("rpcport", "port", "Port of JSON-RPC", &[NetworkOnly]),
    option(
        "rpcservertimeout",
        "n",
        "How many seconds a connection may be idle; 0: for ever (default: 30)",
        &[DebugOnly],
    ),
    option("rpcthreads", "n", "Calls that run at a time (default: 16)", &[]),
    option("rpcuser", "user", "User name of JSON-RPC", &[Sensitive]),
    option(
        "rpcwhitelist",
        "whitelist",
        "Methods that a user may call: USER:METHOD,METHOD. May be repeated",
        &[],
    ),
    option(
        "rpcwhitelistdefault",
        "",
        "Users without -rpcwhitelist may call nothing (default: 1 if -rpcwhitelist is used)",
        &[],
    ),
    option("rpcworkqueue", "n", "Calls that may wait (default: 64)", &[DebugOnly]),
    option("server", "", "Serve JSON-RPC (default: 1)", &[]),
    ignored("rpcdoccheck"),
];
