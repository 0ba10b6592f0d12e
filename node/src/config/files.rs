//! Finding and reading `bitcoin.conf` and the files it includes, in the order and with the errors
//! of Bitcoin Core (`common/init.cpp`, `common/config.cpp`).

use std::path::{Path, PathBuf};

use cofferdam_ibd::params::Network;

use super::{default_data_dir, network};
use crate::data_dir::network_dir;
use crate::settings::{FileText, OptionValue, Options, Settings, SettingsFile};

const CONF_FILE: &str = "bitcoin.conf";
const SETTINGS_FILE: &str = "settings.json";

/// Name of the network whose section has includes when the network is not known.
const MAIN: &str = "main";

/// All options, where they are from, and the data directory they name.
pub(super) struct Loaded {
    pub(super) settings: Settings,
    pub(super) network: Network,
    pub(super) data_dir: PathBuf,
    /// Lines for the log.
    pub(super) warnings: Vec<String>,
    /// Lines for the standard error.
    pub(super) complaints: Vec<String>,
    /// The configuration file, read or not; `None` with `-noconf`.
    pub(super) path: Option<PathBuf>,
    /// `settings.json`; `None` with `-nosettings`.
    pub(super) dynamic: Option<SettingsFile>,
}

/// Reads the files that the command line names.
///
/// # Errors
///
/// Returns the text for the user.
pub(super) fn load(typed: Options) -> Result<Loaded, String> {
    let settings = Settings { typed, ..Settings::default() };
    let first_dir = data_dir(&settings)
        .map_err(|dir| format!("Specified data directory \"{dir}\" does not exist."))?;
    let path = settings.path("conf", CONF_FILE).map(|path| first_dir.join(path));
    let mut reader = Reader {
        settings,
        dir: first_dir.clone(),
        warnings: Vec::new(),
        complaints: Vec::new(),
        foreign_sections: String::new(),
    };
    if let Some(path) = &path {
        reader.read(path)?;
    }
    let Reader { mut settings, mut warnings, mut complaints, foreign_sections, .. } = reader;
    if !foreign_sections.is_empty() {
        complaints.push(format!("Warning: {foreign_sections}"));
    }
    let data_dir_of = |settings: &Settings| {
        data_dir(settings)
            .map_err(|dir| in_file(&format!("specified data directory \"{dir}\" does not exist.")))
    };
    // One at the top of the file has to be there, even if that of the network's section counts.
    data_dir_of(&settings)?;
    let network = network(&settings)?;
    settings.network = network.to_string();
    let data_dir = data_dir_of(&settings)?;
    warnings.extend(ignored_file(&settings, &data_dir, &first_dir, path.as_deref())?);
    let chain_dir = data_dir.join(network_dir(network).unwrap_or_default());
    let dynamic = settings.path("settings", SETTINGS_FILE);
    let dynamic = dynamic.map(|path| SettingsFile::read(chain_dir.join(path)));
    if let Some(file) = &dynamic {
        settings.add_dynamic(file);
        warnings.extend(file.unknown());
    }
    Ok(Loaded { settings, network, data_dir, warnings, complaints, path, dynamic })
}

fn in_file(text: &str) -> String {
    format!("Error reading configuration file: {text}")
}

/// Returns the data directory, or as an error the text of one that is named and not there.
fn data_dir(settings: &Settings) -> Result<PathBuf, String> {
    let Some(path) = settings.path("datadir", "").filter(|path| !path.as_os_str().is_empty())
    else {
        return default_data_dir();
    };
    let path = std::path::absolute(path).unwrap_or_default();
    if path.is_dir() {
        return Ok(path);
    }
    Err(settings.get("datadir").unwrap_or_default().to_owned())
}

struct Reader {
    settings: Settings,
    /// What relative names of files are relative to.
    dir: PathBuf,
    warnings: Vec<String>,
    complaints: Vec<String>,
    foreign_sections: String,
}

impl Reader {
    /// Reads the main file and what it includes.
    fn read(&mut self, path: &Path) -> Result<(), String> {
        if path.is_dir() {
            return Err(in_file(&format!("Config file \"{}\" is a directory.", path.display())));
        }
        let text = match read_text(path) {
            Some(text) => text,
            None if self.settings.is_set("conf") => {
                return Err(in_file(&format!(
                    "specified config file \"{}\" could not be opened.",
                    path.display()
                )));
            }
            None => return Ok(()),
        };
        self.add(&text, path)?;
        // Only -noincludeconf can stand on the command line.
        if self.settings.typed.contains_key("includeconf") {
            return Ok(());
        }
        let chain = self.chain_name()?;
        let seen_of_chain = self.include_values(Some(&chain)).len();
        let seen_of_all = self.include_values(None).len();
        let mut names = self.includes(Some(&chain), 0);
        names.extend(self.includes(None, 0));
        for name in &names {
            self.include(name)?;
        }
        // Those that the included files name, and those of a network that they choose.
        let mut late = self.includes(Some(&chain), seen_of_chain);
        late.extend(self.includes(None, seen_of_all));
        let chosen = self.chain_name()?;
        if chosen != chain {
            late.extend(self.includes(Some(&chosen), 0));
        }
        self.complaints.extend(late.iter().map(|name| {
            format!("warning: -includeconf cannot be used from included files; ignoring -includeconf={name}")
        }));
        Ok(())
    }

    fn include(&mut self, name: &str) -> Result<(), String> {
        let path = self.dir.join(name);
        if path.is_dir() {
            return Err(in_file(&format!(
                "Included config file \"{}\" is a directory.",
                path.display()
            )));
        }
        let text = read_text(&path)
            .ok_or_else(|| in_file(&format!("Failed to include configuration file {name}")))?;
        self.add(&text, Path::new(name))?;
        self.warnings.push(format!("Included configuration file {name}"));
        Ok(())
    }

    fn add(&mut self, text: &str, path: &Path) -> Result<(), String> {
        let found = FileText::parse(text).map_err(|text| in_file(&text))?;
        self.settings.file.extend(found.entries);
        self.warnings.extend(found.warnings);
        let sections = found.sections.iter().filter(|(name, _)| name.parse::<Network>().is_err());
        let sections: Vec<String> = sections
            .map(|(name, line)| {
                format!("{}:{line} Section [{name}] is not recognized.\n", path.display())
            })
            .collect();
        self.foreign_sections.push_str(&sections.concat());
        Ok(())
    }

    /// Returns the files that a section includes, after the last negation and the first `seen` values.
    fn includes(&self, section: Option<&str>, seen: usize) -> Vec<String> {
        let values = self.include_values(section);
        let live = values.iter().rposition(|value| **value == OptionValue::Off);
        let live = live.map_or(0, |index| index + 1);
        values.iter().skip(seen.max(live)).map(|value| value.as_str().to_owned()).collect()
    }

    /// Returns what a section says of includes, negations as well.
    fn include_values(&self, section: Option<&str>) -> Vec<&OptionValue> {
        let entries = self.settings.file.iter();
        let entries = entries
            .filter(|entry| entry.section.as_deref() == section && entry.name == "includeconf");
        entries.map(|entry| &entry.value).collect()
    }

    fn chain_name(&self) -> Result<String, String> {
        Ok(network(&self.settings).map_or_else(
            |_| self.settings.get("chain").unwrap_or(MAIN).to_owned(),
            |network| network.to_string(),
        ))
    }
}

fn read_text(path: &Path) -> Option<String> {
    std::fs::read(path).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// Returns the line for the log about a `bitcoin.conf` in the data directory that is not read.
///
/// # Errors
///
/// Returns the text for the user, unless they allowed such a file.
fn ignored_file(
    settings: &Settings,
    data_dir: &Path,
    first_dir: &Path,
    path: Option<&Path>,
) -> Result<Option<String>, String> {
    let there = data_dir.join(CONF_FILE);
    let (Ok(there_real), shown) = (there.canonicalize(), data_dir.display()) else {
        return Ok(None);
    };
    let Some(path) = path else {
        return Ok(Some(format!(
            "Data directory \"{shown}\" contains a \"{CONF_FILE}\" file which is explicitly ignored using -noconf."
        )));
    };
    if path.canonicalize().is_ok_and(|real| real == there_real) {
        return Ok(None);
    }
    let source = match settings.get("conf") {
        None | Some("") => format!("data directory \"{}\"", first_dir.display()),
        Some(typed) => format!("command line argument \"-conf={typed}\""),
    };
    let text = format!(
        "Data directory \"{shown}\" contains a \"{CONF_FILE}\" file which is ignored, because a different configuration file \"{}\" from {source} is being used instead. Possible ways to address this would be to:\n\
        - Delete or rename the \"{CONF_FILE}\" file in data directory \"{shown}\".\n\
        - Change datadir= or conf= options to specify one configuration file, not two, and use includeconf= to include any other configuration files.",
        path.display()
    );
    if settings.flag("allowignoredconf", false) {
        return Ok(Some(text));
    }
    Err(format!(
        "{text}\n- Set allowignoredconf=1 option to treat this condition as a warning, not an error."
    ))
}

#[cfg(test)]
mod tests {
    use super::super::{Config, PruneMode};
    use crate::cli::Args;

    #[test]
    fn the_data_directory_is_that_of_the_network_s_section_unless_one_is_typed() {
        let dir = tempfile::tempdir().unwrap();
        let named = |name: &str| dir.path().join(name);
        for name in ["top", "section", "typed"] {
            std::fs::create_dir(named(name)).unwrap();
        }
        let of = |network: &str, typed: &[&str], top: &str| {
            let line = |name: &str| format!("datadir={}\n", named(name).display());
            let [top, section, gone] = [top, "section", "gone"].map(line);
            let text = format!("{top}[regtest]\n{section}[signet]\n{gone}");
            std::fs::write(named("a.conf"), text).unwrap();
            let conf = format!("-conf={}", named("a.conf").display());
            let mut words = vec![network.to_owned(), conf];
            words.extend(typed.iter().map(|name| format!("-datadir={}", named(name).display())));
            let args = Args::parse(words.into_iter().map(Into::into)).unwrap();
            Config::load(args.options).map(|config| config.data_dir)
        };
        assert_eq!(of("-testnet4", &[], "top"), Ok(named("top")));
        assert_eq!(of("-regtest", &[], "top"), Ok(named("section")));
        assert_eq!(of("-regtest", &["typed"], "top"), Ok(named("typed")));
        for (network, top) in [("-signet", "top"), ("-regtest", "gone")] {
            let error = format!(
                "Error reading configuration file: specified data directory \"{}\" does not exist.",
                named("gone").display()
            );
            assert_eq!(of(network, &[], top), Err(error));
        }
    }

    #[test]
    fn a_file_that_is_included_after_a_negation_is_not_told_as_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("bitcoin.conf", "includeconf=gone.conf\nnoincludeconf=1\nincludeconf=a.conf\n");
        write("a.conf", "prune=1\nincludeconf=b.conf\n");
        let word = format!("-datadir={}", dir.path().display());
        let config = Config::load(Args::parse([word.into()]).unwrap().options).unwrap();
        assert_eq!(config.blocks.prune, PruneMode::Manual);
        let ignored = "warning: -includeconf cannot be used from included files; ignoring -includeconf=b.conf";
        assert_eq!(config.complaints, [ignored]);
    }
}
