//! The categories of debug lines: Bitcoin Core's names, and which part of this code is which.

/// A category, as `-debug=` names it; an index into [`CATEGORIES`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Category(u8);

/// Names of the categories, in the order in which they are listed (Bitcoin Core's `logging.cpp`).
const CATEGORIES: [&str; 29] = [
    "addrman",
    "bench",
    "blockstorage",
    "cmpctblock",
    "coindb",
    "estimatefee",
    "http",
    "i2p",
    "ipc",
    "kernel",
    "leveldb",
    "mempool",
    "mempoolrej",
    "net",
    "privatebroadcast",
    "proxy",
    "prune",
    "qt",
    "rand",
    "reindex",
    "rpc",
    "scan",
    "selectcoins",
    "tor",
    "txpackages",
    "txreconciliation",
    "validation",
    "walletdb",
    "zmq",
];

/// What the lines of a module are, if their target says nothing else: the longest prefix counts.
const MODULES: [(&str, &str); 11] = [
    ("cofferdam_ibd", "validation"),
    ("cofferdam_ibd::block_files", "blockstorage"),
    ("cofferdam_node", "kernel"),
    ("cofferdam_node::chain", "validation"),
    ("cofferdam_node::import", "reindex"),
    ("cofferdam_node::p2p", "net"),
    ("cofferdam_node::p2p::addrman", "addrman"),
    ("cofferdam_node::prune", "prune"),
    ("cofferdam_node::rpc", "rpc"),
    ("cofferdam_node::rpc::http", "http"),
    ("cofferdam_storage", "coindb"),
];

impl Category {
    /// Returns the category of a line with this target: the name of a category, or a module.
    pub(crate) fn of_target(target: &str) -> Option<Self> {
        Self::named(target).or_else(|| {
            let owns = |module: &str| {
                target
                    .strip_prefix(module)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
            };
            let modules = MODULES.iter().filter(|(module, _)| owns(module));
            Self::named(modules.max_by_key(|(module, _)| module.len())?.1)
        })
    }

    /// Returns the category of that name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let index = CATEGORIES.iter().position(|category| *category == name)?;
        u8::try_from(index).ok().map(Self)
    }

    /// Returns all categories.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..).zip(CATEGORIES).map(|(index, _)| Self(index))
    }

    /// Returns the name.
    pub(crate) fn name(self) -> &'static str {
        CATEGORIES.get(usize::from(self.0)).copied().unwrap_or_default()
    }
}

/// Returns the names of all categories, for texts.
pub(crate) fn names() -> String {
    CATEGORIES.join(", ")
}

/// How much is written of each category.
///
/// What is not enabled is written from the level `info` on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Filter {
    enabled: [bool; CATEGORIES.len()],
    /// Level of the categories that have none of their own, and those that have.
    level: tracing::Level,
    levels: [Option<tracing::Level>; CATEGORIES.len()],
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            enabled: [false; CATEGORIES.len()],
            level: tracing::Level::DEBUG,
            levels: [None; CATEGORIES.len()],
        }
    }
}

impl Filter {
    /// Returns whether a line is written.
    pub(crate) fn shows(&self, category: Category, level: tracing::Level) -> bool {
        let index = usize::from(category.0);
        let most = self.levels.get(index).copied().flatten().unwrap_or(self.level);
        level <= tracing::Level::INFO || (self.is_enabled(category) && level <= most)
    }

    /// Returns whether the debug lines of a category are written.
    pub(crate) fn is_enabled(&self, category: Category) -> bool {
        self.enabled.get(usize::from(category.0)).copied().unwrap_or_default()
    }

    /// Returns whether no debug lines are written at all.
    pub(crate) fn is_empty(&self) -> bool {
        !self.enabled.contains(&true)
    }

    /// Switches a category on or off, or all (`1`, `all` or nothing); returns whether there is such.
    pub(crate) fn set(&mut self, name: &str, on: bool) -> bool {
        if matches!(name, "" | "1" | "all") {
            self.enabled.fill(on);
            return true;
        }
        match Category::named(name) {
            Some(Category(index)) => {
                if let Some(flag) = self.enabled.get_mut(usize::from(index)) {
                    *flag = on;
                }
                true
            }
            // What Bitcoin Core had once, and still accepts.
            None => name == "libevent",
        }
    }

    /// Sets the level of all categories: `LEVEL`, or of one: `CATEGORY:LEVEL`.
    ///
    /// # Errors
    ///
    /// Returns the text for the user.
    pub(crate) fn set_level(&mut self, text: &str) -> Result<(), String> {
        let Some((name, level)) = text.split_once(':') else {
            self.level = level_named(text).ok_or_else(|| {
                format!(
                    "Unsupported global logging level -loglevel={text}. Valid values: {LEVELS}."
                )
            })?;
            return Ok(());
        };
        match (Category::named(name), level_named(level)) {
            (Some(Category(index)), Some(level)) => {
                if let Some(own) = self.levels.get_mut(usize::from(index)) {
                    *own = Some(level);
                }
                Ok(())
            }
            _ => Err(format!(
                "Unsupported category-specific logging level -loglevel={text}. Expected -loglevel=<category>:<loglevel>. Valid categories: {}. Valid loglevels: {LEVELS}.",
                names()
            )),
        }
    }
}

/// Levels that a user may choose.
const LEVELS: &str = "info, debug, trace";

fn level_named(name: &str) -> Option<tracing::Level> {
    match name {
        "info" => Some(tracing::Level::INFO),
        "debug" => Some(tracing::Level::DEBUG),
        "trace" => Some(tracing::Level::TRACE),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_of_the_category_it_names_or_of_its_module_s() {
        let name = |target| Category::of_target(target).map(Category::name);
        assert_eq!(name("mempool"), Some("mempool"));
        assert_eq!(name("cofferdam_node::p2p::peer"), Some("net"));
        assert_eq!(name("cofferdam_node::p2p::addrman::table"), Some("addrman"));
        assert_eq!(name("cofferdam_node::clock"), Some("kernel"));
        assert_eq!(name("cofferdam_ibd"), Some("validation"));
        assert_eq!(name("cofferdam_ibdx"), None);
        assert_eq!(name("hyper::proto"), None);
        for (_, category) in MODULES {
            assert!(Category::named(category).is_some(), "{category}");
        }
    }

    #[test]
    fn a_category_has_the_level_of_all_or_its_own() {
        let (net, rpc) = (Category::named("net").unwrap(), Category::named("rpc").unwrap());
        let mut filter = Filter::default();
        assert!(filter.shows(net, tracing::Level::INFO));
        assert!(!filter.shows(net, tracing::Level::DEBUG));
        assert!(filter.set("1", true) && filter.set("rpc", false) && !filter.set("abc", true));
        assert!(filter.shows(net, tracing::Level::DEBUG));
        assert!(!filter.shows(net, tracing::Level::TRACE));
        assert!(!filter.shows(rpc, tracing::Level::DEBUG));
        filter.set_level("trace").unwrap();
        filter.set_level("net:info").unwrap();
        assert!(!filter.shows(net, tracing::Level::DEBUG));
        assert!(filter.set("rpc", true) && filter.shows(rpc, tracing::Level::TRACE));
        assert_eq!(
            filter.set_level("abc").unwrap_err(),
            "Unsupported global logging level -loglevel=abc. Valid values: info, debug, trace."
        );
        assert!(filter.set_level("net:abc").unwrap_err().starts_with(
            "Unsupported category-specific logging level -loglevel=net:abc. Expected -loglevel=<category>:<loglevel>. Valid categories: addrman, "
        ));
    }
}
