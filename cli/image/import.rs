//! `gantry image import`: a file or a layout directory, sent as one stream. A directory is packed on
//! the way, since the node may be another machine.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use reqwest::Body;
use tokio::sync::mpsc;

use super::lines::{self, Bar};
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
    #[arg(value_name = "FILE")]
    path: PathBuf,
    /// Which of its images: names as the file has them, or @sha256:… [default: all that are for
    /// this node].
    #[arg(value_name = "NAME")]
    images: Vec<String>,
    /// What to call the image, if the file does not say or says something else.
    #[arg(long, value_name = "IMAGE")]
    name: Option<String>,
}

impl ImportArgs {
    pub(super) async fn run(&self, target: &Target, global: &Global) -> Result<(), Failure> {
        let source = Source::open(&self.path)?;
        let (sender, mut pieces) = mpsc::channel(PIECES_MAX);
        let total = source.size_bytes();
        // Ends with the file, or when nobody takes the pieces any more.
        let reading = tokio::task::spawn_blocking(move || source.send(&sender, total));
        let stream = futures_util::stream::poll_fn(move |context| pieces.poll_recv(context));
        let path = target.path(&format!("/import{}", self.query()));
        let response = target.client.upload(&path, Body::wrap_stream(stream)).await;
        let done = match response {
            Ok(response) => lines::follow(response).await,
            Err(failure) => Err(failure),
        };
        if let Ok(Err(error)) = reading.await {
            let message = format!("cannot read {}: {error}", self.path.display());
            return Err(Failure::new(Exit::Failed, message));
        }
        let done = done.map_err(|mut failure| {
            let path = self.path.display();
            failure.message = format!("cannot import {path}: {}", failure.message);
            failure
        })?;
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

impl ImportArgs {
    fn query(&self) -> String {
        let images: Vec<String> = self.images.iter().map(|image| encode(image)).collect();
        let name = self
            .name
            .iter()
            .map(|name| format!("name={}", encode(name)));
        let images = (!images.is_empty()).then(|| format!("images={}", images.join(",")));
        let given: Vec<String> = name.chain(images).collect();
        if given.is_empty() {
            String::new()
        } else {
            format!("?{}", given.join("&"))
        }
    }
}

type Piece = io::Result<Vec<u8>>;

enum Source {
    /// And how long it is, if that is known.
    Stream(Box<dyn Read + Send>, u64),
    Directory(PathBuf),
}

impl Source {
    fn open(path: &Path) -> Result<Self, Failure> {
        let failed = |error: io::Error| {
            let message = format!("cannot read {}: {error}", path.display());
            Failure::new(Exit::Usage, message)
        };
        if path == Path::new("-") {
            return Ok(Self::Stream(Box::new(io::stdin()), 0));
        }
        if path.is_dir() {
            // Anything else would be packed and sent to be refused.
            let is_layout = ["index.json", "manifest.json"].map(|name| path.join(name).is_file());
            if !is_layout.contains(&true) {
                let message = format!(
                    "cannot import {}: it is a directory without index.json, so no OCI image layout",
                    path.display()
                );
                return Err(Failure::new(Exit::Usage, message)
                    .hint("`skopeo copy … oci:DIR` and `umoci` make such directories"));
            }
            return Ok(Self::Directory(path.to_owned()));
        }
        let file = std::fs::File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        Ok(Self::Stream(Box::new(file), metadata.len()))
    }

    /// As far as it is known.
    fn size_bytes(&self) -> u64 {
        match self {
            Self::Stream(_, size_bytes) => *size_bytes,
            Self::Directory(_) => 0,
        }
    }

    fn send(self, to: &mpsc::Sender<Piece>, total: u64) -> io::Result<()> {
        let pieces = Pieces {
            to,
            bar: Bar::new(),
            sent: 0,
            total,
        };
        let mut out = io::BufWriter::with_capacity(PIECE_BYTES, pieces);
        let sent = match self {
            Self::Stream(mut input, _) => io::copy(&mut input, &mut out).map(drop),
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

struct Pieces<'a> {
    to: &'a mpsc::Sender<Piece>,
    bar: Bar,
    sent: u64,
    total: u64,
}

impl io::Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.to.blocking_send(Ok(bytes.to_vec()));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        self.sent += bytes.len() as u64;
        self.bar.total(self.total.max(self.sent));
        self.bar.bytes(self.sent, "sent to the node");
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
