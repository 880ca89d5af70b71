//! Suite `start`: from the request to the exit of a static program that does nothing, in a container
//! with every namespace (network included) and, where the subject can, cgroup limits.
//!
//! Subjects take turns within each case, so that a change of the machine's mood hits all alike. A
//! run that does not exit 0 fails the suite: a refused run looks fast. Gantry's rate counts the
//! removal of every container, too: the clock stops when the last one is gone.

mod bundle;
mod gantry;
mod peer;

use std::time::Duration;

use anyhow::Context;

use crate::report::{Better, Measured, OURS, Row};

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

const PACES: [Pace; 4] = [
    Pace::Serial,
    Pace::InFlight(1),
    Pace::InFlight(4),
    Pace::InFlight(16),
];

/// What one turn of a subject took.
#[derive(Debug)]
pub(crate) struct Turn {
    /// From start to exit, of each.
    pub(crate) latencies: Vec<Duration>,
    /// From the first start until all were gone.
    pub(crate) wall: Duration,
}

/// Something that starts containers.
pub(crate) trait Subject {
    /// Its name and version.
    fn name(&self) -> String;
    /// Starts `count` containers at this pace and sees each exit 0.
    fn turn(&mut self, pace: Pace, count: usize) -> anyhow::Result<Turn>;
}

/// Runs the suite.
pub(crate) fn run(quick: bool) -> anyhow::Result<Measured> {
    let (rounds, count) = if quick { (2, 16) } else { (10, 96) };
    let bundle = bundle::Bundle::make().context("make the bundle")?;
    let mut left_out = Vec::new();
    let mut subjects: Vec<Box<dyn Subject>> = vec![Box::new(
        gantry::Gantry::new(&bundle).context("start the keeper")?,
    )];
    for kind in [peer::Kind::Crun, peer::Kind::Runc] {
        match peer::Peer::find(kind, &bundle) {
            Ok(peer) => subjects.push(Box::new(peer)),
            Err(reason) => left_out.push(format!("{}: {reason:#}", kind.program())),
        }
    }
    for subject in &mut subjects {
        // Everything is in the page cache, and the peers' runs are seen to work, before it counts.
        subject
            .turn(Pace::InFlight(1), 4)
            .with_context(|| subject.name())?;
    }
    let mut rows = Vec::new();
    for pace in PACES {
        let mut turns: Vec<Vec<Turn>> = subjects.iter().map(|_| Vec::new()).collect();
        for _ in 0..rounds {
            for (subject, turns) in subjects.iter_mut().zip(&mut turns) {
                let name = subject.name();
                turns.push(subject.turn(pace, count).with_context(|| name)?);
            }
        }
        for (subject, turns) in subjects.iter().zip(&turns) {
            rows.extend(rows_of(pace, &subject.name(), turns));
        }
    }
    let hash = fnv(&[&bundle.program[..], b"every exit was 0"].concat());
    Ok(Measured {
        suite: "start",
        rows,
        left_out,
        hash,
    })
}

fn rows_of(pace: Pace, subject: &str, turns: &[Turn]) -> [Row; 2] {
    let case = pace.name();
    let seconds = |wall: Duration| wall.as_secs_f64();
    let starts: usize = turns.iter().map(|turn| turn.latencies.len()).sum();
    let wall: Duration = turns.iter().map(|turn| turn.wall).sum();
    let rates = turns
        .iter()
        .map(|turn| turn.latencies.len() as f64 / seconds(turn.wall));
    let latencies: Vec<f64> = turns
        .iter()
        .flat_map(|turn| &turn.latencies)
        .map(|time| seconds(*time) * 1e3)
        .collect();
    let mean = latencies.iter().sum::<f64>() / latencies.len() as f64;
    let rate = starts as f64 / seconds(wall);
    [
        Row::new(
            &case,
            subject,
            "starts/s",
            Better::Higher,
            rate,
            rates.collect(),
        ),
        Row::new(&case, subject, "ms", Better::Lower, mean, latencies),
    ]
}

/// FNV-1a, 64 bits.
fn fnv(bytes: &[u8]) -> String {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

/// The name of our own subject.
fn ours() -> String {
    OURS.to_owned()
}
