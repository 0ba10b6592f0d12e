//! Connecting through a proxy: SOCKS 5 (RFC 1928), with a name and a password (RFC 1929).

use std::fmt;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Error, Result, anyhow, bail};

use super::connect::{self, read_within};
use crate::shutdown::Shutdown;

/// How long a part of an answer may take (Bitcoin Core's `g_socks5_recv_timeout`): circuits are built slowly.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const NAME_AND_PASSWORD: u8 = 2;
const CONNECT: u8 = 1;

/// Kinds of addresses in an answer.
const IPV4: u8 = 1;
const DOMAIN_NAME: u8 = 3;
const IPV6: u8 = 4;

/// There was no proxy at this address: nothing is known of the host that was to be connected to.
#[derive(Clone, Copy, Debug)]
struct NoProxy(SocketAddr);

impl fmt::Display for NoProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connecting to the proxy {}", self.0)
    }
}

/// Returns whether connecting failed since the proxy was not there.
pub(super) fn is_without_proxy(error: &Error) -> bool {
    error.is::<NoProxy>()
}

/// Connects to a host through a proxy. The host is named, never resolved here. With a `secret`, which
/// is name and password, the proxy may keep this connection apart from others.
pub(super) fn connect(
    proxy: SocketAddr,
    (host, port): (&str, u16),
    secret: Option<&str>,
    timeout: Duration,
    shutdown: &Shutdown,
) -> Result<TcpStream> {
    let stream = connect::connect(proxy, timeout, shutdown).context(NoProxy(proxy))?;
    // What is asked fits into the buffer of any socket.
    stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    let mut exchange = Exchange { stream, shutdown };
    exchange.authenticate(secret).with_context(|| format!("the proxy {proxy}"))?;
    exchange.ask_for(host, port)?;
    let stream = exchange.stream;
    stream.set_write_timeout(None)?;
    tracing::debug!("SOCKS5 connected {host}");
    Ok(stream)
}

/// What is said to a proxy before the connection is the peer's.
struct Exchange<'a> {
    stream: TcpStream,
    shutdown: &'a Shutdown,
}

impl Exchange<'_> {
    fn authenticate(&mut self, secret: Option<&str>) -> Result<()> {
        match secret {
            Some(_) => {
                self.stream.write_all(&[VERSION, 2, NO_AUTHENTICATION, NAME_AND_PASSWORD])?;
            }
            None => self.stream.write_all(&[VERSION, 1, NO_AUTHENTICATION])?,
        }
        let [version, method] = self.read()?;
        match (version, method, secret) {
            (VERSION, NO_AUTHENTICATION, _) => Ok(()),
            (VERSION, NAME_AND_PASSWORD, Some(secret)) => {
                let length = u8::try_from(secret.len()).map_err(|_| anyhow!("a long secret"))?;
                let mut request = vec![1];
                for _ in 0..2 {
                    request.push(length);
                    request.extend_from_slice(secret.as_bytes());
                }
                self.stream.write_all(&request)?;
                match self.read()? {
                    [1, 0] => Ok(()),
                    _ => Err(anyhow!("Proxy authentication unsuccessful")),
                }
            }
            (VERSION, method, _) => {
                bail!("Proxy requested wrong authentication method {method:02x}")
            }
            _ => bail!("Proxy failed to initialize"),
        }
    }

    fn ask_for(&mut self, host: &str, port: u16) -> Result<()> {
        let length = u8::try_from(host.len()).map_err(|_| anyhow!("Hostname too long"))?;
        let mut request = vec![VERSION, CONNECT, 0, DOMAIN_NAME, length];
        request.extend_from_slice(host.as_bytes());
        request.extend_from_slice(&port.to_be_bytes());
        self.stream.write_all(&request)?;
        let [version, reply, _, kind] = self.read()?;
        if version != VERSION {
            bail!("Proxy failed to accept request");
        }
        if reply != 0 {
            bail!("Socks5() connect to {host}:{port} failed: {}", reason(reply));
        }
        self.skip_address(kind)
    }

    /// Reads over the address and port that the proxy connected from.
    fn skip_address(&mut self, kind: u8) -> Result<()> {
        let length = match kind {
            IPV4 => 4,
            IPV6 => 16,
            DOMAIN_NAME => {
                let [length] = self.read()?;
                usize::from(length)
            }
            _ => bail!("Error: malformed proxy response"),
        };
        self.fill(&mut vec![0; length + 2])
    }

    fn read<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<()> {
        read_within(&mut self.stream, bytes, ANSWER_TIMEOUT, self.shutdown)
            .context("Proxy response failure")
    }
}

/// Says why a proxy did not connect (Core's `Socks5ErrorString`).
const fn reason(reply: u8) -> &'static str {
    match reply {
        1 => "general failure",
        2 => "connection not allowed",
        3 => "network unreachable",
        4 => "host unreachable",
        5 => "connection refused",
        6 => "TTL expired",
        7 => "protocol error",
        8 => "address type not supported",
        0xf0 => "onion service descriptor can not be found",
        0xf1 => "onion service descriptor is invalid",
        0xf2 => "onion service introduction failed",
        0xf3 => "onion service rendezvous failed",
        0xf4 => "onion service missing client authorization",
        0xf5 => "onion service wrong client authorization",
        0xf6 => "onion service invalid address",
        0xf7 => "onion service introduction timed out",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::TcpListener;

    use super::*;

    fn connect_to(proxy: SocketAddr, to: (&str, u16), secret: Option<&str>) -> Result<TcpStream> {
        connect(proxy, to, secret, ANSWER_TIMEOUT, &Shutdown::default())
    }

    /// A proxy that reads and says what it is told to; returns what it read.
    fn proxy(
        exchanges: Vec<(usize, Vec<u8>)>,
    ) -> (SocketAddr, std::thread::JoinHandle<Vec<Vec<u8>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = listener.local_addr().expect("bound");
        let answer = move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let exchange = |(length, answer): (usize, Vec<u8>)| {
                let mut bytes = vec![0; length];
                stream.read_exact(&mut bytes).expect("asked");
                stream.write_all(&answer).expect("answered");
                bytes
            };
            exchanges.into_iter().map(exchange).collect()
        };
        let thread = std::thread::Builder::new().name("proxy".into()).spawn(answer);
        (address, thread.expect("a thread"))
    }

    #[test]
    fn a_host_is_named_to_the_proxy() {
        let answer = [&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], b"after"].concat();
        let (address, thread) = proxy(vec![(3, vec![5, 0]), (18, answer)]);
        let mut stream = connect_to(address, ("example.com", 8333), None).expect("connected");
        let mut after = [0; 5];
        stream.read_exact(&mut after).expect("what comes after");
        assert_eq!(&after, b"after");
        let read = thread.join().expect("ends");
        assert_eq!(read[0], [5, 1, 0]);
        assert_eq!(read[1], [&[5, 1, 0, 3, 11][..], b"example.com", &[0x20, 0x8d]].concat());
    }

    #[test]
    fn a_secret_is_name_and_password() {
        let refusal = vec![5, 0xf2, 0, 1];
        let (address, thread) = proxy(vec![(4, vec![5, 2]), (7, vec![1, 0]), (10, refusal)]);
        let error = connect_to(address, ("abc", 1), Some("xy")).expect_err("refused");
        assert!(error.to_string().contains("onion service introduction failed"), "{error}");
        let read = thread.join().expect("ends");
        assert_eq!(read[..2], [vec![5, 2, 0, 2], vec![1, 2, b'x', b'y', 2, b'x', b'y']]);
    }

    #[test]
    fn a_proxy_that_wants_another_secret_is_left() {
        let (address, _thread) = proxy(vec![(3, vec![5, 2])]);
        let error = connect_to(address, ("abc", 1), None).expect_err("refused");
        assert!(format!("{error:#}").contains("wrong authentication method 02"), "{error:#}");
        assert!(!is_without_proxy(&error));
    }

    #[test]
    fn a_proxy_that_is_not_there_is_told_from_a_host_that_is_not() {
        let closed = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr());
        let error = connect_to(closed.expect("bound"), ("abc", 1), None).expect_err("nobody");
        assert!(is_without_proxy(&error.context("as callers do")));
    }
}
