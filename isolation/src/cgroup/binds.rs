//! Ports of the node that no container may take: a program on the v2 group above all containers,
//! which the kernel runs when a socket is bound. Without it a task on the host's network could take
//! the port of the node's own API while the node is being restarted, and answer in its place.
//!
//! It decides nothing about connections (that is nftables' business) and nothing about containers
//! with a network of their own, where every port is theirs. Invariant: what was refused before is
//! refused until something else is asked for, also while no agent lives.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{Mode, OFlags};

use super::Hierarchies;
use crate::sys::bpf::{self, Hook, Instruction};

/// Most ports that can be refused.
pub const PORTS_MAX: usize = 64;

// `linux/bpf_common.h` and `linux/bpf.h`.
const LOAD_WORD: u8 = 0x61; // BPF_LDX | BPF_MEM | BPF_W
const LOAD_LONG: u8 = 0x18; // BPF_LD | BPF_DW | BPF_IMM, two instructions
const MOVE: u8 = 0xbf; // BPF_ALU64 | BPF_MOV | BPF_X
const MOVE_NUMBER: u8 = 0xb7; // BPF_ALU64 | BPF_MOV | BPF_K
const JUMP: u8 = 0x05; // BPF_JMP | BPF_JA
const JUMP_IF_NUMBER: u8 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const JUMP_UNLESS_SAME: u8 = 0x5d; // BPF_JMP | BPF_JNE | BPF_X
const CALL: u8 = 0x85; // BPF_JMP | BPF_CALL
const EXIT: u8 = 0x95; // BPF_JMP | BPF_EXIT

/// `bpf_get_netns_cookie` (Linux 5.7).
const NETNS_COOKIE: i32 = 122;
/// Offset of `user_port` in `struct bpf_sock_addr`: the port in network order.
const USER_PORT: i16 = 24;

/// Registers: the answer and result of calls, the context as a call takes it, the context kept, the
/// port, and a number.
const ANSWER: u8 = 0;
const ARGUMENT: u8 = 1;
const CONTEXT: u8 = 6;
const PORT: u8 = 7;
const NUMBER: u8 = 2;

/// Has the kernel refuse (EPERM) that a container of this parent binds one of the ports in the
/// network of the caller. Replaces what was refused before; no ports at all refuses nothing.
///
/// # Errors
/// Without a v2 tree or such a group, with more than [`PORTS_MAX`] ports, and whatever `bpf(2)` says.
pub fn refuse_binds(parent: &str, ports: &[u16]) -> io::Result<()> {
    let tree = Hierarchies::detect().unified;
    let tree = tree.ok_or_else(|| io::Error::other("no cgroup v2 tree"))?;
    if ports.len() > PORTS_MAX {
        return Err(io::Error::other("too many ports"));
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let group: OwnedFd = rustix::fs::open(tree.join(parent), flags, Mode::empty())?;
    let program = assemble(ports, bpf::netns_cookie()?);
    for hook in [Hook::Bind4, Hook::Bind6] {
        let loaded = bpf::load_program(hook, &program)?;
        bpf::attach_program(hook, loaded.as_fd(), group.as_fd())?;
    }
    Ok(())
}

fn number(code: u8, register: u8, number: i32) -> Instruction {
    Instruction::new(code, register, 0, 0, number)
}

/// Allows unless the port is one of these and the network is that one.
fn assemble(ports: &[u16], cookie: u64) -> Vec<Instruction> {
    if ports.is_empty() {
        // What cannot be reached the kernel refuses.
        return vec![number(MOVE_NUMBER, ANSWER, 1), number(EXIT, 0, 0)];
    }
    let mut program = vec![
        Instruction::new(MOVE, CONTEXT, ARGUMENT, 0, 0),
        Instruction::new(LOAD_WORD, PORT, CONTEXT, USER_PORT, 0),
    ];
    for (at, port) in ports.iter().enumerate() {
        let mut test = number(JUMP_IF_NUMBER, PORT, i32::from(port.to_be()));
        // Over the other tests and the jump after them.
        test.jump_by(ports.len() - at);
        program.push(test);
    }
    let mut allow = Instruction::new(JUMP, 0, 0, 0, 0);
    // Over what asks for the network and refuses.
    allow.jump_by(7);
    program.push(allow);
    let bytes = cookie.to_le_bytes();
    let half =
        |at: usize| i32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let mut elsewhere = Instruction::new(JUMP_UNLESS_SAME, ANSWER, NUMBER, 0, 0);
    elsewhere.jump_by(2);
    program.extend([
        Instruction::new(MOVE, ARGUMENT, CONTEXT, 0, 0),
        number(CALL, 0, NETNS_COOKIE),
        number(LOAD_LONG, NUMBER, half(0)),
        number(0, 0, half(4)),
        elsewhere,
        number(MOVE_NUMBER, ANSWER, 0),
        number(EXIT, 0, 0),
        number(MOVE_NUMBER, ANSWER, 1),
        number(EXIT, 0, 0),
    ]);
    program
}
