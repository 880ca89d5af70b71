//! The strict default profile: what a container may call when nobody says otherwise.
//!
//! It starts from what Docker allows by default, and refuses with EPERM as Docker does. Stricter:
//!
//! - Calls of 32-bit x86 end the process. `socketcall` there hides which socket is asked for, the
//!   compatibility paths are attack surface, and the filter is half as long. A container of 32-bit
//!   programs brings a profile.
//! - Sockets are Unix, IPv4, IPv6, netlink and packet ones. No `AF_ALG`: it opened the kernel's
//!   page cache to writes (CVE-2026-31431), and containers have crypto libraries. No `AF_VSOCK`:
//!   it reaches every virtual machine of the host, whatever the network namespace. No others:
//!   asking for one loads a module of the host, and several held escapes.
//! - No `modify_ldt`, no `remap_file_pages`.
//!
//! Never, with any capability: `io_uring`, which does not pass this filter again for what it is
//! told to do; the kernel's keyrings, which no namespace holds; `userfaultfd`, which stops the
//! kernel where an exploit wants it; `kexec`, swap, `pivot_root`.

use super::profile::Only;
use super::{Action, Comparison, Condition, KernelVersion, Profile, Rule};

/// For everyone. The largest number here is the newest call the profile knows (Linux 6.18); newer
/// ones fail with ENOSYS.
const EVERYONE: &[&str] = &[
    // Files by descriptor.
    "read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 lseek close \
     close_range dup dup2 dup3 fcntl flock ioctl fsync fdatasync sync syncfs sync_file_range \
     ftruncate fallocate fadvise64 readahead sendfile splice tee vmsplice copy_file_range cachestat",
    // Files by path.
    "open openat openat2 creat truncate access faccessat faccessat2 stat lstat fstat newfstatat \
     statx statfs fstatfs readlink readlinkat getcwd chdir fchdir mkdir mkdirat rmdir link linkat \
     symlink symlinkat unlink unlinkat rename renameat renameat2 chmod fchmod fchmodat fchmodat2 \
     chown lchown fchown fchownat umask utime utimes futimesat utimensat mknod mknodat getdents \
     getdents64 name_to_handle_at file_getattr file_setattr statmount listmount",
    "getxattr lgetxattr fgetxattr getxattrat setxattr lsetxattr fsetxattr setxattrat listxattr \
     llistxattr flistxattr listxattrat removexattr lremovexattr fremovexattr removexattrat",
    "inotify_init inotify_init1 inotify_add_watch inotify_rm_watch fanotify_mark",
    // Waiting.
    "poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait \
     epoll_pwait2 eventfd eventfd2 signalfd signalfd4 timerfd_create timerfd_settime \
     timerfd_gettime pipe pipe2 io_setup io_submit io_getevents io_pgetevents io_cancel io_destroy",
    // Memory.
    "brk mmap munmap mremap mprotect madvise msync mincore mlock mlock2 mlockall munlock \
     munlockall memfd_create memfd_secret mseal map_shadow_stack membarrier pkey_alloc pkey_free \
     pkey_mprotect",
    // Processes and threads.
    "fork vfork execve execveat exit exit_group wait4 waitid getpid getppid gettid getpgid \
     getpgrp setpgid getsid setsid prctl arch_prctl set_tid_address set_robust_list \
     get_robust_list rseq futex futex_wait futex_wake futex_waitv futex_requeue getcpu getpriority \
     setpriority ioprio_get ioprio_set sched_yield sched_getaffinity sched_setaffinity \
     sched_getattr sched_setattr sched_getparam sched_setparam sched_getscheduler \
     sched_setscheduler sched_get_priority_max sched_get_priority_min sched_rr_get_interval \
     getrlimit setrlimit prlimit64 getrusage times pidfd_open pidfd_send_signal process_mrelease \
     restart_syscall set_thread_area get_thread_area uprobe uretprobe",
    // Signals.
    "kill tkill tgkill pause alarm getitimer setitimer rt_sigaction rt_sigprocmask rt_sigpending \
     rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sigaltstack",
    // Who one is; setting it is bounded by capabilities.
    "getuid geteuid getgid getegid getresuid getresgid getgroups setuid setgid setreuid setregid \
     setresuid setresgid setfsuid setfsgid setgroups capget capset seccomp landlock_add_rule \
     landlock_create_ruleset landlock_restrict_self",
    // Time; setting it is the kernel's to refuse in those that read it too.
    "time gettimeofday clock_gettime clock_getres clock_nanosleep nanosleep adjtimex clock_adjtime \
     timer_create timer_delete timer_getoverrun timer_gettime timer_settime",
    // The machine.
    "uname sysinfo getrandom",
    // Sockets.
    "socketpair bind listen accept accept4 connect shutdown getsockname getpeername getsockopt \
     setsockopt sendto sendmsg sendmmsg recvfrom recvmsg recvmmsg",
    // System V and POSIX communication, in the container's own namespace.
    "shmget shmat shmdt shmctl semget semop semtimedop semctl msgget msgsnd msgrcv msgctl mq_open \
     mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr",
];

/// Tracing of what one may signal; before Linux 4.8 a tracer could change a call after the filter
/// had seen it.
const TRACERS: &str = "ptrace process_vm_readv process_vm_writev";

/// With a capability (`linux/capability.h`).
const WITH: &[(u32, &str)] = &[
    // CAP_DAC_READ_SEARCH
    (2, "open_by_handle_at"),
    // CAP_SYS_MODULE
    (16, "init_module finit_module delete_module"),
    // CAP_SYS_RAWIO
    (17, "iopl ioperm"),
    // CAP_SYS_CHROOT
    (18, "chroot"),
    // CAP_SYS_PTRACE
    (
        19,
        "ptrace process_vm_readv process_vm_writev process_madvise kcmp pidfd_getfd",
    ),
    // CAP_SYS_PACCT
    (20, "acct"),
    // CAP_SYS_ADMIN
    (
        SYS_ADMIN,
        "clone clone3 unshare setns mount umount2 mount_setattr move_mount open_tree \
         open_tree_attr fsopen fsconfig fsmount fspick sethostname setdomainname quotactl \
         quotactl_fd fanotify_init lookup_dcookie lsm_get_self_attr lsm_set_self_attr \
         lsm_list_modules bpf perf_event_open syslog",
    ),
    // CAP_SYS_BOOT
    (22, "reboot"),
    // CAP_SYS_NICE
    (
        23,
        "get_mempolicy set_mempolicy mbind set_mempolicy_home_node",
    ),
    // CAP_SYS_TIME
    (25, "settimeofday clock_settime"),
    // CAP_SYS_TTY_CONFIG
    (26, "vhangup"),
    // CAP_SYSLOG
    (34, "syslog"),
    // CAP_PERFMON
    (38, "perf_event_open"),
    // CAP_BPF
    (39, "bpf"),
];

const SYS_ADMIN: u32 = 21;

/// `CLONE_NEW*` but `CLONE_NEWTIME`, whose bit is part of the exit signal here.
const NEW_NAMESPACES: u64 = 0x7e02_0000;

/// `AF_UNIX` and `AF_INET`, `AF_INET6`, `AF_NETLINK` and `AF_PACKET`.
const SOCKET_FAMILIES: [u64; 5] = [1, 2, 10, 16, 17];

/// `PER_LINUX` and `PER_LINUX32`, each also as Linux 2.6, and the value that only asks.
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

impl Profile {
    /// The strict default.
    pub fn builtin() -> Self {
        let errno = |number: i32| Action::Errno(number.unsigned_abs() as u16);
        let mut rules: Vec<Rule> = EVERYONE.iter().map(|names| allow(names)).collect();
        rules.push(Rule {
            only: Only {
                since: Some(KernelVersion { major: 4, minor: 8 }),
                ..Only::default()
            },
            ..allow(TRACERS)
        });
        for (capability, names) in WITH {
            rules.push(Rule {
                only: Only {
                    with: vec![Some(*capability)],
                    ..Only::default()
                },
                ..allow(names)
            });
        }
        let without_admin = || Only {
            without: vec![Some(SYS_ADMIN)],
            ..Only::default()
        };
        let no_namespace = Comparison::Masked {
            mask: NEW_NAMESPACES,
            value: 0,
        };
        rules.push(Rule {
            conditions: vec![first(no_namespace)],
            only: without_admin(),
            ..allow("clone")
        });
        // Its flags are in memory, where a filter cannot look; C libraries fall back to clone.
        rules.push(Rule {
            action: errno(libc::ENOSYS),
            only: without_admin(),
            ..allow("clone3")
        });
        for (name, values) in [("socket", SOCKET_FAMILIES), ("personality", PERSONALITIES)] {
            rules.extend(values.map(|value| Rule {
                conditions: vec![first(Comparison::Eq(value))],
                ..allow(name)
            }));
        }
        Self {
            default: errno(libc::EPERM),
            unknown_is_missing: true,
            architectures: Vec::new(),
            flags: 0,
            rules,
        }
    }
}

fn first(comparison: Comparison) -> Condition {
    Condition {
        argument: 0,
        comparison,
    }
}

fn allow(names: &str) -> Rule {
    Rule {
        names: names.split_whitespace().map(str::to_owned).collect(),
        action: Action::Allow,
        conditions: Vec::new(),
        only: Only::default(),
    }
}
