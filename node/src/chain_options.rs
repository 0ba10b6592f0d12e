//! The network's rules, as the options for tests change them (`chainparams.cpp` of Bitcoin Core).

use bitcoin::hex::FromHex as _;
use bitcoin::{ScriptBuf, Work};
use cofferdam_ibd::{ChainParams, Network};

use crate::settings::Settings;

/// Returns the rules of the network.
///
/// # Errors
///
/// Returns the text for the user.
pub(crate) fn chain_params(settings: &Settings, network: Network) -> Result<ChainParams, String> {
    let mut params = match signet_challenge(settings, network)? {
        Some(challenge) => ChainParams::signet(challenge),
        None => ChainParams::new(network),
    };
    for text in settings.all("testactivationheight") {
        params = params.with_activation_height(text).map_err(|error| error.to_string())?;
    }
    for text in settings.all("vbparams") {
        params = params.with_version_bits(text).map_err(|error| error.to_string())?;
    }
    // Other names do not concern the rules. Elsewhere than on regtest there are none.
    params.enforce_bip94 |= settings.all("test").contains(&"bip94");
    if let Some(work) = minimum_chain_work(settings)? {
        params.minimum_chain_work = work;
    }
    Ok(params)
}

fn signet_challenge(settings: &Settings, network: Network) -> Result<Option<ScriptBuf>, String> {
    if network != Network::Signet {
        // As in Bitcoin Core, which looks at it on a signet only.
        return Ok(None);
    }
    match *settings.all("signetchallenge").as_slice() {
        [] => Ok(None),
        [hex] => {
            let bytes = Vec::from_hex(hex)
                .map_err(|_| format!("-signetchallenge must be hex, not '{hex}'."))?;
            Ok(Some(ScriptBuf::from_bytes(bytes)))
        }
        _ => Err("-signetchallenge cannot be multiple values.".into()),
    }
}

fn minimum_chain_work(settings: &Settings) -> Result<Option<Work>, String> {
    let Some(text) = settings.get("minimumchainwork") else {
        return Ok(None);
    };
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let padded = format!("{digits:0>64}");
    <[u8; 32]>::from_hex(&padded).map(|bytes| Some(Work::from_be_bytes(bytes))).map_err(|_| {
        format!("Invalid minimum work specified ({text}), must be up to 64 hex digits")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::OptionValue;

    fn params(network: Network, options: &[(&str, &str)]) -> Result<ChainParams, String> {
        let mut settings = Settings { network: network.to_string(), ..Settings::default() };
        for (name, value) in options {
            let value = OptionValue::Text((*value).to_owned());
            settings.typed.entry((*name).to_owned()).or_default().push(value);
        }
        chain_params(&settings, network)
    }

    #[test]
    fn the_rules_of_networks_for_tests_can_be_moved() {
        let options = [
            ("testactivationheight", "segwit@300"),
            ("testactivationheight", "csv@432"),
            ("vbparams", "testdummy:5:9:144"),
        ];
        for network in Network::ALL.into_iter().filter(|network| *network != Network::Mainnet) {
            let moved = params(network, &options).unwrap();
            assert_eq!((moved.segwit_height, moved.csv_height), (300, 432), "{network}");
            let testdummy = &moved.deployments[0];
            assert_eq!((testdummy.start_time, testdummy.timeout), (5, 9), "{network}");
        }
        assert!(params(Network::Regtest, &[("test", "bip94")]).unwrap().enforce_bip94);
        assert!(!params(Network::Regtest, &[]).unwrap().enforce_bip94);
        let error = params(Network::Regtest, &[("vbparams", "x")]).unwrap_err();
        assert!(error.starts_with("Version bits parameters malformed"), "{error}");
        let error = params(Network::Regtest, &[("testactivationheight", "x@1")]).unwrap_err();
        assert_eq!(error, "Invalid name (x@1) for -testactivationheight=name@height.");
    }

    #[test]
    fn a_signet_may_have_a_challenge_of_its_own() {
        let own = params(Network::Signet, &[("signetchallenge", "51")]).unwrap();
        assert_eq!(own.signet_challenge.as_ref().map(|script| script.to_bytes()), Some(vec![0x51]));
        assert_eq!((own.dns_seeds.len(), own.assume_valid), (0, None));
        assert_ne!(own.magic, params(Network::Signet, &[]).unwrap().magic);
        let error = params(Network::Signet, &[("signetchallenge", "x")]).unwrap_err();
        assert_eq!(error, "-signetchallenge must be hex, not 'x'.");
        let twice = [("signetchallenge", "51"), ("signetchallenge", "52")];
        let error = params(Network::Signet, &twice).unwrap_err();
        assert_eq!(error, "-signetchallenge cannot be multiple values.");
    }

    #[test]
    fn the_minimum_work_is_hexadecimal() {
        let least = |text| params(Network::Regtest, &[("minimumchainwork", text)]);
        assert_eq!(least("0x65").unwrap().minimum_chain_work.to_be_bytes()[31], 0x65);
        assert_eq!(
            least("test").unwrap_err(),
            "Invalid minimum work specified (test), must be up to 64 hex digits"
        );
    }
}
