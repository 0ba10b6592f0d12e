//! Transactions of peers: none is taken, but who may not send any, or sends what is none, is told of
//! in Bitcoin Core's words.

use bitcoin::Transaction;
use bitcoin::p2p::message_blockdata::Inventory;

use super::dispatch::tell_unreadable;
use super::manager::PeerManager;
use super::payload::item;
use super::peer::{Kind, Peer};
use super::permissions::Permissions;

impl PeerManager {
    /// Takes a `tx` in.
    pub(super) fn on_transaction(&self, peer: &Peer, payload: &[u8]) {
        if self.rejects_transactions(peer) {
            peer.disconnect("transaction sent in violation of protocol");
        } else if !self.chain.view().initial_download
            && let Err(fault) = item::<Transaction>(&mut &*payload)
        {
            tell_unreadable("tx", payload.len(), &fault);
        }
    }

    /// Disconnects a peer that announces transactions though it was told not to; returns whether it
    /// did.
    pub(super) fn refuses_announcement(&self, peer: &Peer, items: &[Inventory]) -> bool {
        let with_witness = peer.state().wtxid_relay;
        let hash = items.iter().find_map(|item| match item {
            // The other kind is passed over (BIP-0339).
            Inventory::Transaction(txid) if !with_witness => Some(txid.to_string()),
            Inventory::WTx(wtxid) if with_witness => Some(wtxid.to_string()),
            Inventory::WitnessTransaction(txid) => Some(txid.to_string()),
            _ => None,
        });
        let Some(hash) = hash.filter(|_| self.rejects_transactions(peer)) else { return false };
        peer.disconnect(&format!("transaction ({hash}) inv sent in violation of protocol"));
        true
    }

    /// Returns whether a peer may send no transactions (`RejectIncomingTxs`).
    fn rejects_transactions(&self, peer: &Peer) -> bool {
        matches!(peer.kind, Kind::BlockRelayOnly | Kind::Feeler)
            || !self.relays_transactions() && !peer.may(Permissions::RELAY)
    }
}
