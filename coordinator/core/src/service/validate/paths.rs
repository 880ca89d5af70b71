//! Where a volume may appear inside a container.
//!
//! Relative paths lie in the sandbox, as in Marathon. Refused is what would cover, or be covered
//! by, what every container has: its root, its sandbox, the file systems of the kernel. It looks
//! at the text only; links inside an image are the agent's matter.

/// The sandbox inside every container.
const SANDBOX: [&str; 3] = ["mnt", "mesos", "sandbox"];
/// Directories at and below which the kernel's own file systems are.
const KERNEL: [&str; 3] = ["proc", "sys", "dev"];

/// What is wrong with a `containerPath`.
pub(super) fn unfit(path: &str) -> Option<&'static str> {
    let parts: Vec<&str> = path
        .split('/')
        .filter(|part| !matches!(*part, "" | "."))
        .collect();
    if parts.contains(&"..") {
        return Some("must not contain '..'");
    }
    let sandbox = if path.starts_with('/') {
        match parts.first() {
            None => return Some("must not be the root directory"),
            Some(first) if KERNEL.contains(first) => {
                return Some("must not be at or below /proc, /sys or /dev");
            }
            Some(_) => parts == SANDBOX,
        }
    } else {
        parts.is_empty()
    };
    sandbox.then_some("must not be the sandbox itself, /mnt/mesos/sandbox")
}
