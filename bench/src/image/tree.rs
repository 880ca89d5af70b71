//! What a container sees: every path with its kind, mode, owner and content, and the times of
//! files. Two subjects agree if their trees do.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context, bail};
use gantry_image::Digest;

/// One path.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    path: String,
    said: String,
}

impl Entry {
    pub(super) fn directory(path: &str, mode: u32, owner: (u64, u64)) -> Self {
        Self {
            path: path.to_owned(),
            said: format!("d {mode:o} {}:{}", owner.0, owner.1),
        }
    }

    pub(super) fn file(
        path: &str,
        mode: u32,
        owner: (u64, u64),
        time: u64,
        content: &[u8],
    ) -> Self {
        let digest = Digest::of(content);
        Self {
            path: path.to_owned(),
            said: format!(
                "f {mode:o} {}:{} {time} {} {digest}",
                owner.0,
                owner.1,
                content.len()
            ),
        }
    }

    pub(super) fn symlink(path: &str, target: &str) -> Self {
        Self {
            path: path.to_owned(),
            said: format!("l {target}"),
        }
    }

    pub(super) fn is_file(&self) -> bool {
        self.said.starts_with("f ")
    }
}

/// All paths.
#[derive(Debug)]
pub(super) struct Tree(BTreeMap<String, String>);

impl Tree {
    pub(super) fn new(entries: Vec<Entry>) -> Self {
        Self(
            entries
                .into_iter()
                .map(|entry| (entry.path, entry.said))
                .collect(),
        )
    }

    /// Reads what is below `root`.
    pub(super) fn read(root: &Path) -> anyhow::Result<Self> {
        let mut tree = BTreeMap::new();
        let mut waiting = vec![root.to_owned()];
        while let Some(dir) = waiting.pop() {
            for entry in fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
                let path = entry?.path();
                let metadata = path.symlink_metadata()?;
                let name = path.strip_prefix(root)?.to_str().context("a name")?;
                let owner = (metadata.uid().into(), metadata.gid().into());
                let mode = metadata.mode() & 0o7777;
                let entry = if metadata.is_dir() {
                    waiting.push(path.clone());
                    Entry::directory(name, mode, owner)
                } else if metadata.is_symlink() {
                    let target = fs::read_link(&path)?;
                    Entry::symlink(name, target.to_str().context("a target")?)
                } else {
                    let time = u64::try_from(metadata.mtime())?;
                    Entry::file(name, mode, owner, time, &fs::read(&path)?)
                };
                tree.insert(entry.path, entry.said);
            }
        }
        Ok(Self(tree))
    }

    /// Fails with the first difference.
    pub(super) fn same_as(&self, other: &Self) -> anyhow::Result<()> {
        let paths = self.0.keys().chain(other.0.keys());
        let differs = |path: &&String| self.0.get(*path) != other.0.get(*path);
        if let Some(path) = paths.into_iter().find(differs) {
            let [want, got] = [self, other].map(|tree| tree.0.get(path));
            bail!("{path}: should be {want:?}, is {got:?}");
        }
        Ok(())
    }

    /// Of all that it says.
    pub(super) fn hash(&self) -> String {
        let lines: Vec<String> = self
            .0
            .iter()
            .map(|(path, said)| format!("{path} {said}\n"))
            .collect();
        Digest::of(lines.concat().as_bytes()).to_string()
    }
}
