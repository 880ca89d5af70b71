//! Layers with random damage: whatever they say, nothing beside the directory changes, and a layer
//! that is taken can be made again from its recipe. The corpus in `tests/corpus/layer` is replayed
//! as it is and damaged; headers get right checksums afterwards, or nothing would get past them.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::sample::Index as Pick;
use rustix::fs::{Mode, OFlags};

use super::*;
use crate::recipe;

const BLOCK: usize = 512;

fn corpus(kind: &str) -> Vec<Vec<u8>> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let dir = dir.join("tests/corpus").join(kind);
    let mut files: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Makes what may be headers pass the checksum.
fn mend(tar: &mut [u8]) {
    for block in tar.chunks_exact_mut(BLOCK) {
        if &block[257..262] == b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
}

/// Words that hurt, in the places where headers have names.
const WORDS: [&[u8]; 9] = [
    b"../../outside/canary",
    b"/etc/passwd",
    b"..",
    b"a/../../x",
    b".wh.canary",
    b".wh..wh..opq",
    b"etc/link/x",
    b"",
    b"\xff/\xfe",
];

pub(super) fn damaged(kind: &'static str) -> impl Strategy<Value = Vec<u8>> {
    let change = (any::<Pick>(), any::<Pick>(), any::<u8>(), 0..6_u8);
    let changes = prop::collection::vec(change, 0..12);
    (any::<Pick>(), changes).prop_map(move |(which, changes)| {
        let files = corpus(kind);
        let mut tar = which.get(&files).clone();
        for (block, at, byte, how) in changes {
            if tar.len() < BLOCK {
                break;
            }
            let start = block.index(tar.len() / BLOCK) * BLOCK;
            match how {
                0 => tar[start + at.index(BLOCK)] = byte,
                // The kind, the size, and both names.
                1 => tar[start + 156] = b"0123456xgLK"[usize::from(byte) % 11],
                2 => tar[start + 124 + at.index(12)] = byte,
                3 | 4 => {
                    let word = WORDS[usize::from(byte) % WORDS.len()];
                    let to = start + if how == 3 { 0 } else { 157 };
                    tar[to..to + 100].fill(0);
                    tar[to..to + word.len()].copy_from_slice(word);
                }
                _ => {
                    tar.truncate(start + at.index(BLOCK));
                }
            }
        }
        mend(&mut tar);
        tar
    })
}

fn beside(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut seen = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("layer") {
            seen.extend(beside(&path));
        } else if path.is_file() && !path.ends_with("recipe") {
            let content = fs::read(&path).unwrap();
            seen.push((path, content));
        }
    }
    seen.sort();
    seen
}

/// Whether it was taken.
fn check(tar: &[u8]) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let (layer, path) = (dir.path().join("layer"), dir.path().join("recipe"));
    fs::create_dir(&layer).unwrap();
    fs::create_dir(dir.path().join("outside")).unwrap();
    fs::write(dir.path().join("outside/canary"), "canary").unwrap();
    let before = beside(dir.path());
    let open = || rustix::fs::open(&layer, OFlags::RDONLY, Mode::empty()).unwrap();
    let notes = Notes::create(&path);
    let limits = Limits {
        bytes: 1 << 20,
        ..Limits::default()
    };
    let result = unpack(tar, open(), &limits, tar.len() as u64, notes);
    assert_eq!(beside(dir.path()), before);
    let Ok(unpacked) = result else { return false };
    assert_eq!(unpacked.digest, Digest::of(tar));
    if unpacked.noted {
        let mut again = Vec::new();
        let recipe = fs::File::open(&path).unwrap();
        // Nothing gave way to anything, so the files are still what was written.
        recipe::replay(recipe, &open(), &mut again).unwrap();
        assert!(again == tar);
    }
    true
}

#[test]
fn the_corpus_is_taken_and_made_again() {
    for tar in corpus("layer") {
        assert!(check(&tar));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_layers_stay_inside(tar in damaged("layer")) {
        check(&tar);
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        check(&bytes);
    }
}
