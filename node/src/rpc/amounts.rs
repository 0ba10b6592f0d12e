//! Amounts as arguments: numbers or texts with up to eight decimals (`AmountFromValue` and
//! `ParseFixedPoint` in Bitcoin Core).

use serde_json::Value;

use super::{RpcError, code};

/// Satoshis of a bitcoin.
pub(crate) const COIN: i64 = 100_000_000;
/// All money there is, in satoshis.
const MONEY_MAX: i64 = 21_000_000 * COIN;
/// Decimals of a bitcoin.
const DECIMALS: i32 = 8;
/// Digits that are read; more cannot be an amount.
const DIGITS_MAX: usize = 32;

/// Fee rate above which a transaction is refused if the caller names no other, in satoshis per
/// 1000 virtual bytes (Bitcoin Core's `DEFAULT_MAX_RAW_TX_FEE_RATE`).
const FEE_RATE_MAX_DEFAULT: i64 = COIN / 10;

/// Returns an amount in satoshis.
pub(crate) fn amount(value: &Value) -> Result<i64, RpcError> {
    let error = |text: &str| RpcError::new(code::TYPE_ERROR, text);
    let text = match value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        _ => return Err(error("Amount is not a number or string")),
    };
    let satoshis = fixed_point(&text).ok_or_else(|| error("Invalid amount"))?;
    if (0..=MONEY_MAX).contains(&satoshis) {
        Ok(satoshis)
    } else {
        Err(error("Amount out of range"))
    }
}

/// Returns a fee rate in satoshis per 1000 virtual bytes; the default if there is none.
pub(crate) fn fee_rate_max(value: Option<&Value>) -> Result<i64, RpcError> {
    let rate = value.map_or(Ok(FEE_RATE_MAX_DEFAULT), amount)?;
    if rate >= COIN {
        let message = "Fee rates larger than or equal to 1BTC/kvB are not accepted";
        return Err(RpcError::new(code::INVALID_PARAMETER, message));
    }
    Ok(rate)
}

/// Reads an amount of an option, in satoshis (`ParseMoney`).
pub(crate) fn parse_money(text: &str) -> Option<u64> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let satoshis = fixed_point(text.trim_end_matches('.')).filter(|_| is_plain)?;
    u64::try_from(satoshis).ok().filter(|_| satoshis <= MONEY_MAX)
}

/// Reads a decimal number with an exponent, if it wants, as a whole number of its eighth decimals.
fn fixed_point(text: &str) -> Option<i64> {
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (rest, 0),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((_, "")) => return None,
        Some(parts) => parts,
        None => (mantissa, ""),
    };
    let leading_zero = whole.len() > 1 && whole.starts_with('0');
    if whole.is_empty() || leading_zero || whole.len() + fraction.len() > DIGITS_MAX {
        return None;
    }
    let mut digits = format!("{whole}{fraction}");
    if !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let mut shift = exponent.checked_add(DECIMALS)? - i32::try_from(fraction.len()).ok()?;
    // Zeros at the end are no decimals.
    while shift < 0 && digits.len() > 1 && digits.ends_with('0') {
        digits.pop();
        shift += 1;
    }
    let digits: i64 = digits.parse().ok()?;
    let value = if digits == 0 {
        0
    } else {
        digits.checked_mul(10_i64.checked_pow(u32::try_from(shift).ok()?)?)?
    };
    Some(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn amounts_are_exact() {
        let read = |text: &str| amount(&json!(text)).map_err(|error| error.message);
        // From Core's rpc_tests.cpp.
        for (text, satoshis) in [
            ("0", 0),
            ("0.00000000", 0),
            ("0.00000001", 1),
            ("0.17622195", 17_622_195),
            ("0.5", 50_000_000),
            ("0.50000000", 50_000_000),
            ("0.89898989", 89_898_989),
            ("100.00000000", 10_000_000_000),
            ("20999999.9999999", 2_099_999_999_999_990),
            ("20999999.99999999", 2_099_999_999_999_999),
            ("1e-8", 1),
            ("0.1e-7", 1),
            ("0.01e-6", 1),
            ("0.0000000000000000000000000001e+20", 1),
            ("10000000e-8", 10_000_000),
            ("0.0000000100000000", 1),
        ] {
            assert_eq!(read(text), Ok(satoshis), "{text}");
        }
        for text in ["1e-9", "0.000000019", "0.00000001000001", "", ".5", "1.", "1e+30", "1e", "x"]
        {
            assert_eq!(read(text).unwrap_err(), "Invalid amount", "{text}");
        }
        for text in ["-0.00000001", "21000001", "1e+9"] {
            assert_eq!(read(text).unwrap_err(), "Amount out of range", "{text}");
        }
        let number: Value = serde_json::from_str("0.17622195").unwrap();
        assert_eq!(amount(&number).unwrap(), 17_622_195);
        assert!(amount(&json!([])).unwrap_err().message.contains("not a number or string"));
    }

    #[test]
    fn a_fee_rate_is_below_a_bitcoin() {
        assert_eq!(fee_rate_max(None).unwrap(), 10_000_000);
        assert_eq!(fee_rate_max(Some(&json!("0.99999999"))).unwrap(), 99_999_999);
        assert!(fee_rate_max(Some(&json!(1))).unwrap_err().message.contains("1BTC/kvB"));
    }
}
