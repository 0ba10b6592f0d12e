//! The chain of 199 blocks that Bitcoin Core's functional test framework has a real `bitcoind` mine
//! before its tests: 25 blocks at a time to four addresses in turn, at the genesis block's time.

/// Where the blocks are paid, 25 to each in turn.
pub const ADDRESSES: [&str; 4] = [
    "mjTkW3DjgyZck4KbiRusZsqTgaYTxdSz6z",
    "msX6jQXvxiNhx3Q62PKeLPrhrqZQdSimTg",
    "mnonCMyH9TmAsSj3M59DsbH8H63U3RKoFP",
    "bcrt1p9yfmy5h72durp7zrhlw9lf7jpwjgvwdg0jr0lqmmjtgg83266lqsekaqka",
];

/// Some heights and the hashes of their blocks.
pub const HASHES: [(u32, &str); 6] = [
    (1, "4a31ceeaab3807a7441be5f951d86a4682a217bff37123f34196e2709d852f5e"),
    (2, "196ee3a1a6db2353965081c48ef8e6b031cb2115d084bec6fec937e91a2c6277"),
    (25, "1c26c01bfaa31f32c900b9bfca7000f2b719013f1234d3b15aa8e8a512ca7b1f"),
    (100, "0722dc8920f2e32ee39c8a0fe304e359c61023dc76772ef29b4098f2235e3fb9"),
    (150, "69fb4080328217f2e27992a84fc5950663c4242eaf272691dcc6697a06be2946"),
    (199, "70561696b71207e34ce30fd728f44836b9a49b391af801d77b4621e3cb16e888"),
];

/// The first block, in hexadecimal digits.
pub const BLOCK_1: &str = "0000002006226e46111a0b59caaf126043eb5bbf28c34f3a5e332a1fc7b2b73cf188910f\
    35b99ed4e2e165de2ad77f1bba48049358c9bb740445f3c83ebdb3e83aa5bca8dbe5494dffff7f200000000001020000\
    000001010000000000000000000000000000000000000000000000000000000000000000ffffffff025100feffffff02\
    00f2052a010000001976a9142b4569203694fc997e13f2c0a1383b9e16c77a0d88ac0000000000000000266a24aa21a9\
    ede2f61c3f71d1defd3fa999dfa36953755c690689799962b48bebd836974e8cf9012000000000000000000000000000\
    0000000000000000000000000000000000000000000000";

/// `hash_serialized_3` of its coins.
pub const HASH_SERIALIZED_3: &str =
    "b39c1e0941942fde2c51653ff4dd182472878a1c882ca3cc790688db33e469d1";

/// The `muhash` of its coins.
pub const MUHASH: &str = "36534f06309cd7f54739afe99c2224e39a53a759da8973f057fe257b1b961c79";
