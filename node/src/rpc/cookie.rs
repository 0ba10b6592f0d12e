//! The server's start: the users of a configuration, and the file in which programs find the secret of
//! this run.

use std::path::PathBuf;

use anyhow::{Result, anyhow, bail};
use bitcoin::hex::DisplayHex as _;

use super::{Credentials, RpcServer, WarmUp};
use crate::config::RpcConfig;
use crate::data_dir::{DataDir, fill_random};

/// The user of the secret.
const COOKIE_USER: &str = "__cookie__";

/// The secret of this run, and where it goes.
#[derive(Debug)]
struct Cookie {
    file: PathBuf,
    mode: u32,
    secret: String,
}

impl Cookie {
    /// Writes the file.
    fn write(&self, data_dir: &mut DataDir) -> Result<()> {
        let text = format!("{COOKIE_USER}:{}", self.secret);
        data_dir.write_cookie(&self.file, self.mode, &text)
    }
}

/// Starts the server, if it is wanted; what went wrong is in the log.
pub(crate) fn start(
    config: &RpcConfig,
    data_dir: &mut DataDir,
    warm_up: &WarmUp,
) -> Result<Option<RpcServer>> {
    if !config.enabled {
        return Ok(None);
    }
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let started = credentials(config).and_then(|(credentials, cookie)| {
        // Listening comes first: who finds the cookie can connect.
        let server = RpcServer::start(config, warm_up.clone(), credentials)?;
        match cookie.map_or(Ok(()), |cookie| cookie.write(data_dir)) {
            Ok(()) => Ok(server),
            Err(error) => {
                server.stop();
                Err(error)
            }
        }
    });
    started.map(Some).map_err(|error| {
        tracing::error!("{error:#}");
        anyhow!("Unable to start HTTP server. See debug log for details.")
    })
}

/// Returns who may call, and the cookie if there is to be one.
///
/// # Errors
///
/// Returns an error, with a text for the log, if an option is malformed.
fn credentials(config: &RpcConfig) -> Result<(Credentials, Option<Cookie>)> {
    let mut credentials = Credentials::default();
    let mut cookie = None;
    match (&config.user, &config.cookie_file) {
        (Some((user, password)), _) => {
            tracing::info!("Using rpcuser/rpcpassword authentication.");
            tracing::warn!(
                "The use of rpcuser/rpcpassword is less secure, because credentials are configured in plain text. It is recommended that locally-run instances switch to cookie-based auth, or otherwise to use hashed rpcauth credentials."
            );
            credentials.add_password(user, password.as_bytes(), random_digits::<16>()?);
        }
        (None, Some(file)) => {
            tracing::info!("Using random cookie authentication.");
            let mode = mode(config.cookie_perms.as_deref())?;
            let secret = random_digits::<32>()?;
            credentials.add_password(COOKIE_USER, secret.as_bytes(), random_digits::<16>()?);
            cookie = Some(Cookie { file: file.clone(), mode, secret });
        }
        (None, None) => {
            tracing::info!("RPC authentication cookie file generation is disabled.");
        }
    }
    if !config.auth.is_empty() {
        tracing::info!("Using rpcauth authentication.");
    }
    for text in &config.auth {
        if !credentials.add_hashed(text) {
            bail!("Invalid -rpcauth argument.");
        }
    }
    credentials.restrict(&config.whitelist, config.whitelist_default);
    Ok((credentials, cookie))
}

fn mode(name: Option<&str>) -> Result<u32> {
    match name {
        None | Some("owner") => Ok(0o600),
        Some("group") => Ok(0o640),
        Some("all") => Ok(0o644),
        Some(name) => {
            bail!("Invalid -rpccookieperms={name}; must be one of 'owner', 'group', or 'all'.")
        }
    }
}

fn random_digits<const BYTES: usize>() -> Result<String> {
    let mut bytes = [0_u8; BYTES];
    fill_random(&mut bytes)?;
    Ok(bytes.as_hex().to_string())
}
