//! Waiting for free space on disks other than the log's.

use std::path::Path;

use crate::database::Database;
use crate::error::{Error, Result};
use crate::file_system::FileSystem;
use crate::wal_buffered::{NoSpaceHook, WalBuffered};

impl<D: Database> WalBuffered<D> {
    /// Waits until the disk that holds `dir` has room for so many bytes beside the reserve: for files
    /// of the caller that may be on another disk than the log. ([`WalBuffered::wait_for_space`] looks
    /// at the log's, and at what is buffered for it.)
    ///
    /// # Errors
    ///
    /// As [`WalBuffered::wait_for_space`].
    pub fn wait_for_space_in(&self, dir: &Path, bytes: usize) -> Result<()> {
        let options = &self.inner.options;
        if options.reserve_bytes == 0 {
            return Ok(());
        }
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let wanted_bytes = options.reserve_bytes.saturating_add(bytes);
        let hook = options.no_space_hook.as_ref();
        let check = || self.inner.health.check();
        wait(&*self.inner.place.fs, dir, wanted_bytes, (hook, &check))
    }
}

/// Waits until the disk that holds `dir` has so many bytes free, as a commit does.
///
/// # Errors
///
/// [`Error::NoSpace`] if it has not and the hook does not want to wait; if the file system cannot
/// tell.
pub fn wait_for_free_bytes(
    fs: &dyn FileSystem,
    dir: &Path,
    wanted_bytes: u64,
    hook: &NoSpaceHook,
) -> Result<()> {
    wait(fs, dir, wanted_bytes, (Some(hook), &|| Ok(())))
}

/// Waits; `check` ends that if waiting has become pointless.
fn wait(
    fs: &dyn FileSystem,
    dir: &Path,
    wanted_bytes: u64,
    (hook, check): (Option<&NoSpaceHook>, &dyn Fn() -> Result<()>),
) -> Result<()> {
    loop {
        let free_bytes = fs.free_bytes(dir)?;
        let Some(free_bytes) = free_bytes.filter(|&free_bytes| free_bytes < wanted_bytes) else {
            return Ok(());
        };
        check()?;
        let error = Error::NoSpace { path: dir.to_path_buf(), free_bytes, wanted_bytes };
        match hook {
            Some(hook) if hook.call(&error).is_continue() => {}
            _ => return Err(error),
        }
    }
}
