//! Options that choose the network and its rules.

use super::Rule::{DebugOnly, Ignored, NoNegation};
use super::{OptionSpec, option};

pub(super) const OPTIONS: &[OptionSpec] = &[
    option(
        "chain",
        "chain",
        "The network: main, test, testnet4, signet or regtest (default: main)",
        &[],
    ),
    option("regtest", "", "As -chain=regtest", &[DebugOnly]),
    option("signet", "", "As -chain=signet", &[]),
    option(
        "signetchallenge",
        "hex",
        "Script that the blocks of a signet satisfy (default: that of the public signet)",
        &[NoNegation],
    ),
    option("testnet", "", "As -chain=test (testnet3)", &[]),
    option("testnet4", "", "As -chain=testnet4", &[]),
    option(
        "vbparams",
        "deployment:start:end[:min_activation_height]",
        "Times and least height of a version-bits deployment; not on the main network",
        &[DebugOnly],
    ),
    option("signetseednode", "", "Accepted and ignored", &[NoNegation, Ignored]),
];
