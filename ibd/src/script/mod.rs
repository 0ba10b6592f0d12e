//! Scripts: which rules hold for a block, and the seam to the library that runs them.

mod explain;
#[cfg(feature = "kernel")]
mod kernel;
mod walk;

#[cfg(feature = "kernel")]
pub use kernel::KernelVerifier;

pub(crate) use explain::{explain, place};

use std::fmt;

use bitcoin::BlockHash;

use crate::error::Result;
use crate::params::ChainParams;
use crate::wire::{OutputRef, TxRef};

/// Rules for running a script, as a set of bits (Bitcoin Core's `SCRIPT_VERIFY_*`, those that are
/// consensus). No other bit can be set.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ScriptFlags(u32);

impl ScriptFlags {
    /// No rule beyond the first version's.
    pub const NONE: Self = Self(0);
    /// Pay to script hash (BIP-0016).
    pub const P2SH: Self = Self(1 << 0);
    /// Strict DER signatures (BIP-0066).
    pub const DERSIG: Self = Self(1 << 2);
    /// The dummy of `OP_CHECKMULTISIG` is empty (BIP-0147).
    pub const NULLDUMMY: Self = Self(1 << 4);
    /// `OP_CHECKLOCKTIMEVERIFY` (BIP-0065).
    pub const CHECKLOCKTIMEVERIFY: Self = Self(1 << 9);
    /// `OP_CHECKSEQUENCEVERIFY` (BIP-0112).
    pub const CHECKSEQUENCEVERIFY: Self = Self(1 << 10);
    /// Segregated witness (BIP-0141). Only together with [`Self::P2SH`].
    pub const WITNESS: Self = Self(1 << 11);
    /// Taproot (BIP-0341, BIP-0342).
    pub const TAPROOT: Self = Self(1 << 17);

    /// All rules there are.
    pub const ALL: Self = Self::P2SH
        .union(Self::DERSIG)
        .union(Self::NULLDUMMY)
        .union(Self::CHECKLOCKTIMEVERIFY)
        .union(Self::CHECKSEQUENCEVERIFY)
        .union(Self::WITNESS)
        .union(Self::TAPROOT);

    const NAMES: [(Self, &'static str); 7] = [
        (Self::P2SH, "P2SH"),
        (Self::DERSIG, "DERSIG"),
        (Self::NULLDUMMY, "NULLDUMMY"),
        (Self::CHECKLOCKTIMEVERIFY, "CHECKLOCKTIMEVERIFY"),
        (Self::CHECKSEQUENCEVERIFY, "CHECKSEQUENCEVERIFY"),
        (Self::WITNESS, "WITNESS"),
        (Self::TAPROOT, "TAPROOT"),
    ];

    /// Returns the rule that Bitcoin Core calls `SCRIPT_VERIFY_<name>`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(_, known)| *known == name).map(|(flag, _)| *flag)
    }

    /// Returns the names of the rules in this set, in the order of the alphabet
    /// (`GetScriptFlagNames`).
    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        let names = Self::NAMES.iter().filter(|(flag, _)| self.contains(*flag));
        let mut names: Vec<&str> = names.map(|(_, name)| *name).collect();
        names.sort_unstable();
        names
    }

    /// Returns the bits.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Returns whether all rules of `other` are in this set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns the rules of both sets.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns the rules that are not in `other`.
    #[must_use]
    pub const fn difference(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl fmt::Debug for ScriptFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Self::NAMES.iter().filter(|(flag, _)| self.contains(*flag));
        f.debug_set().entries(names.map(|(_, name)| name)).finish()
    }
}

/// Returns the rules for the scripts of the block with that height and hash
/// (`GetBlockScriptFlags`).
#[must_use]
pub fn block_script_flags(params: &ChainParams, height: u32, hash: &BlockHash) -> ScriptFlags {
    // Only a handful of blocks ever broke these three, long before they were rules: those are
    // listed, and the rules hold for all others from the first block on.
    let exception = params.script_flag_exceptions.iter().find(|(block, _)| block == hash);
    let mut flags = exception.map_or(
        ScriptFlags::P2SH.union(ScriptFlags::WITNESS).union(ScriptFlags::TAPROOT),
        |(_, flags)| *flags,
    );
    let buried = [
        (params.bip66_height, ScriptFlags::DERSIG),
        (params.bip65_height, ScriptFlags::CHECKLOCKTIMEVERIFY),
        (params.csv_height, ScriptFlags::CHECKSEQUENCEVERIFY),
        (params.segwit_height, ScriptFlags::NULLDUMMY),
    ];
    for (first, flag) in buried {
        if height >= first {
            flags = flags.union(flag);
        }
    }
    flags
}

/// Runs scripts.
///
/// An implementation accepts exactly the inputs that Bitcoin Core's `VerifyScript` accepts under
/// the same flags, and its verdict depends on nothing but its arguments.
pub trait ScriptVerifier: fmt::Debug + Send + Sync {
    /// Hashes once what the inputs of `tx` have in common.
    ///
    /// `spent` has the outputs that the inputs spend, in their order.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Script`](crate::Error::Script) if the library cannot be asked, or is asked
    /// for what it cannot do: WITNESS without P2SH, or another number of outputs than inputs.
    fn prepare<'a>(
        &self,
        tx: TxRef<'a>,
        spent: &'a [OutputRef<'a>],
        flags: ScriptFlags,
    ) -> Result<Box<dyn PreparedTransaction + 'a>>;

    /// Verifies all inputs on this thread; returns the first that fails.
    ///
    /// # Errors
    ///
    /// As [`ScriptVerifier::prepare`].
    fn verify_transaction(
        &self,
        tx: TxRef<'_>,
        spent: &[OutputRef<'_>],
        flags: ScriptFlags,
    ) -> Result<Option<usize>> {
        let prepared = self.prepare(tx, spent, flags)?;
        Ok((0..prepared.input_count()).find(|&input| !prepared.verify_input(input)))
    }
}

/// A transaction whose inputs can be verified in any order, on any number of threads.
pub trait PreparedTransaction: fmt::Debug + Send + Sync {
    /// Returns the number of inputs.
    fn input_count(&self) -> usize;

    /// Returns whether the input's script and witness satisfy the script it spends.
    ///
    /// # Panics
    ///
    /// Panics if there is no such input, or the library fails: either is a fault of the program, and
    /// no verdict on the transaction.
    fn verify_input(&self, input: usize) -> bool;
}

/// Returns whether the script is a native taproot output: `OP_1` and 32 bytes.
#[cfg(feature = "kernel")]
fn is_taproot(output: &OutputRef<'_>) -> bool {
    output.script.is_p2tr()
}

#[cfg(test)]
pub(crate) mod testing {
    //! A verifier for tests of what lies around scripts.

    use super::{PreparedTransaction, ScriptFlags, ScriptVerifier};
    use crate::error::Result;
    use crate::wire::{OutputRef, TxRef};

    /// Gives every input the same verdict.
    #[derive(Debug)]
    pub(crate) struct Always(pub(crate) bool);

    #[derive(Debug)]
    struct Prepared(usize, bool);

    impl ScriptVerifier for Always {
        fn prepare<'a>(
            &self,
            tx: TxRef<'a>,
            _: &'a [OutputRef<'a>],
            _: ScriptFlags,
        ) -> Result<Box<dyn PreparedTransaction + 'a>> {
            Ok(Box::new(Prepared(tx.input_count(), self.0)))
        }
    }

    impl PreparedTransaction for Prepared {
        fn input_count(&self) -> usize {
            self.0
        }

        fn verify_input(&self, _: usize) -> bool {
            self.1
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::Network;
    use bitcoin::hashes::Hash as _;

    #[track_caller]
    fn check(network: Network, height: u32, hash: &str, names: &[&str]) {
        let params = ChainParams::new(network);
        let hash = if hash.is_empty() { BlockHash::all_zeros() } else { hash.parse().unwrap() };
        let expected = names.iter().fold(ScriptFlags::NONE, |flags, name| {
            flags.union(ScriptFlags::from_name(name).unwrap())
        });
        assert_eq!(block_script_flags(&params, height, &hash), expected);
    }

    const BASE: [&str; 3] = ["P2SH", "WITNESS", "TAPROOT"];

    #[test]
    fn rules_begin_at_their_heights() {
        use Network::{Mainnet, Regtest, Testnet3};
        let steps = [
            (363_725, "DERSIG"),
            (388_381, "CHECKLOCKTIMEVERIFY"),
            (419_328, "CHECKSEQUENCEVERIFY"),
            (481_824, "NULLDUMMY"),
        ];
        let mut names = BASE.to_vec();
        check(Mainnet, 1, "", &names);
        for (height, name) in steps {
            check(Mainnet, height - 1, "", &names);
            names.push(name);
            check(Mainnet, height, "", &names);
        }
        check(Testnet3, 330_775, "", &BASE);
        check(Testnet3, 834_624, "", &names);
        check(Regtest, 1, "", &names);
        check(Regtest, 0, "", &["P2SH", "WITNESS", "TAPROOT", "NULLDUMMY"]);
    }

    #[test]
    fn the_blocks_that_broke_rules_are_exempt() {
        let p2sh = "00000000000002dc756eebf4f49723ed8d30cc28a5f108eb94b1ba88ac4f9c22";
        check(Network::Mainnet, 170_060, p2sh, &[]);
        let p2sh = "00000000dd30457c001f4095d208cc1296b0eed002427aa599874af7a432b105";
        check(Network::Testnet3, 2_000, p2sh, &[]);
        check(Network::Mainnet, 2_000, p2sh, &BASE);
        let taproot = "0000000000000000000f14c35b2d841e986ab5441de8c585d5ffe55ea1e395ad";
        let all_but_taproot = [
            "P2SH",
            "WITNESS",
            "DERSIG",
            "CHECKLOCKTIMEVERIFY",
            "CHECKSEQUENCEVERIFY",
            "NULLDUMMY",
        ];
        check(Network::Mainnet, 692_261, taproot, &all_but_taproot);
    }
}
