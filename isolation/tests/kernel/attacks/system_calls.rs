//! System calls that act on the machine itself, or that open a door to its kernel.

use super::refused;

#[test]
fn load_code_into_the_kernel() {
    refused(
        6,
        r"
tried('init_module', lambda: call(175, b'x', 1, b''))
tried('finit_module', lambda: call(313, 0, b'', 0))
tried('delete_module', lambda: call(176, b'overlay', 0x800))
tried('kexec_load', lambda: call(246, 0, 0, 0, 0))
tried('kexec_file_load', lambda: call(320, 0, 0, 0, b'', 0))
tried('bpf', lambda: call(321, 0, ctypes.create_string_buffer(128), 128))
",
    );
}

#[test]
fn reboot_or_reconfigure_the_machine() {
    // The magic numbers are right, the order is the harmless one (Ctrl-Alt-Del off).
    refused(
        8,
        r"
tried('reboot', lambda: call(169, 0xfee1dead, 672274793, 0, 0))
tried('swapoff', lambda: call(168, b'/nowhere'))
tried('swapon', lambda: call(167, b'/nowhere', 0))
tried('acct', lambda: call(163, 0))
now = struct.pack('qq', 0, 0)
tried('settimeofday', lambda: call(164, now, 0))
tried('clock_settime', lambda: call(227, 0, now))
tried('sethostname', lambda: call(170, b'owned', 5))
tried('iopl', lambda: call(172, 3))
",
    );
}

#[test]
fn read_the_kernels_log_and_memory() {
    refused(
        4,
        r"
tried('syslog', lambda: call(103, 3, ctypes.create_string_buffer(64), 64))
tried('dev kmsg', lambda: os.open('/dev/kmsg', os.O_RDONLY), [errno.ENOENT])
tried('dev mem', lambda: os.open('/dev/mem', os.O_RDONLY), [errno.ENOENT])
def kcore():
    if not os.read(os.open('/proc/kcore', os.O_RDONLY), 64):
        raise OSError(errno.EACCES, 'masked')
tried('kcore', kcore, [errno.ENOENT])
",
    );
}

#[test]
fn use_the_kernels_dangerous_interfaces() {
    refused(
        7,
        r"
buf = ctypes.create_string_buffer(256)
tried('io_uring_setup', lambda: call(425, 8, buf))
tried('userfaultfd', lambda: call(323, 0))
tried('perf_event_open', lambda: call(298, buf, 0, -1, -1, 0))
tried('keyctl', lambda: call(250, 0, -3, 1))
tried('add_key', lambda: call(248, b'user', b'x', b'y', 1, -3))
tried('request_key', lambda: call(249, b'user', b'x', 0, -3))
tried('personality', lambda: call(135, 0x0004000))
",
    );
}

#[test]
fn poison_the_page_cache_through_the_crypto_sockets() {
    // runc#5272: a bug of AF_ALG wrote to pages of files that were mounted read-only.
    refused(
        3,
        r"
tried('AF_ALG', lambda: socket.socket(38, socket.SOCK_SEQPACKET, 0), [errno.EAFNOSUPPORT])
tried('AF_VSOCK', lambda: socket.socket(40, socket.SOCK_STREAM, 0), [errno.EAFNOSUPPORT])
tried('AF_KEY', lambda: socket.socket(15, socket.SOCK_RAW, 2), [errno.EAFNOSUPPORT])
",
    );
}

#[test]
fn forge_packets_of_the_neighbours() {
    refused(
        3,
        r"
tried('packet', lambda: socket.socket(17, socket.SOCK_RAW, 0x0300))
tried('raw', lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
tried('raw6', lambda: socket.socket(socket.AF_INET6, socket.SOCK_RAW, 58), [errno.EAFNOSUPPORT])
",
    );
}

#[test]
fn mount_over_what_protects_the_kernel() {
    // Directly, after taking a user namespace, and by the new calls.
    refused(
        13,
        r"
tried('proc', lambda: call(165, b'proc', b'/mnt', b'proc', 0, 0))
tried('sysfs', lambda: call(165, b'sysfs', b'/mnt', b'sysfs', 0, 0))
tried('cgroup', lambda: call(165, b'cgroup', b'/mnt', b'cgroup', 0, b'memory'))
tried('bind', lambda: call(165, b'/proc', b'/mnt', b'', 4096, 0))
tried('remount', lambda: call(165, b'', b'/sys', b'', 32, 0))
tried('umount', lambda: call(166, b'/proc/sys', 2))
tried('pivot_root', lambda: call(155, b'/', b'/'))
tried('open_tree', lambda: call(428, -100, b'/', 1))
tried('fsopen', lambda: call(430, b'proc', 0))
buf = ctypes.create_string_buffer(32)
tried('mount_setattr', lambda: call(442, -100, b'/sys', 0, buf, 32))
tried('NEWUSER', lambda: call(272, 0x10000000))
tried('NEWNS', lambda: call(272, 0x20000))
tried('NEWUSER by clone', lambda: call(56, 0x10000011, 0, 0, 0, 0) and os._exit(0))
",
    );
}
