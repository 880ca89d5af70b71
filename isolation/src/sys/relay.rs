//! A program of a few instructions that stands between ours and a container's: all that a container
//! can find of us by `/proc/self/exe` while its own program is loaded (CVE-2019-5736).
//!
//! It is less than a page, written to a file in memory for each container. It decides nothing: its first
//! argument is the path of a program, which it runs with the others, and it tells the runtime why it
//! could not, as any other child does. It deliberately exists for x86-64 only; elsewhere the runtime
//! runs itself again from a read-only view of its file.
//!
//! ```text
//!  0  ELF header, one segment ── code ── talk: u32, step: u32
//! ```

use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use super::{StringArray, last_errno};

#[cfg(target_arch = "x86_64")]
mod program {
    /// Where the page is loaded; it is gone two system calls later.
    const ADDRESS: u64 = 0x40_0000;
    const HEADERS_BYTES: u64 = 64 + 56;

    // On entry, the stack holds the number of arguments, the arguments, a null pointer and the
    // environment. The numbers that differ follow the code.
    std::arch::global_asm!(
        ".pushsection .rodata.gantry_relay, \"a\", @progbits",
        "gantry_relay_code:",
        "lea r12, [rip + gantry_relay_end]",
        // fcntl(talk, F_SETFD, FD_CLOEXEC): the runtime takes its end for the program's start.
        "mov edi, [r12]",
        "mov esi, 2",
        "mov edx, 1",
        "mov eax, 72",
        "syscall",
        // execve(argv[0], argv + 1, envp)
        "mov rcx, [rsp]",
        "mov rdi, [rsp + 8]",
        "lea rsi, [rsp + 16]",
        "lea rdx, [rsp + rcx * 8 + 16]",
        "mov eax, 59",
        "syscall",
        // write(talk, {step, errno}, 8)
        "neg eax",
        "shl rax, 32",
        "mov ecx, [r12 + 4]",
        "or rax, rcx",
        "push rax",
        "mov edi, [r12]",
        "mov rsi, rsp",
        "mov edx, 8",
        "mov eax, 1",
        "syscall",
        // exit_group(127)
        "mov edi, 127",
        "mov eax, 231",
        "syscall",
        "gantry_relay_end:",
        ".popsection",
    );

    unsafe extern "C" {
        static gantry_relay_code: u8;
        static gantry_relay_end: u8;
    }

    fn code() -> &'static [u8] {
        let (start, end) = (&raw const gantry_relay_code, &raw const gantry_relay_end);
        // SAFETY: both symbols are of one read-only section, the second behind the first, and what
        // lies between them is never written.
        unsafe { std::slice::from_raw_parts(start, end.addr() - start.addr()) }
    }

    /// The file's bytes, as elf(5) has them.
    pub(crate) fn image(talk: u32, step: u32) -> Option<Vec<u8>> {
        let code = code();
        let all = HEADERS_BYTES + code.len() as u64 + 8;
        let mut image = Vec::with_capacity(512);
        image.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
        // ET_EXEC, EM_X86_64, version 1.
        image.extend([2, 0, 62, 0, 1, 0, 0, 0]);
        // Entry, program headers, no section headers.
        for word in [ADDRESS + HEADERS_BYTES, 64, 0] {
            image.extend(word.to_le_bytes());
        }
        // Flags; sizes of this header and of a program header, one of them; no sections.
        image.extend(0_u32.to_le_bytes());
        for half in [64_u16, 56, 1, 0, 0, 0] {
            image.extend(half.to_le_bytes());
        }
        // PT_LOAD, readable and executable: the whole file.
        image.extend(1_u32.to_le_bytes());
        image.extend(5_u32.to_le_bytes());
        for word in [0, ADDRESS, ADDRESS, all, all, 4096] {
            image.extend(word.to_le_bytes());
        }
        image.extend(code);
        image.extend(talk.to_le_bytes());
        image.extend(step.to_le_bytes());
        Some(image)
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod program {
    /// None on this machine.
    pub(crate) fn image(_talk: u32, _step: u32) -> Option<Vec<u8>> {
        None
    }
}

/// The program, which closes `talk` at the next exec, and says there that `step` failed if it does.
/// None where there is none for this machine.
pub(crate) fn image(talk: u32, step: u32) -> Option<Vec<u8>> {
    program::image(talk, step)
}

/// Runs the program in an open file; returns only on failure.
pub(crate) fn execute(file: BorrowedFd<'_>, argv: &StringArray, envp: &StringArray) -> Errno {
    use std::os::fd::AsRawFd;
    // SAFETY: the path is empty and ends in NUL; both arrays end in a null pointer and their strings
    // are owned by the arrays, which outlive the call.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            argv.pointers.as_ptr(),
            envp.pointers.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    last_errno()
}
