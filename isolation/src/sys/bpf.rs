//! `bpf(2)` for programs of cgroups: load and attach. Numbers and layouts are those of
//! `linux/bpf.h`; what the programs say is `cgroup`'s business.
#![expect(
    unsafe_code,
    reason = "raw system calls; each block states why it holds"
)]

use std::ffi::c_long;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

const PROG_LOAD: c_long = 5;
const PROG_ATTACH: c_long = 8;
/// `asm-generic/socket.h`.
const SO_NETNS_COOKIE: i32 = 71;
/// Such programs call nothing that asks for a licence; the kernel wants one.
const LICENCE: &std::ffi::CStr = c"Apache-2.0";

/// What a program is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    /// A device node is made or opened (`BPF_CGROUP_DEVICE`, Linux 4.15).
    Device,
    /// An IPv4 or an IPv6 socket is bound (`BPF_CGROUP_INET4_BIND` and 6, Linux 4.17).
    Bind4,
    /// See `Bind4`.
    Bind6,
}

impl Hook {
    /// `BPF_PROG_TYPE_CGROUP_DEVICE` or `BPF_PROG_TYPE_CGROUP_SOCK_ADDR`.
    fn program_type(self) -> u32 {
        match self {
            Self::Device => 15,
            Self::Bind4 | Self::Bind6 => 18,
        }
    }

    /// `enum bpf_attach_type`.
    fn number(self) -> u32 {
        match self {
            Self::Device => 6,
            Self::Bind4 => 8,
            Self::Bind6 => 9,
        }
    }

    /// How it is attached. Device filters stand beside what others attached, and all must allow
    /// (`BPF_F_ALLOW_MULTI`); a filter of binds takes the place of an older one on its group, and
    /// groups below may not have others (0, the default).
    fn flags(self) -> u32 {
        match self {
            Self::Device => 2,
            Self::Bind4 | Self::Bind6 => 0,
        }
    }
}

/// `struct bpf_insn`: one instruction.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Instruction {
    /// Operation.
    pub(crate) code: u8,
    /// Destination in the low four bits, source in the high four (on little-endian machines).
    pub(crate) registers: u8,
    /// Of memory, or how many instructions to skip.
    pub(crate) offset: i16,
    /// Operand.
    pub(crate) number: i32,
}

impl Instruction {
    /// From its parts.
    pub(crate) const fn new(code: u8, to: u8, from: u8, offset: i16, number: i32) -> Self {
        let registers = if cfg!(target_endian = "little") {
            from << 4 | to
        } else {
            to << 4 | from
        };
        Self {
            code,
            registers,
            offset,
            number,
        }
    }

    /// Whether it may skip others (class `BPF_JMP`, not an exit).
    pub(crate) fn is_jump(&self) -> bool {
        self.code & 7 == 5 && self.code & 0xf0 != 0x90
    }

    /// Sets how many it skips.
    pub(crate) fn jump_by(&mut self, count: usize) {
        self.offset = i16::try_from(count).unwrap_or(i16::MAX);
    }
}

/// The head of `union bpf_attr` for `BPF_PROG_LOAD`, up to `expected_attach_type`.
#[repr(C)]
struct LoadAttr {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    licence: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    hook: u32,
}

/// The head of `union bpf_attr` for `BPF_PROG_ATTACH`.
#[repr(C)]
struct AttachAttr {
    target: u32,
    program: u32,
    hook: u32,
    flags: u32,
}

/// Has the kernel check the program and keep it.
pub(crate) fn load_program(hook: Hook, program: &[Instruction]) -> Result<OwnedFd, Errno> {
    let attr = LoadAttr {
        program_type: hook.program_type(),
        instruction_count: u32::try_from(program.len()).map_err(|_| Errno::TOOBIG)?,
        instructions: program.as_ptr() as u64,
        licence: LICENCE.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name: [0; 16],
        interface: 0,
        hook: hook.number(),
    };
    // SAFETY: `attr` is the head of a bpf_attr of the size passed (the kernel takes the rest as
    // zeroes); it points to `program`, whose length it holds, and to a C string, both alive.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            PROG_LOAD,
            &raw const attr,
            std::mem::size_of::<LoadAttr>(),
        )
    };
    super::check(fd)?;
    let fd = RawFd::try_from(fd).map_err(|_| Errno::BADF)?;
    // SAFETY: the kernel gave us a new descriptor (closed on exec) that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes a program hold for a v2 group and those below.
pub(crate) fn attach_program(
    hook: Hook,
    program: BorrowedFd<'_>,
    group: BorrowedFd<'_>,
) -> Result<(), Errno> {
    let attr = AttachAttr {
        target: group.as_raw_fd().unsigned_abs(),
        program: program.as_raw_fd().unsigned_abs(),
        hook: hook.number(),
        flags: hook.flags(),
    };
    // SAFETY: `attr` is the head of a bpf_attr of the size passed; it holds only numbers.
    super::check(unsafe {
        libc::syscall(
            libc::SYS_bpf,
            PROG_ATTACH,
            &raw const attr,
            std::mem::size_of::<AttachAttr>(),
        )
    })
}

/// What the kernel knows the caller's network by (`SO_NETNS_COOKIE`, Linux 5.14).
pub(crate) fn netns_cookie() -> Result<u64, Errno> {
    let (family, kind) = (AddressFamily::INET, SocketType::STREAM);
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    let mut cookie = 0_u64;
    let mut length = 8;
    // SAFETY: the option is written to `cookie`, whose size `length` holds; both outlive the call.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    super::check(c_long::from(done))?;
    Ok(cookie)
}
