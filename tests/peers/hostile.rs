//! Peers that do harm, each in its own way, until the node hangs up.
//!
//! They live on threads of their own, which end with the connection: with the node at the latest.

use std::collections::HashMap;
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use bitcoin::block::Header;
use bitcoin::consensus::serialize;
use bitcoin::p2p::message_blockdata::{GetHeadersMessage, Inventory};
use bitcoin::{Block, BlockHash};
use cofferdam_ibd::testing::ModelChain;

use crate::fixture::{Peer, frame, version};

/// Headers of a full message.
pub(crate) const HEADERS_MAX: usize = 2000;
/// Items of the largest `inv` and `getdata`.
const ITEMS_MAX: usize = 50_000;
/// What somebody slow waits after each byte.
const SLOW: Duration = Duration::from_millis(5);

/// What a peer does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Serves what it is asked for.
    Honest,
    /// Has all headers, and sends no block.
    Stalls,
    /// Sends its blocks byte by byte.
    Trickles,
    /// Sends each block many times, and others that nobody asked it for.
    Repeats,
    /// Sends each block with a transaction too many.
    Mutates,
    /// Sends the first block, unasked, again and again.
    Forestalls,
    /// Says that it does not have what it announced.
    HasNothing,
    /// Shows chains without enough work, without end.
    ShowsLowWork,
    /// Announces the same 50,000 blocks again and again.
    Announces,
    /// Asks for 50,000 blocks again and again, and never reads.
    Asks,
    /// Pings without end, and never reads.
    Pings,
    /// Connects, says half a message, leaves, and so on.
    Churns,
    /// Sends headers that no work was done for.
    ForgesWork,
    /// Sends headers that do not follow each other.
    SkipsHeaders,
    /// Sends bytes that are no message.
    Babbles,
    /// Shakes no hands, but talks.
    IsRude,
    /// Connects and says nothing.
    IsMute,
}

/// What peers know.
pub(crate) struct World {
    blocks: Vec<Block>,
    heights: HashMap<BlockHash, usize>,
    /// A full message of headers of a chain of its own, as frame.
    low_work: Vec<u8>,
}

impl World {
    /// Makes a chain of so many blocks, and another one as long as a message of headers.
    pub(crate) fn new(blocks: u64) -> Self {
        let mut chain = ModelChain::new();
        let mut world = Self { blocks: Vec::new(), heights: HashMap::new(), low_work: Vec::new() };
        for number in 1..=blocks {
            let block = chain.block(number, Vec::new());
            chain.connect(&block);
            world.heights.insert(block.block_hash(), world.blocks.len());
            world.blocks.push(block);
        }
        world.low_work = frame("headers", &headers(&made_up(HEADERS_MAX)));
        world
    }

    pub(crate) fn tip(&self) -> String {
        self.blocks.last().expect("blocks").block_hash().to_string()
    }

    fn headers_after(&self, locator: &[BlockHash]) -> Vec<Header> {
        let from = locator.iter().find_map(|hash| self.heights.get(hash));
        let from = from.map_or(0, |height| height + 1);
        self.blocks[from..].iter().take(HEADERS_MAX).map(|block| block.header).collect()
    }

    /// Items that name blocks which nobody has.
    fn unknown_blocks() -> Vec<u8> {
        let mut payload = vec![0xfd];
        payload.extend(u16::try_from(ITEMS_MAX).expect("fits").to_le_bytes());
        for number in 0..u32::try_from(ITEMS_MAX).expect("fits") {
            payload.extend([2, 0, 0, 0]);
            payload.extend([number.to_le_bytes(); 8].concat());
        }
        payload
    }

    /// Items that name the first block, again and again.
    fn first_block(&self) -> Vec<u8> {
        let first = Inventory::WitnessBlock(self.blocks[0].block_hash());
        serialize(&vec![first; ITEMS_MAX])
    }
}

/// Headers with work, on the genesis block.
fn made_up(count: usize) -> Vec<Header> {
    let mut last = bitcoin::constants::genesis_block(bitcoin::Network::Regtest).header;
    let next = |_| {
        last.prev_blockhash = last.block_hash();
        last.time += 601;
        while last.validate_pow(last.target()).is_err() {
            last.nonce += 1;
        }
        last
    };
    (0..count).map(next).collect()
}

fn headers(headers: &[Header]) -> Vec<u8> {
    let mut payload = serialize(&bitcoin::VarInt::from(headers.len()));
    for header in headers {
        payload.extend(serialize(header));
        payload.push(0);
    }
    payload
}

impl Kind {
    /// All that do harm.
    pub(crate) const HOSTILE: [Self; 16] = [
        Self::Stalls,
        Self::Trickles,
        Self::Repeats,
        Self::Mutates,
        Self::Forestalls,
        Self::HasNothing,
        Self::ShowsLowWork,
        Self::Announces,
        Self::Asks,
        Self::Pings,
        Self::Churns,
        Self::ForgesWork,
        Self::SkipsHeaders,
        Self::Babbles,
        Self::IsRude,
        Self::IsMute,
    ];

    /// Has such a peer connect to a node; it connects again, so many times, when the node hangs up.
    pub(crate) fn dial(self, port: u16, world: &'static World, again: usize) {
        in_the_background(move || {
            for _ in 0..=again {
                let Ok(stream) = TcpStream::connect(("127.0.0.1", port)) else { return };
                let _ = self.live(Peer::new(stream), world, true);
            }
        });
    }

    /// Has such a peer wait for a connection; returns its address.
    pub(crate) fn listen(self, world: &'static World) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        in_the_background(move || {
            let Ok((stream, _)) = listener.accept() else { return };
            let _ = self.live(Peer::new(stream), world, false);
        });
        address
    }

    /// Lives until the node hangs up.
    fn live(self, mut peer: Peer, world: &World, dials: bool) -> Option<()> {
        match self {
            Self::IsMute => return peer.read().map(drop),
            Self::IsRude => return repeat(&mut peer, &frame("getaddr", &[])),
            Self::Babbles => return repeat(&mut peer, &[0x5a; 4096]),
            Self::Churns => return peer.try_send_raw(&frame("version", &version(70_016, 9))[..50]),
            _ => {}
        }
        if dials {
            peer.try_send("version", &version(70_016, 9))?;
        }
        loop {
            match peer.read()?.0.as_str() {
                "version" if !dials => peer.try_send("version", &version(70_016, 9))?,
                "verack" => break,
                _ => {}
            }
        }
        peer.try_send("verack", &[])?;
        match self {
            Self::ShowsLowWork => repeat(&mut peer, &world.low_work),
            Self::Forestalls => {
                repeat(&mut peer, &frame("block", &serialize(&world.blocks[0])).repeat(100))
            }
            Self::Announces => repeat(&mut peer, &frame("inv", &World::unknown_blocks())),
            Self::Asks => repeat(&mut peer, &frame("getdata", &world.first_block())),
            Self::Pings => repeat(&mut peer, &frame("ping", &[1; 8]).repeat(1000)),
            Self::ForgesWork => {
                let mut forged = made_up(2);
                while forged[1].validate_pow(forged[1].target()).is_ok() {
                    forged[1].nonce += 1;
                }
                repeat(&mut peer, &frame("headers", &headers(&forged)))
            }
            Self::SkipsHeaders => {
                let made_up = made_up(3);
                repeat(&mut peer, &frame("headers", &headers(&[made_up[0], made_up[2]])))
            }
            _ => self.serve(&mut peer, world),
        }
    }

    fn serve(self, peer: &mut Peer, world: &World) -> Option<()> {
        loop {
            let (command, payload) = peer.read()?;
            match command.as_str() {
                "ping" => peer.try_send("pong", &payload)?,
                "getheaders" => {
                    let asked: GetHeadersMessage =
                        bitcoin::consensus::deserialize(&payload).ok()?;
                    let found = world.headers_after(&asked.locator_hashes);
                    peer.try_send("headers", &headers(&found))?;
                }
                "getdata" => {
                    let items: Vec<Inventory> = bitcoin::consensus::deserialize(&payload).ok()?;
                    for item in items {
                        let (Inventory::WitnessBlock(hash) | Inventory::Block(hash)) = item else {
                            continue;
                        };
                        self.give(peer, world, item, *world.heights.get(&hash)?)?;
                    }
                }
                _ => {}
            }
        }
    }

    /// Does what this peer does when it is asked for a block.
    fn give(self, peer: &mut Peer, world: &World, item: Inventory, at: usize) -> Option<()> {
        let block = &world.blocks[at];
        match self {
            Self::Stalls => {}
            Self::Trickles => {
                for byte in frame("block", &serialize(block)) {
                    peer.try_send_raw(&[byte])?;
                    thread::sleep(SLOW);
                }
            }
            Self::Repeats => {
                peer.try_send_raw(&frame("block", &serialize(block)).repeat(20))?;
                let other = &world.blocks[(at * 7919) % world.blocks.len()];
                peer.try_send("block", &serialize(other))?;
            }
            Self::Mutates => {
                let mut block = block.clone();
                let last = block.txdata[block.txdata.len() - 1].clone();
                block.txdata.push(last);
                peer.try_send("block", &serialize(&block))?;
            }
            Self::HasNothing => peer.try_send("notfound", &serialize(&vec![item]))?,
            _ => peer.try_send("block", &serialize(block))?,
        }
        Some(())
    }
}

fn repeat(peer: &mut Peer, bytes: &[u8]) -> Option<()> {
    loop {
        peer.try_send_raw(bytes)?;
    }
}

fn in_the_background(work: impl FnOnce() + Send + 'static) {
    thread::Builder::new().name("peer".into()).spawn(work).expect("a thread");
}
