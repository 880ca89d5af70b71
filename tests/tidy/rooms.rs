//! Unsafe code stays in its rooms.

use syn::visit::{self, Visit};

use crate::code::{idents, lines};
use crate::tree::{Tree, assert_clean};

/// The only places for unsafe code: prefixes of paths.
const ROOMS: [&str; 5] = [
    "isolation/src/sys.rs",
    "isolation/src/sys/",
    "net/src/sys.rs",
    "net/src/sys/",
    "coordinator/src/log/ring.rs",
];

#[derive(Default)]
struct Visitor {
    found: Vec<(usize, &'static str)>,
}

impl<'ast> Visit<'ast> for Visitor {
    fn visit_expr_unsafe(&mut self, block: &'ast syn::ExprUnsafe) {
        self.found.push((lines(block).0, "an unsafe block"));
        visit::visit_expr_unsafe(self, block);
    }

    fn visit_signature(&mut self, signature: &'ast syn::Signature) {
        if signature.unsafety.is_some() {
            self.found.push((lines(signature).0, "an unsafe function"));
        }
        visit::visit_signature(self, signature);
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        if item.unsafety.is_some() {
            self.found.push((lines(item).0, "an unsafe impl"));
        }
        visit::visit_item_impl(self, item);
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        if item.unsafety.is_some() {
            self.found.push((lines(item).0, "an unsafe trait"));
        }
        visit::visit_item_trait(self, item);
    }

    fn visit_item_foreign_mod(&mut self, item: &'ast syn::ItemForeignMod) {
        self.found.push((lines(item).0, "an extern block"));
    }

    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        let text = match &attribute.meta {
            syn::Meta::List(list) => idents(&list.tokens),
            syn::Meta::Path(_) | syn::Meta::NameValue(_) => Vec::new(),
        };
        let opens = text.iter().any(|word| word == "unsafe_code");
        if attribute.path().is_ident("unsafe") || opens {
            self.found
                .push((lines(attribute).0, "an attribute that opens unsafe code"));
        }
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        if idents(&call.tokens).iter().any(|word| word == "unsafe") {
            self.found.push((lines(call).0, "unsafe inside a macro"));
        }
    }
}

fn check(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    for (file, code) in tree.rust_files() {
        if ROOMS.iter().any(|room| file.path.starts_with(room)) {
            continue;
        }
        let mut visitor = Visitor::default();
        visitor.visit_file(&code);
        let found = visitor.found.into_iter();
        problems.extend(found.map(|(line, what)| format!("{}:{line}: {what}", file.path)));
    }
    problems
}

#[test]
fn unsafe_stays_in_its_rooms() {
    assert_clean(
        "unsafe code only in sys modules and the log's ring",
        &check(Tree::real()),
    );
}

#[test]
fn unsafe_elsewhere_is_caught() {
    for code in [
        "fn f() { unsafe { g() } }",
        "unsafe fn f() {}",
        "unsafe impl Send for A {}",
        "unsafe trait T {}",
        "unsafe extern \"C\" { fn f(); }",
        "#[unsafe(no_mangle)] fn f() {}",
        "#![expect(unsafe_code, reason = \"x\")]",
        "fn f() { assert!(unsafe { g() }); }",
    ] {
        assert!(
            !check(&Tree::sample(&[("agent/src/a.rs", code)])).is_empty(),
            "{code}"
        );
        assert!(
            !check(&Tree::sample(&[("isolation/src/system.rs", code)])).is_empty(),
            "{code}"
        );
        assert!(
            check(&Tree::sample(&[("isolation/src/sys/a.rs", code)])).is_empty(),
            "{code}"
        );
    }
}
