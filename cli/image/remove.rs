//! `gantry image remove` and `gantry image prune`.

use clap::Args;
use reqwest::Method;
use serde_json::{Value, json};

use super::list::size;
use super::target::Target;
use crate::args::Global;
use crate::failure::{Exit, Failure};
use crate::output;
use crate::show::text;

/// Flags of `image remove`.
#[derive(Debug, Args)]
pub(super) struct RemoveArgs {
    /// The image.
    image: String,
    /// Also if it is in use: the name goes at once, the files when nothing needs them any more.
    #[arg(long)]
    force: bool,
}

impl RemoveArgs {
    pub(super) async fn run(&self, target: &Target, global: &Global) -> Result<(), Failure> {
        let order = json!({"name": self.image, "force": self.force});
        let path = target.path("/remove");
        let sent = target.client.call(Method::POST, &path, Some(&order));
        let answer = sent.await.map_err(|failure| match failure.exit {
            Exit::Conflict => failure.hint("--force removes its name at once"),
            _ => failure,
        })?;
        show(&answer.body, global)
    }
}

/// Flags of `image prune`.
#[derive(Debug, Args)]
pub(super) struct PruneArgs {
    /// Every image that is not in use.
    #[arg(long)]
    all: bool,
}

impl PruneArgs {
    pub(super) async fn run(&self, target: &Target, global: &Global) -> Result<(), Failure> {
        let order = json!({"all": self.all});
        let path = target.path("/prune");
        let sent = target.client.call(Method::POST, &path, Some(&order));
        show(&sent.await?.body, global)
    }
}

fn show(report: &Value, global: &Global) -> Result<(), Failure> {
    if global.json {
        return output::print_json(report);
    }
    for name in report["images"].as_array().into_iter().flatten() {
        output::print(&format!("{}\n", output::escape(&text(name))))?;
    }
    let bytes = report["bytes"].as_u64().unwrap_or_default();
    output::note(&format!(
        "{} layers removed, {} freed",
        text(&report["layers"]),
        size(bytes)
    ));
    Ok(())
}
