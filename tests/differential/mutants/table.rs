//! The table of mutants.

use super::{blocks, coins, headers, scripts, transactions};
use crate::draft::Draft;
use crate::verdict::{DECODE, SCRIPT};

/// How a mutant is made from a good block that its branch could take next; `None` if the branch
/// lacks a coin that is needed.
#[derive(Clone, Copy)]
pub(crate) enum Make {
    /// By changing the block.
    Block(fn(&mut Draft<'_>) -> Option<()>),
    /// By changing the block, so that it is turned away before its header is looked at.
    Lone(fn(&mut Draft<'_>) -> Option<()>),
    /// By changing its header, which has the fault by itself.
    Header(fn(&mut Draft<'_>) -> Option<()>),
    /// As bytes that are no block's.
    Bytes(fn(&mut Draft<'_>) -> Option<Vec<u8>>),
    /// As the last of several blocks.
    History(fn(&mut Draft<'_>) -> Option<Vec<Vec<u8>>>),
    /// Not at all, and why.
    Unreachable(&'static str),
}

/// A row of the table.
pub(crate) struct Mutant {
    /// The reject reason that both sides have to give; `None` if the block is fine.
    pub(crate) reason: Option<&'static str>,
    pub(crate) name: &'static str,
    pub(crate) make: Make,
}

const fn bad(
    reason: &'static str,
    name: &'static str,
    make: fn(&mut Draft<'_>) -> Option<()>,
) -> Mutant {
    Mutant { reason: Some(reason), name, make: Make::Block(make) }
}

const fn lone(
    reason: &'static str,
    name: &'static str,
    make: fn(&mut Draft<'_>) -> Option<()>,
) -> Mutant {
    Mutant { reason: Some(reason), name, make: Make::Lone(make) }
}

const fn fine(name: &'static str, make: fn(&mut Draft<'_>) -> Option<()>) -> Mutant {
    Mutant { reason: None, name, make: Make::Block(make) }
}

const fn header(
    reason: &'static str,
    name: &'static str,
    make: fn(&mut Draft<'_>) -> Option<()>,
) -> Mutant {
    Mutant { reason: Some(reason), name, make: Make::Header(make) }
}

const fn bytes(
    reason: Option<&'static str>,
    name: &'static str,
    make: fn(&mut Draft<'_>) -> Option<Vec<u8>>,
) -> Mutant {
    Mutant { reason, name, make: Make::Bytes(make) }
}

const fn history(
    reason: &'static str,
    name: &'static str,
    make: fn(&mut Draft<'_>) -> Option<Vec<Vec<u8>>>,
) -> Mutant {
    Mutant { reason: Some(reason), name, make: Make::History(make) }
}

const fn unreachable(reason: &'static str, why: &'static str) -> Mutant {
    Mutant { reason: Some(reason), name: reason, make: Make::Unreachable(why) }
}

/// Every reject reason of `CheckBlock`, `ContextualCheckBlockHeader`, `ContextualCheckBlock`,
/// `CheckTransaction`, `CheckTxInputs` and `ConnectBlock`; between them, blocks that just pass.
pub(crate) const MUTANTS: &[Mutant] = &[
    // Bytes.
    bytes(Some(DECODE), "byte missing", blocks::byte_missing),
    bytes(Some(DECODE), "count in three bytes", blocks::long_count),
    bytes(Some(DECODE), "mark of a witness without one", blocks::superfluous_witness_mark),
    bytes(None, "byte after the end", blocks::bytes_after_the_end),
    bytes(Some("bad-txns-vin-empty"), "empty transaction", blocks::empty_transaction),
    bytes(Some(DECODE), "extended format without inputs", blocks::extended_without_inputs),
    bytes(Some("bad-blk-weight"), "huge witness item", blocks::huge_witness_item),
    // AcceptBlockHeader and ContextualCheckBlockHeader.
    header("high-hash", "no work", headers::work),
    header("high-hash", "target above the limit", headers::easy_target),
    header("high-hash", "negative target", headers::negative_target),
    header("bad-diffbits", "harder target", headers::hard_target),
    header("bad-diffbits", "the target in other bits", headers::other_bits),
    header("time-too-old", "median time", headers::median_time),
    header("time-too-old", "time 0", headers::time_zero),
    header("time-too-new", "two hours and two minutes ahead", headers::far_future),
    header("time-too-new", "the last time", headers::last_time),
    unreachable(
        "time-timewarp-attack",
        "only testnet4 has the rule, where a block needs 2^32 hashes and the first is due at 2016; \
         the kernel library cannot switch it on for regtest. Unit tests of header_check have it",
    ),
    header("bad-version(0x00000000)", "version 0", headers::version_0),
    header("bad-version(0x00000001)", "version 1", headers::version_1),
    header("bad-version(0x00000002)", "version 2", headers::version_2),
    header("bad-version(0x00000003)", "version 3", headers::version_3),
    header("bad-version(0xffffffff)", "version -1", headers::version_negative),
    header("prev-blk-not-found", "unknown parent", headers::unknown_parent),
    history("bad-prevblk", "child of a greedy coinbase's block", blocks::child_of_invalid),
    history("bad-prevblk", "child of a wrong height", blocks::child_of_wrong_height),
    history("duplicate-invalid", "a greedy coinbase again", blocks::known_invalid),
    history("duplicate-invalid", "a wrong height again", blocks::known_without_height),
    // CheckBlock.
    unreachable(
        "bad-signet-blksig",
        "of signet alone: the test of a signet's solution delivers it",
    ),
    lone("bad-txnmrklroot", "another root", blocks::merkle_root),
    lone("bad-txnmrklroot", "transaction left out", blocks::transaction_left_out),
    lone("bad-txnmrklroot", "transactions in another order", blocks::reordered),
    lone("bad-txns-duplicate", "last of three twice", blocks::duplicate_transaction),
    lone("bad-blk-length", "no transactions", blocks::no_transactions),
    lone("bad-blk-length", "1,000,001 bytes", blocks::too_long),
    fine("1,000,000 bytes", blocks::just_short_enough),
    lone("bad-blk-length", "transaction that fits no block", blocks::oversize_transaction),
    lone("bad-cb-missing", "no coinbase", blocks::no_coinbase),
    lone("bad-cb-missing", "coinbase second", blocks::coinbase_second),
    lone("bad-cb-multiple", "two coinbases", blocks::two_coinbases),
    lone("bad-blk-sigops", "20,001 in outputs", blocks::sigops),
    // CheckTransaction.
    lone("bad-txns-vout-empty", "no outputs", transactions::no_outputs),
    unreachable("bad-txns-oversize", "a block around such a transaction is too long itself"),
    lone("bad-txns-vout-negative", "-1", transactions::negative_output),
    lone("bad-txns-vout-negative", "-2^63", transactions::most_negative_output),
    lone("bad-txns-vout-toolarge", "21 million and a satoshi", transactions::large_output),
    lone("bad-txns-vout-toolarge", "2^63 - 1", transactions::largest_output),
    lone("bad-txns-txouttotal-toolarge", "sum of two", transactions::large_sum),
    lone("bad-txns-txouttotal-toolarge", "a coinbase's", transactions::large_sum_of_coinbase),
    lone("bad-txns-inputs-duplicate", "two inputs", transactions::input_twice),
    lone("bad-txns-inputs-duplicate", "first and third", transactions::input_twice_apart),
    lone("bad-cb-length", "coinbase script of 1", blocks::one_byte_coinbase_script),
    fine("coinbase script of the height alone", blocks::shortest_coinbase_script),
    fine("coinbase script of 100", blocks::longest_coinbase_script),
    lone("bad-cb-length", "coinbase script of 101", blocks::too_long_coinbase_script),
    lone("bad-txns-prevout-null", "null input", transactions::null_input),
    // ContextualCheckBlock.
    bad("bad-txns-nonfinal", "lock height of the block", blocks::lock_height),
    bad("bad-txns-nonfinal", "lock time of the median", blocks::lock_time_of_median),
    bad("bad-txns-nonfinal", "locked coinbase", blocks::locked_coinbase),
    bad("bad-cb-height", "next height", blocks::other_height),
    bad("bad-cb-height", "padded height", blocks::padded_height),
    bad("bad-cb-height", "OP_PUSHDATA1", blocks::height_in_other_push),
    bad("bad-witness-nonce-size", "no reserved value", blocks::no_reserved_value),
    bad("bad-witness-nonce-size", "31 bytes", blocks::short_reserved_value),
    bad("bad-witness-nonce-size", "two reserved values", blocks::two_reserved_values),
    bad("bad-witness-merkle-match", "other reserved value", blocks::other_reserved_value),
    bad("bad-witness-merkle-match", "other witness", blocks::other_witness),
    bad("bad-witness-merkle-match", "witness left out", blocks::witness_left_out),
    bad("bad-witness-merkle-match", "later commitment", blocks::commitment_after_the_right_one),
    fine("commitment with more bytes", blocks::long_commitment),
    bad("unexpected-witness", "no commitment", blocks::no_commitment),
    bad("unexpected-witness", "coinbase's alone", blocks::witness_of_coinbase_alone),
    bad("bad-blk-weight", "4,000,001", blocks::too_heavy),
    fine("weight 4,000,000", blocks::just_light_enough),
    // ConnectBlock and CheckTxInputs.
    bad("bad-txns-BIP30", "transaction of the block before", coins::overwritten_coin),
    bad("bad-txns-inputs-missingorspent", "unknown transaction", coins::unknown_coin),
    bad("bad-txns-inputs-missingorspent", "unknown output", coins::unknown_output),
    bad("bad-txns-inputs-missingorspent", "almost null", transactions::almost_null_input),
    bad("bad-txns-inputs-missingorspent", "twice in a block", coins::coin_spent_twice),
    bad("bad-txns-inputs-missingorspent", "spent before", coins::coin_spent_before),
    bad("bad-txns-inputs-missingorspent", "spender first", coins::spender_first),
    bad("bad-txns-inputs-missingorspent", "data output", coins::data_output_spent),
    bad("bad-txns-inputs-missingorspent", "script of 10,001", coins::long_script_spent),
    fine("script of 10,000", coins::longest_script_spent),
    fine("output of OP_RETURN alone", blocks::short_data_output),
    bad("bad-txns-premature-spend-of-coinbase", "depth 99", coins::young_coinbase),
    bad("bad-txns-premature-spend-of-coinbase", "depth 0", coins::own_coinbase),
    fine("coinbase at depth 100", coins::mature_coinbase),
    unreachable(
        "bad-txns-inputvalues-outofrange",
        "no valid chain has that many coins: regtest mints 15,000 in all. Unit tests have it",
    ),
    bad("bad-txns-in-belowout", "a satoshi", coins::output_above_input),
    unreachable("bad-txns-fee-outofrange", "a fee is at most its inputs, which are in range"),
    unreachable(
        "bad-txns-accumulated-fee-outofrange",
        "no valid chain has that many coins. Only the sum of fees in one block could show it",
    ),
    bad("bad-txns-nonfinal", "relative height", coins::relative_height),
    bad("bad-txns-nonfinal", "relative time", coins::relative_time),
    bad("bad-txns-nonfinal", "relative height in a block", coins::relative_height_in_block),
    bad("bad-txns-nonfinal", "version -1", coins::relative_height_of_negative_version),
    fine("relative height reached", coins::reached_relative_height),
    fine("relative time reached", coins::reached_relative_time),
    fine("relative height of version 1", coins::relative_height_of_version_1),
    bad("bad-blk-sigops", "redeem script", coins::sigops_of_redeem_scripts),
    bad("bad-blk-sigops", "witness script", coins::sigops_of_witness_scripts),
    fine("80,000 of signature operations", coins::just_few_enough_sigops),
    bad("bad-cb-amount", "a satoshi too much", coins::greedy_coinbase),
    fine("all of subsidy and fees", coins::full_coinbase),
    // Scripts: signatures, P2SH, DERSIG, CHECKLOCKTIMEVERIFY, CHECKSEQUENCEVERIFY, NULLDUMMY.
    bad(SCRIPT, "signature", scripts::signature),
    bad(SCRIPT, "signature left out", scripts::signature_left_out),
    bad(SCRIPT, "disabled operation", scripts::disabled_operation),
    fine("reserved operation not run", scripts::reserved_operation_not_run),
    bad(SCRIPT, "P2SH: false", scripts::redeem_script_is_false),
    bad(SCRIPT, "P2SH: not only pushes", scripts::redeem_script_by_more_than_pushes),
    bad(SCRIPT, "DERSIG", scripts::padded_signature),
    bad(SCRIPT, "CLTV: later", scripts::lock_time_later),
    fine("CLTV: reached", scripts::lock_time_reached),
    bad(SCRIPT, "CLTV: switched off", scripts::lock_time_switched_off),
    bad(SCRIPT, "CLTV: other kind", scripts::lock_time_of_other_kind),
    bad(SCRIPT, "CLTV: negative", scripts::lock_time_negative),
    bad(SCRIPT, "CSV: too low", scripts::sequence_too_low),
    fine("CSV: high enough", scripts::sequence_high_enough),
    bad(SCRIPT, "CSV: switched off", scripts::sequence_switched_off),
    bad(SCRIPT, "CSV: other kind", scripts::sequence_of_other_kind),
    bad(SCRIPT, "CSV: version 1", scripts::sequence_of_version_1),
    fine("CSV: not required", scripts::sequence_not_required),
    bad(SCRIPT, "NULLDUMMY", scripts::dummy_not_empty),
    // WITNESS.
    bad(SCRIPT, "WITNESS: signature", scripts::witness_signature),
    bad(SCRIPT, "WITNESS: nested signature", scripts::nested_witness_signature),
    bad(SCRIPT, "WITNESS: missing", scripts::witness_missing),
    bad(SCRIPT, "WITNESS: other script", scripts::other_witness_script),
    bad(SCRIPT, "WITNESS: script_sig", scripts::script_sig_of_witness_program),
    bad(SCRIPT, "WITNESS: nested script_sig", scripts::script_sig_of_nested_program),
    bad(SCRIPT, "WITNESS: not asked for", scripts::witness_not_asked_for),
    bad(SCRIPT, "WITNESS: program of 3 bytes", scripts::witness_program_of_3_bytes),
    bad(SCRIPT, "WITNESS: two items left", scripts::witness_leaves_two_items),
    bad(SCRIPT, "WITNESS: item of 521 bytes", scripts::witness_item_of_521_bytes),
    fine("WITNESS: item of 520 bytes", scripts::witness_item_of_520_bytes),
    fine("WITNESS: future version", scripts::future_witness_version),
    bad(SCRIPT, "WITNESS: future script_sig", scripts::future_version_with_script_sig),
    // TAPROOT.
    bad(SCRIPT, "TAPROOT: signature", scripts::taproot_signature),
    bad(SCRIPT, "TAPROOT: default type", scripts::taproot_default_type_written),
    bad(SCRIPT, "TAPROOT: unknown type", scripts::taproot_unknown_type),
    bad(SCRIPT, "TAPROOT: missing", scripts::taproot_witness_missing),
    bad(SCRIPT, "TAPROOT: control block", scripts::taproot_control_block),
    bad(SCRIPT, "TAPROOT: control length", scripts::taproot_control_block_length),
    bad(SCRIPT, "TAPROOT: script signature", scripts::taproot_script_signature),
    bad(SCRIPT, "TAPROOT: IF of 2", scripts::tapscript_if_of_2),
    bad(SCRIPT, "TAPROOT: CHECKMULTISIG", scripts::tapscript_multisig),
    bad(SCRIPT, "TAPROOT: empty key", scripts::tapscript_empty_key),
    bad(SCRIPT, "TAPROOT: too many checks", scripts::tapscript_sigops),
    fine("TAPROOT: unknown key", scripts::tapscript_unknown_key),
    fine("TAPROOT: OP_SUCCESS", scripts::tapscript_success),
    fine("TAPROOT: unknown leaf version", scripts::unknown_leaf_version),
    fine("TAPROOT: annex", scripts::annex),
    fine("TAPROOT: program of 33 bytes", scripts::version_1_of_33_bytes),
    fine("TAPROOT: nested", scripts::nested_taproot),
    fine("TAPROOT: anchor", scripts::pay_to_anchor),
];
