//! Bytes that no one meant as a profile: an error or a filter, never a panic, never long.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::host;
use super::machine;
use crate::caps;
use crate::seccomp::{Arch, Profile, Program};

/// Reads, and makes the filter of what can be read.
fn swallow(text: &str) -> bool {
    let Ok(profile) = Profile::parse(text) else {
        return false;
    };
    for arch in [Arch::X86_64, Arch::Aarch64] {
        if let Ok(program) = Program::compile(&profile, caps::default_set(), host(arch)) {
            machine::verify(&program);
            assert!(!program.to_string().is_empty());
        }
    }
    true
}

/// The files that are kept: what people write, and what once was, or might be, trouble.
fn corpus() -> Vec<(String, String)> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/seccomp");
    let entries = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let files = entries.filter(|path| path.extension().is_some_and(|end| end == "json"));
    files
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read_to_string(path).unwrap())
        })
        .collect()
}

#[test]
fn the_corpus_is_swallowed() {
    let files = corpus();
    assert!(files.len() >= 6, "{}", files.len());
    for (name, text) in files {
        let is_meant = !name.starts_with("bad-");
        assert_eq!(swallow(&text), is_meant, "{name}");
    }
}

/// Words of profiles and edges of numbers, to be put anywhere.
const PIECES: [&str; 24] = [
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "null",
    "-1",
    "18446744073709551615",
    "1e400",
    "{}",
    "[]",
    "\"names\"",
    "\"SCMP_ACT_NOTIFY\"",
    "\"SCMP_CMP_MASKED_EQ\"",
    "\"SCMP_ARCH_X86\"",
    "\\u0000",
    "\"defaultAction\":\"SCMP_ACT_LOG\",",
    "4294967296",
    "\"read\"",
    "\\ud800",
    "\u{1F980}",
    "[[[[[[",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_swallowed(bytes in vec(any::<u8>(), 0..600)) {
        swallow(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn mangled_profiles_are_swallowed(
        which in any::<Index>(),
        cuts in vec((any::<Index>(), any::<Index>(), 0_u8..4, any::<Index>()), 1..8),
    ) {
        let files = corpus();
        let mut text: Vec<char> = which.get(&files).1.chars().collect();
        for (at, other, how, piece) in cuts {
            let at = at.index(text.len() + 1);
            let other = other.index(text.len() + 1);
            let (from, to) = (at.min(other), at.max(other));
            let to = to.min(from + 40);
            match how {
                0 => drop(text.drain(from..to)),
                1 => drop(text.splice(from..from, piece.get(&PIECES).chars())),
                2 => drop(text.splice(from..to, piece.get(&PIECES).chars())),
                _ => {
                    let again: Vec<char> = text[from..to].to_vec();
                    text.splice(from..from, again);
                }
            }
        }
        swallow(&text.into_iter().collect::<String>());
    }
}
