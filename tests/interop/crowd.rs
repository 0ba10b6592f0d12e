//! Many peers in one process: sockets that serve a chain of large blocks from memory.

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use bitcoin::block::Header;
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::{Hash as _, sha256d};
use bitcoin::p2p::message::{NetworkMessage, RawNetworkMessage};
use bitcoin::p2p::message_blockdata::{GetHeadersMessage, Inventory};
use bitcoin::p2p::message_network::VersionMessage;
use bitcoin::p2p::{Address, Magic, ServiceFlags};
use bitcoin::{Amount, BlockHash, ScriptBuf, TxOut};
use cofferdam_ibd::testing::ModelChain;

/// Headers of one message.
const HEADERS_MAX: usize = 2_000;
/// Bytes of a message's frame before the payload.
const FRAME_BYTES: usize = 24;
/// A script that is larger is unspendable, and so no coin.
const SCRIPT_BYTES: usize = 10_001;

/// A chain of blocks of about a million bytes, as messages.
#[derive(Debug)]
pub(crate) struct LargeChain {
    headers: Vec<Header>,
    heights: HashMap<BlockHash, usize>,
    /// Of the block of each header, ready to be sent.
    messages: Vec<Vec<u8>>,
    /// Of the last block.
    pub(crate) tip: BlockHash,
}

impl LargeChain {
    /// Makes `blocks` blocks of `outputs` outputs of ten thousand bytes each.
    pub(crate) fn new(blocks: usize, outputs: usize) -> Self {
        let mut chain = ModelChain::new();
        let mut large = Self {
            headers: Vec::new(),
            heights: HashMap::new(),
            messages: Vec::new(),
            tip: chain.tip().hash,
        };
        for number in 0..blocks {
            let mut block = chain.block(number as u64 + 1, Vec::new());
            for index in 0..outputs {
                // Not all the same bytes: nothing that is kept of them is to be small.
                let mut script = vec![0x51; SCRIPT_BYTES];
                for (byte, value) in script.iter_mut().zip((number * outputs + index)..) {
                    *byte = (value.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0];
                }
                let script_pubkey = ScriptBuf::from_bytes(script);
                block.txdata[0].output.push(TxOut { value: Amount::ZERO, script_pubkey });
            }
            chain.seal_header(&mut block);
            chain.connect(&block);
            large.heights.insert(block.block_hash(), number);
            large.headers.push(block.header);
            large.messages.push(frame("block", &serialize(&block)));
        }
        large.tip = chain.tip().hash;
        large
    }

    fn headers_after(&self, locator: &[BlockHash]) -> Vec<Header> {
        let known = locator.iter().find_map(|hash| self.heights.get(hash));
        let from = known.map_or(0, |height| height + 1);
        self.headers.iter().skip(from).take(HEADERS_MAX).copied().collect()
    }

    /// Dials a node and serves it.
    pub(crate) fn dial(self: &Arc<Self>, port: u16) -> io::Result<()> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        self.serve(stream, true);
        Ok(())
    }

    /// Listens and serves whoever connects; returns the port.
    pub(crate) fn listen(self: &Arc<Self>) -> io::Result<u16> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let chain = Arc::clone(self);
        in_the_background(move || {
            for stream in listener.incoming().flatten() {
                chain.serve(stream, false);
            }
        });
        Ok(port)
    }

    fn serve(self: &Arc<Self>, stream: TcpStream, dialled: bool) {
        let chain = Arc::clone(self);
        // The end of the connection is the end of the thread: the node decides about it.
        in_the_background(move || drop(chain.answer(&stream, dialled)));
    }

    fn answer(&self, stream: &TcpStream, dialled: bool) -> io::Result<()> {
        if dialled {
            send(stream, NetworkMessage::Version(version(stream)?))?;
        }
        loop {
            let (command, payload) = receive(stream)?;
            let decode_failed = |_| io::Error::from(io::ErrorKind::InvalidData);
            match command.as_str() {
                "version" => {
                    if !dialled {
                        send(stream, NetworkMessage::Version(version(stream)?))?;
                    }
                    send(stream, NetworkMessage::Verack)?;
                }
                "ping" => {
                    let nonce: u64 = deserialize(&payload).map_err(decode_failed)?;
                    send(stream, NetworkMessage::Pong(nonce))?;
                }
                "getheaders" => {
                    let asked: GetHeadersMessage = deserialize(&payload).map_err(decode_failed)?;
                    let headers = self.headers_after(&asked.locator_hashes);
                    send(stream, NetworkMessage::Headers(headers))?;
                }
                "getdata" => {
                    let items: Vec<Inventory> = deserialize(&payload).map_err(decode_failed)?;
                    for item in items {
                        let (Inventory::WitnessBlock(hash) | Inventory::Block(hash)) = item else {
                            continue;
                        };
                        if let Some(message) =
                            self.heights.get(&hash).and_then(|&height| self.messages.get(height))
                        {
                            (&*stream).write_all(message)?;
                        }
                    }
                }
                _ => {}
            }
        }
    }
}

fn in_the_background(work: impl FnOnce() + Send + 'static) {
    thread::Builder::new().name("crowd".into()).spawn(work).expect("a thread");
}

fn version(stream: &TcpStream) -> io::Result<VersionMessage> {
    let services = ServiceFlags::NETWORK | ServiceFlags::WITNESS;
    let end = || Ok::<_, io::Error>(Address::new(&stream.peer_addr()?, services));
    let nonce = u64::from(stream.local_addr()?.port()) << 16;
    let mut version = VersionMessage::new(services, 0, end()?, end()?, nonce, "/crowd/".into(), 0);
    version.version = 70_016;
    Ok(version)
}

fn send(mut stream: &TcpStream, message: NetworkMessage) -> io::Result<()> {
    stream.write_all(&serialize(&RawNetworkMessage::new(Magic::REGTEST, message)))
}

/// A message as its bytes.
pub(crate) fn frame(command: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Magic::REGTEST.to_bytes().to_vec();
    let mut name = command.as_bytes().to_vec();
    name.resize(12, 0);
    bytes.extend_from_slice(&name);
    let length = u32::try_from(payload.len()).expect("small");
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&sha256d::Hash::hash(payload).to_byte_array()[..4]);
    bytes.extend_from_slice(payload);
    bytes
}

fn receive(mut stream: &TcpStream) -> io::Result<(String, Vec<u8>)> {
    let mut head = [0; FRAME_BYTES];
    stream.read_exact(&mut head)?;
    let command = head[4..16].iter().take_while(|&&byte| byte != 0).map(|&byte| char::from(byte));
    let command = command.collect();
    let length = u32::from_le_bytes(head[16..20].try_into().expect("four bytes"));
    let mut payload = vec![0; length as usize];
    stream.read_exact(&mut payload)?;
    Ok((command, payload))
}

/// A peer that sends nearly all of the largest message there may be, and no more.
///
/// # Errors
///
/// Fails if the node closes the connection.
pub(crate) fn hoard(port: u16) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    send(&stream, NetworkMessage::Version(version(&stream)?))?;
    while receive(&stream)?.0 != "verack" {}
    send(&stream, NetworkMessage::Verack)?;
    let bytes = frame("block", &vec![0; 4_000_000]);
    stream.write_all(&bytes[..bytes.len() - 1])?;
    Ok(stream)
}
