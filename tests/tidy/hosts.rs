//! No path of a developer's machine and no name of a public registry is in the tree. The default
//! registry of images is a constant of the image crate.

use crate::tree::{Tree, assert_clean};

/// Folders of the machines that this was written on. In two pieces, so that this file is clean.
const MACHINE: [&str; 2] = [concat!("/wo", "rk/"), concat!("/ro", "ot/")];
/// Registries of images and packages, in two pieces too.
const REGISTRIES: [&str; 8] = [
    concat!("docker", ".io"),
    concat!("quay", ".io"),
    concat!("ghcr", ".io"),
    concat!("gcr", ".io"),
    concat!("registry.", "k8s.io"),
    concat!("public.", "ecr.aws"),
    concat!("mcr.", "microsoft.com"),
    concat!("static.", "crates.io"),
];
/// Where the default registry may be named.
const REGISTRY_ROOM: &str = "isolation/image/src/";
/// Written by cargo.
const GENERATED: [&str; 1] = ["Cargo.lock"];

fn check(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    for file in tree
        .files
        .iter()
        .filter(|f| !GENERATED.contains(&f.path.as_str()))
    {
        for (number, line) in file.text.lines().enumerate() {
            let place = format!("{}:{}", file.path, number + 1);
            if MACHINE.iter().any(|path| line.contains(path)) {
                problems.push(format!("{place}: a path of a machine"));
            }
            let registry = REGISTRIES.iter().find(|host| line.contains(*host));
            let default = registry == Some(&REGISTRIES[0]) && file.path.starts_with(REGISTRY_ROOM);
            if registry.is_some() && !default {
                problems.push(format!("{place}: the name of a registry"));
            }
        }
    }
    problems
}

#[test]
fn nothing_is_tied_to_a_machine_or_registry() {
    assert_clean(
        "no machine's paths, no registry's names",
        &check(Tree::real()),
    );
}

#[test]
fn ties_are_caught() {
    for host in REGISTRIES.iter().chain(&MACHINE) {
        let line = format!("let a = \"{host}x\";");
        assert_eq!(
            check(&Tree::sample(&[("net/src/a.rs", &line)])).len(),
            1,
            "{host}"
        );
        assert_eq!(
            check(&Tree::sample(&[("Makefile", &line)])).len(),
            1,
            "{host}"
        );
    }
    let room = format!("{REGISTRY_ROOM}a.rs");
    assert!(check(&Tree::sample(&[(&room, REGISTRIES[0])])).is_empty());
    assert_eq!(check(&Tree::sample(&[(&room, REGISTRIES[1])])).len(), 1);
}
