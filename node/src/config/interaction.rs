//! What options mean for each other and for the network (`AppInitParameterInteraction` in Bitcoin
//! Core's `init.cpp`).

use cofferdam_ibd::params::Network;

use crate::settings::Settings;

/// What `-test` may name.
const TEST_OPTIONS: [&str; 3] = ["addrman", "reindex_after_failure_noninteractive_yes", "bip94"];

/// Options of Core that a user could rely on, and which do nothing here.
const WITHOUT_EFFECT: [&str; 20] = [
    "acceptnonstdtxn",
    "capturemessages",
    "i2pacceptincoming",
    "i2psam",
    "ipcbind",
    "listenonion",
    "natpmp",
    "peerbloomfilters",
    "privatebroadcast",
    "signer",
    "signetseednode",
    "torcontrol",
    "txreconciliation",
    "upnp",
    "wallet",
    "zmqpubhashblock",
    "zmqpubhashtx",
    "zmqpubrawblock",
    "zmqpubrawtx",
    "zmqpubsequence",
];

/// Refuses combinations that make no sense.
///
/// # Errors
///
/// Returns the text for the user.
pub(super) fn check(settings: &Settings, network: Network) -> Result<(), String> {
    let is_main = network == Network::Mainnet;
    for name in ["testactivationheight", "vbparams"] {
        if is_main && settings.is_set(name) {
            return Err(format!("The -{name} option may not be used on mainnet."));
        }
    }
    if !settings.all("test").is_empty() && network != Network::Regtest {
        return Err("-test=<option> can only be used with regtest".into());
    }
    if is_main && settings.flag("acceptnonstdtxn", false) {
        return Err("acceptnonstdtxn is not currently supported for main chain".into());
    }
    if settings.get("maxconnections").is_some_and(|count| count.starts_with('-')) {
        return Err("-maxconnections must be greater or equal than zero".into());
    }
    Ok(())
}

/// Returns what the user should know of options that do nothing, a line each.
pub(super) fn complaints(settings: &Settings) -> Vec<String> {
    let mut lines = Vec::new();
    if settings.is_set("checkpoints") {
        lines.push(
            "Option '-checkpoints' is set but checkpoints were removed. This option has no effect."
                .into(),
        );
    }
    for (name, what) in [("limitancestorsize", "ancestor"), ("limitdescendantsize", "descendant")] {
        if settings.is_set(name) {
            lines.push(format!("Option '-{name}' is given but {what} size limits have been replaced with cluster size limits (see -limitclustersize). This option has no effect."));
        }
    }
    let unknown = |option: &&str| !TEST_OPTIONS.contains(option);
    for option in settings.all("test").into_iter().filter(unknown) {
        lines.push(format!("Unrecognised option \"{option}\" provided in -test=<option>."));
    }
    lines.into_iter().map(|line: String| format!("Warning: {line}")).collect()
}

/// Returns what the log has to say of options that are set and taken, but mean nothing here.
pub(super) fn without_effect(settings: &Settings) -> Vec<String> {
    let asks = |name: &&&str| {
        let value = settings.get(name);
        // Without a value it is a truth value that is true.
        value.is_some_and(|value| value != "0")
    };
    let line = |name: &&str| format!("Option '-{name}' is set but has no effect in this program.");
    let mut lines: Vec<String> = WITHOUT_EFFECT.iter().filter(asks).map(line).collect();
    let names_peers = settings.all("connect").into_iter().any(|peer| peer != "0");
    if names_peers && !settings.all("seednode").is_empty() {
        lines.push("-seednode is ignored when -connect is used".into());
    }
    let seeds = settings.is_set("dnsseed") && settings.flag("dnsseed", true);
    if settings.is_set("connect") && seeds && settings.is_set("proxy") {
        lines.push("-dnsseed is ignored when -connect is used and -proxy is specified".into());
    }
    lines.extend(leads_nowhere(settings));
    lines
}

/// Returns what to say where `-onlynet` leaves no network that the node opens connections to.
fn leads_nowhere(settings: &Settings) -> Option<String> {
    let nets = settings.all("onlynet");
    let is_reached = |name: &&str| {
        let name = name.to_ascii_lowercase();
        ["ipv4", "ipv6", "cjdns"].contains(&name.as_str())
    };
    let is_cut_off = !nets.is_empty() && !nets.iter().any(is_reached);
    is_cut_off.then(|| {
        format!(
            "Option '-onlynet={}' leaves no network in which this program connects to peers by itself (ipv4, ipv6 and cjdns): it connects only to those of -connect and -addnode.",
            nets.join(",")
        )
    })
}

#[cfg(test)]
mod tests {
    use crate::config::tests::load;

    #[test]
    fn options_for_tests_are_for_networks_for_tests() {
        for (line, text) in [
            (
                "-testactivationheight=csv@1",
                "The -testactivationheight option may not be used on mainnet.",
            ),
            ("-vbparams=testdummy:0:0", "The -vbparams option may not be used on mainnet."),
            ("-signet -test=bip94", "-test=<option> can only be used with regtest"),
            ("-acceptnonstdtxn", "acceptnonstdtxn is not currently supported for main chain"),
            ("-maxconnections=-1", "-maxconnections must be greater or equal than zero"),
        ] {
            assert_eq!(load(line, "").unwrap_err(), text);
        }
        assert!(load("-signet -acceptnonstdtxn", "").is_ok());
    }

    #[test]
    fn the_log_tells_what_is_set_in_vain() {
        let warnings = |line: &str| load(line, "").unwrap().warnings;
        let line = "-regtest -zmqpubrawtx=tcp://127.0.0.1:1 -peerbloomfilters=0 -natpmp";
        let vain = |name| format!("Option '-{name}' is set but has no effect in this program.");
        assert_eq!(warnings(line), [vain("natpmp"), vain("zmqpubrawtx")]);
        for name in super::WITHOUT_EFFECT {
            let spec = crate::options::OptionSpec::find(name).unwrap();
            assert!(spec.has(crate::options::Rule::Ignored), "{name} does something");
        }
        let seeds = "-regtest -seednode=a -dnsseed -proxy=127.0.0.1:1";
        let (seed_nodes, names) = (
            "-seednode is ignored when -connect is used",
            "-dnsseed is ignored when -connect is used and -proxy is specified",
        );
        assert_eq!(warnings(seeds), [""; 0]);
        assert_eq!(warnings(&format!("{seeds} -connect=b")), [seed_nodes, names]);
        assert_eq!(warnings(&format!("{seeds} -connect=0")), [names]);
    }

    #[test]
    fn the_log_tells_of_a_node_that_connects_to_nobody() {
        let warnings =
            |line: &str| load(&format!("-regtest -proxy=127.0.0.1:1 {line}"), "").unwrap().warnings;
        let lines = warnings("-onlynet=Onion");
        assert!(lines[0].starts_with("Option '-onlynet=Onion' leaves no network"), "{lines:?}");
        assert_eq!(lines.len(), 1);
        for line in ["", "-onlynet=onion -onlynet=IPv4", "-onlynet=cjdns -cjdnsreachable"] {
            assert_eq!(warnings(line), [""; 0], "{line}");
        }
    }

    #[test]
    fn what_does_nothing_is_told() {
        assert!(load("-regtest -test=addrman", "").unwrap().complaints.is_empty());
        let complaints = load("-regtest -checkpoints=0 -test=x", "").unwrap().complaints;
        assert_eq!(
            complaints,
            [
                "Warning: Option '-checkpoints' is set but checkpoints were removed. This option has no effect.",
                "Warning: Unrecognised option \"x\" provided in -test=<option>."
            ]
        );
    }
}
