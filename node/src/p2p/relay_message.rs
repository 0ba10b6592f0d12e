//! The messages of relay: compact blocks (BIP-0152), lists of blocks, addresses.

use bitcoin::BlockHash;
use bitcoin::bip152::{BlockTransactions, BlockTransactionsRequest, HeaderAndShortIds};
use bitcoin::consensus::encode::{VarInt, serialize};

use super::gossip_message::{self, Addresses};
use super::message::Malformed;
use super::payload::{END_OF_DATA, item, size};

/// Most hashes of a locator (Bitcoin Core's `MAX_LOCATOR_SZ`).
const LOCATOR_MAX: usize = 101;
const HASH_BYTES: usize = 32;
/// Transactions of a compact block: Core keeps an index in 16 bits.
const INDEXES_MAX: usize = 65_535;

/// A message of relay.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum RelayMessage {
    /// `getblocks`: what follows the first known hash of the locator, up to the stop hash.
    GetBlocks(Vec<BlockHash>, BlockHash),
    /// `cmpctblock`
    CompactBlock(Box<HeaderAndShortIds>),
    /// `getblocktxn`
    GetBlockTxn(BlockTransactionsRequest),
    /// `blocktxn`
    BlockTxn(BlockTransactions),
    /// `addr`, received
    Addr(Addresses),
    /// `addrv2` (BIP-0155), received
    AddrV2(Addresses),
}

impl RelayMessage {
    /// Returns the command.
    pub(crate) const fn command(&self) -> &'static str {
        match self {
            Self::GetBlocks(..) => "getblocks",
            Self::CompactBlock(_) => "cmpctblock",
            Self::GetBlockTxn(_) => "getblocktxn",
            Self::BlockTxn(_) => "blocktxn",
            Self::Addr(_) => "addr",
            Self::AddrV2(_) => "addrv2",
        }
    }

    /// Encodes the payload.
    pub(crate) fn payload(&self) -> Vec<u8> {
        match self {
            Self::GetBlocks(locator, stop) => {
                let mut out = serialize(&super::PROTOCOL_VERSION);
                out.extend(serialize(&VarInt::from(locator.len())));
                out.extend(locator.iter().flat_map(serialize));
                out.extend(serialize(stop));
                out
            }
            Self::CompactBlock(block) => serialize(block.as_ref()),
            Self::GetBlockTxn(request) => serialize(request),
            Self::BlockTxn(answer) => serialize(answer),
            // Lists to send are encoded where they are made.
            Self::Addr(_) | Self::AddrV2(_) => Vec::new(),
        }
    }

    /// Decodes the payload of a command; `None`: it is not one of these. Bytes behind what is known
    /// are left alone, as in Core.
    ///
    /// # Errors
    ///
    /// Returns what is wrong with it.
    pub(crate) fn decode(command: &str, mut payload: &[u8]) -> Result<Option<Self>, Malformed> {
        let input = &mut payload;
        Ok(Some(match command {
            "getblocks" => Self::decode_getblocks(input)?,
            "cmpctblock" => {
                let compact: HeaderAndShortIds = item(input)?;
                if compact.short_ids.len() + compact.prefilled_txs.len() > INDEXES_MAX {
                    return Err(Malformed::Unreadable("indexes overflowed 16 bits".into()));
                }
                Self::CompactBlock(Box::new(compact))
            }
            "getblocktxn" => {
                let request: BlockTransactionsRequest = item(input)?;
                let is_over = |index: &u64| u16::try_from(*index).is_err();
                if request.indexes.iter().any(is_over) {
                    return Err(Malformed::Unreadable("differential value overflow".into()));
                }
                Self::GetBlockTxn(request)
            }
            "blocktxn" => Self::BlockTxn(item(input)?),
            "addr" => Self::Addr(gossip_message::decode(payload, false)?),
            "addrv2" => Self::AddrV2(gossip_message::decode(payload, true)?),
            _ => return Ok(None),
        }))
    }

    fn decode_getblocks(input: &mut &[u8]) -> Result<Self, Malformed> {
        let _version: u32 = item(input)?;
        let count = usize::try_from(size(input)?).unwrap_or(usize::MAX);
        if count > input.len() / HASH_BYTES {
            return Err(Malformed::Unreadable(END_OF_DATA.into()));
        }
        if count > LOCATOR_MAX {
            let text = format!("getblocks locator size {count} > {LOCATOR_MAX}");
            return Err(Malformed::Refused(text));
        }
        let locator: Result<Vec<BlockHash>, String> = (0..count).map(|_| item(input)).collect();
        Ok(Self::GetBlocks(locator?, item(input)?))
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::Hash as _;

    use super::*;

    fn round_trip(message: &RelayMessage) {
        let decoded = RelayMessage::decode(message.command(), &message.payload());
        assert_eq!(decoded, Ok(Some(message.clone())));
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let hash = BlockHash::from_byte_array([7; 32]);
        round_trip(&RelayMessage::GetBlocks(vec![hash; 3], hash));
        let block = bitcoin::constants::genesis_block(bitcoin::Network::Regtest);
        let compact = HeaderAndShortIds::from_block(&block, 5, 2, &[]).expect("a block");
        round_trip(&RelayMessage::CompactBlock(Box::new(compact)));
        let request = BlockTransactionsRequest { block_hash: hash, indexes: vec![1, 2, 65_535] };
        round_trip(&RelayMessage::GetBlockTxn(request));
        let answer = BlockTransactions { block_hash: hash, transactions: block.txdata };
        round_trip(&RelayMessage::BlockTxn(answer));
        assert_eq!(RelayMessage::decode("nonsense", &[]), Ok(None));
        let request = BlockTransactionsRequest { block_hash: hash, indexes: vec![65_536] };
        let fault = Malformed::Unreadable("differential value overflow".into());
        assert_eq!(RelayMessage::decode("getblocktxn", &serialize(&request)), Err(fault));
    }

    #[test]
    fn a_claimed_length_takes_no_memory_and_too_many_hashes_are_refused() {
        let hash = BlockHash::from_byte_array([7; 32]);
        let many = RelayMessage::GetBlocks(vec![hash; 102], hash);
        let refused = RelayMessage::decode("getblocks", &many.payload());
        let text = "getblocks locator size 102 > 101";
        assert_eq!(refused, Err(Malformed::Refused(text.into())));
        let claims = [&[0; 4][..], &[0xff; 9]].concat();
        assert!(RelayMessage::decode("getblocks", &claims).is_err());
        for command in ["cmpctblock", "getblocktxn", "blocktxn"] {
            for length in [0, 31, 32] {
                let payload = [vec![1; length], vec![0xff; 9]].concat();
                assert!(RelayMessage::decode(command, &payload).is_err(), "{command} {length}");
            }
        }
    }
}
