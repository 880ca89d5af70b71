//! The root that every container of every suite has: two static programs, one that exits 0 and one
//! that waits for ever, and the seccomp profile that all subjects are given.
//!
//! The profile (`seccomp.json`) is Docker's as Debian's containers-common has it, with what depends
//! on capabilities decided for the set that the suites use. It deliberately needs no compiler and no
//! image: the programs are written byte by byte.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::bail;
use serde_json::{Value, json};

/// The program that exits 0.
pub(crate) const TRUE: &str = "/true";
/// The program that waits for ever.
pub(crate) const WAIT: &str = "/wait";
/// What system calls every container may make.
const SECCOMP: &str = include_str!("seccomp.json");

/// The seccomp profile as Docker and the OCI write it, for this architecture.
pub(crate) fn seccomp_profile() -> anyhow::Result<Value> {
    let mut profile: Value = serde_json::from_str(SECCOMP)?;
    profile["architectures"] = match std::env::consts::ARCH {
        "x86_64" => json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]),
        _ => json!(["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]),
    };
    Ok(profile)
}

/// A root that has the programs and the directories to mount on.
pub(crate) fn make_root(rootfs: &Path) -> anyhow::Result<Vec<u8>> {
    for name in ["dev", "proc", "sys", "etc", "tmp"] {
        std::fs::create_dir_all(rootfs.join(name))?;
    }
    let mut all = Vec::new();
    for (name, code) in [(TRUE, exit_code()?), (WAIT, wait_code()?)] {
        let path = rootfs.join(&name[1..]);
        let program = program(code);
        std::fs::write(&path, &program)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
        all.extend(program);
    }
    Ok(all)
}

/// ELF's number of this architecture, and the machine code.
type Code = (u16, &'static [u8]);

fn exit_code() -> anyhow::Result<Code> {
    Ok(match std::env::consts::ARCH {
        // mov eax, 60; xor edi, edi; syscall
        "x86_64" => (62, &[0xb8, 60, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05]),
        // mov x8, #93; mov x0, #0; svc #0
        "aarch64" => (
            183,
            &[0xa8, 0x0b, 0x80, 0xd2, 0, 0, 0x80, 0xd2, 0x01, 0, 0, 0xd4],
        ),
        other => bail!("no static program for {other}"),
    })
}

fn wait_code() -> anyhow::Result<Code> {
    Ok(match std::env::consts::ARCH {
        // mov eax, 34 (pause); syscall; jmp to the first
        "x86_64" => (62, &[0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7]),
        // mov x8, #73 (ppoll); four zero arguments; svc #0; b to the first
        "aarch64" => (
            183,
            &[
                0x28, 0x09, 0x80, 0xd2, 0, 0, 0x80, 0xd2, 0x01, 0, 0x80, 0xd2, 0x02, 0, 0x80, 0xd2,
                0x03, 0, 0x80, 0xd2, 0x01, 0, 0, 0xd4, 0xfa, 0xff, 0xff, 0x17,
            ],
        ),
        other => bail!("no static program for {other}"),
    })
}

/// A static ELF executable of one segment.
fn program((machine, code): Code) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let size = HEADERS + code.len() as u64;
    let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut put = |bytes: &[u8]| elf.extend_from_slice(bytes);
    put(&2_u16.to_le_bytes()); // executable
    put(&machine.to_le_bytes());
    put(&1_u32.to_le_bytes());
    put(&(BASE + HEADERS).to_le_bytes()); // entry
    put(&64_u64.to_le_bytes()); // program headers
    put(&0_u64.to_le_bytes());
    put(&0_u32.to_le_bytes());
    for half in [64_u16, 56, 1, 0, 0, 0] {
        put(&half.to_le_bytes());
    }
    put(&1_u32.to_le_bytes()); // PT_LOAD
    put(&5_u32.to_le_bytes()); // read, execute
    for word in [0, BASE, BASE, size, size, 0x1000] {
        put(&word.to_le_bytes());
    }
    put(code);
    elf
}
