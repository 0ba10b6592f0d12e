//! Our own address: told to peers, so that others can connect to us.
//!
//! As in Bitcoin Core: what the user names with `-externalip`, and else, or now and then besides,
//! what a peer says that it sees us as. Each peer is told once it exchanges addresses with us, and
//! about once a day after that. Peers that are reached through Tor are told of none: who sees the same
//! node there and elsewhere knows whose onion service it is.

use std::net::SocketAddr;
use std::time::Duration;

use super::addresses::exponential;
use super::gossip_message::{Told, encode};
use super::is_routable;
use super::manager::{PeerManager, random_nonce};
use super::peer::Peer;

/// Mean time between two messages of it to one peer (Core's `AVG_LOCAL_ADDRESS_BROADCAST_INTERVAL`).
const TELL_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

impl PeerManager {
    /// Returns our addresses as far as the user named them.
    pub(crate) fn own_addresses(&self) -> &[SocketAddr] {
        &self.config.external
    }

    /// Tells a peer our address, if it is time.
    pub(super) fn tell_own_address(&self, peer: &Peer, now: Duration) {
        // Who asks while the chain is downloaded gets little from us.
        if !self.config.listens() || self.chain.view().initial_download {
            return;
        }
        let is_first = {
            let link = &mut peer.link().addresses;
            if !link.enabled || now <= link.next_own {
                return;
            }
            let is_first = link.next_own.is_zero();
            if !is_first {
                link.forget_known();
            }
            link.next_own = now + TELL_INTERVAL.mul_f64(exponential());
            is_first
        };
        let wants_v2 = peer.state().wants_addr_v2;
        let address = self.own_address(peer).map(|address| self.node_addr(address));
        let Some(address) = address.filter(|address| address.host.fits(wants_v2)) else { return };
        tracing::debug!("Advertising address {address} to peer={}", peer.id);
        let told = Told { time: now.as_secs(), services: self.services(), address: Some(address) };
        if is_first {
            let command = if wants_v2 { "addrv2" } else { "addr" };
            peer.send_bytes(command.into(), encode(&[told], wants_v2));
        } else {
            peer.link().addresses.push(told);
        }
    }

    /// Returns the address to tell a peer of.
    fn own_address(&self, peer: &Peer) -> Option<SocketAddr> {
        let seen = peer.state().version.as_ref().and_then(|version| version.receiver);
        let is_seen = self.config.discover && is_routable(peer.address.ip());
        let seen = seen.filter(|seen| is_seen && is_routable(seen.ip()));
        let port = self.config.listen_port;
        // Who connected to us knows the port that we are reached at; others saw one of the moment.
        let seen = seen
            .map(|seen| if peer.is_inbound() { seen } else { SocketAddr::new(seen.ip(), port) });
        let way = Way { is_v4: peer.address.is_ipv4(), is_private: peer.through_onion };
        choose(&self.config.external, seen, way, random_nonce())
    }
}

/// How a peer is reached.
#[derive(Clone, Copy, Debug)]
struct Way {
    is_v4: bool,
    /// Whether through a network that hides who is who (Core's `IsConnectedThroughPrivacyNet`).
    is_private: bool,
}

/// Chooses between what the user named, best of the peer's own family, and what the peer sees.
fn choose(
    named: &[SocketAddr],
    seen: Option<SocketAddr>,
    Way { is_v4, is_private }: Way,
    random: u64,
) -> Option<SocketAddr> {
    if is_private {
        // All our addresses are of other networks.
        return None;
    }
    let of_family = named.iter().find(|address| address.is_ipv4() == is_v4);
    let named = of_family.or_else(|| named.first()).copied();
    // Half of the time, in case that what the user named is true no more.
    if named.is_some() && random.is_multiple_of(2) { named } else { seen.or(named) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: Way = Way { is_v4: true, is_private: false };
    const V6: Way = Way { is_v4: false, is_private: false };

    #[test]
    fn what_the_user_named_goes_before_what_a_peer_says() {
        let address = |text: &str| -> SocketAddr { text.parse().expect("an address") };
        let named = [address("[2001:db8::1]:8333"), address("1.2.3.4:8333")];
        let seen = Some(address("5.6.7.8:9"));
        assert_eq!(choose(&named, None, V4, 1), Some(named[1]));
        assert_eq!(choose(&named, None, V6, 1), Some(named[0]));
        assert_eq!(choose(&named, seen, V4, 0), Some(named[1]));
        assert_eq!(choose(&named, seen, V4, 1), seen);
        assert_eq!(choose(&[], seen, V4, 0), seen);
        assert_eq!(choose(&[], None, V4, 0), None);
    }

    #[test]
    fn nobody_learns_through_tor_where_the_node_is_elsewhere() {
        let address = |text: &str| -> SocketAddr { text.parse().expect("an address") };
        for is_v4 in [true, false] {
            let way = Way { is_v4, is_private: true };
            for random in 0..4 {
                assert_eq!(choose(&[address("1.2.3.4:8333")], None, way, random), None);
                assert_eq!(choose(&[], Some(address("5.6.7.8:9")), way, random), None);
            }
        }
    }
}
