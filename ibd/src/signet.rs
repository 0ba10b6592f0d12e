//! The solution of a signet block (BIP-0325; `signet.cpp` of Bitcoin Core).

use bitcoin::absolute::LockTime;
use bitcoin::consensus::encode::{deserialize, deserialize_partial, serialize};
use bitcoin::hashes::Hash as _;
use bitcoin::script::{Builder, PushBytesBuf};
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, Script, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};

use crate::block::{CheckedBlock, commitment_index, merkle_root};
use crate::error::Result;
use crate::params::ChainParams;
use crate::rejection::Rejection;
use crate::script::{ScriptFlags, ScriptVerifier};
use crate::wire::{OutputRef, Transactions};

/// What the push with the solution starts with.
const HEADER: [u8; 4] = [0xec, 0xc7, 0xda, 0xa2];

/// Rules for the challenge.
const FLAGS: ScriptFlags = ScriptFlags::P2SH
    .union(ScriptFlags::WITNESS)
    .union(ScriptFlags::DERSIG)
    .union(ScriptFlags::NULLDUMMY);

/// Checks that a block of a signet satisfies the challenge; a block of any other network passes.
///
/// Core asks this before it compares the merkle root; here the block has passed that, so that
/// transactions that are not the header's own cannot condemn it.
///
/// # Errors
///
/// Returns an error if the verifier fails. The inner one is `bad-signet-blksig`.
pub fn check_signet_solution(
    params: &ChainParams,
    block: &CheckedBlock,
    verifier: &dyn ScriptVerifier,
) -> Result<std::result::Result<(), Rejection>> {
    let Some(challenge) = &params.signet_challenge else {
        return Ok(Ok(()));
    };
    if *block.header() == params.genesis.header {
        return Ok(Ok(()));
    }
    if let Some(spending) = solution_transaction(block, challenge) {
        let spent = [OutputRef { value: 0, script: challenge }];
        // What was just serialized can be read.
        if let Ok(txs) = Transactions::of_transaction(serialize(&spending))
            && let Some(tx) = txs.first()
            && verifier.verify_transaction(tx, &spent, FLAGS)?.is_none()
        {
            return Ok(Ok(()));
        }
    }
    let detail = "signet block signature validation failure";
    Ok(Err(Rejection::consensus("bad-signet-blksig").with_detail(detail)))
}

/// Returns the transaction that spends an output with the challenge and no amount by the solution;
/// `None` if the block has no commitment or the solution cannot be read (`SignetTxs::Create`).
fn solution_transaction(block: &CheckedBlock, challenge: &ScriptBuf) -> Option<Transaction> {
    let first = block.txs().first()?;
    let commitment = commitment_index(first)?;
    let mut coinbase: Transaction = deserialize(first.bytes()).ok()?;
    let script = &mut coinbase.output.get_mut(commitment)?.script_pubkey;
    let (script_sig, witness) = match take_solution(script) {
        Some((rest, solution)) => {
            *script = rest;
            read_solution(&solution)?
        }
        // No solution is one too: for a challenge like OP_TRUE.
        None => (ScriptBuf::new(), Witness::new()),
    };
    let signed = signed_data(block, &coinbase);
    let push = PushBytesBuf::try_from(signed).ok()?;
    let script = Builder::new().push_opcode(bitcoin::opcodes::OP_0).push_slice(push).into_script();
    let spent = TxOut { value: Amount::ZERO, script_pubkey: challenge.clone() };
    let to_spend = transaction(OutPoint::null(), script, Witness::new(), spent);
    let outpoint = OutPoint::new(to_spend.compute_txid(), 0);
    let nothing = ScriptBuf::from_bytes(vec![bitcoin::opcodes::all::OP_RETURN.to_u8()]);
    let output = TxOut { value: Amount::ZERO, script_pubkey: nothing };
    Some(transaction(outpoint, script_sig, witness, output))
}

fn transaction(from: OutPoint, script: ScriptBuf, witness: Witness, output: TxOut) -> Transaction {
    let input =
        TxIn { previous_output: from, script_sig: script, sequence: Sequence::ZERO, witness };
    Transaction {
        version: Version(0),
        lock_time: LockTime::ZERO,
        input: vec![input],
        output: vec![output],
    }
}

/// Returns what the solution signs: the header's version, parent, merkle root with the coinbase
/// without solution, and time.
fn signed_data(block: &CheckedBlock, coinbase: &Transaction) -> Vec<u8> {
    let mut leaves: Vec<[u8; 32]> = block.txids().iter().map(|id| id.to_byte_array()).collect();
    if let Some(first) = leaves.first_mut() {
        *first = coinbase.compute_txid().to_byte_array();
    }
    let (root, _) = merkle_root(leaves);
    let header = block.header();
    let mut data = serialize(&header.version);
    data.extend_from_slice(header.prev_blockhash.as_byte_array());
    data.extend_from_slice(&root);
    data.extend_from_slice(&header.time.to_le_bytes());
    data
}

/// Takes the solution out of the commitment's script: the first push that starts with the header
/// and has more. Returns the script that is left and the solution.
///
/// The script that is left is written anew, as Core does: each push in its shortest form, an
/// operation that pushes nothing as its code alone, and nothing after what cannot be read.
fn take_solution(script: &Script) -> Option<(ScriptBuf, Vec<u8>)> {
    let mut rest = Vec::with_capacity(script.len());
    let mut solution = None;
    let mut bytes = script.as_bytes();
    while let Some((op, mut pushed)) = crate::tx::next_op(&mut bytes) {
        if solution.is_none()
            && let Some(found) = pushed.strip_prefix(&HEADER)
            && !found.is_empty()
        {
            solution = Some(found.to_vec());
            pushed = &HEADER;
        }
        if pushed.is_empty() {
            rest.push(op);
        } else {
            write_push(pushed, &mut rest);
        }
    }
    Some((ScriptBuf::from_bytes(rest), solution?))
}

/// Appends a push as Core's `CScript` does, which never uses the codes of small numbers.
fn write_push(data: &[u8], out: &mut Vec<u8>) {
    let mut push = ScriptBuf::new();
    // A push within a transaction's script is far shorter than 4 GiB.
    if let Ok(data) = <&bitcoin::script::PushBytes>::try_from(data) {
        push.push_slice(data);
    }
    out.extend_from_slice(push.as_bytes());
}

/// Reads a script and a witness that take up all of the solution.
fn read_solution(solution: &[u8]) -> Option<(ScriptBuf, Witness)> {
    let (script, read) = deserialize_partial::<ScriptBuf>(solution).ok()?;
    let (witness, read_more) = deserialize_partial::<Witness>(solution.get(read..)?).ok()?;
    (read + read_more == solution.len()).then_some((script, witness))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::RawBlock;
    use crate::params::Network;
    use crate::script::testing::Always;
    use crate::testing::{block, coinbase};
    use bitcoin::hex::{DisplayHex as _, FromHex as _};

    fn hex(hex: &str) -> Vec<u8> {
        Vec::from_hex(hex).unwrap()
    }

    #[track_caller]
    fn check_taken(script: &str, expected: Option<(&str, &str)>) {
        let taken = take_solution(Script::from_bytes(&hex(script)));
        let expected =
            expected.map(|(rest, solution)| (ScriptBuf::from_bytes(hex(rest)), hex(solution)));
        assert_eq!(taken, expected);
    }

    #[test]
    fn the_solution_is_taken_out_of_its_push() {
        check_taken("", None);
        check_taken("6a04ecc7daa2", None);
        check_taken("6a05ecc7daa2aa", Some(("6a04ecc7daa2", "aa")));
        // Only the first; what comes after stays.
        let twice = "6a05ecc7daa2aa05ecc7daa2bb";
        check_taken(twice, Some(("6a04ecc7daa205ecc7daa2bb", "aa")));
        // Pushes come out in their shortest form, and empty ones as their code alone.
        check_taken("4c05ecc7daa2aa4c01ff004c00", Some(("04ecc7daa201ff004c", "aa")));
        // Nothing comes after what cannot be read.
        check_taken("05ecc7daa2aa5103ff", Some(("04ecc7daa251", "aa")));
    }

    #[test]
    fn a_solution_has_a_script_and_a_witness_and_no_more() {
        assert!(read_solution(&hex("0000")).is_some());
        let (script, witness) = read_solution(&hex("01510201ab00")).unwrap();
        assert_eq!((script.to_hex_string().as_str(), witness.len()), ("51", 2));
        for bad in ["", "00", "000000", "025100", "0001"] {
            assert!(read_solution(&hex(bad)).is_none(), "{bad}");
        }
    }

    fn unmined(block: &bitcoin::Block) -> CheckedBlock {
        let raw = RawBlock::parse(serialize(block)).unwrap();
        CheckedBlock::check_without_work(raw).unwrap()
    }

    fn checked(with_commitment: bool) -> CheckedBlock {
        let mut tx = coinbase(1, 50);
        if with_commitment {
            let mut script = hex("6a24aa21a9ed");
            script.resize(38, 0);
            tx.output[0].script_pubkey = ScriptBuf::from_bytes(script);
        }
        unmined(&block(vec![tx]))
    }

    #[track_caller]
    fn check(network: Network, block: &CheckedBlock, verdict: bool, code: Option<&str>) {
        let params = ChainParams::new(network);
        let result = check_signet_solution(&params, block, &Always(verdict)).unwrap();
        assert_eq!(result.err().map(|rejection| rejection.code).as_deref(), code);
    }

    #[test]
    fn only_a_signet_asks_for_a_solution() {
        check(Network::Regtest, &checked(false), false, None);
        check(Network::Signet, &checked(true), true, None);
        check(Network::Signet, &checked(true), false, Some("bad-signet-blksig"));
        check(Network::Signet, &checked(false), true, Some("bad-signet-blksig"));
        let genesis = ChainParams::new(Network::Signet).genesis;
        let genesis = unmined(&genesis);
        check(Network::Signet, &genesis, false, None);
    }

    #[test]
    fn the_transactions_are_those_of_bip325() {
        let challenge = ScriptBuf::from_bytes(vec![0x51]);
        let spending = solution_transaction(&checked(true), &challenge).unwrap();
        assert_eq!((spending.version, spending.input.len()), (Version(0), 1));
        assert_eq!(spending.output[0].script_pubkey.as_bytes().to_lower_hex_string(), "6a");
        assert_eq!(spending.input[0].sequence, Sequence::ZERO);
    }
}
