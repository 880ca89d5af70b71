//! Which device nodes a container may make and open.
//!
//! On v1 a filter is the files of the `devices` controller, on v2 a program ([`super::bpf`]). The
//! usual filter differs in nothing between containers: on v1 it is written once, to a group that
//! all of them join, since a group of its own for each would cost a dozen writes per start. A v1
//! group can never allow more than the one above it, so a container with devices of its own has a
//! group below another parent, which restricts nothing itself.

use super::Setting;
use crate::spec::Access;

/// Every access.
const ALL: Access = Access {
    read: true,
    write: true,
    make: true,
};
/// Making a node alone.
const MAKE: Access = Access {
    read: false,
    write: false,
    make: true,
};

/// Bits of `linux/bpf.h` (`BPF_DEVCG_ACC_*`).
pub(super) fn bits(access: Access) -> u8 {
    u8::from(access.make) | u8::from(access.read) << 1 | u8::from(access.write) << 2
}

/// Kinds of nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// `b`.
    Block,
    /// `c`.
    Char,
}

/// What a rule is about: one kind of nodes; None stands for every number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceRule {
    /// Block or character.
    pub kind: DeviceKind,
    /// Number of the driver.
    pub major: Option<u32>,
    /// Number within the driver.
    pub minor: Option<u32>,
    /// What is allowed or denied.
    pub access: Access,
}

impl DeviceRule {
    const fn new(kind: DeviceKind, major: Option<u32>, minor: Option<u32>, access: Access) -> Self {
        Self {
            kind,
            major,
            minor,
            access,
        }
    }

    fn same_nodes(&self, other: &Self) -> bool {
        (self.kind, self.major, self.minor) == (other.kind, other.major, other.minor)
    }

    /// As the v1 files take it.
    fn line(&self) -> String {
        let kind = match self.kind {
            DeviceKind::Block => 'b',
            DeviceKind::Char => 'c',
        };
        let number = |n: Option<u32>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
        let (major, minor) = (number(self.major), number(self.minor));
        format!("{kind} {major}:{minor} {}", self.access)
    }
}

const fn node(major: u32, minor: u32) -> DeviceRule {
    let (major, minor) = (Some(major), Some(minor));
    DeviceRule::new(DeviceKind::Char, major, minor, ALL)
}

/// What Docker allows: making any node but opening only the harmless ones.
const HARMLESS: [DeviceRule; 11] = [
    DeviceRule::new(DeviceKind::Char, None, None, MAKE),
    DeviceRule::new(DeviceKind::Block, None, None, MAKE),
    node(1, 3),                                              // null
    node(1, 5),                                              // zero
    node(1, 7),                                              // full
    node(1, 8),                                              // random
    node(1, 9),                                              // urandom
    node(5, 0),                                              // tty
    node(5, 1),                                              // console
    node(5, 2),                                              // ptmx
    DeviceRule::new(DeviceKind::Char, Some(136), None, ALL), // pts
];

/// A filter: what happens by default, and to which nodes the opposite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceFilter {
    pub(super) allows: bool,
    pub(super) exceptions: Vec<DeviceRule>,
}

impl Default for DeviceFilter {
    /// That of every container.
    fn default() -> Self {
        Self {
            allows: false,
            exceptions: HARMLESS.to_vec(),
        }
    }
}

impl DeviceFilter {
    /// Allows everything, or denies everything, until rules are applied.
    #[must_use]
    pub fn all(allows: bool) -> Self {
        Self {
            allows,
            exceptions: Vec::new(),
        }
    }

    /// The usual filter with `extra` devices allowed.
    #[must_use]
    pub fn with(extra: &[DeviceRule]) -> Self {
        let mut filter = Self::default();
        for rule in extra {
            filter.apply(true, *rule);
        }
        filter
    }

    /// Applies one rule after those before it, as the v1 files do: against the default it makes an
    /// exception, with it it takes back those for the very same nodes.
    pub fn apply(&mut self, allow: bool, rule: DeviceRule) {
        let known = self
            .exceptions
            .iter_mut()
            .find(|known| known.same_nodes(&rule));
        match (known, allow == self.allows) {
            (Some(known), same) => {
                let set =
                    |known: &mut bool, given: bool| *known = (*known && !given) || (given && !same);
                set(&mut known.access.read, rule.access.read);
                set(&mut known.access.write, rule.access.write);
                set(&mut known.access.make, rule.access.make);
            }
            (None, false) => self.exceptions.push(rule),
            (None, true) => {}
        }
        self.exceptions.retain(|rule| bits(rule.access) != 0);
    }

    /// As files of the v1 controller, for a group that may be in any state.
    pub(super) fn v1(&self) -> Vec<Setting> {
        let (default, opposite) = if self.allows {
            ("devices.allow", "devices.deny")
        } else {
            ("devices.deny", "devices.allow")
        };
        let setting = |rule: &DeviceRule| Setting::new("devices", opposite, rule.line());
        std::iter::once(Setting::new("devices", default, "a"))
            .chain(self.exceptions.iter().map(setting))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::shown;
    use super::*;

    #[test]
    fn everything_is_denied_before_anything_is_allowed() {
        let text = shown(&DeviceFilter::default().v1());
        assert_eq!(
            text,
            "devices.deny=a devices.allow=c *:* m devices.allow=b *:* m \
             devices.allow=c 1:3 rwm devices.allow=c 1:5 rwm devices.allow=c 1:7 rwm \
             devices.allow=c 1:8 rwm devices.allow=c 1:9 rwm devices.allow=c 5:0 rwm \
             devices.allow=c 5:1 rwm devices.allow=c 5:2 rwm devices.allow=c 136:* rwm"
        );
    }

    #[test]
    fn rules_are_applied_in_order() {
        let fuse = DeviceRule::new(DeviceKind::Char, Some(10), Some(229), ALL);
        let mut filter = DeviceFilter::all(false);
        filter.apply(true, fuse);
        filter.apply(
            false,
            DeviceRule {
                access: MAKE,
                ..fuse
            },
        );
        assert_eq!(
            shown(&filter.v1()),
            "devices.deny=a devices.allow=c 10:229 rw"
        );
        filter.apply(false, fuse);
        assert_eq!(filter, DeviceFilter::all(false));
        let mut filter = DeviceFilter::all(true);
        filter.apply(false, fuse);
        assert_eq!(
            shown(&filter.v1()),
            "devices.allow=a devices.deny=c 10:229 rwm"
        );
        let with = DeviceFilter::with(&[fuse]);
        assert_eq!(with.exceptions.len(), HARMLESS.len() + 1);
    }
}
