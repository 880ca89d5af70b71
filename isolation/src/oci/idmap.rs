//! User namespaces that exist only to map the ids of a mount.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};

use super::config::{Config, IdMapping, Mount, NamespaceKind};
use super::error::{OciError, call};
use crate::sys::{self, Cloned, clone_flags};

fn text(maps: &[IdMapping]) -> String {
    let line = |map: &IdMapping| format!("{} {} {}\n", map.container_id, map.host_id, map.size);
    maps.iter().map(line).collect()
}

/// A namespace with the mount's own maps, or those of the container, whose own is taken if it is joined. It is that of a process that
/// does nothing and ends here.
pub(super) fn namespace(config: &Config, mount: &Mount) -> Result<OwnedFd, OciError> {
    let (users, groups) = if mount.uid_mappings.is_empty() {
        (&config.linux.uid_mappings, &config.linux.gid_mappings)
    } else {
        (&mount.uid_mappings, &mount.gid_mappings)
    };
    let joined = config.linux.namespaces.iter().find(|one| {
        one.kind == NamespaceKind::User && !one.path.is_empty() && mount.uid_mappings.is_empty()
    });
    if let Some(joined) = joined {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        return rustix::fs::open(joined.path.as_str(), flags, Mode::empty())
            .map_err(call(format!("open namespace {}", joined.path)));
    }
    if users.is_empty() || groups.is_empty() {
        return Err(OciError::Refused(format!(
            "mount {}: id-mapped, but there are no mappings",
            mount.destination
        )));
    }
    let words = || format!("make the id map of {}", mount.destination);
    let (alive, end) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(call(words()))?;
    let pid = match sys::clone3(clone_flags::NEWUSER, None).map_err(call(words()))? {
        Cloned::Child => {
            drop(end);
            let mut byte = [0];
            // Ends when the runtime closes its end, whatever becomes of it.
            let _ = rustix::io::read(&alive, &mut byte);
            sys::exit_now(0)
        }
        Cloned::Parent(pid, _) => pid,
    };
    let made = std::fs::write(format!("/proc/{pid}/uid_map"), text(users))
        .and_then(|()| std::fs::write(format!("/proc/{pid}/gid_map"), text(groups)))
        .map_err(call(words()))
        .and_then(|()| {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            rustix::fs::open(format!("/proc/{pid}/ns/user"), flags, Mode::empty())
                .map_err(call(words()))
        });
    drop(end);
    sys::oci::wait_for(pid).map_err(call(words()))?;
    made
}
