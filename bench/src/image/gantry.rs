//! Our own store, in this process as it is in the agent's.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use gantry_image::{Image, PullOptions, Reference, Store};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tokio::runtime::Runtime;

use super::tree::Tree;
use super::{Subject, remove};
use crate::report::OURS;

pub(super) struct Gantry {
    dir: PathBuf,
    runtime: Runtime,
    store: Option<Store>,
    image: Option<Image>,
}

impl Gantry {
    pub(super) fn new(scratch: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            dir: scratch.join("gantry"),
            runtime: tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()?,
            store: None,
            image: None,
        })
    }
}

impl Subject for Gantry {
    fn name(&self) -> String {
        OURS.to_owned()
    }

    fn clear(&mut self) -> anyhow::Result<()> {
        (self.store, self.image) = (None, None);
        // A sync in the background may still hold the store.
        let mut removed = remove(&self.dir);
        super::until("the store is let go", || {
            removed = remove(&self.dir);
            removed.is_ok()
        })?;
        removed
    }

    fn pull(&mut self, image: &str) -> anyhow::Result<()> {
        let reference = Reference::parse(image)?;
        if self.store.is_none() {
            self.store = Some(Store::open(&self.dir)?);
        }
        let store = self.store.as_ref().context("a store")?;
        let pulled = self
            .runtime
            .block_on(store.pull(&reference, PullOptions::default()));
        self.image = Some(pulled.map_err(|error| anyhow!("{}", error.message()))?);
        Ok(())
    }

    fn tree(&mut self, _: &str) -> anyhow::Result<Tree> {
        let image = self.image.as_ref().context("an image")?;
        let merged = self.dir.join("merged");
        std::fs::create_dir(&merged)?;
        let lower: Vec<String> = image
            .layers
            .iter()
            .map(|l| l.display().to_string())
            .collect();
        let options = format!("lowerdir={}", lower.join(":"));
        mount(
            Some("overlay"),
            &merged,
            Some("overlay"),
            MsFlags::MS_RDONLY,
            Some(&*options),
        )?;
        let tree = Tree::read(&merged);
        umount2(&merged, MntFlags::MNT_DETACH)?;
        tree
    }
}
