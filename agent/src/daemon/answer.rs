//! Answers the HTTP side: what is going on, and processes inside containers.
//!
//! Every answer goes into a oneshot channel; nobody may be waiting any more, which is fine.

use std::os::fd::AsFd as _;
use std::path::PathBuf;

use gantry_isolation::keeper::Request;
use gantry_wire::task::TaskState;

use super::Daemon;
use crate::gauge::Watched;
use crate::inbox::{Ask, AttachOrder, ExecOrder, ExecutorRow, Located, TaskRow, View};
use crate::sandboxes;

impl Daemon {
    pub(super) fn answer(&mut self, ask: Ask) {
        match ask {
            Ask::View(reply) => {
                let _ = reply.send(self.view());
            }
            Ask::Sandboxes(reply) => {
                let _ = reply.send(self.limited_sandboxes());
            }
            Ask::Task { container, reply } => {
                let found = self
                    .tasks
                    .containers()
                    .find(|(_, view)| view.container.as_str() == container);
                let found = found.map(|(id, view)| Located {
                    task: TaskRow::from(view),
                    executor: self
                        .tasks
                        .executor_of(id)
                        .map(|executor| executor.container.to_string()),
                });
                let _ = reply.send(found);
            }
            Ask::Attach(order) => self.attach(*order),
            Ask::WaitEnd { container, reply } => {
                self.ends.wait(container, reply);
                self.answer_ends();
            }
            Ask::Executor(ask) => self.executor_called(*ask),
            Ask::LaunchContainer { order, reply } => self.launch_container(*order, reply),
            Ask::WaitContainer { chain, reply } => self.wait_container(&chain, reply),
            Ask::KillContainer {
                chain,
                signo,
                reply,
            } => {
                let _ = reply.send(self.kill_container(&chain, signo));
            }
            Ask::RemoveContainer { chain, reply } => {
                let _ = reply.send(self.remove_container(&chain));
            }
            Ask::Exec(order) => self.exec(*order),
            Ask::KillExec { session, signo } => {
                if self.execs.is_running(&session) {
                    self.request(&Request::SignalExec { session, signo });
                }
            }
            Ask::WaitExec { session, reply } => self.execs.wait(&session, reply),
        }
    }

    /// Answers those who wait for what is over by now.
    pub(super) fn answer_ends(&mut self) {
        if self.ends.is_empty() {
            return;
        }
        let live = self.tasks.iter().map(|(_, view)| view);
        let live = live.filter(|view| !view.state.is_terminal());
        let tasks = live.map(|view| view.container.as_str());
        let executors = self.tasks.executors();
        let executors = executors.map(|executor| executor.container.as_str());
        self.ends.settle(&tasks.chain(executors).collect());
    }

    fn view(&self) -> View {
        View {
            agent_id: self.identity.get().map(ToString::to_string),
            registered: self.session.registered,
            keeper_up: self.keeper.is_up(),
            tasks: self
                .tasks
                .iter()
                .map(|(id, view)| TaskRow {
                    disk_used_bytes: self.disk_used.get(id).copied(),
                    ..TaskRow::from(view)
                })
                .collect(),
            executors: self.tasks.executors().map(ExecutorRow::from).collect(),
            launched: self.launched_rows(),
            finished_sandboxes: self.sandboxes.len(),
            execs: self.execs.len(),
            output: self.output,
        }
    }

    fn limited_sandboxes(&self) -> Vec<Watched> {
        let running = self
            .tasks
            .containers()
            .filter(|(_, view)| view.state == TaskState::TaskRunning);
        let limited = running.filter_map(|(id, view)| {
            Some(Watched {
                task: id.clone(),
                container: view.container.clone(),
                sandbox: PathBuf::from(view.sandbox),
                layer: self.layers.of(view.container.as_str()),
                pid: view.pid,
                limit_bytes: sandboxes::limit_bytes(view.launch)?,
            })
        });
        limited.collect()
    }

    /// Sends it to the keeper, which answers on a socket of the order's.
    fn attach(&mut self, order: AttachOrder) {
        let (id, now_ms) = (order.container, self.uptime_ms());
        self.execs.watch((&id, order.called), order.ended, now_ms);
        let fds: Vec<_> = order.fds.iter().map(|fd| fd.as_fd()).collect();
        if let Err(error) = self.keeper.request(&Request::Attach { id }, &fds) {
            tracing::warn!("asking for a terminal: {}", crate::chain(&error));
        }
    }

    fn exec(&mut self, order: ExecOrder) {
        let session = order.spec.session.clone();
        let now_ms = self.uptime_ms();
        if let Err(why) = self.execs.admit(&session, now_ms) {
            let _ = order.started.send(Err(why));
            return;
        }
        let (started, exited) = (order.started, order.exited);
        self.execs
            .begin(session.clone(), started, exited, order.kept);
        let fds: Vec<_> = order.fds.iter().map(|fd| fd.as_fd()).collect();
        let request = Request::Exec {
            exec: Box::new(order.spec),
        };
        if let Err(error) = self.keeper.request(&request, &fds) {
            self.execs.started(&session, Err(crate::chain(&error)));
        }
    }
}
