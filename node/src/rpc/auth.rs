//! Who may call: HTTP basic authentication, compared in constant time.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bitcoin::hashes::{Hash as _, sha256};
use subtle::{Choice, ConstantTimeEq as _};

/// The accepted `user:password` texts, as digests: their lengths do not show in the time either.
#[derive(Clone)]
pub(crate) struct Credentials(Vec<[u8; 32]>);

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(..)")
    }
}

impl Credentials {
    /// Accepts these `user:password` texts.
    pub(crate) fn new(texts: impl IntoIterator<Item = String>) -> Self {
        Self(texts.into_iter().map(|text| digest(text.as_bytes())).collect())
    }

    /// Returns whether the value of an `Authorization` header is one of them. Every one is
    /// compared, whichever it is.
    pub(crate) fn accept(&self, header: &[u8]) -> bool {
        let encoded = header.strip_prefix(b"Basic ").unwrap_or_default().trim_ascii();
        let given = digest(&STANDARD.decode(encoded).unwrap_or_default());
        let accepted =
            self.0.iter().fold(Choice::from(0), |found, known| found | known.ct_eq(&given));
        accepted.into()
    }
}

/// Returns the value of the header for a `user:password`.
pub(crate) fn header(text: &str) -> String {
    format!("Basic {}", STANDARD.encode(text))
}

fn digest(text: &[u8]) -> [u8; 32] {
    sha256::Hash::hash(text).to_byte_array()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_text_is_accepted() {
        let credentials = Credentials::new(["__cookie__:abc".to_owned(), "me:pw".to_owned()]);
        assert!(credentials.accept(header("__cookie__:abc").as_bytes()));
        assert!(credentials.accept(header("me:pw").as_bytes()));
        for wrong in ["", "__cookie__:ab", "__cookie__:abcd", "me:", "me:pw "] {
            assert!(!credentials.accept(header(wrong).as_bytes()), "{wrong}");
        }
        assert!(!credentials.accept(b"Basic %%%"));
        assert!(!credentials.accept(b""));
        assert!(!Credentials::new([]).accept(header("").as_bytes()));
    }
}
