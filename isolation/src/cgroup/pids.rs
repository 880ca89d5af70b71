//! The limit on processes and threads as a file of the `pids` controller.

use super::Setting;
use crate::spec::Limits;

/// The file is the same in both versions.
pub(super) fn both(limits: &Limits) -> Vec<Setting> {
    let value = |max| match max {
        Limits::UNLIMITED => "max".to_owned(),
        max => max.to_string(),
    };
    limits
        .pids_max
        .map(|max| Setting::new("pids_max", "pids.max", value(max)))
        .into_iter()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::shown;
    use super::*;

    #[test]
    fn a_limit_is_one_file_and_none_is_none() {
        let limits = |max| Limits {
            pids_max: max,
            ..Limits::default()
        };
        assert_eq!(shown(&both(&limits(Some(64)))), "pids.max=64");
        assert_eq!(
            shown(&both(&limits(Some(Limits::UNLIMITED)))),
            "pids.max=max"
        );
        assert_eq!(both(&limits(None)), []);
    }
}
