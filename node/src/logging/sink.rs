//! Where lines go: the file, unbuffered and in append mode, and the standard output.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// What is kept of a log that is cut at the start, and the size from which it is.
const KEPT_BYTES: u64 = 10_000_000;
const SHRINK_FROM_BYTES: u64 = KEPT_BYTES / 10 * 11;

/// Between the lines of two runs, as Bitcoin Core.
const GAP: &[u8] = b"\n\n\n\n\n";

/// Where lines go.
#[derive(Debug, Default)]
pub(super) struct Sink {
    file: Option<(PathBuf, File)>,
    console: bool,
}

impl Sink {
    /// Opens the file, cut to its end first if `shrink`.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be opened.
    pub(super) fn open(path: Option<PathBuf>, console: bool, shrink: bool) -> io::Result<Self> {
        let Some(path) = path else {
            return Ok(Self { file: None, console });
        };
        if shrink {
            // A log that stays long is no reason not to start.
            let _ = shrink_file(&path);
        }
        let mut file = append_to(&path)?;
        file.write_all(GAP)?;
        Ok(Self { file: Some((path, file)), console })
    }

    /// Writes a line: in one piece, so that no other process's line cuts it. `to_file` is false for
    /// a line that is kept from the disk.
    pub(super) fn write(&self, line: &str, to_file: bool) {
        // A log that cannot be written must not stop a node, nor fill its standard error.
        if self.console {
            let _ = io::stdout().write_all(line.as_bytes());
        }
        if let (Some((_, file)), true) = (&self.file, to_file) {
            let mut file = file;
            let _ = file.write_all(line.as_bytes());
        }
    }

    /// Opens the file by its name again: whoever rotates logs has moved the old one away.
    pub(super) fn reopen(&mut self) {
        if let Some((path, file)) = &mut self.file
            && let Ok(new) = append_to(path)
        {
            *file = new;
        }
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

fn shrink_file(path: &Path) -> io::Result<()> {
    let mut file = File::open(path)?;
    if !file.metadata()?.is_file() || file.metadata()?.len() <= SHRINK_FROM_BYTES {
        return Ok(());
    }
    file.seek(SeekFrom::End(-i64::try_from(KEPT_BYTES).map_err(io::Error::other)?))?;
    let mut end = Vec::new();
    file.take(KEPT_BYTES).read_to_end(&mut end)?;
    std::fs::write(path, end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_is_too_long_keeps_its_end_and_another_keeps_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("debug.log");
        let mut bytes = vec![b'a'; usize::try_from(SHRINK_FROM_BYTES).unwrap()];
        bytes.push(b'b');
        std::fs::write(&path, &bytes).unwrap();
        drop(Sink::open(Some(path.clone()), false, false).unwrap());
        assert_eq!(std::fs::metadata(&path).unwrap().len(), SHRINK_FROM_BYTES + 6);
        drop(Sink::open(Some(path.clone()), false, true).unwrap());
        let kept = std::fs::read(&path).unwrap();
        assert_eq!(u64::try_from(kept.len()).unwrap(), KEPT_BYTES + 5);
        assert!(kept.ends_with(b"ab\n\n\n\n\n\n\n\n\n\n"));
        drop(Sink::open(Some(path.clone()), false, true).unwrap());
        assert_eq!(u64::try_from(std::fs::read(&path).unwrap().len()).unwrap(), KEPT_BYTES + 10);
    }

    #[test]
    fn a_file_that_was_moved_away_is_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let (path, moved) = (dir.path().join("debug.log"), dir.path().join("old.log"));
        let mut sink = Sink::open(Some(path.clone()), false, true).unwrap();
        sink.write("one\n", true);
        std::fs::rename(&path, &moved).unwrap();
        sink.write("two\n", true);
        sink.write("kept from the disk\n", false);
        sink.reopen();
        sink.write("three\n", true);
        assert_eq!(std::fs::read(&moved).unwrap(), b"\n\n\n\n\none\ntwo\n");
        assert_eq!(std::fs::read(&path).unwrap(), b"three\n");
    }
}
