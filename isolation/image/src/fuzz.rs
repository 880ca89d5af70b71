//! Whatever a registry, a user or a secret's author writes: no parser panics, and what a parser
//! takes keeps its promises. Inputs are random bytes, random text of each parser's own alphabet,
//! and the corpus in `tests/corpus` with random damage; the corpus itself is replayed as it is.

use std::path::PathBuf;

use proptest::prelude::*;
use proptest::sample::Index as Pick;

use crate::auth::challenge::{self, Challenge};
use crate::auth::credentials::{Credentials, Found, Login};
use crate::auth::token::Token;
use crate::config::ParsedConfig;
use crate::manifest::Document;
use crate::{Archive, ImportOptions, Mirror, Reference, Store};

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// The files of one kind: name and content.
fn corpus(kind: &str) -> Vec<(String, Vec<u8>)> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/corpus")
        .join(kind);
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    let mut files: Vec<_> = entries
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, std::fs::read(entry.path()).unwrap())
        })
        .collect();
    files.sort();
    assert!(files.len() >= 4, "the corpus {kind} is missing");
    files
}

/// Corpus files with bytes overwritten, cut out, doubled, or joined with another file's.
fn damaged(kind: &str) -> impl Strategy<Value = Vec<u8>> {
    let files: Vec<Vec<u8>> = corpus(kind).into_iter().map(|(_, bytes)| bytes).collect();
    let edit = (any::<Pick>(), any::<u8>(), 0..5_u8, any::<Pick>());
    let edits = prop::collection::vec(edit, 0..8);
    (any::<Pick>(), edits).prop_map(move |(file, edits)| {
        let mut bytes = file.get(&files).clone();
        for (at, byte, kind, other) in edits {
            if bytes.is_empty() {
                bytes.push(byte);
                continue;
            }
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => bytes.truncate(at),
                2 => bytes.insert(at, byte),
                3 => {
                    bytes.remove(at);
                }
                _ => {
                    let other = other.get(&files);
                    bytes.truncate(at);
                    bytes.extend_from_slice(&other[at.min(other.len())..]);
                }
            }
        }
        bytes
    })
}

fn hostile(kind: &'static str) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        1 => prop::collection::vec(any::<u8>(), 0..300),
        3 => damaged(kind),
    ]
}

fn config(bytes: &[u8]) -> bool {
    let parsed = ParsedConfig::parse(bytes, 1);
    parsed.is_ok_and(|config| {
        config
            .made_for(&crate::Platform::new("linux", "amd64"))
            .is_ok()
    })
}

/// A reference that was taken means one place only.
fn check_reference(text: &str) -> bool {
    let Ok(reference) = Reference::parse(text) else {
        return false;
    };
    let full = reference.to_string();
    // "a" and "a:latest" are the same place.
    assert_eq!(Reference::parse(&full).unwrap().to_string(), full);
    let (host, repository) = (reference.registry(), reference.repository());
    let tag = reference.tag().unwrap_or("none");
    let path = format!("/v2/{repository}/manifests/{tag}");
    let base = reqwest::Url::parse(&format!("https://{host}/v2/")).unwrap();
    let url = base.join(&format!("{repository}/manifests/{tag}")).unwrap();
    assert_eq!(url.path(), path, "{text:?}");
    let asked = url.host_str().unwrap();
    let name = host.to_ascii_lowercase();
    let named = if name.starts_with('[') {
        asked.starts_with('[')
    } else {
        name.split(':').next() == Some(asked)
    };
    assert!(named, "{host} is {asked}");
    assert_eq!(
        (url.query(), url.fragment(), url.username()),
        (None, None, "")
    );
    true
}

/// A document has one reading at most, whatever it is served as.
fn check_manifest(bytes: &[u8]) -> bool {
    let kind = |served| match Document::parse(bytes, served) {
        Ok(Document::Manifest(_)) => Some("manifest"),
        Ok(Document::Index(_)) => Some("index"),
        Err(_) => None,
    };
    let mut readings: Vec<_> = [None, Some(OCI_INDEX), Some(OCI_MANIFEST), Some("x/y")]
        .into_iter()
        .filter_map(kind)
        .collect();
    readings.dedup();
    assert!(readings.len() <= 1, "{}", String::from_utf8_lossy(bytes));
    kind(None).is_some()
}

fn check_credentials(bytes: &[u8]) -> bool {
    match Credentials::from_config(bytes) {
        Ok(credentials) => {
            let _ = credentials.find("reg.lan:5000", "a/b");
            true
        }
        Err(error) => {
            assert!(error.to_string().len() < 500, "{error}");
            false
        }
    }
}

fn check_token(bytes: &[u8]) -> bool {
    let token = Token::read(bytes);
    token.is_some_and(|token| {
        assert!(token.header.to_str().unwrap().starts_with("Bearer "));
        token.header.is_sensitive()
    })
}

fn check_challenge(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let found = challenge::parse(&text);
    assert!(found.len() <= 16);
    found
        .iter()
        .any(|challenge| *challenge != Challenge::Unknown)
}

#[test]
fn the_corpus_is_read_as_its_names_say() {
    type Check = fn(&[u8]) -> bool;
    let checks: [(&str, Check); 7] = [
        ("reference", |bytes| {
            check_reference(&String::from_utf8_lossy(bytes))
        }),
        ("manifest", check_manifest),
        ("config", config),
        ("challenge", check_challenge),
        ("credentials", check_credentials),
        ("token", check_token),
        ("archive", import),
    ];
    for (kind, check) in checks {
        for (name, bytes) in corpus(kind) {
            assert_eq!(check(&bytes), name.starts_with("ok-"), "{kind}/{name}");
        }
    }
}

/// Imports an archive into a store of its own; only the store changes.
fn import(bytes: &[u8]) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("archive.tar");
    std::fs::write(&file, bytes).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let taken = runtime.block_on(async {
        let store = Store::open(&dir.path().join("store")).unwrap();
        let imported = store.import(Archive::Path(file), ImportOptions::default());
        imported.await.is_ok()
    });
    let mut left: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["archive.tar", "store"]);
    taken
}

/// Text that a header can carry between quotes.
fn quotable() -> impl Strategy<Value = String> {
    "[ -~]{1,20}"
}

proptest! {
    // A failure prints its input, which then belongs into the corpus.
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn references(text in "[a-zA-Z0-9._:/@%\\[\\]?#\\\\ -]{0,40}") {
        check_reference(&text);
    }

    #[test]
    fn damaged_references(bytes in hostile("reference")) {
        check_reference(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn mirrors(text in "[a-z0-9.:/=,-]{0,40}") {
        if let Ok(mirror) = text.parse::<Mirror>() {
            prop_assert_eq!(mirror.to_string().parse::<Mirror>(), Ok(mirror));
        }
    }

    #[test]
    fn manifests(bytes in hostile("manifest")) {
        check_manifest(&bytes);
    }

    #[test]
    fn configs(bytes in hostile("config")) {
        config(&bytes);
    }

    #[test]
    fn tokens(bytes in hostile("token")) {
        check_token(&bytes);
    }

    #[test]
    fn challenges(bytes in hostile("challenge")) {
        check_challenge(&bytes);
    }

    #[test]
    fn challenges_as_they_are_written(realm in quotable(), scope in quotable(), basic: bool) {
        let quote = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
        let before = if basic { "Basic realm=\"a, Bearer realm=b\", " } else { "" };
        let (asked, wanted) = (quote(&realm), quote(&scope));
        let text = format!("{before}Bearer realm=\"{asked}\",scope=\"{wanted}\", Negotiate");
        let found = challenge::parse(&text);
        let bearer = Challenge::Bearer { realm, service: None, scope: Some(scope) };
        prop_assert_eq!(found.get(usize::from(basic)), Some(&bearer), "{}", text);
    }

    #[test]
    fn credentials(bytes in hostile("credentials")) {
        check_credentials(&bytes);
    }

    #[test]
    fn a_login_comes_back_and_is_not_printed(
        user in "[a-zA-Z0-9@._-]{1,20}",
        password in "[!-~]{12,30}",
        host in "[a-z]{1,8}\\.lan(:[1-9][0-9]{0,3})?",
    ) {
        let json = serde_json::json!({"auths": {&host: {"username": &user, "password": &password}}});
        let credentials = Credentials::from_config(json.to_string().as_bytes()).unwrap();
        match credentials.find(&host, "a/b") {
            Found::Login(Login::Password { user: found, password: secret }) => {
                prop_assert_eq!((found.as_str(), secret.expose()), (user.as_str(), password.as_str()));
            }
            other => prop_assert!(false, "{:?}", other),
        }
        let told = format!("{credentials:?}");
        prop_assert!(!told.contains(&password), "{}", told);
    }
}

proptest! {
    // Each makes a store.
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn archives(bytes in hostile("archive")) {
        import(&bytes);
    }
}
