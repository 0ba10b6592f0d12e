//! `TxRef` and its parts: one transaction, read where it lies.

use bitcoin::hashes::Hash as _;
use bitcoin::{Amount, OutPoint, Script, TxOut, Txid};

use super::cursor::{size_len, split_size};
use super::transactions::{InputSpan, OutputSpan, Transactions, TxSpan};
use crate::hash::sha256d;

/// One transaction of [`Transactions`].
#[derive(Clone, Copy, Debug)]
pub struct TxRef<'a> {
    pub(super) all: &'a Transactions,
    pub(super) span: &'a TxSpan,
}

/// One input.
#[derive(Clone, Copy, Debug)]
pub struct InputRef<'a> {
    bytes: &'a [u8],
    span: &'a InputSpan,
}

/// One output.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutputRef<'a> {
    /// In satoshis; whatever the bytes say.
    pub value: u64,
    /// What has to be satisfied to spend it.
    pub script: &'a Script,
}

/// The witness stack of one input.
#[derive(Clone, Copy, Debug)]
pub struct WitnessRef<'a> {
    len: usize,
    /// From the first item on; more may follow the last.
    bytes: &'a [u8],
}

/// The bytes from `start` to `end`; all offsets are within (see [`Transactions`]).
fn between(bytes: &[u8], start: u32, end: u32) -> &[u8] {
    bytes.get(start as usize..end as usize).unwrap_or_default()
}

fn read_u32(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

fn part<T>(table: &[T], [start, end]: [u32; 2]) -> &[T] {
    table.get(start as usize..end as usize).unwrap_or_default()
}

impl<'a> TxRef<'a> {
    /// Returns the transaction's bytes, witnesses included.
    #[must_use]
    pub fn bytes(self) -> &'a [u8] {
        between(&self.all.bytes, self.span.start, self.span.end)
    }

    /// Returns the version.
    #[must_use]
    pub fn version(self) -> i32 {
        read_u32(self.bytes()).cast_signed()
    }

    /// Returns the lock time: a height below 500,000,000, else seconds since 1970.
    #[must_use]
    pub fn lock_time(self) -> u32 {
        self.bytes().last_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
    }

    /// Returns the number of bytes without witnesses.
    #[must_use]
    pub fn base_size(self) -> usize {
        if self.span.has_witness { self.body().len() + 8 } else { self.total_size() }
    }

    /// Returns the number of bytes.
    #[must_use]
    pub fn total_size(self) -> usize {
        self.bytes().len()
    }

    /// Returns whether an input has a witness.
    #[must_use]
    pub const fn has_witness(self) -> bool {
        self.span.has_witness
    }

    /// Returns the number of inputs.
    #[must_use]
    pub fn input_count(self) -> usize {
        self.input_spans().len()
    }

    /// Returns the number of outputs.
    #[must_use]
    pub fn output_count(self) -> usize {
        self.output_spans().len()
    }

    /// Returns the index of the first input among those of all transactions.
    #[must_use]
    pub const fn first_input(self) -> usize {
        self.span.inputs[0] as usize
    }

    /// Returns the index of the first output among those of all transactions.
    #[must_use]
    pub const fn first_output(self) -> usize {
        self.span.outputs[0] as usize
    }

    /// Iterates over the inputs.
    pub fn inputs(
        self,
    ) -> impl ExactSizeIterator<Item = InputRef<'a>> + DoubleEndedIterator + Clone {
        let bytes = self.all.bytes.as_slice();
        self.input_spans().iter().map(move |span| InputRef { bytes, span })
    }

    /// Iterates over the outputs.
    pub fn outputs(
        self,
    ) -> impl ExactSizeIterator<Item = OutputRef<'a>> + DoubleEndedIterator + Clone {
        let bytes = self.all.bytes.as_slice();
        self.output_spans().iter().map(move |span| OutputRef {
            value: span.value,
            script: Script::from_bytes(between(bytes, span.script, span.script + span.script_len)),
        })
    }

    /// Returns whether this is a coinbase: it has one input, of the null outpoint.
    #[must_use]
    pub fn is_coinbase(self) -> bool {
        let mut inputs = self.inputs();
        inputs.len() == 1 && inputs.next().is_some_and(|input| input.is_null())
    }

    /// Computes the id: the hash of the transaction without witnesses.
    #[must_use]
    pub fn txid(self) -> Txid {
        let bytes = self.bytes();
        Txid::from_byte_array(if self.span.has_witness {
            let version = bytes.first_chunk::<4>().map_or(&[][..], |version| version);
            let lock_time = bytes.last_chunk::<4>().map_or(&[][..], |lock_time| lock_time);
            sha256d(&[version, self.body(), lock_time])
        } else {
            sha256d(&[bytes])
        })
    }

    /// Computes the hash of the transaction with witnesses.
    #[must_use]
    pub fn wtxid(self) -> [u8; 32] {
        sha256d(&[self.bytes()])
    }

    /// Inputs and outputs, their numbers included.
    fn body(self) -> &'a [u8] {
        between(&self.all.bytes, self.span.body, self.span.body_end)
    }

    fn input_spans(self) -> &'a [InputSpan] {
        part(&self.all.inputs, self.span.inputs)
    }

    fn output_spans(self) -> &'a [OutputSpan] {
        part(&self.all.outputs, self.span.outputs)
    }
}

impl<'a> InputRef<'a> {
    /// Returns the outpoint's bytes: transaction id, index little-endian.
    #[must_use]
    pub fn outpoint_bytes(self) -> &'a [u8; 36] {
        const NULL: &[u8; 36] = &[0xff; 36];
        let bytes = self.bytes.get(self.span.outpoint as usize..);
        // Within, as all offsets are.
        bytes.and_then(|bytes| bytes.first_chunk()).unwrap_or(NULL)
    }

    /// Returns what the input spends.
    #[must_use]
    pub fn outpoint(self) -> OutPoint {
        let (txid, vout) = self.txid_and_vout();
        OutPoint::new(Txid::from_byte_array(*txid), vout)
    }

    /// Returns the transaction id and the index of the output that the input spends.
    #[must_use]
    pub fn txid_and_vout(self) -> (&'a [u8; 32], u32) {
        let [txid @ .., a, b, c, d] = self.outpoint_bytes();
        (txid, u32::from_le_bytes([*a, *b, *c, *d]))
    }

    /// Returns whether the outpoint is a coinbase's: no id and the greatest index.
    #[must_use]
    pub fn is_null(self) -> bool {
        let (txid, vout) = self.txid_and_vout();
        vout == u32::MAX && *txid == [0; 32]
    }

    /// Returns the script that satisfies the one of the spent output.
    #[must_use]
    pub fn script_sig(self) -> &'a Script {
        Script::from_bytes(between(self.bytes, self.span.script, self.script_end()))
    }

    /// Returns the sequence number.
    #[must_use]
    pub fn sequence(self) -> u32 {
        read_u32(self.bytes.get(self.script_end() as usize..).unwrap_or_default())
    }

    /// Returns the witness stack.
    #[must_use]
    pub fn witness(self) -> WitnessRef<'a> {
        let stack = self.bytes.get(self.span.witness as usize..).filter(|_| self.span.witness > 0);
        let (len, bytes) = stack.and_then(split_size).unwrap_or_default();
        WitnessRef { len, bytes }
    }

    const fn script_end(self) -> u32 {
        self.span.script + self.span.script_len
    }
}

impl From<OutputRef<'_>> for TxOut {
    fn from(output: OutputRef<'_>) -> Self {
        Self { value: Amount::from_sat(output.value), script_pubkey: output.script.to_owned() }
    }
}

impl<'a> WitnessRef<'a> {
    /// Returns the number of items.
    #[must_use]
    pub const fn len(self) -> usize {
        self.len
    }

    /// Returns whether the stack has no item.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }

    /// Iterates over the items, the bottom of the stack first.
    pub fn items(self) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = self.bytes;
        (0..self.len).map_while(move |_| {
            let (len, tail) = split_size(rest)?;
            let (item, tail) = tail.split_at_checked(len)?;
            rest = tail;
            Some(item)
        })
    }

    /// Returns the top of the stack.
    #[must_use]
    pub fn last(self) -> Option<&'a [u8]> {
        self.items().last()
    }
}

/// Length of the number of transactions in front of a block's.
pub(crate) fn count_len(count: usize) -> usize {
    size_len(count)
}
