//! Names say what is inside.

use syn::visit::{self, Visit};

use crate::tree::{Tree, assert_clean};

/// Words that say nothing, as a file, a folder, a module or the end of a type's name.
const EMPTY_WORDS: [&str; 5] = ["util", "common", "helper", "manager", "misc"];

/// Whether a snake_case name has an empty word in it (plural too).
fn says_nothing(name: &str) -> bool {
    let mut words = name.split(['_', '-', '.']);
    words.any(|word| {
        EMPTY_WORDS
            .iter()
            .any(|empty| word == *empty || word == format!("{empty}s"))
    })
}

#[derive(Default)]
struct Visitor {
    found: Vec<String>,
}

impl Visitor {
    fn judge_type(&mut self, name: &syn::Ident) {
        let name = name.to_string();
        for word in EMPTY_WORDS {
            let end = word[..1].to_uppercase() + &word[1..];
            if name.ends_with(&end) || name.ends_with(&format!("{end}s")) {
                self.found.push(format!("type {name}"));
            }
        }
    }
}

impl<'ast> Visit<'ast> for Visitor {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if says_nothing(&item.ident.to_string()) {
            self.found.push(format!("mod {}", item.ident));
        }
        visit::visit_item_mod(self, item);
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.judge_type(&item.ident);
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        self.judge_type(&item.ident);
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.judge_type(&item.ident);
        visit::visit_item_trait(self, item);
    }
}

fn check(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    for file in &tree.files {
        if file.path.split('/').any(says_nothing) {
            problems.push(format!("{}: a name that says nothing", file.path));
        }
        if file.path.ends_with("/mod.rs") {
            problems.push(format!("{}: foo.rs beside foo/, no mod.rs", file.path));
        }
    }
    for (file, code) in tree.rust_files() {
        let mut visitor = Visitor::default();
        visitor.visit_file(&code);
        let found = visitor.found.into_iter();
        problems.extend(found.map(|name| format!("{}: {name} says nothing", file.path)));
    }
    problems
}

#[test]
fn names_say_something() {
    assert_clean("names say what is inside", &check(Tree::real()));
}

#[test]
fn empty_names_are_caught() {
    for (path, code) in [
        ("a/src/utils.rs", ""),
        ("a/common/b.rs", ""),
        ("a/src/net_helper.rs", ""),
        ("a/src/b/mod.rs", ""),
        ("a/src/b.rs", "mod misc {}"),
        ("a/src/b.rs", "struct TaskManager;"),
        ("a/src/b.rs", "trait Helper {}"),
        ("a/Utils.md", ""),
    ] {
        let path = path.to_lowercase();
        assert!(
            !check(&Tree::sample(&[(&path, code)])).is_empty(),
            "{path} {code}"
        );
    }
    let fine = Tree::sample(&[(
        "a/src/utility_cost.rs",
        "struct Commons2; mod commonality {}",
    )]);
    assert!(check(&fine).is_empty());
}
