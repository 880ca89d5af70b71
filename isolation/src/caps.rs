//! Which capabilities a container's command may have.
//!
//! The default is the list that Docker grants, so that images made for Docker find what they
//! expect, less `CAP_NET_RAW`: raw sockets forge ARP, router advertisements and DNS answers for
//! the neighbours on a bridge (anchors.md 7.3). It deliberately knows nothing of files' capabilities: `no_new_privs` is always set, so
//! they never add any.

use serde::{Deserialize, Serialize};

/// A set of capabilities by their kernel numbers (`capabilities(7)`), one bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CapSet(u64);

/// Highest capability that exists today: `CAP_CHECKPOINT_RESTORE`.
pub const LAST_CAP: u32 = 40;

/// Docker's without `CAP_NET_RAW`, by kernel number.
const DEFAULT: [(&str, u32); 13] = [
    ("CAP_CHOWN", 0),
    ("CAP_DAC_OVERRIDE", 1),
    ("CAP_FOWNER", 3),
    ("CAP_FSETID", 4),
    ("CAP_KILL", 5),
    ("CAP_SETGID", 6),
    ("CAP_SETUID", 7),
    ("CAP_SETPCAP", 8),
    ("CAP_NET_BIND_SERVICE", 10),
    ("CAP_SYS_CHROOT", 18),
    ("CAP_MKNOD", 27),
    ("CAP_AUDIT_WRITE", 29),
    ("CAP_SETFCAP", 31),
];

/// Every capability; the index is the kernel's number (`linux/capability.h`).
const NAMES: [&str; LAST_CAP as usize + 1] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// The number of a capability by its name, such as `CAP_SYS_ADMIN`.
pub fn number(name: &str) -> Option<u32> {
    let index = NAMES.iter().position(|known| *known == name)?;
    u32::try_from(index).ok()
}

/// The stated default set: Docker's without `CAP_NET_RAW`.
pub fn default_set() -> CapSet {
    CapSet(
        DEFAULT
            .iter()
            .fold(0, |bits, (_, number)| bits | 1 << number),
    )
}

impl CapSet {
    /// No capability.
    pub const EMPTY: Self = Self(0);
    /// `CAP_KILL` alone: what our PID 1 needs to forward signals to processes of other users.
    pub const KILL: Self = Self(1 << 5);

    /// Bit `n` is capability `n`.
    pub(crate) fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Bit `n` is capability `n`.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// The set and capability `number`, if there can be one of that number.
    #[must_use]
    pub fn with(self, number: u32) -> Self {
        Self(self.0 | 1_u64.checked_shl(number).unwrap_or(0))
    }

    /// The set less capability `number`.
    pub fn without(self, number: u32) -> Self {
        Self(self.0 & !(1 << number))
    }

    /// Whether capability `number` is in the set.
    pub fn contains(self, number: u32) -> bool {
        number < u64::BITS && self.0 & (1 << number) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_at_their_numbers() {
        for (name, at) in DEFAULT
            .into_iter()
            .chain([("CAP_SYS_ADMIN", 21), ("CAP_BPF", 39)])
        {
            assert_eq!(number(name), Some(at), "{name}");
        }
        assert_eq!(number("CAP_CHECKPOINT_RESTORE"), Some(LAST_CAP));
        assert_eq!(number("SYS_ADMIN"), None);
    }

    #[test]
    fn the_default_is_dockers_mask_without_raw_sockets() {
        // CapBnd of a container under Docker's defaults.
        assert_eq!(default_set().bits(), 0x0000_0000_a804_25fb & !(1 << 13));
        assert!(!default_set().contains(13));
        assert!(!default_set().contains(21));
    }
}
