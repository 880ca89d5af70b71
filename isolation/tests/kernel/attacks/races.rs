//! Swapping a directory for a link between the runtime's look and its use of it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gantry_isolation::keeper::Event;
use gantry_isolation::spec::{ContainerSpec, Mount};

use super::{attackers, is_empty, victim};
use crate::node::Node;

/// Starts that are tried against the swapping.
const TRIES: usize = 25;

/// Swaps `<dir>/a`, a directory, with a link to `to` as fast as it can; `renameat2(EXCHANGE)` on
/// the host is faster than any container.
fn swap(dir: &Path, to: &Path) -> (Arc<AtomicBool>, std::thread::JoinHandle<u64>) {
    let (real, link) = (dir.join("a"), dir.join("b"));
    std::fs::create_dir_all(&real).unwrap();
    std::os::unix::fs::symlink(to, &link).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let thread = std::thread::spawn(move || {
        let mut swaps = 0;
        let flags = rustix::fs::RenameFlags::EXCHANGE;
        while !stopped.load(Ordering::Relaxed) {
            let cwd = rustix::fs::CWD;
            swaps += u64::from(rustix::fs::renameat_with(cwd, &real, cwd, &link, flags).is_ok());
        }
        swaps
    });
    (stop, thread)
}

/// Starts containers while `<node>/shared/a` changes; nothing may appear in the victim.
fn race(prepare: impl Fn(&mut ContainerSpec, &Path)) {
    for who in attackers() {
        let mut node = Node::new();
        let victim = victim(&node);
        let shared = node.path("shared");
        std::fs::create_dir(&shared).unwrap();
        let (stop, thread) = swap(&shared, &victim);
        for number in 0..TRIES {
            let name = format!("c{number}");
            let mut spec = node.native(&name, &["true"]);
            (spec.user, spec.ids) = (who.user.clone(), who.ids.clone());
            prepare(&mut spec, &shared);
            node.start(&spec);
            node.wait("an outcome", |event| match event {
                Event::Exited { id, .. } | Event::StartFailed { id, .. } => {
                    (id.as_str() == name).then_some(())
                }
                _ => None,
            });
        }
        stop.store(true, Ordering::Relaxed);
        assert!(thread.join().unwrap() > 100, "the race was run");
        assert!(is_empty(&victim), "{}: it appeared on the host", who.name);
    }
}

#[test]
fn swap_a_mount_target_in_a_shared_volume() {
    // CVE-2021-30465: the volume's own mount goes through the swapped directory.
    race(|spec, shared| {
        let source = shared.parent().unwrap_or(shared).join("volume");
        std::fs::create_dir_all(&source).unwrap();
        std::fs::write(source.join("mounted-here"), "").unwrap();
        spec.mounts = vec![
            Mount::bind(shared, "/shared", false),
            Mount::bind(source, "/shared/a/in", false),
        ];
    });
}

#[test]
fn swap_a_directory_that_is_being_made() {
    // CVE-2024-45310: mkdir on the host by a race; a working directory is made when missing.
    race(|spec, shared| {
        spec.mounts = vec![Mount::bind(shared, "/shared", false)];
        spec.cwd = Some("/shared/a/made/deep".into());
    });
}
