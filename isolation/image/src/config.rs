//! The image's own configuration: what to run, as whom, where, and for which platform.
//!
//! It decides which of the config blob's fields are believed and how long they may be. It does not
//! decide what wins when a task says otherwise (the agent does), and it does not resolve the user's
//! name (that needs the container's files).

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{Digest, Platform};

/// Longest single string and most strings in a list; beyond that exec would refuse them anyway.
const MAX_TEXT_BYTES: usize = 128 * 1024;
const MAX_ITEMS: usize = 4096;
/// Longest name of an operating system or architecture that is repeated, in characters.
const MAX_PLATFORM: usize = 32;

/// What the image says about how to run it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// The fixed head of the argument vector; empty if the image has none.
    pub entrypoint: Vec<String>,
    /// The default arguments (or the whole command if there is no entrypoint).
    pub cmd: Vec<String>,
    /// `NAME=value`, in the image's order.
    pub env: Vec<String>,
    /// Absolute directory inside the container to start in.
    pub working_dir: Option<String>,
    /// `name`, `uid`, `name:group` or `uid:gid` as the image writes it; not resolved.
    pub user: Option<String>,
    /// The signal that asks it to stop, as the image writes it (`SIGQUIT`, `3`).
    pub stop_signal: Option<String>,
    /// `80/tcp` and the like; informative only.
    pub exposed: Vec<String>,
    /// Labels; data for display, never to be interpreted by the node.
    pub labels: BTreeMap<String, String>,
}

/// Why a config blob is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not JSON, or not of the expected shape.
    #[error("the image's config is not valid")]
    Json(#[source] serde_json::Error),
    /// Built for another machine.
    #[error("the image is for {image}, not for {node}")]
    Platform {
        /// As the image says.
        image: String,
        /// As this node is.
        node: String,
    },
    /// The layers in the manifest and in the config are not the same in number.
    #[error("the image's config names {config} layers, its manifest {manifest}")]
    Layers {
        /// Number of diff ids.
        config: usize,
        /// Number of layers.
        manifest: usize,
    },
    /// A text or a list beyond the bounds.
    #[error("the image's config has an unreasonable {0}")]
    Bounds(&'static str),
}

/// The config blob, parsed and checked.
#[derive(Debug, Clone)]
pub(crate) struct ParsedConfig {
    pub(crate) config: ImageConfig,
    os: String,
    architecture: String,
    /// Digest of each uncompressed layer, bottom first.
    pub(crate) diff_ids: Vec<Digest>,
}

#[derive(Deserialize)]
struct Blob {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    #[serde(default)]
    config: Option<Run>,
    rootfs: RootFs,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Run {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    env: Option<Vec<String>>,
    working_dir: Option<String>,
    user: Option<String>,
    stop_signal: Option<String>,
    exposed_ports: Option<BTreeMap<String, serde::de::IgnoredAny>>,
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<Digest>,
}

impl ParsedConfig {
    /// Parses the config blob of an image with `layers` layers.
    pub(crate) fn parse(bytes: &[u8], layers: usize) -> Result<Self, ConfigError> {
        let blob: Blob = serde_json::from_slice(bytes).map_err(ConfigError::Json)?;
        let diff_ids = blob.rootfs.diff_ids;
        if diff_ids.len() != layers {
            return Err(ConfigError::Layers {
                config: diff_ids.len(),
                manifest: layers,
            });
        }
        let run = blob.config.unwrap_or_default();
        let config = ImageConfig {
            entrypoint: list(run.entrypoint, "entrypoint")?,
            cmd: list(run.cmd, "command")?,
            env: list(run.env, "environment")?,
            working_dir: text(run.working_dir, "working directory")?,
            user: text(run.user, "user")?,
            stop_signal: text(run.stop_signal, "stop signal")?,
            exposed: run
                .exposed_ports
                .unwrap_or_default()
                .into_keys()
                .take(MAX_ITEMS)
                .collect(),
            labels: run.labels.unwrap_or_default(),
        };
        match &config.working_dir {
            Some(dir) if !dir.starts_with('/') => Err(ConfigError::Bounds("working directory")),
            _ => Ok(Self {
                config,
                os: blob.os,
                architecture: blob.architecture,
                diff_ids,
            }),
        }
    }
}

impl ParsedConfig {
    /// Refuses an image that says it is for another platform.
    pub(crate) fn made_for(self, node: &Platform) -> Result<Self, ConfigError> {
        let (os, architecture) = node.parts();
        let differs = |said: &str, is: &str| !said.is_empty() && said != is;
        if differs(&self.os, os) || differs(&self.architecture, architecture) {
            return Err(ConfigError::Platform {
                image: self.platform(),
                node: node.to_string(),
            });
        }
        Ok(self)
    }

    /// As the image says, in words.
    pub(crate) fn platform(&self) -> String {
        let or_any = |said: &str| {
            let said: String = said.chars().take(MAX_PLATFORM).collect();
            if said.is_empty() {
                "any".to_owned()
            } else {
                said
            }
        };
        format!("{}/{}", or_any(&self.os), or_any(&self.architecture))
    }
}

fn list(items: Option<Vec<String>>, what: &'static str) -> Result<Vec<String>, ConfigError> {
    let items = items.unwrap_or_default();
    let fits = items.len() <= MAX_ITEMS && items.iter().all(|item| is_sane(item));
    if fits {
        Ok(items)
    } else {
        Err(ConfigError::Bounds(what))
    }
}

fn text(item: Option<String>, what: &'static str) -> Result<Option<String>, ConfigError> {
    let item = item.filter(|item| !item.is_empty());
    let fits = item.as_deref().is_none_or(is_sane);
    if fits {
        Ok(item)
    } else {
        Err(ConfigError::Bounds(what))
    }
}

/// A NUL would end the string early in exec: what was checked would not be what runs.
fn is_sane(text: &str) -> bool {
    text.len() <= MAX_TEXT_BYTES && !text.contains('\0')
}
