//! Containers on the real kernel: needs root, makes its own keepers, groups and directories, and
//! leaves nothing. Each test has a node of its own, so all run side by side.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod attacks;
mod binds;
mod changes;
mod confine;
mod controllers;
mod devices;
mod disk;
mod exec;
mod files;
mod ids;
mod limits;
mod mounts;
mod namespaces;
mod node;
mod output;
mod privileges;
mod running;
mod sharing;
mod survival;
mod terminal;
mod unified;
mod view;
