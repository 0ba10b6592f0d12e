//! Reading the whole UTXO set on the caller's thread, while the chain goes on.

use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use bitcoin::OutPoint;
use cofferdam_ibd::{Chainstate, Coin, CoinScanner};

use crate::chain::{ChainHandle, Stopped};

/// How long a stop of the node may go unnoticed.
const HELD: Duration = Duration::from_millis(100);

/// Coins in their order, as they are read.
pub(crate) type Coins<'a> = dyn Iterator<Item = cofferdam_ibd::Result<(OutPoint, Coin)>> + 'a;

/// A set of coins that does not change: it is that of one moment.
#[derive(Debug)]
pub(crate) struct PinnedCoins {
    scanner: CoinScanner,
    /// As long as it is there, the chain's thread waits; not at a stop of the node.
    hold: Option<SyncSender<()>>,
}

impl PinnedCoins {
    /// Asks the chain's thread what `at_moment` asks, and for the set of the same moment.
    ///
    /// What is buffered is written first, as Bitcoin Core does before a scan: an iteration copies
    /// what is buffered.
    ///
    /// # Errors
    ///
    /// Returns [`Stopped`] if the node stops.
    pub(crate) fn take<T, F>(chain: &ChainHandle, at_moment: F) -> Result<(Self, T), Stopped>
    where
        T: Send + 'static,
        F: FnOnce(&Chainstate) -> T + Send + 'static,
    {
        let (ready, begun) = sync_channel(1);
        let (hold, held) = sync_channel::<()>(1);
        chain.send(move |worker| {
            worker.chainstate.store().checkpoint()?;
            let answer = (worker.chainstate.coin_scanner(), at_moment(&worker.chainstate));
            if ready.send(answer).is_ok() {
                // Nobody sends: this ends when the other side lets go, or with the node. The other
                // side may write to somebody who does not read.
                while !worker.is_ending()
                    && held.recv_timeout(HELD) == Err(RecvTimeoutError::Timeout)
                {}
            }
            Ok(())
        })?;
        let (scanner, answer) = begun.recv().map_err(|_| Stopped)?;
        Ok((Self { scanner, hold: Some(hold) }, answer))
    }

    /// Gives all coins, in their order, to `read`.
    ///
    /// # Errors
    ///
    /// Returns [`cofferdam_ibd::Error`] if the store cannot be read.
    pub(crate) fn read<T>(
        mut self,
        read: impl FnOnce(&mut Coins<'_>) -> T,
    ) -> cofferdam_ibd::Result<T> {
        let mut coins = self.scanner.coins()?;
        if self.scanner.is_of_one_moment() {
            self.hold = None;
        }
        Ok(read(&mut coins))
    }

    /// Gives all coins to `read`, and once more.
    ///
    /// # Errors
    ///
    /// As [`Self::read`].
    pub(crate) fn read_twice<T>(
        mut self,
        read: impl FnOnce(&mut Coins<'_>, &mut Coins<'_>) -> T,
    ) -> cofferdam_ibd::Result<T> {
        let (mut coins, mut again) = (self.scanner.coins()?, self.scanner.coins()?);
        if self.scanner.is_of_one_moment() {
            self.hold = None;
        }
        Ok(read(&mut coins, &mut again))
    }
}
