//! Settings as flags: made from the table of a role, and read back.

use std::collections::BTreeMap;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};

use super::{Found, Key, Kind, Source};

/// What flags said.
#[derive(Debug, Clone, Default)]
pub(crate) struct Given(pub(super) BTreeMap<&'static str, Found>);

/// Adds the flags of some keys to a command.
pub(crate) fn arguments<'a>(
    command: Command,
    prefix: &str,
    keys: impl Iterator<Item = &'a Key>,
) -> Command
where
    'a: 'static,
{
    let visible = keys.filter(|key| !key.secret);
    visible.fold(command, |command, key| command.arg(argument(prefix, key)))
}

fn argument(prefix: &str, key: &'static Key) -> Arg {
    let default = match key.default {
        "" => String::new(),
        text => format!(" [default: {text}]"),
    };
    let variable = key.name.replace('-', "_").to_uppercase();
    let arg = Arg::new(key.name)
        .long(key.name)
        .value_name(key.value)
        .help(format!("{}{default}", key.help))
        .long_help(format!(
            "{}{default}\nTakes {}; or by the variable {prefix}{variable}",
            key.help, key.takes
        ))
        .help_heading(key.heading);
    let arg = match key.kind {
        Kind::One | Kind::Pairs => arg.action(ArgAction::Set),
        Kind::Many => arg.action(ArgAction::Append),
        Kind::Switch => arg
            .action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true"),
    };
    arg.aliases(other_names(key))
}

/// With underscores, and as Mesos calls it.
fn other_names(key: &'static Key) -> Vec<String> {
    let mut names = vec![key.name.replace('-', "_")];
    if let Some(mesos) = key.mesos {
        names.extend([mesos.to_owned(), mesos.replace('_', "-")]);
    }
    names.retain(|name| name != key.name);
    names.sort();
    names.dedup();
    names
}

/// What the flags of some keys said.
pub(crate) fn given<'a>(matches: &ArgMatches, keys: impl Iterator<Item = &'a Key>) -> Given
where
    'a: 'static,
{
    let mut found = BTreeMap::new();
    for key in keys.filter(|key| !key.secret) {
        if matches.value_source(key.name) != Some(ValueSource::CommandLine) {
            continue;
        }
        let texts = matches.get_many::<String>(key.name).into_iter().flatten();
        let source = Source::Flag(format!("--{}", key.name));
        let texts = texts.cloned().collect();
        found.insert(key.name, Found { texts, source });
    }
    Given(found)
}
