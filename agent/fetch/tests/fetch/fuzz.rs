//! Archives made at random, of hostile names and links, and bytes changed at random: whatever comes
//! of them, nothing outside of the sandbox changes, everything inside is the task's, and nothing
//! panics.

use std::fs;
use std::io::Write as _;

use gantry_fetch::Bounds;
use proptest::prelude::*;
use tar::{EntryType, Header};

use crate::fixture::{Node, assert_owned, item};

/// Small enough that every case is quick.
const BOUNDS: Bounds = Bounds {
    entries: 64,
    bytes: 1 << 20,
    ratio: 200,
    ratio_floor_bytes: 1 << 20,
};

#[derive(Debug, Clone)]
struct Made {
    kind: u8,
    name: Vec<u8>,
    link: Vec<u8>,
    mode: u32,
    content: Vec<u8>,
}

/// Few components, so that entries meet.
fn name() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        4 => Just(&b"a"[..]),
        4 => Just(&b"b"[..]),
        1 => Just(&b".."[..]),
        1 => Just(&b"."[..]),
        1 => Just(&b""[..]),
        1 => Just(&b"\xff"[..]),
    ];
    prop::collection::vec(part, 1..5).prop_map(|parts| parts.join(&b'/'))
}

fn made() -> impl Strategy<Value = Made> {
    let kinds = prop::sample::select(b"0000555522112346".to_vec());
    let content = prop::collection::vec(any::<u8>(), 0..600);
    (kinds, name(), name(), 0..0o10_000_u32, content).prop_map(
        |(kind, name, link, mode, content)| Made {
            kind,
            name,
            link,
            mode,
            content,
        },
    )
}

fn tar(entries: &[Made]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for made in entries {
        let mut header = Header::new_gnu();
        let fields = header.as_gnu_mut().unwrap();
        fields.name[..made.name.len()].copy_from_slice(&made.name);
        fields.linkname[..made.link.len()].copy_from_slice(&made.link);
        let content = if made.kind == b'0' {
            &made.content[..]
        } else {
            b""
        };
        header.set_entry_type(EntryType::new(made.kind));
        header.set_mode(made.mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(content.len() as u64);
        header.set_cksum();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().div_ceil(512) * 512, 0);
    }
    bytes.extend_from_slice(&[0; 1024]);
    bytes
}

/// Local headers, stored content, central directory; CRCs are right.
fn zip(entries: &[Made]) -> Vec<u8> {
    let (mut bytes, mut central) = (Vec::new(), Vec::new());
    for made in entries {
        let (mode, content) = match made.kind {
            b'5' => (0o040_000, &b""[..]),
            b'2' | b'1' => (0o120_000, &made.link[..]),
            b'3' | b'4' => (0o020_000, &b""[..]),
            b'6' => (0o010_000, &b""[..]),
            _ => (0o100_000, &made.content[..]),
        };
        let mut crc = flate2::Crc::new();
        crc.update(content);
        let at = u32::try_from(bytes.len()).unwrap();
        let length = u32::try_from(content.len()).unwrap().to_le_bytes();
        let name = u16::try_from(made.name.len()).unwrap().to_le_bytes();
        let sizes = [crc.sum().to_le_bytes(), length, length].concat();
        let head = [
            &[20, 0, 0, 0, 0, 0, 0, 0, 33, 0][..],
            &sizes,
            &name,
            &[0; 2],
        ]
        .concat();
        bytes.extend([b"PK\x03\x04", &head[..], &made.name, content].concat());
        let attributes = ((mode | made.mode) << 16).to_le_bytes();
        let tail = [&[0; 6][..], &attributes, &at.to_le_bytes()].concat();
        central.extend([b"PK\x01\x02\x14\x03", &head[..], &tail, &made.name].concat());
    }
    let count = u16::try_from(entries.len()).unwrap().to_le_bytes();
    let at = u32::try_from(bytes.len()).unwrap().to_le_bytes();
    let length = u32::try_from(central.len()).unwrap().to_le_bytes();
    bytes.extend(central);
    bytes.extend(
        [
            &b"PK\x05\x06\0\0\0\0"[..],
            &count,
            &count,
            &length,
            &at,
            &[0; 2],
        ]
        .concat(),
    );
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Whether it was extracted.
fn extract(node: &Node, name: &str, bytes: &[u8]) -> Result<(), String> {
    let sandbox = node.sandbox();
    fs::remove_dir_all(&sandbox).unwrap();
    fs::create_dir(&sandbox).unwrap();
    node.file(name, bytes);
    let result = node.run_within(&[item(name)], BOUNDS, None);
    assert_owned(&sandbox);
    let mut beside: Vec<_> = fs::read_dir(node.dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    beside.sort();
    assert_eq!(beside, ["fetch", "files", "sandbox"]);
    result
}

#[test]
fn entries_at_random() {
    let node = Node::new(&[]);
    let (mut fine, mut refused) = (0, 0);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let entries = prop::collection::vec(made(), 1..8);
    let counts = std::cell::RefCell::new((&mut fine, &mut refused));
    runner
        .run(&entries, |entries| {
            for (name, bytes) in [("e.tar", tar(&entries)), ("e.zip", zip(&entries))] {
                let result = extract(&node, name, &bytes);
                let mut counts = counts.borrow_mut();
                match result {
                    Ok(()) => *counts.0 += 1,
                    Err(_) => *counts.1 += 1,
                }
            }
            Ok(())
        })
        .unwrap();
    assert!(fine > 20 && refused > 20, "{fine} {refused}");
}

#[test]
fn bytes_changed_at_random() {
    let node = Node::new(&[]);
    let entry = |kind, name: &[u8]| Made {
        kind,
        name: name.to_vec(),
        link: b"a".to_vec(),
        mode: 0o755,
        content: b"content ".repeat(60),
    };
    let entries = [
        entry(b'0', b"a"),
        entry(b'5', b"d"),
        entry(b'2', b"l"),
        entry(b'0', b"d/b"),
    ];
    let packed = tempfile::tempdir().unwrap();
    fs::write(packed.path().join("t"), tar(&entries)).unwrap();
    crate::fixture::sh(packed.path(), "bzip2 -k t; xz -k t; zstd -q t");
    let read = |name: &str| fs::read(packed.path().join(name)).unwrap();
    let archives = [
        ("t.tar", tar(&entries)),
        ("t.tar.gz", gzip(&tar(&entries))),
        ("t.tar.bz2", read("t.bz2")),
        ("t.tar.xz", read("t.xz")),
        ("t.tar.zst", read("t.zst")),
        ("t.zip", zip(&entries)),
    ];
    for (name, bytes) in &archives {
        extract(&node, name, bytes).unwrap();
        let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
            cases: 120,
            failure_persistence: None,
            ..ProptestConfig::default()
        });
        let change = (0..bytes.len(), any::<u8>());
        let changes = (prop::collection::vec(change, 1..6), 0..=bytes.len());
        runner
            .run(&changes, |(changes, end)| {
                let mut bytes = bytes.clone();
                for (at, byte) in changes {
                    bytes[at] = byte;
                }
                if end % 4 == 0 {
                    bytes.truncate(end);
                }
                // Any answer will do.
                let _ = extract(&node, name, &bytes);
                Ok(())
            })
            .unwrap();
    }
}
