//! Which images this machine can run: operating system, architecture and variant.
//!
//! It decides the order in which variants are tried: first what every CPU of the architecture
//! runs, so that all nodes of a cluster run the same content wherever they can; then, only if the
//! image has nothing else, newer levels that this CPU has.

use std::fmt;

/// Operating system and architecture in the image specification's words (those of Go).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Platform {
    pub(crate) os: &'static str,
    pub(crate) architecture: &'static str,
}

impl Platform {
    /// The platform that this binary was built for.
    pub(crate) const HERE: Self = Self {
        os: "linux",
        architecture: match std::env::consts::ARCH.as_bytes() {
            b"x86_64" => "amd64",
            b"x86" => "386",
            b"aarch64" => "arm64",
            b"powerpc64" => "ppc64le",
            b"loongarch64" => "loong64",
            // arm, s390x and riscv64 are called the same.
            _ => std::env::consts::ARCH,
        },
    };

    /// The variants that this machine runs, best first; "" is an image that names none.
    pub(crate) fn variants(self) -> &'static [&'static str] {
        match self.architecture {
            "amd64" => AMD64.get(..=amd64_level()).unwrap_or(AMD64),
            // v8 is what arm64 means; nothing says which later level an image needs.
            "arm64" => &["", "v8"],
            "arm" => &["v7", "", "v6", "v5"],
            _ => &[""],
        }
    }
}

/// "" and v1 are the same thing: [`amd64_level`] 1 includes both.
const AMD64: &[&str] = &["", "v1", "v2", "v3", "v4"];

/// The level of the x86-64 psABI that this CPU has: 1 to 4.
#[cfg(target_arch = "x86_64")]
fn amd64_level() -> usize {
    use std::arch::is_x86_feature_detected as has;
    let v2 = has!("cmpxchg16b") && has!("popcnt") && has!("sse4.2") && has!("ssse3");
    let v3 = v2
        && has!("avx2")
        && has!("bmi1")
        && has!("bmi2")
        && has!("f16c")
        && has!("fma")
        && has!("lzcnt")
        && has!("movbe")
        && has!("xsave");
    let v4 = v3
        && has!("avx512f")
        && has!("avx512bw")
        && has!("avx512cd")
        && has!("avx512dq")
        && has!("avx512vl");
    1 + usize::from(v2) + usize::from(v3) + usize::from(v4)
}

#[cfg(not(target_arch = "x86_64"))]
fn amd64_level() -> usize {
    1
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_every_cpu_runs_comes_first() {
        let of = |architecture| {
            let os = "linux";
            Platform { os, architecture }.variants()
        };
        assert!(of("amd64").starts_with(&["", "v1"]));
        assert_eq!(of("amd64").len(), amd64_level() + 1);
        assert_eq!(of("arm64"), ["", "v8"]);
        assert_eq!(of("arm")[0], "v7");
        assert_eq!(of("s390x"), [""]);
    }
}
