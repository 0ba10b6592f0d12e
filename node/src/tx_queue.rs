//! The transaction queue beside the chain: one writer, the chain's thread; everybody reads.
//!
//! Invariants:
//! - only the chain's thread changes the queue: what it checked against chain and queue still holds
//!   when it writes;
//! - readers are kept out for the writing alone, never while blocks or coins are read;
//! - the queue has followed the tip before the tip's move is told.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use bitcoin::{Transaction, Txid};
use cofferdam_ibd::{Chainstate, HeaderRef, QueuedTx, TxQueue, TxRejection};

use crate::chain::Worker;

/// The queue, shared.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedQueue(Arc<RwLock<TxQueue>>);

impl SharedQueue {
    /// Returns the queue for a look at it: let it go before anything that waits.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, TxQueue> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the queue; for the chain's thread, and for the start.
    pub(crate) fn write<T>(&self, change: impl FnOnce(&mut TxQueue) -> T) -> T {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Follows the tip, which was `from` before.
    pub(crate) fn follow(
        &self,
        chainstate: &Chainstate,
        from: HeaderRef,
        now: u32,
    ) -> cofferdam_ibd::Result<()> {
        let mut queue = self.read().clone();
        queue.follow(chainstate, from, now)?;
        self.write(|shared| *shared = queue);
        Ok(())
    }
}

impl Worker {
    /// Checks a transaction, and adds it to the queue if it is welcome too.
    pub(crate) fn accept_transaction(
        &mut self,
        tx: Transaction,
        is_welcome: impl FnOnce(&QueuedTx) -> Result<(), TxRejection>,
    ) -> cofferdam_ibd::Result<Result<Arc<QueuedTx>, TxRejection>> {
        self.accept_transaction_of(tx, self.clock.seconds(), is_welcome)
    }

    /// Does that for a transaction that came at `time`.
    pub(crate) fn accept_transaction_of(
        &mut self,
        tx: Transaction,
        time: u32,
        is_welcome: impl FnOnce(&QueuedTx) -> Result<(), TxRejection>,
    ) -> cofferdam_ibd::Result<Result<Arc<QueuedTx>, TxRejection>> {
        let checked = self.queue().read().test(&self.chainstate, tx, time)?;
        Ok(checked.and_then(|tx| {
            is_welcome(&tx)?;
            Ok(self.queue().write(|queue| queue.add(tx)))
        }))
    }

    /// Pretends a fee; `false` if there are too many pretended ones.
    pub(crate) fn prioritise(&mut self, txid: Txid, delta: i64) -> bool {
        self.queue().write(|queue| queue.prioritise(txid, delta))
    }
}
