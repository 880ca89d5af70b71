//! The device filter of cgroup v2: a program that the kernel runs when a node is made or opened.
//!
//! cgroups-rs has nothing for devices on v2, and the libraries that compile such programs bring
//! libbpf: this one is a few comparisons per rule, so it is put together here, instruction by
//! instruction. It decides nothing: [`DeviceFilter`] does. Invariant: jumps go forward only and
//! every path ends in an exit, or the kernel's verifier refuses the program.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::devices::{DeviceFilter, DeviceKind, DeviceRule, bits};
use crate::sys::bpf::{self, Hook, Instruction};

// `linux/bpf_common.h` and `linux/bpf.h`.
const LOAD_WORD: u8 = 0x61; // BPF_LDX | BPF_MEM | BPF_W
const MOVE: u8 = 0xbf; // BPF_ALU64 | BPF_MOV | BPF_X
const MOVE_NUMBER: u8 = 0xb7; // BPF_ALU64 | BPF_MOV | BPF_K
const AND: u8 = 0x57; // BPF_ALU64 | BPF_AND | BPF_K
const SHIFT_RIGHT: u8 = 0x77; // BPF_ALU64 | BPF_RSH | BPF_K
const JUMP_UNLESS_NUMBER: u8 = 0x55; // BPF_JMP | BPF_JNE | BPF_K
const JUMP_UNLESS_SAME: u8 = 0x5d; // BPF_JMP | BPF_JNE | BPF_X
const JUMP_IF_NUMBER: u8 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const EXIT: u8 = 0x95; // BPF_JMP | BPF_EXIT

/// `struct bpf_cgroup_dev_ctx`: the first half of the first word is the kind, the second the access.
const CONTEXT: u8 = 1;
/// Registers that hold the question, and one for working.
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const WORK: u8 = 1;
const ANSWER: u8 = 0;

/// `BPF_DEVCG_DEV_*`.
fn kind(kind: DeviceKind) -> i32 {
    match kind {
        DeviceKind::Block => 1,
        DeviceKind::Char => 2,
    }
}

fn number(code: u8, register: u8, number: i32) -> Instruction {
    Instruction::new(code, register, 0, 0, number)
}

/// The program of a filter.
pub(super) fn assemble(filter: &DeviceFilter) -> Vec<Instruction> {
    let load = |to, offset| Instruction::new(LOAD_WORD, to, CONTEXT, offset, 0);
    let mut program = vec![
        load(KIND, 0),
        load(MAJOR, 4),
        load(MINOR, 8),
        Instruction::new(MOVE, ACCESS, KIND, 0, 0),
        number(SHIFT_RIGHT, ACCESS, 16),
        number(AND, KIND, 0xffff),
    ];
    for rule in &filter.exceptions {
        program.extend(exception(rule, filter.allows));
    }
    program.push(number(MOVE_NUMBER, ANSWER, i32::from(filter.allows)));
    program.push(number(EXIT, 0, 0));
    program
}

/// Answers the opposite of the default when the rule is about what was asked; else goes on after
/// its own last instruction.
fn exception(rule: &DeviceRule, allows: bool) -> Vec<Instruction> {
    let mut tests = vec![number(JUMP_UNLESS_NUMBER, KIND, kind(rule.kind))];
    for (register, wanted) in [(MAJOR, rule.major), (MINOR, rule.minor)] {
        if let Some(wanted) = wanted {
            // The number fills the register's low half, as the context's words do.
            let wanted = wanted.min(i32::MAX.unsigned_abs()).cast_signed();
            tests.push(number(JUMP_UNLESS_NUMBER, register, wanted));
        }
    }
    let access = i32::from(bits(rule.access));
    tests.push(Instruction::new(MOVE, WORK, ACCESS, 0, 0));
    tests.push(number(AND, WORK, access));
    tests.push(if allows {
        // Denied as soon as one of the accesses is.
        number(JUMP_IF_NUMBER, WORK, 0)
    } else {
        // Allowed only when all of them are.
        Instruction::new(JUMP_UNLESS_SAME, WORK, ACCESS, 0, 0)
    });
    tests.push(number(MOVE_NUMBER, ANSWER, i32::from(!allows)));
    tests.push(number(EXIT, 0, 0));
    let length = tests.len();
    for (at, instruction) in tests.iter_mut().enumerate() {
        if instruction.is_jump() {
            instruction.jump_by(length - at - 1);
        }
    }
    tests
}

/// A filter in the kernel. It stays with the groups that it is attached to when this is dropped.
#[derive(Debug)]
pub(crate) struct Program(OwnedFd);

impl Program {
    /// Has the kernel check and keep the program.
    pub(crate) fn load(filter: &DeviceFilter) -> Result<Self, Errno> {
        bpf::load_program(Hook::Device, &assemble(filter)).map(Self)
    }

    /// Makes it hold for the group at `dir` and those below, beside what was attached before.
    pub(crate) fn attach(&self, dir: &Path) -> Result<(), Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let group = rustix::fs::open(dir, flags, Mode::empty())?;
        bpf::attach_program(Hook::Device, self.0.as_fd(), group.as_fd())
    }
}

/// Whether this kernel and this process's rights allow such programs.
pub(super) fn available() -> bool {
    Program::load(&DeviceFilter::default()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Access;

    /// Runs a program as the kernel would, on (kind, access, major, minor).
    fn answer(program: &[Instruction], asked: (u8, u8, u32, u32)) -> u64 {
        let (kind, access, major, minor) = asked;
        let words = [u32::from(access) << 16 | u32::from(kind), major, minor];
        let mut registers = [0_u64; 11];
        let mut at = 0;
        loop {
            let Instruction {
                code,
                registers: pair,
                offset,
                number,
            } = program[at];
            let (to, from) = (usize::from(pair & 15), usize::from(pair >> 4));
            let wide = i64::from(number).cast_unsigned();
            at += 1;
            let skip = match code {
                LOAD_WORD => {
                    registers[to] = u64::from(words[usize::try_from(offset).unwrap() / 4]);
                    false
                }
                MOVE => {
                    registers[to] = registers[from];
                    false
                }
                MOVE_NUMBER => {
                    registers[to] = wide;
                    false
                }
                AND => {
                    registers[to] &= wide;
                    false
                }
                SHIFT_RIGHT => {
                    registers[to] >>= wide;
                    false
                }
                JUMP_UNLESS_NUMBER => registers[to] != wide,
                JUMP_UNLESS_SAME => registers[to] != registers[from],
                JUMP_IF_NUMBER => registers[to] == wide,
                EXIT => return registers[0],
                other => panic!("{other:#x}"),
            };
            if skip {
                at += usize::try_from(offset).unwrap();
            }
        }
    }

    const CHAR: u8 = 2;
    const BLOCK: u8 = 1;
    const RW: u8 = 6;

    #[test]
    fn the_usual_filter_answers_as_the_v1_list_does() {
        let program = assemble(&DeviceFilter::default());
        for (asked, wanted) in [
            ((CHAR, RW, 1, 3), 1),
            ((CHAR, 7, 1, 5), 1),
            ((CHAR, 2, 1, 1), 0),
            ((CHAR, 1, 1, 1), 1),
            ((CHAR, 3, 1, 1), 0),
            ((BLOCK, 1, 8, 0), 1),
            ((BLOCK, 2, 8, 0), 0),
            ((BLOCK, 2, 1, 3), 0),
            ((CHAR, RW, 136, 77), 1),
            ((CHAR, RW, 10, 229), 0),
        ] {
            assert_eq!(answer(&program, asked), wanted, "{asked:?}");
        }
    }

    #[test]
    fn an_allowing_filter_denies_when_any_access_is_denied() {
        let mut filter = DeviceFilter::all(true);
        filter.apply(
            false,
            DeviceRule {
                kind: DeviceKind::Char,
                major: Some(1),
                minor: None,
                access: Access {
                    read: false,
                    write: true,
                    make: false,
                },
            },
        );
        let program = assemble(&filter);
        for (asked, wanted) in [
            ((CHAR, 2, 1, 5), 1),
            ((CHAR, RW, 1, 5), 0),
            ((CHAR, RW, 2, 5), 1),
            ((BLOCK, RW, 1, 5), 1),
        ] {
            assert_eq!(answer(&program, asked), wanted, "{asked:?}");
        }
    }
}
