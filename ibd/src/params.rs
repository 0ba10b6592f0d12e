//! `ChainParams`: the rules in which the five networks differ (`kernel/chainparams.cpp` and
//! `chainparamsbase.cpp` of Bitcoin Core 31).

use std::fmt;
use std::str::FromStr;

use bitcoin::hashes::{Hash as _, HashEngine as _, sha256d};
use bitcoin::hex::FromHex as _;
use bitcoin::{Block, BlockHash, KnownHrp, ScriptBuf, Target, Work};

use crate::headers::HeadersSyncParams;
use crate::script::ScriptFlags;
use crate::versionbits::Deployment;

/// A Bitcoin network, displayed and parsed under Bitcoin Core's `-chain` names.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Network {
    /// The main network, `main`.
    Mainnet,
    /// The third test network, `test`.
    Testnet3,
    /// The fourth test network (BIP-0094), `testnet4`.
    Testnet4,
    /// The default signet (BIP-0325), `signet`.
    Signet,
    /// Private regression-test chains, `regtest`.
    Regtest,
}

impl Network {
    /// All networks.
    pub const ALL: [Self; 5] =
        [Self::Mainnet, Self::Testnet3, Self::Testnet4, Self::Signet, Self::Regtest];

    /// Returns Bitcoin Core's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mainnet => "main",
            Self::Testnet3 => "test",
            Self::Testnet4 => "testnet4",
            Self::Signet => "signet",
            Self::Regtest => "regtest",
        }
    }

    /// Returns the same network in the `bitcoin` crate, for addresses.
    #[must_use]
    pub const fn to_bitcoin(self) -> bitcoin::Network {
        match self {
            Self::Mainnet => bitcoin::Network::Bitcoin,
            Self::Testnet3 => bitcoin::Network::Testnet,
            Self::Testnet4 => bitcoin::Network::Testnet4,
            Self::Signet => bitcoin::Network::Signet,
            Self::Regtest => bitcoin::Network::Regtest,
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No network has this name.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("unknown chain `{0}` (known: main, test, testnet4, signet, regtest)")]
pub struct UnknownNetwork(String);

impl FromStr for Network {
    type Err = UnknownNetwork;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|network| network.name() == name);
        found.ok_or_else(|| UnknownNetwork(name.to_owned()))
    }
}

/// A text that changes no rule.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct InvalidParams(String);

/// Reads a number as Bitcoin Core's `ToIntegral` does: digits and perhaps a minus, nothing else.
fn integer<T: FromStr>(text: &str) -> Option<T> {
    if text.starts_with('+') { None } else { text.parse().ok() }
}

/// The rules of one network.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChainParams {
    /// Which network.
    pub network: Network,
    /// First bytes of each network message and each block-file record.
    pub magic: [u8; 4],
    /// TCP port of the peer-to-peer protocol.
    pub default_port: u16,
    /// TCP port of the RPC server.
    pub rpc_port: u16,
    /// Host names that answer with addresses of nodes.
    pub dns_seeds: &'static [&'static str],
    /// Human-readable part of segwit addresses. The prefixes of others: [`Network::to_bitcoin`].
    pub bech32_hrp: KnownHrp,
    /// Block 0.
    pub genesis: Block,
    /// Highest target, that is lowest difficulty.
    pub pow_limit: Target,
    /// A block may have the lowest difficulty if it is 20 minutes later than its parent.
    pub pow_allow_min_difficulty: bool,
    /// The difficulty never changes.
    pub pow_no_retargeting: bool,
    /// The rules of BIP-0094 against time warp and block storms.
    pub enforce_bip94: bool,
    /// Seconds between blocks that the difficulty aims at.
    pub pow_target_spacing: u32,
    /// Seconds of a difficulty period.
    pub pow_target_timespan: u32,
    /// Blocks after which the subsidy halves.
    pub subsidy_halving_interval: u32,
    /// First height at which the coinbase has to start with the height (BIP-0034).
    pub bip34_height: u32,
    /// Hash of the block at that height on the known chain, if there is one.
    pub bip34_hash: Option<BlockHash>,
    /// Blocks that overwrite an unspent coinbase, from before BIP-0030: height and hash
    /// (`IsBIP30Repeat`).
    pub bip30_repeats: Vec<(u32, BlockHash)>,
    /// Blocks whose coinbase they overwrite (`IsBIP30Unspendable`).
    pub bip30_overwritten: Vec<(u32, BlockHash)>,
    /// First height with `OP_CHECKLOCKTIMEVERIFY` (BIP-0065).
    pub bip65_height: u32,
    /// First height with strict DER signatures (BIP-0066).
    pub bip66_height: u32,
    /// First height with BIP-0068, BIP-0112 and BIP-0113.
    pub csv_height: u32,
    /// First height with witness commitments and NULLDUMMY (BIP-0141, BIP-0147).
    pub segwit_height: u32,
    /// Rule changes that miners signal for (BIP-0009).
    pub deployments: Vec<Deployment>,
    /// First height at which signals for unknown rules count (`MinBIP9WarningHeight`).
    pub min_version_warning_height: u32,
    /// Blocks in the chain that break P2SH or taproot: the flags to use instead of
    /// P2SH, WITNESS and TAPROOT.
    pub script_flag_exceptions: Vec<(BlockHash, ScriptFlags)>,
    /// A chain with less work is not the one looked for.
    pub minimum_chain_work: Work,
    /// Block whose ancestors' scripts may be taken as valid.
    pub assume_valid: Option<BlockHash>,
    /// Memory for a peer's headers as long as their work is in doubt.
    pub headers_sync: HeadersSyncParams,
    /// Script that every block has to satisfy (BIP-0325).
    pub signet_challenge: Option<ScriptBuf>,
    /// How many transactions the network has made, to estimate how many are to come.
    pub chain_tx_data: ChainTxData,
}

/// How many transactions a network had made at some time, and how many it makes (Bitcoin Core's
/// `ChainTxData`).
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct ChainTxData {
    /// Seconds since 1970.
    pub time: u32,
    /// Transactions up to then.
    pub tx_count: u64,
    /// Transactions a second since.
    pub tx_rate: f64,
}

// The rates are constants that were read from a table: none is NaN.
impl Eq for ChainTxData {}

impl ChainParams {
    /// Returns the rules of a network.
    #[must_use]
    pub fn new(network: Network) -> Self {
        match network {
            Network::Mainnet => Self::mainnet(),
            Network::Testnet3 => Self::testnet3(),
            Network::Testnet4 => Self::testnet4(),
            Network::Signet => Self::default_signet(),
            Network::Regtest => Self::regtest(),
        }
    }

    /// Returns the rules of a signet with a challenge of its own. It has no seeds.
    #[must_use]
    pub fn signet(challenge: ScriptBuf) -> Self {
        Self {
            magic: signet_magic(&challenge),
            default_port: 38333,
            rpc_port: 38332,
            pow_limit: target("00000377ae000000000000000000000000000000000000000000000000000000"),
            signet_challenge: Some(challenge),
            headers_sync: headers_sync(620, 15_724),
            ..Self::modern(Network::Signet, KnownHrp::Testnets)
        }
    }

    /// Moves the height from which a rule holds: `name@height`, where the name is `segwit`, `bip34`,
    /// `dersig`, `cltv` or `csv` (Bitcoin Core's `-testactivationheight`).
    ///
    /// # Errors
    ///
    /// Returns what is wrong with the text, in Bitcoin Core's words.
    pub fn with_activation_height(mut self, text: &str) -> Result<Self, InvalidParams> {
        let wrong = |what: &str, text: &str| {
            InvalidParams(format!("Invalid {what} ({text}) for -testactivationheight=name@height."))
        };
        let (name, value) = text.split_once('@').ok_or_else(|| wrong("format", text))?;
        let height = integer::<i32>(value).and_then(|height| u32::try_from(height).ok());
        let in_range = |height: &u32| *height < i32::MAX.unsigned_abs();
        let height = height.filter(in_range).ok_or_else(|| wrong("height value", text))?;
        let place = match name {
            "segwit" => &mut self.segwit_height,
            "bip34" => &mut self.bip34_height,
            "dersig" => &mut self.bip66_height,
            "cltv" => &mut self.bip65_height,
            "csv" => &mut self.csv_height,
            _ => return Err(wrong("name", text)),
        };
        *place = height;
        Ok(self)
    }

    /// Sets when a deployment is signalled for: `deployment:start:end[:min_activation_height]`
    /// (Bitcoin Core's `-vbparams`).
    ///
    /// # Errors
    ///
    /// Returns what is wrong with the text, in Bitcoin Core's words.
    pub fn with_version_bits(mut self, text: &str) -> Result<Self, InvalidParams> {
        let parts: Vec<&str> = text.split(':').collect();
        let (name, start, end, least) = match *parts.as_slice() {
            [name, start, end] => (name, start, end, "0"),
            [name, start, end, least] => (name, start, end, least),
            _ => {
                let text = "Version bits parameters malformed, expecting \
                            deployment:start:end[:min_activation_height]";
                return Err(InvalidParams(text.into()));
            }
        };
        let number = |what: &str, part: &str| {
            integer::<i64>(part).ok_or_else(|| InvalidParams(format!("Invalid {what} ({part})")))
        };
        let start_time = number("nStartTime", start)?;
        let timeout = number("nTimeout", end)?;
        let min_activation_height = number("min_activation_height", least)?;
        let found = self.deployments.iter_mut().find(|deployment| deployment.name == name);
        let deployment =
            found.ok_or_else(|| InvalidParams(format!("Invalid deployment ({name})")))?;
        deployment.start_time = start_time;
        deployment.timeout = timeout;
        deployment.min_activation_height = min_activation_height;
        Ok(self)
    }

    /// Returns how many blocks a difficulty period has.
    #[must_use]
    pub const fn difficulty_adjustment_interval(&self) -> u32 {
        self.pow_target_timespan / self.pow_target_spacing
    }

    /// What networks that began after all soft forks have in common.
    fn modern(network: Network, bech32_hrp: KnownHrp) -> Self {
        Self {
            network,
            magic: [0; 4],
            default_port: 0,
            rpc_port: 0,
            dns_seeds: &[],
            bech32_hrp,
            genesis: bitcoin::constants::genesis_block(network.to_bitcoin()),
            pow_limit: target("00000000ffffffffffffffffffffffffffffffffffffffffffffffffffffffff"),
            pow_allow_min_difficulty: false,
            pow_no_retargeting: false,
            enforce_bip94: false,
            pow_target_spacing: 10 * 60,
            pow_target_timespan: 14 * 24 * 60 * 60,
            subsidy_halving_interval: 210_000,
            bip34_height: 1,
            bip34_hash: None,
            bip30_repeats: Vec::new(),
            bip30_overwritten: Vec::new(),
            bip65_height: 1,
            bip66_height: 1,
            csv_height: 1,
            segwit_height: 1,
            deployments: vec![testdummy(Deployment::NEVER_ACTIVE, 2016, 1815)],
            min_version_warning_height: 0,
            script_flag_exceptions: Vec::new(),
            minimum_chain_work: Work::from_be_bytes([0; 32]),
            assume_valid: None,
            headers_sync: headers_sync(275, 7017),
            signet_challenge: None,
            chain_tx_data: ChainTxData::default(),
        }
    }

    fn mainnet() -> Self {
        Self {
            magic: [0xf9, 0xbe, 0xb4, 0xd9],
            default_port: 8333,
            rpc_port: 8332,
            dns_seeds: &[
                "dnsseed.bluematt.me.",
                "seed.bitcoin.jonasschnelli.ch.",
                "seed.btc.petertodd.net.",
                "seed.bitcoin.sprovoost.nl.",
                "dnsseed.emzy.de.",
                "seed.bitcoin.wiz.biz.",
                "seed.mainnet.achownodes.xyz.",
            ],
            bip34_height: 227_931,
            bip34_hash: Some(hash(
                "000000000000024b89b42a942fe0d9fea3bb44ab7bd1b19115dd6a759c0808b8",
            )),
            bip30_repeats: vec![
                (91_842, hash("00000000000a4d0a398161ffc163c503763b1f4360639393e0e4c8e300e0caec")),
                (91_880, hash("00000000000743f190a18c5577a3c2d2a1f610ae9601ac046a38084ccb7cd721")),
            ],
            bip30_overwritten: vec![
                (91_812, hash("00000000000af0aed4792b1acee3d966af36cf5def14935db8de83d6f9306f2f")),
                (91_722, hash("00000000000271a2dc26e7667f8419f2e15416dc6955e5a6c6cdf3f2574dd08e")),
            ],
            bip65_height: 388_381,
            bip66_height: 363_725,
            csv_height: 419_328,
            segwit_height: 481_824,
            // Taproot's, and a period.
            min_version_warning_height: 711_648,
            script_flag_exceptions: vec![
                // Breaks P2SH (BIP-0016).
                (
                    hash("00000000000002dc756eebf4f49723ed8d30cc28a5f108eb94b1ba88ac4f9c22"),
                    ScriptFlags::NONE,
                ),
                // Breaks taproot.
                (
                    hash("0000000000000000000f14c35b2d841e986ab5441de8c585d5ffe55ea1e395ad"),
                    ScriptFlags::P2SH.union(ScriptFlags::WITNESS),
                ),
            ],
            minimum_chain_work: work(
                "0000000000000000000000000000000000000001128750f82f4c366153a3a030",
            ),
            assume_valid: Some(hash(
                "00000000000000000000ccebd6d74d9194d8dcdc1d177c478e094bfad51ba5ac",
            )),
            chain_tx_data: tx_data(1_772_055_173, 1_315_805_869, 5.401_110_064_961_22),
            headers_sync: headers_sync(641, 15_218),
            ..Self::modern(Network::Mainnet, KnownHrp::Mainnet)
        }
    }

    fn testnet3() -> Self {
        Self {
            magic: [0x0b, 0x11, 0x09, 0x07],
            default_port: 18333,
            rpc_port: 18332,
            dns_seeds: &[
                "testnet-seed.bitcoin.jonasschnelli.ch.",
                "seed.tbtc.petertodd.net.",
                "seed.testnet.bitcoin.sprovoost.nl.",
                "testnet-seed.bluematt.me.",
                "seed.testnet.achownodes.xyz.",
            ],
            pow_allow_min_difficulty: true,
            bip34_height: 21_111,
            bip34_hash: Some(hash(
                "0000000023b3a96d3484e5abb3755c413e7d41500f8e2a5c3f0dd01299cd8ef8",
            )),
            bip65_height: 581_885,
            bip66_height: 330_776,
            csv_height: 770_112,
            segwit_height: 834_624,
            min_version_warning_height: 2_013_984,
            deployments: vec![testdummy(Deployment::NEVER_ACTIVE, 2016, 1512)],
            // Breaks P2SH (BIP-0016).
            script_flag_exceptions: vec![(
                hash("00000000dd30457c001f4095d208cc1296b0eed002427aa599874af7a432b105"),
                ScriptFlags::NONE,
            )],
            minimum_chain_work: work(
                "0000000000000000000000000000000000000000000017dde1c649f3708d14b6",
            ),
            assume_valid: Some(hash(
                "000000007a61e4230b28ac5cb6b5e5a0130de37ac1faf2f8987d2fa6505b67f4",
            )),
            chain_tx_data: tx_data(1_772_051_651, 536_108_416, 0.026_914_790_162_571_67),
            headers_sync: headers_sync(673, 14_460),
            ..Self::modern(Network::Testnet3, KnownHrp::Testnets)
        }
    }

    fn testnet4() -> Self {
        Self {
            magic: [0x1c, 0x16, 0x3f, 0x28],
            default_port: 48333,
            rpc_port: 48332,
            dns_seeds: &["seed.testnet4.bitcoin.sprovoost.nl.", "seed.testnet4.wiz.biz."],
            pow_allow_min_difficulty: true,
            enforce_bip94: true,
            deployments: vec![testdummy(Deployment::NEVER_ACTIVE, 2016, 1512)],
            minimum_chain_work: work(
                "0000000000000000000000000000000000000000000009a0fe15d0177d086304",
            ),
            assume_valid: Some(hash(
                "0000000002368b1e4ee27e2e85676ae6f9f9e69579b29093e9a82c170bf7cf8a",
            )),
            chain_tx_data: tx_data(1_772_013_387, 14_191_421, 0.018_485_795_795_284_12),
            headers_sync: headers_sync(606, 16_092),
            ..Self::modern(Network::Testnet4, KnownHrp::Testnets)
        }
    }

    fn default_signet() -> Self {
        let challenge = "512103ad5e0edad18cb1f0fc0d28a3d4f1f3e445640337489abb10404f2d1e086be430\
                         210359ef5021964fe22d6f8e05b2463c9540ce96883fe3b278760f048f5189f2e6c452ae";
        let challenge = Vec::from_hex(challenge).expect("a literal that the tests read");
        Self {
            dns_seeds: &["seed.signet.bitcoin.sprovoost.nl.", "seed.signet.achownodes.xyz."],
            minimum_chain_work: work(
                "00000000000000000000000000000000000000000000000000000b463ea0a4b8",
            ),
            assume_valid: Some(hash(
                "00000008414aab61092ef93f1aacc54cf9e9f16af29ddad493b908a01ff5c329",
            )),
            chain_tx_data: tx_data(1_772_055_248, 28_676_833, 0.067_366_234_363_389_29),
            ..Self::signet(ScriptBuf::from_bytes(challenge))
        }
    }

    fn regtest() -> Self {
        Self {
            magic: [0xfa, 0xbf, 0xb5, 0xda],
            default_port: 18444,
            rpc_port: 18443,
            // It leads nowhere, and suites look whether it is asked.
            dns_seeds: &["dummySeed.invalid."],
            pow_limit: target("7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"),
            pow_allow_min_difficulty: true,
            pow_no_retargeting: true,
            pow_target_timespan: 24 * 60 * 60,
            subsidy_halving_interval: 150,
            segwit_height: 0,
            deployments: vec![testdummy(0, 144, 108)],
            // Not zero, so that it can be tested.
            chain_tx_data: tx_data(0, 0, 0.001),
            ..Self::modern(Network::Regtest, KnownHrp::Regtest)
        }
    }
}

const fn headers_sync(commitment_period: u32, redownload_buffer: usize) -> HeadersSyncParams {
    HeadersSyncParams { commitment_period, redownload_buffer }
}

const fn tx_data(time: u32, tx_count: u64, tx_rate: f64) -> ChainTxData {
    ChainTxData { time, tx_count, tx_rate }
}

/// The deployment that tests signal for (`DEPLOYMENT_TESTDUMMY`).
const fn testdummy(start_time: i64, period: u32, threshold: u32) -> Deployment {
    Deployment {
        name: "testdummy",
        bit: 28,
        start_time,
        timeout: Deployment::NO_TIMEOUT,
        min_activation_height: 0,
        period,
        threshold,
    }
}

/// First four bytes of the double hash of the challenge, serialised with its length.
fn signet_magic(challenge: &ScriptBuf) -> [u8; 4] {
    let mut engine = sha256d::Hash::engine();
    engine.input(&bitcoin::consensus::serialize(challenge));
    let [a, b, c, d, ..] = sha256d::Hash::from_engine(engine).to_byte_array();
    [a, b, c, d]
}

fn hash(hex: &str) -> BlockHash {
    hex.parse().expect("a literal that the tests read")
}

fn bytes(hex: &str) -> [u8; 32] {
    <[u8; 32]>::from_hex(hex).expect("a literal that the tests read")
}

fn target(hex: &str) -> Target {
    Target::from_be_bytes(bytes(hex))
}

fn work(hex: &str) -> Work {
    Work::from_be_bytes(bytes(hex))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pow::check_proof_of_work;

    #[test]
    fn genesis_blocks_are_cores() {
        let hashes = [
            "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f",
            "000000000933ea01ad0ee984209779baaec3ced90fa3f408719526f8d77f4943",
            "00000000da84f2bafbbc53dee25a72ae507ff4914b867c565be350b0da8bf043",
            "00000008819873e925422c1ff0f99f7cc9bbb232af63a077a480a3633bee1ef6",
            "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206",
        ];
        for (network, expected) in Network::ALL.into_iter().zip(hashes) {
            let params = ChainParams::new(network);
            assert_eq!(params.genesis.block_hash(), hash(expected), "{network}");
            assert!(params.genesis.check_merkle_root(), "{network}");
            assert_eq!(check_proof_of_work(&params.genesis.header, &params), Ok(()), "{network}");
        }
    }

    #[test]
    fn magic_bytes_are_those_of_the_bitcoin_crate() {
        for network in Network::ALL {
            let magic = ChainParams::new(network).magic;
            assert_eq!(magic, network.to_bitcoin().magic().to_bytes(), "{network}");
        }
    }

    #[test]
    fn names_are_read_back() {
        for network in Network::ALL {
            assert_eq!(network.to_string().parse(), Ok(network));
        }
        assert!("mainnet".parse::<Network>().is_err());
    }

    #[test]
    fn heights_and_deployments_are_moved_by_core_s_texts() {
        let regtest = || ChainParams::new(Network::Regtest);
        let height = |text: &str| regtest().with_activation_height(text);
        assert_eq!(height("segwit@432").expect("fine").segwit_height, 432);
        assert_eq!(height("bip34@2").expect("fine").bip34_height, 2);
        assert_eq!(height("dersig@102").expect("fine").bip66_height, 102);
        assert_eq!(height("cltv@111").expect("fine").bip65_height, 111);
        assert_eq!(height("csv@0").expect("fine").csv_height, 0);
        let text = |result: Result<ChainParams, InvalidParams>| result.unwrap_err().to_string();
        for (wrong, what) in [
            ("segwit", "Invalid format (segwit)"),
            ("segwit@-1", "Invalid height value (segwit@-1)"),
            ("segwit@2147483647", "Invalid height value (segwit@2147483647)"),
            ("segwit@+1", "Invalid height value (segwit@+1)"),
            ("segwit@1@2", "Invalid height value (segwit@1@2)"),
            ("taproot@1", "Invalid name (taproot@1)"),
        ] {
            let expected = format!("{what} for -testactivationheight=name@height.");
            assert_eq!(text(height(wrong)), expected);
        }

        let bits = |text: &str| regtest().with_version_bits(text);
        let testdummy = bits("testdummy:0:999999999999:144").expect("fine").deployments[0].clone();
        assert_eq!((testdummy.start_time, testdummy.timeout), (0, 999_999_999_999));
        assert_eq!(testdummy.min_activation_height, 144);
        let always = bits("testdummy:-1:1").expect("fine").deployments[0].clone();
        assert_eq!(always.start_time, Deployment::ALWAYS_ACTIVE);
        assert_eq!(always.min_activation_height, 0);
        let malformed = "Version bits parameters malformed, expecting \
                         deployment:start:end[:min_activation_height]";
        for (wrong, what) in [
            ("testdummy:1", malformed),
            ("testdummy:1:2:3:4", malformed),
            ("testdummy:x:2", "Invalid nStartTime (x)"),
            ("testdummy:1:", "Invalid nTimeout ()"),
            ("testdummy:1:2:y", "Invalid min_activation_height (y)"),
            ("taproot:1:2", "Invalid deployment (taproot)"),
        ] {
            assert_eq!(text(bits(wrong)), what);
        }
    }

    /// The lines of `kernel/chainparams.cpp` that are heights, in the order in which it has them.
    #[test]
    fn buried_heights_are_cores() {
        let heights = [
            [227_931, 388_381, 363_725, 419_328, 481_824],
            [21_111, 581_885, 330_776, 770_112, 834_624],
            [1; 5],
            [1; 5],
            [1, 1, 1, 1, 0],
        ];
        for (network, expected) in Network::ALL.into_iter().zip(heights) {
            let it = ChainParams::new(network);
            let found = [
                it.bip34_height,
                it.bip65_height,
                it.bip66_height,
                it.csv_height,
                it.segwit_height,
            ];
            assert_eq!(found, expected, "{network}");
            // Where BIP-0034 was buried on a chain that had begun before.
            assert_eq!(it.bip34_hash.is_some(), it.bip34_height > 1, "{network}");
        }
    }

    /// What a new node takes on trust: how much work the chain has at least, and a block up to which
    /// scripts hold. As of 25 February 2026, from `kernel/chainparams.cpp` of Bitcoin Core 31.99: mainnet
    /// block 938,343, testnet3 4,842,348, testnet4 123,613, signet 293,175. They go together, and are to
    /// be taken from Core's next version, not made up.
    #[test]
    fn least_work_and_assumed_valid_blocks_are_cores() {
        let expected = [
            (
                "0000000000000000000000000000000000000001128750f82f4c366153a3a030",
                "00000000000000000000ccebd6d74d9194d8dcdc1d177c478e094bfad51ba5ac",
            ),
            (
                "0000000000000000000000000000000000000000000017dde1c649f3708d14b6",
                "000000007a61e4230b28ac5cb6b5e5a0130de37ac1faf2f8987d2fa6505b67f4",
            ),
            (
                "0000000000000000000000000000000000000000000009a0fe15d0177d086304",
                "0000000002368b1e4ee27e2e85676ae6f9f9e69579b29093e9a82c170bf7cf8a",
            ),
            (
                "00000000000000000000000000000000000000000000000000000b463ea0a4b8",
                "00000008414aab61092ef93f1aacc54cf9e9f16af29ddad493b908a01ff5c329",
            ),
        ];
        for (network, (least, block)) in Network::ALL.into_iter().zip(expected) {
            let it = ChainParams::new(network);
            assert_eq!(it.minimum_chain_work, work(least), "{network}");
            assert_eq!(it.assume_valid, Some(hash(block)), "{network}");
        }
        let none = Work::from_be_bytes([0; 32]);
        let signet = ChainParams::signet(ScriptBuf::from_bytes(vec![0x51]));
        for it in [ChainParams::new(Network::Regtest), signet] {
            assert_eq!((it.minimum_chain_work, it.assume_valid), (none, None), "{}", it.network);
        }
    }

    #[test]
    fn difficulty_rules_are_cores() {
        // Lowest difficulty as bits; 20 minutes, no retargeting, BIP-0094; blocks of a period.
        let rules = [
            (0x1d00_ffff, [false, false, false], 2016),
            (0x1d00_ffff, [true, false, false], 2016),
            (0x1d00_ffff, [true, false, true], 2016),
            (0x1e03_77ae, [false, false, false], 2016),
            (0x207f_ffff, [true, true, false], 144),
        ];
        for (network, expected) in Network::ALL.into_iter().zip(rules) {
            let it = ChainParams::new(network);
            let flags = [it.pow_allow_min_difficulty, it.pow_no_retargeting, it.enforce_bip94];
            let limit = it.pow_limit.to_compact_lossy();
            let period = it.difficulty_adjustment_interval();
            assert_eq!((limit.to_consensus(), flags, period), expected, "{network}");
            assert_eq!(it.genesis.header.bits, limit, "{network}");
            assert_eq!(it.pow_target_spacing, 600, "{network}");
            let halving = if network == Network::Regtest { 150 } else { 210_000 };
            assert_eq!(it.subsidy_halving_interval, halving, "{network}");
        }
    }

    #[test]
    fn deployments_and_limits_of_header_sync_are_cores() {
        let never = Deployment::NEVER_ACTIVE;
        let expected = [
            ((never, 2016, 1815), (641, 15_218)),
            ((never, 2016, 1512), (673, 14_460)),
            ((never, 2016, 1512), (606, 16_092)),
            ((never, 2016, 1815), (620, 15_724)),
            ((0, 144, 108), (275, 7017)),
        ];
        for (network, (deployment, limits)) in Network::ALL.into_iter().zip(expected) {
            let it = ChainParams::new(network);
            let [testdummy] = it.deployments.as_slice() else { panic!("{network}: one") };
            let Deployment { start_time, period, threshold, .. } = *testdummy;
            assert_eq!((start_time, period, threshold), deployment, "{network}");
            assert_eq!((testdummy.name, testdummy.bit), ("testdummy", 28), "{network}");
            assert_eq!(testdummy.timeout, Deployment::NO_TIMEOUT, "{network}");
            let found = it.headers_sync;
            assert_eq!((found.commitment_period, found.redownload_buffer), limits, "{network}");
            // Enough bits on top of a header that it is hardly made up.
            assert!(limits.1 / limits.0 as usize >= 21, "{network}");
        }
    }

    #[test]
    fn a_signet_of_one_s_own_has_the_rules_of_the_public_one_and_no_known_chain() {
        let public = ChainParams::new(Network::Signet);
        let own = ChainParams::signet(ScriptBuf::from_bytes(vec![0x51]));
        assert_eq!(own.signet_challenge, Some(ScriptBuf::from_bytes(vec![0x51])));
        assert_ne!(own.magic, public.magic);
        assert_eq!(own.minimum_chain_work.to_be_bytes(), [0; 32]);
        assert_eq!(own.assume_valid, None);
        let same = ChainParams {
            magic: public.magic,
            dns_seeds: public.dns_seeds,
            signet_challenge: public.signet_challenge.clone(),
            minimum_chain_work: public.minimum_chain_work,
            assume_valid: public.assume_valid,
            chain_tx_data: public.chain_tx_data,
            ..own
        };
        assert_eq!(same, public);
    }
}
