//! Settings of a role that runs for long: where each value comes from, and which one counts.
//!
//! ```text
//! flag ─► variable ─► file ─► default        the first that says something counts, whole
//! ```
//! A role is a table of [`Key`]s; flag, variable and key of the file have the same name and are made
//! from it, so a new setting is one line there and one where it is read. What a value must look like
//! is decided where it is read ([`Settings::one`] and its like); this file says whose value it was.
//! Invariants: a name that is not in the table is refused with the nearest one that is; a secret is
//! never printed.

mod file;
mod flags;
mod show;
#[cfg(test)]
mod tests;
mod variables;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

pub(crate) use flags::{Given, arguments, given};

use crate::failure::{Exit, Failure};

/// How alike (0 to 1) a name must be to one of ours to be suggested.
const ALIKE: f64 = 0.75;

/// How often a value may be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Once.
    One,
    /// Once; a table of the file is written `name:value;name:value`.
    Pairs,
    /// Any number of times: the flag repeated, blanks between them in a variable, a list in the file.
    Many,
    /// `true` or `false`; the flag alone is `true`.
    Switch,
}

/// One setting.
#[derive(Debug)]
pub(crate) struct Key {
    /// As the flag is called without its dashes, and the key of the file.
    pub(crate) name: &'static str,
    /// Stands for the value in the help.
    pub(crate) value: &'static str,
    pub(crate) kind: Kind,
    /// Mesos's name for it, understood everywhere beside ours (`MESOS_<NAME>` as a variable).
    pub(crate) mesos: Option<&'static str>,
    /// What counts when nobody says anything; shown as it stands.
    pub(crate) default: &'static str,
    /// Never printed, and never a flag: everybody on the machine reads command lines.
    pub(crate) secret: bool,
    /// Also of the agent within `gantry dev`.
    pub(crate) in_dev: bool,
    /// What a right value is, to be read after "it takes".
    pub(crate) takes: &'static str,
    pub(crate) help: &'static str,
    pub(crate) heading: &'static str,
}

impl Key {
    /// A key with nothing special about it.
    pub(crate) const fn new(
        name: &'static str,
        value: &'static str,
        takes: &'static str,
        help: &'static str,
    ) -> Self {
        Self {
            name,
            value,
            kind: Kind::One,
            mesos: None,
            default: "",
            secret: false,
            in_dev: false,
            takes,
            help,
            heading: "Node",
        }
    }

    pub(crate) const fn kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    pub(crate) const fn mesos(mut self, name: &'static str) -> Self {
        self.mesos = Some(name);
        self
    }

    pub(crate) const fn default(mut self, text: &'static str) -> Self {
        self.default = text;
        self
    }

    pub(crate) const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    pub(crate) const fn in_dev(mut self) -> Self {
        self.in_dev = true;
        self
    }

    pub(crate) const fn heading(mut self, heading: &'static str) -> Self {
        self.heading = heading;
        self
    }

    /// Whether a name of the file or the rest of a variable, with `_` or `-`, means this key.
    fn is_called(&self, name: &str) -> bool {
        let plain = name.replace('_', "-");
        self.name == plain || self.mesos.is_some_and(|m| m.replace('_', "-") == plain)
    }
}

/// A role with settings.
#[derive(Debug)]
pub(crate) struct Role {
    /// Its section of the file.
    pub(crate) name: &'static str,
    /// Before the names of its variables.
    pub(crate) prefix: &'static str,
    /// Whether Mesos's variables are read too.
    pub(crate) mesos: bool,
    pub(crate) keys: &'static [Key],
}

impl Role {
    fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.is_called(name))
    }

    /// The key that a wrong name may have meant, as a sentence.
    fn nearest(&self, name: &str) -> String {
        let plain = name.replace('_', "-");
        let alike = |key: &&Key| strsim::jaro_winkler(key.name, &plain);
        let nearest = self.keys.iter().map(|key| (alike(&key), key.name));
        let nearest = nearest.max_by(|a, b| a.0.total_cmp(&b.0));
        match nearest {
            Some((alike, name)) if alike >= ALIKE => format!("did you mean '{name}'?"),
            _ => format!("`gantry {} --help` lists the keys", self.name),
        }
    }
}

/// Where a value was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// A flag, with its dashes.
    Flag(String),
    /// A variable.
    Variable(String),
    /// A file's line.
    File(PathBuf, usize),
    /// Nobody said anything.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => write!(f, "flag {name}"),
            Self::Variable(name) => write!(f, "variable {name}"),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// What was said of one key.
#[derive(Debug, Clone)]
struct Found {
    texts: Vec<String>,
    source: Source,
}

/// The values that count.
#[derive(Debug)]
pub(crate) struct Settings {
    role: &'static Role,
    /// Without those that are at their default.
    found: BTreeMap<&'static str, Found>,
}

impl Settings {
    /// Joins the sources. `file` is the one that a flag named; a variable may name it too.
    pub(crate) fn read(
        role: &'static Role,
        given: Given,
        file: Option<&Path>,
        environment: impl Iterator<Item = (OsString, OsString)>,
    ) -> Result<Self, Failure> {
        let variables = variables::read(role, environment)?;
        let file = file.map(Path::to_owned).or(variables.file);
        let mut found = match file {
            Some(path) => file::read(role, &path)?,
            None => BTreeMap::new(),
        };
        found.extend(variables.found);
        found.extend(given.0);
        Ok(Self { role, found })
    }

    fn key(&self, name: &str) -> &'static Key {
        self.role
            .key(name)
            .expect("the role's own code asks for keys of its table")
    }

    fn texts(&self, key: &'static Key) -> Vec<String> {
        match self.found.get(key.name) {
            Some(found) => found.texts.clone(),
            None if key.default.is_empty() => Vec::new(),
            None => vec![key.default.to_owned()],
        }
    }

    fn source(&self, key: &'static Key) -> Source {
        let found = self.found.get(key.name);
        found.map_or(Source::Default, |found| found.source.clone())
    }

    /// What is wrong with the value of a key, as an error that names it.
    pub(crate) fn wrong(&self, name: &str, why: &str) -> Failure {
        let key = self.key(name);
        let message = if key.secret {
            format!("{} ({}): {why}", key.name, self.source(key))
        } else {
            let text = self.texts(key).join(" ");
            format!(
                "{} ({}): '{text}' is not right: {why}",
                key.name,
                self.source(key)
            )
        };
        Failure::new(Exit::Usage, message).hint(format!("it takes {}", key.takes))
    }

    /// A key that nobody said anything of, and must.
    pub(crate) fn missing(&self, name: &str) -> Failure {
        let (key, prefix) = (self.key(name), self.role.prefix);
        let variable = format!("{prefix}{}", key.name.replace('-', "_").to_uppercase());
        let message = format!("{} is not set: {}", key.name, key.help);
        Failure::new(Exit::Usage, message).hint(format!(
            "it takes {}; set it by the flag --{}, the variable {variable}, or '{}' in the section \
             [{}] of a file",
            key.takes, key.name, key.name, self.role.name
        ))
    }

    /// The value of a key that has one at most, as `parse` reads it.
    pub(crate) fn one<T, E: fmt::Display>(
        &self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Result<Option<T>, Failure> {
        let text = self.texts(self.key(name)).into_iter().next();
        let parsed = text
            .filter(|text| !text.is_empty())
            .map(|text| parse(&text));
        let parsed = parsed.transpose();
        parsed.map_err(|why| self.wrong(name, &why.to_string()))
    }

    /// The text of a key that has one at most.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        let texts = self.texts(self.key(name));
        texts.into_iter().next().filter(|text| !text.is_empty())
    }

    /// The values of a key that may have many.
    pub(crate) fn many<T, E: fmt::Display>(
        &self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Result<Vec<T>, Failure> {
        let texts = self.texts(self.key(name));
        let parsed: Result<Vec<T>, E> = texts.iter().map(|text| parse(text)).collect();
        parsed.map_err(|why| self.wrong(name, &why.to_string()))
    }

    /// A switch.
    pub(crate) fn switch(&self, name: &str) -> Result<bool, Failure> {
        let parse = |text: &str| text.parse::<bool>().map_err(|_| "it is neither");
        Ok(self.one(name, parse)?.unwrap_or_default())
    }

    /// A file or directory that must be there, as a whole path: a typing error would otherwise
    /// show only when it is needed.
    pub(crate) fn path(&self, name: &str) -> Result<Option<PathBuf>, Failure> {
        self.one(name, |text| Path::new(text).canonicalize())
    }
}
