//! A machine for classic BPF as `seccomp(2)` runs it, with the kernel's rules for what it takes.

use libc::sock_filter;

use super::super::assemble::{AND, JUMP, JUMP_EQ, JUMP_GE, JUMP_SET, LOAD, RETURN};
use super::super::{Action, MAX_INSTRUCTIONS, Program};

/// `struct seccomp_data`, less the instruction pointer, which no filter of ours reads.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) number: u32,
    pub(super) arch: u32,
    pub(super) arguments: [u64; 6],
}

impl Call {
    pub(super) fn new(arch: u32, number: u32, given: &[u64]) -> Self {
        let mut arguments = [0; 6];
        arguments[..given.len()].copy_from_slice(given);
        Self {
            number,
            arch,
            arguments,
        }
    }

    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.number,
            4 => self.arch,
            16..64 if offset.is_multiple_of(4) => {
                let whole = self.arguments[(offset as usize - 16) / 8];
                (whole >> (offset % 8 * 8)) as u32
            }
            _ => panic!("load from {offset}"),
        }
    }
}

/// Runs a call; the answer and how many instructions it took.
pub(super) fn run(program: &Program, call: &Call) -> (Action, usize) {
    let code = program.instructions();
    let (mut place, mut accumulator) = (0, 0);
    for steps in 1..=code.len() {
        let one = code[place];
        let jump = |holds: bool| usize::from(if holds { one.jt } else { one.jf });
        place += 1;
        match one.code {
            LOAD => accumulator = call.word(one.k),
            AND => accumulator &= one.k,
            JUMP => place += one.k as usize,
            JUMP_EQ => place += jump(accumulator == one.k),
            JUMP_GE => place += jump(accumulator >= one.k),
            JUMP_SET => place += jump(accumulator & one.k != 0),
            RETURN => return (Action::of_code(one.k).expect("an action"), steps),
            other => panic!("instruction {other:#x}"),
        }
    }
    panic!("the program does not end");
}

/// What the kernel asks of a program before it takes it (`bpf_check_classic`,
/// `seccomp_check_filter`).
pub(super) fn verify(program: &Program) {
    let code: &[sock_filter] = program.instructions();
    assert!(!code.is_empty() && code.len() <= MAX_INSTRUCTIONS);
    for (place, one) in code.iter().enumerate() {
        let last = code.len() - 1;
        match one.code {
            LOAD => assert!(one.k.is_multiple_of(4) && one.k < 64),
            JUMP => assert!(place + 1 + one.k as usize <= last),
            JUMP_EQ | JUMP_GE | JUMP_SET => {
                assert!(place + 1 + usize::from(one.jt.max(one.jf)) <= last);
            }
            AND | RETURN => {}
            other => panic!("instruction {other:#x}"),
        }
    }
    assert_eq!(code.last().unwrap().code, RETURN);
}
