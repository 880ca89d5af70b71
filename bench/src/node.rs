//! Suite `agent`: a node's agent and its keeper under a coordinator that does nothing else. How soon
//! after its launch was sent a task is told to run and to have ended, one by one and many at once;
//! then a thousand that wait: how fast they start, what agent and keeper take for them in memory and
//! processor time, how soon an agent that was killed tells of all of them again, and what it gives
//! back once they are gone.
//!
//! The work is that of the Mesos baseline: `/bin/true` in a shell, on the host's files, each update
//! acknowledged. Mesos is not there as a peer. Times are those at the coordinator's end; memory is the
//! resident set of the agent's process, what lies in files (the program) and what does not apart.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use gantry_wire::agent::{Launch, to_agent};
use gantry_wire::task::TaskState;

use crate::Options;
use crate::agent::Agent;
use crate::report::{Better, Measured, OURS, Row, fnv};
use crate::root::make_root;
use crate::tasks::{
    all_removed, all_run, group_above, kill_all, passing, put_image, start_waiting, state,
};

/// How much is done.
#[derive(Clone, Copy, Debug)]
struct Amount {
    serial: usize,
    batch: usize,
    waiting: usize,
    /// How long processor time is looked at.
    idle: Duration,
}

const FULL: Amount = Amount {
    serial: 200,
    batch: 500,
    waiting: 1000,
    idle: Duration::from_secs(30),
};
const QUICK: Amount = Amount {
    serial: 3,
    batch: 10,
    waiting: 20,
    idle: Duration::from_millis(300),
};
/// After the last work, before an agent counts as idle.
const SETTLE: Duration = Duration::from_secs(3);
const SETTLE_QUICK: Duration = Duration::from_millis(100);

/// Runs the suite.
pub(crate) fn run(options: &Options) -> anyhow::Result<Measured> {
    let (amount, settle) = if options.quick {
        (QUICK, SETTLE_QUICK)
    } else {
        (FULL, SETTLE)
    };
    ensure!(
        options.wants_subject(OURS),
        "there is no other subject than {OURS}"
    );
    let dir = tempfile::tempdir()?;
    let rootfs = dir.path().join("rootfs");
    let programs = make_root(&rootfs)?;
    let data = dir.path().join("agent");
    put_image(&data, dir.path(), &rootfs)?;
    let agent = Agent::start(&data, &dir.path().join("socket"))?;
    let mut bench = Bench {
        amount,
        settle,
        rows: Vec::new(),
    };
    bench.idle(&agent, "without tasks")?;
    bench.serial(&agent)?;
    bench.batch(&agent)?;
    let agent = bench.waiting(agent)?;
    bench.idle(&agent, "after all tasks")?;
    agent.stop()?;
    Ok(Measured {
        suite: "agent",
        rows: bench.rows,
        left_out: Vec::new(),
        hash: fnv(&[&programs[..], b"none was lost"].concat()),
    })
}

struct Bench {
    amount: Amount,
    settle: Duration,
    rows: Vec<Row>,
}

/// When a task was told to be what.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    running: Option<Instant>,
    finished: Option<Instant>,
}

impl Bench {
    fn row(&mut self, case: &str, unit: &'static str, better: Better, value: f64) {
        let row = Row::new(case, OURS, unit, better, value, vec![value]);
        self.rows.push(row);
    }

    fn times(&mut self, case: &str, samples: Vec<f64>) {
        let mean = samples.iter().sum::<f64>() / samples.len() as f64;
        let row = Row::new(case, OURS, "ms", Better::Lower, mean, samples);
        self.rows.push(row);
    }

    /// Memory and processor time of an agent that has nothing to do.
    fn idle(&mut self, agent: &Agent, when: &str) -> anyhow::Result<()> {
        std::thread::sleep(self.settle);
        for (name, line) in [
            ("RSS", "VmRSS:"),
            ("RSS not of files", "RssAnon:"),
            ("RSS of files", "RssFile:"),
        ] {
            let kb = resident_kb(agent.pid()?, line)?;
            self.row(&format!("{name} {when}"), "KB", Better::Lower, kb);
        }
        let processes = node_processes(agent)?;
        let before = processor_time(&processes)?;
        let begin = Instant::now();
        std::thread::sleep(self.amount.idle);
        let used = processor_time(&processes)?.saturating_sub(before);
        let share = used.as_secs_f64() / begin.elapsed().as_secs_f64() * 100.0;
        let case = format!("processor time {when}");
        self.row(&case, "% of a core", Better::Lower, share);
        Ok(())
    }

    /// One after the other, the next when the last has ended.
    fn serial(&mut self, agent: &Agent) -> anyhow::Result<()> {
        let (mut running, mut finished) = (Vec::new(), Vec::new());
        for number in 0..self.amount.serial {
            let id = format!("serial.{number}");
            let begin = Instant::now();
            let launch = passing(id.clone(), 100, 32 << 20);
            agent.say(to_agent::Kind::Launch(launch))?;
            let told = await_ends(agent, 1)?;
            let told = told.get(&id).context("another task than that ended")?;
            running.extend(since(begin, told.running));
            finished.extend(since(begin, told.finished));
        }
        self.times("launch to RUNNING, serial", running);
        self.times("launch to FINISHED, serial", finished);
        Ok(())
    }

    /// All launches at once.
    fn batch(&mut self, agent: &Agent) -> anyhow::Result<()> {
        let count = self.amount.batch;
        let launch = |number| passing(format!("batch.{number}"), 10, 16 << 20);
        let launches: Vec<Launch> = (0..count).map(launch).collect();
        let begin = Instant::now();
        for launch in launches {
            agent.say(to_agent::Kind::Launch(launch))?;
        }
        let told = await_ends(agent, count)?;
        let rate = count as f64 / begin.elapsed().as_secs_f64();
        let running = told.values().flat_map(|told| since(begin, told.running));
        let running = running.collect();
        self.row(
            &format!("{count} tasks to FINISHED"),
            "tasks/s",
            Better::Higher,
            rate,
        );
        self.times(&format!("launch of {count} to RUNNING"), running);
        Ok(())
    }

    /// Many that wait; the agent that is there when they are gone.
    fn waiting(&mut self, agent: Agent) -> anyhow::Result<Agent> {
        let count = self.amount.waiting;
        let begin = Instant::now();
        start_waiting(&agent, count)?;
        let pids = all_run(&agent, count)?;
        let rate = count as f64 / begin.elapsed().as_secs_f64();
        self.row(
            &format!("{count} tasks to RUNNING"),
            "tasks/s",
            Better::Higher,
            rate,
        );
        let groups = group_above(*pids.first().context("nothing runs")?)?;
        self.idle(&agent, &format!("with {count} tasks"))?;

        let begin = Instant::now();
        let agent = agent.crash()?;
        let took_ms = begin.elapsed().as_secs_f64() * 1e3;
        all_known(&agent, count)?;
        self.times(
            &format!("kill -9 until {count} tasks are registered again"),
            vec![took_ms],
        );

        let begin = Instant::now();
        kill_all(&agent, count)?;
        let rate = count as f64 / begin.elapsed().as_secs_f64();
        self.row(
            &format!("{count} tasks to KILLED"),
            "tasks/s",
            Better::Higher,
            rate,
        );
        all_removed(&groups)?;
        Ok(agent)
    }
}

fn since(begin: Instant, at: Option<Instant>) -> Option<f64> {
    at.map(|at| at.duration_since(begin).as_secs_f64() * 1e3)
}

/// Waits until so many tasks have finished; none may end otherwise.
fn await_ends(agent: &Agent, count: usize) -> anyhow::Result<BTreeMap<String, Told>> {
    let mut told: BTreeMap<String, Told> = BTreeMap::new();
    let mut ended = 0;
    while ended < count {
        let update = agent.next()?;
        let now = Instant::now();
        let state = state(&update)?;
        let task = told.entry(update.task_id.clone()).or_default();
        match state {
            TaskState::TaskRunning => task.running = Some(now),
            TaskState::TaskFinished => {
                task.finished = Some(now);
                ended += 1;
            }
            state if state.is_terminal() => bail!("{update:?}"),
            _ => {}
        }
    }
    let unseen = told.values().filter(|told| told.running.is_none()).count();
    ensure!(unseen == 0, "{unseen} tasks ended that had not run");
    Ok(told)
}

/// The agent registered with exactly so many tasks, all of which run.
fn all_known(agent: &Agent, count: usize) -> anyhow::Result<()> {
    let tasks = &agent.registered.tasks;
    let runs = |state: i32| state == TaskState::TaskRunning as i32;
    let running = tasks.iter().filter(|task| runs(task.state)).count();
    ensure!(
        running == count && tasks.len() == count,
        "{running} of {} run, {count} should",
        tasks.len()
    );
    Ok(())
}

/// One line of a process's status, in KiB.
fn resident_kb(pid: i32, name: &str) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&path).context(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.context("no such line")?.parse()?)
}

/// The agent with its keeper and that one's helpers, which are told by their directory; not the PID 1
/// of each container, which sleep until their command ends.
fn node_processes(agent: &Agent) -> anyhow::Result<Vec<i32>> {
    let mut found = vec![agent.pid()?];
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let read = |name: &str| std::fs::read(entry.path().join(name)).unwrap_or_default();
        let name = read("comm");
        let helper = [
            &b"gantry-keeper\n"[..],
            b"gantry-sweeper\n",
            b"gantry-outlet\n",
        ];
        let dir = agent.dir().as_os_str().as_bytes();
        let arguments = read("cmdline");
        let ours = arguments.windows(dir.len()).any(|part| part == dir);
        if ours && helper.contains(&&name[..]) {
            found.push(pid);
        }
    }
    ensure!(
        found.len() == 4,
        "of agent, keeper, sweeper and outlet, {} are there",
        found.len()
    );
    Ok(found)
}

/// What all threads of the processes have run.
fn processor_time(processes: &[i32]) -> anyhow::Result<Duration> {
    let mut all = Duration::ZERO;
    for pid in processes {
        for thread in std::fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
            // A thread that ends meanwhile was idle.
            let text = std::fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
            let nanos = text.split_whitespace().next().unwrap_or("0");
            all += Duration::from_nanos(nanos.parse()?);
        }
    }
    Ok(all)
}
