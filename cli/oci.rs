//! `gantry oci`: the command line that engines such as containerd and podman run, as runc takes it.
//!
//! It only translates: [`gantry_isolation::oci`] does. The role is told by the first argument or, for
//! engines that take one executable, by the name of the program: `gantry-oci…` or `runc`.
//! Invariant: nothing stays open and no thread is started before inherited descriptors were closed.

mod args;
mod exec;
mod quick;
mod table;
mod update;

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use gantry_isolation::oci::{self, Log, LogFormat, OciError};

use args::{Cli, Command, CreateArgs, Form};

/// First argument of the role.
const ROLE: &str = "oci";
/// Where containers' state is kept unless `--root` says otherwise.
const DEFAULT_ROOT: &str = "/run/gantry-oci";

/// The arguments, with the program's name first, when this process is in the role.
pub(crate) fn arguments() -> Option<Vec<OsString>> {
    let mut args: Vec<OsString> = std::env::args_os().collect();
    let name = args.first().map(Path::new).and_then(Path::file_name)?;
    let name = name.to_string_lossy();
    if name == "runc" || name.starts_with("gantry-oci") {
        return Some(args);
    }
    if args.get(1).is_some_and(|role| role == ROLE) {
        args.remove(0);
        args[0] = OsString::from("gantry-oci");
        return Some(args);
    }
    None
}

/// Runs one command to its end.
pub(crate) fn main(args: Vec<OsString>) -> ExitCode {
    let name = args.first().map(Path::new).and_then(Path::file_name);
    let name = name.unwrap_or_default().to_string_lossy().into_owned();
    let cli = match quick::parse(&args).map_or_else(|| Cli::try_parse_from(args), Ok) {
        Ok(cli) => cli,
        Err(error) => {
            let shown = matches!(
                error.kind(),
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
            );
            // Nobody to tell if stdout is gone.
            let _ = error.print();
            return if shown {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            };
        }
    };
    if cli.version {
        return version(&name);
    }
    let log = Log {
        file: cli.global.log.clone(),
        format: match cli.global.log_format {
            Form::Text => LogFormat::Text,
            Form::Json => LogFormat::Json,
        },
    };
    let global = oci::Global {
        root: cli
            .global
            .root
            .clone()
            .unwrap_or_else(|| DEFAULT_ROOT.into()),
        log,
        systemd_cgroup: cli.global.systemd_cgroup,
    };
    let Some(command) = cli.command else {
        return ExitCode::FAILURE;
    };
    let program = command.name();
    match run(&global, command) {
        Ok(status) => {
            // Everything is closed; what the libraries would tidy up goes with the process.
            let _ = std::io::stdout().flush();
            oci::leave(status)
        }
        Err(error) => {
            let words = oci::whole(&error);
            global.log.error(&match error {
                OciError::Start(_) => format!("runc {program} failed: {words}"),
                _ => words,
            });
            ExitCode::from(if program == "exec" { 255 } else { 1 })
        }
    }
}

fn version(name: &str) -> ExitCode {
    let text = format!(
        "{name} version {}\nspec: {}\n",
        env!("CARGO_PKG_VERSION"),
        oci::config::SPEC_VERSION
    );
    print(&text);
    ExitCode::SUCCESS
}

fn print(text: &str) {
    // Nobody to tell if stdout is gone.
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// The only argument of a command, in runc's words if it is another number.
fn one(command: &str, args: &[String]) -> Result<String, OciError> {
    match args {
        [id] => Ok(id.clone()),
        _ => Err(refuse(format!(
            "gantry-oci: \"{command}\" requires exactly 1 argument(s)"
        ))),
    }
}

fn refuse(words: impl Into<String>) -> OciError {
    OciError::Refused(words.into())
}

/// Before a process enters a container.
fn prepare(preserved: u32) {
    oci::protect();
    oci::close_inherited(preserved);
}

fn run(global: &oci::Global, command: Command) -> Result<u8, OciError> {
    match command {
        Command::Create(args) => {
            let create = create("create", args)?;
            prepare(create.preserve_fds);
            oci::create(global, &create)?;
        }
        Command::Run(args) => {
            let create = create("run", args.create)?;
            // It runs from a view of itself only if the container needs it to.
            oci::close_inherited(create.preserve_fds);
            let run = oci::Run {
                create,
                detach: args.detach,
                keep: args.keep,
            };
            return oci::run(global, &run);
        }
        Command::Start { id } => oci::start(global, &one("start", &id)?)?,
        Command::State { id } => {
            print(&format!("{}\n", oci::state(global, &one("state", &id)?)?));
        }
        Command::Kill { all, args } => {
            let (id, signal) = match args.as_slice() {
                [id] => (id, "SIGTERM"),
                [id, signal] => (id, signal.as_str()),
                _ => {
                    return Err(refuse(
                        "gantry-oci: \"kill\" requires a minimum of 1 argument(s)",
                    ));
                }
            };
            oci::kill(global, id, signal_number(signal)?, all)?;
        }
        Command::Delete { force, id } => oci::delete(global, &one("delete", &id)?, force)?,
        Command::Exec(args) => {
            oci::protect();
            // It reads the process, perhaps from an inherited descriptor.
            let exec = exec::translate(*args)?;
            oci::close_inherited(exec.preserve_fds);
            return oci::exec(global, &exec);
        }
        Command::Ps { format, args } => return table::ps(global, &format, &args),
        Command::List { format, quiet } => table::list(global, &format, quiet)?,
        Command::Pause { id } => oci::pause(global, &one("pause", &id)?)?,
        Command::Resume { id } => oci::resume(global, &one("resume", &id)?)?,
        Command::Update(args) => {
            let id = one("update", &args.id)?;
            oci::update(global, &id, update::translate(*args)?)?;
        }
        Command::Features => print(&format!("{:#}\n", oci::features())),
        Command::Spec { bundle, rootless } => {
            oci::write_spec(&bundle.unwrap_or_else(|| ".".into()), rootless)?;
        }
        Command::Events {
            stats,
            interval,
            id,
        } => table::events(global, stats, &interval, &one("events", &id)?)?,
    }
    Ok(0)
}

fn create(command: &str, args: CreateArgs) -> Result<oci::Create, OciError> {
    Ok(oci::Create {
        id: one(command, &args.id)?,
        bundle: args.bundle.unwrap_or_else(|| ".".into()),
        console_socket: args.console_socket,
        pid_file: args.pid_file,
        pidfd_socket: args.pidfd_socket,
        no_pivot: args.no_pivot,
        no_new_keyring: args.no_new_keyring,
        preserve_fds: args.preserve_fds,
    })
}

/// A signal by number or by name, with or without `SIG`.
fn signal_number(text: &str) -> Result<i32, OciError> {
    const NAMES: [(&str, i32); 36] = [
        ("HUP", 1),
        ("INT", 2),
        ("QUIT", 3),
        ("ILL", 4),
        ("TRAP", 5),
        ("ABRT", 6),
        ("IOT", 6),
        ("BUS", 7),
        ("FPE", 8),
        ("KILL", 9),
        ("USR1", 10),
        ("SEGV", 11),
        ("USR2", 12),
        ("PIPE", 13),
        ("ALRM", 14),
        ("TERM", 15),
        ("STKFLT", 16),
        ("CHLD", 17),
        ("CLD", 17),
        ("CONT", 18),
        ("STOP", 19),
        ("TSTP", 20),
        ("TTIN", 21),
        ("TTOU", 22),
        ("URG", 23),
        ("XCPU", 24),
        ("XFSZ", 25),
        ("VTALRM", 26),
        ("PROF", 27),
        ("WINCH", 28),
        ("IO", 29),
        ("POLL", 29),
        ("PWR", 30),
        ("SYS", 31),
        ("UNUSED", 31),
        ("RTMIN", 34),
    ];
    let unknown = || refuse(format!("unknown signal {text:?}"));
    if let Ok(number) = text.parse::<i32>() {
        return if (0..=64).contains(&number) {
            Ok(number)
        } else {
            Err(unknown())
        };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    // SIGRTMIN+3 and SIGRTMAX-1 as kill(1) has them.
    let offset = |base: i32, rest: &str| rest.parse::<i32>().ok().map(|rest| base + rest);
    let real_time = name
        .strip_prefix("RTMIN+")
        .and_then(|rest| offset(34, rest))
        .or_else(|| {
            name.strip_prefix("RTMAX").and_then(|rest| match rest {
                "" => Some(64),
                rest => offset(64, rest),
            })
        });
    let named = NAMES.iter().find(|(known, _)| *known == name);
    named
        .map(|(_, number)| *number)
        .or(real_time)
        .filter(|number| (1..=64).contains(number))
        .ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, number) in [
            ("9", 9),
            ("KILL", 9),
            ("sigterm", 15),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("0", 0),
        ] {
            assert_eq!(signal_number(text).unwrap(), number, "{text}");
        }
        for text in ["65", "-1", "NOPE", "", "RTMIN+99"] {
            assert!(signal_number(text).is_err(), "{text}");
        }
    }
}
