//! AppArmor profiles and SELinux labels: what the security module makes of the process at exec.
//!
//! A configuration names at most one that counts here, since a kernel enforces one of the two;
//! whether the kernel knows the profile or label is its own to say, at the start. Mounts are given
//! no label: a configuration that wants that is refused by `check`.

use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::{Kept, c, oci};
use crate::oci::config::Process;
use crate::oci::error::{OciError, call};
use crate::plan::{OciStep, Step};

/// The profile that is none.
const UNCONFINED: &str = "unconfined";

/// Whether the kernel enforces AppArmor profiles.
pub(in crate::oci) fn apparmor_enabled() -> bool {
    let text = std::fs::read("/sys/module/apparmor/parameters/enabled").unwrap_or_default();
    text.first() == Some(&b'Y')
}

/// Whether the kernel knows SELinux labels.
pub(in crate::oci) fn selinux_enabled() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

/// Path below `/proc` and what to write there.
fn wanted(process: &Process) -> Result<Option<(&'static str, String)>, OciError> {
    let profile = Some(&process.apparmor_profile)
        .filter(|profile| !profile.is_empty() && (*profile != UNCONFINED || apparmor_enabled()));
    let label = Some(&process.selinux_label).filter(|label| !label.is_empty());
    match (profile, label) {
        (Some(_), Some(_)) => Err(OciError::Refused(
            "both an apparmor profile and a selinux label are specified".to_owned(),
        )),
        (Some(profile), None) => {
            // The module's own directory (Linux 5.8), for when others are stacked.
            let own = Path::new("/proc/thread-self/attr/apparmor/exec").exists();
            let path = if own {
                "thread-self/attr/apparmor/exec"
            } else {
                "thread-self/attr/exec"
            };
            Ok(Some((path, format!("exec {profile}"))))
        }
        (None, Some(label)) => Ok(Some(("thread-self/attr/exec", label.clone()))),
        (None, None) => Ok(None),
    }
}

/// The step, if a label is asked for, and the descriptor that it needs.
pub(super) fn step(process: &Process, kept: &mut Kept) -> Result<Option<(Step, i32)>, OciError> {
    let Some((path, value)) = wanted(process)? else {
        return Ok(None);
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let proc = rustix::fs::open("/proc", flags, Mode::empty()).map_err(call("open /proc"))?;
    let proc = kept.keep(proc);
    let (path, value) = (c(path)?, c(value)?);
    Ok(Some((oci(OciStep::Label { proc, path, value }), proc)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_module_is_told_in_its_own_words() {
        let process = |profile: &str, label: &str| Process {
            apparmor_profile: profile.to_owned(),
            selinux_label: label.to_owned(),
            ..Process::default()
        };
        assert_eq!(wanted(&process("", "")).unwrap(), None);
        let label = wanted(&process("", "a:b:c")).unwrap();
        assert_eq!(label, Some(("thread-self/attr/exec", "a:b:c".to_owned())));
        let (path, value) = wanted(&process("web", "")).unwrap().unwrap();
        assert!(path.ends_with("/exec"), "{path}");
        assert_eq!(value, "exec web");
        assert!(wanted(&process("web", "a:b:c")).is_err());
    }
}
