//! Taking over the block files of a Bitcoin Core data directory, in place: each gets a second name
//! (a hard link) in ours. Nothing is copied but the last one, which Core may still write to, and
//! `xor.dat`. A full block file never changes again, so neither node is in the other's way, and
//! Core may prune it or go away without ours losing it.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use cofferdam_ibd::params::Network;

use super::SourceFile;
use super::startup::block_files;
use crate::data_dir::network_dir;

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
    let key = core.join("xor.dat");
    if key.exists() {
        copy_whole(&key, &own.join("xor.dat"))?;
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

fn link(from: &Path, to: &Path) -> Result<()> {
    let what = || format!("linking {} to {}", to.display(), from.display());
    match std::fs::remove_file(to) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error).with_context(what),
        _ => {}
    }
    match std::fs::hard_link(from, to) {
        Err(error)
            if matches!(error.kind(), ErrorKind::CrossesDevices | ErrorKind::PermissionDenied) =>
        {
            Err(error).with_context(what).context(
                "block files cannot be taken over in place: --copy copies them (their whole size)",
            )
        }
        linked => linked.with_context(what),
    }
}

/// Copies a file, so that it has its name only when it is whole and durable.
fn copy_whole(from: &Path, to: &Path) -> Result<()> {
    let what = || format!("copying {} to {}", from.display(), to.display());
    let mut temporary = to.as_os_str().to_owned();
    temporary.push(".tmp");
    std::fs::copy(from, &temporary).with_context(what)?;
    let copied = std::fs::OpenOptions::new().write(true).open(&temporary).with_context(what)?;
    copied.sync_all().with_context(what)?;
    std::fs::rename(&temporary, to).with_context(what)
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
        use std::os::unix::fs::MetadataExt as _;
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
