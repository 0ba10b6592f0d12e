//! Taking over the block files of a Bitcoin Core data directory, in place: each gets a second name
//! (a hard link) in ours. Nothing is copied but the last one, which Core may still write to, and
//! `xor.dat`. A full block file never changes again, so neither node is in the other's way, and
//! Core may prune it or go away without ours losing it.
//!
//! Nothing of Core's is changed, whatever names lead to it; and a file here gives way only to one
//! that is whole.

use std::fs::Metadata;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use cofferdam_ibd::params::{ChainParams, Network};

use super::SourceFile;
use super::scan::BlockFile;
use super::startup::block_files;
use crate::data_dir::network_dir;

/// The mode of copies.
const COPY_MODE: u32 = 0o600;

/// Finds the block files below a directory: a data directory, one of a network, or `blocks` itself.
pub(super) fn blocks_dir(dir: &Path, network: Network) -> Result<PathBuf> {
    let of_network = network_dir(network).map(|name| dir.join(name).join("blocks"));
    let candidates = [of_network, Some(dir.join("blocks")), Some(dir.to_owned())];
    for candidate in candidates.into_iter().flatten() {
        if candidate.is_dir() && !block_files(&candidate)?.is_empty() {
            return Ok(candidate);
        }
    }
    bail!("{} has no block files (blk00000.dat) of network {network}", dir.display())
}

/// Refuses `own` as the directory to take files over from: to add blocks to files that Core uses
/// would spoil them for Core, and the other way round.
pub(super) fn check_is_another(core: &Path, own: &Path) -> Result<()> {
    if !is_same(core, own)? {
        return Ok(());
    }
    bail!(
        "{} is where this node keeps its own block files (-datadir, -blocksdir). To take them over from Bitcoin Core, give this node a directory of its own; if Bitcoin Core is not to use them any more, start with -reindex instead",
        core.display()
    )
}

/// Refuses files of another network: those of `DIR/blocks` may be of any, and would be this node's own
/// before anybody reads them.
pub(super) fn check_network(core: &Path, params: &ChainParams) -> Result<()> {
    let Some(SourceFile { path, .. }) = block_files(core)?.into_iter().next() else {
        return Ok(());
    };
    let mut file =
        BlockFile::open(&path).with_context(|| format!("reading block file {}", path.display()))?;
    let (path, network) = (path.display(), params.network);
    let magic = file.first_magic().with_context(|| format!("reading block file {path}"))?;
    if magic == Some(params.magic) {
        return Ok(());
    }
    match magic.and_then(|magic| file.network_of(&magic)) {
        Some(foreign) => bail!(
            "block file {path} is of network {foreign}, and this data directory of network {network}"
        ),
        None => bail!("block file {path} does not begin with a block of network {network}"),
    }
}

/// Returns whether two names lead to the same file or directory.
fn is_same(a: &Path, b: &Path) -> Result<bool> {
    let id = |path: &Path| -> Result<Option<(u64, u64)>> {
        let id = |metadata: Metadata| (metadata.dev(), metadata.ino());
        match std::fs::metadata(path) {
            Ok(metadata) => Ok(Some(id(metadata))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        }
    };
    let a = id(a)?;
    Ok(a.is_some() && a == id(b)?)
}

/// Gives the files of `core` names in `own`, or copies them. Done again after a crash it ends the
/// same.
pub(super) fn take_over(core: &Path, own: &Path, copy: bool) -> Result<()> {
    let files = block_files(core)?;
    let Some((last, full)) = files.split_last() else {
        bail!("{} has no block files", core.display());
    };
    let first = files.first().and_then(|file| file.number);
    if first != Some(0) {
        bail!(
            "{} begins with file {}: its chain is pruned, and the blocks before are needed",
            core.display(),
            first.unwrap_or(0)
        );
    }
    let (key, own_key) = (core.join("xor.dat"), own.join("xor.dat"));
    if key.exists() {
        copy_whole(&key, &own_key)?;
    } else {
        // One that a start without block files has made: files without a key are read without it.
        remove(&own_key)?;
    }
    for file in full {
        let to = own.join(name(file)?);
        if copy {
            copy_whole(&file.path, &to)?;
        } else {
            link(&file.path, &to)?;
        }
    }
    copy_whole(&last.path, &own.join(name(last)?))?;
    sync(own)
}

fn name(file: &SourceFile) -> Result<&std::ffi::OsStr> {
    file.path.file_name().context("a file has a name")
}

/// Gives a file a second name, which takes the place of a file of that name.
fn link(from: &Path, to: &Path) -> Result<()> {
    let what = || format!("linking {} to {}", to.display(), from.display());
    // The file itself: a second name for a symbolic link would lead elsewhere.
    let from = std::fs::canonicalize(from).with_context(what)?;
    // To rename one of two names of a file to the other does nothing.
    if is_same(&from, to)? {
        return Ok(());
    }
    let temporary = temporary(to);
    remove(&temporary)?;
    match std::fs::hard_link(&from, &temporary) {
        Err(error)
            if matches!(error.kind(), ErrorKind::CrossesDevices | ErrorKind::PermissionDenied) =>
        {
            return Err(error).with_context(what).context(
                "block files cannot be taken over in place: --copy copies them (their whole size)",
            );
        }
        linked => linked.with_context(what)?,
    }
    std::fs::rename(&temporary, to).with_context(what)
}

/// Copies a file, so that it has its name only when it is whole and durable. The copy is this node's,
/// which may have to append to it: the mode of Core's, which may be read-only, is not copied.
fn copy_whole(from: &Path, to: &Path) -> Result<()> {
    let what = || format!("copying {} to {}", from.display(), to.display());
    let temporary = temporary(to);
    // It may be a second name of a file of Core's, left by a crash: writing to it would cut that off.
    remove(&temporary)?;
    std::fs::copy(from, &temporary).with_context(what)?;
    let copied = std::fs::File::open(&temporary).with_context(what)?;
    copied.set_permissions(std::fs::Permissions::from_mode(COPY_MODE)).with_context(what)?;
    copied.sync_all().with_context(what)?;
    std::fs::rename(&temporary, to).with_context(what)
}

/// The name that a file has until it is whole.
fn temporary(to: &Path) -> PathBuf {
    let mut name = to.as_os_str().to_owned();
    name.push(".tmp");
    name.into()
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn sync(dir: &Path) -> Result<()> {
    let opened = std::fs::File::open(dir).and_then(|dir| dir.sync_all());
    opened.with_context(|| format!("syncing {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn core(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("regtest/blocks")).unwrap();
        for name in files {
            std::fs::write(dir.path().join("regtest/blocks").join(name), name).unwrap();
        }
        dir
    }

    #[test]
    fn full_files_are_linked_and_the_last_is_a_copy() {
        let from =
            core(&["blk00000.dat", "blk00001.dat", "blk00002.dat", "xor.dat", "rev00000.dat"]);
        let blocks = blocks_dir(from.path(), Network::Regtest).unwrap();
        let own = tempfile::tempdir().unwrap();
        // A copy that a crash cut off.
        std::fs::write(own.path().join("blk00001.dat"), "half").unwrap();
        take_over(&blocks, own.path(), false).unwrap();
        take_over(&blocks, own.path(), false).unwrap();
        let links = |name: &str| std::fs::metadata(own.path().join(name)).unwrap().nlink();
        assert_eq!(
            (links("blk00000.dat"), links("blk00001.dat"), links("blk00002.dat")),
            (2, 2, 1)
        );
        assert_eq!(std::fs::read(own.path().join("blk00002.dat")).unwrap(), b"blk00002.dat");
        assert!(own.path().join("xor.dat").exists() && !own.path().join("rev00000.dat").exists());
        let copies = tempfile::tempdir().unwrap();
        take_over(&blocks, copies.path(), true).unwrap();
        assert_eq!(std::fs::metadata(copies.path().join("blk00000.dat")).unwrap().nlink(), 1);
    }

    #[test]
    fn a_copy_can_be_written_though_the_file_of_core_is_read_only() {
        let names = ["blk00000.dat", "blk00001.dat", "xor.dat"];
        let from = core(&names);
        let blocks = blocks_dir(from.path(), Network::Regtest).unwrap();
        let mode = |path: PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        for name in names {
            let read_only = std::fs::Permissions::from_mode(0o444);
            std::fs::set_permissions(blocks.join(name), read_only).unwrap();
        }
        let own = tempfile::tempdir().unwrap();
        take_over(&blocks, own.path(), false).unwrap();
        let modes = names.map(|name| mode(own.path().join(name)));
        assert_eq!(modes, [0o444, 0o600, 0o600], "the first is Core's own file");
    }

    /// What a crash between the two steps of a link leaves is a name of Core's own file.
    #[test]
    fn no_file_of_core_is_changed_through_a_name_that_leads_to_it() {
        let from = core(&["blk00000.dat", "blk00001.dat"]);
        let blocks = blocks_dir(from.path(), Network::Regtest).unwrap();
        let own = tempfile::tempdir().unwrap();
        let hard_link = |name: &str, to: &str| {
            std::fs::hard_link(blocks.join(name), own.path().join(to)).unwrap();
        };
        hard_link("blk00000.dat", "blk00000.dat.tmp");
        hard_link("blk00001.dat", "blk00001.dat.tmp");
        hard_link("blk00001.dat", "blk00001.dat");
        std::fs::write(own.path().join("xor.dat"), [1; 8]).unwrap();
        for copy in [true, false, true] {
            take_over(&blocks, own.path(), copy).unwrap();
            for name in ["blk00000.dat", "blk00001.dat"] {
                for dir in [&blocks, own.path()] {
                    assert_eq!(std::fs::read(dir.join(name)).unwrap(), name.as_bytes());
                }
            }
        }
        assert_eq!(block_files(own.path()).unwrap().len(), 2);
        assert!(!own.path().join("xor.dat").exists(), "Core's files are under no key");
    }

    #[test]
    fn a_link_that_fails_costs_no_file() {
        let from = core(&["blk00000.dat", "blk00001.dat"]);
        let blocks = blocks_dir(from.path(), Network::Regtest).unwrap();
        assert!(check_is_another(&blocks, from.path()).is_ok());
        assert!(check_is_another(&blocks, &blocks.join(".")).is_err());
        link(&blocks.join("blk00000.dat"), &blocks.join("blk00000.dat")).unwrap();
        link(&blocks.join("gone"), &blocks.join("blk00001.dat")).unwrap_err();
        for name in ["blk00000.dat", "blk00001.dat"] {
            assert_eq!(std::fs::read(blocks.join(name)).unwrap(), name.as_bytes());
        }
    }

    #[test]
    fn a_pruned_or_empty_directory_is_refused() {
        let pruned = core(&["blk00003.dat"]);
        let blocks = blocks_dir(pruned.path(), Network::Regtest).unwrap();
        let own = tempfile::tempdir().unwrap();
        let text = take_over(&blocks, own.path(), false).unwrap_err().to_string();
        assert!(text.contains("begins with file 3: its chain is pruned"), "{text}");
        let text = blocks_dir(own.path(), Network::Regtest).unwrap_err().to_string();
        assert!(text.contains("has no block files"), "{text}");
    }
}
