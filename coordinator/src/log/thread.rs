//! The thread that owns the log: it takes everything that is queued, writes it as one batch with
//! one sync (group commit), and reports. While the disk works on one batch the next one collects.
//!
//! Invariants: requests are carried out in order; a ticket is reported only when its entries and
//! those of all earlier tickets are durable; after a failure nothing is reported as durable any
//! more. A request without `sync` (a new commit index) is reported at once and gets durable with
//! the next batch: raft does not need it earlier.
//!
//! The queue is bounded by its user: consensus keeps a fixed number of tickets in flight.

use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;

use super::{BATCH_MAX_BYTES, Disk, Entry, Files, HardState, Log, LogError, Recovered};

/// What consensus asks of the log.
#[derive(Debug)]
pub(crate) enum Request {
    /// Make these durable, then report the ticket. Tickets rise.
    Append {
        ticket: u64,
        entries: Vec<Entry>,
        hard_state: Option<HardState>,
        sync: bool,
    },
    /// Entries up to this index are in a durable snapshot.
    Compact { index: u64 },
}

/// What the log tells consensus.
#[derive(Debug)]
pub(crate) enum Report {
    /// Everything up to this ticket is durable.
    Durable { ticket: u64 },
    /// The disk refused; the log takes nothing more.
    Failed(LogError),
}

/// The running thread. Dropping it without [`LogThread::stop`] ends it after what is queued.
pub(crate) struct LogThread {
    requests: Option<Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

/// Makes the disk on the log's own thread: an io_uring belongs to the thread that opened it.
pub(crate) type MakeDisk = Box<dyn FnOnce() -> std::io::Result<Box<dyn Disk>> + Send>;

/// The log's real disk.
pub(crate) fn real_disk(directory: &Path) -> MakeDisk {
    let directory = directory.to_owned();
    Box::new(move || Ok(Box::new(Files::open(&directory, true)?)))
}

impl LogThread {
    /// Opens the log on its own thread and answers with what was found.
    ///
    /// # Errors
    /// Those of [`Log::open`], `List` when the disk cannot be opened.
    pub(crate) fn start(
        make_disk: MakeDisk,
        snapshot_index: u64,
        fresh_salt: u32,
        report: impl Fn(Report) + Send + 'static,
    ) -> Result<(Self, Recovered), LogError> {
        let (requests, inbox) = mpsc::channel();
        let (opened, answer) = mpsc::sync_channel(1);
        let body = move || {
            let log = make_disk()
                .map_err(LogError::List)
                .and_then(|disk| Log::open(disk, snapshot_index, fresh_salt));
            match log {
                Ok((log, recovered)) => {
                    if opened.send(Ok(recovered)).is_ok() {
                        run(log, &inbox, &report);
                    }
                }
                // The starter waits for this answer, so it is there.
                Err(error) => drop(opened.send(Err(error))),
            }
        };
        let thread = std::thread::Builder::new()
            .name("gantry-log".to_owned())
            .spawn(body)
            .map_err(LogError::Thread)?;
        let recovered = answer.recv().map_err(|_| LogError::Gone)??;
        Ok((
            Self {
                requests: Some(requests),
                thread: Some(thread),
            },
            recovered,
        ))
    }

    /// Queues a request.
    ///
    /// # Errors
    /// `Gone` when the thread has ended.
    pub(crate) fn send(&self, request: Request) -> Result<(), LogError> {
        let requests = self.requests.as_ref().ok_or(LogError::Gone)?;
        requests.send(request).map_err(|_| LogError::Gone)
    }

    /// Carries out what is queued and ends the thread.
    pub(crate) fn stop(&mut self) {
        drop(self.requests.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the log panicked");
        }
    }
}

/// What was taken from the queue for one write.
#[derive(Default)]
struct Group {
    entries: Vec<Entry>,
    bytes: usize,
    hard_state: Option<HardState>,
    sync: bool,
    ticket: Option<u64>,
    compact: Option<u64>,
}

impl Group {
    fn add(&mut self, request: Request) {
        match request {
            Request::Append {
                ticket,
                entries,
                hard_state,
                sync,
            } => {
                self.bytes += entries.iter().map(|entry| entry.data.len()).sum::<usize>();
                self.sync |= sync || !entries.is_empty();
                self.entries.extend(entries);
                self.hard_state = hard_state.or(self.hard_state);
                self.ticket = Some(ticket);
            }
            Request::Compact { index } => self.compact = Some(index),
        }
    }
}

fn run(mut log: Log, inbox: &Receiver<Request>, report: &impl Fn(Report)) {
    let mut hard_state = log.hard_state();
    while let Ok(first) = inbox.recv() {
        let mut group = Group::default();
        group.add(first);
        while group.bytes < BATCH_MAX_BYTES
            && let Ok(next) = inbox.try_recv()
        {
            group.add(next);
        }
        hard_state = group.hard_state.unwrap_or(hard_state);
        if group.sync
            && let Err(error) = log.append(&group.entries, hard_state)
        {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "the log has failed"
            );
            report(Report::Failed(error));
            return;
        }
        if let Some(ticket) = group.ticket {
            report(Report::Durable { ticket });
        }
        if let Some(index) = group.compact
            && let Err(error) = log.compact(index)
        {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the log keeps old segments"
            );
        }
    }
    if hard_state != log.hard_state()
        && let Err(error) = log.append(&[], hard_state)
    {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "commit index not saved at stop"
        );
    }
}
