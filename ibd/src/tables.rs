//! All tables on one screen; `FORMAT.md` has the bytes.

use cofferdam_storage::Tree;

/// Block index. Key: height (4 bytes, big-endian) and block hash (32 bytes, wire order), so that
/// a scan meets parents before children. Value: [`crate::headers::HeaderRow`].
pub const HEADERS: Tree = Tree { id: 1, name: "headers" };

/// Unspent outputs. Key: transaction id (32 bytes, wire order) and output index (4 bytes,
/// big-endian), so that a scan is in the order of `hash_serialized_3`. Value: [`crate::Coin`].
pub const COINS: Tree = Tree { id: 2, name: "coins" };

/// Statistics of the UTXO set after each block, if they are kept: see [`crate::CoinStats`].
pub const COIN_STATS: Tree = Tree { id: 3, name: "coinstats" };

/// Every tree of this crate: what a backend has to be opened with.
pub const TREES: &[Tree] = &[HEADERS, COINS, COIN_STATS];
