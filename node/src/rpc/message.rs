//! Signed messages: made with a private key, verified with an address.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bitcoin::hashes::Hash as _;
use bitcoin::secp256k1::{Message, Secp256k1};
use bitcoin::sign_message::{MessageSignature, signed_msg_hash};
use bitcoin::{Address, AddressType, NetworkKind, PrivateKey};
use serde_json::json;

use super::call::{Args, text};
use super::{Context, Method, RpcError, RpcResult, code};

pub(super) const METHODS: &[Method] = &[
    Method {
        name: "signmessagewithprivkey",
        params: &[text("privkey"), text("message")],
        run: sign,
    },
    Method {
        name: "verifymessage",
        params: &[text("address"), text("signature"), text("message")],
        run: verify,
    },
];

fn sign(context: &Context, args: &Args) -> RpcResult {
    let kind = NetworkKind::from(context.chain.params().network.to_bitcoin());
    let key = PrivateKey::from_wif(args.text(0)?).ok().filter(|key| key.network == kind);
    let key =
        key.ok_or_else(|| RpcError::new(code::INVALID_ADDRESS_OR_KEY, "Invalid private key"))?;
    Ok(json!(signed(&key, args.text(1)?)))
}

fn verify(context: &Context, args: &Args) -> RpcResult {
    let network = context.chain.params().network.to_bitcoin();
    let invalid = || RpcError::new(code::INVALID_ADDRESS_OR_KEY, "Invalid address");
    let address: Address<_> = args.text(0)?.parse().map_err(|_| invalid())?;
    let address = address.require_network(network).map_err(|_| invalid())?;
    if address.address_type() != Some(AddressType::P2pkh) {
        return Err(RpcError::new(code::TYPE_ERROR, "Address does not refer to key"));
    }
    let signature = STANDARD
        .decode(args.text(1)?)
        .map_err(|_| RpcError::new(code::TYPE_ERROR, "Malformed base64 encoding"))?;
    Ok(json!(is_signed(&address, &signature, args.text(2)?)))
}

fn signed(key: &PrivateKey, message: &str) -> String {
    let hash = Message::from_digest(signed_msg_hash(message).to_byte_array());
    let signature = Secp256k1::signing_only().sign_ecdsa_recoverable(&hash, &key.inner);
    STANDARD.encode(MessageSignature::new(signature, key.compressed).serialize())
}

fn is_signed(address: &Address, signature: &[u8], message: &str) -> bool {
    let secp = Secp256k1::verification_only();
    let Ok(signature) = MessageSignature::from_slice(signature) else { return false };
    let by_address = signature.is_signed_by_address(&secp, address, signed_msg_hash(message));
    by_address.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of Bitcoin Core's `rpc_signmessagewithprivkey.py`.
    #[test]
    fn a_message_is_signed_and_verified_as_core_does() {
        let key = PrivateKey::from_wif("cUeKHd5orzT3mz8P9pxyREHfsWtVfgsfDjiZZBcjUBAaGk1BTj7N");
        let message = "This is just a test message";
        let signature = signed(&key.unwrap(), message);
        assert_eq!(
            signature,
            "INbVnW4e6PeRmsv2Qgu8NuopvrVjkcxob+sX8OcZG0SALhWybUjzMLPdAsXI46YZGb0KQTRii+wWIQzRpG/U+S0="
        );
        let address: Address<_> = "mpLQjfK79b7CCV4VMJWEWAj5Mpx8Up5zxB".parse().unwrap();
        let (address, signature) = (address.assume_checked(), STANDARD.decode(signature).unwrap());
        assert!(is_signed(&address, &signature, message));
        assert!(!is_signed(&address, &signature, "This is just another test message"));
        assert!(!is_signed(&address, &signature[1..], message));
    }
}
