//! Limits on numbers and lengths of a definition. Marathon has few of these; ours are far above
//! what a definition can mean, and low enough that nothing downstream overflows.

/// Most instances of an app.
pub const INSTANCES_MAX: u64 = 100_000;
/// Most `gpus`: far more than a machine has.
pub(super) const GPUS_MAX: u64 = 10_000;
/// Longest `cmd`, and sum of `args` (Linux: MAX_ARG_STRLEN is 128 KiB, execve(2)).
pub(super) const COMMAND_MAX_BYTES: usize = 64 << 10;
/// Most `args`.
pub(super) const ARGS_MAX: usize = 1_000;
/// Most entries of `env`, and of `labels`.
pub(super) const ENTRIES_MAX: usize = 1_000;
/// Sum of names and values of `env`, and of `labels`.
pub(super) const ENTRIES_MAX_BYTES: usize = 64 << 10;
/// Most ports, and volumes.
pub(super) const LIST_MAX: usize = 100;
/// Longest name, path, image, user.
pub(super) const TEXT_MAX_BYTES: usize = 1_024;
/// Least `cpus`: the precision of the resource.
pub(super) const CPUS_MIN: f64 = 0.001;
/// Longest delay or grace: about 31 years.
pub(super) const SECONDS_MAX: f64 = 1e9;
/// Largest `backoffFactor`.
pub(super) const FACTOR_MAX: f64 = 1e6;
