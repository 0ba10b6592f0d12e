//! Our own address: told to peers, so that others can connect to us.
//!
//! As in Bitcoin Core: what the user names with `-externalip`, and else, or now and then besides,
//! what a peer says that it sees us as. Each peer is told once it exchanges addresses with us, and
//! about once a day after that.

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
        let Some(address) = self.own_address(peer) else { return };
        tracing::debug!("Advertising address {address} to peer={}", peer.id);
        let told = Told {
            time: now.as_secs(),
            services: self.services(),
            address: Some(self.node_addr(address)),
        };
        if is_first {
            let wants_v2 = peer.state().wants_addr_v2;
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
        choose(&self.config.external, seen, peer.address.is_ipv4(), random_nonce())
    }
}

/// Chooses between what the user named, best of the peer's own family, and what the peer sees.
fn choose(
    named: &[SocketAddr],
    seen: Option<SocketAddr>,
    is_v4: bool,
    random: u64,
) -> Option<SocketAddr> {
    let of_family = named.iter().find(|address| address.is_ipv4() == is_v4);
    let named = of_family.or_else(|| named.first()).copied();
    // Half of the time, in case that what the user named is true no more.
    if named.is_some() && random.is_multiple_of(2) { named } else { seen.or(named) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_user_named_goes_before_what_a_peer_says() {
        let address = |text: &str| -> SocketAddr { text.parse().expect("an address") };
        let named = [address("[2001:db8::1]:8333"), address("1.2.3.4:8333")];
        let seen = Some(address("5.6.7.8:9"));
        assert_eq!(choose(&named, None, true, 1), Some(named[1]));
        assert_eq!(choose(&named, None, false, 1), Some(named[0]));
        assert_eq!(choose(&named, seen, true, 0), Some(named[1]));
        assert_eq!(choose(&named, seen, true, 1), seen);
        assert_eq!(choose(&[], seen, true, 0), seen);
        assert_eq!(choose(&[], None, true, 0), None);
    }
}
