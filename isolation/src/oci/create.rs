//! `create` and `run`: from a bundle to a container whose process waits for its start, or runs.
//!
//! A failure undoes all of it: process, cgroups, directory. Invariant: the state is kept before the
//! first cgroup is made, so that what a killed creator left can be found and deleted.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::config::{Config, MAX_CONFIG_BYTES, Process, SPEC_VERSION};
use super::console::{Console, send_pidfd};
use super::error::{OciError, call};
use super::groups::{self, Groups};
use super::launch::{Between, Launched, Wanted, launch, number};
use super::state::{CONFIG, Place, START_SOCKET, Status, Stored, process_stat, read_bounded};
use super::steps::{self, Kept, Namespaces};
use super::{Global, check, devices, hooks};
use crate::cgroup::OwnTree;

/// What `create` and `run` are asked for.
#[derive(Clone, Debug, Default)]
pub struct Create {
    /// Name of the container.
    pub id: String,
    /// Directory with `config.json`.
    pub bundle: PathBuf,
    /// Where the terminal's master goes.
    pub console_socket: Option<PathBuf>,
    /// File for the process id.
    pub pid_file: Option<PathBuf>,
    /// Move the root instead of `pivot_root(2)`.
    pub no_pivot: bool,
    /// Keep the session keyring.
    pub no_new_keyring: bool,
    /// Where the pidfd of its process goes.
    pub pidfd_socket: Option<PathBuf>,
    /// Inherited descriptors, after stdin, stdout and stderr, that the container gets.
    pub preserve_fds: u32,
}

/// A container that is made, with its lock still held.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) place: Place,
    pub(super) stored: Stored,
    pub(super) config: Config,
    pub(super) launched: Launched,
    pub(super) console: Option<Console>,
}

/// Where the start of the process is awaited.
#[derive(Debug)]
pub(super) enum Start {
    /// At a socket of the container's directory.
    Later,
    /// At the talk with this process, perhaps through the small program of this file.
    Here(Option<OwnedFd>),
}

/// A bundle with its configuration.
pub(super) struct Loaded {
    bundle: PathBuf,
    text: Vec<u8>,
    pub(super) config: Config,
}

/// Reads a bundle's configuration.
pub(super) fn load(bundle: &Path) -> Result<Loaded, OciError> {
    let bundle =
        std::fs::canonicalize(bundle).map_err(call(format!("chdir {}", bundle.display())))?;
    if !bundle.is_dir() {
        let error = rustix::io::Errno::NOENT;
        return Err(call(format!("chdir {}", bundle.display()))(error));
    }
    let path = bundle.join("config.json");
    if !path.exists() {
        return Err(OciError::NoConfig);
    }
    let text = read_bounded(&path, MAX_CONFIG_BYTES)?;
    let config = parse(&text, &path)?;
    Ok(Loaded {
        bundle,
        text,
        config,
    })
}

/// Reads a configuration.
pub(super) fn parse(text: &[u8], path: &Path) -> Result<Config, OciError> {
    serde_json::from_slice(text).map_err(|source| OciError::Parse {
        path: path.to_owned(),
        source,
    })
}

/// Makes the container up to the point where its process waits.
pub(super) fn make(
    global: &Global,
    create: &Create,
    loaded: Loaded,
    start: Start,
    detach: bool,
) -> Result<Made, OciError> {
    let Loaded {
        bundle,
        text,
        config,
    } = loaded;
    check::config(&config)?;
    let process = config.process.clone().ok_or_else(|| {
        OciError::Refused("config.json has no process: there is nothing to run".to_owned())
    })?;
    check::process(&process)?;
    for words in steps::capability_warnings(&process) {
        global.log.warn(&words);
    }
    let console = Console::open(&process, create.console_socket.as_deref(), detach)?;
    let rootfs = rootfs(&bundle, &config)?;
    let trees = groups::own_trees()?;
    let groups = Groups::new(&config, &create.id, global.systemd_cgroup, &trees)?;
    let place = Place::make(&global.root, &create.id)?;
    if let Err(error) = groups.check_nobody_is_there() {
        // The groups stay: they are somebody else's.
        return Err(place.remove().err().unwrap_or(error));
    }
    let stored = Stored {
        oci_version: SPEC_VERSION.to_owned(),
        id: create.id.clone(),
        pid: 0,
        start_time: 0,
        bundle: bundle.display().to_string(),
        rootfs: rootfs.display().to_string(),
        created: super::clock::now(),
        annotations: config.annotations.clone(),
        groups,
    };
    let mut making = Making {
        create,
        config,
        process,
        bundle,
        rootfs,
        trees,
        stored,
        start,
    };
    match making.go(&place, &text, console.as_ref()) {
        Ok(launched) => Ok(Made {
            place,
            stored: making.stored,
            config: making.config,
            launched,
            console,
        }),
        Err(error) => Err(undo(place, &making.stored.groups, error)),
    }
}

/// Removes what was made; what could not be is told with the reason of the failure.
pub(super) fn undo(place: Place, groups: &Groups, error: OciError) -> OciError {
    let failures: Vec<String> = [groups.remove(), place.remove()]
        .into_iter()
        .filter_map(Result::err)
        .map(|error| super::error::whole(&error))
        .collect();
    if failures.is_empty() {
        return error;
    }
    let words = super::error::whole(&error);
    OciError::Refused(format!("{words}; then: {}", failures.join("; ")))
}

fn rootfs(bundle: &Path, config: &Config) -> Result<PathBuf, OciError> {
    let path = config.root.as_ref().map_or("", |root| root.path.as_str());
    let path = bundle.join(path);
    let found = std::fs::canonicalize(&path)
        .map_err(|error| call(format!("invalid rootfs: stat {}", path.display()))(error))?;
    if found == Path::new("/") {
        return Err(OciError::Refused(
            "invalid rootfs: the root of the host cannot be a container's".to_owned(),
        ));
    }
    Ok(found)
}

/// A container that is being made.
struct Making<'a> {
    create: &'a Create,
    config: Config,
    process: Process,
    bundle: PathBuf,
    rootfs: PathBuf,
    trees: Vec<OwnTree>,
    stored: Stored,
    start: Start,
}

impl Making<'_> {
    fn go(
        &mut self,
        place: &Place,
        text: &[u8],
        console: Option<&Console>,
    ) -> Result<Launched, OciError> {
        self.note(place, text)?;
        let filter = devices::filter(self.config.linux.resources.as_ref())?;
        let (group, unified) = self.stored.groups.begin(&filter)?;
        let (listener, relay) = match &self.start {
            Start::Later => (Some(listen(&place.dir)?), None),
            Start::Here(relay) => (None, relay.as_ref().map(AsFd::as_fd)),
        };
        let states = self.hook_states()?;
        let mut kept = Kept::default();
        let namespaces = Namespaces::open(&self.config, &mut kept)?;
        let apart = namespaces.can_be_apart();
        // What the container is shown is there before it is mounted, and a process that makes another
        // one asks for nothing; else the rest comes later.
        let (doors, group) = if apart || groups::are_shown(&self.config) {
            (Some(groups::make(group)?), None)
        } else {
            (None, Some(group))
        };
        let listen_fds = listen_fds();
        let input = steps::Input {
            config: &self.config,
            process: &self.process,
            bundle: &self.bundle,
            rootfs: &self.rootfs,
            trees: &self.trees,
            groups: &self.stored.groups,
            doors,
            console: console.map(Console::number),
            hook_states: states.as_ref().map(|(a, b)| (number(a), number(b))),
            no_pivot: self.create.no_pivot,
            apart,
            no_new_keyring: self.create.no_new_keyring,
            first_closed: 3 + listen_fds + self.create.preserve_fds,
            listen_fds,
            relay: relay.map(|file| file.as_raw_fd()),
        };
        let plan = steps::container(input, &namespaces, &mut kept)?;
        let users = namespaces.users_to_join();
        let launched = launch(
            plan,
            kept,
            &Wanted {
                flags: namespaces.clone_flags(),
                unified: unified.as_ref().map(AsFd::as_fd),
                pid_namespace: namespaces
                    .pid_to_join()
                    .filter(|_| !apart && users.is_none()),
                between: match users {
                    Some(users) => Between::Users(users),
                    None if apart => Between::Plan,
                    None => Between::Nobody,
                },
                before_users: namespaces.before_users(),
                id_maps: namespaces.id_maps(),
                oom_score_adj: self.process.oom_score_adj,
                start: listener.as_ref().map(AsFd::as_fd),
                lock: place.lock_number(),
                relay,
            },
            |pid| self.run_hooks(pid, states.as_ref()),
        )?;
        // While the process is busy: groups and a program each cost the kernel half a millisecond.
        let doors = group.map_or(Ok(Vec::new()), groups::make)?;
        let users = namespaces.users();
        devices::filter_v2(&self.stored.groups, &filter, users)?;
        launched.await_ready(&doors, |pid| {
            if apart {
                // They ran while nobody could reach who asked.
                return Err(OciError::Start("it asked for hooks again".to_owned()));
            }
            self.run_hooks(pid, states.as_ref())
        })?;
        self.settle(place, &launched)?;
        Ok(launched)
    }

    /// Keeps what is to be made.
    fn note(&self, place: &Place, text: &[u8]) -> Result<(), OciError> {
        place.begin(&self.stored)?;
        let copy = place.dir.join(CONFIG);
        std::fs::write(&copy, text).map_err(call(format!("write {}", copy.display())))
    }

    /// Keeps and tells what is known of a process that is ready.
    fn settle(&mut self, place: &Place, launched: &Launched) -> Result<(), OciError> {
        if let Some(scheduler) = &self.process.scheduler {
            launched.schedule(&steps::schedule(scheduler)?)?;
        }
        self.stored.pid = launched.pid;
        self.stored.start_time = process_stat(launched.pid).map_or(0, |(_, start)| start);
        place.store(&self.stored)?;
        if let Some(path) = &self.create.pid_file {
            write_pid(path, launched.pid)?;
        }
        if let Some(path) = &self.create.pidfd_socket {
            send_pidfd(path, &launched.pidfd)?;
        }
        Ok(())
    }

    /// Files that the container's own hooks read the state from.
    fn hook_states(&self) -> Result<Option<(OwnedFd, OwnedFd)>, OciError> {
        let hooks = &self.config.hooks;
        if hooks.create_container.is_empty() && hooks.start_container.is_empty() {
            return Ok(None);
        }
        let file = || {
            let flags = rustix::fs::MemfdFlags::CLOEXEC;
            rustix::fs::memfd_create("state", flags).map_err(call("make a file in memory"))
        };
        Ok(Some((file()?, file()?)))
    }

    fn run_hooks(&self, pid: i32, states: Option<&(OwnedFd, OwnedFd)>) -> Result<(), OciError> {
        let mut stored = self.stored.clone();
        stored.pid = pid;
        if let Some((creating, created)) = states {
            for (file, status) in [(creating, Status::Creating), (created, Status::Created)] {
                let text = state_text(&stored, status);
                rustix::io::pwrite(file, &text, 0).map_err(call("write the state for hooks"))?;
            }
        }
        let text = state_text(&stored, Status::Creating);
        hooks::run("prestart", &self.config.hooks.prestart, &text)?;
        hooks::run("createRuntime", &self.config.hooks.create_runtime, &text)
    }
}

/// The state as hooks read it.
pub(super) fn state_text(stored: &Stored, status: Status) -> Vec<u8> {
    // Plain data of strings and numbers cannot fail to be written.
    serde_json::to_vec(&stored.shown(status, "")).unwrap_or_default()
}

/// How many descriptors a service manager passed on (sd_listen_fds(3)).
pub(super) fn listen_fds() -> u32 {
    std::env::var("LISTEN_FDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .filter(|count| *count < 1024)
        .unwrap_or(0)
}

/// The socket at which the process waits for its start. Its path may be longer than an address holds.
fn listen(dir: &Path) -> Result<OwnedFd, OciError> {
    let words = || format!("listen at {}", dir.join(START_SOCKET).display());
    let kind = SocketType::SEQPACKET;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)
        .map_err(call(words()))?;
    with_start_address(dir, |address| {
        rustix::net::bind(&socket, address)?;
        rustix::net::listen(&socket, 1)
    })
    .map_err(call(words()))?;
    Ok(socket)
}

/// Calls `then` with the address of the start socket of `dir`.
pub(super) fn with_start_address<T>(
    dir: &Path,
    then: impl FnOnce(&SocketAddrUnix) -> Result<T, rustix::io::Errno>,
) -> Result<T, rustix::io::Errno> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(dir, flags, Mode::empty())?;
    let short = format!("/proc/self/fd/{}/{START_SOCKET}", opened.as_raw_fd());
    then(&SocketAddrUnix::new(short)?)
}

/// Writes a process id, whole or not at all.
pub(super) fn write_pid(path: &Path, pid: i32) -> Result<(), OciError> {
    let words = || format!("write the pid file {}", path.display());
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let new = path.with_file_name(format!(".{name}"));
    std::fs::write(&new, pid.to_string()).map_err(call(words()))?;
    std::fs::rename(&new, path).map_err(call(words()))
}

/// `create`.
///
/// # Errors
/// Whatever stands in the way; nothing is left then.
pub fn create(global: &Global, create: &Create) -> Result<(), OciError> {
    let loaded = load(&create.bundle)?;
    let made = make(global, create, loaded, Start::Later, true)?;
    made.launched
        .release()
        .1
        .map_err(call("keep the process"))?;
    Ok(())
}
