//! Suite `image`: pull and unpack of an image with thousands of files from a registry on this
//! machine, with nothing here and with half of the layers here.
//!
//! Subjects take turns; each turn begins with an empty (or half filled) directory of the subject's
//! own and with nothing left to write back, and ends when the subject says that the image is
//! unpacked. The second pair of cases goes on until everything is on the disk, as no subject waits
//! for that. In the first round every subject's tree is hashed: a subject that lost a byte, a mode,
//! an owner or a time fails the suite.

mod containerd;
mod content;
mod gantry;
mod registry;
mod skopeo;
mod tree;

use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::Options;
use crate::report::{Better, Measured, Row};

/// The tags: one has the bottom half of the other's layers.
const FULL: &str = "bench/image:full";
const HALF: &str = "bench/image:half";

/// Something that pulls and unpacks images.
trait Subject {
    /// Its name and version.
    fn name(&self) -> String;
    /// Empties its directory.
    fn clear(&mut self) -> anyhow::Result<()>;
    /// Pulls and unpacks.
    fn pull(&mut self, image: &str) -> anyhow::Result<()>;
    /// What a container of the image would see.
    fn tree(&mut self, image: &str) -> anyhow::Result<tree::Tree>;
}

/// What is here before the pull.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    Nothing,
    Half,
}

impl Before {
    fn name(self) -> &'static str {
        match self {
            Self::Nothing => "cold",
            Self::Half => "half present",
        }
    }
}

/// One turn.
#[derive(Clone, Copy, Debug)]
struct Turn {
    unpacked: Duration,
    on_disk: Duration,
}

/// Runs the suite.
pub(crate) fn run(options: &Options) -> anyhow::Result<Measured> {
    let (rounds, shape) = if options.quick {
        (1, content::Shape::TINY)
    } else {
        (7, content::Shape::FULL)
    };
    let scratch = tempfile::Builder::new().prefix("gantry-image-").tempdir()?;
    let made = content::make(&scratch.path().join("layout"), &shape).context("make the image")?;
    let registry = registry::Registry::start(scratch.path()).context("start a registry")?;
    for (tag, image) in [("full", FULL), ("half", HALF)] {
        registry.push(&made.layout, tag, image)?;
    }
    let (full, half) = (registry.reference(FULL), registry.reference(HALF));
    println!(
        "image of {} layers, {} files, {} MB, compressed {} MB",
        shape.layers,
        made.files,
        made.plain_bytes / 1_000_000,
        made.packed_bytes / 1_000_000
    );
    let mut left_out = Vec::new();
    let mut subjects: Vec<Box<dyn Subject>> = vec![Box::new(gantry::Gantry::new(scratch.path())?)];
    match skopeo::Skopeo::find(scratch.path()) {
        Ok(peer) => subjects.push(Box::new(peer)),
        Err(reason) => left_out.push(format!("skopeo and umoci: {reason:#}")),
    }
    match containerd::Containerd::find(scratch.path()) {
        Ok(peer) => subjects.push(Box::new(peer)),
        Err(reason) => left_out.push(format!("containerd: {reason:#}")),
    }
    subjects.retain(|subject| options.wants_subject(&subject.name()));
    let mut rows = Vec::new();
    let cases = [Before::Nothing, Before::Half];
    for before in cases
        .into_iter()
        .filter(|before| options.wants_case(before.name()))
    {
        let mut turns: Vec<Vec<Turn>> = subjects.iter().map(|_| Vec::new()).collect();
        for round in 0..=rounds {
            for (subject, turns) in subjects.iter_mut().zip(&mut turns) {
                let name = subject.name();
                let first = before == Before::Half;
                let turn = turn(
                    &mut **subject,
                    first.then_some(&*half),
                    &full,
                    scratch.path(),
                );
                let turn = turn.with_context(|| format!("{name}, {}", before.name()))?;
                // The first round fills caches and shows that all made the same of it.
                if round > 0 {
                    turns.push(turn);
                    continue;
                }
                let tree = subject
                    .tree(&full)
                    .with_context(|| format!("hash of {name}"))?;
                made.tree.same_as(&tree).with_context(|| name)?;
            }
        }
        for (subject, turns) in subjects.iter_mut().zip(&turns) {
            rows.extend(rows_of(before, &subject.name(), turns));
            subject.clear()?;
        }
    }
    Ok(Measured {
        suite: "image",
        rows,
        left_out,
        hash: made.tree.hash(),
    })
}

fn turn(
    subject: &mut dyn Subject,
    first: Option<&str>,
    image: &str,
    disk: &Path,
) -> anyhow::Result<Turn> {
    subject.clear().context("clear")?;
    if let Some(first) = first {
        subject.pull(first)?;
    }
    let disk = std::fs::File::open(disk)?;
    // What others left to be written must not slow this one down.
    nix::unistd::sync();
    let began = Instant::now();
    subject.pull(image)?;
    let unpacked = began.elapsed();
    nix::unistd::syncfs(disk.as_fd())?;
    Ok(Turn {
        unpacked,
        on_disk: began.elapsed(),
    })
}

fn rows_of(before: Before, subject: &str, turns: &[Turn]) -> [Row; 2] {
    let row = |case: &str, samples: Vec<f64>| {
        let mean = samples.iter().sum::<f64>() / samples.len() as f64;
        Row::new(case, subject, "s", Better::Lower, mean, samples)
    };
    let case = before.name();
    let seconds =
        |of: fn(&Turn) -> Duration| turns.iter().map(|turn| of(turn).as_secs_f64()).collect();
    [
        row(case, seconds(|turn| turn.unpacked)),
        row(&format!("{case}, on disk"), seconds(|turn| turn.on_disk)),
    ]
}

/// Runs a program to its end and returns what it printed.
fn output(program: &str, args: &[&str]) -> anyhow::Result<String> {
    let done = Command::new(program).args(args).output();
    let done = done.with_context(|| format!("run {program}"))?;
    if !done.status.success() {
        let errors = String::from_utf8_lossy(&done.stderr);
        bail!("{program} {args:?}: {}: {}", done.status, errors.trim());
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// The word after `before` in the first line that has it.
fn version(program: &str, args: &[&str], word: usize) -> anyhow::Result<String> {
    let text = output(program, args)?;
    let found = text.split_whitespace().nth(word);
    let found = found.map(|word| word.trim_start_matches('v').trim_end_matches([',', ';']));
    found
        .map(str::to_owned)
        .with_context(|| format!("{program} has no version"))
}

/// Removes a tree; none is fine.
fn remove(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Waits for something that shall come soon.
fn until(what: &str, mut ready: impl FnMut() -> bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !ready() {
        ensure!(Instant::now() < deadline, "{what}: not within 20 s");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
