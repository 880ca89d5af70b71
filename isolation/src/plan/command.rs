//! The command and its user, in the form in which a child uses them.

use std::ffi::CString;
use std::fmt;

use super::c;
use crate::spec::{MAX_USER, SpecError, User};
use crate::sys::StringArray;

/// Where commands are looked up when the environment has no `PATH`; that of Debian's root.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A user or group as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    /// A number.
    Id(u32),
    /// A name to look up.
    Name(CString),
}

impl Name {
    /// Digits alone are a number; one that is too big is refused, never cut (CVE-2024-40635).
    fn parse(text: &str) -> Result<Self, SpecError> {
        if text.bytes().all(|b| b.is_ascii_digit()) {
            let id = text.parse().ok().filter(|id| *id <= MAX_USER);
            return id
                .map(Self::Id)
                .ok_or_else(|| SpecError::UserNumber(text.to_owned()));
        }
        if text.bytes().any(|b| b == b':' || b == b'\n') {
            return Err(SpecError::UserName(text.to_owned()));
        }
        Ok(Self::Name(c(text)?))
    }
}

/// Who the command runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// Known numbers, no supplementary groups.
    Ids(u32, u32),
    /// To be looked up in the container's own files.
    LookUp {
        /// The user.
        user: Name,
        /// The group, when given; else the user's own.
        group: Option<Name>,
    },
}

impl Who {
    pub(crate) fn new(user: &User) -> Result<Self, SpecError> {
        match user {
            User::Root => Ok(Self::Ids(0, 0)),
            User::Ids { uid, gid } => match [uid, gid].into_iter().find(|id| **id > MAX_USER) {
                Some(id) => Err(SpecError::UserNumber(id.to_string())),
                None => Ok(Self::Ids(*uid, *gid)),
            },
            User::Name(text) if text.is_empty() => Ok(Self::Ids(0, 0)),
            User::Name(text) => {
                let (user, group) = match text.split_once(':') {
                    Some((user, group)) => (user, Some(Name::parse(group)?)),
                    None => (text.as_str(), None),
                };
                if user.is_empty() || text.ends_with(':') {
                    return Err(SpecError::Empty("the user or group"));
                }
                match (Name::parse(user)?, group) {
                    (Name::Id(uid), Some(Name::Id(gid))) => Ok(Self::Ids(uid, gid)),
                    (user, group) => Ok(Self::LookUp { user, group }),
                }
            }
        }
    }

    pub(super) fn needs_lookup(&self) -> bool {
        matches!(self, Self::LookUp { .. })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "{id}"),
            Self::Name(name) => f.write_str(&name.to_string_lossy()),
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ids(uid, gid) => write!(f, "{uid}:{gid}"),
            Self::LookUp { user, group: None } => write!(f, "{user}"),
            Self::LookUp {
                user,
                group: Some(group),
            } => write!(f, "{user}:{group}"),
        }
    }
}

/// What to run, ready for `execve(2)`.
#[derive(Debug)]
pub(crate) struct Command {
    /// Paths to try, in order.
    pub(crate) candidates: Vec<CString>,
    /// Arguments.
    pub(crate) argv: StringArray,
    /// Environment.
    pub(crate) envp: StringArray,
    /// The user, before any look-up.
    pub(crate) who: Who,
    shown: String,
}

impl Command {
    pub(crate) fn new(
        argv: &[String],
        env: &[(String, String)],
        who: Who,
    ) -> Result<Self, SpecError> {
        let program = argv.first().ok_or(SpecError::Empty("the command"))?;
        let path = env.iter().rev().find(|(name, _)| name == "PATH");
        let path = path.map_or(DEFAULT_PATH, |(_, value)| value.as_str());
        let strings = argv.iter().map(c).collect::<Result<_, _>>()?;
        let variables = env
            .iter()
            .map(|(name, value)| c(format!("{name}={value}")))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            candidates: candidates(program, path)?,
            argv: StringArray::new(strings),
            envp: StringArray::new(variables),
            who,
            shown: program.clone(),
        })
    }

    /// Nothing to run.
    pub(super) fn none(who: Who) -> Self {
        Self {
            candidates: Vec::new(),
            argv: StringArray::new(Vec::new()),
            envp: StringArray::new(Vec::new()),
            who,
            shown: String::new(),
        }
    }

    pub(crate) fn shown(&self) -> String {
        self.shown.clone()
    }
}

/// As execvp(3) does: a program with a slash is itself, else each entry of the path is tried; an
/// empty entry would mean the working directory and is left out.
fn candidates(program: &str, path: &str) -> Result<Vec<CString>, SpecError> {
    if program.contains('/') {
        return Ok(vec![c(program)?]);
    }
    path.split(':')
        .filter(|dir| !dir.is_empty())
        .map(|dir| c(format!("{dir}/{program}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(text: &str) -> Result<Who, SpecError> {
        Who::new(&User::Name(text.to_owned()))
    }

    #[test]
    fn users_are_read_as_a_dockerfile_writes_them() {
        let name = |text: &str| Name::Name(CString::new(text).unwrap());
        assert_eq!(who("").unwrap(), Who::Ids(0, 0));
        assert_eq!(who("1000:50").unwrap(), Who::Ids(1000, 50));
        assert_eq!(
            who("1000").unwrap(),
            Who::LookUp {
                user: Name::Id(1000),
                group: None
            }
        );
        assert_eq!(
            who("web:staff").unwrap(),
            Who::LookUp {
                user: name("web"),
                group: Some(name("staff"))
            }
        );
    }

    #[test]
    fn a_number_never_wraps_around_to_root() {
        for text in [
            "4294967296",
            "4294967295",
            "99999999999999999999",
            "0x0:",
            ":0",
            "1:2:3",
        ] {
            assert!(who(text).is_err(), "{text}");
        }
        assert!(
            Who::new(&User::Ids {
                uid: u32::MAX,
                gid: 0
            })
            .is_err()
        );
    }

    #[test]
    fn a_refusal_is_true() {
        for (text, words) in [
            (
                "4294967295",
                "4294967295 is not a user or group number: the largest is 4294967294",
            ),
            (
                "0:4294967296",
                "4294967296 is not a user or group number: the largest is 4294967294",
            ),
            (
                "a:b:c",
                "\"b:c\" is not a user or group name: it holds ':' or a line break",
            ),
        ] {
            assert_eq!(who(text).unwrap_err().to_string(), words);
        }
    }

    #[test]
    fn programs_are_looked_up_in_the_containers_path() {
        let found = candidates("sh", "/a::/b").unwrap();
        assert_eq!(
            found,
            [
                CString::new("/a/sh").unwrap(),
                CString::new("/b/sh").unwrap()
            ]
        );
        assert_eq!(
            candidates("./sh", "/a").unwrap(),
            [CString::new("./sh").unwrap()]
        );
    }
}
