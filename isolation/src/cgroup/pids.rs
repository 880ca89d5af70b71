//! The limit on processes and threads as a file of the `pids` controller.

use super::Setting;
use crate::spec::Limits;

pub(super) fn v1(limits: &Limits) -> Vec<Setting> {
    limits
        .pids_max
        .map(|max| Setting::new("pids.max", max))
        .into_iter()
        .collect()
}

/// The file is the same in both versions.
pub(super) fn v2(limits: &Limits) -> Vec<Setting> {
    v1(limits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_one_file_and_none_is_none() {
        let limits = Limits {
            pids_max: Some(64),
            ..Limits::default()
        };
        assert_eq!(v1(&limits), [Setting::new("pids.max", 64)]);
        assert_eq!(v2(&Limits::default()), []);
    }
}
