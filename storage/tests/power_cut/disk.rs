//! A file system of its own on a loop device, whose power can be cut.
//!
//! The cut is the ioctl that ext4 and XFS share for this purpose (`EXT4_IOC_SHUTDOWN`,
//! `XFS_IOC_GOINGDOWN`): from that moment on nothing in memory reaches the device. Mounting again
//! recovers the journal, as after a real cut. It goes through python3, since the workspace has no
//! unsafe code and the standard library no ioctl.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// The least that `mkfs.xfs` accepts is 300 MiB. The file is sparse.
const IMAGE_BYTES: u64 = 512 << 20;
/// How long an unmount may take while a killed process is being cleaned up.
const UNMOUNT_PATIENCE: Duration = Duration::from_secs(20);

const CUTTER: &str = r#"
import fcntl, os, struct, sys
SHUTDOWN = 0x8004587d  # _IOR('X', 125, __u32)
for line in iter(sys.stdin.readline, ""):
    mode, path = line.rstrip("\n").split(" ", 1)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.ioctl(fd, SHUTDOWN, struct.pack("I", int(mode)))
    os.close(fd)
    print("cut", flush=True)
"#;

/// Which file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Ext4,
    Xfs,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }
}

/// What of the file system's memory reaches the device at the cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// All of it: a cut between two moments of rest.
    Everything = 0,
    /// The journal, so metadata, but not the data of files: sizes without contents.
    Journal = 1,
    /// Nothing.
    Nothing = 2,
}

/// A mounted file system; unmounted and detached when dropped, also by a panic.
#[derive(Debug)]
pub(crate) struct Disk {
    kind: Kind,
    device: String,
    mount_point: PathBuf,
    mounted: bool,
    cutter: Cutter,
    // Last: the image must outlive the device.
    _dir: TempDir,
}

/// A process that waits for the moment of the cut.
#[derive(Debug)]
struct Cutter {
    process: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Disk {
    /// Makes a device with an empty file system.
    ///
    /// # Errors
    ///
    /// Why that is not possible here: a test is then skipped.
    pub(crate) fn new(kind: Kind) -> Result<Self, String> {
        let uid = fs::metadata("/proc/self").map_err(|error| error.to_string())?.uid();
        if uid != 0 {
            return Err("it needs root, to mount".to_owned());
        }
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
        let image = dir.path().join("image");
        let file = fs::File::create(&image).map_err(|error| error.to_string())?;
        file.set_len(IMAGE_BYTES).map_err(|error| error.to_string())?;
        let mount_point = dir.path().join("mounted");
        fs::create_dir(&mount_point).map_err(|error| error.to_string())?;
        let cutter = Cutter::start()?;
        let device = run("losetup", &["--find", "--show", &image.to_string_lossy()])?;
        let device = device.trim().to_owned();
        // From here on the destructor cleans up.
        let mut disk = Self { kind, device, mount_point, mounted: false, cutter, _dir: dir };
        disk.make_anew()?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        &self.mount_point
    }

    /// Cuts the power: every write since the last sync may be gone, every later one fails.
    pub(crate) fn cut(&mut self, cut: Cut) {
        let path = self.mount_point.display();
        writeln!(self.cutter.orders, "{} {path}", cut as u8).expect("the cutter lives");
        let mut answer = String::new();
        self.cutter.answers.read_line(&mut answer).expect("the cutter lives");
        assert_eq!(answer, "cut\n", "the ioctl failed");
    }

    /// Switches on again: the kernel recovers the journal. Nobody may use a file of it.
    pub(crate) fn restart(&mut self) {
        self.unmount().and_then(|()| self.mount()).expect("it can be mounted again");
    }

    /// Makes the file system anew, empty.
    pub(crate) fn format(&mut self) {
        self.make_anew().expect("it can be formatted again");
    }

    fn make_anew(&mut self) -> Result<(), String> {
        self.unmount()?;
        let force = if self.kind == Kind::Xfs { "-f" } else { "-F" };
        run("mkfs", &["-t", self.kind.name(), "-q", force, &self.device])?;
        self.mount()
    }

    fn mount(&mut self) -> Result<(), String> {
        let path = self.mount_point.to_string_lossy();
        run("mount", &["-t", self.kind.name(), &self.device, &path])?;
        self.mounted = true;
        Ok(())
    }

    /// Unmounts, and waits until the kernel has let go: a mount before that would find the old
    /// file system in memory, shut down as it is.
    fn unmount(&mut self) -> Result<(), String> {
        let started = Instant::now();
        let name = self.device.trim_start_matches("/dev/");
        let in_memory = PathBuf::from(format!("/sys/fs/{}/{name}", self.kind.name()));
        while self.mounted || in_memory.exists() {
            if self.mounted {
                let done = run("umount", &[&self.mount_point.to_string_lossy()]);
                self.mounted = done.is_err();
                if started.elapsed() > UNMOUNT_PATIENCE {
                    done?;
                }
            }
            if started.elapsed() > UNMOUNT_PATIENCE {
                return Err(format!("{} stays", in_memory.display()));
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Nothing can be done about a failure, and a panic here would hide the first one.
        let _unmounted = self.unmount();
        let _detached = run("losetup", &["--detach", &self.device]);
        let _killed = self.cutter.process.kill();
        let _waited = self.cutter.process.wait();
    }
}

impl Cutter {
    fn start() -> Result<Self, String> {
        let mut process = Command::new("python3")
            .args(["-c", CUTTER])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("python3: {error}"))?;
        let orders = process.stdin.take().expect("piped");
        let answers = BufReader::new(process.stdout.take().expect("piped"));
        Ok(Self { process, orders, answers })
    }
}

/// Runs a program; returns its output.
fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{program} {arguments:?}: {}", said.trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
