//! Where things lie in the agent's data directory, and the tag that marks what it makes in the
//! kernel. Decides names only; reads and writes nothing but the directories themselves.
//!
//! ```text
//! keeper.sock keeper.lock keeper.id   agent.json   drain.json   lock
//! tasks/<task>.json                   checkpoints     tasks.corrupt/   those that cannot be read
//! executors/<container>.json          those of executors with their tasks
//! customs/<container>.json            those of frameworks' own executors with their tasks
//! executor.key executor.port   doors/<container>/executor.sock     how those reach the agent
//! launched/<container>.json           those that the API was asked for
//! images/   fetch/                    what registries and other servers sent
//! containers/<container>/             private directories, gone when the container is
//! slaves/<agent>/frameworks/<fw>/executors/<executor>/runs/<container>/    sandboxes
//! ```
//! A task with an executor of its own has that one's sandbox. Those that share one have sandboxes in
//! it, `containers/<container>/`, and links there by their names, `tasks/<task>`.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use gantry_wire::ids::{AgentId, ContainerId, ExecutorId, FrameworkId};

/// Where the sandboxes of tasks are in that of their executor, and the links to them.
pub(crate) const NESTED: &str = "containers";
pub(crate) const NESTED_BY_TASK: &str = "tasks";
/// Mode of every directory above a sandbox.
const PRIVATE: u32 = 0o700;

/// The data directory, as an absolute path without links.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Makes the directories that must be there.
    pub(crate) fn create(data_dir: &Path) -> io::Result<Self> {
        private_dir(data_dir)?;
        let layout = Self {
            root: data_dir.canonicalize()?,
        };
        let dirs = [
            layout.tasks(),
            layout.executors(),
            layout.customs(),
            layout.doors(),
            layout.corrupt(),
            layout.images(),
            layout.fetch(),
            layout.containers(),
            layout.slaves(),
            layout.launched(),
        ];
        for dir in dirs {
            private_dir(&dir)?;
        }
        Ok(layout)
    }

    /// That of a former life, as it is.
    pub(crate) fn existing(data_dir: &Path) -> io::Result<Self> {
        let root = data_dir.canonicalize()?;
        Ok(Self { root })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }
    pub(crate) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }
    pub(crate) fn identity(&self) -> PathBuf {
        self.root.join("agent.json")
    }
    pub(crate) fn drain(&self) -> PathBuf {
        self.root.join("drain.json")
    }
    pub(crate) fn keeper_id(&self) -> PathBuf {
        self.root.join("keeper.id")
    }
    pub(crate) fn tasks(&self) -> PathBuf {
        self.root.join("tasks")
    }
    pub(crate) fn executors(&self) -> PathBuf {
        self.root.join("executors")
    }
    pub(crate) fn customs(&self) -> PathBuf {
        self.root.join("customs")
    }
    pub(crate) fn doors(&self) -> PathBuf {
        self.root.join("doors")
    }
    pub(crate) fn executor_key(&self) -> PathBuf {
        self.root.join("executor.key")
    }
    pub(crate) fn executor_port(&self) -> PathBuf {
        self.root.join("executor.port")
    }
    pub(crate) fn corrupt(&self) -> PathBuf {
        self.root.join("tasks.corrupt")
    }
    pub(crate) fn images(&self) -> PathBuf {
        self.root.join("images")
    }
    pub(crate) fn fetch(&self) -> PathBuf {
        self.root.join("fetch")
    }
    pub(crate) fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }
    pub(crate) fn launched(&self) -> PathBuf {
        self.root.join("launched")
    }
    pub(crate) fn slaves(&self) -> PathBuf {
        self.root.join("slaves")
    }

    /// The sandbox of one container of an executor.
    pub(crate) fn sandbox(
        &self,
        agent: &AgentId,
        framework: &FrameworkId,
        executor: &ExecutorId,
        container: &ContainerId,
    ) -> PathBuf {
        let executor = format!("{agent}/frameworks/{framework}/executors/{executor}");
        self.slaves()
            .join(executor)
            .join("runs")
            .join(container.as_str())
    }

    /// Eight hex digits that mark everything in the kernel as belonging to this data directory:
    /// FNV-1a of its path, so that several nodes may live on one machine.
    pub(crate) fn tag(&self) -> String {
        let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
        for byte in self.root.as_os_str().as_encoded_bytes() {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        format!("{hash:016x}")[..8].to_owned()
    }

    /// Parent of the cgroups of this node's containers.
    pub(crate) fn cgroup_parent(&self) -> String {
        format!("gantry-{}", self.tag())
    }
}

/// The sandbox of a task within that of its executor.
pub(crate) fn nested_sandbox(executor: &Path, container: &ContainerId) -> PathBuf {
    executor.join(NESTED).join(container.as_str())
}

/// Makes a directory and its parents with mode 0700; an existing one is left as it is.
pub(crate) fn private_dir(dir: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(PRIVATE)
        .create(dir)
}
