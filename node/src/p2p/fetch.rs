//! Blocks that a user has fetched from a peer of his choice (`getblockfrompeer`).

use bitcoin::BlockHash;
use bitcoin::p2p::message_blockdata::Inventory;
use cofferdam_ibd::sync::PeerId;

use super::manager::PeerManager;
use super::message::Message;

impl PeerManager {
    /// Asks a peer for a block whose header is known, whoever was asked before: the same one as well.
    ///
    /// # Errors
    ///
    /// Returns why it cannot be asked, in Bitcoin Core's words.
    pub(crate) fn fetch_block(&self, id: PeerId, hash: BlockHash) -> Result<(), &'static str> {
        if self.chain.is_loading() {
            return Err("Loading blocks ...");
        }
        let peer = self.peer(id).ok_or("Peer does not exist")?;
        if !peer.serves_witnesses() {
            return Err("Pre-SegWit peer");
        }
        let now = self.clock.now();
        {
            let mut sync = self.sync();
            // It is closed before it is forgotten there: it would owe the block for ever.
            if peer.is_closing() {
                return Err("Peer does not exist");
            }
            sync.download.request_from(id, hash, self.line_time());
        }
        peer.send(Message::GetData(vec![Inventory::WitnessBlock(hash)]), now);
        tracing::debug!("Requesting block {hash} from peer={id}");
        Ok(())
    }
}
