//! The messages that carry addresses: `addr`, and `addrv2` (BIP-0155).

use bitcoin::consensus::encode::{VarInt, serialize};

use super::net_addr::{Host, NodeAddr};
use super::payload::{number, size, take};

/// Most addresses of a message (Bitcoin Core's `MAX_ADDR_TO_SEND`).
pub(crate) const ADDRESSES_MAX: usize = 1000;

/// A node that somebody tells of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Told {
    /// When it was last heard of, in seconds since 1970.
    pub(crate) time: u64,
    /// What it is said to offer.
    pub(crate) services: u64,
    /// Where it listens; none: in a network that is not known.
    pub(crate) address: Option<NodeAddr>,
}

/// A list of addresses as it came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Addresses {
    /// The list.
    List(Vec<Told>),
    /// It has so many that it is refused.
    TooMany(u64),
}

/// Encodes a list; in the old form if the other end does not know the new one, which leaves out what
/// has no room there.
pub(crate) fn encode(list: &[Told], v2: bool) -> Vec<u8> {
    let fits = |told: &&Told| told.address.is_some_and(|address| address.host.fits(v2));
    let list: Vec<&Told> = list.iter().filter(fits).collect();
    let mut out = serialize(&VarInt::from(list.len()));
    for told in list {
        let Some(address) = told.address else { continue };
        out.extend(u32::try_from(told.time).unwrap_or(u32::MAX).to_le_bytes());
        if v2 {
            out.extend(serialize(&VarInt(told.services)));
            address.host.encode_v2(&mut out);
        } else {
            out.extend(told.services.to_le_bytes());
            address.host.encode_v1(&mut out);
        }
        out.extend(address.port.to_be_bytes());
    }
    out
}

/// Decodes a list.
///
/// # Errors
///
/// Returns what is wrong with it, in Bitcoin Core's words.
pub(crate) fn decode(mut input: &[u8], v2: bool) -> Result<Addresses, String> {
    let input = &mut input;
    let count = size(input)?;
    let mut list = Vec::new();
    for number in 0..count {
        let told = if v2 { decode_v2(input)? } else { decode_v1(input)? };
        if usize::try_from(number).is_ok_and(|number| number < ADDRESSES_MAX) {
            list.push(told);
        }
    }
    let is_few = usize::try_from(count).is_ok_and(|count| count <= ADDRESSES_MAX);
    Ok(if is_few { Addresses::List(list) } else { Addresses::TooMany(count) })
}

fn decode_v1(input: &mut &[u8]) -> Result<Told, String> {
    let time = u64::from(u32::from_le_bytes(take(input)?));
    let services = u64::from_le_bytes(take(input)?);
    let host = Host::decode_v1(input)?;
    let port = u16::from_be_bytes(take(input)?);
    Ok(Told { time, services, address: Some(NodeAddr { host, port }) })
}

fn decode_v2(input: &mut &[u8]) -> Result<Told, String> {
    let time = u64::from(u32::from_le_bytes(take(input)?));
    let services = number(input)?;
    let host = Host::decode_v2(input)?;
    let port = u16::from_be_bytes(take(input)?);
    Ok(Told { time, services, address: host.map(|host| NodeAddr { host, port }) })
}

#[cfg(test)]
mod tests {
    use super::super::payload::END_OF_DATA;
    use super::*;

    fn told(address: &str) -> Told {
        let address: std::net::SocketAddr = address.parse().expect("an address");
        let address = Some(address.into());
        Told { time: 1_800_000_000, services: 9, address }
    }

    #[test]
    fn both_forms_carry_addresses_of_ipv4_and_ipv6() {
        let list = vec![told("1.2.3.4:8333"), told("[2a00::7]:18444")];
        for v2 in [false, true] {
            assert_eq!(decode(&encode(&list, v2), v2), Ok(Addresses::List(list.clone())));
        }
        // Ten of IPv4 take as many bytes as Bitcoin Core's tests expect.
        let ten = vec![told("123.123.123.1:8333"); 10];
        assert_eq!((encode(&ten, false).len(), encode(&ten, true).len()), (301, 131));
    }

    #[test]
    fn faults_are_named_in_cores_words() {
        let end = |v2| decode(&[], v2).err();
        assert_eq!(end(true).as_deref(), Some(END_OF_DATA));
        assert_eq!(end(false).as_deref(), Some(END_OF_DATA));
        let mut long = vec![1, 0, 0, 0, 0, 0, 1, 0xfd, 1, 2];
        long.extend([0; 515]);
        assert_eq!(decode(&long, true).err().as_deref(), Some("Address too long: 513 > 512"));
        let mut short = vec![1, 0, 0, 0, 0, 0, 1, 5];
        short.extend([0; 7]);
        let text = "BIP155 IPv4 address with length 5 (should be 4)";
        assert_eq!(decode(&short, true).err().as_deref(), Some(text));
    }

    #[test]
    fn addresses_of_unknown_networks_are_passed_over() {
        let mut bytes = vec![2, 1, 2, 3, 4, 9, 0x99, 3, 7, 7, 7, 0, 1];
        bytes.extend(&encode(&[told("9.9.9.9:8333")], true)[1..]);
        let Ok(Addresses::List(list)) = decode(&bytes, true) else { panic!("refused") };
        assert_eq!(list[0].address, None);
        assert_eq!(list[1], told("9.9.9.9:8333"));
    }

    #[test]
    fn more_than_a_thousand_are_refused_and_a_claim_takes_no_memory() {
        for v2 in [false, true] {
            let many = encode(&vec![told("1.2.3.4:8333"); 1010], v2);
            assert_eq!(decode(&many, v2), Ok(Addresses::TooMany(1010)));
            assert!(decode(&[0xff; 9], v2).is_err());
        }
    }
}
