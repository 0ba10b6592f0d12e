//! Tables out of a file, as Bitcoin Core's `Unserialize` and `CheckAddrman` have it.

use std::collections::HashSet;
use std::sync::Arc;

use super::super::net_group::NetGroups;
use super::{AddrMan, Entry, PLACES_MAX};

/// What a file has.
#[derive(Debug, Default)]
pub(in crate::p2p) struct Saved {
    pub(in crate::p2p) key: [u8; 32],
    pub(in crate::p2p) new: Vec<Entry>,
    pub(in crate::p2p) tried: Vec<Entry>,
    /// Buckets of the new table, and which of the new entries is in each.
    pub(in crate::p2p) buckets: Vec<(u32, usize)>,
    /// Whether the buckets are ours: their number, and the map they follow from.
    pub(in crate::p2p) same_buckets: bool,
}

impl AddrMan {
    /// Takes what a file has.
    ///
    /// # Errors
    ///
    /// Returns Core's number for what contradicts itself.
    pub(in crate::p2p) fn restore(saved: Saved, groups: Arc<NetGroups>) -> Result<Self, i32> {
        /// Two entries have one address.
        const TWICE: i32 = -5;
        let mut manager = Self::new(saved.key, groups);
        // Those of networks not known are all the same, and no fault of the file.
        let is_valid = |entry: &&Entry| entry.address.host.is_valid();
        let invalid = saved.new.len() - saved.new.iter().filter(is_valid).count();
        for entry in saved.new.iter().filter(is_valid) {
            let entry = Entry { tried: false, places: 0, ..*entry };
            if manager.entries.insert(entry.address, entry).is_some() {
                return Err(TWICE);
            }
        }
        for entry in &saved.tried {
            let place = manager.tried_place(entry.address);
            let is_free = !manager.tried.contains_key(&place);
            if !entry.address.host.is_valid() || !is_free {
                continue;
            }
            let entry = Entry { tried: true, places: 0, ..*entry };
            if manager.entries.insert(entry.address, entry).is_some() {
                return Err(TWICE);
            }
            manager.tried.insert(place, entry.address);
        }
        for (bucket, index) in saved.buckets {
            if let Some(entry) = saved.new.get(index) {
                manager.place(entry, bucket, saved.same_buckets);
            }
        }
        let before = manager.entries.len();
        manager.entries.retain(|_, entry| entry.tried || entry.places > 0);
        let lost = invalid + before - manager.entries.len();
        let lost_tried = saved.tried.len().saturating_sub(manager.tried.len());
        if lost + lost_tried > 0 {
            tracing::debug!(
                "addrman lost {lost} new and {lost_tried} tried addresses due to collisions or invalid addresses"
            );
        }
        manager.check().map(|()| manager)
    }

    /// Puts an entry of the file into a bucket of the new table, or where it belongs now.
    fn place(&mut self, entry: &Entry, bucket: u32, same_buckets: bool) {
        let address = entry.address;
        let places = self.entries.get(&address).map_or(PLACES_MAX, |entry| entry.places);
        if !address.host.is_valid() || places >= PLACES_MAX {
            return;
        }
        let before = self.position(b'N', bucket, address);
        if same_buckets && !self.new.contains_key(&before) {
            self.put_new(before, address);
            return;
        }
        let place = self.new_place(address, entry.source);
        if !self.new.contains_key(&place) {
            self.put_new(place, address);
        }
    }

    /// Looks whether the tables fit together.
    ///
    /// # Errors
    ///
    /// Returns Core's number for what does not.
    pub(in crate::p2p) fn check(&self) -> Result<(), i32> {
        if self.tried.len() + self.counts(None).new != self.entries.len() {
            return Err(-7);
        }
        for entry in self.entries.values() {
            match entry {
                Entry { tried: true, last_success: 0, .. } => return Err(-1),
                Entry { tried: true, places: 1.., .. } => return Err(-2),
                Entry { tried: false, places, .. } if *places > PLACES_MAX => return Err(-3),
                Entry { tried: false, places: 0, .. } => return Err(-4),
                _ => {}
            }
        }
        for (place, address) in &self.tried {
            if self.entries.get(address).is_none_or(|entry| !entry.tried) {
                return Err(-11);
            }
            if self.tried_place(*address) != *place {
                return Err(-17);
            }
        }
        let mut placed = HashSet::new();
        for (place, address) in &self.new {
            if self.entries.get(address).is_none_or(|entry| entry.tried) {
                return Err(-12);
            }
            if self.position(b'N', place.0, *address) != *place {
                return Err(-19);
            }
            placed.insert(address);
        }
        if placed.len() != self.counts(None).new {
            return Err(-15);
        }
        if self.key == [0; 32] { Err(-16) } else { Ok(()) }
    }
}
