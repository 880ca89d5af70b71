//! What filters do, found by running them.

mod default;
mod forms;
mod hostile;
mod machine;
mod model;
mod random;

use super::{Action, Arch, Host, KernelVersion, Profile, Program};
use crate::caps::CapSet;
use machine::Call;

/// A machine of today.
fn host(arch: Arch) -> Host {
    let kernel = KernelVersion {
        major: 6,
        minor: 18,
    };
    Host { arch, kernel }
}

fn compile(profile: &Profile, caps: CapSet, arch: Arch) -> Program {
    Program::compile(profile, caps, host(arch)).unwrap()
}

/// What a filter does with a call of this name.
fn answer(program: &Program, arch: Arch, name: &str, arguments: &[u64]) -> Action {
    let number = arch
        .number(name)
        .unwrap_or_else(|| panic!("no call {name}"));
    machine::run(program, &Call::new(arch.audit_number(), number, arguments)).0
}
