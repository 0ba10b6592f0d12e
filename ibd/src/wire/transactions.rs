//! `Transactions`: where everything lies in the bytes of a block or of one transaction.
//!
//! Nothing is copied and nothing is allocated per transaction: three tables say where transactions,
//! inputs and outputs are, and [`TxRef`] reads them. The format is that of Bitcoin Core's
//! `primitives/transaction.h` (`UnserializeTransaction`), faults included.
//!
//! Invariants: all offsets are below the number of bytes, which is at most 32 MiB; the inputs and outputs
//! of a transaction follow those of the one before it.

use bitcoin::block::Header;
use bitcoin::consensus::encode;

use super::cursor::{Cursor, DecodeError, SIZE_MAX};
use super::view::TxRef;

/// Fewest bytes of a transaction: version, no inputs, no outputs, lock time.
const TX_LEN_MIN: usize = 10;
/// Fewest bytes of an input: outpoint, an empty script, sequence.
const INPUT_LEN_MIN: usize = 41;
/// Fewest bytes of an output: amount, an empty script.
const OUTPUT_LEN_MIN: usize = 9;
/// Bit of the flags byte that announces witnesses.
const WITNESS_FLAG: u8 = 1;

/// Where one transaction lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct TxSpan {
    /// The version's first byte.
    pub(super) start: u32,
    /// The number of inputs: after version, marker and flag.
    pub(super) body: u32,
    /// After the last output.
    pub(super) body_end: u32,
    /// After the lock time.
    pub(super) end: u32,
    /// In the table of inputs.
    pub(super) inputs: [u32; 2],
    /// In the table of outputs.
    pub(super) outputs: [u32; 2],
    pub(super) has_witness: bool,
}

/// Where one input lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct InputSpan {
    /// The outpoint's first byte.
    pub(super) outpoint: u32,
    pub(super) script: u32,
    pub(super) script_len: u32,
    /// The number of items on the witness stack; 0 if there is none.
    pub(super) witness: u32,
}

/// Where one output lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct OutputSpan {
    /// In satoshis; not checked.
    pub(super) value: u64,
    pub(super) script: u32,
    pub(super) script_len: u32,
}

/// Transactions within the bytes they came in.
#[derive(Clone, Debug)]
pub struct Transactions {
    pub(super) bytes: Vec<u8>,
    pub(super) txs: Vec<TxSpan>,
    pub(super) inputs: Vec<InputSpan>,
    pub(super) outputs: Vec<OutputSpan>,
}

impl Transactions {
    /// Finds the transactions of a block. What follows it is cut off, as Bitcoin Core leaves it
    /// unread: whoever adds bytes to a block changes nothing.
    ///
    /// # Errors
    ///
    /// Returns what is wrong where, if Bitcoin Core could not read the block.
    pub fn of_block(mut bytes: Vec<u8>) -> Result<(Header, Self), DecodeError> {
        let mut parser = Parser::new(&bytes)?;
        let header = parser.cursor.take::<80>()?;
        let header = encode::deserialize(&header).map_err(|_| parser.cursor.error("no header"))?;
        let count = parser.cursor.size()?;
        parser.reserve(count);
        for _ in 0..count {
            parser.transaction()?;
        }
        let len = parser.cursor.offset() as usize;
        let (txs, inputs, outputs) = parser.tables();
        bytes.truncate(len);
        Ok((header, Self { bytes, txs, inputs, outputs }))
    }

    /// Finds the parts of one transaction, which has to take up all of `bytes`.
    ///
    /// # Errors
    ///
    /// Returns what is wrong where, if Bitcoin Core could not read the transaction.
    pub fn of_transaction(bytes: Vec<u8>) -> Result<Self, DecodeError> {
        let mut parser = Parser::new(&bytes)?;
        parser.transaction()?;
        if parser.cursor.remaining() > 0 {
            return Err(parser.cursor.error("bytes after the end"));
        }
        let (txs, inputs, outputs) = parser.tables();
        Ok(Self { bytes, txs, inputs, outputs })
    }

    /// Returns the bytes of the whole.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the number of transactions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.txs.len()
    }

    /// Returns whether there is no transaction.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.txs.is_empty()
    }

    /// Returns the number of inputs of all transactions.
    #[must_use]
    pub fn input_count(&self) -> usize {
        self.inputs.len()
    }

    /// Returns the number of outputs of all transactions.
    #[must_use]
    pub fn output_count(&self) -> usize {
        self.outputs.len()
    }

    /// Returns the transaction with that index.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<TxRef<'_>> {
        Some(TxRef { all: self, span: self.txs.get(index)? })
    }

    /// Returns the first transaction: the coinbase, if this is a block.
    #[must_use]
    pub fn first(&self) -> Option<TxRef<'_>> {
        self.get(0)
    }

    /// Iterates over the transactions.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = TxRef<'_>> + DoubleEndedIterator {
        self.txs.iter().map(|span| TxRef { all: self, span })
    }

    /// Returns the memory held, in bytes: the block's own and about as much for the tables.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.bytes.capacity()
            + self.txs.capacity() * size_of::<TxSpan>()
            + self.inputs.capacity() * size_of::<InputSpan>()
            + self.outputs.capacity() * size_of::<OutputSpan>()
    }
}

/// The tables, as they grow.
struct Parser<'a> {
    cursor: Cursor<'a>,
    txs: Vec<TxSpan>,
    inputs: Vec<InputSpan>,
    outputs: Vec<OutputSpan>,
}

type Tables = (Vec<TxSpan>, Vec<InputSpan>, Vec<OutputSpan>);

impl<'a> Parser<'a> {
    fn new(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        if bytes.len() > SIZE_MAX as usize {
            return Err(DecodeError { what: "more than 32 MiB", offset: 0 });
        }
        let cursor = Cursor::new(bytes);
        Ok(Self { cursor, txs: Vec::new(), inputs: Vec::new(), outputs: Vec::new() })
    }

    /// Makes room for a block of `count` transactions of the usual kind, but for no more than the
    /// bytes can hold.
    fn reserve(&mut self, count: u32) {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let remaining = self.cursor.remaining();
        self.txs.reserve(count.min(remaining / TX_LEN_MIN));
        // An input of a block takes 150 to 200 bytes, an output belongs to each.
        self.inputs.reserve(remaining / 160);
        self.outputs.reserve(remaining / 160);
    }

    fn transaction(&mut self) -> Result<(), DecodeError> {
        let start = self.cursor.offset();
        self.cursor.skip(4)?;
        let mut body = self.cursor.offset();
        let (first_input, first_output) = (self.inputs.len(), self.outputs.len());
        let mut flags = 0;
        self.inputs()?;
        if self.inputs.len() == first_input {
            // No input is the marker of what comes next: flags, and if there are any, the rest.
            [flags] = self.cursor.take::<1>()?;
            if flags != 0 {
                body = self.cursor.offset();
                self.inputs()?;
                self.outputs()?;
            }
        } else {
            self.outputs()?;
        }
        let body_end = self.cursor.offset();
        let has_witness = flags & WITNESS_FLAG != 0;
        if has_witness {
            self.witnesses(first_input)?;
        }
        if flags & !WITNESS_FLAG != 0 {
            return Err(self.cursor.error("Unknown transaction optional data"));
        }
        self.cursor.skip(4)?;
        let end = self.cursor.offset();
        let inputs = [index(first_input), index(self.inputs.len())];
        let outputs = [index(first_output), index(self.outputs.len())];
        self.txs.push(TxSpan { start, body, body_end, end, inputs, outputs, has_witness });
        Ok(())
    }

    fn inputs(&mut self) -> Result<(), DecodeError> {
        let count = self.count(INPUT_LEN_MIN)?;
        for _ in 0..count {
            let outpoint = self.cursor.offset();
            self.cursor.skip(36)?;
            let script_len = self.cursor.size()?;
            let script = self.cursor.offset();
            self.cursor.skip(script_len)?;
            self.cursor.skip(4)?;
            self.inputs.push(InputSpan { outpoint, script, script_len, witness: 0 });
        }
        Ok(())
    }

    fn outputs(&mut self) -> Result<(), DecodeError> {
        let count = self.count(OUTPUT_LEN_MIN)?;
        for _ in 0..count {
            let value = u64::from_le_bytes(self.cursor.take()?);
            let script_len = self.cursor.size()?;
            let script = self.cursor.offset();
            self.cursor.skip(script_len)?;
            self.outputs.push(OutputSpan { value, script, script_len });
        }
        Ok(())
    }

    /// Reads a witness stack for each input; one of them has to have an item.
    fn witnesses(&mut self, first_input: usize) -> Result<(), DecodeError> {
        let mut any = false;
        for input in self.inputs.iter_mut().skip(first_input) {
            let witness = self.cursor.offset();
            let items = self.cursor.size()?;
            for _ in 0..items {
                let len = self.cursor.size()?;
                self.cursor.skip(len)?;
            }
            if items > 0 {
                input.witness = witness;
                any = true;
            }
        }
        if any { Ok(()) } else { Err(self.cursor.error("Superfluous witness record")) }
    }

    /// Reads a number of things of at least `len_min` bytes each: no loop is longer than the bytes.
    fn count(&mut self, len_min: usize) -> Result<u32, DecodeError> {
        let count = self.cursor.size()?;
        let fits = usize::try_from(count).is_ok_and(|n| n <= self.cursor.remaining() / len_min);
        if fits { Ok(count) } else { Err(self.cursor.error(DecodeError::END_OF_DATA)) }
    }

    fn tables(self) -> Tables {
        (self.txs, self.inputs, self.outputs)
    }
}

/// A table has fewer entries than the bytes are long, which is at most 32 MiB.
fn index(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{block, coinbase, outpoint, payment};
    use bitcoin::consensus::serialize;
    use bitcoin::hashes::Hash as _;
    use bitcoin::hex::FromHex as _;
    use bitcoin::{Transaction, TxOut};

    /// Everything that can be read is what the `bitcoin` crate reads.
    fn assert_reads(tx: TxRef<'_>, expected: &Transaction) {
        assert_eq!(tx.version(), expected.version.0);
        assert_eq!(tx.lock_time(), expected.lock_time.to_consensus_u32());
        assert_eq!(tx.bytes(), serialize(expected));
        assert_eq!(tx.base_size(), expected.base_size());
        assert_eq!(tx.total_size(), expected.total_size());
        assert_eq!(tx.txid(), expected.compute_txid());
        assert_eq!(tx.wtxid(), expected.compute_wtxid().to_byte_array());
        assert_eq!(tx.is_coinbase(), expected.is_coinbase());
        assert_eq!(
            (tx.input_count(), tx.output_count()),
            (expected.input.len(), expected.output.len())
        );
        for (input, expected) in tx.inputs().zip(&expected.input) {
            assert_eq!(input.outpoint(), expected.previous_output);
            assert_eq!(input.script_sig(), expected.script_sig.as_script());
            assert_eq!(input.sequence(), expected.sequence.to_consensus_u32());
            let items: Vec<&[u8]> = input.witness().items().collect();
            assert_eq!(items, expected.witness.iter().collect::<Vec<_>>());
            assert_eq!(input.witness().last(), expected.witness.last());
            assert_eq!(input.witness().is_empty(), expected.witness.is_empty());
        }
        for (output, expected) in tx.outputs().zip(&expected.output) {
            assert_eq!(output.value, expected.value.to_sat());
            assert_eq!(output.script, expected.script_pubkey.as_script());
            assert_eq!(TxOut::from(output), *expected);
        }
    }

    fn with_witness() -> Transaction {
        let mut tx = payment(&[outpoint(1), outpoint(2), outpoint(3)], &[1, 2]);
        tx.input[1].witness.push([7; 300]);
        tx.input[1].witness.push([]);
        tx.input[2].witness.push([8]);
        tx
    }

    #[test]
    fn a_block_is_read_as_by_the_bitcoin_crate() {
        let block = block(vec![coinbase(1, 50), payment(&[outpoint(9)], &[]), with_witness()]);
        let (header, txs) = Transactions::of_block(serialize(&block)).unwrap();
        assert_eq!(header, block.header);
        assert_eq!(txs.len(), 3);
        assert_eq!((txs.input_count(), txs.output_count()), (5, 3));
        for (tx, expected) in txs.iter().zip(&block.txdata) {
            assert_reads(tx, expected);
        }
    }

    #[test]
    fn torn_bytes_are_an_error_and_what_follows_a_block_is_cut_off() {
        let bytes = serialize(&block(vec![coinbase(1, 50), with_witness()]));
        for len in 0..bytes.len() {
            assert!(Transactions::of_block(bytes[..len].to_vec()).is_err(), "{len}");
        }
        let (_, longer) = Transactions::of_block([bytes.as_slice(), &[0; 99]].concat()).unwrap();
        assert_eq!(longer.bytes(), bytes);
        let tx = serialize(&with_witness());
        assert!(Transactions::of_transaction(tx.clone()).is_ok());
        assert!(Transactions::of_transaction([tx.as_slice(), &[0]].concat()).is_err());
    }

    #[track_caller]
    fn parse(hex: &str) -> Result<Transactions, &'static str> {
        Transactions::of_transaction(Vec::from_hex(hex).unwrap()).map_err(|error| error.what)
    }

    /// `UnserializeTransaction`: what it makes of an empty list of inputs.
    #[test]
    fn markers_and_flags_are_cores() {
        // Neither inputs nor outputs: readable, and for CheckTransaction to refuse.
        let empty = parse("01000000000000000000").unwrap();
        let tx = empty.first().unwrap();
        assert_eq!((tx.input_count(), tx.output_count(), tx.base_size()), (0, 0, 10));
        // Flags without a witness, and unknown ones.
        let rest = "00000000";
        assert_eq!(
            parse(&format!("0100000000010000{rest}")).unwrap_err(),
            "Superfluous witness record"
        );
        let unknown = parse(&format!("0100000000020000{rest}"));
        assert_eq!(unknown.unwrap_err(), "Unknown transaction optional data");
        // No input, an output: only with flags.
        let output = "010000000000000000016a";
        assert_eq!(
            parse(&format!("010000000002 00{output}{rest}").replace(' ', "")).unwrap_err(),
            "Unknown transaction optional data"
        );
        assert!(parse(&format!("0100000000{output}{rest}")).is_err());
    }

    #[test]
    fn a_number_that_the_bytes_cannot_hold_is_not_believed() {
        assert_eq!(parse("01000000fe00000002").unwrap_err(), "end of data");
        assert_eq!(parse("01000000fd0010").unwrap_err(), "end of data");
    }
}
