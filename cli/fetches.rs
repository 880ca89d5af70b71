//! What tasks may have fetched, as flags of the commands that run a node.

use std::path::PathBuf;

use clap::Args;
use gantry_agent::fetch::Config;

/// Flags about what tasks have fetched.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Fetching")]
pub(crate) struct FetchFlags {
    /// Server that tasks may have files fetched from although it is this machine or has a
    /// link-local address (repeat it). Whoever may start tasks reaches it as this node does.
    #[arg(long, value_name = "HOST[:PORT]")]
    fetch_from: Vec<String>,
    /// Directory of this node whose files tasks may have, whatever their permissions (repeat it);
    /// elsewhere only what everyone may read.
    #[arg(long, value_name = "DIR")]
    fetch_files: Vec<PathBuf>,
    /// Directory that relative paths of tasks are relative to.
    #[arg(long, value_name = "DIR")]
    frameworks_home: Option<PathBuf>,
    /// Most MiB of fetched files that are kept for the next task; 0 keeps none.
    #[arg(long, value_name = "MIB", default_value_t = 2048)]
    fetch_cache: u64,
}

impl FetchFlags {
    /// The same for the node.
    pub(crate) fn config(&self) -> Config {
        Config {
            cache_bytes: self.fetch_cache.saturating_mul(1 << 20),
            hosts: self.fetch_from.clone(),
            local: self.fetch_files.clone(),
            frameworks_home: self.frameworks_home.clone(),
            ..Config::default()
        }
    }
}
