//! Who may not connect: bans of the user, kept in `banlist.json`, and discouraged addresses.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cofferdam_storage::{StdFileSystem, write_atomic};
use serde_json::{Value, json};

use super::subnet::{Subnet, unmapped};

/// The version of an entry of the file (Bitcoin Core's `CBanEntry::CURRENT_VERSION`).
const ENTRY_VERSION: i64 = 1;

/// Most addresses in each of the two halves of what is discouraged; with one half full, the other
/// is forgotten. As many as Core's filter has.
const DISCOURAGED_HALF_MAX: usize = 25_000;

/// A ban, by the node's clock in seconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ban {
    /// When it was made.
    pub(crate) created: i64,
    /// When it ends.
    pub(crate) until: i64,
}

#[derive(Debug, Default)]
struct Lists {
    bans: BTreeMap<Subnet, Ban>,
    recent: HashSet<IpAddr>,
    older: HashSet<IpAddr>,
}

/// Bans and discouraged addresses.
#[derive(Debug)]
pub(crate) struct BanList {
    lists: Mutex<Lists>,
    /// The file; who has it writes what the list is then, so that no older one comes last.
    file: Mutex<PathBuf>,
}

impl BanList {
    /// Reads the file; one that is missing or damaged is made anew.
    pub(crate) fn open(path: PathBuf, now: i64) -> Self {
        let read = std::fs::read(&path).ok();
        let bans = match read.as_deref().map(read_bans) {
            Some(Ok(bans)) => bans,
            failed => {
                if let Some(Err(reason)) = failed {
                    tracing::warn!("Cannot load banlist {}: {reason}", path.display());
                }
                tracing::info!("Recreating the banlist database");
                BTreeMap::new()
            }
        };
        let lists = Mutex::new(Lists { bans, ..Lists::default() });
        let list = Self { lists, file: Mutex::new(path) };
        let _ = list.sweep(now);
        list.write();
        list
    }

    /// Returns the bans that hold.
    pub(crate) fn bans(&self, now: i64) -> BTreeMap<Subnet, Ban> {
        let (bans, changed) = self.sweep(now);
        if changed {
            self.write();
        }
        bans
    }

    fn sweep(&self, now: i64) -> (BTreeMap<Subnet, Ban>, bool) {
        let mut lists = self.lists();
        let before = lists.bans.len();
        lists.bans.retain(|subnet, ban| {
            let holds = now <= ban.until;
            if !holds {
                tracing::debug!("Removed banned node address/subnet: {subnet}");
            }
            holds
        });
        (lists.bans.clone(), lists.bans.len() < before)
    }

    /// Returns whether an address is banned.
    pub(crate) fn is_banned(&self, ip: IpAddr, now: i64) -> bool {
        self.lists().bans.iter().any(|(subnet, ban)| now < ban.until && subnet.contains(ip))
    }

    /// Returns whether this very range is banned.
    pub(crate) fn is_range_banned(&self, subnet: &Subnet, now: i64) -> bool {
        self.lists().bans.get(subnet).is_some_and(|ban| now < ban.until)
    }

    /// Bans a range; a longer ban stays.
    pub(crate) fn ban(&self, subnet: Subnet, until: i64, now: i64) {
        let mut lists = self.lists();
        let longer = lists.bans.get(&subnet).is_some_and(|ban| ban.until >= until);
        if !longer {
            lists.bans.insert(subnet, Ban { created: now, until });
            drop(lists);
            let _ = self.sweep(now);
            self.write();
        }
    }

    /// Lifts a ban; returns false if there is none.
    pub(crate) fn unban(&self, subnet: &Subnet, now: i64) -> bool {
        let is_there = self.lists().bans.remove(subnet).is_some();
        if is_there {
            let _ = self.sweep(now);
            self.write();
        }
        is_there
    }

    /// Lifts all bans.
    pub(crate) fn clear(&self) {
        self.lists().bans.clear();
        self.write();
    }

    /// Notes that a peer at this address misbehaved.
    pub(crate) fn discourage(&self, ip: IpAddr) {
        let mut lists = self.lists();
        if lists.recent.len() >= DISCOURAGED_HALF_MAX {
            lists.older = std::mem::take(&mut lists.recent);
        }
        lists.recent.insert(unmapped(ip));
    }

    /// Returns whether a peer at this address misbehaved.
    pub(crate) fn is_discouraged(&self, ip: IpAddr) -> bool {
        let (lists, ip) = (self.lists(), unmapped(ip));
        lists.recent.contains(&ip) || lists.older.contains(&ip)
    }

    fn write(&self) {
        let path = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let bans = self.lists().bans.clone();
        let entry = |(subnet, ban): (&Subnet, &Ban)| {
            json!({
                "version": ENTRY_VERSION,
                "ban_created": ban.created,
                "banned_until": ban.until,
                "address": subnet.to_string(),
            })
        };
        let file = json!({"banned_nets": bans.iter().map(entry).collect::<Vec<_>>()});
        let text = format!("{file:#}\n");
        if let Err(error) = write_atomic(&StdFileSystem, &path, text.as_bytes()) {
            tracing::warn!("Unable to write {}: {error}", path.display());
        }
    }

    fn lists(&self) -> MutexGuard<'_, Lists> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn read_bans(bytes: &[u8]) -> Result<BTreeMap<Subnet, Ban>, String> {
    let file: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let entries = file.get("banned_nets").and_then(Value::as_array).ok_or("no banned_nets")?;
    let mut bans = BTreeMap::new();
    for entry in entries {
        let number = |name: &str| entry.get(name).and_then(Value::as_i64);
        let number = |name: &str| number(name).ok_or_else(|| format!("no {name}"));
        if number("version")? != ENTRY_VERSION {
            tracing::info!("Dropping entry with unknown version from ban list");
            continue;
        }
        let address = entry.get("address").and_then(Value::as_str).ok_or("no address")?;
        let Some(subnet) = Subnet::parse(address) else {
            tracing::info!("Dropping entry with unparseable address or subnet from ban list");
            continue;
        };
        let ban = Ban { created: number("ban_created")?, until: number("banned_until")? };
        bans.insert(subnet, ban);
    }
    Ok(bans)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        Subnet::parse(text).unwrap()
    }

    #[test]
    fn bans_outlive_the_node_until_they_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("banlist.json");
        let list = BanList::open(path.clone(), 0);
        list.ban(subnet("127.0.0.0/24"), 100, 10);
        list.ban(subnet("192.168.0.1"), 20, 10);
        list.ban(subnet("127.0.0.0/24"), 50, 11);
        assert!(list.is_banned("127.0.0.7".parse().unwrap(), 99));
        assert!(!list.is_banned("127.0.0.7".parse().unwrap(), 100));
        drop(list);
        let list = BanList::open(path.clone(), 30);
        let bans: Vec<_> = list.bans(30).into_iter().collect();
        assert_eq!(bans, [(subnet("127.0.0.0/24"), Ban { created: 10, until: 100 })]);
        assert!(!list.unban(&subnet("127.0.0.1"), 30));
        assert!(list.unban(&subnet("127.0.0.0/24"), 30));
        assert!(BanList::open(path, 30).bans(30).is_empty());
    }

    #[test]
    fn the_file_has_all_bans_though_several_were_made_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("banlist.json");
        let list = BanList::open(path.clone(), 0);
        std::thread::scope(|scope| {
            for first in 1..=8 {
                let list = &list;
                scope.spawn(move || {
                    for last in 0..8 {
                        list.ban(subnet(&format!("{first}.2.3.{last}")), 100, 10);
                    }
                });
            }
        });
        assert_eq!(read_bans(&std::fs::read(path).unwrap()).unwrap(), list.bans(10));
        assert_eq!(list.bans(10).len(), 64);
    }

    #[test]
    fn the_file_is_cores_and_a_damaged_one_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("banlist.json");
        let text = r#"{"_warning_": "x", "banned_nets": [
            {"version": 1, "ban_created": 5, "banned_until": 9, "address": "::1/128"},
            {"version": 2, "ban_created": 5, "banned_until": 9, "address": "::2/128"},
            {"version": 1, "ban_created": 5, "banned_until": 9, "address": "nonsense"}]}"#;
        std::fs::write(&path, text).unwrap();
        assert_eq!(BanList::open(path.clone(), 6).bans(6).len(), 1);
        std::fs::write(&path, "{").unwrap();
        assert!(BanList::open(path.clone(), 6).bans(6).is_empty());
        assert_eq!(std::fs::read_to_string(path).unwrap(), "{\n  \"banned_nets\": []\n}\n");
    }

    /// Bitcoin Core's list of banned addresses grew with each peer that misbehaved.
    #[test]
    fn cve_2020_14198_discouraged_addresses_are_bounded_and_the_oldest_go_first() {
        let dir = tempfile::tempdir().unwrap();
        let list = BanList::open(dir.path().join("banlist.json"), 0);
        let address = |n: usize| IpAddr::from(u32::try_from(n).unwrap().to_be_bytes());
        for n in 0..=2 * DISCOURAGED_HALF_MAX {
            list.discourage(address(n));
        }
        assert!(!list.is_discouraged(address(0)));
        assert!(list.is_discouraged(address(DISCOURAGED_HALF_MAX)));
        let lists = list.lists();
        assert!(lists.recent.len() + lists.older.len() <= 2 * DISCOURAGED_HALF_MAX);
    }
}
