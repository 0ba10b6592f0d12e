//! REST about outputs: which are unspent (BIP64), and which a block spent.

use bitcoin::consensus::encode::{deserialize, serialize};
use bitcoin::hashes::Hash as _;
use bitcoin::hex::FromHex as _;
use bitcoin::{Network, OutPoint, VarInt};
use cofferdam_ibd::undo::{BlockUndo, TxUndo};
use cofferdam_ibd::{BlockRef, Coin};
use serde_json::{Value, json};

use super::mempool::unspent;
use super::rest::{Asked, Data, Fault, Format, hash, no_block};
use super::stored_block::StoredBlock;
use super::tx_json;

/// Most outputs of one request.
const OUTPOINTS_MAX: usize = 15;

/// Answers `/rest/getutxos`.
pub(super) fn utxos(asked: &Asked<'_>) -> Result<Data, Fault> {
    let (with_mempool, outpoints) = read_request(asked)?;
    if outpoints.len() > OUTPOINTS_MAX {
        return Err(Fault::bad(format_args!(
            "Error: max outpoints exceeded (max: {OUTPOINTS_MAX}, tried: {})",
            outpoints.len()
        )));
    }
    let context = asked.warm_up.context()?;
    let (coins, tip) = unspent(context, outpoints, with_mempool)?;
    let network = context.chain.params().network.to_bitcoin();
    Ok(describe(asked.format, tip, &coins, network))
}

fn read_request(asked: &Asked<'_>) -> Result<(bool, Vec<OutPoint>), Fault> {
    let parts: Vec<&str> =
        asked.path.strip_prefix('/').into_iter().flat_map(|path| path.split('/')).collect();
    let parts: &[&str] = if parts == [""] { &[] } else { &parts };
    let empty = || Fault::bad("Error: empty request");
    if parts.is_empty() && asked.body.is_empty() {
        return Err(empty());
    }
    let with_mempool = parts.first() == Some(&"checkmempool");
    let named = parts.get(usize::from(with_mempool)..).unwrap_or_default();
    let mut outpoints = Vec::new();
    for text in named {
        outpoints.push(outpoint(text).ok_or_else(|| Fault::bad("Parse error"))?);
    }
    if !parts.is_empty() && outpoints.is_empty() {
        return Err(empty());
    }
    match asked.format {
        Format::Json if outpoints.is_empty() => Err(empty()),
        Format::Bin | Format::Hex if !asked.body.is_empty() => {
            if !outpoints.is_empty() {
                return Err(Fault::bad(
                    "Combination of URI scheme inputs and raw post data is not allowed",
                ));
            }
            let body = if asked.format == Format::Hex {
                let text = String::from_utf8_lossy(asked.body);
                Vec::from_hex(text.trim()).unwrap_or_default()
            } else {
                asked.body.to_vec()
            };
            decode(&body).ok_or_else(|| Fault::bad("Parse error"))
        }
        _ => Ok((with_mempool, outpoints)),
    }
}

fn outpoint(text: &str) -> Option<OutPoint> {
    let (txid, vout) = text.split_once('-')?;
    let is_number = vout.bytes().all(|byte| byte.is_ascii_digit());
    (txid.len() == 64 && is_number).then_some(())?;
    Some(OutPoint { txid: txid.parse().ok()?, vout: vout.parse().ok()? })
}

fn decode(body: &[u8]) -> Option<(bool, Vec<OutPoint>)> {
    let (with_mempool, rest) = body.split_first()?;
    let (count, used) = bitcoin::consensus::encode::deserialize_partial::<VarInt>(rest).ok()?;
    let bytes = rest.get(used..)?;
    let count = usize::try_from(count.0).ok()?;
    // What is too many is counted, and not read.
    if bytes.len() / 36 < count {
        return None;
    }
    let outpoints = bytes.chunks_exact(36).take(count).map(deserialize);
    Some((*with_mempool != 0, outpoints.collect::<Result<_, _>>().ok()?))
}

fn describe(format: Format, tip: BlockRef, coins: &[Option<Coin>], network: Network) -> Data {
    let present = || coins.iter().flatten();
    if format == Format::Json {
        let bits: String =
            coins.iter().map(|coin| if coin.is_some() { '1' } else { '0' }).collect();
        let utxos: Vec<Value> = present()
            .map(|coin| {
                json!({
                    "height": coin.height,
                    "value": tx_json::amount(coin.output.value),
                    "scriptPubKey": tx_json::script(&coin.output.script_pubkey, network),
                })
            })
            .collect();
        return Data::Json(json!({
            "chainHeight": tip.height,
            "chaintipHash": tip.hash.to_string(),
            "bitmap": bits,
            "utxos": utxos,
        }));
    }
    let mut all = tip.height.to_le_bytes().to_vec();
    all.extend(tip.hash.to_byte_array());
    let bitmap: Vec<u8> = coins
        .chunks(8)
        .map(|eight| {
            let bits = eight.iter().enumerate();
            bits.fold(0, |byte, (at, coin)| byte | (u8::from(coin.is_some()) << at))
        })
        .collect();
    all.extend(serialize(&bitmap));
    all.extend(serialize(&VarInt::from(present().count())));
    for coin in present() {
        // The version of the transaction is not known any more.
        all.extend([0; 4]);
        all.extend(coin.height.to_le_bytes());
        all.extend(serialize(&coin.output));
    }
    Data::Bytes(all)
}

/// Answers `/rest/spenttxouts`: the outputs that each transaction of a block spent.
pub(super) fn spent(asked: &Asked<'_>) -> Result<Data, Fault> {
    let text = asked.path;
    if text.contains('/') {
        return Err(Fault::bad("Invalid URI format. Expected /rest/spenttxouts/<hash>.<ext>"));
    }
    let context = asked.warm_up.context()?;
    let stored = StoredBlock::find(context, hash(text)?).map_err(|error| no_block(text, &error))?;
    let missing = |_| Fault::missing(format_args!("{text} undo not available"));
    let BlockUndo(transactions) = stored.undo().map_err(missing)?;
    if asked.format == Format::Json {
        let network = context.chain.params().network.to_bitcoin();
        let describe = |coin: &Coin| {
            json!({
                "value": tx_json::amount(coin.output.value),
                "scriptPubKey": tx_json::script(&coin.output.script_pubkey, network),
            })
        };
        let of = |tx: &TxUndo| Value::Array(tx.0.iter().map(describe).collect());
        // The coinbase spends nothing.
        let all = std::iter::once(json!([])).chain(transactions.iter().map(of));
        return Ok(Data::Json(all.collect()));
    }
    let mut all = serialize(&VarInt::from(transactions.len() + 1));
    all.extend(serialize(&VarInt(0)));
    for TxUndo(coins) in &transactions {
        all.extend(serialize(&VarInt::from(coins.len())));
        for coin in coins {
            all.extend(serialize(&coin.output));
        }
    }
    Ok(Data::Bytes(all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outpoints_are_read_from_a_path_and_from_bytes() {
        let txid = "ab".repeat(32);
        assert_eq!(outpoint(&format!("{txid}-7")).map(|outpoint| outpoint.vout), Some(7));
        for wrong in [String::new(), txid.clone(), format!("{txid}-"), format!("{txid}-+7")] {
            assert_eq!(outpoint(&wrong), None, "{wrong}");
        }
        let mut body = vec![1, 1];
        body.extend([0xab; 32]);
        body.extend(7_u32.to_le_bytes());
        let (with_mempool, outpoints) = decode(&body).unwrap();
        assert!(with_mempool && outpoints.len() == 1 && outpoints[0].vout == 7);
        assert_eq!(decode(&body[..body.len() - 1]), None);
        assert_eq!(decode(b"{\"checkmempool"), None);
        assert_eq!(decode(&[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), None);
    }
}
