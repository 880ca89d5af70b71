//! The two blocking stages of a layer, whoever has the compressed bytes: one thread inflates, one
//! hashes the archive and writes files.
//!
//! It decides how a compression is undone and within what memory. It does not verify the compressed
//! bytes; who gives them does. Invariant: what it returns has the expected digest and is in no
//! layer's place yet.

use std::io::{BufRead, Read};

use flate2::bufread::MultiGzDecoder;

use crate::Digest;
use crate::error::PullFailure;
use crate::manifest::{Compression, Layer};
use crate::pipe;
use crate::recipe::Notes;
use crate::store::layers::Unfinished;
use crate::store::name::LayerName;
use crate::store::{Inner, store_error};
use crate::unpack::{self, UnpackError, Unpacked};
use gantry_intake::TarError;

/// Largest window of a zstd layer, as a power of two: the 128 MiB that the zstd tool, and so every
/// other engine, takes by default. A frame that asks for more is refused before memory is taken.
const MAX_ZSTD_WINDOW_LOG: u32 = 27;

/// A layer that is unpacked and verified.
pub(crate) struct Ready {
    unfinished: Unfinished,
    implied: Vec<Vec<u8>>,
    size_bytes: u64,
}

impl Ready {
    /// Puts it in its place; the caller has the layer's lock. Blocks.
    pub(crate) fn finish(self) -> Result<(), PullFailure> {
        let finished = self.unfinished.finish(&self.implied, self.size_bytes);
        finished.map_err(store_error("put a layer in place"))
    }
}

/// Unpacks a layer from its compressed bytes.
pub(crate) fn unpack(
    inner: &Inner,
    layer: Layer,
    diff_id: Digest,
    reader: impl BufRead + Send,
) -> Result<Ready, PullFailure> {
    let unfinished = inner
        .layers
        .begin(LayerName::layer(diff_id))
        .map_err(store_error("create a directory"))?;
    let failed = |source| PullFailure::Layer {
        digest: layer.blob.digest,
        source,
    };
    let write = |plain: &mut dyn BufRead| {
        let root = unfinished.root().map_err(store_error("open a directory"))?;
        let notes = Notes::create(&unfinished.recipe());
        let unpacked = unpack::unpack(plain, root, &inner.limits, layer.blob.size_bytes, notes);
        Ok::<_, PullFailure>(unpacked)
    };
    let unpacked = match layer.compression {
        Compression::None => write(&mut { reader })?,
        Compression::Gzip => inflate(MultiGzDecoder::new(reader), write)?,
        Compression::Zstd => inflate(zstd(reader).map_err(store_error("inflate"))?, write)?,
    };
    let Unpacked {
        digest,
        implied,
        size_bytes,
        noted,
    } = unpacked.map_err(failed)?;
    if digest != diff_id {
        return Err(failed(UnpackError::WrongDiffId {
            expected: diff_id,
            actual: digest,
        }));
    }
    if !noted {
        // It may be there in part. What cannot be removed is not taken for whole: replaying compares
        // digests.
        let _ = std::fs::remove_file(unfinished.recipe());
    }
    Ok(Ready {
        unfinished,
        implied,
        size_bytes,
    })
}

/// A zstd decoder in bounded memory.
pub(crate) fn zstd<R: BufRead>(
    reader: R,
) -> std::io::Result<zstd::stream::read::Decoder<'static, R>> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(reader)?;
    decoder.window_log_max(MAX_ZSTD_WINDOW_LOG)?;
    Ok(decoder)
}

/// Runs `write` on what `inflater` gives, which runs on a thread of its own.
fn inflate(
    inflater: impl Read + Send,
    write: impl FnOnce(&mut dyn BufRead) -> Result<Result<Unpacked, UnpackError>, PullFailure>,
) -> Result<Result<Unpacked, UnpackError>, PullFailure> {
    let (sender, mut plain) = pipe::plain();
    std::thread::scope(|threads| {
        let inflating = std::thread::Builder::new()
            .name("inflate".into())
            .spawn_scoped(threads, move || sender.drain(inflater))
            .map_err(store_error("start a thread"))?;
        let unpacked = write(&mut plain);
        // The inflater ends when nobody reads any more.
        drop(plain);
        let inflated = inflating
            .join()
            .unwrap_or_else(|_| Err(std::io::Error::other("the inflating thread panicked")));
        Ok(first_cause(inflated, unpacked?))
    })
}

/// When the inflater fails, the unpacker only sees a cut pipe; a refusal of its own came before.
fn first_cause(
    inflated: std::io::Result<()>,
    unpacked: Result<Unpacked, UnpackError>,
) -> Result<Unpacked, UnpackError> {
    match (inflated, unpacked) {
        (Err(error), Err(UnpackError::Tar(_)) | Ok(_)) => Err(TarError::Read(error).into()),
        (_, unpacked) => unpacked,
    }
}
