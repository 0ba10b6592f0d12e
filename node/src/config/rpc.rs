//! Settings of the JSON-RPC server and client.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use cofferdam_ibd::params::ChainParams;

use super::{bind_address, port};
use crate::settings::Settings;

/// Settings of the JSON-RPC server and client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RpcConfig {
    /// Whether the node serves RPC.
    pub enabled: bool,
    /// Loopback addresses to listen on.
    pub bind: Vec<SocketAddr>,
    /// Host and port the client connects to.
    pub connect: String,
    /// User and password besides the cookie.
    pub user: Option<(String, String)>,
    /// Calls that run at a time.
    pub threads: usize,
    /// Calls that may wait.
    pub work_queue: usize,
    /// How long the client waits for a reply; `None`: for ever.
    pub client_timeout: Option<Duration>,
}

impl RpcConfig {
    /// Reads the options.
    ///
    /// # Errors
    ///
    /// Returns the text for the user.
    pub(super) fn from_settings(settings: &Settings, params: &ChainParams) -> Result<Self, String> {
        let port = port(settings, "rpcport", params.rpc_port)?;
        let mut bind = Vec::new();
        for text in settings.all("rpcbind") {
            let address = bind_address("rpcbind", text, port)?;
            if !address.ip().is_loopback() {
                return Err(format!(
                    "-rpcbind: '{text}' is not a loopback address: RPC is served to this machine only"
                ));
            }
            bind.push(address);
        }
        if bind.is_empty() {
            bind.push(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        }
        let host = settings.get("rpcconnect").unwrap_or("127.0.0.1");
        let has_port = host.parse::<SocketAddr>().is_ok() || (host.matches(':').count() == 1);
        let user = match (settings.get("rpcuser"), settings.get("rpcpassword")) {
            (None | Some(""), None | Some("")) => None,
            (user, password) => {
                Some((user.unwrap_or_default().to_owned(), password.unwrap_or_default().to_owned()))
            }
        };
        Ok(Self {
            enabled: settings.flag("server", true),
            bind,
            connect: if has_port { host.to_owned() } else { format!("{host}:{port}") },
            user,
            threads: settings.number("rpcthreads")?.unwrap_or(16).clamp(1, 256),
            work_queue: settings.number("rpcworkqueue")?.unwrap_or(64).max(1),
            client_timeout: Some(settings.number("rpcclienttimeout")?.unwrap_or(900))
                .filter(|seconds| *seconds != 0)
                .map(Duration::from_secs),
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::config::tests::load;

    #[test]
    fn rpc_stays_on_the_loopback() {
        assert_eq!(load("-regtest", "").unwrap().rpc.bind, ["127.0.0.1:18443".parse().unwrap()]);
        assert!(load("-rpcbind=0.0.0.0", "").unwrap_err().contains("loopback"));
        let text = "Invalid port specified in -rpcbind: '127.0.0.1:notaport'";
        assert_eq!(load("-rpcbind=127.0.0.1:notaport", "").unwrap_err(), text);
    }
}
