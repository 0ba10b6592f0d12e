//! Settings of the connections to peers.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use cofferdam_ibd::params::ChainParams;

use super::{bind_address, port};
use crate::settings::Settings;

/// Longest user agent that peers accept (Bitcoin Core's `MAX_SUBVERSION_LENGTH`).
const USER_AGENT_LENGTH_MAX: usize = 256;

/// Most connections (Bitcoin Core's default).
const MAX_CONNECTIONS_DEFAULT: usize = 125;

/// Settings of the connections to peers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct P2pConfig {
    /// Peers to connect to, and no others.
    pub connect: Vec<String>,
    /// Peers to keep a connection with.
    pub add_nodes: Vec<String>,
    /// Addresses to listen on; empty: no listening.
    pub bind: Vec<SocketAddr>,
    /// Most connections.
    pub max_connections: usize,
    /// Time limit of a connection attempt.
    pub connect_timeout: Duration,
    /// Time limit of the handshake.
    pub handshake_timeout: Duration,
    /// How the node names itself.
    pub user_agent: String,
}

impl P2pConfig {
    /// Reads the options.
    ///
    /// # Errors
    ///
    /// Returns the text for the user.
    pub(super) fn from_settings(settings: &Settings, params: &ChainParams) -> Result<Self, String> {
        let owned = |values: Vec<&str>| values.into_iter().map(str::to_owned).collect::<Vec<_>>();
        let port = port(settings, "port", params.default_port)?;
        let typed_binds = settings.all("bind");
        let listen =
            settings.flag("listen", !typed_binds.is_empty() || !settings.is_set("connect"));
        let mut bind = Vec::new();
        if listen && typed_binds.is_empty() {
            bind.push(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)));
        } else if listen {
            for text in typed_binds {
                bind.push(bind_address("bind", text.strip_suffix("=onion").unwrap_or(text), port)?);
            }
        }
        let version = env!("CARGO_PKG_VERSION");
        let comments = settings.all("uacomment").join("; ");
        let comments = if comments.is_empty() { comments } else { format!("({comments})") };
        let user_agent = format!("/Cofferdam:{version}{comments}/");
        if user_agent.len() > USER_AGENT_LENGTH_MAX {
            return Err(format!(
                "Total length of network version string ({}) exceeds maximum length ({USER_AGENT_LENGTH_MAX}). Reduce the number or size of uacomments.",
                user_agent.len()
            ));
        }
        Ok(Self {
            // -connect=0 is -noconnect.
            connect: owned(settings.all("connect").into_iter().filter(|at| *at != "0").collect()),
            add_nodes: owned(settings.all("addnode")),
            bind,
            max_connections: settings.number("maxconnections")?.unwrap_or(MAX_CONNECTIONS_DEFAULT),
            connect_timeout: Duration::from_millis(
                settings.number("timeout")?.unwrap_or(5000).max(1),
            ),
            handshake_timeout: Duration::from_secs(settings.number("peertimeout")?.unwrap_or(60)),
            user_agent,
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::config::tests::load;

    #[test]
    fn listening_follows_connect_and_bind() {
        assert_eq!(load("-regtest", "").unwrap().p2p.bind, ["0.0.0.0:18444".parse().unwrap()]);
        assert!(load("-regtest -connect=a", "").unwrap().p2p.bind.is_empty());
        let file = "regtest=1\n[regtest]\nconnect=0\nport=5\nbind=127.0.0.1\n";
        let config = load("-bind=127.0.0.1:7=onion", file).unwrap();
        assert_eq!(
            config.p2p.bind,
            ["127.0.0.1:7".parse().unwrap(), "127.0.0.1:5".parse().unwrap()]
        );
        assert!(config.p2p.connect.is_empty());
        assert_eq!(load("-port=0", "").unwrap_err(), "Invalid port specified in -port: '0'");
        assert_eq!(
            load("-port=65536", "").unwrap_err(),
            "Invalid port specified in -port: '65536'"
        );
    }

    #[test]
    fn the_user_agent_has_the_comments() {
        let agent = load("-uacomment=testnode0 -uacomment=x", "").unwrap().p2p.user_agent;
        assert_eq!(agent, format!("/Cofferdam:{}(testnode0; x)/", env!("CARGO_PKG_VERSION")));
        assert!(
            load(&format!("-uacomment={}", "a".repeat(260)), "").unwrap_err().contains("exceeds")
        );
    }
}
