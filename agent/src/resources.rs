//! What this node has to offer. Detected as Mesos does it (`src/slave/containerizer/
//! containerizer.cpp`): a share of memory and disk stays with the system; told values win.
//!
//! Invariant: more may be offered than before a restart, with all tasks going on; less than what the
//! tasks that are there hold may not.

use std::io;
use std::path::Path;

use gantry_agent_core::Saved;
use gantry_wire::agent::{Inventory, ResourcesMessage};
use gantry_wire::resources::{PortRange, PortRanges, Resources};
use gantry_wire::units::{Bytes, MilliCpu};

use crate::config::Config;
use crate::disks::{self, DiskError};
use crate::offer::Overrides;

/// Ports offered unless told otherwise, Mesos's default.
const PORTS: PortRange = PortRange {
    begin: 31_000,
    end: 32_000,
};
/// Kept for the system unless told otherwise; of a node with less than twice this, half is offered.
const MEM_RESERVE_BYTES: u64 = 1 << 30;
const DISK_RESERVE_BYTES: u64 = 5 << 30;

/// Why a node cannot offer what it is told to.
#[derive(Debug, thiserror::Error)]
pub enum ResourcesError {
    /// The machine does not say what it has.
    #[error("finding out what this node has")]
    Detect(#[from] io::Error),
    /// Told to offer what is not there.
    #[error("told to offer {told} GPUs, and there are {found}")]
    Gpus {
        /// What was told.
        told: u64,
        /// What was found.
        found: u64,
    },
    /// The system keeps more than the machine has, or than is left beside what is offered.
    #[error(
        "{what}: the system keeps {kept} of {total}, and {offered} are to be offered; together \
         that is more than there is"
    )]
    Reserve {
        /// Of what.
        what: &'static str,
        /// For the system.
        kept: u64,
        /// Of the machine.
        total: u64,
        /// For tasks.
        offered: u64,
    },
    /// A disk is not what it is said to be.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Tasks that run hold more.
    #[error(
        "the tasks of this node hold {held} and {what} would be {offered}: resources can be added \
         while they run, not taken away below that. Offer as much, or end them first"
    )]
    Held {
        /// Of what.
        what: &'static str,
        /// By tasks.
        held: String,
        /// By this configuration.
        offered: String,
    },
}

/// What a node offers, and what all its tasks together are bounded by.
#[derive(Debug)]
pub(crate) struct Offered {
    /// To every role.
    pub(crate) resources: Resources,
    pub(crate) inventory: Inventory,
    /// For all tasks together, so that the system keeps its share.
    pub(crate) mem_bound: Bytes,
    pub(crate) cpus_bound: Option<MilliCpu>,
}

/// Detects what was not told; `gpus` are there.
pub(crate) fn offered(
    config: &Config,
    data_dir: &Path,
    gpus: u64,
) -> Result<Offered, ResourcesError> {
    let told = &config.resources;
    let (all_cpus, all_mem) = (cpus()?, total_memory()?);
    let reserved = &told.reserved;
    let held_back = |of: fn(&Resources) -> u64| -> u64 { reserved.values().map(of).sum() };
    let mem_left = match config.system_mem {
        Some(kept) => all_mem.saturating_sub(kept.0),
        None => without_reserve(all_mem, MEM_RESERVE_BYTES),
    };
    let cpus_left = all_cpus.0.saturating_sub(config.system_cpus.0);
    let found = told
        .gpus
        .unwrap_or_else(|| gpus.saturating_sub(held_back(|r| r.gpus)));
    let resources = Resources {
        cpus: told.cpus.unwrap_or(MilliCpu(cpus_left)),
        mem: told.mem.unwrap_or(Bytes(mem_left)),
        disk: match told.disk {
            Some(disk) => disk,
            None => Bytes(without_reserve(total_disk(data_dir)?, DISK_RESERVE_BYTES)),
        },
        gpus: found,
        ports: told
            .ports
            .clone()
            .unwrap_or_else(|| PortRanges::new([PORTS])),
    };
    let inventory = Inventory {
        reserved: reserved
            .iter()
            .map(|(role, r)| (role.clone(), r.into()))
            .collect(),
        attributes: config.attributes.clone(),
        region: config.domain.region.clone(),
        zone: config.domain.zone.clone(),
        disks: disks::find(&config.mount_disks, &told.disks)?,
    };
    let total = inventory.total(&resources);
    if total.gpus > gpus {
        return Err(ResourcesError::Gpus {
            told: total.gpus,
            found: gpus,
        });
    }
    let has_cpus = config.system_cpus.0 > 0;
    fits_beside_system(config, &total, (all_cpus, all_mem))?;
    Ok(Offered {
        mem_bound: Bytes(mem_left.max(total.mem.0)),
        cpus_bound: has_cpus.then_some(MilliCpu(cpus_left)),
        resources,
        inventory,
    })
}

/// Without a reserve that was asked for, more than there is may be offered, as Mesos lets one.
fn fits_beside_system(
    config: &Config,
    total: &Resources,
    (all_cpus, all_mem): (MilliCpu, u64),
) -> Result<(), ResourcesError> {
    let fits = |what, kept, total, offered| {
        let error = ResourcesError::Reserve {
            what,
            kept,
            total,
            offered,
        };
        if offered > u64::saturating_sub(total, kept) {
            Err(error)
        } else {
            Ok(())
        }
    };
    if let Some(kept) = config.system_mem {
        fits("mem in bytes", kept.0, all_mem, total.mem.0)?;
    }
    let kept = config.system_cpus.0;
    if kept > 0 {
        fits("cpus in thousandths", kept, all_cpus.0, total.cpus.0)?;
    }
    Ok(())
}

/// Refuses to offer less than the tasks of a former life hold, where the amount is the operator's.
/// One that is detected is only told: nobody can offer what is not there, and tasks without an agent
/// are worse off than with a node that is full.
pub(crate) fn keeps(
    stated: &Overrides,
    offered: &Offered,
    saved: &Saved,
) -> Result<(), ResourcesError> {
    let mut held = Resources::default();
    let mut add = |message: Option<&ResourcesMessage>| {
        held.add(&message.map(Resources::from).unwrap_or_default());
    };
    let shared = saved.executors.iter().flat_map(|executor| &executor.tasks);
    let tasks = saved.tasks.iter().chain(shared.map(|(_, task)| task));
    for task in tasks.filter(|task| !task.state.is_terminal()) {
        add(task.launch.resources.as_ref());
    }
    for executor in &saved.executors {
        add(executor.info.resources.as_ref());
    }
    let total = offered.inventory.total(&offered.resources);
    const MIB: f64 = 1_048_576.0;
    let (cpus, mem) = (stated.cpus.is_some(), stated.mem.is_some());
    let amounts = [
        ("cpus", cpus, held.cpus.0, total.cpus.0, 1_000.0),
        ("mem (MiB)", mem, held.mem.0, total.mem.0, MIB),
        (
            "disk (MiB)",
            stated.disk.is_some(),
            held.disk.0,
            total.disk.0,
            MIB,
        ),
        ("gpus", stated.gpus.is_some(), held.gpus, total.gpus, 1.0),
    ];
    for (what, stated, held, total, unit) in amounts {
        if held <= total {
            continue;
        }
        let refused = ResourcesError::Held {
            what,
            held: format!("{} {what}", held as f64 / unit),
            offered: format!("{}", total as f64 / unit),
        };
        if stated {
            return Err(refused);
        }
        tracing::warn!("{refused}");
    }
    let mut missing = held.ports.clone();
    for range in total.ports.ranges() {
        (range.begin..=range.end).for_each(|port| {
            missing.remove(port);
        });
    }
    if missing.is_empty() || stated.ports.is_none() {
        return Ok(());
    }
    Err(ResourcesError::Held {
        what: "ports",
        held: format!("ports {missing}"),
        offered: total.ports.to_string(),
    })
}

fn without_reserve(total: u64, reserve: u64) -> u64 {
    if total >= reserve.saturating_mul(2) {
        total - reserve
    } else {
        total / 2
    }
}

/// Processors this process may run on, by affinity and cgroup quota.
fn cpus() -> io::Result<MilliCpu> {
    let count = std::thread::available_parallelism()?.get();
    Ok(MilliCpu(count as u64 * 1_000))
}

/// `MemTotal` of proc_meminfo(5), in bytes.
fn total_memory() -> io::Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    parse_meminfo(&text).ok_or_else(|| io::Error::other("/proc/meminfo has no MemTotal"))
}

fn parse_meminfo(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

fn total_disk(dir: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(dir)?;
    Ok(stat.f_blocks.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests {
    use gantry_wire::mesos::resources_text::parse;

    use super::*;
    use crate::offer::Overrides;

    fn config(text: &str, dir: &Path) -> Config {
        let mut config = Config::new(dir, "/x");
        config.resources = Overrides::of(&parse(text, "*").unwrap()).unwrap();
        config
    }

    #[test]
    fn detects_or_takes_what_it_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let found = offered(&config("", dir.path()), dir.path(), 0)
            .unwrap()
            .resources;
        assert!(found.cpus.0 >= 1_000 && found.mem.0 > 0 && found.disk.0 > 0);
        assert_eq!(found.ports.to_string(), "[31000-32000]");
        let told = "cpus:0.005;mem:6;disk:7;gpus:1;ports:[1-2];cpus(web):2";
        let found = offered(&config(told, dir.path()), dir.path(), 3).unwrap();
        let free = &found.resources;
        assert_eq!(
            (free.cpus.0, free.mem, free.gpus, free.ports.len()),
            (5, Bytes(6 << 20), 1, 2)
        );
        assert_eq!(found.inventory.total(free).cpus.0, 2_005);
        assert_eq!(
            parse_meminfo("MemTotal:       16 kB\nMemFree: 1 kB\n"),
            Some(16_384)
        );
        assert_eq!(parse_meminfo("MemTotal: x\n"), None);
        assert_eq!(without_reserve(3, 2), 1);
        assert_eq!(without_reserve(5, 2), 3);
    }

    #[test]
    fn the_system_keeps_its_share() {
        let dir = tempfile::tempdir().unwrap();
        let all = total_memory().unwrap();
        let mut config = config("", dir.path());
        config.system_mem = Some(Bytes(all / 4));
        config.system_cpus = MilliCpu(250);
        let found = offered(&config, dir.path(), 0).unwrap();
        assert_eq!(found.resources.mem.0, all - all / 4);
        assert_eq!(found.mem_bound, found.resources.mem);
        assert_eq!(found.cpus_bound, Some(found.resources.cpus));
        assert_eq!(found.resources.cpus.0, cpus().unwrap().0 - 250);
        config.resources.mem = Some(Bytes(all));
        let error = offered(&config, dir.path(), 0).unwrap_err();
        assert!(
            matches!(
                error,
                ResourcesError::Reserve {
                    what: "mem in bytes",
                    ..
                }
            ),
            "{error}"
        );
        config.resources.gpus = Some(1);
        config.system_mem = None;
        let error = offered(&config, dir.path(), 0).unwrap_err();
        assert!(
            matches!(error, ResourcesError::Gpus { told: 1, found: 0 }),
            "{error}"
        );
    }
}
