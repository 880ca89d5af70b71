//! A command in a task's container, as one more process of it. Its output goes nowhere; what counts
//! is its exit status. One that takes too long is killed.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use gantry_agent_core::Found;
use gantry_isolation::keeper::ExecSpec;
use gantry_isolation::spec::{ContainerId, ExitStatus, SpecError};
use gantry_wire::check::CommandProbe;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{Prober, late};
use crate::execs;
use crate::inbox::{Ask, Event, ExecOrder, TaskRow};

const SIGKILL: i32 = 9;

/// Runs the command in the container of the task.
pub(super) async fn run(
    prober: &Prober,
    probe: &CommandProbe,
    row: &TaskRow,
    limit: Duration,
) -> Found {
    let spec = match spec(prober, probe, row).await {
        Ok(spec) => spec,
        Err(error) => return nothing(error.to_string()),
    };
    let session = spec.session.clone();
    let fds = match null().and_then(|fd| Ok(vec![fd.try_clone()?, fd.try_clone()?, fd])) {
        Ok(fds) => fds,
        Err(error) => {
            tracing::error!("/dev/null for a check: {error}");
            return Found::Unclear;
        }
    };
    let (started, is_started) = oneshot::channel();
    let (exited, status) = oneshot::channel();
    let order = ExecOrder {
        spec,
        fds,
        kept: false,
        started,
        exited,
    };
    let ask = |ask| prober.events.send(Event::Ask(ask));
    if ask(Ask::Exec(Box::new(order))).await.is_err() {
        return Found::Unclear;
    }
    let ended = async {
        match is_started.await {
            Ok(Ok(())) => {}
            Ok(Err(cause)) => return nothing(cause),
            Err(_) => return Found::Unclear,
        }
        match status.await {
            Ok(ExitStatus::Code(code)) => Found::Answer {
                value: code,
                passed: code == 0,
            },
            Ok(ExitStatus::Signal(signal)) => Found::Answer {
                value: 128 + signal,
                passed: false,
            },
            // The keeper is gone, and the task with it.
            Err(_) => Found::Unclear,
        }
    };
    match timeout(limit, ended).await {
        Ok(found) => found,
        Err(_) => {
            let signo = SIGKILL;
            let _ = ask(Ask::KillExec { session, signo }).await;
            late(limit)
        }
    }
}

fn nothing(cause: String) -> Found {
    Found::Nothing { cause }
}

fn null() -> io::Result<OwnedFd> {
    let file = OpenOptions::new().read(true).write(true).open("/dev/null");
    file.map(OwnedFd::from)
}

async fn spec(prober: &Prober, probe: &CommandProbe, row: &TaskRow) -> Result<ExecSpec, SpecError> {
    let inside = execs::inside(&prober.store, &prober.facts, &prober.node, row).await;
    let argv = if probe.shell.is_empty() {
        probe.args.clone()
    } else {
        vec!["/bin/sh".into(), "-c".into(), probe.shell.clone()]
    };
    Ok(ExecSpec {
        session: ContainerId::try_from(format!("check-{}", uuid::Uuid::new_v4()).as_str())?,
        id: ContainerId::try_from(row.container.as_str())?,
        argv,
        env: inside.env,
        cwd: Some(inside.cwd),
        user: inside.user,
        tty: false,
        window: None,
        capabilities: gantry_isolation::caps::default_set(),
    })
}
