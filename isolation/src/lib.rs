//! Containers of one machine: what is wanted ([`spec`]), the ordered steps that make it ([`plan`]),
//! the system calls ([`sys`], the only unsafe code), the kernel's limits ([`cgroup`]; of disks:
//! [`disk`]) and the process that owns every container ([`keeper`]).
//!
//! It deliberately knows nothing of tasks, offers, images' registries or the network's addresses:
//! the agent translates those into a [`spec::ContainerSpec`]. No async runtime may ever exist in
//! the keeper's process: it clones, and only a single-threaded process clones safely.

pub mod caps;
pub mod cgroup;
pub mod disk;
pub mod gpu;
pub mod identity;
pub mod keeper;
pub mod oci;
pub mod reap;
pub mod seccomp;
pub mod spec;

mod child;
mod device;
mod plan;
mod sys;
pub mod tree;
pub mod userns;
