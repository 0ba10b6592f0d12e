//! Opening a connection, and waiting for what is to come on it: for a time, and no longer than the
//! node runs. A thread that waits would hold up a stop.

use std::io::{ErrorKind, Read as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use socket2::{Domain, Protocol, Socket, Type};

use crate::shutdown::Shutdown;

/// How long the wish to stop may go unheard.
const GLANCE: Duration = Duration::from_millis(100);

/// Connects to an address.
pub(super) fn connect(
    address: SocketAddr,
    timeout: Duration,
    shutdown: &Shutdown,
) -> Result<TcpStream> {
    let end = Instant::now() + timeout;
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    match socket.connect_timeout(&address.into(), timeout.min(GLANCE)) {
        Err(error) if error.kind() == ErrorKind::TimedOut => {}
        result => return Ok(result.map(|()| socket.into())?),
    }
    // The system goes on trying.
    while Instant::now() < end {
        if shutdown.wait_for(GLANCE) {
            bail!("shutting down");
        }
        if let Some(error) = socket.take_error()? {
            return Err(error.into());
        }
        if socket.peer_addr().is_ok() {
            return Ok(socket.into());
        }
    }
    bail!("connection timed out")
}

/// Reads as many bytes as there is room for, all within `timeout`.
pub(super) fn read_within(
    stream: &mut TcpStream,
    mut rest: &mut [u8],
    timeout: Duration,
    shutdown: &Shutdown,
) -> Result<()> {
    let end = Instant::now() + timeout;
    while !rest.is_empty() {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            bail!("no answer in time");
        }
        if shutdown.is_requested() {
            bail!("shutting down");
        }
        stream.set_read_timeout(Some(left.min(GLANCE)))?;
        match stream.read(rest) {
            Ok(0) => bail!("the connection was closed"),
            Ok(count) => rest = rest.get_mut(count..).unwrap_or_default(),
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {}
                _ => return Err(error.into()),
            },
        }
    }
    stream.set_read_timeout(None).context("a socket without a time limit")
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::TcpListener;

    use super::*;

    /// More than any test may take.
    const LONG: Duration = Duration::from_secs(600);

    /// An address at which connections are left to wait: as many as there may be have been made.
    fn full() -> (Socket, Vec<TcpStream>, SocketAddr) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("binds");
        socket.listen(0).expect("listens");
        let address = socket.local_addr().ok().and_then(|at| at.as_socket()).expect("bound");
        let short = Duration::from_millis(300);
        let connect = |_| TcpStream::connect_timeout(&address, short).ok();
        let made = std::iter::repeat(()).map(connect).take_while(Option::is_some).flatten();
        let made: Vec<TcpStream> = made.take(100).collect();
        assert!(made.len() < 100, "never full");
        (socket, made, address)
    }

    #[test]
    fn a_stop_ends_an_attempt_to_connect() {
        let (_socket, _made, address) = full();
        let shutdown = Shutdown::default();
        let error = connect(address, GLANCE, &shutdown).expect_err("nobody answers");
        assert!(error.to_string().contains("timed out"), "{error}");
        std::thread::scope(|scope| {
            let attempt = scope.spawn(|| connect(address, LONG, &shutdown));
            shutdown.request();
            let error = attempt.join().expect("ends").expect_err("nobody answers");
            assert_eq!(error.to_string(), "shutting down");
        });
    }

    #[test]
    fn who_sends_byte_by_byte_gains_no_time() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = listener.local_addr().expect("bound");
        let shutdown = Shutdown::default();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (mut stream, _) = listener.accept().expect("a connection");
                while stream.write_all(&[0]).is_ok() {
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
            let mut stream = connect(address, LONG, &shutdown).expect("connects");
            let time = Duration::from_millis(300);
            let mut bytes = vec![0; 1 << 24];
            let error = read_within(&mut stream, &mut bytes, time, &shutdown).expect_err("late");
            assert_eq!(error.to_string(), "no answer in time");
        });
    }

    #[test]
    fn a_stop_ends_the_wait_for_an_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = listener.local_addr().expect("bound");
        let shutdown = Shutdown::default();
        let mut stream = connect(address, LONG, &shutdown).expect("connects");
        std::thread::scope(|scope| {
            let wait = scope.spawn(|| read_within(&mut stream, &mut [0], LONG, &shutdown));
            shutdown.request();
            let error = wait.join().expect("ends").expect_err("nobody answers");
            assert_eq!(error.to_string(), "shutting down");
        });
    }
}
