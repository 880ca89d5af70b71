//! The log on disks of memory, torn, bent and full, and on real files with and without io_uring.

use super::faulty::MemoryDisk;
use super::record::HEADER_BYTES;
use super::*;

const SALT: u32 = 0x5eed;

fn entry(index: u64, term: u64, data: &str) -> Entry {
    let data = Bytes::copy_from_slice(data.as_bytes());
    Entry {
        index,
        term,
        kind: EntryKind::Normal,
        data,
    }
}

fn state(term: u64, commit: u64) -> HardState {
    HardState {
        term,
        vote: 1,
        commit,
    }
}

fn open(disk: &MemoryDisk, snapshot_index: u64) -> Result<(Log, Recovered), LogError> {
    Log::open_sized(Box::new(disk.clone()), snapshot_index, SALT, 4 << 10)
}

/// Three batches: 1–2, 3, 4–6. Answers the disk and all entries.
fn three_batches() -> (MemoryDisk, Vec<Entry>) {
    let disk = MemoryDisk::default();
    let (mut log, recovered) = open(&disk, 0).unwrap();
    assert_eq!(recovered, Recovered::default());
    let all: Vec<_> = (1..=6)
        .map(|i| entry(i, 1, &format!("command number {i}")))
        .collect();
    log.append(&all[..2], state(1, 0)).unwrap();
    log.append(&all[2..3], state(1, 2)).unwrap();
    log.append(&all[3..], state(1, 3)).unwrap();
    (disk, all)
}

fn only_file(disk: &MemoryDisk) -> String {
    let inside = disk.inside();
    assert_eq!(inside.files.len(), 1);
    inside.files.keys().next().unwrap().clone()
}

#[test]
fn everything_written_is_read_back_and_appending_goes_on() {
    let (disk, mut all) = three_batches();
    let (mut log, recovered) = open(&disk, 0).unwrap();
    assert_eq!(
        recovered,
        Recovered {
            entries: all.clone(),
            hard_state: state(1, 3)
        }
    );
    all.push(entry(7, 2, ""));
    log.append(&all[6..], state(2, 6)).unwrap();
    drop(log);
    let (_, recovered) = open(&disk, 0).unwrap();
    assert_eq!(
        recovered,
        Recovered {
            entries: all,
            hard_state: state(2, 6)
        }
    );
}

#[test]
fn a_tail_torn_at_any_byte_keeps_what_was_durable_and_takes_writes() {
    let (disk, all) = three_batches();
    let name = only_file(&disk);
    let (_, offset, length) = disk.inside().appends.last().unwrap().clone();
    for cut in offset..=offset + length {
        for garbage in [0_u8, 0xa5] {
            let torn = disk.copy();
            let end = (cut + 512).min(offset + length).max(cut);
            torn.inside().files.get_mut(&name).unwrap()[cut..offset + length].fill(0);
            torn.inside().files.get_mut(&name).unwrap()[cut..end].fill(garbage);
            let (mut log, recovered) = open(&torn, 0).unwrap();
            let found = recovered.entries.len();
            assert_eq!(recovered.entries, all[..found], "cut at {cut}");
            assert!((3..=6).contains(&found), "cut at {cut}: {found} entries");
            let next = entry(found as u64 + 1, 2, "after the crash");
            log.append(std::slice::from_ref(&next), state(2, 3))
                .unwrap();
            drop(log);
            let (_, recovered) = open(&torn, 0).unwrap();
            assert_eq!(recovered.entries.len(), found + 1, "cut at {cut}");
            assert_eq!(recovered.entries.last(), Some(&next));
            assert_eq!(recovered.hard_state, state(2, 3));
        }
    }
}

#[test]
fn a_torn_write_may_have_lost_its_beginning_and_kept_its_end() {
    let (disk, all) = three_batches();
    let name = only_file(&disk);
    let (_, offset, length) = disk.inside().appends.last().unwrap().clone();
    for hole in 1..length {
        let torn = disk.copy();
        torn.inside().files.get_mut(&name).unwrap()[offset..offset + hole].fill(0);
        let (log, recovered) = open(&torn, 0).unwrap();
        assert_eq!(recovered.entries, all[..3], "hole of {hole}");
        drop(log);
        let rest_is_clean = torn.inside().files[&name][offset..]
            .iter()
            .all(|byte| *byte == 0);
        assert!(rest_is_clean, "hole of {hole}");
    }
}

#[test]
fn the_first_batch_of_a_new_log_may_be_torn() {
    let disk = MemoryDisk::default();
    let (mut log, _) = open(&disk, 0).unwrap();
    log.append(&[entry(1, 1, "first")], state(1, 0)).unwrap();
    drop(log);
    let name = only_file(&disk);
    let length = disk.inside().appends[0].2;
    for cut in 0..length {
        let torn = disk.copy();
        torn.inside().files.get_mut(&name).unwrap()[cut..].fill(0);
        let (mut log, recovered) = open(&torn, 0).unwrap();
        if recovered.entries.is_empty() {
            log.append(&[entry(1, 2, "again")], state(2, 0)).unwrap();
            drop(log);
            assert_eq!(
                open(&torn, 0).unwrap().1.entries,
                [entry(1, 2, "again")],
                "cut at {cut}"
            );
        }
    }
}

#[test]
fn damage_before_the_last_write_is_refused_with_the_way_out() {
    let (disk, _) = three_batches();
    let name = only_file(&disk);
    let last = disk.inside().appends[2].1;
    for at in 0..last {
        let bent = disk.copy();
        let before = bent.inside().files[&name].clone();
        bent.inside().files.get_mut(&name).unwrap()[at] ^= 0x40;
        match open(&bent, 0) {
            // Padding is not covered and not needed.
            Ok((_, recovered)) => assert_eq!(recovered.entries.len(), 6, "byte {at}"),
            Err(LogError::Corrupt { path, .. }) => assert_eq!(path, name),
            Err(other) => panic!("byte {at}: {other}"),
        }
        let mut after = bent.inside().files[&name].clone();
        after[at] ^= 0x40;
        assert_eq!(before, after, "nothing may be changed");
    }
    disk.inside().files.get_mut(&name).unwrap()[HEADER_BYTES..last].fill(0);
    let error = open(&disk, 0).err().unwrap().to_string();
    assert!(
        error.contains("truncate -s") && error.contains("backup"),
        "{error}"
    );
}

#[test]
fn the_way_out_works() {
    let (disk, all) = three_batches();
    let name = only_file(&disk);
    let second = disk.inside().appends[1].1;
    disk.inside().files.get_mut(&name).unwrap()[second + 9] ^= 1;
    let Err(LogError::Corrupt {
        offset,
        last_index,
        size,
        ..
    }) = open(&disk, 0)
    else {
        panic!()
    };
    assert_eq!((offset, last_index), (second, 2));
    disk.inside().files.get_mut(&name).unwrap().truncate(offset);
    disk.inside().files.get_mut(&name).unwrap().resize(size, 0);
    let (mut log, recovered) = open(&disk, 0).unwrap();
    assert_eq!(recovered.entries, all[..2]);
    log.append(&[entry(3, 2, "again")], state(2, 2)).unwrap();
    drop(log);
    assert_eq!(open(&disk, 0).unwrap().1.entries.len(), 3);
}

#[test]
fn a_segment_that_was_cut_short_is_refused_with_the_way_out() {
    let (disk, all) = three_batches();
    let name = only_file(&disk);
    let (_, offset, length) = disk.inside().appends.last().unwrap().clone();
    // Emptied, cut within the last write, cut right after it, and short by a byte of nothing.
    for (length, kept) in [(0, 0), (offset + 5, 3), (offset + length, 6), (4095, 6)] {
        let short = disk.copy();
        short
            .inside()
            .files
            .get_mut(&name)
            .unwrap()
            .truncate(length);
        let Err(LogError::Short { found, size, .. }) = open(&short, 0) else {
            panic!("cut to {length} bytes")
        };
        assert_eq!((found, size), (length as u64, 4096));
        assert_eq!(short.inside().files[&name].len(), length, "nothing changed");
        let size = usize::try_from(size).unwrap();
        short.inside().files.get_mut(&name).unwrap().resize(size, 0);
        assert_eq!(open(&short, 0).unwrap().1.entries, all[..kept]);
    }
}

#[test]
fn a_snapshot_without_any_log_is_refused() {
    let disk = MemoryDisk::default();
    open(&disk, 0).unwrap();
    assert!(matches!(
        open(&disk, 9),
        Err(LogError::Lost { snapshot: 9 })
    ));
    // Nor does one that was made but never written hold what the snapshot was made of.
    let name = segment_name(1, SALT);
    disk.inside().files.insert(name, vec![0; 4 << 10]);
    assert!(matches!(
        open(&disk, 9),
        Err(LogError::Lost { snapshot: 9 })
    ));
    open(&disk, 0).unwrap();
}

#[test]
fn a_cut_says_how_much_it_takes() {
    use super::replay::lost_bytes;
    assert_eq!(lost_bytes(&[1, 2, 0, 0], 2), 0);
    assert_eq!(lost_bytes(&[1, 2, 0, 3, 0], 2), 2);
    assert_eq!(lost_bytes(&[0, 0], 0), 0);
}

#[test]
fn a_conflicting_suffix_is_replaced() {
    let (disk, all) = three_batches();
    let (mut log, _) = open(&disk, 0).unwrap();
    log.append(&[entry(4, 2, "other")], state(2, 3)).unwrap();
    drop(log);
    let (_, recovered) = open(&disk, 0).unwrap();
    assert_eq!(recovered.entries[..3], all[..3]);
    assert_eq!(recovered.entries[3..], [entry(4, 2, "other")]);
    // Also when a snapshot covers the entry that replaced them.
    let (_, recovered) = open(&disk, 4).unwrap();
    assert_eq!(recovered.entries, []);
}

/// Fills several segments; answers how many entries there are.
fn several_segments(disk: &MemoryDisk) -> u64 {
    let (mut log, _) = open(disk, 0).unwrap();
    let data = "x".repeat(200);
    for index in 1..=30 {
        log.append(&[entry(index, 1, &data)], state(1, index - 1))
            .unwrap();
    }
    30
}

#[test]
fn segments_roll_and_compaction_removes_whole_ones() {
    let disk = MemoryDisk::default();
    let last = several_segments(&disk);
    assert_eq!(disk.inside().files.len(), 3);
    let (mut log, recovered) = open(&disk, 0).unwrap();
    assert_eq!(recovered.entries.len() as u64, last);
    log.compact(12).unwrap();
    assert_eq!(
        disk.inside().files.len(),
        3,
        "a segment with a needed entry stays"
    );
    log.compact(20).unwrap();
    assert_eq!(disk.inside().files.len(), 2);
    log.compact(last).unwrap();
    assert_eq!(disk.inside().files.len(), 1, "the current one stays");
    log.append(&[entry(31, 1, "after")], state(1, 30)).unwrap();
    drop(log);
    let (_, recovered) = open(&disk, 30).unwrap();
    assert_eq!(recovered.entries, [entry(31, 1, "after")]);
    assert!(matches!(
        open(&disk, 10),
        Err(LogError::Gap { snapshot: 10, .. })
    ));
    // The oldest segment had been written to, whatever it looks like now.
    let name = only_file(&disk);
    disk.inside().files.get_mut(&name).unwrap().fill(0);
    assert!(matches!(open(&disk, 30), Err(LogError::Corrupt { .. })));
}

#[test]
fn a_missing_or_foreign_segment_is_refused() {
    let disk = MemoryDisk::default();
    several_segments(&disk);
    let names: Vec<_> = disk.inside().files.keys().cloned().collect();
    let copy = disk.copy();
    copy.inside().files.remove(&names[1]);
    assert!(matches!(
        open(&copy, 0),
        Err(LogError::Missing { missing: 2 })
    ));
    let copy = disk.copy();
    copy.inside()
        .files
        .insert("0000000000000004-0000beef.wal".to_owned(), vec![0; 100]);
    assert!(matches!(open(&copy, 0), Err(LogError::Foreign { .. })));
    let copy = disk.copy();
    copy.inside().files.get_mut(&names[1]).unwrap()[3000] ^= 1;
    assert!(matches!(open(&copy, 0), Err(LogError::Corrupt { .. })));
    let copy = disk.copy();
    copy.inside().files.get_mut(&names[1]).unwrap().fill(0);
    assert!(matches!(open(&copy, 0), Err(LogError::Corrupt { .. })));
}

#[test]
fn a_batch_larger_than_a_segment_gets_its_own() {
    let disk = MemoryDisk::default();
    let (mut log, _) = open(&disk, 0).unwrap();
    let big = entry(1, 1, &"y".repeat(20 << 10));
    log.append(std::slice::from_ref(&big), state(1, 0)).unwrap();
    log.append(&[entry(2, 1, "small")], state(1, 1)).unwrap();
    drop(log);
    let (_, recovered) = open(&disk, 0).unwrap();
    assert_eq!(recovered.entries, [big, entry(2, 1, "small")]);
}

#[test]
fn a_payload_that_looks_like_records_is_not_taken_for_one() {
    // A client sends an image of a record as data; the write of it is torn before its end.
    let mut image = Vec::new();
    let later = Record {
        kind: Kind::Normal,
        batch: 99,
        last: true,
        index: 9,
        term: 9,
        payload: b"evil",
    };
    encode(&mut image, 0, &later);
    let disk = MemoryDisk::default();
    let (mut log, _) = open(&disk, 0).unwrap();
    log.append(&[entry(1, 1, "good")], state(1, 0)).unwrap();
    let mut data = image.clone();
    data.resize(200, 1);
    let evil = Entry {
        data: data.into(),
        ..entry(2, 1, "")
    };
    log.append(&[evil], state(1, 1)).unwrap();
    drop(log);
    let name = only_file(&disk);
    let (_, offset, length) = disk.inside().appends.last().unwrap().clone();
    disk.inside().files.get_mut(&name).unwrap()[offset + length - 20..].fill(0);
    let (_, recovered) = open(&disk, 0).unwrap();
    assert_eq!(recovered.entries, [entry(1, 1, "good")]);
}

#[test]
fn a_full_disk_stops_the_log_and_loses_nothing_that_was_durable() {
    let (disk, all) = three_batches();
    let (mut log, _) = open(&disk, 0).unwrap();
    disk.inside().fail_after = Some(0);
    let error = log
        .append(&[entry(7, 1, "lost in the middle")], state(1, 6))
        .unwrap_err();
    assert!(matches!(error, LogError::Write { .. }), "{error}");
    disk.inside().fail_after = None;
    let again = log
        .append(&[entry(7, 1, "lost in the middle")], state(1, 6))
        .unwrap_err();
    assert!(matches!(again, LogError::Failed), "{again}");
    drop(log);
    assert_eq!(open(&disk, 0).unwrap().1.entries, all);
}

#[test]
fn real_files_with_and_without_io_uring_hold_the_same() {
    let mut contents = Vec::new();
    for ring in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let disk = || Box::new(Files::open(directory.path(), ring).unwrap());
        let (mut log, _) = Log::open(disk(), 0, SALT).unwrap();
        for index in 1..=50 {
            log.append(
                &[entry(index, 1, &"z".repeat(index as usize * 100))],
                state(1, index - 1),
            )
            .unwrap();
        }
        drop(log);
        let path = std::fs::read_dir(directory.path())
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        contents.push(std::fs::read(&path).unwrap());
        // Tear the last record in the file itself.
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(contents[0].iter().rposition(|b| *b != 0).unwrap() as u64 - 10)
            .unwrap();
        let short = Log::open(disk(), 0, SALT).err().unwrap();
        assert!(matches!(short, LogError::Short { .. }), "{short}");
        file.set_len(SEGMENT_BYTES).unwrap();
        let (mut log, recovered) = Log::open(disk(), 0, SALT).unwrap();
        assert_eq!(recovered.entries.len(), 49);
        log.append(&[entry(50, 2, "again")], state(2, 49)).unwrap();
        drop(log);
        assert_eq!(Log::open(disk(), 0, SALT).unwrap().1.entries.len(), 50);
    }
    assert!(
        contents[0] == contents[1],
        "both ways of writing give the same bytes"
    );
}
