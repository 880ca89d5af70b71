//! Mount options: which are attributes of the mount, which its propagation, and which the file
//! system's own.

use rustix::mount::MountPropagationFlags as Propagation;

/// `MOUNT_ATTR_*` of `linux/mount.h`.
pub(super) mod attr {
    pub(in crate::oci) const RDONLY: u64 = 0x1;
    pub(in crate::oci) const NOSUID: u64 = 0x2;
    pub(in crate::oci) const NODEV: u64 = 0x4;
    pub(in crate::oci) const NOEXEC: u64 = 0x8;
    /// Mask of the access time modes; `relatime` is 0.
    pub(in crate::oci) const ATIME: u64 = 0x70;
    pub(in crate::oci) const NOATIME: u64 = 0x10;
    pub(in crate::oci) const STRICTATIME: u64 = 0x20;
    pub(in crate::oci) const NODIRATIME: u64 = 0x80;
    pub(in crate::oci) const NOSYMFOLLOW: u64 = 0x0020_0000;
}

/// Name, attributes to set, attributes to clear. With an `r` before it, the name means all mounts
/// below as well (Linux 5.12).
const ATTRIBUTES: [(&str, u64, u64); 17] = [
    ("ro", attr::RDONLY, 0),
    ("rw", 0, attr::RDONLY),
    ("nosuid", attr::NOSUID, 0),
    ("suid", 0, attr::NOSUID),
    ("nodev", attr::NODEV, 0),
    ("dev", 0, attr::NODEV),
    ("noexec", attr::NOEXEC, 0),
    ("exec", 0, attr::NOEXEC),
    ("noatime", attr::NOATIME, attr::ATIME),
    ("atime", 0, attr::ATIME),
    ("relatime", 0, attr::ATIME),
    ("strictatime", attr::STRICTATIME, attr::ATIME),
    ("nodiratime", attr::NODIRATIME, 0),
    ("diratime", 0, attr::NODIRATIME),
    ("nosymfollow", attr::NOSYMFOLLOW, 0),
    ("symfollow", 0, attr::NOSYMFOLLOW),
    ("norelatime", 0, 0),
];

/// Flags of the file system itself, and those that say nothing.
const FLAGS: [(&str, Option<&str>); 18] = [
    ("sync", Some("sync")),
    ("async", Some("async")),
    ("dirsync", Some("dirsync")),
    ("lazytime", Some("lazytime")),
    ("nolazytime", Some("nolazytime")),
    ("mand", Some("mand")),
    ("nomand", Some("nomand")),
    ("silent", None),
    ("loud", None),
    ("defaults", None),
    ("nostrictatime", None),
    ("iversion", None),
    ("noiversion", None),
    ("acl", None),
    ("noacl", None),
    ("remount", None),
    ("idmap", None),
    ("ridmap", None),
];

const PROPAGATIONS: [(&str, Propagation); 4] = [
    ("private", Propagation::PRIVATE),
    ("shared", Propagation::SHARED),
    ("slave", Propagation::DOWNSTREAM),
    ("unbindable", Propagation::UNBINDABLE),
];

/// Every option that [`parse`] knows, sorted, for `features`.
pub(super) fn names() -> Vec<String> {
    let mut names: Vec<String> = ["bind", "rbind", "tmpcopyup"]
        .iter()
        .map(|name| (*name).to_owned())
        .collect();
    for (name, _, _) in ATTRIBUTES {
        names.extend([name.to_owned(), format!("r{name}")]);
    }
    for (name, _) in PROPAGATIONS {
        names.extend([name.to_owned(), format!("r{name}")]);
    }
    names.extend(FLAGS.iter().map(|(name, _)| (*name).to_owned()));
    names.sort();
    names
}

/// What a list of options says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// Attributes to set and to clear.
    pub(super) set: u64,
    pub(super) clear: u64,
    /// The same for the mount and all below it.
    pub(super) set_all: u64,
    pub(super) clear_all: u64,
    /// In order.
    pub(super) propagation: Vec<Propagation>,
    /// Whether it is a bind mount, and of all below as well.
    pub(super) bind: bool,
    pub(super) recursive: bool,
    pub(super) copy_up: bool,
    /// Whether ids are mapped, and of all below as well.
    pub(super) idmap: Option<bool>,
    /// The file system's own.
    pub(super) data: Vec<(String, Option<String>)>,
}

/// Looks at every option; the last word counts.
pub(super) fn parse(options: &[String]) -> Options {
    let mut found = Options::default();
    for option in options {
        let option = option.as_str();
        match option {
            "bind" => found.bind = true,
            "rbind" => (found.bind, found.recursive) = (true, true),
            "tmpcopyup" => found.copy_up = true,
            "idmap" => found.idmap = Some(false),
            "ridmap" => found.idmap = Some(true),
            _ => found.take(option),
        }
    }
    found
}

impl Options {
    fn take(&mut self, option: &str) {
        let attribute = |name: &str| ATTRIBUTES.into_iter().find(|(known, _, _)| *known == name);
        if let Some((_, set, clear)) = attribute(option) {
            self.set = self.set & !clear | set;
            self.clear = self.clear & !set | clear;
            return;
        }
        let kind = |name: &str| PROPAGATIONS.into_iter().find(|(known, _)| *known == name);
        if let Some((_, flag)) = kind(option) {
            return self.propagation.push(flag);
        }
        if let Some(rest) = option.strip_prefix('r') {
            if let Some((_, set, clear)) = attribute(rest) {
                self.set_all = self.set_all & !clear | set;
                self.clear_all = self.clear_all & !set | clear;
                return;
            }
            if let Some((_, flag)) = kind(rest) {
                return self.propagation.push(flag | Propagation::REC);
            }
        }
        if let Some((_, flag)) = FLAGS.into_iter().find(|(known, _)| *known == option) {
            self.data.extend(flag.map(|flag| (flag.to_owned(), None)));
            return;
        }
        self.data.push(match option.split_once('=') {
            Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
            None => (option.to_owned(), None),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_told_apart() {
        let words = "rbind,rw,ro,nosuid,rro,rprivate,mode=755,sync,noatime,strictatime";
        let words: Vec<String> = words.split(',').map(str::to_owned).collect();
        let found = parse(&words);
        assert!(found.bind && found.recursive);
        assert_eq!(found.set, attr::RDONLY | attr::NOSUID | attr::STRICTATIME);
        assert_eq!(found.clear & attr::RDONLY, 0);
        assert_eq!(found.set_all, attr::RDONLY);
        assert_eq!(found.propagation, [Propagation::PRIVATE | Propagation::REC]);
        assert_eq!(
            found.data,
            [
                ("mode".to_owned(), Some("755".to_owned())),
                ("sync".to_owned(), None)
            ]
        );
    }
}
