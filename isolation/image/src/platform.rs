//! Which images this machine can run: operating system, architecture and variant.
//!
//! It decides the order in which variants are tried: first what every CPU of the architecture
//! runs, so that all nodes of a cluster run the same content wherever they can; then, only if the
//! image has nothing else, newer levels that this CPU has.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// Longest part of a platform's name, in bytes.
const MAX_PART: usize = 32;

/// Operating system, architecture and variant in the image specification's words (those of Go).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    os: Cow<'static, str>,
    architecture: Cow<'static, str>,
    /// Empty: whatever the machine runs.
    variant: Cow<'static, str>,
}

/// What is not `OS/ARCHITECTURE[/VARIANT]`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a platform, such as linux/arm64 or linux/arm/v7")]
pub struct PlatformError(String);

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let wrong = || PlatformError(text.chars().take(100).collect());
        let is_part = |part: &&str| {
            let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
            !part.is_empty() && part.len() <= MAX_PART && part.bytes().all(plain)
        };
        let parts: Vec<&str> = text.split('/').collect();
        if !parts.iter().all(is_part) {
            return Err(wrong());
        }
        let (os, architecture, variant) = match parts[..] {
            [os, architecture] => (os, architecture, ""),
            [os, architecture, variant] => (os, architecture, variant),
            _ => return Err(wrong()),
        };
        Ok(Self {
            os: os.to_owned().into(),
            architecture: architecture.to_owned().into(),
            variant: variant.to_owned().into(),
        })
    }
}

impl Platform {
    /// The platform that this binary was built for.
    pub const HERE: Self = Self::new(
        "linux",
        match std::env::consts::ARCH.as_bytes() {
            b"x86_64" => "amd64",
            b"x86" => "386",
            b"aarch64" => "arm64",
            b"powerpc64" => "ppc64le",
            b"loongarch64" => "loong64",
            // arm, s390x and riscv64 are called the same.
            _ => std::env::consts::ARCH,
        },
    );

    /// In any variant.
    pub(crate) const fn new(os: &'static str, architecture: &'static str) -> Self {
        Self {
            os: Cow::Borrowed(os),
            architecture: Cow::Borrowed(architecture),
            variant: Cow::Borrowed(""),
        }
    }

    /// Whether this machine runs images for it.
    #[must_use]
    pub fn is_here(&self) -> bool {
        let is_level = || Self::HERE.variants().contains(&&*self.variant);
        self.has(&Self::HERE.os, &Self::HERE.architecture) && is_level()
    }

    /// Whether it is this operating system and architecture, in whatever variant.
    pub(crate) fn has(&self, os: &str, architecture: &str) -> bool {
        self.os == os && self.architecture == architecture
    }

    /// Operating system and architecture.
    pub(crate) fn parts(&self) -> (&str, &str) {
        (&self.os, &self.architecture)
    }

    /// The variants that fit, best first; "" is an image that names none.
    pub(crate) fn variants(&self) -> Vec<&str> {
        let here = Self::HERE;
        let (os, architecture) = here.parts();
        match (&*self.architecture, &*self.variant) {
            ("amd64", "") if self.has(os, architecture) => {
                AMD64.get(..=amd64_level()).unwrap_or(AMD64).to_vec()
            }
            ("amd64", "" | "v1") => vec!["", "v1"],
            // v8 is what arm64 means; nothing says which later level an image needs.
            ("arm64", "" | "v8") => vec!["", "v8"],
            ("arm", "") => vec!["v7", "", "v6", "v5"],
            (_, variant) => vec![variant],
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
        let slash = if self.variant.is_empty() { "" } else { "/" };
        let (os, architecture) = self.parts();
        write!(f, "{os}/{architecture}{slash}{}", self.variant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_every_cpu_runs_comes_first() {
        let of = |architecture| {
            let platform = Platform::new("linux", architecture);
            let variants = platform.variants().into_iter().map(str::to_owned);
            variants.collect::<Vec<String>>()
        };
        assert!(of("amd64").starts_with(&["".into(), "v1".into()]));
        if Platform::HERE.has("linux", "amd64") {
            assert_eq!(of("amd64").len(), amd64_level() + 1);
        }
        assert_eq!(of("arm64"), ["", "v8"]);
        assert_eq!(of("arm")[0], "v7");
        assert_eq!(of("s390x"), [""]);
    }

    #[test]
    fn platforms_are_two_or_three_words() {
        for (text, variants) in [
            ("linux/arm/v6", vec!["v6"]),
            ("linux/arm64", vec!["", "v8"]),
            ("windows/amd64", vec!["", "v1"]),
            ("linux/amd64/v3", vec!["v3"]),
        ] {
            let platform: Platform = text.parse().unwrap();
            assert_eq!(platform.to_string(), text);
            assert_eq!(platform.variants(), variants);
        }
        for text in [
            "",
            "linux",
            "linux/",
            "/arm64",
            "linux/ARM",
            "a/b/c/d",
            "a/b c",
        ] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
        assert!(Platform::HERE.is_here());
        assert!(!Platform::new("plan9", "amd64").is_here());
    }
}
