//! Limits on huge pages, one file per size, as files of the `hugetlb` controller.

use std::collections::BTreeSet;

use super::{GroupError, Setting};
use crate::spec::Limits;

/// A directory per size, such as `hugepages-2048kB`.
const SIZES: &str = "/sys/kernel/mm/hugepages";

/// Bytes of each size that this host has.
pub(super) fn sizes() -> BTreeSet<u64> {
    let entries = std::fs::read_dir(SIZES).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| size(entry.file_name().to_str()?))
        .collect()
}

fn size(dir: &str) -> Option<u64> {
    let kib = dir.strip_prefix("hugepages-")?.strip_suffix("kB")?;
    kib.parse::<u64>().ok()?.checked_mul(1024)
}

/// As the controller's files name a size: `64KB`, `2MB`, `1GB`.
pub(crate) fn name(page_bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "KB")];
    let unit = UNITS.into_iter().find(|(unit, _)| page_bytes >= *unit);
    unit.map_or_else(
        || page_bytes.to_string(),
        |(unit, name)| format!("{}{name}", page_bytes / unit),
    )
}

pub(super) fn v1(limits: &Limits, sizes: &BTreeSet<u64>) -> Result<Vec<Setting>, GroupError> {
    settings(limits, sizes, "limit_in_bytes", "-1")
}

pub(super) fn v2(limits: &Limits, sizes: &BTreeSet<u64>) -> Result<Vec<Setting>, GroupError> {
    settings(limits, sizes, "max", "max")
}

fn settings(
    limits: &Limits,
    sizes: &BTreeSet<u64>,
    suffix: &str,
    unlimited: &str,
) -> Result<Vec<Setting>, GroupError> {
    let setting = |limit: &crate::spec::HugePageLimit| {
        let file = format!("hugetlb.{}.{suffix}", name(limit.page_bytes));
        if !sizes.contains(&limit.page_bytes) {
            return Err(GroupError::NoFile {
                controller: "hugetlb",
                file,
                limit: "huge_pages",
            });
        }
        let value = match limit.bytes {
            Limits::UNLIMITED => unlimited.to_owned(),
            bytes => bytes.to_string(),
        };
        Ok(Setting::new("huge_pages", file, value))
    };
    limits.huge_pages.iter().map(setting).collect()
}

#[cfg(test)]
mod tests {
    use super::super::shown;
    use super::*;
    use crate::spec::HugePageLimit;

    #[test]
    fn a_size_is_part_of_the_files_name() {
        let sizes = BTreeSet::from([2 << 20, 1 << 30]);
        let limit = |page_bytes, bytes| HugePageLimit { page_bytes, bytes };
        let limits = Limits {
            huge_pages: vec![limit(2 << 20, 4 << 20), limit(1 << 30, Limits::UNLIMITED)],
            ..Limits::default()
        };
        assert_eq!(
            shown(&v1(&limits, &sizes).unwrap()),
            "hugetlb.2MB.limit_in_bytes=4194304 hugetlb.1GB.limit_in_bytes=-1"
        );
        assert_eq!(
            shown(&v2(&limits, &sizes).unwrap()),
            "hugetlb.2MB.max=4194304 hugetlb.1GB.max=max"
        );
        let refused = v2(&limits, &BTreeSet::new()).unwrap_err().to_string();
        assert_eq!(
            refused,
            "this host's cgroup controller hugetlb has no file hugetlb.2MB.max (limit huge_pages)"
        );
    }

    #[test]
    fn sizes_are_read_from_the_kernels_directory_names() {
        assert_eq!(size("hugepages-2048kB"), Some(2 << 20));
        assert_eq!(size("hugepages-kB"), None);
        assert_eq!(size("hugepages-99999999999999999999kB"), None);
        assert_eq!(size("hugepages-18446744073709551615kB"), None);
        assert_eq!(
            (name(64 << 10), name(1 << 30)),
            ("64KB".to_owned(), "1GB".to_owned())
        );
    }
}
