//! Our node and Bitcoin Core's, each with a directory of its own.

use std::path::{Path, PathBuf};

use cofferdam_tests::daemon::{Daemon, bitcoind};
use cofferdam_tests::process;
use tempfile::TempDir;

use crate::COFFERDAM;

/// Core checks its whole block index after every block on regtest: hours for a long chain.
const CORE_ARGS: [&str; 2] = ["-checkblockindex=0", "-checkmempool=0"];

/// Which program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Who {
    Ours,
    Core,
}

impl Who {
    /// Returns the other one.
    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Ours => Self::Core,
            Self::Core => Self::Ours,
        }
    }
}

/// Two programs and two directories.
#[derive(Debug)]
pub(crate) struct Pair {
    core: PathBuf,
    dirs: [TempDir; 2],
}

impl Pair {
    /// Returns the pair; none if Core has not been built.
    pub(crate) fn new() -> Option<Self> {
        let dir = || tempfile::tempdir().expect("a temporary directory");
        Some(Self { core: bitcoind()?, dirs: [dir(), dir()] })
    }

    /// Returns the data directory of one.
    pub(crate) fn dir(&self, who: Who) -> &Path {
        self.dirs[usize::from(who == Who::Core)].path()
    }

    /// Starts one of them and waits until it answers.
    pub(crate) fn start(&self, who: Who, args: &[&str]) -> Daemon {
        let mut daemon = self.spawn(who, args);
        daemon.wait_for_rpc();
        daemon
    }

    /// Gives one of them the blocks of a file, before it is started.
    pub(crate) fn import(&self, who: Who, file: &Path) {
        if who == Who::Core {
            let load = format!("-loadblock={}", file.display());
            self.start(who, &[&load, "-connect=0"]).stop();
            return;
        }
        let file = file.to_str().expect("UTF-8");
        let imported = process::run(COFFERDAM, self.dir(who), &["-regtest", "import", file]);
        assert!(imported.status.success(), "{}", process::said(&imported));
    }

    /// Starts one of them, and does not wait.
    pub(crate) fn spawn(&self, who: Who, args: &[&str]) -> Daemon {
        match who {
            Who::Ours => Daemon::spawn(Path::new(COFFERDAM), self.dir(who), args),
            Who::Core => {
                let args: Vec<&str> = CORE_ARGS.iter().chain(args).copied().collect();
                Daemon::spawn(&self.core, self.dir(who), &args)
            }
        }
    }
}

/// What `-connect` says to reach a node.
pub(crate) fn connect_to(node: &Daemon) -> String {
    format!("-connect=127.0.0.1:{}", node.p2p_port)
}
