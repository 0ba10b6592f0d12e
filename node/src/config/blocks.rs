//! Options of block files: pruning, rebuilding, importing.

use std::path::PathBuf;

use crate::settings::Settings;

/// Least size that automatic pruning keeps to, in MiB (`MIN_DISK_SPACE_FOR_BLOCK_FILES`).
const PRUNE_TARGET_MIB_MIN: u64 = 550;

/// Whether old block files are removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PruneMode {
    /// Never.
    #[default]
    Off,
    /// When `pruneblockchain` asks for it.
    Manual,
    /// Whenever block and undo files take more than so many bytes.
    Target(u64),
}

/// What is to be built anew at the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum RebuildOption {
    /// Nothing.
    #[default]
    Nothing,
    /// The UTXO set, from the blocks that are indexed (`-reindex-chainstate`).
    Chainstate,
    /// Block index and UTXO set, from the block files (`-reindex`).
    All,
}

/// How much of the chain is verified again at the start (`-checkblocks`, `-checklevel`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CheckBlocks {
    /// How thoroughly, 0 to 4.
    pub level: u32,
    /// How many blocks; 0: all.
    pub blocks: u32,
}

impl CheckBlocks {
    /// Blocks unless told (`DEFAULT_CHECKBLOCKS`).
    const BLOCKS: i64 = 6;
    /// The level unless told (`DEFAULT_CHECKLEVEL`).
    const LEVEL: i64 = 3;

    fn from_settings(settings: &Settings) -> Result<Option<Self>, String> {
        let (blocks, level) = (settings.number("checkblocks")?, settings.number("checklevel")?);
        if blocks.is_none() && level.is_none() {
            return Ok(None);
        }
        let number = |number: i64| u32::try_from(number.max(0)).unwrap_or(u32::MAX);
        Ok(Some(Self {
            level: number(level.unwrap_or(Self::LEVEL)),
            blocks: number(blocks.unwrap_or(Self::BLOCKS)),
        }))
    }
}

/// Options of block files.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BlocksConfig {
    /// Whether old block files are removed.
    pub prune: PruneMode,
    /// Whether files are small and pruning begins early, for tests (`-fastprune`).
    pub fast_prune: bool,
    /// Whether block files of a new directory are left as they are (`-blocksxor=0`).
    pub plain: bool,
    /// What is verified again at the start, if anything.
    pub check: Option<CheckBlocks>,
    /// What is to be built anew at the start.
    pub rebuild: RebuildOption,
    /// Whether all is built anew if the index cannot be opened, for tests.
    pub rebuild_after_failure: bool,
    /// Files to import at the start (`-loadblock`).
    pub load: Vec<PathBuf>,
    /// Whether the node stops when there is nothing left to import.
    pub stop_after_load: bool,
    /// For `import`: the files are named by a data directory of Bitcoin Core.
    pub from_core: Option<String>,
    /// For `import --from-core`: block files are copied, not linked.
    pub copy: bool,
}

impl BlocksConfig {
    pub(super) fn from_settings(settings: &Settings) -> Result<Self, String> {
        let rebuild = if settings.flag("reindex", false) {
            RebuildOption::All
        } else if settings.flag("reindex-chainstate", false) {
            RebuildOption::Chainstate
        } else {
            RebuildOption::Nothing
        };
        let prune = prune(settings)?;
        if prune != PruneMode::Off {
            if settings.flag("txindex", false) {
                return Err("Prune mode is incompatible with -txindex.".into());
            }
            if settings.flag("reindex-chainstate", false) {
                return Err("Prune mode is incompatible with -reindex-chainstate. Use full -reindex instead.".into());
            }
        }
        Ok(Self {
            prune,
            fast_prune: settings.flag("fastprune", false),
            plain: !settings.flag("blocksxor", true),
            check: CheckBlocks::from_settings(settings)?,
            rebuild,
            rebuild_after_failure: settings
                .all("test")
                .contains(&"reindex_after_failure_noninteractive_yes"),
            load: settings.all("loadblock").into_iter().map(PathBuf::from).collect(),
            stop_after_load: settings.flag("stopafterblockimport", false),
            from_core: settings.get("from-core").filter(|dir| *dir != "0").map(str::to_owned),
            copy: settings.flag("copy", false),
        })
    }
}

fn prune(settings: &Settings) -> Result<PruneMode, String> {
    let asked: i64 = settings.number("prune")?.unwrap_or(0);
    let asked = u64::try_from(asked)
        .map_err(|_| "Prune cannot be configured with a negative value.".to_owned())?;
    match asked {
        0 => Ok(PruneMode::Off),
        1 => Ok(PruneMode::Manual),
        mib if mib < PRUNE_TARGET_MIB_MIN => Err(format!(
            "Prune configured below the minimum of {PRUNE_TARGET_MIB_MIN} MiB.  Please use a higher number."
        )),
        mib => Ok(PruneMode::Target(mib.saturating_mul(1 << 20))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::load;

    #[test]
    fn pruning_takes_a_size_or_waits_to_be_asked() {
        let mode = |line| load(line, "").map(|config| config.blocks.prune);
        assert_eq!(mode(""), Ok(PruneMode::Off));
        assert_eq!(mode("-prune=0"), Ok(PruneMode::Off));
        assert_eq!(mode("-prune=1"), Ok(PruneMode::Manual));
        assert_eq!(mode("-prune=550"), Ok(PruneMode::Target(550 << 20)));
        assert_eq!(
            mode("-prune=-1").unwrap_err(),
            "Prune cannot be configured with a negative value."
        );
        assert_eq!(
            mode("-prune=549").unwrap_err(),
            "Prune configured below the minimum of 550 MiB.  Please use a higher number."
        );
    }

    #[test]
    fn what_pruning_cannot_go_with_is_refused() {
        assert_eq!(
            load("-prune=550 -reindex-chainstate", "").unwrap_err(),
            "Prune mode is incompatible with -reindex-chainstate. Use full -reindex instead."
        );
        let all = load("-prune=550 -reindex", "").unwrap();
        assert_eq!(all.blocks.rebuild, RebuildOption::All);
    }
}
