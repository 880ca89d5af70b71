//! A layer's archive made anew from its directory: always the same bytes for the same files, but
//! not those of the archive that it came from.
//!
//! Overlayfs's marks turn back into the archive's: a character device 0:0 into `.wh.name`, an opaque
//! directory into `.wh..wh..opq`. Paths are walked with std, which follows no link here: the
//! directory is the store's own, and nobody else can reach it.

use std::collections::HashMap;
use std::ffi::{CString, OsString};
use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use tar::{Builder, EntryType, Header};

const OPAQUE: &str = "trusted.overlay.opaque";
/// Longest list of attribute names and longest value: what the kernel allows.
const MAX_XATTR_BYTES: usize = 64 << 10;

/// Writes the archive of the layer in `root`.
pub(super) fn pack(root: &Path, out: &mut dyn Write) -> io::Result<()> {
    let mut packer = Packer {
        tar: Builder::new(out),
        links: HashMap::new(),
    };
    packer.directory(root, Path::new(""))?;
    packer.tar.into_inner()?.flush()
}

struct Packer<'a> {
    tar: Builder<&'a mut dyn Write>,
    /// The first name of each file that has several.
    links: HashMap<u64, PathBuf>,
}

impl Packer<'_> {
    fn directory(&mut self, root: &Path, inside: &Path) -> io::Result<()> {
        let directory = root.join(inside);
        if read_xattr(&directory, OPAQUE)?.as_deref() == Some(b"y") {
            self.mark(&inside.join(".wh..wh..opq"))?;
        }
        let mut names: Vec<OsString> = Vec::new();
        for entry in fs::read_dir(&directory)? {
            names.push(entry?.file_name());
        }
        names.sort();
        for name in names {
            let path = inside.join(&name);
            let metadata = root.join(&path).symlink_metadata()?;
            if metadata.file_type().is_char_device() && metadata.rdev() == 0 {
                let hidden = [b".wh.", name.as_bytes()].concat();
                self.mark(&inside.join(OsString::from_vec(hidden)))?;
                continue;
            }
            self.entry(root, &path, &metadata)?;
            if metadata.is_dir() {
                self.directory(root, &path)?;
            }
        }
        Ok(())
    }

    /// An empty file that says something about others.
    fn mark(&mut self, path: &Path) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_size(0);
        header.set_mode(0);
        header.set_mtime(0);
        self.tar.append_data(&mut header, path, io::empty())
    }

    fn entry(&mut self, root: &Path, path: &Path, metadata: &Metadata) -> io::Result<()> {
        let full = root.join(path);
        let mut header = Header::new_gnu();
        header.set_mode(metadata.mode() & 0o7777);
        header.set_uid(metadata.uid().into());
        header.set_gid(metadata.gid().into());
        header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or(0));
        header.set_size(0);
        let kind = metadata.file_type();
        if !kind.is_symlink() {
            self.attributes(&full)?;
        }
        if metadata.nlink() > 1 && !kind.is_dir() {
            if let Some(first) = self.links.get(&metadata.ino()) {
                header.set_entry_type(EntryType::Link);
                return self.tar.append_link(&mut header, path, first);
            }
            self.links.insert(metadata.ino(), path.to_owned());
        }
        if kind.is_symlink() {
            header.set_entry_type(EntryType::Symlink);
            let target = fs::read_link(&full)?;
            self.tar.append_link(&mut header, path, target)
        } else if kind.is_dir() {
            header.set_entry_type(EntryType::Directory);
            let name = [path.as_os_str().as_bytes(), b"/"].concat();
            self.tar.append_data(
                &mut header,
                PathBuf::from(OsString::from_vec(name)),
                io::empty(),
            )
        } else if kind.is_file() {
            header.set_entry_type(EntryType::Regular);
            header.set_size(metadata.len());
            self.tar.append_data(&mut header, path, File::open(&full)?)
        } else if kind.is_fifo() {
            header.set_entry_type(EntryType::Fifo);
            self.tar.append_data(&mut header, path, io::empty())
        } else {
            // Unpacking makes nothing else.
            Ok(())
        }
    }

    /// The attributes that unpacking keeps, in front of the entry that has them.
    fn attributes(&mut self, path: &Path) -> io::Result<()> {
        let mut list = vec![0; MAX_XATTR_BYTES];
        let length = rustix::fs::llistxattr(path, &mut list[..])?;
        let mut records = Vec::new();
        for name in list[..length].split(|byte| *byte == 0) {
            let Ok(name) = std::str::from_utf8(name) else {
                continue;
            };
            let is_user = name.starts_with("user.") && !name.starts_with("user.overlay.");
            if (is_user || name == "security.capability")
                && let Some(value) = read_xattr(path, name)?
            {
                records.push((format!("SCHILY.xattr.{name}"), value));
            }
        }
        records.sort();
        let records = records
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_slice()));
        self.tar.append_pax_extensions(records)
    }
}

fn read_xattr(path: &Path, name: &str) -> io::Result<Option<Vec<u8>>> {
    let mut value = vec![0; MAX_XATTR_BYTES];
    let name = CString::new(name)?;
    match rustix::fs::lgetxattr(path, name.as_c_str(), &mut value[..]) {
        Ok(length) => {
            value.truncate(length);
            Ok(Some(value))
        }
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
