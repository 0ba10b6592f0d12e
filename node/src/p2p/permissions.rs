//! What certain peers may do that others may not (`-whitelist`, `-whitebind`; Bitcoin Core's
//! `net_permissions.cpp`).

use std::net::{IpAddr, SocketAddr};

use super::subnet::Subnet;

/// A set of permissions.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Permissions(u32);

impl Permissions {
    /// May ask for filtered blocks.
    pub const BLOOM_FILTER: Self = Self(1 << 1);
    /// Transactions are taken from it in any mode.
    pub const RELAY: Self = Self(1 << 3);
    /// Transactions are relayed from it in any case.
    pub const FORCE_RELAY: Self = Self(1 << 2 | Self::RELAY.0);
    /// Served during initial download, and when the upload target is reached.
    pub const DOWNLOAD: Self = Self(1 << 6);
    /// Never banned, disconnected or discouraged for misbehaving.
    pub const NO_BAN: Self = Self(1 << 4 | Self::DOWNLOAD.0);
    /// May ask for the mempool.
    pub const MEMPOOL: Self = Self(1 << 5);
    /// No limits on addresses to and fro.
    pub const ADDR: Self = Self(1 << 7);
    /// All of them.
    pub const ALL: Self = Self(
        Self::BLOOM_FILTER.0
            | Self::FORCE_RELAY.0
            | Self::NO_BAN.0
            | Self::MEMPOOL.0
            | Self::ADDR.0,
    );
    /// Returns what is meant where no permissions are named.
    #[must_use]
    pub const fn usual(relay: bool, force_relay: bool) -> Self {
        let usual = Self::MEMPOOL.with(Self::NO_BAN);
        let usual = if relay { usual.with(Self::RELAY) } else { usual };
        if force_relay { usual.with(Self::FORCE_RELAY) } else { usual }
    }

    /// Returns whether all of these are in it.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns the names that `getpeerinfo` shows.
    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        const NAMES: [(Permissions, &str); 7] = [
            (Permissions::BLOOM_FILTER, "bloomfilter"),
            (Permissions::NO_BAN, "noban"),
            (Permissions::FORCE_RELAY, "forcerelay"),
            (Permissions::RELAY, "relay"),
            (Permissions::MEMPOOL, "mempool"),
            (Permissions::DOWNLOAD, "download"),
            (Permissions::ADDR, "addr"),
        ];
        NAMES.iter().filter(|(flag, _)| self.has(*flag)).map(|(_, name)| *name).collect()
    }

    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "bloomfilter" | "bloom" => Self::BLOOM_FILTER,
            "noban" => Self::NO_BAN,
            "forcerelay" => Self::FORCE_RELAY,
            "relay" => Self::RELAY,
            "mempool" => Self::MEMPOOL,
            "download" => Self::DOWNLOAD,
            "all" => Self::ALL,
            "addr" => Self::ADDR,
            _ => return None,
        })
    }
}

/// A `-whitelist`: who gets which permissions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Whitelist {
    permissions: Permissions,
    inbound: bool,
    outbound: bool,
    subnet: Subnet,
}

/// A `-whitebind`: where to listen, and the permissions of who connects there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Whitebind {
    /// Where to listen.
    pub address: SocketAddr,
    /// What those who connect there may do.
    pub permissions: Permissions,
}

impl Whitelist {
    /// Reads `[permission,...@]subnet`; `usual` are meant if none are named.
    ///
    /// # Errors
    ///
    /// Returns the text for the user.
    pub fn parse(text: &str, usual: Permissions) -> Result<Self, String> {
        let named = Named::parse(text, usual)?;
        let subnet = Subnet::parse(named.rest)
            .ok_or_else(|| format!("Invalid netmask specified in -whitelist: '{}'", named.rest))?;
        let Named { permissions, outbound, .. } = named;
        // By default it is for those who connect to us.
        let inbound = named.inbound || !outbound;
        Ok(Self { permissions, inbound, outbound, subnet })
    }
}

impl Whitebind {
    /// Reads `[permission,...@]address:port`; `usual` are meant if none are named.
    ///
    /// # Errors
    ///
    /// Returns the text for the user.
    pub fn parse(text: &str, usual: Permissions) -> Result<Self, String> {
        let named = Named::parse(text, usual)?;
        if named.outbound {
            let text = "whitebind may only be used for incoming connections (\"out\" was passed)";
            return Err(text.into());
        }
        let rest = named.rest;
        let address = match (rest.parse::<SocketAddr>(), rest.parse::<IpAddr>()) {
            (Ok(address), _) if address.port() != 0 => address,
            (Ok(_), _) | (_, Ok(_)) => {
                return Err(format!("Need to specify a port with -whitebind: '{rest}'"));
            }
            _ => return Err(format!("Cannot resolve -whitebind address: '{rest}'")),
        };
        Ok(Self { address, permissions: named.permissions })
    }
}

/// Permissions and directions in front of the `@`, and what is behind.
struct Named<'a> {
    permissions: Permissions,
    inbound: bool,
    outbound: bool,
    rest: &'a str,
}

impl<'a> Named<'a> {
    fn parse(text: &'a str, usual: Permissions) -> Result<Self, String> {
        let none = Permissions::default();
        let mut named = Named { permissions: none, inbound: false, outbound: false, rest: text };
        let Some((names, rest)) = text.split_once('@') else {
            named.permissions = usual;
            return Ok(named);
        };
        named.rest = rest;
        for name in names.split(',').filter(|name| !name.is_empty()) {
            match name {
                "in" => named.inbound = true,
                "out" => named.outbound = true,
                _ => {
                    let flag = Permissions::named(name)
                        .ok_or_else(|| format!("Invalid P2P permission: '{name}'"))?;
                    named.permissions = named.permissions.with(flag);
                }
            }
        }
        if (named.inbound || named.outbound) && named.permissions == none {
            return Err(format!("Only direction was set, no permissions: '{text}'"));
        }
        Ok(named)
    }
}

/// Returns what a peer may do: `given` by the address it connected to, and by the lists. `ip` is
/// none if it hides its address.
pub(crate) fn of_peer(
    lists: &[Whitelist],
    given: Permissions,
    ip: Option<IpAddr>,
    inbound: bool,
) -> Permissions {
    let mut all = given;
    for list in lists {
        let is_for = if inbound { list.inbound } else { list.outbound };
        if is_for && ip.is_some_and(|ip| list.subnet.contains(ip)) {
            all = all.with(list.permissions);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: Permissions = Permissions::usual(true, false);

    fn names(list: &str, ip: &str, inbound: bool) -> Vec<&'static str> {
        let list = Whitelist::parse(list, USUAL).unwrap();
        let ip = Some(ip.parse().unwrap());
        of_peer(&[list], Permissions::default(), ip, inbound).names()
    }

    #[test]
    fn a_listed_peer_has_the_permissions_that_core_gives_it() {
        let usual = ["noban", "relay", "mempool", "download"];
        assert_eq!(names("127.0.0.1", "127.0.0.1", true), usual);
        assert_eq!(names("127.0.0.1", "127.0.0.1", false), [""; 0]);
        assert_eq!(names("127.0.0.1", "127.0.0.2", true), [""; 0]);
        assert_eq!(names("noban,in,out@10.0.0.0/8", "10.1.1.1", false), ["noban", "download"]);
        assert_eq!(names("addr@127.0.0.1", "127.0.0.1", true), ["addr"]);
        assert_eq!(names("forcerelay@127.0.0.1", "127.0.0.1", true), ["forcerelay", "relay"]);
        assert_eq!(names("@127.0.0.1", "127.0.0.1", true), [""; 0]);
        let all = ["bloomfilter", "noban", "forcerelay", "relay", "mempool", "download", "addr"];
        assert_eq!(names("all@127.0.0.1", "127.0.0.1", true), all);
    }

    #[test]
    fn what_is_meant_unless_named_is_the_users_to_say() {
        assert_eq!(Permissions::usual(false, false).names(), ["noban", "mempool", "download"]);
        let all = ["noban", "forcerelay", "relay", "mempool", "download"];
        assert_eq!(Permissions::usual(false, true).names(), all);
    }

    #[test]
    fn mistakes_are_told_in_cores_words() {
        let list = |text| Whitelist::parse(text, USUAL).unwrap_err();
        assert_eq!(list("oopsie@127.0.0.1"), "Invalid P2P permission: 'oopsie'");
        assert_eq!(list("in@127.0.0.1"), "Only direction was set, no permissions: 'in@127.0.0.1'");
        let text = "Invalid netmask specified in -whitelist: '127.0.0.1:230'";
        assert_eq!(list("noban@127.0.0.1:230"), text);
        let bind = |text| Whitebind::parse(text, USUAL).unwrap_err();
        assert_eq!(bind("noban@127.0.0.1"), "Need to specify a port with -whitebind: '127.0.0.1'");
        assert_eq!(bind("noban@127.0.0.1/10"), "Cannot resolve -whitebind address: '127.0.0.1/10'");
        assert!(bind("noban,out@127.0.0.1:8000").contains("(\"out\" was passed)"));
        assert!(Whitebind::parse("noban@127.0.0.1:8000", USUAL).is_ok());
    }
}
