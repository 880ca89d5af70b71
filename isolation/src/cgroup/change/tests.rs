//! Plain files stand in for the kernel's: what is written, in which order, and what is put back.

use super::*;
use crate::cgroup::Hierarchies;
use crate::spec::Limits;

fn setting(file: &'static str, value: &str) -> Setting {
    Setting::new("x", file, value)
}

fn update(dir: &Path, settings: &[(&'static str, &str)]) -> Update {
    let settings = settings.iter().map(|(file, value)| setting(file, value));
    Update {
        settings: settings.map(|s| (dir.to_owned(), s)).collect(),
        ..Update::default()
    }
}

#[test]
fn a_refusal_names_the_file_and_puts_the_others_back() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("pids.max"), "max\n").unwrap();
    std::fs::create_dir(dir.path().join("cpu.max")).unwrap();
    let change = update(dir.path(), &[("pids.max", "7"), ("cpu.max", "1 2")]);
    let error = change.apply().unwrap_err();
    let words = error.to_string();
    assert!(words.contains("cpu.max\" to 1 2"), "{words}");
    let pids = std::fs::read_to_string(dir.path().join("pids.max")).unwrap();
    assert_eq!(pids, "max");
}

#[test]
fn v2_memory_in_use_is_not_limited_away() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("memory.current"), "5000\n").unwrap();
    let error = update(dir.path(), &[("memory.max", "4096")])
        .apply()
        .unwrap_err();
    assert!(error.to_string().contains("memory.max"));
    let asked = std::fs::read_to_string(dir.path().join("memory.reclaim")).unwrap();
    assert_eq!(asked, "904");
    assert!(!dir.path().join("memory.max").exists());
    assert!(
        update(dir.path(), &[("memory.max", "5000")])
            .apply()
            .is_ok()
    );
    assert!(update(dir.path(), &[("memory.max", "max")]).apply().is_ok());
}

#[test]
fn what_was_there_can_be_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let was = |file: &str, text: &str, value: &str| {
        let path = dir.path().join(file);
        std::fs::write(&path, text).unwrap();
        earlier(&path, value).unwrap()
    };
    assert_eq!(was("cpu.max", "max 100000\n", "5 10"), "max 100000");
    let line = "8:0 rbps=1 wbps=max riops=max wiops=max";
    assert_eq!(
        was("io.max", &format!("7:0 x\n{line}\n"), "8:0 rbps=2"),
        line
    );
    assert_eq!(
        was("io.max", "", "8:0 rbps=2"),
        "8:0 rbps=max wbps=max riops=max wiops=max"
    );
    assert_eq!(
        was("io.weight", "default 100\n8:0 5\n", "8:16 7"),
        "8:16 default"
    );
    assert_eq!(
        was("io.weight", "default 100\n8:0 5\n", "default 7"),
        "default 100"
    );
    assert_eq!(was("blkio.throttle.read_bps_device", "", "8:0 5"), "8:0 0");
}

#[test]
fn only_what_differs_is_written() {
    let hosts = Hierarchies {
        cpu: Some("/cg/cpu".into()),
        memory: Some("/cg/memory".into()),
        cpuset: Some("/cg/cpuset".into()),
        ..Hierarchies::default()
    };
    let limits = Limits {
        cpu_shares: Some(5),
        memory_bytes: Some(4096),
        ..Limits::default()
    };
    let from = Group::new(&hosts, "p", "c", &limits, &[]).unwrap();
    assert_eq!(Update::between(&from, &from), None);
    let change = Limits {
        memory_bytes: Some(8192),
        cpuset_cpus: Some("0".to_owned()),
        ..Limits::default()
    };
    let to = from.changed(&hosts, &change).unwrap();
    let update = Update::between(&from, &to).unwrap();
    let files: Vec<&str> = update.settings.iter().map(|(_, s)| &*s.file).collect();
    assert_eq!(
        files,
        ["cpuset.cpus", "cpuset.mems", "memory.limit_in_bytes"]
    );
    assert_eq!(update.make, [PathBuf::from("/cg/cpuset/p/c")]);
    assert_eq!(update.join, update.make);
    assert_eq!(update.tracking, PathBuf::from("/cg/cpu/p/c"));
}
