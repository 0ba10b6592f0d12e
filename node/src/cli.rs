//! What was typed: `bitcoind`'s option syntax, and subcommands.
//!
//! `bitcoind` writes long options with one dash and negates with a prefix (`-nolisten`); clap knows
//! neither. [`Args::parse`] therefore reads the options itself, before and after the subcommand, by
//! the rules of `common/args.cpp`, and leaves the subcommands to clap.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::styling::Styles;
use clap::{Arg, ArgAction, Command as Clap};
use clap_complete::Shell;

use crate::options::{OptionSpec, Rule, SECTIONS, help};
use crate::settings::{Key, OptionValue, Options};
use crate::tools::Tool;

/// What to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// Run a node (the default).
    Sync,
    /// Read block files into the data directory.
    Import {
        /// The files, in any order.
        files: Vec<PathBuf>,
    },
    /// Call a method of a running node.
    Rpc {
        /// The method.
        method: String,
        /// Its arguments as typed.
        args: Vec<String>,
    },
    /// Show a running node on one screen.
    Status,
    /// Look at what a node has left on a disk.
    Tool(Tool),
    /// Print this text (help or version) and exit.
    Print(String),
}

/// The command line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Args {
    /// What to do.
    pub command: Command,
    /// The options, by name.
    pub options: Options,
    /// What is odd about the options, for the log.
    pub warnings: Vec<String>,
}

impl Args {
    /// Parses a command line, the program's own name left out.
    ///
    /// # Errors
    ///
    /// Returns the text for the user, in `bitcoind`'s words where it has some.
    pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Self, String> {
        let Typed { options, warnings, mut rest } = Typed::split(words)
            .map_err(|text| format!("Error parsing command line arguments: {text}"))?;
        let done = |command, options| Ok(Self { command, options, warnings: warnings.clone() });
        if let Some(text) = text_asked_for(&options) {
            return done(Command::Print(text), options);
        }
        if let Some(first) = rest.first().and_then(|word| word.to_str())
            && clap_command().find_subcommand(first).is_none()
        {
            return Err(format!(
                "Command line contains unexpected token '{first}', see cofferdam -h for a list of options."
            ));
        }
        rest.insert(0, "cofferdam".into());
        match clap_command().try_get_matches_from(rest) {
            Ok(matches) => match command(&matches) {
                Command::Import { files }
                    if files.is_empty() && !options.contains_key("from-core") =>
                {
                    Err("import needs block files, or --from-core DIR".into())
                }
                command => done(command, options),
            },
            Err(error) if !error.use_stderr() => done(Command::Print(error.to_string()), options),
            Err(error) => {
                let text = error.render().to_string();
                Err(text.strip_prefix("error: ").unwrap_or(&text).trim_end().to_owned())
            }
        }
    }
}

/// Returns the help or the version, if the options ask for one of them.
fn text_asked_for(options: &Options) -> Option<String> {
    let version = format!("Cofferdam version v{}\n", env!("CARGO_PKG_VERSION"));
    if options.get("version").and_then(|values| values.last()).is_some_and(OptionValue::as_bool) {
        return Some(version);
    }
    let is_set = |name: &str| options.contains_key(name);
    let debug = is_set("help-debug");
    let asked = debug || ["help", "h", "?"].into_iter().any(is_set);
    asked.then(|| {
        let usage = "Usage: cofferdam [options] [command]";
        let commands = clap_command();
        let commands = commands.get_subcommands().filter_map(|command| {
            Some(format!("  {}\n       {}\n\n", command.get_name(), command.get_about()?))
        });
        let commands: String = commands.collect();
        format!("{version}\n{usage}\n\nCommands:\n\n{commands}{}", help(debug))
    })
}

/// The words of a command line, options apart from the rest.
#[derive(Default)]
struct Typed {
    options: Options,
    warnings: Vec<String>,
    rest: Vec<OsString>,
}

impl Typed {
    fn split(words: impl IntoIterator<Item = OsString>) -> Result<Self, String> {
        let mut typed = Self::default();
        let mut only_rest = false;
        for word in words {
            // Whatever follows `rpc METHOD` are arguments of the method: -1 is a number there.
            only_rest |= typed.rest.len() == 2 && typed.rest.first().is_some_and(|w| w == "rpc");
            let text = word.to_str().filter(|text| text.starts_with('-') && text.len() > 1);
            match text {
                Some("--") if !only_rest => only_rest = true,
                Some(text) if !only_rest => typed.option(text)?,
                _ => typed.rest.push(word),
            }
        }
        typed.refuse_includes()?;
        Ok(typed)
    }

    /// Adds the option of a word `-name`, `--name=value` or `-noname`.
    fn option(&mut self, text: &str) -> Result<(), String> {
        let bare = text.strip_prefix("--").or_else(|| text.strip_prefix('-')).unwrap_or(text);
        let (name, value) = match bare.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (bare, None),
        };
        let key = Key::parse(name);
        let spec = OptionSpec::find(key.name).filter(|_| key.section.is_none());
        let spec = spec.ok_or_else(|| format!("Invalid parameter {text}"))?;
        let value = key.value(spec, value, &mut self.warnings)?;
        self.options.entry(spec.name.to_owned()).or_default().push(value);
        Ok(())
    }

    fn refuse_includes(&self) -> Result<(), String> {
        let values = self.options.get("includeconf").map(Vec::as_slice).unwrap_or_default();
        // -noincludeconf takes back those before it.
        match values.rsplit(|value| *value == OptionValue::Off).next().and_then(<[_]>::first) {
            None | Some(OptionValue::Off) => Ok(()),
            Some(value) => {
                let shown = match value {
                    OptionValue::Text(text) => serde_json::Value::from(text.as_str()).to_string(),
                    _ => "true".to_owned(),
                };
                Err(format!("-includeconf cannot be used from commandline; -includeconf={shown}"))
            }
        }
    }
}

fn clap_command() -> Clap {
    let mut command = Clap::new("cofferdam")
        .about("Downloads, verifies and keeps a Bitcoin chain")
        .styles(Styles::plain())
        .disable_help_flag(true)
        .disable_help_subcommand(true)
        .next_help_heading("Options (one dash or two; -noNAME is -NAME=0)")
        .subcommand(Clap::new("sync").about("Run a node (the default)").disable_help_flag(true))
        .subcommand(
            Clap::new("import")
                .about("Read block files (blk*.dat) into the data directory")
                .disable_help_flag(true)
                .arg(Arg::new("FILE").num_args(1..).value_parser(clap::value_parser!(PathBuf))),
        )
        .subcommand(
            Clap::new("rpc").about("Call a method of a running node").disable_help_flag(true).arg(
                Arg::new("METHOD")
                    .required(true)
                    .num_args(1..)
                    .trailing_var_arg(true)
                    .allow_hyphen_values(true)
                    .value_name("METHOD [ARGS]"),
            ),
        )
        .subcommand(
            Clap::new("status").about("Show a running node on one screen").disable_help_flag(true),
        )
        .subcommand(Clap::new("man").about("Print the manual page (roff)").disable_help_flag(true))
        .subcommand(
            Clap::new("completions")
                .about("Print completions for bash, zsh, fish, elvish or powershell")
                .disable_help_flag(true)
                .arg(Arg::new("SHELL").required(true).value_parser(clap::value_parser!(Shell))),
        )
        .subcommands([
            wal_command(),
            db_command(),
            #[cfg(feature = "bench")]
            bench_command(),
        ]);
    for spec in SECTIONS.iter().flat_map(|section| section.options) {
        command = command.arg(
            Arg::new(spec.name)
                .long(spec.name)
                .help(spec.help)
                .value_name(if spec.value.is_empty() { "0|1" } else { spec.value })
                .num_args(1)
                .require_equals(true)
                .allow_hyphen_values(true)
                .action(ArgAction::Append)
                .hide(spec.has(Rule::Ignored)),
        );
    }
    command
}

/// The manual page, out of the same table as the help.
fn manual_page() -> String {
    let mut page = Vec::new();
    // Nothing fails that is written to memory.
    let _ = clap_mangen::Man::new(clap_command()).render(&mut page);
    String::from_utf8_lossy(&page).into_owned()
}

fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut clap_command(), "cofferdam", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

fn wal_command() -> Clap {
    let action = |name, about| {
        Clap::new(name)
            .about(about)
            .disable_help_flag(true)
            .arg(Arg::new("DIR").required(true).value_parser(clap::value_parser!(PathBuf)))
    };
    Clap::new("wal")
        .about("Look at a write-ahead log: wal inspect DIR, wal verify DIR, wal dump DIR [LSN]")
        .disable_help_flag(true)
        .subcommand_required(true)
        .subcommand(action("inspect", "List the segments"))
        .subcommand(action("verify", "Check every record"))
        .subcommand(
            action("dump", "List the records, or one with its keys and values")
                .arg(Arg::new("LSN").value_parser(clap::value_parser!(u64))),
        )
}

fn db_command() -> Clap {
    Clap::new("db")
        .about("Look at a chain state: db stats DIR")
        .disable_help_flag(true)
        .subcommand_required(true)
        .subcommand(
            Clap::new("stats")
                .about("Engine, position, entries and sizes")
                .disable_help_flag(true)
                .arg(Arg::new("DIR").required(true).value_parser(clap::value_parser!(PathBuf))),
        )
}

#[cfg(feature = "bench")]
fn bench_command() -> Clap {
    let number = |name| Arg::new(name).value_parser(clap::value_parser!(u64));
    Clap::new("bench")
        .about("Make what is measured: bench gen DIR [signed|growing] [BLOCKS] [SEED]")
        .disable_help_flag(true)
        .subcommand_required(true)
        .subcommand(
            Clap::new("gen")
                .about("Write block files of a made chain of regtest, of full blocks")
                .disable_help_flag(true)
                .arg(Arg::new("DIR").required(true).value_parser(clap::value_parser!(PathBuf)))
                .arg(Arg::new("PROFILE").value_parser(["signed", "growing"]))
                .arg(Arg::new("BLOCKS").value_parser(clap::value_parser!(u32).range(1..)))
                .arg(number("SEED")),
        )
}

#[cfg(feature = "bench")]
fn generate(dir: PathBuf, matches: &clap::ArgMatches) -> Tool {
    /// Some 130 MB of signed blocks.
    const BLOCKS: u32 = 100;
    let profile = matches.get_one::<String>("PROFILE").map_or("signed", String::as_str);
    Tool::BenchGenerate(crate::tools::Generate {
        dir,
        profile: profile.to_owned(),
        blocks: matches.get_one("BLOCKS").copied().unwrap_or(BLOCKS),
        seed: matches.get_one("SEED").copied().unwrap_or(1),
    })
}

/// The tool that `wal ACTION` or `db ACTION` names.
fn tool(group: &str, matches: &clap::ArgMatches) -> Option<Tool> {
    let (action, matches) = matches.subcommand()?;
    let dir = matches.get_one::<PathBuf>("DIR")?.clone();
    match (group, action) {
        ("wal", "inspect") => Some(Tool::WalInspect { dir }),
        ("wal", "verify") => Some(Tool::WalVerify { dir }),
        ("wal", "dump") => Some(Tool::WalDump { dir, lsn: matches.get_one("LSN").copied() }),
        ("db", "stats") => Some(Tool::DbStats { dir }),
        #[cfg(feature = "bench")]
        ("bench", "gen") => Some(generate(dir, matches)),
        _ => None,
    }
}

fn command(matches: &clap::ArgMatches) -> Command {
    match matches.subcommand() {
        Some(("import", matches)) => Command::Import {
            files: matches.get_many("FILE").into_iter().flatten().cloned().collect(),
        },
        Some(("status", _)) => Command::Status,
        Some(("man", _)) => Command::Print(manual_page()),
        Some(("completions", matches)) => Command::Print(
            matches.get_one::<Shell>("SHELL").copied().map_or_else(String::new, completions),
        ),
        Some(("rpc", matches)) => {
            let mut words = matches.get_many::<String>("METHOD").into_iter().flatten().cloned();
            Command::Rpc { method: words.next().unwrap_or_default(), args: words.collect() }
        }
        Some((group, matches)) => tool(group, matches).map_or(Command::Sync, Command::Tool),
        None => Command::Sync,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, String> {
        Args::parse(line.split_whitespace().map(OsString::from))
    }

    fn values<'a>(args: &'a Args, name: &str) -> Vec<&'a str> {
        args.options.get(name).into_iter().flatten().map(OptionValue::as_str).collect()
    }

    #[test]
    fn one_dash_two_dashes_and_negation_mean_the_same() {
        let args =
            parse("-regtest --datadir=/x -connect=a -connect=b -nolisten -noserver=0").unwrap();
        assert_eq!(args.command, Command::Sync);
        assert_eq!(values(&args, "regtest"), [""]);
        assert_eq!(values(&args, "datadir"), ["/x"]);
        assert_eq!(values(&args, "connect"), ["a", "b"]);
        assert_eq!(values(&args, "listen"), ["0"]);
        assert_eq!(values(&args, "server"), ["1"]);
        assert_eq!(args.warnings, ["Parsed potentially confusing double-negative -server=0"]);
    }

    #[test]
    fn options_may_stand_before_and_after_the_subcommand() {
        let args = parse("-regtest import -dbcache=10 a.dat b.dat -par=1").unwrap();
        let files = vec![PathBuf::from("a.dat"), PathBuf::from("b.dat")];
        assert_eq!(args.command, Command::Import { files });
        assert_eq!(values(&args, "dbcache"), ["10"]);
        assert_eq!(values(&args, "par"), ["1"]);
    }

    #[test]
    fn words_after_an_rpc_method_are_its_arguments() {
        let args = parse("rpc -regtest getblock 00ff -1 --named").unwrap();
        let words = ["00ff", "-1", "--named"].map(str::to_owned).to_vec();
        assert_eq!(args.command, Command::Rpc { method: "getblock".into(), args: words });
        assert_eq!(values(&args, "regtest"), [""]);
    }

    #[test]
    fn manual_page_and_completions_have_every_option() {
        for line in ["man", "completions bash", "completions zsh", "completions fish"] {
            let Command::Print(text) = parse(line).unwrap().command else { panic!("{line}") };
            let text = text.replace("\\-", "-");
            let specs = SECTIONS.iter().filter(|section| !section.title.is_empty());
            let specs = specs.flat_map(|section| section.options);
            let shown: Vec<&str> =
                specs.filter(|spec| !spec.has(Rule::Ignored)).map(|spec| spec.name).collect();
            assert!(shown.len() > 100, "{}", shown.len());
            for part in shown.into_iter().chain(["status", "import"]) {
                let is_end = |rest: &str| {
                    !rest.starts_with(|next: char| next.is_ascii_alphanumeric() || next == '-')
                };
                let mut found = text.match_indices(part);
                assert!(found.any(|(at, _)| is_end(&text[at + part.len()..])), "{part} in {line}");
            }
        }
        assert!(parse("completions cobol").is_err());
        assert_eq!(parse("-regtest status").unwrap().command, Command::Status);
    }

    #[test]
    fn tools_name_a_directory() {
        let dir = || PathBuf::from("d");
        for (line, tool) in [
            ("wal inspect d", Tool::WalInspect { dir: dir() }),
            ("wal verify d", Tool::WalVerify { dir: dir() }),
            ("wal dump d", Tool::WalDump { dir: dir(), lsn: None }),
            ("wal dump d 7", Tool::WalDump { dir: dir(), lsn: Some(7) }),
            ("db stats d", Tool::DbStats { dir: dir() }),
        ] {
            assert_eq!(parse(line).unwrap().command, Command::Tool(tool), "{line}");
        }
        for line in ["wal", "wal frob d", "wal inspect", "wal dump d x", "db", "db stats"] {
            assert!(parse(line).is_err(), "{line}");
        }
        assert_eq!(parse("sync").unwrap().command, Command::Sync);
    }

    #[test]
    fn unknown_options_are_named_as_typed() {
        let text = "Error parsing command line arguments:";
        for (line, error) in [
            ("-fakearg=3", "Invalid parameter -fakearg=3"),
            ("--nofake", "Invalid parameter --nofake"),
            ("-regtest.port=1", "Invalid parameter -regtest.port=1"),
            ("-nodatadir", "Negating of -datadir is meaningless and therefore forbidden"),
            (
                "-loglevel",
                "Can not set -loglevel with no value. Please specify value with -loglevel=value.",
            ),
            ("-includeconf=a", "-includeconf cannot be used from commandline; -includeconf=\"a\""),
            ("-noincludeconf=0", "-includeconf cannot be used from commandline; -includeconf=true"),
        ] {
            assert_eq!(parse(line).unwrap_err(), format!("{text} {error}"));
        }
        assert!(parse("-includeconf=a -noincludeconf").is_ok());
        assert!(parse("frobnicate").unwrap_err().contains("unexpected token 'frobnicate'"));
        assert!(parse("import").is_err());
    }

    #[test]
    fn help_and_version_are_texts() {
        let Command::Print(help) = parse("-h").unwrap().command else { panic!("help") };
        assert!(help.contains("Options:\n") && help.contains("  -datadir=<dir>\n"));
        let Command::Print(version) = parse("-version").unwrap().command else { panic!("version") };
        assert!(version.contains("version"));
    }

    #[test]
    fn the_framework_command_line_is_accepted() {
        parse(
            "-datadir=/tmp/node0 -logtimemicros -debug -debugexclude=leveldb -debugexclude=rand \
             -uacomment=testnode0 -disablewallet -logthreadnames -logsourcelocations -loglevel=trace \
             -nologratelimit -v2transport=0 -bind=0.0.0.0:11000 -bind=127.0.0.1:11001=onion",
        )
        .unwrap();
    }
}
