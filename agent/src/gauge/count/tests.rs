//! Counting without a container: of processes there are none to look at.

use super::*;
use gantry_wire::ids::{ContainerId, TaskId};

fn means() -> Means {
    Means::new(Backend::Accounting, Path::new("/var/tmp"), "gantry-none")
}

/// A whole count; None when there is nothing.
fn look(watched: &Watched) -> Option<Found> {
    let means = means();
    let mut count = Count::new(&means, watched);
    loop {
        if let Some(found) = count.turn(&means)? {
            return Some(found);
        }
    }
}

fn watched(sandbox: PathBuf, limit_bytes: u64) -> Watched {
    Watched {
        task: TaskId::parse("t").unwrap(),
        container: ContainerId::parse("c").unwrap(),
        sandbox,
        layer: None,
        pid: 0,
        limit_bytes,
    }
}

#[test]
fn what_holds_too_much_is_told_from_what_does_not() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    for number in 0..3 * TURN_ENTRIES {
        std::fs::write(dir.path().join(number.to_string()), [1; 10]).unwrap();
    }
    let found = look(&watched(dir.path().into(), 1 << 30));
    let found = found.unwrap();
    assert!(found.usage.complete && found.usage.bytes >= 3 * 4096 * TURN_ENTRIES as u64);
    assert_eq!(found.excess(1 << 30), None);
    // It is counted no further than the limit.
    let few = look(&watched(dir.path().into(), 1 << 20));
    let few = few.unwrap();
    assert!(few.usage.bytes < found.usage.bytes);
    let excess = few.excess(1 << 20).unwrap();
    assert!(excess.used_bytes > excess.limit_bytes && !excess.uncounted);
    // Files count as well as bytes, and so does the root.
    let many = look(&watched(dir.path().into(), 1 << 29));
    assert_eq!(many.unwrap().usage.files, 3 * TURN_ENTRIES as u64 + 1);
    let root = tempfile::tempdir_in("/var/tmp").unwrap();
    let both = Watched {
        layer: Some(root.path().to_owned()),
        ..watched(dir.path().into(), 64 << 20)
    };
    for number in 0..max_files(64 << 20) {
        std::fs::File::create(root.path().join(number.to_string())).unwrap();
    }
    let too_many = look(&both).unwrap();
    let excess = too_many.excess(64 << 20).unwrap();
    assert!(excess.used_files > excess.limit_files && excess.used_bytes < excess.limit_bytes);
    // What a quota keeps is nobody's excess; what is gone is nothing.
    let kept = Found {
        counted: false,
        ..few
    };
    assert_eq!(kept.excess(1 << 20), None);
    let gone = watched(dir.path().join("gone"), 1);
    assert_eq!(look(&gone), None);
}
