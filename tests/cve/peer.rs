//! A peer that sends what it should not, as a socket.

use std::io::{BufReader, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use bitcoin::block::Header;
use bitcoin::consensus::{Decodable as _, serialize};
use bitcoin::hashes::Hash as _;
use bitcoin::p2p::message::{NetworkMessage, RawNetworkMessage};
use bitcoin::p2p::message_blockdata::Inventory;
use bitcoin::p2p::message_network::VersionMessage;
use bitcoin::p2p::{Address, Magic, ServiceFlags};
use bitcoin::{Block, BlockHash};
use cofferdam_ibd::testing::{ModelChain, transfer};
use cofferdam_tests::process::{Node, wait_for};

use super::anyones;

pub(super) const BINARY: &str = env!("CARGO_BIN_EXE_cofferdam-under-test");

/// A connection to a node, after the handshake.
pub(super) struct Peer {
    stream: BufReader<TcpStream>,
}

impl Peer {
    pub(super) fn connect(node: &Node) -> Self {
        Self::connect_at(node, 0)
    }

    /// Connects with a clock that shows this.
    pub(super) fn connect_at(node: &Node, time: i64) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", node.p2p_port)).expect("the node listens");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket");
        let address = stream.peer_addr().expect("connected");
        let mut peer = Self { stream: BufReader::new(stream) };
        let end = || Address::new(&address, ServiceFlags::NETWORK | ServiceFlags::WITNESS);
        let services = ServiceFlags::NETWORK | ServiceFlags::WITNESS;
        let nonce = u64::from(peer.stream.get_ref().local_addr().expect("bound").port());
        let mut version =
            VersionMessage::new(services, time, end(), end(), nonce, "/test/".into(), 0);
        version.version = 70_016;
        peer.send(NetworkMessage::Version(version));
        peer.wait_for(|message| matches!(message, NetworkMessage::Version(_)).then_some(()));
        peer.send(NetworkMessage::Verack);
        peer.settle();
        peer
    }

    pub(super) fn send(&mut self, message: NetworkMessage) {
        let frame = serialize(&RawNetworkMessage::new(Magic::REGTEST, message));
        // The node may have closed the connection already.
        let _ = self.stream.get_ref().write_all(&frame);
    }

    /// Reads the next message; none when the node has closed the connection.
    pub(super) fn receive(&mut self) -> Option<NetworkMessage> {
        RawNetworkMessage::consensus_decode(&mut self.stream).ok().map(|raw| raw.payload().clone())
    }

    pub(super) fn wait_for<T>(&mut self, wanted: impl Fn(&NetworkMessage) -> Option<T>) -> T {
        loop {
            let message = self.receive().expect("the connection stays open");
            if let NetworkMessage::Ping(nonce) = message {
                self.send(NetworkMessage::Pong(nonce));
            } else if let Some(found) = wanted(&message) {
                return found;
            }
        }
    }

    /// Waits until the node has handled all that was sent before.
    pub(super) fn settle(&mut self) {
        self.send(NetworkMessage::Ping(77));
        self.wait_for(|message| (*message == NetworkMessage::Pong(77)).then_some(()));
    }

    pub(super) fn announce(&mut self, headers: Vec<Header>) {
        self.send(NetworkMessage::Headers(headers));
    }

    /// Waits until the node asks for that block.
    fn is_asked_for(&mut self, hash: BlockHash) {
        self.wait_for(|message| match message {
            NetworkMessage::GetData(items) => {
                items.contains(&Inventory::WitnessBlock(hash)).then_some(())
            }
            _ => None,
        });
    }

    /// How often the node has asked for that block since its messages were read last.
    fn asked_again(&mut self, hash: BlockHash) -> usize {
        self.send(NetworkMessage::Ping(78));
        let mut count = 0;
        loop {
            match self.receive().expect("the connection stays open") {
                NetworkMessage::Pong(78) => return count,
                NetworkMessage::GetData(items) => {
                    count +=
                        items.iter().filter(|&&item| item == Inventory::WitnessBlock(hash)).count();
                }
                _ => {}
            }
        }
    }

    /// Waits until the node has closed the connection.
    fn expect_end(mut self) {
        while self.receive().is_some() {}
    }
}

/// The heights that the node waits for, for each of its peers.
fn in_flight(node: &Node) -> Vec<Vec<u64>> {
    let peers = node.rpc("getpeerinfo", &[]);
    let heights = |peer: &serde_json::Value| {
        let heights = peer["inflight"].as_array().expect("a list");
        heights.iter().map(|height| height.as_u64().expect("a height")).collect()
    };
    peers.as_array().expect("a list").iter().map(heights).collect()
}

/// Other forms of a block: a repeated end, other witnesses, no transactions.
fn mutants(block: &Block) -> Vec<Vec<u8>> {
    let mut repeated = block.clone();
    let last = repeated.txdata[2].clone();
    repeated.txdata.push(last);
    let mut witness = block.clone();
    witness.txdata[1].input[0].witness.push([1]);
    let mut empty = block.clone();
    empty.txdata.clear();
    vec![serialize(&repeated), serialize(&witness), serialize(&empty)]
}

/// Bitcoin Core forgot that it had asked an honest peer for a block when another peer sent a mutated
/// one of the same hash. Here that changes nothing but the sender's state: it is disconnected, and
/// the honest peer still owes the block and delivers it.
#[test]
fn cve_2024_52921_a_mutated_block_clears_nobody_elses_download() {
    let dir = tempfile::tempdir().expect("temporary");
    let node = Node::start(BINARY, dir.path(), &["-backend=sled"]);
    let (mut model, base) = ModelChain::funded(24);
    let coins = model.spendable(true);
    let simple = |coin: &_| transfer(std::slice::from_ref(coin), vec![anyones(3000)]);
    let block = model.block(1, coins[..2].iter().map(simple).collect());
    let mut honest = Peer::connect(&node);
    honest.announce(base.iter().map(|block| block.header).collect());
    for block in &base {
        honest.send(NetworkMessage::Block(block.clone()));
    }
    wait_for("the base", || (node.height() == base.len() as u64).then_some(()));

    honest.announce(vec![block.header]);
    honest.is_asked_for(block.block_hash());
    let height = base.len() as u64 + 1;
    for (number, mutant) in mutants(&block).into_iter().enumerate() {
        let mut liar = Peer::connect(&node);
        liar.send_raw("block", &mutant);
        liar.expect_end();
        wait_for("the liar's end", || (in_flight(&node).len() == 1).then_some(()));
        assert_eq!(in_flight(&node), [vec![height]], "after mutant {number}");
    }
    // What is no block says nothing of any: its sender stays, and has gained nothing.
    let mut cutter = Peer::connect(&node);
    let bytes = serialize(&block);
    for length in [0, 79, 80, bytes.len() / 2, bytes.len() - 1] {
        cutter.send_raw("block", &bytes[..length]);
    }
    cutter.settle();
    assert!(in_flight(&node).contains(&vec![height]), "cut blocks took the download away");
    drop(cutter);
    assert_eq!(honest.asked_again(block.block_hash()), 0, "the node forgot whom it had asked");
    honest.send(NetworkMessage::Block(block.clone()));
    wait_for("the genuine block", || (node.height() == height).then_some(()));
    model.connect(&block);
    assert_eq!(node.rpc("getbestblockhash", &[]), model.tip().hash.to_string());
    // What an honest peer was asked for and sends mutated is refused, and asked of another.
    let next = model.block(2, vec![simple(&coins[3])]);
    honest.announce(vec![next.header]);
    honest.is_asked_for(next.block_hash());
    let mut mutant = next.clone();
    mutant.txdata.push(next.txdata[1].clone());
    mutant.txdata.push(next.txdata[1].clone());
    honest.send(NetworkMessage::Block(mutant));
    honest.expect_end();
    let mut other = Peer::connect(&node);
    other.announce(vec![next.header]);
    other.is_asked_for(next.block_hash());
    other.send(NetworkMessage::Block(next));
    wait_for("the next block", || (node.height() == height + 1).then_some(()));
    node.stop();
}

impl Peer {
    /// Sends bytes under a command, whatever they are.
    pub(super) fn send_raw(&mut self, command: &str, payload: &[u8]) {
        let mut frame = Magic::REGTEST.to_bytes().to_vec();
        frame.extend(command.bytes().chain(std::iter::repeat(0)).take(12));
        frame.extend_from_slice(&u32::try_from(payload.len()).expect("small").to_le_bytes());
        let checksum = bitcoin::hashes::sha256d::Hash::hash(payload).to_byte_array();
        frame.extend_from_slice(&checksum[..4]);
        frame.extend_from_slice(payload);
        let _ = self.stream.get_ref().write_all(&frame);
    }
}
