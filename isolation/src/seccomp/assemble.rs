//! Instructions of classic BPF, written from the last to the first.
//!
//! Jumps go forward only and at most 255 far. Written backwards, every target is in place when a
//! jump to it is written, so its distance is known, and a jump that is too far gets a stepping
//! stone right behind it. It deliberately uses only what the kernel can follow when it looks for
//! calls that are always allowed: loads of words, jumps, AND and returns.

use std::collections::BTreeMap;

use libc::sock_filter;

use super::Action;

/// `ld [offset]`
pub(super) const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
/// `and #k`
pub(super) const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
/// `ja k`
pub(super) const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
/// `jeq #k`
pub(super) const JUMP_EQ: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
/// `jge #k`, without signs
pub(super) const JUMP_GE: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
/// `jset #k`
pub(super) const JUMP_SET: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
/// `ret #k`
pub(super) const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// How far a conditional jump reaches.
const REACH: usize = u8::MAX as usize;

/// Where to go on. An instruction's place is counted from the end of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    /// An instruction that is written already.
    At(usize),
    /// The answer.
    Answer(Action),
}

/// A program that grows at its front.
#[derive(Default)]
pub(super) struct Assembler {
    /// Last instruction first.
    reversed: Vec<sock_filter>,
    /// The nearest `ret` of each action.
    returns: BTreeMap<Action, usize>,
}

impl Assembler {
    /// How many instructions there are.
    pub(super) fn len(&self) -> usize {
        self.reversed.len()
    }

    /// The program, first instruction first.
    pub(super) fn finish(mut self) -> Vec<sock_filter> {
        self.reversed.reverse();
        self.reversed
    }

    fn push(&mut self, code: u16, k: u32, jt: u8, jf: u8) -> usize {
        self.reversed.push(sock_filter { code, jt, jf, k });
        self.reversed.len() - 1
    }

    /// How far `place` is from an instruction that would be written now.
    fn distance(&self, place: usize) -> usize {
        self.reversed.len() - place - 1
    }

    /// A place for `target` that the instruction to be written after `more` others can jump to.
    fn reachable(&mut self, target: Target, more: usize) -> usize {
        let place = match target {
            Target::At(place) => Some(place),
            Target::Answer(action) => self.returns.get(&action).copied(),
        };
        if let Some(place) = place
            && self.distance(place) + more <= REACH
        {
            return place;
        }
        match target {
            Target::At(place) => {
                let far = u32::try_from(self.distance(place)).unwrap_or(u32::MAX);
                self.push(JUMP, far, 0, 0)
            }
            Target::Answer(action) => {
                let place = self.push(RETURN, action.code(), 0, 0);
                self.returns.insert(action, place);
                place
            }
        }
    }

    /// Writes `code k`: to `yes` when it holds of the accumulator, else to `no`.
    pub(super) fn branch(&mut self, code: u16, k: u32, yes: Target, no: Target) -> Target {
        if yes == no {
            return yes;
        }
        // Finding a place for `no` may write one more instruction.
        let yes = self.reachable(yes, 1);
        let no = self.reachable(no, 0);
        let reach = |far| u8::try_from(far).expect("reachable() leaves no place farther than 255");
        let (jt, jf) = (reach(self.distance(yes)), reach(self.distance(no)));
        Target::At(self.push(code, k, jt, jf))
    }

    /// Writes an instruction that goes on to `next`.
    pub(super) fn step(&mut self, code: u16, k: u32, next: Target) -> Target {
        match next {
            Target::At(place) if self.distance(place) == 0 => {}
            Target::At(place) => {
                let far = u32::try_from(self.distance(place)).unwrap_or(u32::MAX);
                self.push(JUMP, far, 0, 0);
            }
            Target::Answer(action) => {
                let place = self.push(RETURN, action.code(), 0, 0);
                self.returns.insert(action, place);
            }
        }
        Target::At(self.push(code, k, 0, 0))
    }
}
