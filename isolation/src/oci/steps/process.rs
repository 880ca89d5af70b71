//! What a process of a container becomes: environment, limits, scheduling, user, rights.

use std::collections::BTreeSet;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Gid, Mode, OFlags, ResolveFlags, openat2};

use super::{command, oci};
use crate::oci::config::{Config, IoPriority, Personality, Process, Scheduler};
use crate::oci::error::OciError;
use crate::oci::filter;
use crate::plan::{Credentials, OciStep, Plan, Step};
use crate::sys::oci::SchedAttr;

/// By kernel number.
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];
/// Name and kernel number of `asm-generic/resource.h`.
const LIMITS: [(&str, u32); 16] = [
    ("RLIMIT_CPU", 0),
    ("RLIMIT_FSIZE", 1),
    ("RLIMIT_DATA", 2),
    ("RLIMIT_STACK", 3),
    ("RLIMIT_CORE", 4),
    ("RLIMIT_RSS", 5),
    ("RLIMIT_NPROC", 6),
    ("RLIMIT_NOFILE", 7),
    ("RLIMIT_MEMLOCK", 8),
    ("RLIMIT_AS", 9),
    ("RLIMIT_LOCKS", 10),
    ("RLIMIT_SIGPENDING", 11),
    ("RLIMIT_MSGQUEUE", 12),
    ("RLIMIT_NICE", 13),
    ("RLIMIT_RTPRIO", 14),
    ("RLIMIT_RTTIME", 15),
];
const POLICIES: [(&str, u32); 6] = [
    ("SCHED_OTHER", 0),
    ("SCHED_FIFO", 1),
    ("SCHED_RR", 2),
    ("SCHED_BATCH", 3),
    ("SCHED_IDLE", 5),
    ("SCHED_DEADLINE", 6),
];
const SCHED_FLAGS: [(&str, u64); 7] = [
    ("SCHED_FLAG_RESET_ON_FORK", 0x1),
    ("SCHED_FLAG_RECLAIM", 0x2),
    ("SCHED_FLAG_DL_OVERRUN", 0x4),
    ("SCHED_FLAG_KEEP_POLICY", 0x8),
    ("SCHED_FLAG_KEEP_PARAMS", 0x10),
    ("SCHED_FLAG_UTIL_CLAMP_MIN", 0x20),
    ("SCHED_FLAG_UTIL_CLAMP_MAX", 0x40),
];
const IO_CLASSES: [(&str, i32); 3] = [
    ("IOPRIO_CLASS_RT", 1),
    ("IOPRIO_CLASS_BE", 2),
    ("IOPRIO_CLASS_IDLE", 3),
];
/// How much of an `/etc/passwd` is read for a home directory.
const MAX_PASSWD_BYTES: u64 = 1 << 20;

/// Every capability, as configurations name them.
pub(in crate::oci) fn capability_names() -> impl Iterator<Item = String> {
    CAPABILITIES.iter().map(|name| format!("CAP_{name}"))
}

/// The bit of a capability.
pub(in crate::oci) fn parse_capability(name: &str) -> Option<u64> {
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
    let number = CAPABILITIES.iter().position(|known| *known == short)?;
    Some(1 << number)
}

/// What of the capabilities cannot be had, in runc's words: names that nobody knows or that this
/// kernel does not have, and ambient ones that are not inheritable and permitted as well.
pub(in crate::oci) fn capability_warnings(process: &Process) -> Vec<String> {
    let Some(wanted) = &process.capabilities else {
        return Vec::new();
    };
    let last = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap");
    let last = last.ok().and_then(|text| text.trim().parse::<u32>().ok());
    let here = last.map_or(u64::MAX, |last| u64::MAX >> (63 - last.min(63)));
    let known = |name: &String| parse_capability(name).is_some_and(|bit| bit & here != 0);
    let sets = [
        &wanted.bounding,
        &wanted.effective,
        &wanted.inheritable,
        &wanted.permitted,
        &wanted.ambient,
    ];
    let unknown = sets.into_iter().flatten().filter(|name| !known(name));
    let unknown: BTreeSet<&str> = unknown.map(String::as_str).collect();
    let mut warnings = Vec::new();
    if !unknown.is_empty() {
        let unknown: Vec<&str> = unknown.into_iter().collect();
        let unknown = unknown.join(" ");
        warnings.push(format!(
            "ignoring unknown or unavailable capabilities: [{unknown}]"
        ));
    }
    let may = set(&wanted.inheritable) & set(&wanted.permitted);
    for name in &wanted.ambient {
        if parse_capability(name).is_some_and(|bit| bit & here & !may != 0) {
            warnings.push(format!(
                "can't raise ambient capability {name}: operation not permitted"
            ));
        }
    }
    warnings
}

/// Unknown names are passed over, as runc does: a newer engine names newer capabilities.
fn set(names: &[String]) -> u64 {
    names
        .iter()
        .filter_map(|name| parse_capability(name))
        .fold(0, |all, one| all | one)
}

/// What the last steps of a plan are made of.
pub(in crate::oci) struct ProcessPlan<'a> {
    pub(in crate::oci) process: &'a Process,
    pub(in crate::oci) new_keyring: bool,
    pub(in crate::oci) first_closed: u32,
    pub(in crate::oci) listen_fds: u32,
    pub(in crate::oci) home: String,
    pub(in crate::oci) seccomp: Option<&'a serde_json::Value>,
    pub(in crate::oci) personality: Option<&'a Personality>,
    /// Descriptors that steps after the start need.
    pub(in crate::oci) kept: Vec<i32>,
}

impl ProcessPlan<'_> {
    /// The system call filter.
    pub(super) fn filter(&self) -> Result<Option<Step>, OciError> {
        let bounding = credentials(self.process).bounding;
        let step = |profile| filter::step(profile, bounding);
        self.seccomp.map(step).transpose()
    }

    /// Adds the steps from the keyring to exec. `birth` is where the process starts to be seen in its
    /// PID namespace: as late as it can; `after` comes once it was started.
    pub(in crate::oci) fn finish(
        &self,
        mut steps: Vec<Step>,
        mut birth: Option<Step>,
        filter: Option<Step>,
        after: Vec<Step>,
    ) -> Result<Plan, OciError> {
        let process = self.process;
        if self.new_keyring {
            steps.push(Step::Keyring);
        }
        if let Some(priority) = &process.io_priority {
            steps.push(oci(OciStep::IoPriority(io_priority(priority)?)));
        }
        if let Some(personality) = self.personality {
            steps.push(oci(OciStep::Personality(domain(personality)?)));
        }
        for limit in &process.rlimits {
            let known = LIMITS.iter().find(|(name, _)| *name == limit.kind);
            let (name, resource) = known
                .ok_or_else(|| OciError::Refused(format!("invalid rlimit type: {}", limit.kind)))?;
            steps.push(oci(OciStep::Limit {
                name,
                resource: *resource,
                soft: limit.soft,
                hard: limit.hard,
            }));
        }
        let who = credentials(process);
        // Without no_new_privs only root may load one, and it must allow all that follows.
        let (early, late) = if process.no_new_privileges {
            (None, filter)
        } else {
            (filter, None)
        };
        // What is the host's is gone before the process may be looked into.
        steps.push(oci(OciStep::Settle {
            first: self.first_closed,
            keep: self.kept.clone(),
        }));
        if early.is_some() {
            // The filter may refuse both.
            steps.extend(birth.take());
            steps.push(oci(OciStep::CloseFrom(self.first_closed)));
        }
        let filtered = early.is_some();
        steps.extend(early);
        steps.push(oci(OciStep::Credentials(Box::new(who))));
        steps.extend(birth);
        steps.push(oci(OciStep::FindProgram));
        steps.push(oci(OciStep::AwaitStart));
        steps.extend(after);
        if !filtered {
            steps.push(oci(OciStep::CloseFrom(self.first_closed)));
        }
        steps.extend(late);
        let command = command(process, &self.environment())?;
        steps.push(Step::Exec(command.shown()));
        Ok(Plan { steps, command })
    }

    pub(super) fn environment(&self) -> Vec<String> {
        let mut env = last_ones(&self.process.env);
        if !env.iter().any(|variable| has_home(variable)) {
            env.retain(|variable| variable != "HOME=");
            env.push(format!("HOME={}", self.home));
        }
        if self.listen_fds > 0 {
            env.push(format!("LISTEN_FDS={}", self.listen_fds));
            env.push("LISTEN_PID=1".to_owned());
        }
        env
    }
}

fn has_home(variable: &str) -> bool {
    variable.starts_with("HOME=") && variable != "HOME="
}

/// Each variable once, with the value that was given last.
pub(in crate::oci) fn last_ones(env: &[String]) -> Vec<String> {
    let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    let mut seen = BTreeSet::new();
    let mut found: Vec<String> = env
        .iter()
        .rev()
        .filter(|variable| seen.insert(name(variable)))
        .cloned()
        .collect();
    found.reverse();
    found
}

fn credentials(process: &Process) -> Credentials {
    let user = &process.user;
    let none = crate::oci::config::Capabilities::default();
    let wanted = process.capabilities.as_ref().unwrap_or(&none);
    Credentials {
        uid: user.uid,
        gid: user.gid,
        groups: user
            .additional_gids
            .iter()
            .copied()
            .map(Gid::from_raw)
            .collect(),
        umask: user.umask.unwrap_or(0o022) & 0o777,
        bounding: set(&wanted.bounding),
        effective: set(&wanted.effective),
        inheritable: set(&wanted.inheritable),
        permitted: set(&wanted.permitted),
        ambient: set(&wanted.ambient),
        no_new_privileges: process.no_new_privileges,
    }
}

fn named<T: Copy>(known: &[(&str, T)], name: &str, what: &str) -> Result<T, OciError> {
    let found = known.iter().find(|(word, _)| *word == name);
    found
        .map(|(_, value)| *value)
        .ok_or_else(|| OciError::Refused(format!("invalid {what}: {name}")))
}

/// What `process.scheduler` asks for, which the runtime sets from outside: the clone that makes the
/// process may undo it, and the process may lack the right.
pub(in crate::oci) fn schedule(wanted: &Scheduler) -> Result<SchedAttr, OciError> {
    let mut flags = 0;
    for flag in &wanted.flags {
        flags |= named(&SCHED_FLAGS, flag, "scheduler flag")?;
    }
    Ok(SchedAttr {
        policy: named(&POLICIES, &wanted.policy, "scheduler policy")?,
        flags,
        nice: wanted.nice,
        priority: u32::try_from(wanted.priority).unwrap_or(0),
        runtime: wanted.runtime,
        deadline: wanted.deadline,
        period: wanted.period,
        ..SchedAttr::default()
    })
}

/// The class is above bit 13 (`linux/ioprio.h`).
fn io_priority(wanted: &IoPriority) -> Result<i32, OciError> {
    if wanted.priority > 7 {
        return Err(OciError::Refused(format!(
            "invalid ioPriority.Priority: {}",
            wanted.priority
        )));
    }
    let class = named(&IO_CLASSES, &wanted.class, "ioPriority.Class")?;
    Ok(class << 13 | i32::from(wanted.priority))
}

fn domain(wanted: &Personality) -> Result<u64, OciError> {
    if !wanted.flags.is_empty() {
        return Err(OciError::Refused(
            "personality flags are not supported".to_owned(),
        ));
    }
    named(
        &[("LINUX", 0), ("LINUX32", 8)],
        &wanted.domain,
        "personality domain",
    )
}

/// The user's home, by the `/etc/passwd` that it will see; `/` when that says nothing.
pub(in crate::oci) fn home(rootfs: &Path, config: &Config, process: &Process) -> String {
    if last_ones(&process.env).iter().any(|one| has_home(one)) {
        return String::new();
    }
    let mounted = config
        .mounts
        .iter()
        .find(|mount| mount.destination == "/etc/passwd");
    let file = match mounted {
        Some(mount) => open_passwd(Path::new("/"), mount.source.trim_start_matches('/')),
        None => open_passwd(rootfs, "etc/passwd"),
    };
    let mut text = Vec::new();
    if let Some(file) = file {
        // A file that cannot be read says nothing.
        let _ = std::fs::File::from(file)
            .take(MAX_PASSWD_BYTES)
            .read_to_end(&mut text);
    }
    home_in(&String::from_utf8_lossy(&text), process.user.uid).unwrap_or_else(|| "/".to_owned())
}

fn home_in(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':').skip(2);
        let found = fields.next()?.parse::<u32>().ok()? == uid;
        let home = fields.nth(2)?;
        (found && home.starts_with('/')).then(|| home.to_owned())
    })
}

fn open_passwd(root: &Path, path: &str) -> Option<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(root, flags, Mode::empty()).ok()?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = openat2(root.as_fd(), path, flags, Mode::empty(), resolve).ok()?;
    let stat = rustix::fs::fstat(&file).ok()?;
    rustix::fs::FileType::from_raw_mode(stat.st_mode)
        .is_file()
        .then_some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_bits_by_name() {
        assert_eq!(parse_capability("CAP_CHOWN"), Some(1));
        assert_eq!(parse_capability("sys_admin"), Some(1 << 21));
        assert_eq!(parse_capability("CAP_CHECKPOINT_RESTORE"), Some(1 << 40));
        assert_eq!(parse_capability("CAP_NOPE"), None);
    }

    #[test]
    fn homes_are_found_by_number() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbad\nweb:x:7:7::/web:/bin/sh\nn:x:8:8::rel:";
        assert_eq!(home_in(passwd, 0).as_deref(), Some("/root"));
        assert_eq!(home_in(passwd, 7).as_deref(), Some("/web"));
        assert_eq!(home_in(passwd, 8), None);
        assert_eq!(home_in(passwd, 9), None);
    }
}
