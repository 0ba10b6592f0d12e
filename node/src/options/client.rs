//! Options of `cofferdam rpc`, as `bitcoin-cli` has them.

use super::{OptionSpec, option};

pub(super) const OPTIONS: &[OptionSpec] = &[
    option(
        "rpcclienttimeout",
        "n",
        "How many seconds to wait for a reply; 0: for ever (default: 900)",
        &[],
    ),
    option("rpcconnect", "ip", "Where the node is (default: 127.0.0.1)", &[]),
];
