//! The graphics processors of tasks: from names in a launch's assignment to what its container is
//! given and told. Which task has which is decided by the core; what a processor consists of, by
//! `gantry_isolation::gpu`. Blocking: it looks at files.

use std::path::Path;

use gantry_agent_core::GpuName;
use gantry_isolation::gpu::{self, Gpu, GpuId, NoGpu, Vendor};

use crate::container::Given;

/// The node's, as the core knows them.
pub(crate) fn names(node: &[Gpu]) -> Vec<GpuName> {
    let names = node.iter().map(|gpu| GpuName::new(gpu.id.as_str()));
    names.collect()
}

/// What a container is given for its processors; `root` is the node's. Without an image it sees the
/// node's own files, the driver's among them.
pub(crate) fn given(root: &Path, gpus: &[GpuName], has_image: bool) -> Result<Given, NoGpu> {
    let wanted: Vec<GpuId> = gpus.iter().map(|gpu| GpuId::new(gpu.as_str())).collect();
    let (devices, mounts) = gpu::mounts_and_devices(root, &wanted)?;
    let mounts = if has_image { mounts } else { Vec::new() };
    Ok(Given {
        mounts,
        devices,
        ..Given::default()
    })
}

/// `NVIDIA_VISIBLE_DEVICES` of a task: the driver's names for its processors, or their numbers.
/// None where it has none of that vendor.
pub(crate) fn visible(gpus: &[GpuName], node: &[Gpu]) -> Option<String> {
    let own = node.iter().filter(|gpu| {
        let of_task = gpus.iter().any(|own| own.as_str() == gpu.id.as_str());
        of_task && gpu.vendor == Vendor::Nvidia
    });
    let names: Vec<&str> = own
        .map(|gpu| match &gpu.uuid {
            Some(uuid) => uuid.as_str(),
            None => gpu.id.as_str().trim_start_matches("nvidia"),
        })
        .collect();
    (!names.is_empty()).then(|| names.join(","))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::PathBuf;

    use gantry_agent_core::{Action, Event, KeeperId, Now, Saved, Tasks};
    use gantry_wire::agent::{Launch, ResourcesMessage};
    use gantry_wire::ids::{ContainerId, TaskId};
    use gantry_wire::task::TaskState;
    use gantry_wire::time::Millis;
    use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

    use super::*;

    /// A node with three processors; the driver says more of the last one.
    fn node() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let dev = root.path().join("dev");
        std::fs::create_dir(&dev).unwrap();
        for (name, minor) in [
            ("nvidia0", 0),
            ("nvidia1", 1),
            ("nvidia2", 2),
            ("nvidiactl", 255),
        ] {
            let device = makedev(195, minor);
            let mode = Mode::from_raw_mode(0o666);
            mknodat(CWD, dev.join(name), FileType::CharacterDevice, mode, device).unwrap();
        }
        let about = root.path().join("proc/driver/nvidia/gpus/0000:65:00.0");
        std::fs::create_dir_all(&about).unwrap();
        let text = "GPU UUID: \t GPU-cc\nDevice Minor: \t 2\n";
        std::fs::write(about.join("information"), text).unwrap();
        let lib = root.path().join("usr/lib/x86_64-linux-gnu");
        std::fs::create_dir_all(&lib).unwrap();
        std::fs::write(lib.join("libcuda.so.1"), "").unwrap();
        root
    }

    fn step(tasks: &mut Tasks, event: Event) -> Vec<Action> {
        let now = Now {
            wall: Millis(0),
            uptime_ms: 0,
            seed: 1,
        };
        let mut actions = Vec::new();
        tasks.step(now, event, &mut actions);
        actions
    }

    fn id(task: &str) -> TaskId {
        TaskId::parse(task).unwrap()
    }

    fn launch(tasks: &mut Tasks, task: &str, gpus: u64) -> TaskState {
        let launch = Launch {
            task_id: task.into(),
            resources: Some(ResourcesMessage {
                gpus,
                ..ResourcesMessage::default()
            }),
            ..Launch::default()
        };
        let event = Event::Launch {
            task: id(task),
            launch: Box::new(launch),
            container: ContainerId::parse(format!("c-{task}")).unwrap(),
            sandbox: String::new(),
        };
        step(tasks, event);
        tasks.get(&id(task)).unwrap().state
    }

    fn of<'a>(tasks: &'a Tasks, task: &str) -> Vec<&'a str> {
        let view = tasks.get(&id(task)).unwrap();
        view.gpus.iter().map(GpuName::as_str).collect()
    }

    #[test]
    fn each_belongs_to_one_task_until_that_is_over_and_after_a_restart() {
        let root = node();
        let found = gpu::detect(root.path());
        let with = |tasks: Tasks| tasks.with_gpus(names(&found));
        let mut tasks = with(Tasks::default());
        let starting = TaskState::TaskStarting;
        for (task, count) in [("none", 0), ("one", 1), ("two", 1)] {
            assert_eq!(launch(&mut tasks, task, count), starting);
        }
        let none: [&str; 0] = [];
        assert_eq!(of(&tasks, "none"), none);
        assert_eq!(
            (of(&tasks, "one"), of(&tasks, "two")),
            (vec!["nvidia0"], vec!["nvidia1"])
        );
        for (task, count) in [("many", 2), ("huge", u64::MAX)] {
            assert_eq!(launch(&mut tasks, task, count), TaskState::TaskFailed);
            let last = tasks.checkpoint(&id(task)).unwrap().pending.pop().unwrap();
            let words = format!("needs {count} GPUs, and 1 of this node's 3 are free");
            assert!(last.message.contains(&words), "{}", last.message);
        }

        // The next life knows who has which before it launches anything; one that ended has none.
        step(
            &mut tasks,
            Event::Kill {
                task: id("one"),
                grace_ms: 0,
            },
        );
        let end = tasks.get(&id("one")).unwrap().state;
        let mut freed = vec!["nvidia0", "nvidia2"];
        if !end.is_terminal() {
            // Its network is being made; the kill takes effect with the answer.
            let cause = String::new();
            step(
                &mut tasks,
                Event::AttachFailed {
                    task: id("one"),
                    cause,
                },
            );
        }
        let saved = tasks.iter().map(|(id, _)| tasks.checkpoint(id).unwrap());
        let saved = Saved {
            tasks: saved.collect(),
            ..Saved::default()
        };
        let mut tasks = with(Tasks::restore(saved, []));
        step(
            &mut tasks,
            Event::Listing {
                keeper: KeeperId(1),
                containers: BTreeMap::new(),
            },
        );
        assert_eq!(of(&tasks, "two"), ["nvidia1"]);
        assert_eq!(launch(&mut tasks, "next", 2), starting);
        let mut next = of(&tasks, "next");
        next.sort_unstable();
        freed.sort_unstable();
        assert_eq!(next, freed);
    }

    #[test]
    fn a_container_gets_its_own_and_is_told_so() {
        let root = node();
        let found = gpu::detect(root.path());
        let own = [GpuName::new("nvidia2"), GpuName::new("nvidia1")];
        let image = given(root.path(), &own, true).unwrap();
        let sources: BTreeSet<PathBuf> = image.devices.into_iter().map(|d| d.source).collect();
        let wanted = ["/dev/nvidia1", "/dev/nvidia2", "/dev/nvidiactl"];
        assert_eq!(sources, wanted.iter().map(PathBuf::from).collect());
        assert!(!image.mounts.is_empty());
        let native = given(root.path(), &own, false).unwrap();
        assert_eq!((native.devices.len(), native.mounts.len()), (3, 0));
        assert_eq!(visible(&own, &found).as_deref(), Some("1,GPU-cc"));
        assert_eq!(visible(&[], &found), None);
        let gone = given(root.path(), &[GpuName::new("nvidia9")], true).unwrap_err();
        assert_eq!(gone.to_string(), "this node has no GPU nvidia9");
        assert!(given(root.path(), &[], true).unwrap().devices.is_empty());
    }
}
