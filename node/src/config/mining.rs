//! Options of the transaction queue and of new blocks (`node/mining_args.cpp` of Bitcoin Core).

use cofferdam_ibd::block::WEIGHT_MAX;
use cofferdam_ibd::{BlockLimits, ChainParams, Network, QueueLimits};

use crate::rpc::parse_money;
use crate::settings::Settings;

/// Least that may be reserved (Bitcoin Core's `MINIMUM_BLOCK_RESERVED_WEIGHT`).
const RESERVED_WEIGHT_MIN: u64 = 2000;
/// Bytes of a megabyte, as `-maxmempool` counts.
const MEGABYTE: usize = 1_000_000;
/// Least memory of the queue in megabytes, by which Bitcoin Core refuses smaller ones.
const QUEUE_MEGABYTES_MIN: usize = 5;

/// How blocks are made, and of what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MiningConfig {
    /// Bounds of the queue.
    pub queue: QueueLimits,
    /// Whether the queue is written at a stop and read at the start.
    pub persist: bool,
    /// Bounds of a new block.
    pub block: BlockLimits,
    /// Version of a new block, if not the one that signals (regtest only).
    pub version: Option<i32>,
}

impl MiningConfig {
    pub(super) fn from_settings(settings: &Settings, params: &ChainParams) -> Result<Self, String> {
        let mut queue = QueueLimits::default();
        if let Some(megabytes) = settings.number::<usize>("maxmempool")? {
            if megabytes < QUEUE_MEGABYTES_MIN {
                return Err(format!("-maxmempool must be at least {QUEUE_MEGABYTES_MIN} MB"));
            }
            queue.bytes = megabytes.saturating_mul(MEGABYTE);
        }
        let version = settings.number("blockversion")?;
        Ok(Self {
            queue,
            persist: settings.flag("persistmempool", true),
            block: block_limits(settings)?,
            version: version.filter(|_| params.network == Network::Regtest),
        })
    }
}

fn block_limits(settings: &Settings) -> Result<BlockLimits, String> {
    let default = BlockLimits::default();
    let fee_rate = match settings.get("blockmintxfee") {
        None => default.fee_rate_min,
        Some(text) => parse_money(text)
            .ok_or_else(|| format!("Invalid amount for -blockmintxfee=<amount>: '{text}'"))?,
    };
    let limits = BlockLimits {
        weight: settings.number("blockmaxweight")?.unwrap_or(default.weight),
        reserved_weight: settings.number("blockreservedweight")?.unwrap_or(default.reserved_weight),
        fee_rate_min: fee_rate,
    };
    let reserved = limits.reserved_weight;
    if reserved < RESERVED_WEIGHT_MIN {
        return Err(format!(
            "-blockreservedweight ({reserved}) is lower than minimum safety value of ({RESERVED_WEIGHT_MIN})"
        ));
    }
    for (name, weight) in [("blockreservedweight", reserved), ("blockmaxweight", limits.weight)] {
        if weight > WEIGHT_MAX {
            return Err(format!(
                "-{name} ({weight}) exceeds consensus maximum block weight ({WEIGHT_MAX})"
            ));
        }
    }
    if reserved > limits.weight {
        return Err(format!(
            "-blockreservedweight ({reserved}) exceeds -blockmaxweight ({})",
            limits.weight
        ));
    }
    Ok(limits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::FileText;

    fn limits(lines: &str) -> Result<BlockLimits, String> {
        let file = FileText::parse(lines).unwrap();
        assert_eq!(file.warnings, Vec::<String>::new());
        block_limits(&Settings { file: file.entries, ..Settings::default() })
    }

    #[test]
    fn limits_of_a_block_are_checked_as_in_core() {
        assert_eq!(limits("").unwrap(), BlockLimits::default());
        let set = limits("blockmaxweight=5000\nblockreservedweight=2000\nblockmintxfee=0.00001");
        let expected = BlockLimits { weight: 5000, reserved_weight: 2000, fee_rate_min: 1000 };
        assert_eq!(set.unwrap(), expected);
        for (lines, error) in [
            (
                "blockreservedweight=1999",
                "-blockreservedweight (1999) is lower than minimum safety value of (2000)",
            ),
            (
                "blockreservedweight=4000001",
                "-blockreservedweight (4000001) exceeds consensus maximum block weight (4000000)",
            ),
            (
                "blockmaxweight=4000001",
                "-blockmaxweight (4000001) exceeds consensus maximum block weight (4000000)",
            ),
            ("blockmaxweight=7999", "-blockreservedweight (8000) exceeds -blockmaxweight (7999)"),
            ("blockmintxfee=x", "Invalid amount for -blockmintxfee=<amount>: 'x'"),
        ] {
            assert_eq!(limits(lines).unwrap_err(), error);
        }
    }
}
