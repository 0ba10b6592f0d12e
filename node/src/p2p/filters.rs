//! Block filters for peers (BIP-0157): their messages, and the answers.

use std::sync::Arc;

use bitcoin::BlockHash;
use bitcoin::bip158::{FilterHash, FilterHeader};
use bitcoin::consensus::encode::{VarInt, serialize};
use bitcoin::hashes::Hash as _;
use cofferdam_ibd::{BlockRef, Chainstate};

use super::manager::PeerManager;
use super::message::Message;
use super::payload::item;
use super::peer::Peer;
use super::serve::may_be_told;
use crate::chain::Stopped;
use crate::index::BlockFilters;

/// `NODE_COMPACT_FILTERS`.
pub(crate) const COMPACT_FILTERS: u64 = 1 << 6;

/// The only type of filter there is.
const BASIC: u8 = 0;
/// Most filters and filter hashes of one request (Core's `MAX_GETCFILTERS_SIZE` and
/// `MAX_GETCFHEADERS_SIZE`).
const FILTERS_MAX: u32 = 1000;
const HEADERS_MAX: u32 = 2000;
/// Blocks between two checkpoints.
const CHECKPOINT_INTERVAL: u32 = 1000;

/// A message about filters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum FilterMessage {
    /// `getcfilters`: type, first height, last block.
    GetFilters(u8, u32, BlockHash),
    /// `getcfheaders`: the same.
    GetHeaders(u8, u32, BlockHash),
    /// `getcfcheckpt`: type, last block.
    GetCheckpoints(u8, BlockHash),
    /// `cfilter`: of a block.
    Filter(BlockHash, Vec<u8>),
    /// `cfheaders`: up to a block, the header before, and hashes.
    Headers(BlockHash, FilterHeader, Vec<FilterHash>),
    /// `cfcheckpt`: up to a block.
    Checkpoints(BlockHash, Vec<FilterHeader>),
}

impl FilterMessage {
    /// Returns the command.
    pub(super) const fn command(&self) -> &'static str {
        match self {
            Self::GetFilters(..) => "getcfilters",
            Self::GetHeaders(..) => "getcfheaders",
            Self::GetCheckpoints(..) => "getcfcheckpt",
            Self::Filter(..) => "cfilter",
            Self::Headers(..) => "cfheaders",
            Self::Checkpoints(..) => "cfcheckpt",
        }
    }

    /// Encodes the payload.
    pub(super) fn payload(&self) -> Vec<u8> {
        let hashes = |out: &mut Vec<u8>, hashes: &[[u8; 32]]| {
            out.extend(serialize(&VarInt::from(hashes.len())));
            out.extend(hashes.iter().flatten());
        };
        match self {
            Self::GetFilters(kind, start, stop) | Self::GetHeaders(kind, start, stop) => {
                serialize(&(*kind, *start, *stop))
            }
            Self::GetCheckpoints(kind, stop) => serialize(&(*kind, *stop)),
            Self::Filter(block, filter) => {
                let mut out = serialize(&(BASIC, *block));
                out.extend(serialize(filter));
                out
            }
            Self::Headers(stop, before, all) => {
                let mut out = serialize(&(BASIC, *stop));
                out.extend(before.to_byte_array());
                let all: Vec<[u8; 32]> = all.iter().map(|hash| hash.to_byte_array()).collect();
                hashes(&mut out, &all);
                out
            }
            Self::Checkpoints(stop, all) => {
                let mut out = serialize(&(BASIC, *stop));
                let all: Vec<[u8; 32]> = all.iter().map(|hash| hash.to_byte_array()).collect();
                hashes(&mut out, &all);
                out
            }
        }
    }

    /// Decodes a request; of answers, which nobody was asked for, nothing is read.
    pub(super) fn decode(command: &str, input: &mut &[u8]) -> Result<Self, String> {
        let kind = item(input)?;
        if command == "getcfcheckpt" {
            return Ok(Self::GetCheckpoints(kind, item(input)?));
        }
        let (start, stop) = (item(input)?, item(input)?);
        Ok(match command {
            "getcfilters" => Self::GetFilters(kind, start, stop),
            _ => Self::GetHeaders(kind, start, stop),
        })
    }
}

/// The blocks of a request.
struct Asked {
    stop: BlockRef,
    /// The block before the first, if the request begins later than the chain.
    before: Option<BlockRef>,
    blocks: Vec<BlockRef>,
}

impl PeerManager {
    /// Answers a request for filters; one that breaks the rules ends the connection.
    pub(super) fn serve_filters(
        &self,
        peer: &Arc<Peer>,
        request: FilterMessage,
    ) -> Result<(), Stopped> {
        let (kind, start, stop, max) = match request {
            FilterMessage::GetFilters(kind, start, stop) => (kind, start, stop, FILTERS_MAX),
            FilterMessage::GetHeaders(kind, start, stop) => (kind, start, stop, HEADERS_MAX),
            FilterMessage::GetCheckpoints(kind, stop) => (kind, 0, stop, u32::MAX),
            _ => return Ok(()),
        };
        let served = self.filters.as_ref().filter(|_| kind == BASIC);
        let Some((filters, _)) = served.and_then(|indexes| indexes.filters()) else {
            let text = format!("peer requested unsupported block filter type: {kind}");
            peer.disconnect(&text);
            return Ok(());
        };
        let step = if max == u32::MAX { CHECKPOINT_INTERVAL } else { 1 };
        let asked = self.chain.query(move |chain| asked(chain, (start, stop), max, step))?;
        let asked = match asked {
            Ok(asked) => asked,
            Err(text) => {
                peer.disconnect(&text);
                return Ok(());
            }
        };
        // What is not indexed yet is not answered, as in Core.
        let answered = match request {
            FilterMessage::GetFilters(..) => self.send_filters(peer, filters, &asked),
            FilterMessage::GetHeaders(..) => self.send_headers(peer, filters, &asked),
            _ => self.send_checkpoints(peer, filters, &asked),
        };
        if answered.is_none() {
            tracing::debug!("Failed to find block filter in index: stop_hash={stop}");
        }
        Ok(())
    }

    fn send_filters(&self, peer: &Peer, filters: &BlockFilters, asked: &Asked) -> Option<()> {
        for block in &asked.blocks {
            let filter = filters.row(*block).ok()??.filter;
            if !peer.wait_for_room() {
                return Some(());
            }
            self.send_filter_message(peer, FilterMessage::Filter(block.hash, filter));
        }
        Some(())
    }

    fn send_headers(&self, peer: &Peer, filters: &BlockFilters, asked: &Asked) -> Option<()> {
        let before = match asked.before {
            Some(block) => filters.row(block).ok()??.header,
            None => FilterHeader::all_zeros(),
        };
        let mut hashes = Vec::with_capacity(asked.blocks.len());
        for block in &asked.blocks {
            hashes.push(filters.row(*block).ok()??.hash);
        }
        self.send_filter_message(peer, FilterMessage::Headers(asked.stop.hash, before, hashes));
        Some(())
    }

    fn send_checkpoints(&self, peer: &Peer, filters: &BlockFilters, asked: &Asked) -> Option<()> {
        let mut headers = Vec::with_capacity(asked.blocks.len());
        for block in &asked.blocks {
            headers.push(filters.row(*block).ok()??.header);
        }
        self.send_filter_message(peer, FilterMessage::Checkpoints(asked.stop.hash, headers));
        Some(())
    }

    fn send_filter_message(&self, peer: &Peer, message: FilterMessage) {
        peer.send(Message::Filters(message), self.clock.now());
    }
}

/// Finds the blocks of a request, every `step`th of them (`PrepareBlockFilterRequest`).
fn asked(
    chain: &Chainstate,
    (start, stop): (u32, BlockHash),
    max: u32,
    step: u32,
) -> Result<Asked, String> {
    let headers = chain.headers();
    let last = headers.get(&stop).filter(|at| may_be_told(chain, *at));
    let last = last.ok_or_else(|| format!("peer requested invalid block hash: {stop}"))?;
    let stop_height = headers.entry(last).height;
    if start > stop_height {
        return Err(format!(
            "peer sent invalid getcfilters/getcfheaders with start height {start} and stop height {stop_height}"
        ));
    }
    if stop_height - start >= max {
        return Err(format!(
            "peer requested too many cfilters/cfheaders: {} / {max}",
            stop_height - start + 1
        ));
    }
    let block = |height: u32| {
        let entry = headers.entry(headers.ancestor(last, height)?);
        Some(BlockRef { height, hash: entry.hash })
    };
    // Checkpoints begin one interval above the genesis block.
    let first = if step > 1 { step } else { start };
    let heights = (first..=stop_height).step_by(step as usize);
    Ok(Asked {
        stop: BlockRef { height: stop_height, hash: stop },
        before: start.checked_sub(1).and_then(block),
        blocks: heights.filter_map(block).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_back_and_cut_ones_refused() {
        let stop = BlockHash::from_byte_array([7; 32]);
        for message in [
            FilterMessage::GetFilters(0, 5, stop),
            FilterMessage::GetHeaders(1, 5, stop),
            FilterMessage::GetCheckpoints(0, stop),
        ] {
            let payload = message.payload();
            let decode = |bytes: &[u8]| FilterMessage::decode(message.command(), &mut &bytes[..]);
            assert_eq!(decode(&payload), Ok(message.clone()));
            assert!(decode(&payload[..payload.len() - 1]).is_err());
        }
        let filter = FilterMessage::Filter(stop, vec![1, 2, 3]);
        assert_eq!(filter.payload()[33..], [3, 1, 2, 3]);
    }
}
