//! `gantry image pull`.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::lines;
use super::target::Target;
use crate::args::Global;
use crate::failure::{Exit, Failure};
use crate::output;

/// Flags of `image pull`.
#[derive(Debug, Args)]
pub(super) struct PullArgs {
    /// The image: `redis:7`, `registry.example/team/app@sha256:…`.
    image: String,
    /// Do nothing if the image is here, even if its tag means another one by now.
    #[arg(long)]
    if_missing: bool,
    /// Registry that may be spoken to over plain HTTP (repeat it; loopback always may).
    #[arg(long, value_name = "HOST[:PORT]")]
    insecure_registry: Vec<String>,
    /// Take the image for another machine, such as linux/arm64; it is kept under its digest, to be
    /// exported.
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<String>,
    /// Logins for this pull, as in Docker's config.json.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl PullArgs {
    pub(super) async fn run(&self, target: &Target, global: &Global) -> Result<(), Failure> {
        let config = match &self.config {
            Some(path) => std::fs::read_to_string(path).map_err(|e| {
                Failure::new(Exit::Usage, format!("cannot read {}: {e}", path.display()))
            })?,
            None => String::new(),
        };
        let order = json!({
            "name": self.image,
            "force": !self.if_missing,
            "insecure_registries": self.insecure_registry,
            "platform": self.platform.as_deref().unwrap_or_default(),
            "config": config,
        });
        let path = target.path("/pull");
        let sent = target.client.stream(&path, &order, "*/*");
        let done = lines::follow(sent.await?).await?;
        if global.json {
            return output::print_json(&done);
        }
        if done["runs_here"] == false {
            output::note("this node cannot run it, so it is kept under its digest only");
        }
        let digest = done["digest"].as_str().unwrap_or_default();
        let name = done["name"].as_str().unwrap_or_default();
        output::print(&format!(
            "{} {}\n",
            output::escape(name),
            output::escape(digest)
        ))
    }
}
