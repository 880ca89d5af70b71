//! Which graphics processors of the node which task has. Decides the assignment only; what a
//! processor is, and what a container needs to use it, is the shell's.
//!
//! Invariant: no processor belongs to two tasks that are not over; a task keeps its own from its
//! launch to its end, across restarts, since they are in its checkpoint.

use std::collections::BTreeSet;

/// A processor as the node calls it, such as `nvidia0`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct GpuName(String);

impl GpuName {
    /// A name, as it is.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The first `count` of the node's that nobody holds, or a sentence that says that there are fewer.
pub(crate) fn assign(
    node: &[GpuName],
    held: &BTreeSet<&GpuName>,
    count: u64,
) -> Result<Vec<GpuName>, String> {
    let free: Vec<&GpuName> = node.iter().filter(|gpu| !held.contains(gpu)).collect();
    match usize::try_from(count) {
        Ok(count) if count <= free.len() => Ok(free.into_iter().take(count).cloned().collect()),
        _ => Err(format!(
            "the task needs {count} GPUs, and {} of this node's {} are free",
            free.len(),
            node.len()
        )),
    }
}
