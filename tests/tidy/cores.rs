//! What decides is pure: no clock, randomness, file, socket, thread, process, async or unordered
//! map in `*/core`, neither in its code nor among its dependencies.
//!
//! Code that is compiled for tests only may do as it likes.

use cargo_metadata::DependencyKind;
use syn::visit::{self, Visit};

use crate::code::{attributes, flatten, is_test_only, lines, paths};
use crate::imports::packages;
use crate::tree::{Tree, assert_clean};

/// Folders whose code must be pure.
const CORES: [&str; 2] = ["agent/core/src/", "coordinator/core/src/"];
/// Packages of those folders.
const CORE_PACKAGES: [&str; 2] = ["gantry-agent-core", "gantry-coordinator-core"];

/// Modules of std that touch the world, and why.
const MODULES: [(&str, &str); 9] = [
    ("fs", "files"),
    ("net", "sockets"),
    ("thread", "threads"),
    ("process", "processes"),
    ("env", "the environment"),
    ("os", "the system"),
    ("future", "async"),
    ("task", "async"),
    ("*", "a glob import hides what it brings"),
];
/// Plain values in those modules.
const VALUES: [&str; 7] = [
    "IpAddr",
    "Ipv4Addr",
    "Ipv6Addr",
    "SocketAddr",
    "SocketAddrV4",
    "SocketAddrV6",
    "AddrParseError",
];
/// Names that are wrong wherever they come from.
const NAMES: [(&str, &str); 9] = [
    ("Instant", "a clock"),
    ("SystemTime", "a clock"),
    ("HashMap", "an unordered map"),
    ("HashSet", "an unordered set"),
    ("RandomState", "randomness"),
    ("stdin", "files"),
    ("stdout", "files"),
    ("stderr", "files"),
    ("tokio", "async"),
];
/// Macros that print.
const MACROS: [&str; 4] = ["println", "eprintln", "print", "eprint"];
/// Crates that do rather than decide.
const CRATES: [&str; 27] = [
    "async-io",
    "async-std",
    "axum",
    "chrono",
    "crossbeam-channel",
    "fastrand",
    "futures",
    "futures-util",
    "getrandom",
    "hyper",
    "hyper-util",
    "io-uring",
    "jiff",
    "libc",
    "mio",
    "nix",
    "rand",
    "rand_core",
    "rayon",
    "reqwest",
    "rustix",
    "smol",
    "socket2",
    "tempfile",
    "time",
    "tokio",
    "uuid",
];

struct Visitor {
    problems: Vec<String>,
    place: String,
}

impl Visitor {
    fn complain(&mut self, line: usize, what: &str, why: &str) {
        self.problems
            .push(format!("{}:{line}: {what}: {why} in a core", self.place));
    }

    fn judge(&mut self, line: usize, path: &[String]) {
        let names = path.iter().map(String::as_str).collect::<Vec<_>>();
        for (name, why) in NAMES {
            if names.contains(&name) {
                self.complain(line, &path.join("::"), why);
            }
        }
        if let [root @ ("std" | "core"), module, rest @ ..] = names.as_slice() {
            let value = rest.first().is_some_and(|name| VALUES.contains(name));
            let found = MODULES.iter().find(|(name, _)| name == module);
            if let (Some((name, why)), false) = (found, value) {
                self.complain(line, &format!("{root}::{name}"), why);
            }
        }
    }
}

impl<'ast> Visit<'ast> for Visitor {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if !is_test_only(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        for path in flatten(&item.tree) {
            if matches!(path.as_slice(), [root] if root == "std" || root == "core") {
                self.complain(
                    lines(item).0,
                    "use std as",
                    "a renamed std hides what it brings",
                );
            }
            self.judge(lines(item).0, &path);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<String> = path.segments.iter().map(|s| s.ident.to_string()).collect();
        self.judge(lines(path).0, &names);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        let name = call
            .path
            .segments
            .last()
            .map(|s| s.ident.to_string())
            .unwrap_or_default();
        if MACROS.contains(&name.as_str()) {
            self.complain(lines(call).0, &format!("{name}!"), "output");
        }
        for path in paths(&call.tokens) {
            self.judge(lines(call).0, &path);
        }
        visit::visit_macro(self, call);
    }

    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        if signature.asyncness.is_some() {
            self.complain(lines(signature).0, "async fn", "async");
        }
        visit::visit_signature(self, signature);
    }

    fn visit_expr_async(&mut self, block: &'ast syn::ExprAsync) {
        self.complain(lines(block).0, "async block", "async");
    }
}

fn check(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    for (file, code) in tree.rust_files() {
        if CORES.iter().any(|core| file.path.starts_with(core)) && !tree.is_test(file) {
            let mut visitor = Visitor {
                problems: Vec::new(),
                place: file.path.clone(),
            };
            visitor.visit_file(&code);
            problems.append(&mut visitor.problems);
        }
    }
    problems
}

#[test]
fn cores_are_pure() {
    assert_clean(
        "cores decide and do not do (DESIGN: decide / do)",
        &check(Tree::real()),
    );
    let cores = Tree::real()
        .files
        .iter()
        .filter(|f| CORES.iter().any(|c| f.path.starts_with(c)));
    assert!(cores.count() >= CORES.len());
}

#[test]
fn cores_depend_on_nothing_that_does() {
    let mut problems = Vec::new();
    for package in packages()
        .iter()
        .filter(|p| CORE_PACKAGES.contains(&p.name.as_str()))
    {
        for dependency in package
            .dependencies
            .iter()
            .filter(|d| d.kind != DependencyKind::Development)
        {
            if CRATES.contains(&dependency.name.as_str()) {
                problems.push(format!("{} depends on {}", package.name, dependency.name));
            }
        }
    }
    assert_clean("cores depend only on pure crates", &problems);
}

#[test]
fn impure_samples_are_caught() {
    for code in [
        "use std::time::Instant;",
        "use std::{collections::{BTreeMap, HashMap}, fmt};",
        "use std::fs as disk;",
        "use std as s;",
        "use std::*;",
        "use std::net::TcpStream;",
        "fn f() { std::thread::spawn(|| ()); }",
        "fn f() -> u64 { std::time::SystemTime::now().elapsed().unwrap().as_secs() }",
        "fn f() { format!(\"{}\", std::env::var(\"A\").unwrap()); }",
        "fn f() { println!(); }",
        "async fn f() {}",
        "fn f() { let _ = async { 1 }; }",
        "struct S { m: std::collections::HashSet<u8> }",
        "fn f() { tokio::spawn(g()); }",
    ] {
        let tree = Tree::sample(&[("agent/core/src/a.rs", code)]);
        assert!(!check(&tree).is_empty(), "not caught: {code}");
        assert!(check(&Tree::sample(&[("agent/src/a.rs", code)])).is_empty());
    }
    for code in [
        "use std::net::IpAddr; use std::time::Duration; use std::collections::BTreeMap;",
        "#[cfg(test)] mod tests { use std::fs; }",
        "fn f(now: u64) -> String { format!(\"{now}\") }",
    ] {
        assert_eq!(
            check(&Tree::sample(&[("agent/core/src/a.rs", code)])),
            Vec::<String>::new()
        );
    }
}
