//! The device filter of a configuration: which nodes its processes may make and open.
//!
//! On a host with the v1 controller it is that one's files, written with the limits, else a program of the v2 group, which
//! holds on hybrid hosts as well. A container is never started without one: where the kernel has
//! neither, that is an error. Only in a user namespace, where nobody can make a node, may the right
//! to load a program be missing.

use rustix::io::Errno;

use super::config::{DeviceRule, Resources};
use super::error::{OciError, call};
use super::groups::Groups;
use crate::cgroup::{self, DeviceFilter, DeviceKind, filter_devices};
use crate::spec::Access;

/// What every container may use, as runc has it.
const DEVICES: [(&str, i64, i64, &str); 12] = [
    ("c", -1, -1, "m"),
    ("b", -1, -1, "m"),
    ("c", 1, 3, "rwm"),
    ("c", 1, 8, "rwm"),
    ("c", 1, 7, "rwm"),
    ("c", 5, 0, "rwm"),
    ("c", 1, 5, "rwm"),
    ("c", 1, 9, "rwm"),
    ("c", 136, -1, "rwm"),
    ("c", 5, 2, "rwm"),
    ("c", 10, 200, "rwm"),
    ("c", 5, 1, "rwm"),
];

/// The device filter, whole and in order: everything is denied first.
fn whole(rules: &[DeviceRule]) -> Vec<DeviceRule> {
    let deny_all = DeviceRule {
        allow: false,
        kind: "a".to_owned(),
        access: "rwm".to_owned(),
        ..DeviceRule::default()
    };
    let defaults = DEVICES
        .iter()
        .map(|(kind, major, minor, access)| DeviceRule {
            allow: true,
            kind: (*kind).to_owned(),
            major: Some(*major),
            minor: Some(*minor),
            access: (*access).to_owned(),
        });
    std::iter::once(deny_all)
        .chain(rules.iter().cloned())
        .chain(defaults)
        .collect()
}

/// The filter of a configuration's rules.
pub(super) fn filter(resources: Option<&Resources>) -> Result<DeviceFilter, OciError> {
    let rules = resources.map_or(&[][..], |resources| &resources.devices);
    program(&whole(rules))
}

/// Makes the filter hold where that is a program, which takes effect whole: it may come while the
/// container's process is set up, but before its start. `users` says that the container is in a
/// user namespace.
pub(super) fn filter_v2(
    groups: &Groups,
    filter: &DeviceFilter,
    users: bool,
) -> Result<(), OciError> {
    if groups.filters_by_files() {
        return Ok(());
    }
    let Some(dir) = groups.unified() else {
        return Err(OciError::Refused(
            "this host has no cgroups that filter devices".to_owned(),
        ));
    };
    match filter_devices(&dir, filter) {
        Err(Errno::PERM | Errno::ACCESS) if users => Ok(()),
        done => done.map_err(call(format!("filter the devices of {}", dir.display()))),
    }
}

/// The rules, one after the other.
fn program(rules: &[DeviceRule]) -> Result<DeviceFilter, OciError> {
    let mut filter = DeviceFilter::all(false);
    for rule in rules {
        let number = |number: Option<i64>| match number {
            Some(number) if number >= 0 => u32::try_from(number)
                .map(Some)
                .map_err(|_| OciError::Refused(format!("device rule: number {number}"))),
            _ => Ok(None),
        };
        let kind = match rule.kind.as_str() {
            "" | "a" => {
                filter = DeviceFilter::all(rule.allow);
                continue;
            }
            "c" => DeviceKind::Char,
            "b" => DeviceKind::Block,
            other => {
                return Err(OciError::Refused(format!(
                    "device rule: \"{other}\" is not a device type"
                )));
            }
        };
        let access = if rule.access.is_empty() {
            "rwm"
        } else {
            &rule.access
        };
        let access = Access::try_from(access.to_owned())
            .map_err(|error| OciError::Refused(format!("device rule: {error}")))?;
        let rule_for = cgroup::DeviceRule {
            kind,
            major: number(rule.major)?,
            minor: number(rule.minor)?,
            access,
        };
        filter.apply(rule.allow, rule_for);
    }
    Ok(filter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Vec<DeviceRule> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn everything_is_denied_before_anything_is_allowed() {
        let rules = whole(&[]);
        assert!(!rules[0].allow && rules[0].kind == "a");
        assert!(rules[1..].iter().all(|rule| rule.allow));
    }

    #[test]
    fn rules_become_a_filter() {
        let none = program(&rules(r#"[{"allow":true,"type":"a"},{"allow":false}]"#)).unwrap();
        assert_eq!(none, DeviceFilter::all(false));
        let mut one = DeviceFilter::all(false);
        one.apply(
            true,
            cgroup::DeviceRule {
                kind: DeviceKind::Char,
                major: Some(10),
                minor: None,
                access: Access::try_from("rw".to_owned()).unwrap(),
            },
        );
        let text = r#"[{"allow":true,"type":"c","major":10,"minor":-1,"access":"rw"}]"#;
        assert_eq!(program(&rules(text)).unwrap(), one);
        for text in [
            r#"[{"allow":true,"type":"x"}]"#,
            r#"[{"allow":true,"type":"c","access":"q"}]"#,
            r#"[{"allow":true,"type":"c","major":4294967296}]"#,
        ] {
            assert!(program(&rules(text)).is_err(), "{text}");
        }
    }
}
