//! Command line and `bitcoin.conf`.

use std::fs;
use std::path::Path;

use cofferdam_tests::process::{free_port, run, said};

use crate::{BINARY, refusal, start, temporary};

#[test]
fn help_and_version_need_neither_node_nor_directory() {
    let dir = temporary();
    let output = |args: &[&str]| run(BINARY, dir.path(), args);
    for args in [["-h"], ["-?"], ["--help"], ["-help-debug"]] {
        let output = output(&args);
        assert!(output.status.success() && output.stderr.is_empty(), "{}", said(&output));
        let text = said(&output);
        for section in ["\nOptions:\n", "\nConnection options:\n", "\nRPC server options:\n"] {
            assert!(text.contains(section), "{text}");
        }
        assert_eq!(text.contains("  -maxtipage=<n>\n"), args == ["-help-debug"]);
    }
    let version = output(&["-version"]);
    assert!(version.status.success() && said(&version).contains("version v"), "{}", said(&version));
    assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 0);
}

#[test]
fn what_cannot_be_started_is_refused_in_bitcoind_s_words() {
    let dir = temporary();
    let typed = "Error: Error parsing command line arguments:";
    for (arg, text) in [
        ("-fakearg", format!("{typed} Invalid parameter -fakearg")),
        ("--fakearg=3", format!("{typed} Invalid parameter --fakearg=3")),
        ("-nodatadir", format!("{typed} Negating of -datadir is meaningless and therefore forbidden")),
        ("-proxy", format!("{typed} Can not set -proxy with no value. Please specify value with -proxy=value.")),
        ("-includeconf=a.conf", format!("{typed} -includeconf cannot be used from commandline; -includeconf=\"a.conf\"")),
        ("-noincludeconf=0", format!("{typed} -includeconf cannot be used from commandline; -includeconf=true")),
        ("-port=65536", "Error: Invalid port specified in -port: '65536'".into()),
        ("-port=0", "Error: Invalid port specified in -port: '0'".into()),
        ("-uacomment=a/b", "Error: User Agent comment (a/b) contains unsafe characters.".into()),
        ("-uacomment=₿", "Error: User Agent comment (₿) contains unsafe characters.".into()),
        ("-blocksdir=/no/such", "Error: Specified blocks directory \"/no/such\" does not exist.".into()),
        ("-datadir=/no/such", "Error: Specified data directory \"/no/such\" does not exist.".into()),
        ("-conf=no.conf", format!("Error: Error reading configuration file: specified config file \"{}/no.conf\" could not be opened.", dir.path().display())),
        ("-debug=abc", "Error: Unsupported logging category -debug=abc.".into()),
        ("-debugexclude=abc", "Error: Unsupported logging category -debugexclude=abc.".into()),
        ("-loglevel=abc", "Error: Unsupported global logging level -loglevel=abc. Valid values: info, debug, trace.".into()),
        ("-minimumchainwork=test", "Error: Invalid minimum work specified (test), must be up to 64 hex digits".into()),
        ("-prune=-1", "Error: Prune cannot be configured with a negative value.".into()),
        ("-prune=549", "Error: Prune configured below the minimum of 550 MiB.  Please use a higher number.".into()),
        ("-peerblockfilters", "Error: Cannot set -peerblockfilters without -blockfilterindex.".into()),
        ("-blockfilterindex=abc", "Error: Unknown -blockfilterindex value abc.".into()),
        ("-txospenderindex", "Error: -txospenderindex is not supported: this program has no index of spending transactions.".into()),
        ("-peertimeout=0", "Error: peertimeout must be a positive integer.".into()),
        ("-signet", "Error: Invalid combination of -regtest, -signet, -testnet, -testnet4 and -chain. Can use at most one.".into()),
    ] {
        assert_eq!(refusal(dir.path(), &[arg]), text);
    }
    for (args, text) in [
        (["-prune=550", "-txindex"], "Prune mode is incompatible with -txindex."),
        (
            ["-prune=550", "-reindex-chainstate"],
            "Prune mode is incompatible with -reindex-chainstate. Use full -reindex instead.",
        ),
    ] {
        assert_eq!(refusal(dir.path(), &args), format!("Error: {text}"));
    }
    // The last word on the network counts.
    let signet = |args: &[&str]| refusal(dir.path(), &[&["-noregtest", "-signet"], args].concat());
    let text = "Error: -signetchallenge must be hex, not 'abc'.";
    assert_eq!(signet(&["-signetchallenge=abc"]), text);
    let text = "Error: -signetchallenge cannot be multiple values.";
    assert_eq!(signet(&["-signetchallenge=51", "-signetchallenge=52"]), text);
    let at = format!("127.0.0.1:{}", free_port());
    let text = refusal(dir.path(), &["-listen=1", &format!("-bind={at}"), &format!("-bind={at}")]);
    assert_eq!(
        text,
        format!(
            "Error: Duplicate binding configuration for address {at}. Please check your -bind, -bind=...=onion and -whitebind settings."
        )
    );
    let long = refusal(dir.path(), &[&format!("-uacomment={}", "a".repeat(256))]);
    assert!(long.starts_with("Error: Total length of network version string ("), "{long}");
    assert!(
        long.ends_with(") exceeds maximum length (256). Reduce the number or size of uacomments."),
        "{long}"
    );
}

#[test]
fn a_broken_file_is_refused_in_bitcoind_s_words() {
    let dir = temporary();
    let file = dir.path().join("bitcoin.conf");
    let reading = "Error: Error reading configuration file:";
    for (text, refused) in [
        ("-dash=1", format!("{reading} parse error on line 1: -dash=1, options in configuration file must be specified without leading -")),
        ("\nnono", format!("{reading} parse error on line 2: nono, if you intended to specify a negated option, use nono=1 instead")),
        ("[main]\nrpcpassword=a#b", format!("{reading} parse error on line 2, using # in rpcpassword can be ambiguous and should be avoided")),
        ("conf=a", format!("{reading} conf cannot be set in the configuration file; use includeconf= if you want to include additional config files")),
        ("includeconf=none.conf", format!("{reading} Failed to include configuration file none.conf")),
        ("includeconf=.", format!("{reading} Included config file \"{}/.\" is a directory.", dir.path().display())),
        ("datadir=/no/such", String::new()),
        ("bind=127.0.0.1", "Error: Config setting for -bind only applied on regtest network when in [regtest] section.".into()),
    ] {
        fs::write(&file, text).expect("room");
        if refused.is_empty() {
            // The command line names another directory.
            start(dir.path(), &[]).stop();
        } else {
            assert_eq!(refusal(dir.path(), &[]), refused);
        }
    }
    fs::remove_file(&file).expect("there");
    fs::create_dir(&file).expect("room");
    assert_eq!(
        refusal(dir.path(), &[]),
        format!("{reading} Config file \"{}\" is a directory.", file.display())
    );
}

#[test]
fn a_node_that_is_not_told_where_listens_everywhere_and_for_the_onion_service() {
    let dir = temporary();
    let log = || crate::text(&dir.path().join("regtest/debug.log"));
    let first = free_port();
    // The next port has to be free as well.
    let (mut last, mut next) = (free_port(), free_port());
    while next != last + 1 {
        (last, next) = (next, free_port());
    }
    let ports = [format!("-port={first}"), format!("-port={last}")];
    start(dir.path(), &["-nobind", "-listen", &ports[0], &ports[1]]).stop();
    assert!(log().contains(&format!("Bound to 0.0.0.0:{last}\n")), "{}", log());
    assert!(log().contains(&format!("Bound to 127.0.0.1:{next}\n")), "{}", log());
    assert!(!log().contains(&format!("Bound to 0.0.0.0:{first}\n")), "{}", log());
    let onion = free_port();
    start(dir.path(), &[&ports[0], &format!("-bind=127.0.0.1:{onion}=onion")]).stop();
    assert!(log().contains(&format!("Bound to 127.0.0.1:{first}\n")), "{}", log());
    assert!(log().contains(&format!("Bound to 127.0.0.1:{onion}\n")), "{}", log());
}

fn agent(dir: &Path) -> (String, String) {
    let node = start(dir, &["-uacomment=typed"]);
    let agent = node.rpc("getnetworkinfo", &[])["subversion"].as_str().expect("a text").to_owned();
    let output = node.stop_and_hear();
    (agent, String::from_utf8(output.stderr).expect("UTF-8"))
}

#[test]
fn files_are_included_one_level_deep_and_in_order() {
    let dir = temporary();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).expect("room");
    write("bitcoin.conf", "uacomment=main\nincludeconf=a.conf\n[regtest]\nincludeconf=b.conf\n");
    write("a.conf", "uacomment=a\nfoo=bar\n");
    write("b.conf", "uacomment=b\n");
    let (name, heard) = agent(dir.path());
    assert!(name.ends_with("(typed; main; b; a)/"), "{name}");
    assert_eq!(heard, "");
    write("a.conf", "uacomment=a\nincludeconf=c.conf\n[what]\n");
    write("bitcoin.conf", "uacomment=main\nincludeconf=a.conf\n");
    let (name, heard) = agent(dir.path());
    assert!(name.ends_with("(typed; main; a)/"), "{name}");
    assert_eq!(
        heard.trim(),
        "warning: -includeconf cannot be used from included files; ignoring -includeconf=c.conf\n\
         Warning: a.conf:3 Section [what] is not recognized."
    );
}

#[test]
fn the_file_of_another_directory_is_not_silently_passed_over() {
    let (dir, other) = (temporary(), temporary());
    fs::write(dir.path().join("bitcoin.conf"), "").expect("room");
    let conf = other.path().join("other.conf");
    fs::write(&conf, "uacomment=other\n").expect("room");
    let option = format!("-conf={}", conf.display());
    let text = refusal(dir.path(), &[&option]);
    assert!(text.starts_with(&format!(
        "Error: Data directory \"{}\" contains a \"bitcoin.conf\" file which is ignored, because a different configuration file \"{}\" from command line argument \"{option}\" is being used instead.",
        dir.path().display(),
        conf.display()
    )), "{text}");
    start(dir.path(), &[&option, "-allowignoredconf"]).stop();
    start(dir.path(), &["-noconf"]).stop();
    let log = crate::text(&dir.path().join("regtest/debug.log"));
    assert!(log.contains("file which is explicitly ignored using -noconf."), "{log}");
}

#[test]
fn options_of_a_wallet_and_other_things_that_are_not_here_are_accepted() {
    let dir = temporary();
    fs::write(
        dir.path().join("bitcoin.conf"),
        "fallbackfee=0.0002\nkeypool=1\nunsafesqlitesync=1\nprevoutfetchthreads=1\n",
    )
    .expect("room");
    let args = [
        "-disablewallet",
        "-walletnotify=echo %h_%b > 'x'%w_%s",
        "-addresstype=legacy",
        "-deprecatedrpc=x",
        "-checkblockindex=0",
        "-nolisten=0",
    ];
    start(dir.path(), &args).stop();
    let log = crate::text(&dir.path().join("regtest/debug.log"));
    assert!(log.contains("[warning] Parsed potentially confusing double-negative -listen=0\n"));
    assert!(log.contains("Config file arg: keypool=\"1\"\n"));
}
