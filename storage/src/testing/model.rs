//! `Model`: the state that any database must have after given batches.

use std::collections::BTreeMap;

use crate::batch::Batch;
use crate::database::{Database, KeyRange};
use crate::error::Result;

/// All entries by tree id and key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Model {
    entries: BTreeMap<(u8, Vec<u8>), Vec<u8>>,
}

impl Model {
    /// Applies a batch.
    pub fn apply(&mut self, batch: &Batch) {
        for op in batch.ops() {
            let key = (op.tree_id(), op.key().to_vec());
            match op.value() {
                Some(value) => self.entries.insert(key, value.to_vec()),
                None => self.entries.remove(&key),
            };
        }
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, tree_id: u8, key: &[u8]) -> Option<&Vec<u8>> {
        self.entries.get(&(tree_id, key.to_vec()))
    }

    /// Leaves a tree out.
    #[must_use]
    pub fn without(mut self, tree_id: u8) -> Self {
        self.entries.retain(|(id, _), _| *id != tree_id);
        self
    }

    /// The keys of a tree, in order.
    pub fn keys(&self, tree_id: u8) -> impl Iterator<Item = &[u8]> {
        self.entries.keys().filter(move |(id, _)| *id == tree_id).map(|(_, key)| key.as_slice())
    }

    /// Reads a whole database, all its trees but the reserved one.
    ///
    /// # Errors
    ///
    /// If an iteration fails.
    pub fn read(database: &dyn Database) -> Result<Self> {
        let mut entries = BTreeMap::new();
        for tree in database.trees().iter().filter(|tree| tree.id != 0) {
            for entry in database.range(*tree, KeyRange::all())? {
                let (key, value) = entry?;
                entries.insert((tree.id, key), value);
            }
        }
        Ok(Self { entries })
    }
}

/// Checks that a database holds just what the model holds, by iteration and by `get`.
///
/// # Panics
///
/// If it does not.
pub fn assert_same(database: &dyn Database, model: &Model, label: &str) {
    let read = Model::read(database).expect("the database can be iterated");
    assert_eq!(&read, model, "{label}: iteration");
    for tree in database.trees().iter().filter(|tree| tree.id != 0) {
        for key in model.keys(tree.id) {
            let value = database.get(*tree, key).expect("the database can be read");
            assert_eq!(value.as_ref(), model.get(tree.id, key), "{label}: get {key:?}");
        }
    }
}
