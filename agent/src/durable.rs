//! Small files written whole: a temporary one beside it, flushed, renamed over the old. Whoever
//! reads sees the old text or the new one, also after a power cut. Decides nothing else.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Ending of temporary files; left-over ones are removed by who owns the directory.
pub(crate) const TEMPORARY: &str = ".tmp";

/// Replaces `path`. With `sync` the contents are on disk; the name is after [`sync_dir`].
pub(crate) fn replace(path: &Path, contents: &[u8], sync: bool) -> io::Result<()> {
    let temporary = path.with_file_name(format!(".new{TEMPORARY}"));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(contents)?;
    if sync {
        file.sync_data()?;
    }
    std::fs::rename(&temporary, path)
}

/// Makes the names in a directory durable (fsync(2): the file alone is not enough).
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Reads a file of at most `max` bytes; a longer one is an error.
pub(crate) fn read_bounded(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let mut contents = Vec::new();
    File::open(path)?.take(max + 1).read_to_end(&mut contents)?;
    if contents.len() as u64 > max {
        return Err(io::Error::other(format!("longer than {max} bytes")));
    }
    Ok(contents)
}
