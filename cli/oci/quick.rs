//! The command lines of `create` and `run`, without building the parser of every other command: that
//! takes longer than reading a configuration.
//!
//! It decides nothing: the flags are those of `args`, and what does not parse here, or asks for help,
//! is left to the whole parser, which also says what is wrong.

use std::ffi::{OsStr, OsString};

use clap::{Args, Parser};

use super::args::{Cli, Command, CreateArgs, Global, RunArgs};

/// Flags before the command that stand alone; all others have a value.
const ALONE: [&str; 2] = ["--debug", "--systemd-cgroup"];

/// One set of flags and nothing else.
#[derive(Parser)]
#[command(disable_help_flag = true)]
struct Only<A: Args> {
    #[command(flatten)]
    args: A,
}

fn only<A: Args>(args: &[OsString]) -> Option<A> {
    Only::try_parse_from(args).ok().map(|only| only.args)
}

/// What the whole parser would make of it, or None.
pub(super) fn parse(args: &[OsString]) -> Option<Cli> {
    let at = command(args)?;
    let (before, after) = args.split_at(at);
    let command = match after.first()?.to_str()? {
        "create" => Command::Create(only::<CreateArgs>(after)?),
        "run" => Command::Run(only::<RunArgs>(after)?),
        _ => return None,
    };
    Some(Cli {
        global: only::<Global>(before)?,
        version: false,
        command: Some(command),
    })
}

/// Where the command's name is.
fn command(args: &[OsString]) -> Option<usize> {
    let mut at = 1;
    loop {
        let word = args
            .get(at)
            .map(OsString::as_os_str)
            .and_then(OsStr::to_str)?;
        if !word.starts_with('-') {
            return Some(at);
        }
        let alone = ALONE.contains(&word) || word.contains('=');
        at += if alone { 1 } else { 2 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn it_reads_what_the_whole_parser_reads() {
        for line in [
            "gantry-oci run box",
            "gantry-oci --root /r --log=/l --log-format json --systemd-cgroup run -b /b -d box",
            "gantry-oci --debug --root=/r create --bundle /b --pid-file /p --console-socket /c \
             --preserve-fds 2 box",
            "gantry-oci run --keep --no-pivot --no-new-keyring -- box",
            "gantry-oci run",
        ] {
            let quick = parse(&words(line)).unwrap();
            let whole = Cli::try_parse_from(words(line)).unwrap();
            assert_eq!(format!("{quick:?}"), format!("{whole:?}"), "{line}");
        }
    }

    #[test]
    fn everything_else_is_left_to_the_whole_parser() {
        for line in [
            "gantry-oci",
            "gantry-oci --root",
            "gantry-oci -v",
            "gantry-oci run --help",
            "gantry-oci run -h",
            "gantry-oci --help run",
            "gantry-oci run --nope box",
            "gantry-oci --nope run box",
            "gantry-oci --log-format yaml run box",
            "gantry-oci state box",
            "gantry-oci --version run box",
        ] {
            assert!(parse(&words(line)).is_none(), "{line}");
        }
    }
}
