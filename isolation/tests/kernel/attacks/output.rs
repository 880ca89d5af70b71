//! Output files lie in the sandbox, where the container may do what it likes with their names.

use super::{attackers, container, is_empty, victim};
use crate::node::Node;
use gantry_isolation::spec::{Ids, Output};

/// Replaces its own output file as `trick` says, then writes more than fits one file.
fn with_rotation(trick: &str) {
    for who in attackers() {
        let mut node = Node::new();
        let victim = victim(&node);
        let target = victim.join("file");
        let script = format!(
            "VICTIM = {:?}\nos.chdir('/mnt/mesos/sandbox')\n\
             def make(name):\n    {trick}\n\
             for name in ('stdout', 'stdout.1', 'stdout.2', 'stdout.3'):\n    \
             try:\n        os.unlink(name)\n    except OSError:\n        pass\n    \
             try:\n        make(name)\n    except OSError:\n        pass\n\
             for _ in range(64):\n    os.write(1, b'x' * 1024)\n",
            target.to_str().unwrap()
        );
        let mut spec = container(&node, &who, &script);
        let Some(dir) = spec.sandbox.clone() else {
            unreachable!("the container has a sandbox")
        };
        spec.output = Output::Files {
            dir,
            max_bytes: 8192,
            keep: 2,
        };
        let ended = node.run(&spec);
        assert!(ended.status.success(), "{}: {ended:?}", who.name);
        assert!(
            is_empty(&victim),
            "{}: the keeper wrote through it",
            who.name
        );
        assert_eq!(node.sh("after", "echo alive"), "alive\n");
    }
}

#[test]
fn lead_the_log_to_a_file_of_the_host() {
    with_rotation("os.symlink(VICTIM, name)");
}

#[test]
fn block_the_log_by_a_fifo() {
    with_rotation("os.mkfifo(name)");
}

#[test]
fn block_the_rotation_by_directories() {
    with_rotation("os.makedirs(name + '/deep')");
}

#[test]
fn grow_the_log_without_end() {
    for who in attackers() {
        let mut node = Node::new();
        let script = "for _ in range(512):\n    os.write(1, b'y' * 65536)";
        let mut spec = container(&node, &who, script);
        let Some(dir) = spec.sandbox.clone() else {
            unreachable!("the container has a sandbox")
        };
        let max_bytes = 1 << 20;
        spec.output = Output::Files {
            dir: dir.clone(),
            max_bytes,
            keep: 2,
        };
        node.run(&spec);
        let sizes = std::fs::read_dir(dir).unwrap().flatten();
        let total: u64 = sizes.map(|entry| entry.metadata().unwrap().len()).sum();
        // Three files, each at most one pipe (64 KiB) over.
        assert!(
            total <= 3 * (max_bytes + (64 << 10)),
            "{}: {total}",
            who.name
        );
    }
}

#[test]
fn hold_up_the_keeper_by_writing_to_its_file() {
    // A queue of large writes to one file makes everyone wait who writes to it.
    let mut node = Node::new();
    for who in attackers()
        .into_iter()
        .filter(|who| who.ids == Ids::Private)
    {
        let script = r"
for name in ('stdout', 'stderr'):
    tried(name, lambda: os.open('/mnt/mesos/sandbox/' + name, os.O_WRONLY))
    tried(name + ' cut', lambda: os.truncate('/mnt/mesos/sandbox/' + name, 0))
    tried(name + ' owned', lambda: os.chown('/mnt/mesos/sandbox/' + name, 0, 0), [errno.EOVERFLOW])
";
        let ended = node.run(&container(&node, &who, script));
        super::assert_refused(&who, 6, &ended);
    }
}
