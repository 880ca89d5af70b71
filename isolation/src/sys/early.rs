//! What `gantry oci` does before anything else of the program runs: before the runtime of the
//! language starts, and before the first allocation.
//!
//! Two things cost an OCI command more than its work. The program is loaded twice, since what enters
//! a container runs from a read-only view of its file (see `oci::protect`): the first load is given
//! up as soon as the dynamic linker is done, but for `run`, which may not need it (`oci::relay`). And the daemon's allocator begins with a huge page,
//! which is cleared, copied by the clone and given back within milliseconds: this role takes libc's.
//! It deliberately reads no options: a word that happens to be a command's costs one more exec.
//! Invariant: the role is settled before the first allocation and never changes after it, so memory
//! goes back to where it came from. Without glibc, which hands constructors the arguments of `main`
//! (`csu/libc-start.c`), nothing here happens, and `oci::protect` alone does its part.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether this process is an OCI command.
static OCI: AtomicBool = AtomicBool::new(false);

/// libc's allocator for OCI commands, `A` for everybody else.
#[derive(Debug)]
pub struct RoleAllocator<A>(pub A);

// SAFETY: every method hands its arguments on to one of two allocators, and to the same one in the
// whole life of the process.
unsafe impl<A: GlobalAlloc> GlobalAlloc for RoleAllocator<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if OCI.load(Ordering::Relaxed) {
            // SAFETY: the caller's promises are those that it asks for.
            unsafe { System.alloc(layout) }
        } else {
            // SAFETY: as above.
            unsafe { self.0.alloc(layout) }
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if OCI.load(Ordering::Relaxed) {
            // SAFETY: the caller's promises are those that it asks for.
            unsafe { System.alloc_zeroed(layout) }
        } else {
            // SAFETY: as above.
            unsafe { self.0.alloc_zeroed(layout) }
        }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        if OCI.load(Ordering::Relaxed) {
            // SAFETY: the role never changes, so it is this allocator's memory.
            unsafe { System.dealloc(memory, layout) };
        } else {
            // SAFETY: as above.
            unsafe { self.0.dealloc(memory, layout) };
        }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if OCI.load(Ordering::Relaxed) {
            // SAFETY: the role never changes, so it is this allocator's memory.
            unsafe { System.realloc(memory, layout, size) }
        } else {
            // SAFETY: as above.
            unsafe { self.0.realloc(memory, layout, size) }
        }
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod start {
    use std::ffi::{CStr, c_char, c_int};
    use std::os::fd::{AsFd, AsRawFd};
    use std::sync::atomic::Ordering;

    use rustix::fs::{CWD, StatVfsMountFlags};
    use rustix::mount::{OpenTreeFlags, open_tree};

    use super::super::{mount_attr, mount_setattr};

    type Strings = *const *const c_char;

    // SAFETY: the section holds pointers to functions that glibc calls with the arguments of `main`
    // before `main`; this one needs nothing that is set up later.
    #[used]
    #[unsafe(link_section = ".init_array")]
    static START: extern "C" fn(c_int, Strings, Strings) = start;

    extern "C" fn start(_: c_int, argv: Strings, envp: Strings) {
        let mut args = Args(argv);
        let role = match args.next().map(file_name) {
            Some(b"gantry") => args.next() == Some(b"oci"),
            Some(name) => name == b"runc" || name.starts_with(b"gantry-oci"),
            None => false,
        };
        if !role {
            return;
        }
        super::OCI.store(true, Ordering::Relaxed);
        let enters = |arg: &[u8]| matches!(arg, b"create" | b"exec");
        if args.any(enters) {
            again(argv, envp);
        }
    }

    /// The arguments of `main`.
    struct Args(Strings);

    impl Iterator for Args {
        type Item = &'static [u8];

        fn next(&mut self) -> Option<Self::Item> {
            // SAFETY: the array ends in a null pointer, behind which this never steps; its strings
            // end in NUL and live as long as the process.
            unsafe {
                if self.0.is_null() || (*self.0).is_null() {
                    return None;
                }
                let arg = CStr::from_ptr(*self.0);
                self.0 = self.0.add(1);
                Some(arg.to_bytes())
            }
        }
    }

    fn file_name(path: &'static [u8]) -> &'static [u8] {
        path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
    }

    /// Runs the program again from a read-only view of its file, as `oci::protect` does; that one
    /// looks again later, whatever happens here.
    fn again(argv: Strings, envp: Strings) {
        let flags = rustix::fs::statvfs(c"/proc/self/exe").map(|fs| fs.f_flag);
        if !flags.is_ok_and(|flags| !flags.contains(StatVfsMountFlags::RDONLY)) {
            return;
        }
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let Ok(tree) = open_tree(CWD, c"/proc/self/exe", flags) else {
            return;
        };
        if mount_setattr(tree.as_fd(), mount_attr::RDONLY, false).is_err() {
            return;
        }
        let path = Path::of(tree.as_raw_fd());
        // SAFETY: the path ends in NUL, and the arrays are those of `main`, as exec wants them.
        unsafe { libc::execve(path.0.as_ptr().cast(), argv, envp) };
    }

    /// `/proc/self/fd/<number>` without an allocation.
    struct Path([u8; 32]);

    impl Path {
        fn of(number: i32) -> Self {
            use std::io::Write;
            let mut text = [0; 32];
            // 14 bytes, at most 10 digits and a NUL fit.
            let _ = write!(&mut text[..31], "/proc/self/fd/{number}");
            Self(text)
        }
    }
}
