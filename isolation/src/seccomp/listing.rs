//! A program as text that a person can read, one instruction a line.

use std::fmt;

use super::assemble::{AND, JUMP, JUMP_EQ, JUMP_GE, JUMP_SET, LOAD, RETURN};
use super::{Action, Program};

impl fmt::Display for Program {
    /// `12: jge 41 then 20 else 13`: places are those of instructions, counted from 0.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, one) in self.instructions().iter().enumerate() {
            let (yes, no) = (
                place + 1 + usize::from(one.jt),
                place + 1 + usize::from(one.jf),
            );
            write!(f, "{place:4}: ")?;
            match one.code {
                LOAD => writeln!(f, "load {}", Field(one.k))?,
                AND => writeln!(f, "and {:#x}", one.k)?,
                JUMP => writeln!(f, "jump {}", place + 1 + one.k as usize)?,
                JUMP_EQ => writeln!(f, "if == {} then {yes} else {no}", Number(one.k))?,
                JUMP_GE => writeln!(f, "if >= {} then {yes} else {no}", Number(one.k))?,
                JUMP_SET => writeln!(f, "if & {:#x} then {yes} else {no}", one.k)?,
                RETURN => match Action::of_code(one.k) {
                    Some(action) => writeln!(f, "return {action}")?,
                    None => writeln!(f, "return {:#x}", one.k)?,
                },
                other => writeln!(f, "? {other:#x} {:#x}", one.k)?,
            }
        }
        Ok(())
    }
}

/// A field of `seccomp_data` by its offset.
struct Field(u32);

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("number"),
            4 => f.write_str("arch"),
            offset @ (16..64) => {
                let half = if offset % 8 == 0 { "low" } else { "high" };
                write!(f, "argument {} {half}", (offset - 16) / 8)
            }
            offset => write!(f, "[{offset}]"),
        }
    }
}

/// Small numbers as people count, large ones as bits.
struct Number(u32);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 0x1_0000 {
            write!(f, "{}", self.0)
        } else {
            write!(f, "{:#x}", self.0)
        }
    }
}
