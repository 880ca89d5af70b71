//! Executors of frameworks' own, between the core and everything else: launches from the wire, calls
//! from their programs, what they are told, what their containers are given.
//!
//! It decides which calls are let through to the core, in Mesos's order and with its answers
//! (`Http::executor` in `src/slave/http.cpp`); the core decides what they come to.

use gantry_agent_core::{
    CustomLaunch, CustomView, Event as Change, ExecutorCall, ExecutorKey, UpdateRefusal,
};
use gantry_isolation::keeper::Request;
use gantry_isolation::spec::{ContainerId as KeeperContainer, ContainerSpec, Mount};
use gantry_wire::agent::{
    ExecutorEnded, ExecutorMessage, Launch, LaunchCustom, LimitsMessage, ResourcesMessage,
    from_agent,
};
use gantry_wire::ids::TaskId;
use gantry_wire::mesos::v1::executor::{Call, Event as ToExecutor, call, event};
use gantry_wire::mesos::{commands, v1};
use gantry_wire::resources::Resources;
use gantry_wire::task::Reason;

use super::Daemon;
use super::launch::{checked_task_id, key, mint_container};
use crate::container;
use crate::executors::environment::{self, DOOR_TARGET};
use crate::executors::token::Claims;
use crate::executors::{Executors, Stranger};
use crate::http::executor::{Answer, ExecutorAsk, Refused};

impl Daemon {
    pub(super) fn launch_custom(&mut self, wanted: LaunchCustom) {
        let names: Vec<&str> = wanted
            .tasks
            .iter()
            .map(|it| it.task_id.value.as_str())
            .collect();
        if self.drops(&names) {
            return;
        }
        let Some(agent) = self.taking().cloned() else {
            tracing::debug!("tasks are not launched: this agent is stopping");
            return;
        };
        let reason = if wanted.group {
            Reason::ReasonTaskGroupInvalid
        } else {
            Reason::ReasonTaskInvalid
        };
        let tasks = wanted.tasks.clone();
        let placed = order(wanted).and_then(|mut order| {
            order.container = mint_container().map_err(|error| error.to_string())?;
            let (framework, id) = (&order.executor.framework, &order.executor.executor);
            let sandbox = self.layout.sandbox(&agent, framework, id, &order.container);
            order.sandbox = sandbox.to_string_lossy().into_owned();
            Ok(order)
        });
        match placed {
            Ok(order) => self.step(Change::LaunchCustom(Box::new(order))),
            Err(why) => {
                for task in tasks {
                    let launch = Launch {
                        task_id: task.task_id.value,
                        ..Launch::default()
                    };
                    self.refuse(&launch, reason, why.clone());
                }
            }
        }
    }

    pub(super) fn tell_executor(&mut self, message: ExecutorMessage) {
        match key(&message.framework_id, &message.executor_id) {
            Ok(executor) => self.step(Change::ExecutorCall {
                executor,
                call: ExecutorCall::Told(message.data),
            }),
            Err(why) => tracing::debug!("a message to an executor: {why}"),
        }
    }

    pub(super) fn executor_called(&mut self, ask: ExecutorAsk) {
        let answer = self.hear_executor(&ask);
        // Nobody may be waiting any more.
        let _ = ask.reply.send(answer);
    }

    fn hear_executor(&mut self, ask: &ExecutorAsk) -> Result<Answer, Refused> {
        if !self.swept || self.identity.get().is_none() {
            return Err(Refused::Unavailable("Agent has not finished recovery"));
        }
        let call = &*ask.call;
        let unknown = |what: &str| Refused::BadRequest(format!("{what} cannot be found"));
        let executor = key(&call.framework_id.value, &call.executor_id.value);
        let executor = executor.map_err(Refused::BadRequest)?;
        let custom = self.tasks.custom(&executor);
        let custom = custom.ok_or_else(|| unknown("Framework or executor"))?;
        Executors::identify(&ask.caller, &custom).map_err(|stranger| match stranger {
            Stranger::Other => Refused::Forbidden("The token or socket is another executor's"),
            Stranger::Nobody => Refused::Unauthorized,
        })?;
        if call.r#type() == call::Type::Subscribe {
            if !custom.runs {
                return Err(unknown("Executor"));
            }
            let events = self.executors.subscribe(&executor, ask.encoding);
            let call = subscribe(call);
            self.step(Change::ExecutorCall {
                executor: executor.clone(),
                call,
            });
            return Ok(Answer::Subscribed(executor, events));
        }
        if !custom.is_subscribed || !self.executors.is_subscribed(&executor) {
            return Err(Refused::Forbidden("Executor is not subscribed"));
        }
        let said = match (&call.update, &call.message) {
            (Some(update), _) if call.r#type() == call::Type::Update => {
                let checked = self.tasks.check_update(&executor, &update.status);
                checked.map_err(refused)?;
                ExecutorCall::Update(Box::new(update.status.clone()))
            }
            (_, Some(message)) => ExecutorCall::Message(message.data.clone()),
            _ => return Err(Refused::NotImplemented),
        };
        self.step(Change::ExecutorCall {
            executor,
            call: said,
        });
        Ok(Answer::Accepted)
    }

    pub(super) fn executor_lost(&mut self, executor: &ExecutorKey, number: u64) {
        if self.executors.lost(executor, number) {
            self.step(Change::ExecutorCall {
                executor: executor.clone(),
                call: ExecutorCall::Unsubscribe,
            });
        }
    }

    /// One that is to end hears that first, and nothing else.
    pub(super) fn welcome(&mut self, executor: &ExecutorKey, closing: bool) {
        self.executors.turn_over(executor);
        let Some(custom) = self.tasks.custom(executor).filter(|_| !closing) else {
            return;
        };
        let subscribed = event::Subscribed {
            executor_info: custom.info.clone(),
            framework_info: custom.framework.clone(),
            agent_info: self.agent_info(),
            container_id: Some(custom.process.container.into()),
        };
        let event = ToExecutor {
            r#type: Some(event::Type::Subscribed as i32),
            subscribed: Some(subscribed.into()),
            ..ToExecutor::default()
        };
        self.deliver(executor, &event);
    }

    fn agent_info(&self) -> v1::AgentInfo {
        self.facts.agent_info(self.identity.get())
    }

    /// One that does not read has to subscribe again.
    pub(super) fn deliver(&mut self, executor: &ExecutorKey, event: &ToExecutor) {
        if !self.executors.deliver(executor, event) {
            tracing::warn!(%executor, "does not read its events: cut off");
            self.step(Change::ExecutorCall {
                executor: executor.clone(),
                call: ExecutorCall::Unsubscribe,
            });
        }
    }

    pub(super) fn resize(&mut self, executor: &ExecutorKey) {
        let Some(custom) = self.tasks.custom(executor) else {
            return;
        };
        let none = ResourcesMessage::default();
        let resources = custom.process.launch.resources.as_ref().unwrap_or(&none);
        let limits = Box::new(container::limits(resources, LimitsMessage::default()));
        let id = KeeperContainer::try_from(custom.process.container.as_str());
        let asked = id.map_err(|error| error.to_string()).and_then(|id| {
            let asked = self.keeper.request(&Request::Update { id, limits }, &[]);
            asked.map_err(|error| crate::chain(&error))
        });
        if let Err(cause) = asked {
            self.step(Change::Resized {
                executor: executor.clone(),
                result: Err(cause),
            });
        }
    }

    /// The keeper changed a container, or would not.
    pub(super) fn resized(&mut self, container: &str, result: Result<(), String>) {
        let process = TaskId::parse(container).ok();
        let custom = process.and_then(|process| self.tasks.custom_of(&process));
        if let Some(executor) = custom.map(|custom| custom.key.clone()) {
            self.step(Change::Resized { executor, result });
        }
    }

    /// Only while there is more room than the other half of the queue, which is for what must not
    /// be lost: an executor that floods its framework must not cost the agent its connection.
    pub(super) fn tell_message(&mut self, executor: &ExecutorKey, data: Vec<u8>) {
        let outbound = self.session.outbound.as_ref();
        let room = outbound.is_some_and(|it| it.capacity() > it.max_capacity() / 2);
        if !room || !self.session.registered {
            tracing::debug!(%executor, "its message to its framework is lost");
            return;
        }
        self.say(from_agent::Kind::ExecutorMessage(ExecutorMessage {
            framework_id: executor.framework.to_string(),
            executor_id: executor.executor.to_string(),
            data,
        }));
    }

    pub(super) fn tell_ended(&mut self, executor: &ExecutorKey, status: i32) {
        if self.session.registered {
            self.say(from_agent::Kind::ExecutorEnded(ExecutorEnded {
                framework_id: executor.framework.to_string(),
                executor_id: executor.executor.to_string(),
                status,
            }));
        }
    }
}

/// Adds to the container of an executor what only those have: its environment and its door.
pub(super) fn furnish(
    spec: &mut ContainerSpec,
    custom: &CustomView<'_>,
    executors: &mut Executors,
) -> Result<(), String> {
    let container = custom.process.container;
    let sandbox = std::path::Path::new(custom.process.sandbox);
    crate::sandboxes::mark_custom(sandbox)
        .map_err(|error| format!("marking the sandbox: {error}"))?;
    let door = executors.open(container, sandbox);
    let door = door.map_err(|error| format!("making the executor's socket: {error}"))?;
    spec.mounts.push(Mount::bind(door, DOOR_TARGET, true));
    let token = executors.tokens.sign(&Claims::of(custom.key, container));
    let env = std::mem::take(&mut spec.env);
    spec.env = environment::of(env, custom, &executors.of_node, token);
    spec.check().map_err(|error| error.to_string())
}

/// A SUBSCRIBE for the core; what names no task that could be ours is left out.
fn subscribe(call: &Call) -> ExecutorCall {
    let subscribe = call.subscribe.clone().unwrap_or_default();
    let tasks = subscribe.unacknowledged_tasks.iter();
    let id = |info: &v1::TaskInfo| TaskId::parse(info.task_id.value.as_str()).ok();
    let updates = subscribe.unacknowledged_updates.into_iter();
    ExecutorCall::Subscribe {
        tasks: tasks.filter_map(id).collect(),
        updates: updates.map(|update| update.status).collect(),
    }
}

fn refused(refusal: UpdateRefusal) -> Refused {
    match refusal {
        UpdateRefusal::Full => {
            Refused::Unavailable("Too many updates of the executor wait for the coordinator")
        }
        other => Refused::BadRequest(other.to_string()),
    }
}

/// From the wire; container and sandbox are yet to be named.
fn order(wanted: LaunchCustom) -> Result<CustomLaunch, String> {
    let framework = *wanted.framework.ok_or("a launch without its framework")?;
    let mut info = *wanted.executor.ok_or("a launch without its executor")?;
    if wanted.tasks.is_empty() {
        return Err("a launch without tasks".to_owned());
    }
    let framework_id = framework.id.clone().unwrap_or_default();
    let executor = key(&framework_id.value, &info.executor_id.value)?;
    if info.r#type() == v1::executor_info::Type::Default {
        return Err("the executor is not one of the framework's own".to_owned());
    }
    info.framework_id = Some(framework_id);
    let process = commands::of_executor(&info, &framework.user);
    let mut process = process.map_err(|why| format!("the executor: {why}"))?;
    process.framework_id = executor.framework.to_string();
    process.executor_id = executor.executor.to_string();
    let mut sum = Resources::from(&process.resources.take().unwrap_or_default());
    let mut tasks = Vec::new();
    for task in wanted.tasks {
        let id = checked_task_id(&task.task_id.value)?;
        let resources = commands::resources(&task.resources);
        let resources = resources.map_err(|why| format!("{id}: {why}"))?;
        sum.add(&Resources::from(&resources));
        tasks.push((id, task));
    }
    process.resources = Some(ResourcesMessage::from(&sum));
    container::check(&process).map_err(|why| format!("the executor: {why}"))?;
    Ok(CustomLaunch {
        executor,
        framework,
        info,
        process,
        container: mint_container().map_err(|error| error.to_string())?,
        sandbox: String::new(),
        tasks,
        group: wanted.group,
    })
}
