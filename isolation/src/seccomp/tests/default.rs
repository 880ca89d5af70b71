//! The built-in profile: what it lets through, for whom, and what it costs.

use super::machine::{self, Call};
use super::{answer, compile, host, model};
use crate::caps::{self, CapSet};
use crate::seccomp::{Action, Arch, Profile};

const EPERM: Action = Action::Errno(1);
const ENOSYS: Action = Action::Errno(38);

/// Calls of a container with the default capabilities.
const ORDINARY: &[(&str, &[u64], Action)] = &[
    ("read", &[], Action::Allow),
    ("execve", &[], Action::Allow),
    ("futex_waitv", &[], Action::Allow),
    ("newfstatat", &[], Action::Allow),
    ("fchmodat2", &[], Action::Allow),
    ("mseal", &[], Action::Allow),
    ("statmount", &[], Action::Allow),
    ("file_setattr", &[], Action::Allow),
    ("landlock_restrict_self", &[], Action::Allow),
    ("ptrace", &[], Action::Allow),
    ("chroot", &[], Action::Allow),
    ("prctl", &[], Action::Allow),
    // Threads and processes, but no namespaces, in whatever company the flag comes.
    ("clone", &[0x3d_0f00], Action::Allow),
    ("clone", &[17], Action::Allow),
    ("clone", &[0x0200_0000], EPERM),
    ("clone", &[0x1000_0011], EPERM),
    ("clone", &[0x0002_0000], EPERM),
    ("clone", &[0x4000_0011], EPERM),
    ("clone", &[0xffff_ffff_8000_0011], Action::Allow),
    ("clone3", &[], ENOSYS),
    ("unshare", &[0x1000_0000], EPERM),
    ("setns", &[], EPERM),
    ("mount", &[], EPERM),
    ("umount2", &[], EPERM),
    ("open_tree", &[], EPERM),
    ("open_tree_attr", &[], EPERM),
    ("fsopen", &[], EPERM),
    ("move_mount", &[], EPERM),
    ("mount_setattr", &[], EPERM),
    ("pivot_root", &[], EPERM),
    ("bpf", &[], EPERM),
    ("perf_event_open", &[], EPERM),
    ("userfaultfd", &[], EPERM),
    ("io_uring_setup", &[], EPERM),
    ("io_uring_enter", &[], EPERM),
    ("io_uring_register", &[], EPERM),
    ("keyctl", &[], EPERM),
    ("add_key", &[], EPERM),
    ("request_key", &[], EPERM),
    ("kexec_load", &[], EPERM),
    ("kexec_file_load", &[], EPERM),
    ("init_module", &[], EPERM),
    ("finit_module", &[], EPERM),
    ("delete_module", &[], EPERM),
    ("reboot", &[], EPERM),
    ("swapon", &[], EPERM),
    ("swapoff", &[], EPERM),
    ("acct", &[], EPERM),
    ("settimeofday", &[], EPERM),
    ("clock_settime", &[], EPERM),
    ("open_by_handle_at", &[], EPERM),
    ("syslog", &[], EPERM),
    ("sethostname", &[], EPERM),
    ("kcmp", &[], EPERM),
    ("pidfd_getfd", &[], EPERM),
    ("mbind", &[], EPERM),
    ("move_pages", &[], EPERM),
    ("quotactl", &[], EPERM),
    ("lsm_set_self_attr", &[], EPERM),
    ("nfsservctl", &[], EPERM),
    ("remap_file_pages", &[], EPERM),
    ("personality", &[0], Action::Allow),
    ("personality", &[0x8], Action::Allow),
    ("personality", &[0x2_0008], Action::Allow),
    ("personality", &[0xffff_ffff], Action::Allow),
    ("personality", &[0x4_0000], EPERM),
    ("personality", &[0xffff_ffff_0000_0000], EPERM),
    ("personality", &[u64::MAX], EPERM),
    ("socket", &[1], Action::Allow),
    ("socket", &[2], Action::Allow),
    ("socket", &[10], Action::Allow),
    ("socket", &[16], Action::Allow),
    ("socket", &[38], EPERM),
    ("socket", &[40], EPERM),
    ("socket", &[0], EPERM),
    ("socket", &[30], EPERM),
    // The kernel cuts a family to 32 bits.
    ("socket", &[0x1_0000_0028], EPERM),
    ("socket", &[0x1_0000_0002], EPERM),
];

fn with(numbers: &[u32]) -> CapSet {
    let bits = numbers
        .iter()
        .fold(caps::default_set().bits(), |bits, n| bits | 1 << n);
    serde_json::from_value(bits.into()).unwrap()
}

#[test]
fn ordinary_containers_can_do_ordinary_things_only() {
    for arch in [Arch::X86_64, Arch::Aarch64] {
        let program = compile(&Profile::builtin(), caps::default_set(), arch);
        machine::verify(&program);
        assert_eq!(program.flags(), 0);
        for (name, arguments, wanted) in ORDINARY {
            let got = answer(&program, arch, name, arguments);
            assert_eq!(got, *wanted, "{name} {arguments:x?} on {arch:?}");
        }
    }
}

#[test]
fn capabilities_open_what_they_are_for() {
    let arch = Arch::X86_64;
    let table: &[(&[u32], &[&str], &[&str])] = &[
        (
            &[21],
            &[
                "mount",
                "umount2",
                "unshare",
                "setns",
                "clone3",
                "bpf",
                "perf_event_open",
                "syslog",
                "fsopen",
                "open_tree_attr",
            ],
            &[
                "pivot_root",
                "io_uring_setup",
                "keyctl",
                "userfaultfd",
                "kexec_load",
                "reboot",
                "init_module",
                "swapon",
                "open_by_handle_at",
                "iopl",
                "settimeofday",
            ],
        ),
        (&[2], &["open_by_handle_at"], &["mount"]),
        (&[16], &["init_module", "finit_module"], &["kexec_load"]),
        (&[19], &["kcmp", "pidfd_getfd"], &["bpf"]),
        (&[22], &["reboot"], &["kexec_load", "kexec_file_load"]),
        (&[23], &["mbind"], &["move_pages"]),
        (&[25], &["clock_settime"], &["acct"]),
        (&[34], &["syslog"], &["bpf"]),
        (&[38], &["perf_event_open"], &["bpf"]),
        (&[39], &["bpf"], &["perf_event_open"]),
    ];
    for (numbers, open, shut) in table {
        let program = compile(&Profile::builtin(), with(numbers), arch);
        machine::verify(&program);
        for name in *open {
            assert_eq!(
                answer(&program, arch, name, &[]),
                Action::Allow,
                "{numbers:?} {name}"
            );
        }
        for name in *shut {
            assert_eq!(
                answer(&program, arch, name, &[]),
                EPERM,
                "{numbers:?} {name}"
            );
        }
    }
    let admin = compile(&Profile::builtin(), with(&[21]), arch);
    assert_eq!(answer(&admin, arch, "clone", &[0x7e02_0011]), Action::Allow);
    let none = compile(&Profile::builtin(), CapSet::EMPTY, arch);
    assert_eq!(answer(&none, arch, "chroot", &[]), EPERM);
}

#[test]
fn other_machines_calls_end_the_process_and_newer_calls_are_missing() {
    let program = compile(&Profile::builtin(), caps::default_set(), Arch::X86_64);
    let run = |arch, number| machine::run(&program, &Call::new(arch, number, &[])).0;
    let native = Arch::X86_64.audit_number();
    for foreign in [
        Arch::X86.audit_number(),
        Arch::Aarch64.audit_number(),
        0,
        u32::MAX,
    ] {
        assert_eq!(run(foreign, 0), Action::KillProcess);
    }
    assert_eq!(run(native, 469), Action::Allow);
    for newer in [470, 511, 512, 547, 1000, 0x3fff_ffff] {
        assert_eq!(run(native, newer), ENOSYS, "{newer}");
    }
    // x32, and the number that no call has.
    for number in [0x4000_0000, 0x4000_003b, 0x4000_0208, u32::MAX] {
        assert_eq!(run(native, number), ENOSYS, "{number:#x}");
    }
    // A hole between calls is no newer call.
    assert_eq!(run(native, 400), EPERM);
}

#[test]
fn an_old_kernel_lets_nobody_trace() {
    let mut old = host(Arch::X86_64);
    old.kernel = crate::seccomp::KernelVersion { major: 4, minor: 7 };
    let program =
        crate::seccomp::Program::compile(&Profile::builtin(), caps::default_set(), old).unwrap();
    assert_eq!(answer(&program, Arch::X86_64, "ptrace", &[]), EPERM);
}

#[test]
fn the_default_filter_is_short() {
    for (caps, arch, longest, most_steps) in [
        (caps::default_set(), Arch::X86_64, 110, 16),
        (with(&[21]), Arch::X86_64, 110, 16),
        (caps::default_set(), Arch::Aarch64, 110, 16),
    ] {
        let program = compile(&Profile::builtin(), caps, arch);
        let steps = (0..600)
            .map(|number| {
                machine::run(&program, &Call::new(arch.audit_number(), number, &[0x11])).1
            })
            .max()
            .unwrap();
        let length = program.instructions().len();
        println!("{arch:?}: {length} instructions, at most {steps} a call");
        assert!(length <= longest, "{arch:?}: {length} instructions");
        assert!(steps <= most_steps, "{arch:?}: {steps} steps");
    }
}

#[test]
fn every_number_is_answered_as_the_profile_says() {
    let profile = Profile::builtin();
    let arguments = [
        0,
        1,
        2,
        0x11,
        17,
        40,
        0x2_0008,
        0xffff_ffff,
        0x1000_0011,
        u64::MAX,
    ];
    for arch in [Arch::X86_64, Arch::Aarch64] {
        for caps in [
            caps::default_set(),
            CapSet::EMPTY,
            with(&[21]),
            with(&[19, 39]),
        ] {
            let program = compile(&profile, caps, arch);
            for number in (0..700).chain([0x4000_0000, 0x4000_0001, u32::MAX]) {
                for argument in arguments {
                    let call = Call::new(arch.audit_number(), number, &[argument]);
                    let wanted = model::answer(&profile, caps, host(arch), &call);
                    assert_eq!(machine::run(&program, &call).0, wanted, "{call:?}");
                }
            }
        }
    }
}

#[test]
fn names_of_the_default_are_those_of_some_machine() {
    let arches = [Arch::X86_64, Arch::Aarch64];
    for rule in &Profile::builtin().rules {
        for name in &rule.names {
            let known = arches.iter().any(|arch| arch.number(name).is_some());
            assert!(known, "{name} is misspelt");
        }
    }
}
