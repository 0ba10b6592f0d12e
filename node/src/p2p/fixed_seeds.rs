//! The last resort of who knows no address: those that are part of the program.
//!
//! As in Bitcoin Core (`ThreadOpenConnections` in its `net.cpp`): at once if nobody else is to be
//! asked, else when a minute has not led to any address of a family. Of IPv4 and IPv6 only: nobody
//! is dialled by the node itself in Tor and I2P, and who speaks CJDNS has to know a peer there.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use cofferdam_ibd::Network;
use cofferdam_ibd::params::ChainParams;

use super::addrman::Counts;
use super::manager::{PeerManager, random_nonce};
use super::net_addr::Host;
use super::seeds::WANTED_SERVICES;
use crate::config::{Net, ProxyConfig};

/// The addresses, by network.
const SEEDS: &str = include_str!("fixed_seeds.txt");

/// How long other sources have.
const PATIENCE: Duration = Duration::from_secs(60);

/// They are taken to have been seen one to two weeks ago: whoever is told of by peers goes first.
const AGE_MIN: u64 = 7 * 24 * 60 * 60;
const AGE_SPREAD: u64 = 7 * 24 * 60 * 60;

/// Who told of them, as far as the address manager keeps those apart who tell: nobody.
const SOURCE: Host = Host::Ip(IpAddr::V4(Ipv4Addr::UNSPECIFIED));

impl PeerManager {
    /// Begins to watch whether addresses are found, as far as the user wants it.
    pub(super) fn watch_for_addresses(&self) {
        if !self.config.automatic {
            return;
        }
        if self.config.fixed_seeds {
            self.outbound().fixed_seeds_from = Some(self.clock.now());
        } else {
            tracing::info!("Fixed seeds are disabled");
        }
        // The name of the thread that does this in Core: suites move the clock when they see it.
        tracing::info!("opencon thread start");
    }

    /// Takes the fixed seeds in, if it is time and there is need.
    pub(super) fn tick_fixed_seeds(&self) {
        let Some(begin) = self.outbound().fixed_seeds_from else { return };
        let config = &self.config;
        let now = self.clock.now();
        let is_late = now > begin + PATIENCE;
        let asks_nobody =
            !config.dns_seed && config.seed_nodes.is_empty() && self.added().is_empty();
        if !is_late && !asks_nobody {
            return;
        }
        // An address manager that has addresses of a family always will.
        self.outbound().fixed_seeds_from = None;
        let nets = lacking(&config.proxies, |net| {
            self.with_addresses(|manager| manager.counts(Some(net)))
        });
        if nets.is_empty() {
            return;
        }
        if is_late {
            tracing::info!(
                "Adding fixed seeds as 60 seconds have passed and addrman is empty for at least one reachable network"
            );
        } else {
            tracing::info!(
                "Adding fixed seeds as -dnsseed=0 (or IPv4/IPv6 connections are disabled via -onlynet) and neither -addnode nor -seednode are provided"
            );
        }
        let mut count = 0_u32;
        for address in seeds(self.chain.params()) {
            if Host::from(address.ip()).net().is_some_and(|net| nets.contains(&net)) {
                count += 1;
                self.add_fixed_seed(address, now.as_secs());
            }
        }
        tracing::info!("Added {count} fixed seeds from reachable networks.");
    }

    fn add_fixed_seed(&self, address: SocketAddr, now: u64) {
        tracing::debug!("Added hardcoded seed: {address}");
        let time = now.saturating_sub(AGE_MIN + random_nonce() % AGE_SPREAD);
        self.with_addresses(|manager| {
            manager.add((address.into(), WANTED_SERVICES, time), SOURCE, 0, now);
        });
    }
}

/// Returns the networks that are connected to and of which no address is known.
fn lacking(proxies: &ProxyConfig, known: impl Fn(Net) -> Counts) -> Vec<Net> {
    let reached = [Net::Ipv4, Net::Ipv6].into_iter().filter(|net| proxies.reaches(*net));
    reached.filter(|net| known(*net) == Counts::default()).collect()
}

/// Returns a network's seeds; regtest has none, nor has a signet of one's own.
fn seeds(params: &ChainParams) -> impl Iterator<Item = SocketAddr> {
    let public = ChainParams::new(params.network);
    let has_seeds = params.signet_challenge == public.signet_challenge;
    section(params.network).filter(move |_| has_seeds)
}

fn section(network: Network) -> impl Iterator<Item = SocketAddr> {
    let title = format!("[{network}]");
    let lines = SEEDS.lines().skip_while(move |line| *line != title).skip(1);
    lines.map_while(|line| line.parse().ok())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::is_routable;
    use super::*;

    #[test]
    fn seeds_of_a_family_are_needed_where_it_is_connected_to_and_unknown() {
        let lacking = |line: &str, known: Option<Net>| {
            let config = crate::config::tests::load(line, "").expect("is taken");
            lacking(&config.p2p.proxies, |net| Counts {
                new: usize::from(known == Some(net)),
                ..Counts::default()
            })
        };
        assert_eq!(lacking("", None), [Net::Ipv4, Net::Ipv6]);
        assert_eq!(lacking("", Some(Net::Ipv4)), [Net::Ipv6]);
        assert_eq!(lacking("-onlynet=ipv4", None), [Net::Ipv4]);
        assert_eq!(lacking("-onlynet=onion -onion=127.0.0.1:1", None), []);
    }

    #[test]
    fn every_public_network_has_seeds_that_can_be_reached() {
        let mut all = 0;
        for network in [Network::Mainnet, Network::Testnet3, Network::Testnet4, Network::Signet] {
            let seeds: Vec<SocketAddr> = seeds(&ChainParams::new(network)).collect();
            for net in [Net::Ipv4, Net::Ipv6] {
                let is_of = |seed: &&SocketAddr| Host::from(seed.ip()).net() == Some(net);
                let count = seeds.iter().filter(is_of).count();
                assert!(count >= 30, "{network}: {count} of {net:?}");
            }
            assert!(seeds.iter().all(|seed| is_routable(seed.ip()) && seed.port() != 0));
            let different: HashSet<&SocketAddr> = seeds.iter().collect();
            assert_eq!(different.len(), seeds.len(), "{network}");
            all += seeds.len();
        }
        // Nothing of the file is left unread.
        let lines = SEEDS.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let titles = lines.clone().filter(|line| line.ends_with(']'));
        assert_eq!(lines.count() - titles.count(), all);
        assert_eq!(seeds(&ChainParams::new(Network::Regtest)).count(), 0);
    }
}
