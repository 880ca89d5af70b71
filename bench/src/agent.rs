//! An agent in a process and a directory of its own, and a coordinator of a few lines that drives it:
//! it registers the agent, acknowledges what it hears and says what the suite tells it to.
//!
//! It decides nothing about what is measured. Dropping it ends the agent with all its tasks.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use gantry_agent::Config;
use gantry_wire::agent::{
    Acknowledge, FRAME_MAX_BYTES, FromAgent, HEARTBEAT_MS, Register, Registered, StatusUpdate,
    ToAgent, from_agent, to_agent,
};
use prost::Message as _;
use tokio::signal::unix::{SignalKind, signal};

/// The hidden first argument.
pub(crate) const ROLE: &str = "agent-alone";
/// How long the agent may be silent while something is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// The role `agent-alone DATA_DIR SOCKET`: until SIGTERM, which ends all tasks.
pub(crate) fn main(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    let (Some(dir), Some(socket)) = (args.next(), args.next()) else {
        return ExitCode::FAILURE;
    };
    match serve(PathBuf::from(dir), PathBuf::from(socket)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(dir: PathBuf, socket: PathBuf) -> anyhow::Result<()> {
    // As `gantry dev` has it.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut config = Config::new(dir, std::env::current_exe()?);
        config.http.set_port(0);
        let connect = move || tokio::net::UnixStream::connect(socket.clone());
        let running = gantry_agent::start(config, connect).await?;
        signal(SignalKind::terminate())?.recv().await;
        let failures = running.stop_tasks().await;
        ensure!(failures.is_empty(), "{failures:?}");
        Ok(())
    })
}

/// A process that ends, with all its tasks, when it is dropped.
struct Process(Child);

/// A running agent, registered.
pub(crate) struct Agent {
    dir: PathBuf,
    socket: PathBuf,
    listener: UnixListener,
    process: Process,
    /// What it registered with.
    pub(crate) registered: Register,
    stream: Arc<Mutex<UnixStream>>,
    heard: mpsc::Receiver<StatusUpdate>,
}

impl Agent {
    /// Starts one, of this very program, on `dir`, whose images may be there already.
    pub(crate) fn start(dir: &Path, socket: &Path) -> anyhow::Result<Self> {
        Self::start_at(UnixListener::bind(socket)?, dir, socket)
    }

    /// Kills it with SIGKILL, and starts another one in its place. Its tasks run on.
    pub(crate) fn crash(self) -> anyhow::Result<Self> {
        let Self {
            dir,
            socket,
            listener,
            mut process,
            ..
        } = self;
        process.0.kill()?;
        process.0.wait()?;
        Self::start_at(listener, &dir, &socket)
    }

    fn start_at(listener: UnixListener, dir: &Path, socket: &Path) -> anyhow::Result<Self> {
        let child = Command::new(std::env::current_exe()?)
            .arg(ROLE)
            .args([dir, socket])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        let process = Process(child);
        let (mut stream, _) = listener.accept()?;
        // Heartbeats may come before it.
        let first = loop {
            match read(&mut stream)? {
                Some(FromAgent { kind: None }) => {}
                other => break other.and_then(|message| message.kind),
            }
        };
        let Some(from_agent::Kind::Register(registered)) = first else {
            bail!("the agent began with {first:?}");
        };
        let writer = Arc::new(Mutex::new(stream.try_clone()?));
        let (told, heard) = mpsc::channel();
        let (ours, theirs) = (Arc::clone(&writer), Arc::clone(&writer));
        std::thread::spawn(move || listen(stream, &ours, &told));
        std::thread::spawn(move || {
            while write(&theirs, None).is_ok() {
                std::thread::sleep(Duration::from_millis(HEARTBEAT_MS));
            }
        });
        let agent = Self {
            dir: dir.to_owned(),
            socket: socket.to_owned(),
            listener,
            process,
            registered,
            stream: writer,
            heard,
        };
        agent.say(to_agent::Kind::Registered(Registered {
            agent_id: "S0".to_owned(),
            cluster_id: "bench".to_owned(),
        }))?;
        Ok(agent)
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> anyhow::Result<i32> {
        Ok(i32::try_from(self.process.0.id())?)
    }

    /// Its data.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Tells it something.
    pub(crate) fn say(&self, kind: to_agent::Kind) -> anyhow::Result<()> {
        write(&self.stream, Some(kind))
    }

    /// The next status update; it is acknowledged already.
    pub(crate) fn next(&self) -> anyhow::Result<StatusUpdate> {
        let heard = self.heard.recv_timeout(PATIENCE);
        heard.context("the agent says nothing more")
    }

    /// Ends it with its tasks.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        let status = self.process.end()?;
        ensure!(status.success(), "the agent ended with {status}");
        Ok(())
    }
}

impl Process {
    fn end(&mut self) -> anyhow::Result<std::process::ExitStatus> {
        if let Some(status) = self.0.try_wait()? {
            return Ok(status);
        }
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.0.id())?);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
        Ok(self.0.wait()?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that is gone already needs no end.
        let _ = self.end();
    }
}

/// Passes status updates on, each acknowledged, until the connection ends.
fn listen(mut stream: UnixStream, answer: &Mutex<UnixStream>, told: &mpsc::Sender<StatusUpdate>) {
    while let Ok(Some(message)) = read(&mut stream) {
        let Some(from_agent::Kind::Status(update)) = message.kind else {
            continue;
        };
        let acknowledge = to_agent::Kind::Acknowledge(Acknowledge {
            task_id: update.task_id.clone(),
            uuid: update.uuid.clone(),
        });
        if write(answer, Some(acknowledge)).is_err() || told.send(update).is_err() {
            return;
        }
    }
}

/// One frame; None at the end of the connection.
fn read(stream: &mut UnixStream) -> anyhow::Result<Option<FromAgent>> {
    let mut length = [0; 4];
    if stream.read_exact(&mut length).is_err() {
        return Ok(None);
    }
    let length = usize::try_from(u32::from_be_bytes(length))?;
    ensure!(length <= FRAME_MAX_BYTES, "a frame of {length} bytes");
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes)?;
    Ok(Some(FromAgent::decode(&bytes[..])?))
}

fn write(stream: &Mutex<UnixStream>, kind: Option<to_agent::Kind>) -> anyhow::Result<()> {
    let bytes = ToAgent { kind }.encode_to_vec();
    let mut frame = u32::try_from(bytes.len())?.to_be_bytes().to_vec();
    frame.extend(bytes);
    let Ok(mut stream) = stream.lock() else {
        bail!("another thread broke off");
    };
    Ok(stream.write_all(&frame)?)
}
