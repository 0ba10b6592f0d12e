//! Do connections live and end as Bitcoin Core's do? Real sockets against the real program.
#![expect(clippy::indexing_slicing, reason = "a test fails by a panic")]

mod bans;
mod compact;
mod crowd;
mod download;
mod fixture;
mod framing;
mod handshake;
mod hostile;
mod outbound;
mod relay;
mod serving;
mod silence;
mod transports;
mod unrequested;
