//! Host volumes: from what a launch names to what may be mounted. Decides which host paths a task
//! may have and what is covered in them; mounts nothing. Blocking: it asks the file system.
//!
//! Invariants: a source is given on without symbolic links (the mount follows none, so what was
//! looked at is what is mounted); nothing that lies in a hidden directory is ever a source, by
//! whatever way it was named; a hidden directory below a source is covered in the container.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use gantry_isolation::spec::{Mount, MountKind, SANDBOX_TARGET};
use gantry_wire::agent::{HostVolume, Launch};

/// Why a volume cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeProblem {
    #[error("the host path '{0}' of a volume is not absolute")]
    NotAbsolute(String),
    #[error("the host path '{path}' of a volume cannot be used")]
    Unusable {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("the host path '{0}' of a volume lies in this node's own data, which no task may see")]
    Hidden(String),
}

/// What can be said without asking the file system.
pub(crate) fn check(launch: &Launch) -> Result<(), VolumeProblem> {
    let relative = |volume: &&HostVolume| !Path::new(&volume.host_path).is_absolute();
    match launch.volumes.iter().find(relative) {
        Some(volume) => Err(VolumeProblem::NotAbsolute(volume.host_path.clone())),
        None => Ok(()),
    }
}

/// The mounts of a launch; `hide` are directories, without symbolic links, that no task may see.
pub(crate) fn resolve(launch: &Launch, hide: &[PathBuf]) -> Result<Vec<Mount>, VolumeProblem> {
    check(launch)?;
    launch
        .volumes
        .iter()
        .map(|volume| mount(volume, hide))
        .collect()
}

fn mount(volume: &HostVolume, hide: &[PathBuf]) -> Result<Mount, VolumeProblem> {
    let unusable = |source| VolumeProblem::Unusable {
        path: volume.host_path.clone(),
        source,
    };
    let source = Path::new(&volume.host_path)
        .canonicalize()
        .map_err(unusable)?;
    if is_hidden(&source, hide).map_err(unusable)? {
        return Err(VolumeProblem::Hidden(volume.host_path.clone()));
    }
    Ok(Mount {
        // Joining an absolute path replaces the sandbox.
        target: Path::new(SANDBOX_TARGET).join(&volume.container_path),
        read_only: volume.read_only,
        kind: MountKind::Bind {
            cover: covers(&source, hide),
            source,
            recursive: true,
        },
    })
}

/// Whether `source` is a hidden directory or lies in one: by name, or by being the same directory
/// under another name (a bind mount on the host).
fn is_hidden(source: &Path, hide: &[PathBuf]) -> io::Result<bool> {
    let hidden: Vec<_> = hide.iter().filter_map(|dir| identity(dir).ok()).collect();
    for above in source.ancestors() {
        if hide.iter().any(|dir| dir == above) || hidden.contains(&identity(above)?) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Device and inode: the same for every name of a directory.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = path.metadata()?;
    Ok((found.dev(), found.ino()))
}

/// The hidden directories below `source`, less those that lie in another one.
fn covers(source: &Path, hide: &[PathBuf]) -> Vec<PathBuf> {
    let mut below: Vec<&PathBuf> = hide.iter().filter(|dir| dir.starts_with(source)).collect();
    // A directory sorts before what lies in it.
    below.sort();
    let mut kept: Vec<PathBuf> = Vec::new();
    for dir in below {
        if !kept.iter().any(|above| dir.starts_with(above)) {
            kept.push(dir.clone());
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(host: &Path, inside: &str, hide: &[PathBuf]) -> Result<Mount, String> {
        let volume = HostVolume {
            host_path: host.to_string_lossy().into_owned(),
            container_path: inside.into(),
            read_only: true,
        };
        let launch = Launch {
            volumes: vec![volume],
            ..Launch::default()
        };
        let mounts = resolve(&launch, hide).map_err(|problem| crate::chain(&problem))?;
        Ok(mounts.into_iter().next().unwrap())
    }

    fn covered(mount: &Mount) -> &[PathBuf] {
        match &mount.kind {
            MountKind::Bind { cover, .. } => cover,
            _ => &[],
        }
    }

    #[test]
    fn volumes_lie_in_the_sandbox_unless_absolute() {
        let target = |inside: &str| resolved(Path::new("/"), inside, &[]).unwrap().target;
        assert_eq!(target("x"), Path::new("/mnt/mesos/sandbox/x"));
        assert_eq!(target("/x"), Path::new("/x"));
        let error = resolved(Path::new("a"), "x", &[]).unwrap_err();
        assert_eq!(error, "the host path 'a' of a volume is not absolute");
    }

    #[test]
    fn the_nodes_own_data_is_no_volume_by_whatever_name() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let data = root.join("data");
        std::fs::create_dir_all(data.join("tasks")).unwrap();
        std::fs::create_dir(root.join("database")).unwrap();
        std::fs::write(data.join("f"), "").unwrap();
        std::os::unix::fs::symlink(&data, root.join("link")).unwrap();
        let hide = [data.clone()];
        for name in [
            "data",
            "data/",
            "data/tasks",
            "data/f",
            "link",
            "link/tasks",
            "database/../data",
        ] {
            let error = resolved(&root.join(name), "v", &hide).unwrap_err();
            assert!(error.contains("this node's own data"), "{name}: {error}");
        }
        let beside = resolved(&root.join("database"), "v", &hide).unwrap();
        assert_eq!(covered(&beside), Vec::<PathBuf>::new());
        let error = resolved(&root.join("none"), "v", &hide).unwrap_err();
        assert!(error.contains("cannot be used: No such file"), "{error}");
    }

    #[test]
    fn what_is_hidden_below_a_volume_is_covered_once() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let (node, agent) = (root.join("node"), root.join("node/agent"));
        std::fs::create_dir_all(&agent).unwrap();
        let other = root.join("other");
        std::fs::create_dir(&other).unwrap();
        let hide = [agent.clone(), other.clone(), node.clone()];
        for above in [Path::new("/"), &root] {
            let mount = resolved(above, "/v", &hide).unwrap();
            assert_eq!(covered(&mount), [node.clone(), other.clone()], "{above:?}");
        }
        let mount = resolved(&node, "/v", std::slice::from_ref(&agent)).unwrap();
        assert_eq!(covered(&mount), [agent]);
    }
}
