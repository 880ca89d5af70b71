//! `skopeo copy` into a layout, then `umoci unpack`. umoci unpacks whole images only; what is in the
//! layout already skopeo does not fetch again.

use std::path::{Path, PathBuf};

use super::tree::Tree;
use super::{Subject, output, remove, version};

pub(super) struct Skopeo {
    dir: PathBuf,
    name: String,
    /// umoci wants a new directory each time.
    bundles: u32,
}

impl Skopeo {
    pub(super) fn find(scratch: &Path) -> anyhow::Result<Self> {
        let skopeo = version("skopeo", &["--version"], 2)?;
        let umoci = version("umoci", &["--version"], 2)?;
        Ok(Self {
            dir: scratch.join("skopeo"),
            name: format!("skopeo {skopeo} + umoci {umoci}"),
            bundles: 0,
        })
    }

    fn bundle(&self) -> PathBuf {
        self.dir.join(format!("bundle{}", self.bundles))
    }
}

impl Subject for Skopeo {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn clear(&mut self) -> anyhow::Result<()> {
        remove(&self.dir)?;
        Ok(std::fs::create_dir(&self.dir)?)
    }

    fn pull(&mut self, image: &str) -> anyhow::Result<()> {
        self.bundles += 1;
        let layout = format!("{}:pulled", self.dir.join("layout").display());
        let (from, to) = (format!("docker://{image}"), format!("oci:{layout}"));
        output(
            "skopeo",
            &["copy", "-q", "--src-tls-verify=false", &from, &to],
        )?;
        let bundle = self.bundle().display().to_string();
        output("umoci", &["unpack", "--image", &layout, &bundle])?;
        Ok(())
    }

    fn tree(&mut self, _: &str) -> anyhow::Result<Tree> {
        Tree::read(&self.bundle().join("rootfs"))
    }
}
