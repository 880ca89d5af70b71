//! Which machine a filter is for: its architectures' names and numbers, its kernel's version.
//!
//! Numbers of calls come from the `syscalls` crate (Linux 6.18's tables). It
//! deliberately has no table for 32-bit Arm and for x32: their calls are refused.

use std::fmt;
use std::str::FromStr;

use super::SeccompError;

/// An architecture whose calls a filter can judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Arch {
    /// 64-bit x86.
    X86_64,
    /// 32-bit x86, on a 64-bit kernel.
    X86,
    /// 64-bit Arm.
    Aarch64,
}

/// From this number on a call of x86_64 is one of the x32 ABI.
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// Every architecture that libseccomp has a word for; those we have no table for count as foreign.
const WORDS: [(&str, Option<Arch>); 24] = [
    ("SCMP_ARCH_X86_64", Some(Arch::X86_64)),
    ("SCMP_ARCH_X86", Some(Arch::X86)),
    ("SCMP_ARCH_AARCH64", Some(Arch::Aarch64)),
    ("SCMP_ARCH_X32", None),
    ("SCMP_ARCH_ARM", None),
    ("SCMP_ARCH_LOONGARCH64", None),
    ("SCMP_ARCH_M68K", None),
    ("SCMP_ARCH_MIPS", None),
    ("SCMP_ARCH_MIPS64", None),
    ("SCMP_ARCH_MIPS64N32", None),
    ("SCMP_ARCH_MIPSEL", None),
    ("SCMP_ARCH_MIPSEL64", None),
    ("SCMP_ARCH_MIPSEL64N32", None),
    ("SCMP_ARCH_PARISC", None),
    ("SCMP_ARCH_PARISC64", None),
    ("SCMP_ARCH_PPC", None),
    ("SCMP_ARCH_PPC64", None),
    ("SCMP_ARCH_PPC64LE", None),
    ("SCMP_ARCH_RISCV64", None),
    ("SCMP_ARCH_S390", None),
    ("SCMP_ARCH_S390X", None),
    ("SCMP_ARCH_SH", None),
    ("SCMP_ARCH_SHEB", None),
    ("SCMP_ARCH_SPARC64", None),
];

impl Arch {
    /// What this program is built for.
    ///
    /// # Errors
    /// [`SeccompError::Machine`] for another processor than those above.
    pub fn native() -> Result<Self, SeccompError> {
        if cfg!(target_arch = "x86_64") {
            Ok(Self::X86_64)
        } else if cfg!(target_arch = "aarch64") {
            Ok(Self::Aarch64)
        } else {
            Err(SeccompError::Machine)
        }
    }

    /// The architecture that a word of a profile means; `Ok(None)` is one without a table.
    pub(super) fn of_word(word: &str) -> Result<Option<Self>, SeccompError> {
        WORDS
            .iter()
            .find(|(known, _)| *known == word)
            .map(|(_, arch)| *arch)
            .ok_or_else(|| SeccompError::unknown("architecture", word))
    }

    /// The word that `includes` and `excludes` of a Docker profile have for it.
    pub(super) fn docker_word(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::X86 => "x86",
            Self::Aarch64 => "arm64",
        }
    }

    /// The kernel's number (`linux/audit.h`).
    pub(super) fn audit_number(self) -> u32 {
        match self {
            Self::X86_64 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
        }
    }

    /// Whether calls of `other` can reach a kernel whose native architecture this is.
    pub(super) fn carries(self, other: Self) -> bool {
        self == other || (self == Self::X86_64 && other == Self::X86)
    }

    /// Whether arguments have 32 bits; the kernel shows the upper half of each as zero.
    pub(super) fn is_32_bit(self) -> bool {
        self == Self::X86
    }

    /// The number of the call of this name, if there is one.
    pub fn number(self, name: &str) -> Option<u32> {
        let number = match self {
            Self::X86_64 => syscalls::x86_64::Sysno::from_str(name).ok()?.id(),
            Self::X86 => syscalls::x86::Sysno::from_str(name).ok()?.id(),
            Self::Aarch64 => return aarch64_number(name),
        };
        u32::try_from(number).ok()
    }
}

/// The crate's table for 64-bit Arm is that of the generic ABI: it has the calls with 64-bit times
/// of 32-bit machines (403 to 423), and its own name for one.
fn aarch64_number(name: &str) -> Option<u32> {
    let name = match name {
        "newfstatat" => "fstatat",
        "fstatat" => return None,
        other => other,
    };
    let number = syscalls::aarch64::Sysno::from_str(name).ok()?.id();
    let number = u32::try_from(number).ok()?;
    (!(403..=423).contains(&number)).then_some(number)
}

/// The first two numbers of a kernel's release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KernelVersion {
    /// 6 of 6.18.
    pub major: u32,
    /// 18 of 6.18.
    pub minor: u32,
}

impl KernelVersion {
    /// Reads `6.18`, also at the front of `6.18.44-1-amd64`.
    pub fn parse(text: &str) -> Option<Self> {
        let (major, rest) = text.split_once('.')?;
        let end = rest
            .find(|letter: char| !letter.is_ascii_digit())
            .unwrap_or(rest.len());
        Some(Self {
            major: major.parse().ok()?,
            minor: rest.get(..end)?.parse().ok()?,
        })
    }
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// What a filter is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host {
    /// Native architecture.
    pub arch: Arch,
    /// Running kernel.
    pub kernel: KernelVersion,
}

impl Host {
    /// This machine. A release that is no version counts as the oldest.
    ///
    /// # Errors
    /// [`SeccompError::Machine`] on a processor without a table.
    pub fn running() -> Result<Self, SeccompError> {
        let name = rustix::system::uname();
        let release = name.release().to_string_lossy();
        let oldest = KernelVersion { major: 0, minor: 0 };
        Ok(Self {
            arch: Arch::native()?,
            kernel: KernelVersion::parse(&release).unwrap_or(oldest),
        })
    }
}
