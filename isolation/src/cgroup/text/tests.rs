//! Files of real kernels, and text that is none.

use std::path::Path;

use proptest::prelude::*;

use super::super::{freezer, memory};
use super::*;

/// A file of a real kernel.
fn corpus(name: &str) -> String {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/cgroup");
    std::fs::read_to_string(dir.join(name)).unwrap()
}

#[test]
fn keyed_files_are_read_by_whole_names() {
    assert_eq!(keyed("anon_thp 5\nanon 7\n", "anon"), Some(7));
    assert_eq!(keyed("usage_usec x\n", "usage_usec"), None);
    assert_eq!(keyed(&corpus("cpu.stat"), "nr_throttled"), Some(18));
    assert_eq!(keyed(&corpus("memory.stat"), "anon"), Some(1_437_696));
}

#[test]
fn both_versions_tell_the_same_of_a_device() {
    let v2 = io_stat(&corpus("io.stat"));
    assert_eq!(v2.len(), 2);
    assert_eq!(
        v2[0],
        IoUsage {
            major: 254,
            minor: 0,
            read_bytes: 4_096,
            written_bytes: 1_048_576,
            reads: 1,
            writes: 9,
        }
    );
    let v1 = blkio(
        &corpus("blkio.throttle.io_service_bytes"),
        &corpus("blkio.throttle.io_serviced"),
    );
    assert_eq!(v1, v2[..1]);
}

#[test]
fn pressure_is_read_with_and_without_its_second_line() {
    let both = pressure(&corpus("memory.pressure")).unwrap();
    assert_eq!((both.some.avg10, both.some.total_us), (2676, 2_151_999_597));
    assert_eq!(both.full.avg300, 1);
    let first = pressure("some avg10=0.00 avg60=0.00 avg300=0.00 total=7\n").unwrap();
    assert_eq!((first.some.total_us, first.full), (7, Stall::default()));
    for bad in [
        "",
        "some",
        "some avg10=x",
        "full avg10=0.00",
        "some avg10=99999999.00",
    ] {
        let found = pressure(bad);
        assert!(
            found.is_none_or(|found| found.some == Stall::default()),
            "{bad}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever a file holds, it is read or it is not; nothing panics.
    #[test]
    fn no_text_makes_a_parser_panic(
        text in "([a-z_:=. 0-9\n]{0,80}|some avg10=[0-9.]{0,12} total=[0-9]{0,24}|[0-9:]{0,12} [a-zA-Z]{0,6}[ =][0-9]{0,24}\n|\\PC{0,40})*",
        key in "[a-z_]{0,8}",
    ) {
        let _ = keyed(&text, &key);
        let _ = io_stat(&text);
        let _ = blkio(&text, &text);
        let _ = pressure(&text);
        let _ = memory::oom_kills(&text);
        let _ = freezer::is_frozen(&text);
    }

    /// A real file with bytes changed.
    #[test]
    fn nor_does_a_damaged_file(at in 0_usize..200, with in any::<char>(), file in 0_usize..6) {
        let name = ["cpu.stat", "memory.stat", "io.stat", "memory.pressure",
            "blkio.throttle.io_service_bytes", "memory.oom_control"][file];
        let mut text: Vec<char> = corpus(name).chars().collect();
        if let Some(place) = text.get_mut(at) {
            *place = with;
        }
        let text: String = text.into_iter().collect();
        let _ = (keyed(&text, "anon"), io_stat(&text), blkio(&text, &text), pressure(&text));
        let _ = memory::oom_kills(&text);
    }
}
