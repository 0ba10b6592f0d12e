//! Who may call what: HTTP basic authentication with salted passwords, compared in constant time,
//! and the lists of methods of single users.

use std::collections::{HashMap, HashSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bitcoin::hashes::{Hash as _, HashEngine as _, Hmac, HmacEngine, sha256};
use bitcoin::hex::DisplayHex as _;
use subtle::{Choice, ConstantTimeEq as _};

/// The users, and what they may call.
#[derive(Default)]
pub(crate) struct Credentials {
    users: Vec<User>,
    /// Methods of the users that have a list.
    allowed: HashMap<String, HashSet<String>>,
    /// Whether users without a list may call nothing.
    restricted: bool,
}

struct User {
    /// As a digest: lengths do not show in the time it takes to compare.
    name: [u8; 32],
    salt: String,
    /// HMAC-SHA256 of the password under the salt, in hexadecimal digits.
    hash: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(..)")
    }
}

impl Credentials {
    /// Adds a user with a password in the clear; `salt` is random.
    pub(crate) fn add_password(&mut self, name: &str, password: &[u8], salt: String) {
        let hash = hmac(&salt, password);
        self.users.push(User { name: digest(name.as_bytes()), salt, hash });
    }

    /// Adds a user of `-rpcauth`: `NAME:SALT$HASH`. Returns whether it could be read.
    #[must_use]
    pub(crate) fn add_hashed(&mut self, text: &str) -> bool {
        let fields: Vec<&str> = text.split(':').collect();
        let [name, secret] = fields.as_slice() else { return false };
        let parts: Vec<&str> = secret.split('$').collect();
        let [salt, hash] = parts.as_slice() else { return false };
        let name = digest(name.as_bytes());
        self.users.push(User { name, salt: (*salt).to_owned(), hash: (*hash).to_owned() });
        true
    }

    /// Sets what users may call (`-rpcwhitelist`, `-rpcwhitelistdefault`); of two lists of a user
    /// what is in both counts.
    pub(crate) fn restrict(&mut self, lists: &[String], restricted: bool) {
        self.restricted = restricted;
        for list in lists {
            let (name, methods) = match list.split_once(':') {
                Some((name, methods)) => (name, Some(methods)),
                None => (list.as_str(), None),
            };
            let known = self.allowed.get(name);
            let methods = methods.map(|methods| {
                let methods = methods.split([',', ' ']).filter(|method| !method.is_empty());
                methods.map(str::to_owned).collect::<HashSet<String>>()
            });
            let methods = match (methods, known) {
                (Some(new), Some(known)) => &new & known,
                (Some(new), None) => new,
                (None, known) => known.cloned().unwrap_or_default(),
            };
            self.allowed.insert(name.to_owned(), methods);
        }
    }

    /// Returns the user whose name and password are in the value of an `Authorization` header.
    /// Every user is compared, whichever it is.
    pub(crate) fn user(&self, header: &[u8]) -> Option<String> {
        let encoded = header.strip_prefix(b"Basic ")?.trim_ascii();
        let given = STANDARD.decode(encoded).ok()?;
        let colon = given.iter().position(|byte| *byte == b':')?;
        let (name, password) = (given.get(..colon)?, given.get(colon + 1..)?);
        let name_digest = digest(name);
        let found = self.users.iter().fold(Choice::from(0), |found, user| {
            let hash = hmac(&user.salt, password);
            found | (user.name.ct_eq(&name_digest) & hash.as_bytes().ct_eq(user.hash.as_bytes()))
        });
        bool::from(found).then(|| String::from_utf8_lossy(name).into_owned())
    }

    /// Returns the methods that a user may call; `None`: all.
    pub(crate) fn allowed(&self, user: &str) -> Option<&HashSet<String>> {
        static NONE: std::sync::OnceLock<HashSet<String>> = std::sync::OnceLock::new();
        let list = self.allowed.get(user);
        list.or_else(|| self.restricted.then(|| NONE.get_or_init(HashSet::new)))
    }
}

/// Returns the value of the header for a `user:password`.
pub(crate) fn header(text: &str) -> String {
    format!("Basic {}", STANDARD.encode(text))
}

fn hmac(salt: &str, password: &[u8]) -> String {
    let mut engine = HmacEngine::<sha256::Hash>::new(salt.as_bytes());
    engine.input(password);
    Hmac::from_engine(engine).to_byte_array().to_lower_hex_string()
}

fn digest(text: &[u8]) -> [u8; 32] {
    sha256::Hash::hash(text).to_byte_array()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A user of Bitcoin Core's `rpc_users.py`, whose password is `bitcoin`.
    const HASHED: &str = "user1:6dd184e5e69271fdd69103464630014f$eb3d7ce67c4d1ff3564270519b03b636c0291012692a5fa3dd1d2075daedd07b";

    fn credentials() -> Credentials {
        let mut credentials = Credentials::default();
        credentials.add_password("__cookie__", b"abc", "salt".into());
        credentials.add_password("me", "pw🔑".as_bytes(), "other".into());
        assert!(credentials.add_hashed(HASHED));
        credentials
    }

    #[test]
    fn only_the_exact_name_and_password_are_accepted() {
        let credentials = credentials();
        for (text, user) in
            [("__cookie__:abc", "__cookie__"), ("me:pw🔑", "me"), ("user1:bitcoin", "user1")]
        {
            assert_eq!(credentials.user(header(text).as_bytes()).as_deref(), Some(user));
        }
        for wrong in ["", ":", "__cookie__:ab", "__cookie__:abcd", "me:", "me:abc", "user1:x"] {
            assert_eq!(credentials.user(header(wrong).as_bytes()), None, "{wrong}");
        }
        assert_eq!(credentials.user(b"Basic %%%"), None);
        assert_eq!(credentials.user(b""), None);
        assert_eq!(Credentials::default().user(header(":").as_bytes()), None);
    }

    #[test]
    fn malformed_users_are_refused() {
        for wrong in ["", "\"\"", "foo", "foo:bar", "foo:bar:baz", "foo$bar:baz", "foo$bar$baz"] {
            assert!(!Credentials::default().add_hashed(wrong), "{wrong}");
        }
    }

    #[test]
    fn lists_of_a_user_are_intersected_and_others_are_open_or_closed() {
        let lists = ["a:one,two, three".to_owned(), "a:two,four".to_owned(), "b".to_owned()];
        let mut credentials = credentials();
        credentials.restrict(&lists, false);
        let may = |credentials: &Credentials, user: &str, method: &str| {
            credentials.allowed(user).is_none_or(|list| list.contains(method))
        };
        assert!(may(&credentials, "a", "two") && !may(&credentials, "a", "one"));
        assert!(!may(&credentials, "b", "two") && may(&credentials, "c", "two"));
        credentials.restrict(&[], true);
        assert!(!may(&credentials, "c", "two") && may(&credentials, "a", "two"));
    }
}
