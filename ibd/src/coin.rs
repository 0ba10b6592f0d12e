//! `Coin`: an unspent output, its bytes and its key in the `coins` table.
//!
//! ```text
//! key   txid 32, in hash order | output index u32 BE
//! value VARINT(height * 2 + coinbase) | VARINT(compressed amount) | compressed script
//! ```
//!
//! The value is that of Bitcoin Core's chainstate, byte for byte. The key has Core's order (its
//! VARINT(index) sorts as the number does), which is that of `hash_serialized_3`.

use bitcoin::hashes::Hash as _;
use bitcoin::{OutPoint, Script, TxOut, Txid};

use crate::compress::{
    CompressedScript, SCRIPT_LEN_MAX, read_amount, read_output, read_varint_u32, write_amount,
    write_output, write_script, write_varint,
};
use crate::error::{Error, Result};
use crate::wire::OutputRef;

/// Length of a key of the `coins` table.
pub const OUTPOINT_KEY_LEN: usize = 36;

/// An output that can be spent, and where it comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Coin {
    /// Height of the block that created it; below 2^31.
    pub height: u32,
    /// Whether a coinbase created it.
    pub coinbase: bool,
    /// Amount and script.
    pub output: TxOut,
}

impl Coin {
    /// Appends the coin's bytes.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        write_varint(u64::from(self.height) * 2 + u64::from(self.coinbase), out);
        write_output(&self.output, out);
    }

    /// Returns the coin's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        // Most scripts are at most 34 bytes long, with 9 more for the rest.
        let mut out = Vec::with_capacity(48);
        self.encode_into(&mut out);
        out
    }

    /// Reads a coin that takes up all of `bytes`.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Corrupt`] if the bytes are not exactly a coin.
    pub fn decode(mut bytes: &[u8]) -> Result<Self> {
        let code = read_varint_u32(&mut bytes)?;
        let output = read_output(&mut bytes)?;
        if !bytes.is_empty() {
            return Err(Error::Corrupt { what: "bytes after a coin".to_owned() });
        }
        Ok(Self { height: code >> 1, coinbase: code & 1 == 1, output })
    }
}

/// A coin, read where its bytes lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CoinRef<'a> {
    /// Height of the block that created it; below 2^31.
    pub height: u32,
    /// Whether a coinbase created it.
    pub coinbase: bool,
    /// Amount in satoshis, at most all money there is.
    pub value: u64,
    /// The script.
    pub script: CompressedScript<'a>,
    /// Amount and script, compressed.
    pub output: &'a [u8],
}

impl<'a> CoinRef<'a> {
    /// Reads a coin that takes up all of `bytes`.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Corrupt`] if the bytes are not exactly a coin. That a public key is a point
    /// of the curve is not looked at.
    pub fn parse(mut bytes: &'a [u8]) -> Result<Self> {
        let code = read_varint_u32(&mut bytes)?;
        let coin = Self::read(code >> 1, code & 1 == 1, &mut bytes)?;
        if bytes.is_empty() {
            Ok(coin)
        } else {
            Err(Error::Corrupt { what: "bytes after a coin".to_owned() })
        }
    }

    /// Reads amount and script of a coin off the front of `bytes`.
    pub(crate) fn read(height: u32, coinbase: bool, bytes: &mut &'a [u8]) -> Result<Self> {
        let before = *bytes;
        let value = read_amount(bytes)?;
        let script = CompressedScript::read(bytes)?;
        let output = before.get(..before.len() - bytes.len()).unwrap_or_default();
        Ok(Self { height, coinbase, value, script, output })
    }
}

/// Appends the bytes of the coin that an output makes.
pub(crate) fn write_coin(height: u32, coinbase: bool, output: OutputRef<'_>, out: &mut Vec<u8>) {
    write_varint(u64::from(height) * 2 + u64::from(coinbase), out);
    write_amount(output.value, out);
    write_script(output.script, out);
}

/// Returns the key of an output in the `coins` table.
#[must_use]
pub fn outpoint_key(outpoint: &OutPoint) -> [u8; OUTPOINT_KEY_LEN] {
    let mut key = [0; OUTPOINT_KEY_LEN];
    let (txid, vout) = key.split_at_mut(32);
    txid.copy_from_slice(outpoint.txid.as_byte_array());
    vout.copy_from_slice(&outpoint.vout.to_be_bytes());
    key
}

/// Reverses [`outpoint_key`].
///
/// # Errors
///
/// Returns [`Error::Corrupt`] if the key has another length.
pub fn parse_outpoint_key(key: &[u8]) -> Result<OutPoint> {
    let wrong = || Error::Corrupt { what: format!("a coin's key of {} bytes", key.len()) };
    let (txid, vout) = key.split_first_chunk::<32>().ok_or_else(wrong)?;
    let vout = vout.try_into().map_err(|_| wrong())?;
    Ok(OutPoint::new(Txid::from_byte_array(*txid), u32::from_be_bytes(vout)))
}

/// Returns whether no input can ever spend an output with this script: it makes no coin
/// (`CScript::IsUnspendable`).
#[must_use]
pub fn is_unspendable(script: &Script) -> bool {
    script.as_bytes().first() == Some(&bitcoin::opcodes::all::OP_RETURN.to_u8())
        || script.len() > SCRIPT_LEN_MAX
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::hex::{DisplayHex as _, FromHex as _};
    use bitcoin::{Amount, ScriptBuf};

    /// The examples of Core's `coins_tests.cpp` (`ccoins_serialization`).
    #[test]
    fn coins_are_cores() {
        let cases = [
            (
                "97f23c835800816115944e077fe7c803cfa57f29b36bf87c1d35",
                203_998,
                false,
                60_000_000_000,
                "76a914816115944e077fe7c803cfa57f29b36bf87c1d3588ac",
            ),
            (
                "8ddf77bbd123008c988f1a4a4de2161e0f50aac7f17e7f9555caa4",
                120_891,
                true,
                110_397,
                "76a9148c988f1a4a4de2161e0f50aac7f17e7f9555caa488ac",
            ),
            ("000006", 0, false, 0, ""),
        ];
        for (hex, height, coinbase, amount, script) in cases {
            let output = TxOut {
                value: Amount::from_sat(amount),
                script_pubkey: ScriptBuf::from_hex(script).unwrap(),
            };
            let coin = Coin { height, coinbase, output };
            assert_eq!(coin.encode().to_lower_hex_string(), hex);
            let bytes = Vec::from_hex(hex).unwrap();
            assert_eq!(Coin::decode(&bytes).unwrap(), coin);
            let read = CoinRef::parse(&bytes).unwrap();
            assert_eq!((read.height, read.coinbase, read.value), (height, coinbase, amount));
            let mut script = Vec::new();
            read.script.decompress_into(&mut script).unwrap();
            assert_eq!(script, coin.output.script_pubkey.as_bytes());
            assert!(bytes.ends_with(read.output));
        }
    }

    #[test]
    fn torn_and_overlong_coins_are_errors() {
        let bytes = Vec::from_hex("97f23c835800816115944e077fe7c803cfa57f29b36bf87c1d35").unwrap();
        for len in 0..bytes.len() {
            assert!(Coin::decode(&bytes[..len]).is_err(), "{len}");
            assert!(CoinRef::parse(&bytes[..len]).is_err(), "{len}");
        }
        assert!(Coin::decode(&[bytes.as_slice(), &[0]].concat()).is_err());
        assert!(CoinRef::parse(&[bytes.as_slice(), &[0]].concat()).is_err());
        // Core's examples of a script that is not there, and of one of 3 GB.
        assert!(Coin::decode(&Vec::from_hex("000007").unwrap()).is_err());
        assert!(Coin::decode(&Vec::from_hex("00008a95c0bb00").unwrap()).is_err());
    }

    #[test]
    fn keys_sort_as_outpoints_and_are_read_back() {
        let outpoint = |first: u8, vout| {
            let mut txid = [0; 32];
            txid[0] = first;
            OutPoint::new(Txid::from_byte_array(txid), vout)
        };
        let sorted = [
            outpoint(0, 1),
            outpoint(0, 127),
            outpoint(0, 128),
            outpoint(0, 70_000),
            outpoint(1, 0),
        ];
        let keys = sorted.map(|outpoint| outpoint_key(&outpoint));
        assert!(keys.is_sorted());
        for (key, outpoint) in keys.iter().zip(sorted) {
            assert_eq!(parse_outpoint_key(key).unwrap(), outpoint);
        }
        assert!(parse_outpoint_key(&keys[0][..35]).is_err());
        assert!(parse_outpoint_key(&[0; 37]).is_err());
    }

    #[test]
    fn unspendable_scripts() {
        assert!(is_unspendable(Script::from_bytes(&[0x6a])));
        assert!(!is_unspendable(Script::from_bytes(&[])));
        assert!(!is_unspendable(Script::from_bytes(&[0x51; 10_000])));
        assert!(is_unspendable(Script::from_bytes(&[0x51; 10_001])));
    }
}
