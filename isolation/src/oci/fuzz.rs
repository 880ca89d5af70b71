//! Bytes that no one meant as a `config.json`: an error or a configuration, never a panic. The
//! corpus in `tests/corpus/oci` is replayed as it is and with random damage.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::sample::Index;

use super::{check, create, options};
use crate::seccomp::{Host, Profile, Program};

/// Reads a configuration and does with it what is done before anything is made.
fn swallow(text: &[u8]) -> bool {
    let Ok(config) = create::parse(text, Path::new("config.json")) else {
        return false;
    };
    let mut good = check::config(&config).is_ok();
    if let Some(process) = &config.process {
        good &= check::process(process).is_ok();
    }
    for mount in &config.mounts {
        let _ = options::parse(&mount.options);
    }
    for name in config.linux.sysctl.keys() {
        assert!(!check::sysctl_path(name).contains('\0') || name.contains('\0'));
    }
    if let Some(seccomp) = &config.linux.seccomp
        && let Ok(profile) = Profile::parse(&seccomp.to_string())
    {
        let host = Host::running().unwrap();
        let _ = Program::compile(&profile, crate::caps::default_set(), host);
    }
    good
}

fn corpus() -> Vec<(String, Vec<u8>)> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/oci");
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(Result::unwrap)
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, std::fs::read(entry.path()).unwrap())
        })
        .collect();
    files.sort();
    files
}

#[test]
fn the_corpus_is_read_as_its_names_say() {
    let files = corpus();
    assert!(files.len() >= 6, "the corpus is missing");
    for (name, bytes) in files {
        assert_eq!(swallow(&bytes), name.starts_with("ok-"), "{name}");
    }
}

/// Corpus files in which tokens of JSON, numbers at an edge or random bytes replace something.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    const PIECES: [&str; 16] = [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "null",
        "true",
        "-1",
        "0",
        "4294967296",
        "18446744073709551616",
        "1e999",
        "\"\"",
        "\"\\u0000\"",
        "\"../../..\"",
    ];
    let files: Vec<Vec<u8>> = corpus()
        .into_iter()
        .map(|(_, bytes)| bytes)
        .filter(|bytes| bytes.len() < 8_000)
        .collect();
    let edit = (any::<Index>(), 0..20_usize, any::<Index>(), any::<u8>());
    let edits = prop::collection::vec(edit, 1..6);
    (any::<Index>(), edits).prop_map(move |(file, edits)| {
        let mut bytes = file.get(&files).clone();
        for (at, length, piece, byte) in edits {
            let at = at.index(bytes.len() + 1);
            let end = (at + length).min(bytes.len());
            let new = if byte < 200 {
                piece.get(&PIECES).as_bytes().to_vec()
            } else {
                vec![byte]
            };
            bytes.splice(at..end, new);
        }
        bytes
    })
}

proptest! {
    // A failure prints its input, which then belongs into the corpus.
    #![proptest_config(ProptestConfig { cases: 2048, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_configurations(bytes in damaged()) {
        swallow(&bytes);
    }

    #[test]
    fn random_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        swallow(&bytes);
    }
}
