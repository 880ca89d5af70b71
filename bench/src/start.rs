//! Suite `start`: from the request to the exit of a static program that does nothing, in a container
//! with every namespace (network included), an overlay of its own as root, the same seccomp profile
//! and, where the subject can, cgroup limits; then a program more in a running container (`exec`),
//! the end of many that run (`stop`), and our OCI command line in place of the keeper (`oci run`).
//!
//! Subjects take turns within each case, so that a change of the machine's mood hits all alike. A
//! run that does not exit 0 fails the suite: a refused run looks fast. Gantry's rate counts the
//! removal of every container, too: the clock stops when the last one is gone.

mod bundle;
mod gantry;
mod peer;

use std::time::Duration;

use anyhow::Context;

use crate::Options;
use crate::report::{Better, Measured, OURS, Row, fnv};

/// How starts follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// The next only when everything of the last is gone.
    Serial,
    /// So many at any time.
    InFlight(usize),
}

impl Pace {
    fn name(self) -> String {
        match self {
            Self::Serial => "serial".to_owned(),
            Self::InFlight(count) => format!("{count} in flight"),
        }
    }
}

/// What the container has beyond namespaces, root and limits. Ours has our default profile, which
/// allows less than the peers'.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dress {
    /// A seccomp profile.
    Usual,
    /// No profile: tells what compiling it costs a peer that does so at each start.
    NoSeccomp,
    /// A profile, and a user namespace whose ids on disk are its own; of ours alone.
    OwnIds,
}

/// One way to start containers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) pace: Pace,
    pub(crate) dress: Dress,
}

impl Case {
    fn name(self) -> String {
        let pace = self.pace.name();
        match self.dress {
            Dress::Usual => pace,
            Dress::NoSeccomp => format!("{pace}, no seccomp"),
            Dress::OwnIds => format!("{pace}, user namespace"),
        }
    }
}

const PACES: [Pace; 4] = [
    Pace::Serial,
    Pace::InFlight(1),
    Pace::InFlight(4),
    Pace::InFlight(16),
];

fn cases() -> impl Iterator<Item = Case> {
    let dresses = [Dress::Usual, Dress::NoSeccomp, Dress::OwnIds];
    dresses.into_iter().flat_map(|dress| {
        let paces = PACES.into_iter();
        paces
            .filter(move |pace| dress == Dress::Usual || *pace != Pace::Serial)
            .map(move |pace| Case { pace, dress })
    })
}

/// What one turn of a subject took.
#[derive(Debug)]
pub(crate) struct Turn {
    /// From start to exit, of each.
    pub(crate) latencies: Vec<Duration>,
    /// From the first start until all were gone.
    pub(crate) wall: Duration,
}

/// Something that starts containers.
trait Subject {
    /// Its name and version.
    fn name(&self) -> String;
    /// Whether it can start such containers.
    fn offers(&self, dress: Dress) -> bool;
    /// Starts `count` containers in this way and sees each exit 0.
    fn turn(&mut self, case: Case, count: usize) -> anyhow::Result<Turn>;
    /// Runs the program that exits 0 in a container that waits, `count` times, one after the other.
    fn execs(&mut self, count: usize) -> anyhow::Result<Vec<Duration>>;
    /// Starts `count` that wait; then how long it took from the first request to stop one until
    /// nothing of any is left.
    fn stop_many(&mut self, count: usize) -> anyhow::Result<Duration>;
}

/// How much is done.
#[derive(Clone, Copy, Debug)]
struct Amount {
    rounds: usize,
    /// Starts or execs of each subject in a round.
    count: usize,
    /// Containers that are stopped together.
    stopped: usize,
}

const FULL: Amount = Amount {
    rounds: 5,
    count: 48,
    stopped: 100,
};
const QUICK: Amount = Amount {
    rounds: 2,
    count: 16,
    stopped: 4,
};

/// Runs the suite.
pub(crate) fn run(options: &Options) -> anyhow::Result<Measured> {
    let amount = if options.quick { QUICK } else { FULL };
    let bundle = bundle::Bundle::make().context("make the bundle")?;
    let (mut subjects, mut left_out) = subjects(options, &bundle)?;
    for subject in &mut subjects {
        // Everything is in the page cache, and the runs are seen to work, before it counts.
        let case = Case {
            pace: Pace::InFlight(1),
            dress: Dress::Usual,
        };
        subject.turn(case, 4).with_context(|| subject.name())?;
    }
    let mut rows = Vec::new();
    for case in cases().filter(|case| options.wants_case(&case.name())) {
        rows.extend(starts(&mut subjects, case, &case.name(), amount)?);
    }
    if options.wants_case("exec") {
        rows.extend(execs(&mut subjects, amount)?);
    }
    if options.wants_case("stop") {
        rows.extend(stops(&mut subjects, amount)?);
    }
    if options.case.is_empty() || options.case.starts_with("oci") {
        rows.extend(oci_runs(options, &bundle, amount, &mut left_out)?);
    }
    let hash = fnv(&[&bundle.programs[..], b"every exit was 0"].concat());
    Ok(Measured {
        suite: "start",
        rows,
        left_out,
        hash,
    })
}

type Subjects<'a> = Vec<Box<dyn Subject + 'a>>;

fn subjects<'a>(
    options: &Options,
    bundle: &'a bundle::Bundle,
) -> anyhow::Result<(Subjects<'a>, Vec<String>)> {
    let mut subjects: Subjects<'a> = Vec::new();
    if options.wants_subject(OURS) {
        let gantry = gantry::Gantry::new(bundle).context("start the keeper")?;
        subjects.push(Box::new(gantry));
    }
    let mut left_out = Vec::new();
    add_peers(
        options,
        bundle,
        &[peer::Kind::Crun, peer::Kind::Runc],
        &mut subjects,
        &mut left_out,
    );
    Ok((subjects, left_out))
}

fn add_peers<'a>(
    options: &Options,
    bundle: &'a bundle::Bundle,
    kinds: &[peer::Kind],
    subjects: &mut Subjects<'a>,
    left_out: &mut Vec<String>,
) {
    for kind in kinds {
        if !options.wants_subject(kind.program()) {
            continue;
        }
        match peer::Peer::find(*kind, bundle) {
            Ok(peer) => subjects.push(Box::new(peer)),
            Err(reason) => left_out.push(format!("{}: {reason:#}", kind.program())),
        }
    }
}

/// `gantry oci run` beside the peers: a process of each for every start, and no keeper.
fn oci_runs(
    options: &Options,
    bundle: &bundle::Bundle,
    amount: Amount,
    left_out: &mut Vec<String>,
) -> anyhow::Result<Vec<Row>> {
    let mut subjects: Subjects<'_> = Vec::new();
    add_peers(
        options,
        bundle,
        &[peer::Kind::Gantry, peer::Kind::Crun, peer::Kind::Runc],
        &mut subjects,
        left_out,
    );
    let mut rows = Vec::new();
    for pace in [Pace::InFlight(1), Pace::InFlight(4)] {
        for dress in [Dress::Usual, Dress::NoSeccomp] {
            let case = Case { pace, dress };
            let name = format!("oci run, {}", case.name());
            if options.wants_case(&name) {
                rows.extend(starts(&mut subjects, case, &name, amount)?);
            }
        }
    }
    Ok(rows)
}

/// Every subject's turns, taken one after the other in each round; a subject that gives none is not
/// in the case.
fn interleaved<T>(
    subjects: &mut Subjects<'_>,
    rounds: usize,
    mut turn: impl FnMut(&mut dyn Subject) -> Option<anyhow::Result<T>>,
) -> anyhow::Result<Vec<(String, Vec<T>)>> {
    let names = subjects.iter().map(|subject| subject.name());
    let mut results: Vec<(String, Vec<T>)> = names.map(|name| (name, Vec::new())).collect();
    for _ in 0..rounds {
        for (subject, (name, turns)) in subjects.iter_mut().zip(&mut results) {
            if let Some(turn) = turn(&mut **subject) {
                turns.push(turn.with_context(|| name.clone())?);
            }
        }
    }
    results.retain(|(_, turns)| !turns.is_empty());
    Ok(results)
}

fn starts(
    subjects: &mut Subjects<'_>,
    case: Case,
    name: &str,
    amount: Amount,
) -> anyhow::Result<Vec<Row>> {
    let turns = interleaved(subjects, amount.rounds, |subject| {
        let offers = subject.offers(case.dress);
        offers.then(|| subject.turn(case, amount.count))
    })?;
    let rows = turns
        .iter()
        .flat_map(|(subject, turns)| rows_of(name, subject, turns));
    Ok(rows.collect())
}

fn execs(subjects: &mut Subjects<'_>, amount: Amount) -> anyhow::Result<Vec<Row>> {
    let turns = interleaved(subjects, amount.rounds, |subject| {
        Some(subject.execs(amount.count))
    })?;
    let rows = turns
        .into_iter()
        .map(|(name, turns)| times("exec", &name, turns.into_iter().flatten()));
    Ok(rows.collect())
}

fn stops(subjects: &mut Subjects<'_>, amount: Amount) -> anyhow::Result<Vec<Row>> {
    let case = format!("stop of {}", amount.stopped);
    // Starting them takes longest: a few rounds tell enough.
    let rounds = amount.rounds.div_ceil(2);
    let turns = interleaved(subjects, rounds, |subject| {
        Some(subject.stop_many(amount.stopped))
    })?;
    let rows = turns
        .into_iter()
        .map(|(name, turns)| times(&case, &name, turns.into_iter()));
    Ok(rows.collect())
}

/// One row of times; its value is their mean.
fn times(case: &str, subject: &str, times: impl Iterator<Item = Duration>) -> Row {
    let samples: Vec<f64> = times.map(|time| time.as_secs_f64() * 1e3).collect();
    let mean = samples.iter().sum::<f64>() / samples.len() as f64;
    Row::new(case, subject, "ms", Better::Lower, mean, samples)
}

fn rows_of(case: &str, subject: &str, turns: &[Turn]) -> [Row; 2] {
    let seconds = |wall: Duration| wall.as_secs_f64();
    let starts: usize = turns.iter().map(|turn| turn.latencies.len()).sum();
    let wall: Duration = turns.iter().map(|turn| turn.wall).sum();
    let rates = turns
        .iter()
        .map(|turn| turn.latencies.len() as f64 / seconds(turn.wall));
    let rate = starts as f64 / seconds(wall);
    [
        Row::new(
            case,
            subject,
            "starts/s",
            Better::Higher,
            rate,
            rates.collect(),
        ),
        times(
            case,
            subject,
            turns.iter().flat_map(|turn| turn.latencies.iter().copied()),
        ),
    ]
}
