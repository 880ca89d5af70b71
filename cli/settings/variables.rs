//! Settings as variables of the environment. A variable that begins like ours and is none of ours
//! is refused: it was meant to say something.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use super::{Found, Key, Kind, Role, Source};
use crate::failure::{Exit, Failure};

/// Names the file, after the prefix.
const FILE: &str = "CONFIG";
/// Before the names of Mesos's variables.
const MESOS: &str = "MESOS_";

/// What variables said.
pub(super) struct Variables {
    pub(super) found: BTreeMap<&'static str, Found>,
    pub(super) file: Option<PathBuf>,
}

/// Reads those of a role; empty ones say nothing, ours count before Mesos's.
pub(super) fn read(
    role: &'static Role,
    environment: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Variables, Failure> {
    let (mut ours, mut found, mut file) = (BTreeMap::new(), BTreeMap::new(), None);
    for (name, value) in environment {
        let Some(name) = name.to_str().filter(|_| !value.is_empty()) else {
            continue;
        };
        let (own, rest) = match (name.strip_prefix(role.prefix), name.strip_prefix(MESOS)) {
            (Some(rest), _) => (true, rest.to_lowercase()),
            (None, Some(rest)) if role.mesos => (false, rest.to_lowercase()),
            _ => continue,
        };
        if own && rest.to_uppercase() == FILE {
            file = Some(PathBuf::from(value));
            continue;
        }
        let meant = if own {
            role.key(&rest)
        } else {
            by_mesos(role, &rest)
        };
        let Some(key) = meant else {
            // Mesos has many more, and tasks have MESOS_ variables of their own.
            if own {
                let message = format!("variable {name} is no setting of `gantry {}`", role.name);
                return Err(Failure::new(Exit::Usage, message).hint(role.nearest(&rest)));
            }
            continue;
        };
        let Some(text) = value.to_str() else {
            return Err(Failure::new(
                Exit::Usage,
                format!("variable {name} is not UTF-8"),
            ));
        };
        let texts = match key.kind {
            Kind::Many => text.split_whitespace().map(str::to_owned).collect(),
            Kind::One | Kind::Pairs | Kind::Switch => vec![text.to_owned()],
        };
        let source = Source::Variable(name.to_owned());
        let into = if own { &mut ours } else { &mut found };
        into.insert(key.name, Found { texts, source });
    }
    found.extend(ours);
    Ok(Variables { found, file })
}

fn by_mesos(role: &Role, name: &str) -> Option<&'static Key> {
    role.keys.iter().find(|key| key.mesos == Some(name))
}
