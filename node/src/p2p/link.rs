//! `Link`: what the exchange of headers and blocks remembers of one peer.

use bitcoin::BlockHash;
use cofferdam_ibd::sync::Role;

use super::addresses::AddressLink;
use super::chain_sync::ChainSync;
use super::partial_block::Partials;
use super::peer::{Kind, Peer};
use super::permissions::Permissions;

/// Service bits (Bitcoin Core's `protocol.h`).
const NODE_NETWORK: u64 = 1;
const NODE_WITNESS: u64 = 1 << 3;
const NODE_NETWORK_LIMITED: u64 = 1 << 10;

/// What the exchange of headers and blocks remembers of one peer.
#[derive(Debug, Default)]
pub(crate) struct Link {
    /// The last block that the peer announced and whose header is not known: it is asked for once
    /// the header came, from whomever.
    pub(super) unknown: Option<BlockHash>,
    /// Whether the peer was asked to announce new blocks by compact blocks.
    pub(crate) announces_compact: bool,
    /// Its compact blocks that are being put together.
    pub(super) partials: Partials,
    /// The last block of an answer to `getblocks`: who fetches it is told of our tip, and asks on.
    pub(super) continuation: Option<BlockHash>,
    /// How it keeps up with us.
    pub(super) chain_sync: ChainSync,
    /// What the exchange of addresses remembers.
    pub(crate) addresses: AddressLink,
}

impl Peer {
    /// Returns whether it has blocks, all or the last ones.
    pub(super) fn serves_blocks(&self) -> bool {
        self.offers(NODE_NETWORK) || self.offers(NODE_NETWORK_LIMITED)
    }

    /// Returns whether it has the last blocks only (BIP-0159).
    pub(super) fn is_limited(&self) -> bool {
        !self.offers(NODE_NETWORK) && self.offers(NODE_NETWORK_LIMITED)
    }

    /// Returns whether it has blocks with their witnesses.
    pub(crate) fn serves_witnesses(&self) -> bool {
        self.offers(NODE_WITNESS)
    }

    /// Returns what it is to the sync.
    pub(super) fn role(&self) -> Role {
        let serves = self.serves_blocks() && self.kind != Kind::AddrFetch;
        let protected = self.is_protected();
        Role { preferred: serves && (protected || !self.is_inbound()), protected, serves }
    }

    /// Returns whether it is never punished, nor subject to limits.
    pub(super) fn is_protected(&self) -> bool {
        self.may(Permissions::NO_BAN)
    }

    /// Returns whether it is a peer that we chose and may replace by any other.
    pub(super) fn is_disposable(&self) -> bool {
        matches!(self.kind, Kind::OutboundFullRelay | Kind::BlockRelayOnly)
    }

    fn offers(&self, service: u64) -> bool {
        self.state().version.as_ref().is_some_and(|version| version.services & service != 0)
    }
}
