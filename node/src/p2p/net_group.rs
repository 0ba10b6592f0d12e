//! Groups of addresses that one owner may have all of, so that no group is given too much.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use bitcoin::hashes::{Hash as _, sha256d};

use super::asmap::AsMap;
use super::net_addr::{Host, wide};

/// Numbers of networks in Core's groups (`enum Network`).
const UNROUTABLE: u8 = 0;
const IPV4: u8 = 1;
const IPV6: u8 = 2;
const ONION: u8 = 3;
const I2P: u8 = 4;
const CJDNS: u8 = 5;
const INTERNAL: u8 = 6;

/// What tells which group an address is of: a map of autonomous systems, or its first bits.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct NetGroups {
    map: AsMap,
}

impl NetGroups {
    /// Reads the map that the user names, if he does; a name is one in the chain's folder.
    ///
    /// # Errors
    ///
    /// Returns the text for the user.
    pub(super) fn load(name: Option<&str>, chain_dir: &Path) -> Result<Self, String> {
        let Some(name) = name else {
            tracing::info!("Using /16 prefix for IP bucketing");
            return Ok(Self::default());
        };
        let is_number = name.parse::<i64>().is_ok_and(|number| number != 0);
        if name.is_empty() || is_number {
            return Err("Embedded asmap data not available".into());
        }
        let path = chain_dir.join(name);
        if !path.exists() {
            return Err(format!("Could not find asmap file \"{}\"", path.display()));
        }
        let bytes = std::fs::read(&path).unwrap_or_default();
        tracing::info!(
            "Opened asmap file \"{}\" ({} bytes) from disk",
            path.display(),
            bytes.len()
        );
        let map = AsMap::new(bytes);
        let map =
            map.ok_or_else(|| format!("Could not parse asmap file \"{}\"", path.display()))?;
        let version = sha256d::Hash::from_byte_array(map.version());
        tracing::info!("Using asmap version {version} for IP bucketing");
        Ok(Self { map })
    }

    /// Returns whether there is a map.
    pub(crate) const fn has_map(&self) -> bool {
        !self.map.is_empty()
    }

    /// Returns the hash of the map; zero without one.
    pub(crate) fn version(&self) -> [u8; 32] {
        self.map.version()
    }

    /// Returns the autonomous system of an address; none: it is not mapped.
    pub(crate) fn system(&self, host: &Host) -> Option<u32> {
        let Host::Ip(ip) = host else { return None };
        let is_mapped = self.has_map() && host.is_routable() && !host.is_internal();
        let linked = linked_ipv4(*ip).map_or(*ip, IpAddr::V4);
        let system = if is_mapped { self.map.system(wide(linked).octets()) } else { 0 };
        Some(system).filter(|system| *system != 0)
    }

    /// Says how many systems some addresses are of, and how many addresses are of none.
    pub(crate) fn count(&self, hosts: &[Host]) -> (usize, usize) {
        let systems: Vec<u32> = hosts.iter().filter_map(|host| self.system(host)).collect();
        let unmapped = hosts.len() - systems.len();
        (systems.into_iter().collect::<HashSet<u32>>().len(), unmapped)
    }

    /// Returns a number for the group of an address that nobody without the key can foresee (Core's
    /// `CalculateKeyedNetGroup`).
    pub(super) fn keyed(&self, host: &Host, key: u64) -> u64 {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        self.group(host).hash(&mut hasher);
        hasher.finish()
    }

    /// Returns the group of an address (Core's `GetGroup`).
    pub(crate) fn group(&self, host: &Host) -> Vec<u8> {
        if let Some(system) = self.system(host) {
            // IPv4 and IPv6 of one system are one group.
            return [&[IPV6][..], &system.to_le_bytes()].concat();
        }
        match host {
            Host::Ip(IpAddr::V6(ip)) if host.is_internal() => {
                let name = ip.octets().into_iter().skip(6);
                std::iter::once(INTERNAL).chain(name).collect()
            }
            _ if !host.is_routable() => vec![UNROUTABLE],
            Host::Ip(ip) => match (linked_ipv4(*ip), ip) {
                (Some(linked), _) => {
                    let [a, b, ..] = linked.octets();
                    vec![IPV4, a, b]
                }
                (None, IpAddr::V6(ip)) if ip.segments().starts_with(&[0x2001, 0x470]) => {
                    // Hurricane Electric gives whole /36 to its customers.
                    first_bits(IPV6, &ip.octets(), 36)
                }
                (None, ip) => first_bits(IPV6, &wide(*ip).octets(), 32),
            },
            Host::Onion(bytes) => first_bits(ONION, bytes, 4),
            Host::I2p(bytes) => first_bits(I2P, bytes, 4),
            // The first byte is the same for all.
            Host::Cjdns(bytes) => first_bits(CJDNS, bytes, 12),
        }
    }
}

/// Returns a network and the first bits of an address, those after them in the last byte being 1.
fn first_bits(net: u8, bytes: &[u8], bits: usize) -> Vec<u8> {
    let mut group = vec![net];
    group.extend(bytes.iter().take(bits / 8));
    if let (left @ 1.., Some(last)) = (bits % 8, bytes.get(bits / 8)) {
        group.push(last | 0xff_u8 >> left);
    }
    group
}

/// Returns the address of IPv4 behind one that leads there: translated (RFC 6052, RFC 6145), 6to4
/// or Teredo.
fn linked_ipv4(ip: IpAddr) -> Option<Ipv4Addr> {
    let ip = match ip {
        IpAddr::V4(ip) => return Some(ip),
        IpAddr::V6(ip) => ip,
    };
    if !super::is_routable(ip.into()) {
        return None;
    }
    behind(ip)
}

fn behind(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let [.., y, z] = ip.segments();
    let last = u32::from(y) << 16 | u32::from(z);
    match ip.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => Some(last.into()),
        [0x2002, a, b, ..] => Some((u32::from(a) << 16 | u32::from(b)).into()),
        [0x2001, 0, ..] => Some((!last).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(text: &str) -> Vec<u8> {
        NetGroups::default().group(&text.parse().expect("an address"))
    }

    #[test]
    fn groups_are_those_of_core() {
        // The values of Core's `netbase_getgroup`.
        for (text, right) in [
            ("127.0.0.1", vec![0]),
            ("10.0.0.1", vec![0]),
            ("169.254.1.1", vec![0]),
            ("1.2.3.4", vec![1, 1, 2]),
            ("::FFFF:0:102:304", vec![1, 1, 2]),
            ("64:FF9B::102:304", vec![1, 1, 2]),
            ("2002:102:304:9999:9999:9999:9999:9999", vec![1, 1, 2]),
            ("2001:0:9999:9999:9999:9999:FEFD:FCFB", vec![1, 1, 2]),
            ("2001:470:abcd:9999:9999:9999:9999:9999", vec![2, 32, 1, 4, 112, 175]),
            ("2001:2001:9999:9999:9999:9999:9999:9999", vec![2, 32, 1, 32, 1]),
            ("pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion", vec![3, 0x79 | 0xf]),
        ] {
            assert_eq!(group(text), right, "{text}");
        }
    }

    #[test]
    fn a_keyed_group_is_that_of_the_map_and_of_the_rules() {
        let keyed = |groups: &NetGroups, key| {
            let groups = groups.clone();
            move |text: &str| groups.keyed(&text.parse().expect("an address"), key)
        };
        let plain = keyed(&NetGroups::default(), 1);
        assert_eq!(plain("1.2.3.4"), plain("2002:102:304::1"), "one owner");
        assert_eq!(plain("10.1.1.1"), plain("192.168.1.1"), "both on this side of the door");
        assert_ne!(plain("200.1.2.3"), plain("201.1.2.3"));
        assert_ne!(plain("1.2.3.4"), keyed(&NetGroups::default(), 2)("1.2.3.4"));
        let map = AsMap::new(super::super::asmap::tests::program()).expect("sound");
        let mapped = keyed(&NetGroups { map }, 1);
        assert_eq!(mapped("200.1.2.3"), mapped("201.1.2.3"), "of one system");
    }
}
