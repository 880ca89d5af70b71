//! `/files/browse`: what lies in a directory of a sandbox, as `ls -l` would print it
//! (`src/common/protobuf_utils.cpp`, `FileInfo`). Links are shown, not followed.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use rustix::fs::{AtFlags, Dir, FileType, Stat};
use serde::Serialize;

use super::Server;
use super::beneath::{self, Found};
use super::files::{self, PathQuery};
use super::problem::Problem;

/// Entries listed at most; a workload can make any number.
const ENTRIES_MAX: usize = 10_000;

/// Something in a directory.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) path: String,
    pub(super) stat: Stat,
}

impl Entry {
    pub(super) fn size(&self) -> u64 {
        u64::try_from(self.stat.st_size).unwrap_or_default()
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Line {
    path: String,
    nlink: u64,
    size: u64,
    mtime: i64,
    mode: String,
    uid: String,
    gid: String,
}

pub(super) async fn browse(
    State(server): State<Arc<Server>>,
    query: Result<Query<PathQuery>, QueryRejection>,
) -> Result<Json<Vec<Line>>, Problem> {
    let path = files::path_of(query)?;
    let Found::Directory(dir) = files::find(&server, path.clone()).await? else {
        return Err(Problem::BadRequest("Not a directory".to_owned()));
    };
    let prefix = path.unwrap_or_default().trim_end_matches('/').to_owned();
    let entries = files::blocking(move || list(&dir, &prefix)).await?;
    Ok(Json(entries.into_iter().map(Line::from).collect()))
}

impl From<Entry> for Line {
    fn from(entry: Entry) -> Self {
        let stat = &entry.stat;
        Self {
            nlink: stat.st_nlink,
            size: entry.size(),
            mtime: stat.st_mtime,
            mode: mode(stat),
            uid: owner(stat.st_uid),
            gid: owner(stat.st_gid),
            path: entry.path,
        }
    }
}

pub(super) fn list(dir: &OwnedFd, prefix: &str) -> Result<Vec<Entry>, Problem> {
    let failed = |error: rustix::io::Errno| Problem::Internal(error.to_string());
    let mut entries = Vec::new();
    for entry in Dir::read_from(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        // What is gone since is left out.
        let Ok(stat) = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) else {
            continue;
        };
        entries.push(Entry {
            path: format!("{prefix}/{}", name.to_string_lossy()),
            stat,
        });
        if entries.len() == ENTRIES_MAX {
            break;
        }
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(entries)
}

/// Names would be the host's, the files a container's: only root is the same in both.
pub(super) fn owner(id: u32) -> String {
    if id == 0 {
        "root".to_owned()
    } else {
        id.to_string()
    }
}

fn mode(stat: &Stat) -> String {
    let kind = match beneath::file_type(stat) {
        FileType::Directory => 'd',
        FileType::Symlink => 'l',
        FileType::Fifo => 'p',
        FileType::Socket => 's',
        FileType::CharacterDevice => 'c',
        FileType::BlockDevice => 'b',
        _ => '-',
    };
    let bit = |n: u32| {
        let letter = ['r', 'w', 'x'][n as usize % 3];
        if stat.st_mode & (0o400 >> n) == 0 {
            '-'
        } else {
            letter
        }
    };
    std::iter::once(kind).chain((0..9).map(bit)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn lists_as_mesos_does() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("b"), "12").unwrap();
        let permissions = std::fs::Permissions::from_mode(0o640);
        std::fs::set_permissions(dir.path().join("b"), permissions).unwrap();
        std::fs::create_dir(dir.path().join("a")).unwrap();
        let fd = OwnedFd::from(std::fs::File::open(dir.path()).unwrap());
        let entries = list(&fd, "/x").unwrap();
        let shown: Vec<_> = entries
            .iter()
            .map(|e| (e.path.as_str(), mode(&e.stat)))
            .collect();
        let want = [("/x/a", "drwxr-xr-x"), ("/x/b", "-rw-r-----")];
        assert_eq!(shown, want.map(|(path, mode)| (path, mode.to_owned())));
        assert_eq!(entries[1].size(), 2);
    }
}
