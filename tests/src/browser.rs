//! Pages as a person sees them: rendered by a headless Chromium, which reaches nothing but one node.
#![expect(clippy::missing_panics_doc, reason = "fixtures panic on anything unexpected")]
#![expect(clippy::expect_used, reason = "fixtures panic on anything unexpected")]
#![expect(clippy::print_stderr, reason = "a test that cannot run has to say so")]

use std::env;
use std::fs::{File, read_to_string};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use crate::process::wait_for;

/// Names under which distributions install it.
const PROGRAMS: [&str; 3] = ["chromium-headless-shell", "chromium", "google-chrome"];
/// A browser whose only way out is a proxy of this process, which reaches one address.
#[derive(Debug)]
pub struct Browser {
    program: PathBuf,
    proxy: u16,
    node: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Browser {
    /// Returns a browser for what is served at a port, if Chromium is installed (`scripts/setup`).
    ///
    /// # Panics
    ///
    /// In CI (`CI=true`), if it is missing: a test that is not run is a failure there.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "who runs the tests says where it is")]
    pub fn find(node: u16) -> Option<Self> {
        let path = env::var_os("PATH").unwrap_or_default();
        let dirs: Vec<PathBuf> = env::split_paths(&path).collect();
        let programs = PROGRAMS.iter().flat_map(|name| dirs.iter().map(move |dir| dir.join(name)));
        let Some(program) = programs.into_iter().find(|program| program.is_file()) else {
            let in_ci = env::var("CI").is_ok_and(|value| value == "true" || value == "1");
            assert!(!in_ci, "Chromium is missing: run scripts/setup");
            eprintln!("NOT RUN: Chromium is missing; scripts/setup installs it");
            return None;
        };
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let proxy = listener.local_addr().expect("bound").port();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let shared = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let asked = Arc::clone(&shared);
                std::thread::spawn(move || pass_on(stream, node, &asked));
            }
        });
        Some(Self { program, proxy, node, asked })
    }

    /// Returns the document of a path.
    #[must_use]
    pub fn document(&self, path: &str) -> String {
        self.run(&["--dump-dom"], path)
    }

    /// Draws a path as a PNG for a screen of that many points.
    pub fn draw(&self, path: &str, file: &Path, (width, height): (u32, u32), is_dark: bool) {
        let size = format!("--window-size={width},{height}");
        let scheme = format!("--blink-settings=preferredColorScheme={}", u8::from(!is_dark));
        let file = format!("--screenshot={}", file.display());
        let _ = self.run(&[&size, &scheme, &file], path);
    }

    /// Returns what has been asked for so far, one `METHOD URL` each.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the URL of a path.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.node)
    }

    /// Opens a path, and leaves it open until the proxy has been asked that often.
    pub fn stay(&self, path: &str, requests: usize) {
        let profile = tempfile::tempdir().expect("temporary");
        let child = self.command(profile.path(), path).arg("--remote-debugging-port=0").spawn();
        let _ending = Ending(child.expect("Chromium starts"));
        wait_for("the page's requests", || (self.asked().len() >= requests).then_some(()));
    }

    fn run(&self, args: &[&str], path: &str) -> String {
        let profile = tempfile::tempdir().expect("temporary");
        let [out, err] = ["out", "err"].map(|name| profile.path().join(name));
        let file = |path| File::create(path).expect("writable");
        let mut command = self.command(profile.path(), path);
        let command = command.args(args).stdout(file(&out)).stderr(file(&err));
        let mut ending = Ending(command.spawn().expect("Chromium starts"));
        let status = wait_for("the browser's end", || ending.0.try_wait().expect("a child"));
        assert!(status.success(), "{status}: {}", read_to_string(err).unwrap_or_default());
        read_to_string(out).expect("UTF-8")
    }

    fn command(&self, profile: &Path, path: &str) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
            .args(["--disable-background-networking", "--no-first-run", "--hide-scrollbars"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg(format!("--proxy-server=http://127.0.0.1:{}", self.proxy))
            // Loopback addresses go around a proxy unless told otherwise.
            .arg("--proxy-bypass-list=<-loopback>")
            .arg(self.url(path))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }
}

/// A process that does not outlive the test.
struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        // Already gone if it ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Passes a request on to the node, if it is for the node.
fn pass_on(mut browser: TcpStream, node: u16, asked: &Mutex<Vec<String>>) {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        match browser.read(&mut byte) {
            Ok(1) => head.extend(byte),
            // A connection opened ahead and not made use of.
            _ => return,
        }
    }
    let head = String::from_utf8(head).expect("UTF-8");
    let line = head.lines().next().unwrap_or_default();
    let request = line.rsplit_once(' ').map_or(line, |(request, _)| request);
    asked.lock().unwrap_or_else(PoisonError::into_inner).push(request.to_owned());
    let Some(path) = request.strip_prefix(&format!("GET http://127.0.0.1:{node}")) else {
        let _ = browser.write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n");
        return;
    };
    let mut stream = TcpStream::connect(("127.0.0.1", node)).expect("listens");
    let host = format!("Host: 127.0.0.1:{node}\r\nConnection: close\r\n\r\n");
    stream.write_all(format!("GET {path} HTTP/1.1\r\n{host}").as_bytes()).expect("a reader");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    // A browser that ends meanwhile does not wait for it.
    let _ = browser.write_all(&answer);
}
