//! Text of a profile into checked types.
//!
//! It takes Docker's form (`archMap`, `includes`, `excludes`, `name`) and the OCI's `linux.seccomp`
//! object, which is the same less those fields; fields that neither has are passed over, as both
//! do. It deliberately does not look whether a name is a system call's: profiles list those of
//! every architecture and of kernels to come. Depth is no danger: `serde_json` stops at 128 levels
//! and skips unknown values without recursion.

use serde::Deserialize;

use super::action::MAX_ERRNO;
use super::profile::{
    ARGUMENTS, Besides, MAX_CONDITIONS_PER_RULE, MAX_NAME_BYTES, MAX_PROFILE_BYTES, MAX_RULES,
    MAX_WORDS, Only,
};
use super::{Action, Arch, Comparison, Condition, KernelVersion, Profile, Rule, SeccompError};
use crate::caps;

/// Bytes of a word from a profile that an error repeats.
const SHOWN_BYTES: usize = 64;

impl SeccompError {
    pub(super) fn unknown(what: &'static str, word: &str) -> Self {
        let word = word.chars().take(SHOWN_BYTES).collect();
        Self::Unknown { what, word }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawProfile {
    default_action: String,
    default_errno_ret: Option<u64>,
    architectures: Option<Vec<String>>,
    arch_map: Option<Vec<RawArchitecture>>,
    flags: Option<Vec<String>>,
    syscalls: Option<Vec<RawRule>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawArchitecture {
    architecture: String,
    sub_architectures: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawRule {
    name: Option<String>,
    names: Option<Vec<String>>,
    action: String,
    errno_ret: Option<u64>,
    args: Option<Vec<RawCondition>>,
    includes: Option<RawOnly>,
    excludes: Option<RawOnly>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawCondition {
    index: u64,
    value: u64,
    value_two: Option<u64>,
    op: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct RawOnly {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

impl Profile {
    /// Reads a profile.
    ///
    /// # Errors
    /// The first thing that is not understood.
    pub fn parse(text: &str) -> Result<Self, SeccompError> {
        bound("bytes", text.len(), MAX_PROFILE_BYTES)?;
        let raw: RawProfile =
            serde_json::from_str(text).map_err(|error| SeccompError::Json(error.to_string()))?;
        let default = action(&raw.default_action, raw.default_errno_ret)?;
        let raw_rules = raw.syscalls.unwrap_or_default();
        bound("rules", raw_rules.len(), MAX_RULES)?;
        let rules = raw_rules.into_iter().enumerate();
        Ok(Self {
            default,
            unknown_is_missing: !default.is_permissive(),
            architectures: architectures(raw.architectures, raw.arch_map)?,
            flags: flags(&words("flags", raw.flags)?)?,
            rules: rules
                .map(|(index, raw)| rule(index, raw))
                .collect::<Result<_, _>>()?,
        })
    }
}

fn bound(what: &'static str, got: usize, max: usize) -> Result<(), SeccompError> {
    if got > max {
        Err(SeccompError::TooMany { what, got, max })
    } else {
        Ok(())
    }
}

/// A list of short words; none for null and for no list.
fn words(what: &'static str, list: Option<Vec<String>>) -> Result<Vec<String>, SeccompError> {
    let list = list.unwrap_or_default();
    bound(what, list.len(), MAX_WORDS)?;
    for word in &list {
        bound("bytes in a name", word.len(), MAX_NAME_BYTES)?;
    }
    Ok(list)
}

fn action(word: &str, errno: Option<u64>) -> Result<Action, SeccompError> {
    // runc's default for both of the actions that carry a number.
    let number = || match errno {
        None => Ok(libc::EPERM.unsigned_abs() as u16),
        Some(given) => u16::try_from(given)
            .ok()
            .filter(|number| *number <= MAX_ERRNO)
            .ok_or(SeccompError::Errno(given)),
    };
    match word {
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Ok(Action::KillThread),
        "SCMP_ACT_KILL_PROCESS" => Ok(Action::KillProcess),
        "SCMP_ACT_TRAP" => Ok(Action::Trap),
        "SCMP_ACT_ERRNO" => Ok(Action::Errno(number()?)),
        "SCMP_ACT_TRACE" => Ok(Action::Trace(number()?)),
        "SCMP_ACT_LOG" => Ok(Action::Log),
        "SCMP_ACT_ALLOW" => Ok(Action::Allow),
        "SCMP_ACT_NOTIFY" => Err(SeccompError::Notify),
        other => Err(SeccompError::unknown("action", other)),
    }
}

fn flags(words: &[String]) -> Result<u32, SeccompError> {
    words.iter().try_fold(0, |flags, word| {
        let flag = match word.as_str() {
            "SECCOMP_FILTER_FLAG_TSYNC" => libc::SECCOMP_FILTER_FLAG_TSYNC,
            "SECCOMP_FILTER_FLAG_LOG" => libc::SECCOMP_FILTER_FLAG_LOG,
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            // This one changes how a listener is waited for.
            "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => return Err(SeccompError::Notify),
            other => return Err(SeccompError::unknown("flag", other)),
        };
        Ok(flags | flag as u32)
    })
}

fn architectures(
    plain: Option<Vec<String>>,
    map: Option<Vec<RawArchitecture>>,
) -> Result<Vec<Besides>, SeccompError> {
    let plain = words("architectures", plain)?;
    let map = map.unwrap_or_default();
    bound("architectures", map.len(), MAX_WORDS)?;
    if !plain.is_empty() && !map.is_empty() {
        return Err(SeccompError::Both("architectures", "archMap"));
    }
    let mut found = Vec::new();
    if !plain.is_empty() {
        found.push(Besides {
            native: None,
            judged: known(&plain)?,
        });
    }
    for entry in map {
        let native = Arch::of_word(&entry.architecture)?;
        let judged = known(&words("architectures", entry.sub_architectures)?)?;
        if native.is_some() {
            found.push(Besides { native, judged });
        }
    }
    Ok(found)
}

/// Those of the architectures that there are tables for.
fn known(words: &[String]) -> Result<Vec<Arch>, SeccompError> {
    let found = words.iter().map(|word| Arch::of_word(word));
    found.filter_map(Result::transpose).collect()
}

fn rule(index: usize, raw: RawRule) -> Result<Rule, SeccompError> {
    let mut names = raw.names.unwrap_or_default();
    if let Some(name) = raw.name.filter(|name| !name.is_empty()) {
        if !names.is_empty() {
            return Err(SeccompError::Both("name", "names"));
        }
        names.push(name);
    }
    if names.is_empty() {
        return Err(SeccompError::Nameless(index));
    }
    for name in &names {
        bound("bytes in a name", name.len(), MAX_NAME_BYTES)?;
    }
    let raw_conditions = raw.args.unwrap_or_default();
    let most = MAX_CONDITIONS_PER_RULE;
    bound("conditions in a rule", raw_conditions.len(), most)?;
    Ok(Rule {
        names,
        action: action(&raw.action, raw.errno_ret)?,
        conditions: raw_conditions
            .iter()
            .map(condition)
            .collect::<Result<_, _>>()?,
        only: only(
            raw.includes.unwrap_or_default(),
            raw.excludes.unwrap_or_default(),
        )?,
    })
}

fn condition(raw: &RawCondition) -> Result<Condition, SeccompError> {
    let argument = u8::try_from(raw.index)
        .ok()
        .filter(|index| u64::from(*index) < ARGUMENTS)
        .ok_or(SeccompError::Argument(raw.index))?;
    let comparison = match raw.op.as_str() {
        "SCMP_CMP_NE" => Comparison::Ne(raw.value),
        "SCMP_CMP_LT" => Comparison::Lt(raw.value),
        "SCMP_CMP_LE" => Comparison::Le(raw.value),
        "SCMP_CMP_EQ" => Comparison::Eq(raw.value),
        "SCMP_CMP_GE" => Comparison::Ge(raw.value),
        "SCMP_CMP_GT" => Comparison::Gt(raw.value),
        "SCMP_CMP_MASKED_EQ" => Comparison::Masked {
            mask: raw.value,
            value: raw.value_two.unwrap_or(0),
        },
        other => return Err(SeccompError::unknown("operator", other)),
    };
    Ok(Condition {
        argument,
        comparison,
    })
}

fn only(includes: RawOnly, excludes: RawOnly) -> Result<Only, SeccompError> {
    let capabilities = |list| {
        let list = words("capabilities", list)?;
        Ok(list.iter().map(|name| caps::number(name)).collect())
    };
    Ok(Only {
        with: capabilities(includes.caps)?,
        without: capabilities(excludes.caps)?,
        on: words("architectures", includes.arches)?,
        not_on: words("architectures", excludes.arches)?,
        since: kernel(includes.min_kernel)?,
        before: kernel(excludes.min_kernel)?,
    })
}

fn kernel(text: Option<String>) -> Result<Option<KernelVersion>, SeccompError> {
    let text = text.filter(|text| !text.is_empty());
    text.map(|text| {
        KernelVersion::parse(&text)
            .ok_or_else(|| SeccompError::unknown("version of a kernel", &text))
    })
    .transpose()
}
