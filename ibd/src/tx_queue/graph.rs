//! Which entries depend on which.

use std::collections::{BTreeSet, HashSet};

use bitcoin::Txid;

use super::{CLUSTER_MAX, Node, TxQueue};

impl TxQueue {
    /// Returns the entries whose outputs an entry spends.
    #[must_use]
    pub fn parents(&self, txid: &Txid) -> Vec<Txid> {
        self.entries.get(txid).map(|node| self.ordered(&node.parents)).unwrap_or_default()
    }

    /// Returns the entries that spend an entry's outputs.
    #[must_use]
    pub fn children(&self, txid: &Txid) -> Vec<Txid> {
        self.entries.get(txid).map(|node| self.ordered(&node.children)).unwrap_or_default()
    }

    /// Returns the entries that an entry needs, without it, in the order of entering.
    #[must_use]
    pub fn ancestors(&self, txid: &Txid) -> Vec<Txid> {
        let mut found = self.reach([*txid], |node, next| next.extend(&node.parents));
        found.remove(txid);
        self.ordered(&found)
    }

    /// Returns the entries that need an entry, without it, in the order of entering.
    #[must_use]
    pub fn descendants(&self, txid: &Txid) -> Vec<Txid> {
        let mut found = self.reach([*txid], |node, next| next.extend(&node.children));
        found.remove(txid);
        self.ordered(&found)
    }

    /// Returns the entries that an entry hangs together with, itself among them, in the order of
    /// entering.
    #[must_use]
    pub fn cluster(&self, txid: &Txid) -> Vec<Txid> {
        self.ordered(&self.cluster_of([*txid]))
    }

    /// Whether a new entry with these parents would make too large a cluster.
    pub(super) fn is_cluster_full(&self, parents: &BTreeSet<Txid>) -> bool {
        self.cluster_of(parents.iter().copied()).len() >= CLUSTER_MAX
    }

    fn cluster_of(&self, from: impl IntoIterator<Item = Txid>) -> HashSet<Txid> {
        self.reach(from, |node, next| {
            next.extend(&node.parents);
            next.extend(&node.children);
        })
    }

    fn reach(
        &self,
        from: impl IntoIterator<Item = Txid>,
        neighbours: impl Fn(&Node, &mut Vec<Txid>),
    ) -> HashSet<Txid> {
        let mut found = HashSet::new();
        let mut next: Vec<Txid> = from.into_iter().collect();
        while let Some(txid) = next.pop() {
            let Some(node) = self.entries.get(&txid) else { continue };
            if found.insert(txid) {
                neighbours(node, &mut next);
            }
        }
        found
    }

    fn ordered<'a>(&self, txids: impl IntoIterator<Item = &'a Txid>) -> Vec<Txid> {
        let mut txids: Vec<Txid> = txids.into_iter().copied().collect();
        txids.sort_by_key(|txid| self.get(txid).map(|tx| tx.sequence));
        txids
    }
}
