//! What a suite found, as a table for people and as the JSON object of DESIGN.md.
//!
//! It computes percentiles and ratios; it deliberately knows no suite. A ratio is above 1 where
//! Gantry is better.

use std::path::Path;
use std::process::Command;

use anyhow::Context;
use comfy_table::Table;
use serde::Serialize;

/// Our name among the subjects.
pub(crate) const OURS: &str = "gantry";

/// The machine, before the suite ran.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    cpus: usize,
    kernel: String,
    load_before: f64,
}

impl Machine {
    pub(crate) fn look() -> anyhow::Result<Self> {
        let read = |path: &str| std::fs::read_to_string(path).with_context(|| path.to_owned());
        let load = read("/proc/loadavg")?;
        Ok(Self {
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            load_before: load
                .split(' ')
                .next()
                .and_then(|one| one.parse().ok())
                .unwrap_or(0.0),
        })
    }
}

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    Higher,
    Lower,
}

/// One measure of one subject in one case.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) case: String,
    pub(crate) subject: String,
    pub(crate) unit: &'static str,
    pub(crate) runs: usize,
    pub(crate) value: f64,
    p50: f64,
    p90: f64,
    p99: f64,
    max: f64,
    #[serde(skip)]
    better: Better,
}

impl Row {
    /// `value` over all; the percentiles are those of `samples`, which must not be empty.
    pub(crate) fn new(
        case: &str,
        subject: &str,
        unit: &'static str,
        better: Better,
        value: f64,
        mut samples: Vec<f64>,
    ) -> Self {
        samples.sort_by(f64::total_cmp);
        let at = |percent: usize| {
            let rank = (samples.len() * percent).div_ceil(100).max(1) - 1;
            samples.get(rank).copied().unwrap_or(f64::NAN)
        };
        Self {
            case: case.to_owned(),
            subject: subject.to_owned(),
            unit,
            runs: samples.len(),
            value,
            p50: at(50),
            p90: at(90),
            p99: at(99),
            max: at(100),
            better,
        }
    }
}

/// Ours beside a peer's.
#[derive(Debug, Serialize)]
struct Ratio {
    case: String,
    unit: &'static str,
    ours: f64,
    peer: String,
    peer_value: f64,
    ratio: f64,
}

/// What a suite hands over.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) suite: &'static str,
    pub(crate) rows: Vec<Row>,
    /// Peers that were left out, with the reason.
    pub(crate) left_out: Vec<String>,
    /// Of the results that must not vary, never of times.
    pub(crate) hash: String,
}

/// Everything.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    suite: &'static str,
    revision: String,
    machine: Machine,
    rows: Vec<Row>,
    ratios: Vec<Ratio>,
    hash: String,
    #[serde(skip)]
    left_out: Vec<String>,
}

fn revision() -> String {
    let git = Command::new("git")
        .args(["rev-parse", "--short=12", "HEAD"])
        .output();
    match git {
        Ok(done) if done.status.success() => {
            String::from_utf8_lossy(&done.stdout).trim().to_owned()
        }
        _ => "unknown".to_owned(),
    }
}

fn ratios(rows: &[Row]) -> Vec<Ratio> {
    let mut ratios = Vec::new();
    for ours in rows.iter().filter(|row| row.subject == OURS) {
        let peers = rows
            .iter()
            .filter(|row| row.subject != OURS && row.case == ours.case && row.unit == ours.unit);
        for peer in peers {
            let ratio = match ours.better {
                Better::Higher => ours.value / peer.value,
                Better::Lower => peer.value / ours.value,
            };
            ratios.push(Ratio {
                case: ours.case.clone(),
                unit: ours.unit,
                ours: ours.value,
                peer: peer.subject.clone(),
                peer_value: peer.value,
                ratio,
            });
        }
    }
    ratios
}

impl Report {
    pub(crate) fn new(machine: Machine, measured: Measured) -> Self {
        let Measured {
            suite,
            rows,
            left_out,
            hash,
        } = measured;
        let ratios = ratios(&rows);
        Self {
            suite,
            revision: revision(),
            machine,
            rows,
            ratios,
            hash,
            left_out,
        }
    }

    /// For people.
    pub(crate) fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(comfy_table::presets::UTF8_FULL_CONDENSED);
        table.set_header([
            "case",
            "subject",
            "unit",
            "runs",
            "value",
            "p50",
            "p90",
            "p99",
            "max",
            "gantry is",
        ]);
        for row in &self.rows {
            let number = |value: f64| format!("{value:.2}");
            let ratio = self.ratios.iter().find(|ratio| {
                ratio.peer == row.subject && ratio.case == row.case && ratio.unit == row.unit
            });
            let cells = [
                row.case.clone(),
                row.subject.clone(),
                row.unit.to_owned(),
                row.runs.to_string(),
                number(row.value),
                number(row.p50),
                number(row.p90),
                number(row.p99),
                number(row.max),
                ratio.map_or_else(String::new, |ratio| format!("{:.2}x", ratio.ratio)),
            ];
            table.add_row(cells);
        }
        let Machine {
            cpus,
            kernel,
            load_before,
        } = &self.machine;
        let mut text = format!(
            "suite {} at {}: {cpus} CPUs, Linux {kernel}, load before {load_before}\n{table}\n\
             results {}",
            self.suite, self.revision, self.hash
        );
        for reason in &self.left_out {
            text.push_str("\nleft out: ");
            text.push_str(reason);
        }
        text
    }

    /// For programs.
    pub(crate) fn write_json(&self, path: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        std::fs::write(path, text + "\n").with_context(|| format!("write {}", path.display()))
    }
}

/// FNV-1a, 64 bits: the hash of results.
pub(crate) fn fnv(bytes: &[u8]) -> String {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(subject: &str, better: Better, value: f64) -> Row {
        Row::new(
            "c",
            subject,
            "u",
            better,
            value,
            (1..=100).map(f64::from).collect(),
        )
    }

    #[test]
    fn percentiles_are_nearest_ranks() {
        let row = row(OURS, Better::Lower, 1.0);
        assert_eq!(
            (row.p50, row.p90, row.p99, row.max, row.runs),
            (50.0, 90.0, 99.0, 100.0, 100)
        );
        let one = Row::new("c", "s", "u", Better::Lower, 7.0, vec![7.0]);
        assert_eq!((one.p50, one.max), (7.0, 7.0));
    }

    #[test]
    fn a_ratio_above_one_says_that_we_are_better() {
        let rates = [
            row(OURS, Better::Higher, 300.0),
            row("peer 1", Better::Higher, 100.0),
        ];
        assert!((ratios(&rates)[0].ratio - 3.0).abs() < 1e-9);
        let times = [
            row(OURS, Better::Lower, 2.0),
            row("peer 1", Better::Lower, 8.0),
        ];
        assert!((ratios(&times)[0].ratio - 4.0).abs() < 1e-9);
    }
}
