//! Messages of relay, handled: each is passed on to what knows it.

use std::sync::Arc;

use super::dispatch::End;
use super::manager::PeerManager;
use super::peer::Peer;
use super::relay_message::RelayMessage;

impl PeerManager {
    pub(super) fn on_relay(&self, peer: &Arc<Peer>, message: RelayMessage) -> Result<(), End> {
        match message {
            RelayMessage::GetBlocks(locator, stop) => {
                Ok(self.serve_block_list(peer, locator, stop)?)
            }
            RelayMessage::CompactBlock(block) => self.on_compact_block(peer, *block),
            RelayMessage::GetBlockTxn(request) => self.serve_transactions(peer, &request),
            RelayMessage::BlockTxn(answer) => self.on_block_txn(peer, answer),
            RelayMessage::Addr(list) => self.on_addresses(peer, "addr", list),
            RelayMessage::AddrV2(list) => self.on_addresses(peer, "addrv2", list),
        }
    }
}
