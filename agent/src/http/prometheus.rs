//! Prometheus's text format, version 0.0.4: families of samples with their labels. Decides how
//! names, labels and numbers are written, not which there are.
//!
//! Names of Mesos become ours: `slave/tasks_running` is `gantry_agent_tasks_running`. A counter
//! ends in `_total`, a gauge does not.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::metrics::{Kind, Number};

/// The media type.
pub(super) const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Before every name.
const PREFIX: &str = "gantry_agent_";
/// At the end of the name of a counter, and of no other.
const TOTAL: &str = "_total";

/// Samples of one name.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) name: String,
    pub(super) help: String,
    pub(super) kind: Kind,
    pub(super) samples: Vec<(Labels, f64)>,
}

/// Labels of a sample, by name.
pub(super) type Labels = BTreeMap<&'static str, String>;

impl Family {
    /// `name` without prefix and ending.
    pub(super) fn new(name: &str, help: &str, kind: Kind) -> Self {
        let stem: String = name.chars().map(plain).collect();
        let stem = stem.strip_suffix(TOTAL).unwrap_or(&stem);
        let ending = match kind {
            Kind::Counter => TOTAL,
            Kind::Gauge => "",
        };
        Self {
            name: format!("{PREFIX}{stem}{ending}"),
            help: help.to_owned(),
            kind,
            samples: Vec::new(),
        }
    }
}

impl From<Number> for Family {
    fn from(number: Number) -> Self {
        let name = number.name.strip_prefix("slave/").unwrap_or(&number.name);
        let mut family = Self::new(name, &number.help, number.kind);
        family.samples.push((Labels::new(), number.value));
        family
    }
}

fn plain(c: char) -> char {
    if c.is_ascii_alphanumeric() { c } else { '_' }
}

/// The text of some families; those without samples are left out.
pub(super) fn text(families: &[Family]) -> String {
    let mut text = String::new();
    for family in families.iter().filter(|family| !family.samples.is_empty()) {
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        let Family { name, help, .. } = family;
        let help = help.replace('\\', r"\\").replace('\n', r"\n");
        // Writing to a string cannot fail.
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        for (labels, value) in &family.samples {
            text.push_str(name);
            write_labels(labels, &mut text);
            let _ = writeln!(text, " {}", number(*value));
        }
    }
    text
}

fn write_labels(labels: &Labels, text: &mut String) {
    let mut before = '{';
    for (name, value) in labels {
        let value = value.replace('\\', r"\\").replace('"', "\\\"");
        let value = value.replace('\n', r"\n");
        let _ = write!(text, "{before}{name}=\"{value}\"");
        before = ',';
    }
    if before == ',' {
        text.push('}');
    }
}

fn number(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        let sign = if value > 0.0 { '+' } else { '-' };
        format!("{sign}Inf")
    } else {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_as_the_format_says() {
        let mut cpu = Family::new("container_cpu_seconds", "CPU\\time\nused", Kind::Counter);
        let labels = Labels::from([("a", "x\"y\\z\n".to_owned()), ("b", "2".to_owned())]);
        cpu.samples = vec![(labels, 1.5), (Labels::new(), f64::INFINITY)];
        let families = [
            Number::gauge("slave/cpus_total", "CPUs.", 4.0).into(),
            cpu,
            Family::new("none", "", Kind::Gauge),
        ];
        let want = "# HELP gantry_agent_cpus CPUs.\n\
                    # TYPE gantry_agent_cpus gauge\n\
                    gantry_agent_cpus 4\n\
                    # HELP gantry_agent_container_cpu_seconds_total CPU\\\\time\\nused\n\
                    # TYPE gantry_agent_container_cpu_seconds_total counter\n\
                    gantry_agent_container_cpu_seconds_total{a=\"x\\\"y\\\\z\\n\",b=\"2\"} 1.5\n\
                    gantry_agent_container_cpu_seconds_total +Inf\n";
        assert_eq!(text(&families), want);
    }
}
