//! `state`, `list` and `ps`: what is there.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::Global;
use super::error::{OciError, call};
use super::state::{Place, Status};

/// A container in a list.
#[derive(Clone, Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Listed {
    /// Version of the specification.
    pub oci_version: String,
    /// Name.
    pub id: String,
    /// Process id; 0 when it has none.
    pub pid: i32,
    /// What it is doing.
    pub status: &'static str,
    /// Its bundle.
    pub bundle: String,
    /// Its root.
    pub rootfs: String,
    /// When it was made.
    pub created: String,
    /// Anything, for others.
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub annotations: std::collections::BTreeMap<String, String>,
    /// Who made it.
    pub owner: String,
}

/// `state`: JSON.
///
/// # Errors
/// It is not there.
pub fn state(global: &Global, id: &str) -> Result<String, OciError> {
    let place = Place::find(&global.root, id)?;
    let stored = place.load()?;
    let shown = stored.shown(place.status(&stored), "");
    serde_json::to_string_pretty(&shown).map_err(|error| OciError::Refused(error.to_string()))
}

/// `list`.
///
/// # Errors
/// The root directory cannot be read; one that is not there holds nothing.
pub fn list(global: &Global) -> Result<Vec<Listed>, OciError> {
    let entries = match std::fs::read_dir(&global.root) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        done => done.map_err(call(format!("read {}", global.root.display())))?,
    };
    let mut found: Vec<Listed> = entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| listed(global, &entry.file_name().to_string_lossy()))
        .collect();
    found.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(found)
}

/// None for one that is being made or went away meanwhile.
fn listed(global: &Global, id: &str) -> Option<Listed> {
    let place = Place::find(&global.root, id).ok()?;
    let stored = place.load().ok()?;
    let status = place.status(&stored);
    let uid = std::fs::metadata(&place.dir).ok()?.uid();
    let owner = user_name(uid).unwrap_or_else(|| format!("#{uid}"));
    Some(Listed {
        pid: if status == Status::Stopped {
            0
        } else {
            stored.pid
        },
        status: status.word(),
        oci_version: stored.oci_version,
        id: stored.id,
        bundle: stored.bundle,
        rootfs: stored.rootfs,
        created: stored.created,
        annotations: stored.annotations,
        owner,
    })
}

fn user_name(uid: u32) -> Option<String> {
    let text = super::state::read_bounded(Path::new("/etc/passwd"), 1 << 20).ok()?;
    String::from_utf8_lossy(&text).lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

/// Process ids of a container.
///
/// # Errors
/// It is not there.
pub fn processes(global: &Global, id: &str) -> Result<Vec<i32>, OciError> {
    let place = Place::find(&global.root, id)?;
    Ok(place.load()?.groups.processes())
}
