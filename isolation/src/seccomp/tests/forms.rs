//! Texts: both forms are read, everything not understood is refused with its reason.

use super::machine;
use super::{answer, compile, host};
use crate::caps::{self, CapSet};
use crate::seccomp::{
    Action, Arch, Cache, MAX_CACHED_PROGRAMS, MAX_PROFILE_BYTES, Profile, Program, Seccomp,
    SeccompError,
};

fn corpus(name: &str) -> String {
    let path = format!("{}/tests/corpus/seccomp/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn admin() -> CapSet {
    serde_json::from_value((1_u64 << 21).into()).unwrap()
}

#[test]
fn dockers_form_is_read() {
    let profile = Profile::parse(&corpus("docker.json")).unwrap();
    let plain = compile(&profile, caps::default_set(), Arch::X86_64);
    let arch = Arch::X86_64;
    assert_eq!(answer(&plain, arch, "read", &[]), Action::Allow);
    assert_eq!(answer(&plain, arch, "mount", &[]), Action::Errno(1));
    assert_eq!(answer(&plain, arch, "clone", &[0x11]), Action::Allow);
    assert_eq!(
        answer(&plain, arch, "clone", &[0x1000_0011]),
        Action::Errno(1)
    );
    assert_eq!(answer(&plain, arch, "clone3", &[]), Action::Errno(38));
    assert_eq!(answer(&plain, arch, "ptrace", &[]), Action::Allow);
    assert_eq!(answer(&plain, arch, "arch_prctl", &[]), Action::Allow);
    assert_eq!(answer(&plain, arch, "chown", &[]), Action::KillProcess);
    assert_eq!(answer(&plain, arch, "personality", &[8]), Action::Trace(7));
    assert_eq!(answer(&plain, arch, "personality", &[9]), Action::Log);
    assert_eq!(answer(&plain, Arch::X86, "read", &[]), Action::Allow);
    assert_eq!(answer(&plain, Arch::X86, "mount", &[]), Action::Errno(1));
    assert_eq!(plain.unknown_names(), ["s390_runtime_instr"]);
    let admin = compile(&profile, admin(), Arch::X86_64);
    assert_eq!(answer(&admin, arch, "mount", &[]), Action::Allow);
    assert_eq!(answer(&admin, arch, "clone3", &[]), Action::Allow);
    let arm = compile(&profile, caps::default_set(), Arch::Aarch64);
    assert_eq!(answer(&arm, Arch::Aarch64, "read", &[]), Action::Allow);
    assert_eq!(
        answer(&arm, Arch::Aarch64, "newfstatat", &[]),
        Action::Allow
    );
    for program in [&plain, &admin, &arm] {
        machine::verify(program);
    }
}

#[test]
fn the_oci_form_is_read() {
    let profile = Profile::parse(&corpus("oci.json")).unwrap();
    let program = compile(&profile, CapSet::EMPTY, Arch::X86_64);
    machine::verify(&program);
    // TSYNC | LOG | SPEC_ALLOW
    assert_eq!(program.flags(), 7);
    let arch = Arch::X86_64;
    assert_eq!(answer(&program, arch, "getcwd", &[]), Action::Errno(4));
    assert_eq!(answer(&program, arch, "read", &[]), Action::Allow);
    // Two questions about one argument are two rules, as for runc.
    assert_eq!(answer(&program, arch, "write", &[1]), Action::Errno(1));
    assert_eq!(answer(&program, arch, "write", &[2]), Action::Errno(1));
    assert_eq!(answer(&program, arch, "write", &[3]), Action::Allow);
    // About two arguments, both must hold.
    assert_eq!(answer(&program, arch, "lseek", &[5, 0]), Action::Allow);
    assert_eq!(answer(&program, arch, "lseek", &[5, 9]), Action::Trap);
    assert_eq!(
        answer(&program, Arch::X86, "getcwd", &[]),
        Action::KillProcess
    );
    // A permissive default lets newer calls reach the kernel.
    let newer = machine::Call::new(arch.audit_number(), 5000, &[]);
    assert_eq!(machine::run(&program, &newer).0, Action::Allow);
}

fn with_rule(rule: &str) -> String {
    format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{rule}]}}"#)
}

fn with_arg(arg: &str) -> String {
    with_rule(&format!(
        r#"{{"names":["read"],"action":"SCMP_ACT_TRAP","args":[{arg}]}}"#
    ))
}

/// No reason: the text is understood.
fn assert_refused(table: &[(String, &str)]) {
    for (text, reason) in table {
        let refused = Profile::parse(text).map(drop);
        if reason.is_empty() {
            assert!(refused.is_ok(), "{refused:?}");
            continue;
        }
        let error = refused.unwrap_err().to_string();
        assert!(error.contains(reason), "{reason:?} is not in {error:?}");
    }
}

#[test]
fn words_that_are_not_understood_are_refused() {
    let rule = with_rule;
    let with = |fields: &str| format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW",{fields}}}"#);
    let both = r#""architectures":["SCMP_ARCH_X86"],"archMap":[{"architecture":"SCMP_ARCH_X86"}]"#;
    let killable = r#""flags":["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]"#;
    let kernel = r#"{"names":["read"],"action":"SCMP_ACT_TRAP","includes":{"minKernel":"new"}}"#;
    assert_refused(&[
        (String::new(), "EOF"),
        ("[]".into(), "struct"),
        ("{}".into(), "defaultAction"),
        (
            r#"{"defaultAction":"allow"}"#.into(),
            "\"allow\" is no action",
        ),
        (r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#.into(), "listener"),
        (
            with(r#""architectures":["SCMP_ARCH_VAX"]"#),
            "no architecture",
        ),
        (
            with(r#""archMap":[{"architecture":"x86"}]"#),
            "no architecture",
        ),
        (with(both), "use one"),
        (with(r#""flags":["SECCOMP_FILTER_FLAG_NEW"]"#), "no flag"),
        (with(killable), "listener"),
        (
            rule(r#"{"names":[],"action":"SCMP_ACT_TRAP"}"#),
            "rule 0 names no",
        ),
        (rule(r#"{"action":"SCMP_ACT_TRAP"}"#), "rule 0 names no"),
        (
            rule(r#"{"name":"a","names":["b"],"action":"SCMP_ACT_TRAP"}"#),
            "use one",
        ),
        (
            rule(r#"{"names":["read"],"action":"SCMP_ACT_NOTIFY"}"#),
            "listener",
        ),
        (rule(kernel), "version"),
        (
            with_arg(r#"{"index":0,"value":0,"op":"=="}"#),
            "no operator",
        ),
    ]);
}

#[test]
fn numbers_out_of_bounds_are_refused() {
    let errno = |number: &str| {
        with_rule(&format!(
            r#"{{"names":["read"],"action":"SCMP_ACT_ERRNO","errnoRet":{number}}}"#
        ))
    };
    let value = |number: &str| {
        with_arg(&format!(
            r#"{{"index":0,"value":{number},"op":"SCMP_CMP_EQ"}}"#
        ))
    };
    let long = format!(
        r#"{{"names":["{}"],"action":"SCMP_ACT_TRAP"}}"#,
        "x".repeat(65)
    );
    let args = vec![r#"{"index":0,"value":0,"op":"SCMP_CMP_EQ"}"#; 33].join(",");
    let rules = |number| vec![r#"{"name":"a","action":"SCMP_ACT_LOG"}"#; number].join(",");
    let deep = format!(
        r#"{{"defaultAction":"SCMP_ACT_ALLOW","x":{}{}}}"#,
        "[".repeat(60_000),
        "]".repeat(60_000)
    );
    assert_refused(&[
        (errno("4096"), "4096"),
        (errno("-1"), "-1"),
        (errno("4095"), ""),
        (
            with_arg(r#"{"index":6,"value":0,"op":"SCMP_CMP_EQ"}"#),
            "argument 6",
        ),
        (value("-1"), "-1"),
        (value("1.5"), "1.5"),
        (value("18446744073709551616"), "u64"),
        (value("18446744073709551615"), ""),
        (with_rule(&long), "65"),
        (with_arg(&args), "conditions"),
        (" ".repeat(MAX_PROFILE_BYTES + 1), "bytes"),
        (with_rule(&rules(3000)), ""),
        (deep, ""),
    ]);
}

#[test]
fn contradictions_are_never_answered_more_laxly_than_by_libseccomp() {
    let table: &[(&str, &str, u64, Action)] = &[
        // A rule for some arguments stands beside a laxer one for all (libseccomp drops it).
        ("ALLOW", "ERRNO", 40, Action::Errno(1)),
        ("ALLOW", "ERRNO", 41, Action::Allow),
        // A laxer one for some does not (libseccomp drops it too).
        ("TRAP", "ALLOW", 40, Action::Trap),
        ("TRAP", "ALLOW", 41, Action::Trap),
    ];
    for (all, some, argument, wanted) in table {
        for flip in [false, true] {
            let mut rules = [
                format!(r#"{{"name":"socket","action":"SCMP_ACT_{all}"}}"#),
                format!(
                    r#"{{"name":"socket","action":"SCMP_ACT_{some}","args":
                    [{{"index":0,"value":40,"op":"SCMP_CMP_EQ"}}]}}"#
                ),
            ];
            if flip {
                rules.reverse();
            }
            let text = format!(
                r#"{{"defaultAction":"SCMP_ACT_KILL","syscalls":[{}]}}"#,
                rules.join(",")
            );
            let profile = Profile::parse(&text).unwrap();
            let program = compile(&profile, CapSet::EMPTY, Arch::X86_64);
            let got = answer(&program, Arch::X86_64, "socket", &[*argument]);
            assert_eq!(got, *wanted, "{text}");
        }
    }
}

#[test]
fn a_listing_can_be_read() {
    let profile = Profile::parse(&corpus("small.json")).unwrap();
    let program = compile(&profile, CapSet::EMPTY, Arch::X86_64);
    machine::verify(&program);
    let listing = program.to_string();
    assert_eq!(listing, corpus("small.listing"), "\n{listing}");
}

#[test]
fn filters_are_made_once_and_a_few_are_kept() {
    let mut cache = Cache::new(host(Arch::X86_64));
    let text = |errno: usize| {
        Seccomp::Profile(format!(
            r#"{{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":{errno}}}"#
        ))
    };
    let program = |cache: &mut Cache, wish: &Seccomp, caps| cache.program(wish, caps).unwrap();
    assert!(program(&mut cache, &Seccomp::Unconfined, CapSet::EMPTY).is_none());
    let first = program(&mut cache, &Seccomp::Default, CapSet::EMPTY).unwrap();
    let again = program(&mut cache, &Seccomp::Default, CapSet::EMPTY).unwrap();
    assert!(std::sync::Arc::ptr_eq(&first, &again));
    let other = program(&mut cache, &Seccomp::Default, admin()).unwrap();
    assert_ne!(first.instructions(), other.instructions());
    for errno in 0..MAX_CACHED_PROGRAMS - 1 {
        program(&mut cache, &text(errno), CapSet::EMPTY);
        // What is used stays.
        let kept = program(&mut cache, &Seccomp::Default, CapSet::EMPTY).unwrap();
        assert!(std::sync::Arc::ptr_eq(&first, &kept), "{errno}");
    }
    let anew = program(&mut cache, &Seccomp::Default, admin()).unwrap();
    assert!(!std::sync::Arc::ptr_eq(&other, &anew));
    assert_eq!(anew, other);
    let broken = cache.program(&Seccomp::Profile("{".into()), CapSet::EMPTY);
    assert!(matches!(broken, Err(SeccompError::Json(_))), "{broken:?}");
}

#[test]
fn the_wish_has_a_form_on_the_wire() {
    let json = |wish: &Seccomp| serde_json::to_string(wish).unwrap();
    assert_eq!(json(&Seccomp::Default), r#""default""#);
    assert_eq!(json(&Seccomp::Unconfined), r#""unconfined""#);
    let wish = Seccomp::Profile("{}".into());
    assert_eq!(json(&wish), r#"{"profile":"{}"}"#);
    assert!(wish.check().is_err());
    assert!(Seccomp::Default.check().is_ok());
}

#[test]
fn a_profile_of_nothing_is_a_filter() {
    let profile = Profile::parse(r#"{"defaultAction":"SCMP_ACT_KILL_PROCESS"}"#).unwrap();
    let program = Program::compile(&profile, CapSet::EMPTY, host(Arch::X86_64)).unwrap();
    machine::verify(&program);
    assert_eq!(
        answer(&program, Arch::X86_64, "read", &[]),
        Action::KillProcess
    );
}
