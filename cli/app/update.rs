//! `gantry app update`.

use clap::Args;
use serde_json::Value;

use super::flags::AppFlags;
use crate::args::{Global, Source};
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::progress::WaitFlags;

const EXAMPLES: &str = "\
Examples:
  gantry app update /hello --cmd 'sleep 1d' --mem 64
  gantry app update /hello --env LEVEL=debug
  gantry app update /hello part.json          the fields in the file replace the app's
  gantry app update /hello whole.json --replace
  gantry app show /hello --json | sed s/old/new/ | gantry app update /hello - --replace";

/// Flags of `app update`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct UpdateArgs {
    /// The service.
    id: String,
    /// JSON with the fields to change; `-` reads stdin.
    #[arg(value_name = "FILE|-", required_unless_present_any = [
        "cmd", "args", "image", "cpus", "mem", "disk", "instances", "env", "label", "user",
        "network", "port", "volume",
    ])]
    file: Option<Source>,
    /// The file is the whole definition: fields that it leaves out get their defaults.
    #[arg(long, requires = "file")]
    replace: bool,
    #[command(flatten)]
    app: AppFlags,
    #[command(flatten)]
    wait: WaitFlags,
}

impl UpdateArgs {
    /// Changes the app and waits for its deployment.
    pub(crate) async fn run(&self, client: &Client, global: &Global) -> Result<(), Failure> {
        let patch = self.patch(client).await?;
        let answer = super::change::put(client, &self.wait, &self.id, &patch, self.replace).await?;
        self.wait
            .finish(client, global, &super::full_id(&self.id), answer, "updated")
            .await
    }

    async fn patch(&self, client: &Client) -> Result<Value, Failure> {
        if let Some(file) = &self.file {
            if self.app.given() {
                let message = "give either a file or flags, not both";
                return Err(Failure::new(Exit::Usage, message));
            }
            return Ok(super::definition::of_output(super::read_object(file)?));
        }
        if !self.app.needs_current() {
            return self.app.patch(&Value::Null);
        }
        let current = client.get(&super::app_path(&self.id)).await?;
        self.app.patch(&current["app"])
    }
}
