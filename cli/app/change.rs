//! `gantry app scale`, `restart` and `remove`: the changes that need no definition.

use clap::Args;
use reqwest::Method;
use serde_json::{Value, json};

use super::{app_path, full_id};
use crate::args::Global;
use crate::client::{Answer, Client};
use crate::failure::Failure;
use crate::progress::WaitFlags;

/// Writes fields of an existing app; with `replace` the fields left out get their defaults.
pub(super) async fn put(
    client: &Client,
    wait: &WaitFlags,
    id: &str,
    body: &Value,
    replace: bool,
) -> Result<Answer, Failure> {
    let path = app_path(id);
    // PUT creates a missing app: a change must not.
    client.get(&path).await?;
    let path = if replace {
        format!("{path}?partialUpdate=false")
    } else {
        path
    };
    client
        .call(Method::PUT, &wait.path(&path), Some(body))
        .await
}

/// Flags of `app scale`.
#[derive(Debug, Args)]
pub(crate) struct ScaleArgs {
    /// The service.
    id: String,
    /// How many instances shall run.
    instances: u32,
    #[command(flatten)]
    wait: WaitFlags,
}

impl ScaleArgs {
    /// Sets the count and waits.
    pub(crate) async fn run(&self, client: &Client, global: &Global) -> Result<(), Failure> {
        let body = json!({"instances": self.instances});
        let answer = put(client, &self.wait, &self.id, &body, false).await?;
        let done = format!("scaled to {}", self.instances);
        self.wait
            .finish(client, global, &full_id(&self.id), answer, &done)
            .await
    }
}

/// Flags of `app restart`.
#[derive(Debug, Args)]
pub(crate) struct RestartArgs {
    /// The service.
    id: String,
    #[command(flatten)]
    wait: WaitFlags,
}

impl RestartArgs {
    /// Replaces the instances and waits.
    pub(crate) async fn run(&self, client: &Client, global: &Global) -> Result<(), Failure> {
        let path = self.wait.path(&format!("{}/restart", app_path(&self.id)));
        let answer = client.call(Method::POST, &path, None).await?;
        self.wait
            .finish(client, global, &full_id(&self.id), answer, "restarted")
            .await
    }
}

/// Flags of `app remove`.
#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// The service.
    id: String,
    /// Accepted and without effect: nothing is asked.
    #[arg(long, hide = true)]
    yes: bool,
    #[command(flatten)]
    wait: WaitFlags,
}

impl RemoveArgs {
    /// Removes the app and waits until its tasks are gone.
    pub(crate) async fn run(&self, client: &Client, global: &Global) -> Result<(), Failure> {
        let path = self.wait.path(&app_path(&self.id));
        let answer = client.call(Method::DELETE, &path, None).await?;
        self.wait
            .finish(client, global, &full_id(&self.id), answer, "removed")
            .await
    }
}
