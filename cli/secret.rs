//! The cluster's secret among the settings of a role.

use std::path::Path;

use gantry_link::Secret;

use crate::failure::Failure;
use crate::settings::Settings;

/// From its file, or as it stands in a variable or in the file of settings. None: nobody gave one.
pub(crate) fn read(settings: &Settings) -> Result<Option<Secret>, Failure> {
    let with_cause = |error: gantry_link::SecretError| match std::error::Error::source(&error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    };
    let file = settings.one("cluster-secret-file", |path| {
        Secret::read(Path::new(path)).map_err(with_cause)
    })?;
    let itself = settings.one("cluster-secret", |text| Secret::parse(text.as_bytes()))?;
    if file.is_some() && itself.is_some() {
        return Err(settings.wrong("cluster-secret", "there is a cluster-secret-file too"));
    }
    Ok(file.or(itself))
}
