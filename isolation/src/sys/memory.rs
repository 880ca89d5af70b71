//! Memory that a process which never returns does without.
//!
//! A container's PID 1 is a copy of the keeper that only waits. Whatever the keeper writes after the
//! fork leaves the old pages to that copy alone: 250 KB each once a thousand containers run, with
//! whatever was in them (specs and environments of other containers). So PID 1 gives back all that is
//! neither program, library, thread-local storage nor stack. Invariant: the list is made once by
//! the keeper, when it has one thread and before it has any container, and lies in static memory.

use std::sync::OnceLock;

/// Gaps between what stays; what goes beyond is not given back.
const MAX_GAPS: usize = 24;
/// Nothing is mapped below (`vm.mmap_min_addr`).
const LOWEST: usize = 1 << 16;
/// Bytes below the stack pointer that stay, for the calls that are still to come.
const STACK_SLACK: usize = 16 * 1024;
/// What the stack may have grown by since the list was made.
const STACK_GROWTH: usize = 1 << 20;
const PAGE: usize = 4096;

/// Ranges of addresses, from and to.
type Range = (usize, usize);

#[derive(Debug, Default, PartialEq, Eq)]
struct Spare {
    gaps: [Range; MAX_GAPS],
    stack: Range,
}

static SPARE: OnceLock<Spare> = OnceLock::new();

/// Finds what this process could give back, for [`give_back_memory`] in a child.
pub(crate) fn find_spare_memory() {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    // SAFETY: it gives the address of this thread's errno, which lies in thread-local storage.
    let thread_local = unsafe { libc::__errno_location() } as usize;
    if let Some(spare) = spare(&maps, thread_local) {
        // Set once, by the daemon.
        let _ = SPARE.set(spare);
    }
}

/// Of `proc_pid_maps(5)`: what lies between the mappings that have a name (files, the stack, the
/// kernel's own), those that go on where a file's ends (its `.bss`) and that of `thread_local`.
fn spare(maps: &str, thread_local: usize) -> Option<Spare> {
    let mut spare = Spare::default();
    let mut gaps = spare.gaps.iter_mut();
    let mut kept_to = LOWEST;
    for line in maps.lines() {
        let mut fields = line.split_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let start = usize::from_str_radix(start, 16).ok()?;
        let end = usize::from_str_radix(end, 16).ok()?;
        let name = fields.nth(4);
        let named = name.is_some_and(|name| name != "[heap]" && !name.starts_with("[anon"));
        let kernels = start > usize::MAX / 2;
        let kept = named || start == kept_to || (start..end).contains(&thread_local);
        if !kept || kernels {
            continue;
        }
        if name == Some("[stack]") {
            spare.stack = (start, end);
        }
        if start > kept_to
            && let Some(gap) = gaps.next()
        {
            // The stack's growth is no gap.
            let growth = if name == Some("[stack]") {
                STACK_GROWTH
            } else {
                0
            };
            *gap = (kept_to, start.saturating_sub(growth).max(kept_to));
        }
        kept_to = end;
    }
    (spare.stack.1 > 0).then_some(spare)
}

/// Gives it back. Only for a process that allocates nothing, never returns and never looks at what
/// the allocator gave out: only code, statics, thread-locals and the frames on the stack are left.
pub(crate) fn give_back_memory() {
    let Some(spare) = SPARE.get() else { return };
    for (start, end) in spare.gaps.iter().filter(|(start, end)| start < end) {
        // SAFETY: by the contract above nothing that is still used lies there. Failing leaves memory
        // mapped, which harms nothing.
        unsafe { libc::munmap(*start as *mut libc::c_void, end - start) };
    }
    let here = 0_u8;
    let top = ((&raw const here) as usize - STACK_SLACK) & !(PAGE - 1);
    let bottom = spare.stack.0.saturating_sub(STACK_GROWTH);
    if bottom < top && top < spare.stack.1 {
        let bottom = bottom as *mut libc::c_void;
        // SAFETY: it is below every live frame of the only thread; what is called later finds zeroes
        // where it found garbage.
        unsafe { libc::madvise(bottom, top - bottom as usize, libc::MADV_DONTNEED) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_is_program_libraries_thread_locals_and_stack() {
        let maps = "\
            100000-200000 rw-p 00000000 00:00 0\n\
            400000-500000 r-xp 00000000 fe:00 7      /usr/bin/gantry\n\
            500000-508000 rw-p 00000000 00:00 0\n\
            600000-700000 rw-p 00000000 00:00 0      [heap]\n\
            800000-900000 rw-p 00000000 00:00 0\n\
            a00000-a01000 rw-p 00000000 00:00 0\n\
            b00000-c00000 r--p 00000000 fe:00 9      /lib/libc.so.6\n\
            90000000-90021000 rw-p 00000000 00:00 0  [stack]\n\
            90031000-90033000 r-xp 00000000 00:00 0  [vdso]\n\
            ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]\n";
        let spare = spare(maps, 0xa0_0040).unwrap();
        let gaps = [
            (LOWEST, 0x40_0000),
            (0x50_8000, 0xa0_0000),
            (0xa0_1000, 0xb0_0000),
            (0xc0_0000, 0x9000_0000 - STACK_GROWTH),
            (0x9002_1000, 0x9003_1000),
            (0, 0),
        ];
        assert_eq!(spare.gaps[..gaps.len()], gaps);
        assert_eq!(spare.stack, (0x9000_0000, 0x9002_1000));
    }

    #[test]
    fn what_cannot_be_read_gives_nothing_back() {
        assert_eq!(spare("", 0), None);
        assert_eq!(spare("x-y rw-p\n", 0), None);
    }
}
