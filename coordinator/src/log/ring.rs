//! One io_uring with one use: write bytes and make them durable as two linked operations, which
//! is one system call and one wait (io_uring_enter(2), IOSQE_IO_LINK).
//!
//! Not here: when to write. Invariants: at most one write is in flight, and every call waits for
//! all of its completions before it returns, so that no buffer is touched afterwards. If that
//! ever cannot be held the process stops: the kernel would write from freed memory.
#![expect(
    unsafe_code,
    reason = "submission to io_uring borrows buffers that Rust cannot track"
)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use io_uring::{IoUring, opcode, squeue, types};

/// Two operations are in flight at most.
const ENTRIES: u32 = 4;
/// Most bytes of one write; longer ones are several (the length field has 32 bits).
const WRITE_MAX_BYTES: usize = 1 << 30;
const WRITE: u64 = 1;
const SYNC: u64 = 2;

/// A ring that belongs to the thread that opened it.
pub(crate) struct Ring {
    ring: IoUring,
}

impl Ring {
    /// Sets the ring up and checks that it can write and sync.
    ///
    /// # Errors
    /// EPERM or ENOSYS where io_uring is switched off, EOPNOTSUPP on kernels that are too old.
    pub(crate) fn open() -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .build(ENTRIES)
            // Kernels before 6.1 do not know these flags.
            .or_else(|_| IoUring::new(ENTRIES))?;
        let mut probe = io_uring::Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        if probe.is_supported(opcode::Write::CODE) && probe.is_supported(opcode::Fsync::CODE) {
            Ok(Self { ring })
        } else {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    /// Writes all bytes at the offset and syncs the file's data.
    ///
    /// # Errors
    /// The first error of the disk; what was written is then not known.
    pub(crate) fn write_and_sync(
        &mut self,
        file: &File,
        offset: u64,
        bytes: &[u8],
    ) -> io::Result<()> {
        let mut done = 0;
        loop {
            let rest = &bytes[done..bytes.len().min(done + WRITE_MAX_BYTES)];
            let (written, synced) = self.linked(file, offset + done as u64, rest)?;
            done += written;
            match synced {
                Ok(()) if done == bytes.len() => return Ok(()),
                // A short write breaks the link and cancels the sync: write the rest.
                Ok(()) => {}
                Err(error) if error.raw_os_error() == Some(libc::ECANCELED) && written > 0 => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// One linked pair. Answers the bytes written and what the sync said.
    fn linked(
        &mut self,
        file: &File,
        offset: u64,
        bytes: &[u8],
    ) -> io::Result<(usize, io::Result<()>)> {
        let fd = types::Fd(file.as_raw_fd());
        let length = u32::try_from(bytes.len()).expect("WRITE_MAX_BYTES fits");
        let write = opcode::Write::new(fd, bytes.as_ptr(), length)
            .offset(offset)
            .build()
            .flags(squeue::Flags::IO_LINK)
            .user_data(WRITE);
        let sync = opcode::Fsync::new(fd)
            .flags(types::FsyncFlags::DATASYNC)
            .build()
            .user_data(SYNC);
        // SAFETY: `fd` and `bytes` are borrowed for this whole function, which does not return
        // or unwind before both completions have been taken below.
        unsafe { self.ring.submission().push_multiple(&[write, sync]) }
            .expect("the queue is empty between calls");
        let mut written = None;
        let mut synced = None;
        while written.is_none() || synced.is_none() {
            match self.ring.submit_and_wait(1) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Operations may be in flight and cannot be waited for.
                Err(error) => {
                    tracing::error!(%error, "io_uring_enter failed; stopping");
                    std::process::abort();
                }
            }
            for completion in self.ring.completion() {
                match completion.user_data() {
                    WRITE => written = Some(completion.result()),
                    _ => synced = Some(completion.result()),
                }
            }
        }
        let written = result(written.expect("the loop waited for it"))?;
        Ok((
            written,
            result(synced.expect("the loop waited for it")).map(|_| ()),
        ))
    }
}

/// The result field of a completion: a count, or an error number below zero.
fn result(value: i32) -> io::Result<usize> {
    usize::try_from(value).map_err(|_| io::Error::from_raw_os_error(-value))
}
