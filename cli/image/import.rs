//! `gantry image import`: a file or a layout directory, sent as one stream. A directory is packed on
//! the way, since the node may be another machine.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use reqwest::Body;
use tokio::sync::mpsc;

use super::lines;
use super::target::Target;
use crate::args::Global;
use crate::client::encode;
use crate::failure::{Exit, Failure};
use crate::output;
use crate::show::text;

/// Pieces of the archive on their way, and their size.
const PIECES_MAX: usize = 8;
const PIECE_BYTES: usize = 256 << 10;

/// Flags of `image import`.
#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// A tar archive (OCI image layout or `docker save`, also compressed), a layout directory, or
    /// `-` for stdin.
    path: PathBuf,
    /// What to call the image, if the archive does not say or says something else.
    #[arg(long, value_name = "IMAGE")]
    name: Option<String>,
}

impl ImportArgs {
    pub(super) async fn run(&self, target: &Target, global: &Global) -> Result<(), Failure> {
        let source = Source::open(&self.path).map_err(|error| {
            Failure::new(
                Exit::Usage,
                format!("cannot read {}: {error}", self.path.display()),
            )
        })?;
        let (sender, mut pieces) = mpsc::channel(PIECES_MAX);
        // Ends with the file, or when nobody takes the pieces any more.
        let reading = tokio::task::spawn_blocking(move || source.send(&sender));
        let stream = futures_util::stream::poll_fn(move |context| pieces.poll_recv(context));
        let query = self
            .name
            .as_deref()
            .map(|name| format!("?name={}", encode(name)));
        let path = target.path(&format!("/import{}", query.unwrap_or_default()));
        let response = target.client.upload(&path, Body::wrap_stream(stream)).await;
        let done = lines::follow(&target.client, response?).await?;
        if let Ok(Err(error)) = reading.await {
            let message = format!("cannot read {}: {error}", self.path.display());
            return Err(Failure::new(Exit::Failed, message));
        }
        if global.json {
            return output::print_json(&done["images"]);
        }
        for image in done["images"].as_array().into_iter().flatten() {
            let names: Vec<String> = image["names"]
                .as_array()
                .into_iter()
                .flatten()
                .map(text)
                .collect();
            let line = format!("{} {}", names.join(" "), text(&image["digest"]));
            output::print(&format!("{}\n", output::escape(&line)))?;
        }
        Ok(())
    }
}

type Piece = io::Result<Vec<u8>>;

enum Source {
    Stream(Box<dyn Read + Send>),
    Directory(PathBuf),
}

impl Source {
    fn open(path: &Path) -> io::Result<Self> {
        if path == Path::new("-") {
            return Ok(Self::Stream(Box::new(io::stdin())));
        }
        if path.is_dir() {
            return Ok(Self::Directory(path.to_owned()));
        }
        Ok(Self::Stream(Box::new(std::fs::File::open(path)?)))
    }

    fn send(self, to: &mpsc::Sender<Piece>) -> io::Result<()> {
        let mut out = io::BufWriter::with_capacity(PIECE_BYTES, Pieces(to));
        let sent = match self {
            Self::Stream(mut input) => io::copy(&mut input, &mut out).map(drop),
            Self::Directory(dir) => {
                let mut tar = tar::Builder::new(&mut out);
                // A link would be followed by whoever reads the directory, so it is here.
                tar.follow_symlinks(true);
                tar.append_dir_all("", &dir).and_then(|()| tar.finish())
            }
        };
        let sent = sent.and_then(|()| io::Write::flush(&mut out));
        if let Err(error) = &sent
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            // The node must not take a part for the whole.
            let cut = io::Error::new(error.kind(), error.to_string());
            let _ = to.blocking_send(Err(cut));
        }
        match sent {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other,
        }
    }
}

struct Pieces<'a>(&'a mpsc::Sender<Piece>);

impl io::Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(bytes.to_vec()));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
