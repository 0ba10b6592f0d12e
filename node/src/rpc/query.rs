//! The query of a path, as REST takes it (Bitcoin Core's `GetQueryParameterFromUri`).

/// Splits a query into keys and values; a key without a value has an empty one. What is escaped by
/// `%` is put back, and what only looks so stays.
pub(super) fn pairs(query: &str) -> Vec<(String, String)> {
    let split = |pair| {
        let (key, value) = str::split_once(pair, '=').unwrap_or((pair, ""));
        (decoded(key), decoded(value))
    };
    query.split('&').map(split).collect()
}

fn decoded(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let [first, after @ ..] = rest {
        let (byte, left) = match after.split_first_chunk() {
            Some((digits, left)) if *first == b'%' => {
                escaped(*digits).map_or((*first, after), |byte| (byte, left))
            }
            _ => (*first, after),
        };
        bytes.push(byte);
        rest = left;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Returns the byte that two hexadecimal digits stand for.
fn escaped(digits: [u8; 2]) -> Option<u8> {
    let [high, low] = digits.map(|digit| char::from(digit).to_digit(16));
    u8::try_from(high? * 16 + low?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_put_back_and_other_signs_of_percent_stay() {
        for (text, plain) in [
            ("count", "count"),
            ("c%6fun%74", "count"),
            ("%3D%26", "=&"),
            ("%4", "%4"),
            ("%%41%", "%A%"),
            ("%4g%-1", "%4g%-1"),
            ("%c3%a4", "\u{e4}"),
            ("a+b", "a+b"),
        ] {
            assert_eq!(decoded(text), plain, "{text}");
        }
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let split = [pair("a", "1=2"), pair("b", ""), pair("c&", "3")];
        assert_eq!(pairs("a=1=2&b&%63%26=%33"), split);
    }
}
