//! The files of the repository, read once, or a few made up for a sample.

use std::path::Path;
use std::sync::OnceLock;

/// Folders that hold nothing of ours, by name.
const SKIPPED: [&str; 3] = ["target", ".git", "node_modules"];
/// Filled by `vendor/fill`, not committed.
const VENDORED: [&str; 2] = ["vendor/crates", "vendor/config.toml"];

/// A text file.
pub(crate) struct File {
    /// Path from the root of the repository, with `/`.
    pub(crate) path: String,
    /// All of it.
    pub(crate) text: String,
}

impl File {
    /// Parsed, if it is Rust.
    pub(crate) fn rust(&self) -> Option<syn::File> {
        let is_rust = self.path.ends_with(".rs");
        is_rust
            .then(|| syn::parse_file(&self.text).unwrap_or_else(|e| panic!("{}: {e}", self.path)))
    }
}

/// All files of a repository.
pub(crate) struct Tree {
    /// Its text files, sorted by path.
    pub(crate) files: Vec<File>,
    test_modules: OnceLock<Vec<String>>,
}

impl Tree {
    /// This repository.
    pub(crate) fn real() -> &'static Self {
        static TREE: OnceLock<Tree> = OnceLock::new();
        TREE.get_or_init(|| {
            let root = Path::new(env!("CARGO_MANIFEST_DIR"))
                .parent()
                .expect("tests/ has a parent");
            let mut files = Vec::new();
            collect(root, root, &mut files);
            files.sort_by(|a, b| a.path.cmp(&b.path));
            assert!(
                files.len() > 50,
                "the walk found only {} files",
                files.len()
            );
            Tree {
                files,
                test_modules: OnceLock::new(),
            }
        })
    }

    /// A repository of these files alone.
    pub(crate) fn sample(files: &[(&str, &str)]) -> Self {
        let file = |(path, text): &(&str, &str)| File {
            path: (*path).to_owned(),
            text: (*text).to_owned(),
        };
        Self {
            files: files.iter().map(file).collect(),
            test_modules: OnceLock::new(),
        }
    }

    /// Whether all of a file is test code: it lies in a `tests` folder, or it is a module (or
    /// below one) that is declared with `#[cfg(test)]`.
    pub(crate) fn is_test(&self, file: &File) -> bool {
        let mut folders = file.path.split('/').rev().skip(1);
        let modules = self.test_modules.get_or_init(|| self.find_test_modules());
        let declared = modules.iter().any(|module| {
            let rest = file.path.strip_prefix(module.as_str());
            rest.is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
        });
        declared || folders.any(|part| part == "tests")
    }

    /// Paths, without `.rs`, of modules in files of their own that are compiled for tests only.
    fn find_test_modules(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (file, code) in self.rust_files() {
            let stem = file.path.trim_end_matches(".rs");
            let (folder, name) = stem.rsplit_once('/').unwrap_or(("", stem));
            let base = if matches!(name, "lib" | "main") {
                folder
            } else {
                stem
            };
            for item in &code.items {
                if let syn::Item::Mod(module) = item
                    && module.content.is_none()
                    && crate::code::is_test_only(&module.attrs)
                {
                    found.push(format!("{base}/{}", module.ident));
                }
            }
        }
        found
    }

    /// The Rust files.
    pub(crate) fn rust_files(&self) -> impl Iterator<Item = (&File, syn::File)> {
        self.files
            .iter()
            .filter_map(|file| Some((file, file.rust()?)))
    }

    /// Whether a file or folder of that path is there.
    pub(crate) fn has(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        let below = format!("{path}/");
        self.files
            .iter()
            .any(|f| f.path == path || f.path.starts_with(&below))
    }
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<File>) {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    for entry in entries.flatten() {
        let path = entry.path();
        let relative = path
            .strip_prefix(root)
            .expect("below the root")
            .to_string_lossy()
            .into_owned();
        let name = entry.file_name().to_string_lossy().into_owned();
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if SKIPPED.contains(&name.as_str()) || VENDORED.contains(&relative.as_str()) {
            continue;
        }
        if kind.is_dir() {
            collect(root, &path, files);
        } else if let (true, Ok(text)) = (kind.is_file(), std::fs::read_to_string(&path)) {
            files.push(File {
                path: relative,
                text,
            });
        }
    }
}

/// Fails with all problems of a rule, one a line.
pub(crate) fn assert_clean(rule: &str, problems: &[String]) {
    assert!(problems.is_empty(), "{rule}\n  {}\n", problems.join("\n  "));
}

#[test]
fn test_code_in_files_of_its_own_is_known() {
    let tree = Tree::sample(&[
        ("a/src/log.rs", "#[cfg(test)]\nmod faulty;\nmod ring;"),
        ("a/src/log/faulty.rs", ""),
        ("a/src/log/faulty/deep.rs", ""),
        ("a/src/log/ring.rs", ""),
        ("a/tests/all/main.rs", ""),
        ("a/src/lib.rs", "#[cfg(test)] mod samples;"),
        ("a/src/samples.rs", ""),
    ]);
    let known: Vec<&str> = tree
        .files
        .iter()
        .filter(|f| tree.is_test(f))
        .map(|f| f.path.as_str())
        .collect();
    let want = [
        "a/src/log/faulty.rs",
        "a/src/log/faulty/deep.rs",
        "a/tests/all/main.rs",
        "a/src/samples.rs",
    ];
    assert_eq!(known, want);
}
