//! LIST_FILES and READ_FILE: what `/files/browse` and `/files/read` do, as calls. Decides nothing.

use std::sync::Arc;

use gantry_wire::mesos::v1::agent::Response as Answer;
use gantry_wire::mesos::v1::agent::call::{ListFiles, ReadFile};
use gantry_wire::mesos::v1::agent::response::{ListFiles as Files, ReadFile as Piece, Type};
use gantry_wire::mesos::v1::{FileInfo, TimeInfo};

use super::super::Server;
use super::super::beneath::Found;
use super::super::problem::Problem;
use super::super::{browse, files};

const NANOS_PER_SEC: i64 = 1_000_000_000;

pub(super) async fn list(server: &Arc<Server>, call: ListFiles) -> Result<Answer, Problem> {
    let path = call.path;
    let Found::Directory(dir) = files::find(server, Some(path.clone())).await? else {
        return Err(Problem::BadRequest("Not a directory".to_owned()));
    };
    let prefix = path.trim_end_matches('/').to_owned();
    let entries = files::blocking(move || browse::list(&dir, &prefix)).await?;
    let file_infos = entries.into_iter().map(info).collect();
    Ok(Answer {
        r#type: Some(Type::ListFiles as i32),
        list_files: Some(Files { file_infos }),
        ..Answer::default()
    })
}

fn info(entry: browse::Entry) -> FileInfo {
    let nanoseconds = entry.stat.st_mtime.saturating_mul(NANOS_PER_SEC);
    FileInfo {
        nlink: i32::try_from(entry.stat.st_nlink).ok(),
        size: Some(entry.size()),
        mtime: Some(TimeInfo { nanoseconds }),
        mode: Some(entry.stat.st_mode),
        uid: Some(browse::owner(entry.stat.st_uid)),
        gid: Some(browse::owner(entry.stat.st_gid)),
        path: entry.path,
    }
}

pub(super) async fn read(server: &Arc<Server>, call: ReadFile) -> Result<Answer, Problem> {
    let Found::File(file) = files::find(server, Some(call.path)).await? else {
        return Err(Problem::BadRequest("Cannot read a directory".to_owned()));
    };
    let length = call.length.unwrap_or(files::READ_MAX_BYTES);
    let read = move || files::bytes(&file, call.offset, length);
    let (size, data) = files::blocking(read).await?;
    Ok(Answer {
        r#type: Some(Type::ReadFile as i32),
        read_file: Some(Piece { size, data }),
        ..Answer::default()
    })
}
