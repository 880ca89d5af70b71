//! Which device nodes a container may open, as files of the v1 `devices` controller.
//!
//! The filter is written once, to the parent group that all containers join: they differ in
//! nothing, and a group of its own for each would cost a dozen writes per start. On v2 hosts, which
//! filter devices by BPF, containers are instead denied making nodes (`CAP_MKNOD` is withheld) and
//! every mount but `/dev` is `nodev`.

use super::Setting;

/// What Docker allows: making any node but opening only the harmless ones.
const ALLOWED: [&str; 11] = [
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",   // null
    "c 1:5 rwm",   // zero
    "c 1:7 rwm",   // full
    "c 1:8 rwm",   // random
    "c 1:9 rwm",   // urandom
    "c 5:0 rwm",   // tty
    "c 5:1 rwm",   // console
    "c 5:2 rwm",   // ptmx
    "c 136:* rwm", // pts
];

pub(super) fn v1() -> impl Iterator<Item = Setting> {
    let deny = std::iter::once(Setting::new("devices.deny", "a"));
    deny.chain(
        ALLOWED
            .iter()
            .map(|rule| Setting::new("devices.allow", rule)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_denied_before_anything_is_allowed() {
        let settings: Vec<Setting> = v1().collect();
        assert_eq!(settings[0], Setting::new("devices.deny", "a"));
        assert!(
            settings[1..]
                .iter()
                .all(|setting| setting.file == "devices.allow")
        );
        assert!(
            !settings
                .iter()
                .any(|setting| setting.value.starts_with("b *:* r"))
        );
    }
}
