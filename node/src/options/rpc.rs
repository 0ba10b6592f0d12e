//! Options of the JSON-RPC server.

use super::Rule::{DebugOnly, Ignored, NetworkOnly, Sensitive};
use super::{OptionSpec, ignored, option};

pub(super) const OPTIONS: &[OptionSpec] = &[
    option(
        "rpcbind",
        "addr[:port]",
        "Serve JSON-RPC here; loopback addresses only (default: 127.0.0.1). May be repeated",
        &[NetworkOnly],
    ),
    option("rpcpassword", "pw", "Password of -rpcuser", &[Sensitive]),
    option("rpcport", "port", "Port of JSON-RPC", &[NetworkOnly]),
    option("rpcthreads", "n", "Calls that run at a time (default: 16)", &[]),
    option("rpcuser", "user", "User name of JSON-RPC besides the cookie", &[Sensitive]),
    option("rpcworkqueue", "n", "Calls that may wait (default: 64)", &[DebugOnly]),
    option("server", "", "Serve JSON-RPC (default: 1)", &[]),
    ignored("rest"),
    ignored("rpcallowip"),
    option("rpcauth", "userpw", "Accepted and ignored", &[Sensitive, Ignored]),
    ignored("rpccookiefile"),
    ignored("rpccookieperms"),
    ignored("rpcdoccheck"),
    ignored("rpcservertimeout"),
    ignored("rpcwhitelist"),
    ignored("rpcwhitelistdefault"),
];
