//! `gantry app add`.

use clap::Args;
use reqwest::Method;
use serde_json::{Value, json};

use super::flags::AppFlags;
use crate::args::{Global, Source};
use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::progress::WaitFlags;

const EXAMPLES: &str = "\
Examples:
  gantry app add web.json
  echo '{\"id\":\"/hello\",\"cmd\":\"sleep 1d\"}' | gantry app add -
  gantry app add --id /hello --cmd 'while date; do sleep 1; done' --cpus 0.1 --mem 32
  gantry app add --id /web --image nginx --network bridge --port 31080:80";

/// Flags of `app add`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct AddArgs {
    /// Marathon's app JSON; `-` reads stdin.
    #[arg(conflicts_with = "id", value_name = "FILE|-")]
    file: Option<Source>,
    /// The service's id when there is no file, such as /group/web.
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    #[command(flatten)]
    app: AppFlags,
    #[command(flatten)]
    wait: WaitFlags,
}

impl AddArgs {
    /// Adds the app and waits for its deployment.
    pub(crate) async fn run(&self, client: &Client, global: &Global) -> Result<(), Failure> {
        let definition = self.definition()?;
        let path = self.wait.path("/v2/apps");
        let answer = client
            .call(Method::POST, &path, Some(&definition))
            .await
            .map_err(|f| {
                if f.exit == Exit::Conflict && f.hint.is_none() {
                    return f.hint("change it with `gantry app update`");
                }
                f
            })?;
        let id = answer.body["id"].as_str().unwrap_or_default().to_owned();
        self.wait.finish(client, global, &id, answer, "added").await
    }

    fn definition(&self) -> Result<Value, Failure> {
        if let Some(file) = &self.file {
            if self.app.given() {
                let message = "flags that describe the app go with --id, not with a file";
                return Err(Failure::new(Exit::Usage, message));
            }
            return Ok(super::definition::of_output(super::read_object(file)?));
        }
        if self.id.is_none() {
            let message = "what to add is not said";
            return Err(Failure::new(Exit::Usage, message).hint(
                "give a file of app JSON (`-` reads stdin), or --id and flags that describe the \
                 app: see `gantry app add --help`",
            ));
        }
        let mut definition = self.app.patch(&Value::Null)?;
        definition["id"] = json!(self.id);
        Ok(definition)
    }
}
