//! `gantry image export`.

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use reqwest::Response;
use serde_json::json;

use super::lines::Bar;
use super::target::Target;
use crate::args::Global;
use crate::client::encode;
use crate::failure::{Exit, Failure};
use crate::output;

/// Which kind of archive.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// An OCI image layout in a tar archive.
    Oci,
    /// As `docker save` writes it.
    Docker,
}

/// Flags of `image export`.
#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// The image.
    image: String,
    /// The file to write, `-` for stdout.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// The kind of archive.
    #[arg(long, value_enum, default_value = "oci")]
    format: Format,
}

impl ExportArgs {
    pub(super) async fn run(&self, target: &Target, global: &Global) -> Result<(), Failure> {
        let to_stdout = self.output == Path::new("-");
        if to_stdout && std::io::stdout().is_terminal() {
            let failure = Failure::new(Exit::Usage, "an archive is nothing for a terminal");
            return Err(failure.hint("name a file with --output"));
        }
        let format = match self.format {
            Format::Oci => "oci",
            Format::Docker => "docker",
        };
        let query = format!("/export?name={}&format={format}", encode(&self.image));
        let response = target.client.download(&target.path(&query)).await?;
        let header = |name: &str| {
            let value = response.headers().get(name);
            let text = value.and_then(|value| value.to_str().ok());
            text.unwrap_or_default().to_owned()
        };
        let (id, repacked) = (header("gantry-image-id"), header("gantry-repacked-layers"));
        let bytes = if to_stdout {
            save(target, response, &mut std::io::stdout().lock()).await?
        } else {
            self.to_file(target, response).await?
        };
        if repacked != "0" {
            output::note(&format!(
                "{} layers were packed anew: the exported image has another id, {}",
                output::escape(&repacked),
                output::escape(&id)
            ));
        }
        if global.json && !to_stdout {
            let repacked: u64 = repacked.parse().unwrap_or_default();
            let done = json!({"id": id, "repacked_layers": repacked, "bytes": bytes});
            return output::print_json(&done);
        }
        Ok(())
    }

    /// A file appears whole or not at all.
    async fn to_file(&self, target: &Target, response: Response) -> Result<u64, Failure> {
        let partial = self.output.with_added_extension("part");
        let failed = |error: std::io::Error| {
            let message = format!("cannot write {}: {error}", self.output.display());
            Failure::new(Exit::Failed, message)
        };
        let mut file = File::create(&partial).map_err(failed)?;
        let saved = save(target, response, &mut file).await;
        let renamed = match &saved {
            Ok(_) => std::fs::rename(&partial, &self.output).map_err(failed),
            Err(_) => std::fs::remove_file(&partial).map_err(failed),
        };
        let bytes = saved?;
        renamed?;
        Ok(bytes)
    }
}

async fn save(
    target: &Target,
    mut response: Response,
    out: &mut impl Write,
) -> Result<u64, Failure> {
    let bar = Bar::new();
    let mut bytes = 0;
    while let Some(piece) = response
        .chunk()
        .await
        .map_err(|e| target.client.unreachable(&e))?
    {
        out.write_all(&piece)?;
        bytes += piece.len() as u64;
        bar.total(bytes);
        bar.bytes(bytes, "exported");
    }
    out.flush()?;
    Ok(bytes)
}
