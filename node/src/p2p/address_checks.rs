//! What addresses are to this node, and whether its tables of them are sound.

use std::net::{IpAddr, SocketAddr};

use super::addrman::{AddrMan, Counts};
use super::manager::{PeerManager, random_nonce};
use super::net_addr::{Host, NodeAddr};
use crate::config::Net;

impl PeerManager {
    /// Says how well the map of autonomous systems fits the addresses, if there is one.
    pub(super) fn look_at_map(&self) {
        if !self.groups.has_map() {
            return;
        }
        let hosts: Vec<Host> = [Net::Ipv4, Net::Ipv6]
            .into_iter()
            .flat_map(|net| self.sample_addresses(0, Some(net)))
            .map(|entry| entry.address.host)
            .collect();
        let (systems, unmapped) = self.groups.count(&hosts);
        tracing::info!(
            "ASMap Health Check: {} clearnet peers are mapped to {systems} ASNs with {unmapped} peers being unmapped",
            hosts.len()
        );
    }

    /// Returns what an address of IP is here.
    pub(crate) fn node_addr(&self, address: SocketAddr) -> NodeAddr {
        NodeAddr { host: self.host(address.ip()), port: address.port() }
    }

    /// Returns what an address of IP is here, without a port.
    pub(crate) fn host(&self, ip: IpAddr) -> Host {
        Host::of(ip, self.config.proxies.has_cjdns())
    }

    /// Returns the group of an address.
    pub(super) fn group_of(&self, ip: IpAddr) -> Vec<u8> {
        self.groups.group(&self.host(ip))
    }

    /// Looks whether the tables fit together, as often as the user wants it.
    pub(super) fn check_addresses(&self, manager: &AddrMan) {
        let ratio = u64::from(self.config.check_addresses);
        if ratio == 0 || !random_nonce().is_multiple_of(ratio) {
            return;
        }
        let Counts { new, tried } = manager.counts(None);
        let total = new + tried;
        tracing::debug!("CheckAddrman: new {new}, tried {tried}, total {total} started");
        match manager.check() {
            Ok(()) => tracing::debug!("CheckAddrman: completed"),
            Err(code) => tracing::error!("ADDRMAN CONSISTENCY CHECK FAILED!!! err={code}"),
        }
    }
}
