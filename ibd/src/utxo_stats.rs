//! `UtxoStats`: size and hashes of the UTXO set, as Bitcoin Core's `gettxoutsetinfo` shows them
//! (`kernel/coinstats.cpp`).

use std::fmt;

use bitcoin::hashes::{Hash as _, HashEngine as _, sha256d};
use bitcoin::{OutPoint, TxOut, Txid};
use blvm_muhash::MuHash3072;

use crate::coin::Coin;
use crate::error::{Error, Result};
use crate::undo::write_size;

/// Which hashes to compute.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum UtxoHash {
    /// None.
    None,
    /// `hash_serialized_3`: of all coins in order.
    #[default]
    Serialized3,
    /// `muhash`: the same in any order.
    Muhash,
    /// Both.
    Both,
}

/// A hash shown in reverse, as Bitcoin shows all of them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct UtxoSetHash(pub [u8; 32]);

impl fmt::Display for UtxoSetHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().rev().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for UtxoSetHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Statistics of a set of coins.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct UtxoStats {
    /// Number of coins.
    pub txouts: u64,
    /// Number of transactions with at least one coin.
    pub transactions: u64,
    /// A measure of size that no database changes.
    pub bogosize: u64,
    /// Sum of the amounts in satoshis.
    pub total_amount: u64,
    /// `hash_serialized_3`, if asked for.
    pub hash_serialized_3: Option<UtxoSetHash>,
    /// `muhash`, if asked for.
    pub muhash: Option<UtxoSetHash>,
}

impl UtxoStats {
    /// Computes the statistics of coins that come in the order of their keys
    /// ([`outpoint_key`](crate::coin::outpoint_key)).
    ///
    /// # Errors
    ///
    /// Returns the first error of `coins`, and [`Error::Corrupt`] if the amounts have no sum.
    pub fn compute(
        coins: impl Iterator<Item = Result<(OutPoint, Coin)>>,
        hash: UtxoHash,
    ) -> Result<Self> {
        let mut stats = Self::default();
        let mut serialized =
            matches!(hash, UtxoHash::Serialized3 | UtxoHash::Both).then(sha256d::Hash::engine);
        let mut muhash = matches!(hash, UtxoHash::Muhash | UtxoHash::Both).then(MuHash3072::new);
        let mut last: Option<Txid> = None;
        let mut bytes = Vec::new();
        for entry in coins {
            let (outpoint, coin) = entry?;
            stats.add(&coin)?;
            if last.replace(outpoint.txid) != Some(outpoint.txid) {
                stats.transactions += 1;
            }
            if serialized.is_none() && muhash.is_none() {
                continue;
            }
            let TxOut { value, script_pubkey } = &coin.output;
            write_hashed_coin(
                (outpoint.txid.as_byte_array(), outpoint.vout),
                (coin.height, coin.coinbase),
                (value.to_sat(), script_pubkey.as_bytes()),
                &mut bytes,
            );
            if let Some(engine) = &mut serialized {
                engine.input(&bytes);
            }
            if let Some(muhash) = &mut muhash {
                muhash.insert_mut(&bytes);
            }
        }
        stats.hash_serialized_3 = serialized
            .map(|engine| UtxoSetHash(sha256d::Hash::from_engine(engine).to_byte_array()));
        stats.muhash = muhash.map(|muhash| UtxoSetHash(muhash.finalize()));
        Ok(stats)
    }

    fn add(&mut self, coin: &Coin) -> Result<()> {
        self.txouts += 1;
        self.bogosize += bogosize(coin.output.script_pubkey.len());
        let total = self.total_amount.checked_add(coin.output.value.to_sat());
        self.total_amount =
            total.ok_or_else(|| Error::Corrupt { what: "amounts without a sum".to_owned() })?;
        Ok(())
    }
}

/// A measure of a coin's size that no database changes (`GetBogoSize`): transaction id, index, height
/// and coinbase, amount, length of the script, script.
pub(crate) const fn bogosize(script_len: usize) -> u64 {
    32 + 4 + 4 + 8 + 2 + script_len as u64
}

/// Writes what is hashed of a coin (`TxOutSer`): of the output of a transaction, by height and
/// coinbase, amount and script.
pub(crate) fn write_hashed_coin(
    (txid, vout): (&[u8; 32], u32),
    (height, coinbase): (u32, bool),
    (value, script): (u64, &[u8]),
    out: &mut Vec<u8>,
) {
    out.clear();
    out.extend_from_slice(txid);
    out.extend_from_slice(&vout.to_le_bytes());
    out.extend_from_slice(&((height << 1) | u32::from(coinbase)).to_le_bytes());
    out.extend_from_slice(&value.to_le_bytes());
    write_size(script.len(), out);
    out.extend_from_slice(script);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::outpoint;
    use bitcoin::{Amount, ScriptBuf};

    fn coin(height: u32, coinbase: bool, amount: u64) -> Coin {
        let script_pubkey = ScriptBuf::from_bytes(vec![0x51]);
        Coin { height, coinbase, output: TxOut { value: Amount::from_sat(amount), script_pubkey } }
    }

    #[test]
    fn an_empty_set_has_the_known_hashes() {
        let stats = UtxoStats::compute(std::iter::empty(), UtxoHash::Both).unwrap();
        assert_eq!((stats.txouts, stats.transactions, stats.bogosize), (0, 0, 0));
        let serialized = stats.hash_serialized_3.unwrap().to_string();
        // The double hash of nothing.
        assert_eq!(serialized, "56944c5d3f98413ef45cf54545538103cc9f298e0575820ad3591376e2e0f65d");
        // Core's crypto_tests.cpp has the muhash of an empty set.
        let muhash = stats.muhash.unwrap().to_string();
        assert_eq!(muhash, "dd5ad2a105c2d29495f577245c357409002329b9f4d6182c0af3dc2f462555c8");
    }

    #[test]
    fn transactions_are_counted_once() {
        let coins = [(1, 0), (1, 1), (2, 0), (3, 5)]
            .map(|(number, vout)| Ok((OutPoint { vout, ..outpoint(number) }, coin(7, false, 10))));
        let stats = UtxoStats::compute(coins.into_iter(), UtxoHash::None).unwrap();
        let script_len = coin(7, false, 10).output.script_pubkey.len() as u64;
        assert_eq!((stats.txouts, stats.transactions, stats.total_amount), (4, 3, 40));
        assert_eq!(stats.bogosize, 4 * (50 + script_len));
        assert_eq!((stats.hash_serialized_3, stats.muhash), (None, None));
    }

    #[test]
    fn muhash_does_not_depend_on_the_order() {
        let compute = |numbers: [u8; 3]| {
            let coins = numbers.map(|n| Ok((outpoint(n), coin(u32::from(n), n == 1, 10))));
            UtxoStats::compute(coins.into_iter(), UtxoHash::Both).unwrap()
        };
        let (up, down) = (compute([1, 2, 3]), compute([3, 2, 1]));
        assert_eq!(up.muhash, down.muhash);
        assert_ne!(up.hash_serialized_3, down.hash_serialized_3);
    }
}
