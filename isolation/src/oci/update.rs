//! `pause`, `resume` and `update`: changing a container that is there.

use super::Global;
use super::config::{MAX_CONFIG_BYTES, Resources};
use super::error::OciError;
use super::state::{Place, Status};

/// `pause`.
///
/// # Errors
/// It is not there, or has no process.
pub fn pause(global: &Global, id: &str) -> Result<(), OciError> {
    let place = Place::find_locked(&global.root, id)?;
    let stored = place.load()?;
    match place.status(&stored) {
        Status::Created | Status::Running => stored.groups.freeze(true),
        Status::Stopped | Status::Creating | Status::Paused => Err(OciError::NotRunning),
    }
}

/// `resume`.
///
/// # Errors
/// It is not there, or is not paused.
pub fn resume(global: &Global, id: &str) -> Result<(), OciError> {
    let place = Place::find_locked(&global.root, id)?;
    let stored = place.load()?;
    match place.status(&stored) {
        Status::Paused => stored.groups.freeze(false),
        _ => Err(OciError::NotPaused),
    }
}

/// What `update` is asked for: JSON of resources, or single values.
#[derive(Clone, Debug, Default)]
pub struct Update {
    /// The text of a file of resources, instead of the values.
    pub json: Option<Vec<u8>>,
    /// The values.
    pub resources: Resources,
}

/// `update`.
///
/// # Errors
/// It is not there, has no process, or a limit is refused.
pub fn update(global: &Global, id: &str, update: Update) -> Result<(), OciError> {
    let place = Place::find_locked(&global.root, id)?;
    let mut stored = place.load()?;
    if matches!(place.status(&stored), Status::Stopped | Status::Creating) {
        return Err(OciError::NotRunning);
    }
    let resources = match update.json {
        Some(text) if text.len() as u64 > MAX_CONFIG_BYTES => {
            return Err(OciError::Refused("the resources are too large".to_owned()));
        }
        Some(text) => serde_json::from_slice(&text).map_err(|source| OciError::Parse {
            path: "resources".into(),
            source,
        })?,
        None => update.resources,
    };
    stored.groups.update(&resources)?;
    place.store(&stored)
}
