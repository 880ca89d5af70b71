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

    /// Whether all of it is test code: a `tests` folder, a file `tests.rs` or `…_tests.rs`.
    pub(crate) fn is_test(&self) -> bool {
        let in_folder = self
            .path
            .split('/')
            .rev()
            .skip(1)
            .any(|part| part == "tests");
        in_folder || self.path.ends_with("/tests.rs") || self.path.ends_with("_tests.rs")
    }
}

/// All files of a repository.
pub(crate) struct Tree {
    /// Its text files, sorted by path.
    pub(crate) files: Vec<File>,
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
            Tree { files }
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
        }
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
