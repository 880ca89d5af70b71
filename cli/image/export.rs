//! `gantry image export`.

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use reqwest::Response;
use serde_json::json;

use super::lines::{self, Bar};
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
        let about: u64 = header("gantry-layer-bytes").parse().unwrap_or_default();
        let bytes = if to_stdout {
            save(response, &mut std::io::stdout().lock(), about).await?
        } else {
            self.to_file(response, about).await?
        };
        if repacked != "0" {
            output::note(&format!(
                "{} layers were packed anew: the exported image has another id",
                output::escape(&repacked)
            ));
        }
        if global.json && !to_stdout {
            let repacked: u64 = repacked.parse().unwrap_or_default();
            let id = (!id.is_empty()).then_some(id);
            let done = json!({"id": id, "repacked_layers": repacked, "bytes": bytes});
            return output::print_json(&done);
        }
        Ok(())
    }

    /// A file appears whole or not at all.
    async fn to_file(&self, response: Response, about: u64) -> Result<u64, Failure> {
        let failed = |error: &std::io::Error| {
            let message = format!("cannot write {}: {error}", self.output.display());
            let failure = Failure::new(Exit::Failed, message);
            match error.kind() {
                std::io::ErrorKind::StorageFull => {
                    failure.hint("name a file on another disk with --output, or - for a pipe")
                }
                _ => failure,
            }
        };
        let partial = Partial(self.output.with_added_extension("part"));
        let mut file = File::create(&partial.0).map_err(|error| failed(&error))?;
        let mut out = Noted::new(&mut file);
        let saved = save(response, &mut out, about).await;
        if let Some(error) = out.error {
            return Err(failed(&error));
        }
        let bytes = saved?;
        std::fs::rename(&partial.0, &self.output).map_err(|error| failed(&error))?;
        Ok(bytes)
    }
}

/// What is written so far; goes when the command fails or is interrupted.
struct Partial(PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        // After the rename there is none.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Keeps the error of a file, to be told with its name.
struct Noted<'a> {
    file: &'a mut File,
    error: Option<std::io::Error>,
}

impl<'a> Noted<'a> {
    fn new(file: &'a mut File) -> Self {
        Self { file, error: None }
    }
}

impl Write for Noted<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.file.write(bytes).map_err(|error| {
            let told = std::io::Error::from(error.kind());
            if error.kind() != std::io::ErrorKind::Interrupted {
                self.error = Some(error);
            }
            told
        })
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

async fn save(mut response: Response, out: &mut impl Write, about: u64) -> Result<u64, Failure> {
    let bar = Bar::new();
    let mut bytes = 0;
    while let Some(piece) = response.chunk().await.map_err(|_| lines::broken())? {
        out.write_all(&piece)?;
        bytes += piece.len() as u64;
        bar.total(about.max(bytes));
        bar.bytes(bytes, "exported");
    }
    out.flush()?;
    Ok(bytes)
}
