//! Random profiles: what the filter answers is what the model says, whatever is asked.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::super::profile::{Besides, Only};
use super::super::{
    Action, Arch, Comparison, Condition, KernelVersion, Profile, Program, Rule, SeccompError,
};
use super::machine::{self, Call};
use super::{host, model};
use crate::caps::CapSet;

/// Neighbours, the first and the last, of one machine only, and of none.
const NAMES: [&str; 18] = [
    "read",
    "write",
    "open",
    "close",
    "stat",
    "socket",
    "connect",
    "clone",
    "ioctl",
    "openat",
    "socketcall",
    "waitpid",
    "mseal",
    "file_setattr",
    "newfstatat",
    "clock_gettime64",
    "no_such",
    "tgkill",
];
/// Around the edges of halves, signs and the sets above.
const VALUES: [u64; 16] = [
    0,
    1,
    2,
    3,
    7,
    8,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_fffe,
    0xffff_ffff,
    0x1_0000_0000,
    0x1_0000_0001,
    0x5_0000_0007,
    0xffff_ffff_0000_0000,
    u64::MAX - 1,
    u64::MAX,
];

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => Just(Action::Allow),
        3 => select(vec![1_u16, 2, 38, 4095]).prop_map(Action::Errno),
        1 => Just(Action::KillProcess),
        1 => Just(Action::KillThread),
        1 => Just(Action::Trap),
        1 => Just(Action::Log),
        1 => Just(Action::Trace(1)),
    ]
}

fn value() -> impl Strategy<Value = u64> {
    prop_oneof![6 => select(VALUES.to_vec()), 1 => any::<u64>(), 3 => 0_u64..12]
}

fn comparison() -> impl Strategy<Value = Comparison> {
    prop_oneof![
        1 => value().prop_map(Comparison::Ne),
        1 => value().prop_map(Comparison::Lt),
        1 => value().prop_map(Comparison::Le),
        3 => value().prop_map(Comparison::Eq),
        1 => value().prop_map(Comparison::Ge),
        1 => value().prop_map(Comparison::Gt),
        2 => (value(), value(), any::<bool>()).prop_map(|(mask, value, inside)| {
            let value = if inside { value & mask } else { value };
            Comparison::Masked { mask, value }
        }),
    ]
}

fn condition() -> impl Strategy<Value = Condition> {
    (0_u8..3, comparison()).prop_map(|(argument, comparison)| Condition {
        argument,
        comparison,
    })
}

fn only() -> impl Strategy<Value = Only> {
    let cap = || select(vec![None, Some(21_u32), Some(19)]);
    let kernel = |minor| KernelVersion { major: 6, minor };
    let kernels = || prop::option::weighted(0.1, (17_u32..20).prop_map(kernel));
    let words = || vec(select(vec!["amd64".to_owned(), "arm64".to_owned()]), 0..2);
    let list = || prop_oneof![5 => Just(Vec::new()), 1 => vec(cap(), 0..3)];
    (list(), list(), words(), words(), kernels(), kernels()).prop_map(
        |(with, without, on, not_on, since, before)| Only {
            with,
            without,
            on: if on.len() + not_on.len() < 2 {
                on
            } else {
                Vec::new()
            },
            not_on: Vec::new(),
            since,
            before,
        },
    )
}

fn rule() -> impl Strategy<Value = Rule> {
    let names = vec(select(NAMES.to_vec()), 1..5);
    let only = prop_oneof![3 => Just(Only::default()), 1 => only()];
    (names, action(), vec(condition(), 0..4), only).prop_map(|(names, action, conditions, only)| {
        Rule {
            names: names.into_iter().map(str::to_owned).collect(),
            action,
            conditions,
            only,
        }
    })
}

fn profile() -> impl Strategy<Value = Profile> {
    (action(), any::<bool>(), any::<bool>(), vec(rule(), 0..14)).prop_map(
        |(default, missing, x86, rules)| Profile {
            default,
            unknown_is_missing: missing,
            architectures: vec![Besides {
                native: None,
                judged: if x86 { vec![Arch::X86] } else { Vec::new() },
            }],
            flags: 0,
            rules,
        },
    )
}

/// Arguments that a profile tells apart, and others.
fn edges(profile: &Profile) -> Vec<u64> {
    let mut found = VALUES.to_vec();
    for condition in profile.rules.iter().flat_map(|rule| &rule.conditions) {
        match condition.comparison {
            Comparison::Ne(value)
            | Comparison::Lt(value)
            | Comparison::Le(value)
            | Comparison::Eq(value)
            | Comparison::Ge(value)
            | Comparison::Gt(value) => {
                found.extend([value.wrapping_sub(1), value, value.wrapping_add(1)]);
            }
            Comparison::Masked { mask, value } => found.extend([value, value | !mask, !mask]),
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn filters_answer_as_the_model(
        profile in profile(),
        native in select(vec![Arch::X86_64, Arch::Aarch64]),
        admin in any::<bool>(),
        picks in vec(any::<[prop::sample::Index; 3]>(), 40),
    ) {
        let caps: CapSet = serde_json::from_value((u64::from(admin) << 21).into()).unwrap();
        let program = Program::compile(&profile, caps, host(native)).unwrap();
        machine::verify(&program);
        let edges = edges(&profile);
        for arch in [Arch::X86_64, Arch::X86, Arch::Aarch64] {
            let known = NAMES.iter().filter_map(|name| arch.number(name));
            let around = known.flat_map(|number| [number.saturating_sub(1), number, number + 1]);
            for number in around.chain([470, 0x3fff_ffff, 0x4000_0000, u32::MAX]) {
                for pick in &picks {
                    let arguments = pick.map(|index| {
                        let value = *index.get(&edges);
                        if arch == Arch::X86 { value & 0xffff_ffff } else { value }
                    });
                    let call = Call::new(arch.audit_number(), number, &arguments);
                    let wanted = model::answer(&profile, caps, host(native), &call);
                    let (got, _) = machine::run(&program, &call);
                    prop_assert_eq!(got, wanted, "{:x?}\n{}", call, program);
                }
            }
        }
    }
}

/// A rule for each call, all different, so that no two share their instructions.
fn sprawling(calls: u32, values: u64) -> Profile {
    let named = (0..500).filter_map(|number| {
        let name = syscalls::x86_64::Sysno::new(number)?.name();
        (Arch::X86_64.number(name)? < calls).then_some((name, number as u64))
    });
    let rules = named.flat_map(|(name, number)| {
        (0..values).map(move |at| Rule {
            names: vec![name.to_owned()],
            action: Action::Errno(u16::try_from(1 + at % 4000).unwrap()),
            conditions: vec![Condition {
                argument: 1,
                comparison: Comparison::Eq(number * 1000 + at * 3),
            }],
            only: Only::default(),
        })
    });
    Profile {
        default: Action::Allow,
        unknown_is_missing: false,
        architectures: Vec::new(),
        flags: 0,
        rules: rules.collect(),
    }
}

#[test]
fn jumps_farther_than_255_arrive() {
    let profile = sprawling(120, 9);
    let program = Program::compile(&profile, CapSet::EMPTY, host(Arch::X86_64)).unwrap();
    machine::verify(&program);
    assert!(program.instructions().len() > 1500);
    for number in 0..130 {
        for argument in [0, 3, 6, 7].map(|at| number * 1000 + at) {
            let native = Arch::X86_64.audit_number();
            let number = u32::try_from(number).unwrap();
            let call = Call::new(native, number, &[0, argument]);
            let wanted = model::answer(&profile, CapSet::EMPTY, host(Arch::X86_64), &call);
            assert_eq!(machine::run(&program, &call).0, wanted, "{call:?}");
        }
    }
}

#[test]
fn a_filter_larger_than_the_kernel_takes_is_refused() {
    let compile = |profile: Profile| Program::compile(&profile, CapSet::EMPTY, host(Arch::X86_64));
    let large = compile(sprawling(300, 9)).unwrap_err();
    assert!(
        matches!(large, SeccompError::TooLong(got) if got > 4096),
        "{large}"
    );
    let many = compile(sprawling(1, 257)).unwrap_err();
    assert!(
        matches!(many, SeccompError::TooMany { got: 257, .. }),
        "{many}"
    );
}
