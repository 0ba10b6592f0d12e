//! Layout, lock and small files of the data directory. The layout is `bitcoind`'s:
//!
//! ```text
//! DATADIR/               .cofferdam; the chain directory of the main network
//!   bitcoin.conf
//!   regtest/ signet/ testnet3/ testnet4/      chain directories of the others
//!     .lock  .cookie  bitcoind.pid  debug.log
//!     blocks/            block and undo files, and a .lock of their own; -blocksdir moves it
//!     chainstate/        database and log; with blocks/ all that a copy needs
//! ```
//!
//! Directories are made 0700 and the cookie 0600: what is inside is the user's alone.

mod lock;

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use cofferdam_ibd::params::Network;
use cofferdam_storage::{BackendKind, FileSystem, StdFileSystem, write_atomic};

use self::lock::DirLock;
use crate::config::Config;

/// File in `chainstate/` that names the engine which wrote the others.
pub(crate) const BACKEND_FILE: &str = "BACKEND";

/// File in `blocks/index/` that says that the block index is there.
pub(crate) const INDEX_FILE: &str = "WHERE";

/// File in `chainstate/` and `blocks/index/` of Bitcoin Core; ours have none of this name.
const CORE_FILE: &str = "CURRENT";

/// The locked chain directory of one node.
#[derive(Debug)]
pub(crate) struct DataDir {
    chain_dir: PathBuf,
    blocks_dir: PathBuf,
    pid_file: Option<PathBuf>,
    pid_written: Option<PathBuf>,
    cookie_written: Option<PathBuf>,
    /// Held, and with them the locks, until the node has stopped.
    _locks: [DirLock; 2],
}

impl DataDir {
    /// Makes the directories that are missing and locks the chain directory.
    pub(crate) fn open(config: &Config) -> Result<Self> {
        let Locked { chain_dir, blocks_dir, locks } = Locked::take(config)?;
        let pid_file = config.pid_file.as_ref().map(|file| chain_dir.join(file));
        let (pid_written, cookie_written) = (None, None);
        Ok(Self { chain_dir, blocks_dir, pid_file, pid_written, cookie_written, _locks: locks })
    }

    /// Finds out whether the directory can be opened, for a process that nobody hears if it cannot.
    pub(crate) fn probe(config: &Config) -> Result<()> {
        Locked::take(config).map(drop)
    }

    pub(crate) fn chain_dir(&self) -> &Path {
        &self.chain_dir
    }

    pub(crate) fn blocks_dir(&self) -> &Path {
        &self.blocks_dir
    }

    /// Returns the engine to open: the one that wrote the directory, which is remembered there.
    pub(crate) fn backend(
        &self,
        asked: Option<BackendKind>,
        fs: &Arc<dyn FileSystem>,
    ) -> Result<BackendKind> {
        let chainstate = self.chain_dir.join("chainstate");
        let path = chainstate.join(BACKEND_FILE);
        match (written_backend(&chainstate)?, asked) {
            (Some(written), Some(asked)) if written != asked => bail!(
                "The data directory {} was written by backend {written}, not {asked}. Use -backend={written}, or another directory.",
                self.chain_dir.display()
            ),
            (Some(written), _) => Ok(written),
            (None, Some(BackendKind::Memory)) => Ok(BackendKind::Memory),
            (None, asked) => {
                let kind = asked.unwrap_or(BackendKind::Lsm);
                write_atomic(fs.as_ref(), &path, format!("{kind}\n").as_bytes())?;
                Ok(kind)
            }
        }
    }

    /// Writes the file in which RPC clients find the secret (`user:password`); a relative path is
    /// one in the chain directory. It appears at once with all of its text.
    pub(crate) fn write_cookie(&mut self, file: &Path, mode: u32, cookie: &str) -> Result<()> {
        let path = self.chain_dir.join(file);
        let mut temporary = path.clone().into_os_string();
        temporary.push(".tmp");
        let what = || format!("Unable to write the cookie file {}", path.display());
        let _ = std::fs::remove_file(&temporary);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(mode);
        let mut file = options.open(&temporary).with_context(what)?;
        file.write_all(cookie.as_bytes()).with_context(what)?;
        // The mode of a new file is cut by the process's mask.
        file.set_permissions(Permissions::from_mode(mode)).with_context(what)?;
        std::fs::rename(&temporary, &path).with_context(what)?;
        tracing::info!("Generated RPC authentication cookie {}", path.display());
        self.cookie_written = Some(path);
        Ok(())
    }

    /// Writes the file of the process id, if the user wants one.
    pub(crate) fn write_pid(&mut self) -> Result<()> {
        let Some(path) = &self.pid_file else { return Ok(()) };
        std::fs::write(path, format!("{}\n", std::process::id()))
            .with_context(|| format!("Unable to create the PID file '{}'", path.display()))?;
        self.pid_written = Some(path.clone());
        Ok(())
    }
}

/// The directories of a node, made and locked.
struct Locked {
    chain_dir: PathBuf,
    blocks_dir: PathBuf,
    locks: [DirLock; 2],
}

impl Locked {
    fn take(config: &Config) -> Result<Self> {
        let data_dir = &config.data_dir;
        make_dir(data_dir)?;
        let chain_dir = chain_dir(config);
        let is_new = !chain_dir.exists();
        make_dir(&chain_dir)?;
        let lock_of_chain = DirLock::take(&chain_dir)?;
        let blocks_dir = blocks_dir(config);
        make_dir(&blocks_dir)?;
        let lock_of_blocks = DirLock::take(&blocks_dir)?;
        refuse_core(&chain_dir, &blocks_dir)?;
        // Bitcoin Core's block index is in `blocks/index`, and drivers look whether it is there; here
        // it is a table of the chain state.
        for name in ["blocks/index", "chainstate"] {
            make_dir(&chain_dir.join(name))?;
        }
        if is_new && config.network == Network::Regtest {
            // Bitcoin Core's test framework removes this directory and fails if it is not there.
            make_dir(&chain_dir.join("wallets"))?;
        }
        Ok(Self { chain_dir, blocks_dir, locks: [lock_of_chain, lock_of_blocks] })
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        // Only what this process wrote: `-pid` may name a file of any other.
        for path in self.cookie_written.iter().chain(&self.pid_written) {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Returns the chain directory that the options name.
pub(crate) fn chain_dir(config: &Config) -> PathBuf {
    below(&config.data_dir, config.network)
}

/// Returns the directory of the block files that the options name.
pub(crate) fn blocks_dir(config: &Config) -> PathBuf {
    below(config.blocks_dir.as_ref().unwrap_or(&config.data_dir), config.network).join("blocks")
}

fn below(dir: &Path, network: Network) -> PathBuf {
    network_dir(network).map_or_else(|| dir.to_owned(), |name| dir.join(name))
}

/// Returns the directory that a network has below the data directory; none for the main network.
pub(crate) const fn network_dir(network: Network) -> Option<&'static str> {
    match network {
        Network::Mainnet => None,
        Network::Testnet3 => Some("testnet3"),
        Network::Testnet4 => Some("testnet4"),
        Network::Signet => Some("signet"),
        Network::Regtest => Some("regtest"),
    }
}

/// Returns the engine that wrote a directory `chainstate`, if one did.
pub(crate) fn written_backend(chainstate: &Path) -> Result<Option<BackendKind>> {
    let path = chainstate.join(BACKEND_FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().map(Some).with_context(|| path.display().to_string()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).with_context(|| format!("reading {}", path.display())),
    }
}

/// Fills `bytes` from the system's random source.
pub(crate) fn fill_random(bytes: &mut [u8]) -> Result<()> {
    let mut source = File::open("/dev/urandom").context("opening /dev/urandom")?;
    source.read_exact(bytes).context("reading /dev/urandom")
}

/// Returns a secret out of the system's random source.
pub(crate) fn random_bytes<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    fill_random(&mut bytes).context("there are no random numbers to make a key of")?;
    Ok(bytes)
}

/// Makes a directory and those above it, for the user alone. They are durable when it returns: what
/// is durable in one whose name is not would be gone with it.
pub(crate) fn make_dir(path: &Path) -> Result<()> {
    make_dirs(path, &|dir| StdFileSystem.create_dir_all(dir))
}

/// As [`make_dir`]; `keep` makes the name of a directory durable that is there.
fn make_dirs(path: &Path, keep: &dyn Fn(&Path) -> cofferdam_storage::Result<()>) -> Result<()> {
    if let Some(above) = path.parent().filter(|above| !above.as_os_str().is_empty())
        && !path.is_dir()
    {
        make_dirs(above, keep)?;
    }
    let what = || format!("Cannot create directory {}", path.display());
    DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(what)?;
    keep(path).with_context(what)
}

/// Refuses directories that Bitcoin Core uses: its chain state would pass for none, a new chain would
/// be written into its block files, and `-reindex` would remove its undo data.
///
/// Beside a mark of ours a database is a remainder. The chain state's is none for block files that
/// are elsewhere (`-blocksdir`): where the index is not ours, neither are they.
fn refuse_core(chain_dir: &Path, blocks_dir: &Path) -> Result<()> {
    let has_chainstate = written_backend(&chain_dir.join("chainstate"))?.is_some();
    let real = |path: &Path| path.canonicalize().ok();
    let own_blocks = real(&chain_dir.join("blocks"));
    let has_index = own_blocks.is_some()
        && own_blocks == real(blocks_dir)
        && blocks_dir.join("index").join(INDEX_FILE).exists();
    let databases = [(chain_dir, "chainstate", has_chainstate), (blocks_dir, "index", has_index)];
    for (dir, name, is_ours) in databases {
        let database = dir.join(name);
        if !is_ours && database.join(CORE_FILE).exists() {
            bail!(
                "{} is a database of Bitcoin Core, which this node does not read. Choose another directory (-datadir, -blocksdir); import --from-core {} takes the block files over into it",
                database.display(),
                dir.display()
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &Path) -> Result<DataDir> {
        DataDir::open(&Config::new(Network::Regtest, dir).unwrap())
    }

    #[test]
    fn a_second_process_is_refused_and_takes_nothing_away() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = open(dir.path()).unwrap();
        first.write_cookie(Path::new(".cookie"), 0o600, "__cookie__:secret").unwrap();
        first.write_pid().unwrap();
        let text = open(dir.path()).unwrap_err().to_string();
        assert!(text.starts_with("Cannot obtain a lock on directory"), "{text}");
        let cookie = dir.path().join("regtest/.cookie");
        assert_eq!(std::fs::metadata(&cookie).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read(&cookie).unwrap(), b"__cookie__:secret");
        drop(first);
        assert!(!cookie.exists() && !dir.path().join("regtest/bitcoind.pid").exists());
        open(dir.path()).unwrap();
    }

    #[test]
    fn a_file_of_another_process_s_id_stays() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::new(Network::Regtest, dir.path()).unwrap();
        let pid_file = dir.path().join("other.pid");
        config.pid_file = Some(pid_file.clone());
        std::fs::write(&pid_file, "1\n").unwrap();
        // As an import does, which writes none.
        drop(DataDir::open(&config).unwrap());
        assert!(pid_file.exists());
        DataDir::open(&config).unwrap().write_pid().unwrap();
        assert!(!pid_file.exists());
    }

    const LOCKED_DIR: &str = "COFFERDAM_TEST_LOCKED_DIR";

    /// Runs `a_lock_of_any_kind_is_seen_by_other_processes` in a process of its own, which opens `dir`.
    fn is_refused_elsewhere(dir: &Path) -> bool {
        let name = "data_dir::tests::a_lock_of_any_kind_is_seen_by_other_processes";
        let mut process = std::process::Command::new(std::env::current_exe().unwrap());
        let output = process.args(["--exact", name]).env(LOCKED_DIR, dir).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("running 1 test"), "{text}");
        output.status.success()
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "no product code: the other process is told so")]
    fn a_lock_of_any_kind_is_seen_by_other_processes() {
        use rustix::fs::{FlockOperation, fcntl_lock};
        if let Some(dir) = std::env::var_os(LOCKED_DIR) {
            let text = open(Path::new(&dir)).unwrap_err().to_string();
            assert!(text.starts_with("Cannot obtain a lock on directory"), "{text}");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let data_dir = open(dir.path()).unwrap();
        // A refusal in this process costs it nothing.
        assert!(open(dir.path()).is_err());
        assert!(is_refused_elsewhere(dir.path()));
        drop(data_dir);
        assert!(!is_refused_elsewhere(dir.path()));
        // As Bitcoin Core locks either directory.
        for locked in ["regtest/.lock", "regtest/blocks/.lock"] {
            let file = OpenOptions::new().write(true).open(dir.path().join(locked)).unwrap();
            fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
            assert!(is_refused_elsewhere(dir.path()), "{locked}");
        }
        assert!(!is_refused_elsewhere(dir.path()));
    }

    #[test]
    fn a_database_of_bitcoin_core_is_refused_and_no_file_of_its_own_changed() {
        for database in ["regtest/chainstate", "regtest/blocks/index"] {
            let dir = tempfile::tempdir().unwrap();
            let database = dir.path().join(database);
            std::fs::create_dir_all(&database).unwrap();
            std::fs::write(database.join("CURRENT"), "MANIFEST-000004\n").unwrap();
            let pid_file = dir.path().join("regtest/bitcoind.pid");
            std::fs::write(&pid_file, "1\n").unwrap();
            let text = open(dir.path()).unwrap_err().to_string();
            assert!(text.contains("is a database of Bitcoin Core"), "{text}");
            assert!(text.contains("import --from-core"), "{text}");
            assert!(pid_file.exists());
            // Beside a mark of ours it is a remainder.
            std::fs::write(database.join(BACKEND_FILE), "lsm\n").unwrap();
            std::fs::write(database.join(INDEX_FILE), "").unwrap();
            open(dir.path()).unwrap();
        }
    }

    #[test]
    fn a_chain_state_of_ours_makes_no_other_block_files_ours() {
        let (dir, core) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let index = core.path().join("regtest/blocks/index");
        std::fs::create_dir_all(&index).unwrap();
        for name in ["CURRENT", INDEX_FILE] {
            std::fs::write(index.join(name), "").unwrap();
        }
        let own = dir.path().join("regtest");
        std::fs::create_dir_all(own.join("blocks/index")).unwrap();
        std::fs::create_dir_all(own.join("chainstate")).unwrap();
        for mark in ["chainstate/BACKEND", "blocks/index/WHERE"] {
            std::fs::write(own.join(mark), "lsm\n").unwrap();
        }
        open(dir.path()).unwrap();
        let mut config = Config::new(Network::Regtest, dir.path()).unwrap();
        config.blocks_dir = Some(core.path().to_owned());
        let text = DataDir::open(&config).unwrap_err().to_string();
        assert!(text.starts_with(&format!("{} is a database of", index.display())), "{text}");
        // Nor does a name of its own that leads there.
        config.blocks_dir = None;
        std::fs::remove_dir_all(own.join("blocks")).unwrap();
        std::os::unix::fs::symlink(core.path().join("regtest/blocks"), own.join("blocks")).unwrap();
        std::fs::remove_file(index.join(INDEX_FILE)).unwrap();
        let text = DataDir::open(&config).unwrap_err().to_string();
        assert!(text.contains("blocks/index is a database of Bitcoin Core"), "{text}");
        std::fs::remove_file(index.join("CURRENT")).unwrap();
        DataDir::open(&config).unwrap();
    }

    #[test]
    fn directories_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = dir.path().join("new");
        drop(DataDir::open(&Config::new(Network::Regtest, &data_dir).unwrap()).unwrap());
        assert_eq!(std::fs::metadata(&data_dir).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn each_directory_that_is_made_is_kept_and_those_above_it_first() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("a/b"));
        let kept = std::cell::RefCell::new(Vec::new());
        let make = || {
            let keep = |dir: &Path| {
                assert!(dir.is_dir());
                kept.borrow_mut().push(dir.to_path_buf());
                Ok(())
            };
            make_dirs(&b, &keep).unwrap();
            kept.take()
        };
        assert_eq!(make(), [dir.path().to_path_buf(), a, b.clone()]);
        let again = std::slice::from_ref(&b);
        assert_eq!(make(), again, "who made it may have died before it was durable");
    }

    #[test]
    fn the_backend_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let fs: Arc<dyn FileSystem> = Arc::new(StdFileSystem);
        let opened = open(dir.path()).unwrap();
        assert_eq!(opened.backend(Some(BackendKind::Sled), &fs).unwrap(), BackendKind::Sled);
        assert_eq!(opened.backend(None, &fs).unwrap(), BackendKind::Sled);
        let text = opened.backend(Some(BackendKind::Rocksdb), &fs).unwrap_err().to_string();
        assert!(text.contains("was written by backend sled, not rocksdb"), "{text}");
    }
}
