//! Which images of an archive are taken: by name, by digest, all; and what stands in the way.

use std::fs;
use std::path::Path;

use gantry_image::{
    Archive, ArchiveError, Digest, ImportOptions, Imported, Reference, Store, Trouble,
};
use serde_json::{Value, json};

use crate::fixture::Scratch;
use crate::server::{FakeImage, INDEX, MANIFEST, tar_of};

const FULL: &str = "io.containerd.image.name";
const TAG: &str = "org.opencontainers.image.ref.name";

/// An OCI layout being written.
struct Writer {
    dir: Scratch,
    entries: Vec<Value>,
}

impl Writer {
    fn new() -> Self {
        let dir = Scratch::new();
        fs::create_dir_all(dir.path().join("blobs/sha256")).unwrap();
        fs::write(dir.path().join("oci-layout"), "{}").unwrap();
        let entries = Vec::new();
        Self { dir, entries }
    }

    fn blob(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        let path = self.dir.path().join("blobs/sha256").join(digest.hex());
        fs::write(path, bytes).unwrap();
        digest
    }

    /// An image that has one file, its blobs only.
    fn image(&self, content: &str, architecture: &str) -> Value {
        let tar = tar_of(&[("file", content.as_bytes())]);
        let blob = crate::server::gzip(&tar);
        let image = FakeImage::with(&[blob], &[Digest::of(&tar)], architecture);
        self.blob(&image.layers[0]);
        self.blob(&image.config);
        let digest = self.blob(&image.manifest);
        json!({"mediaType": MANIFEST, "digest": digest, "size": image.manifest.len()})
    }

    fn index(&self, entries: &[Value]) -> Value {
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
        let index = index.to_string().into_bytes();
        json!({"mediaType": INDEX, "digest": self.blob(&index), "size": index.len()})
    }

    fn add(&mut self, mut entry: Value, key: &str, name: &str) -> String {
        let digest = entry["digest"].as_str().unwrap().to_owned();
        if !name.is_empty() {
            entry["annotations"] = json!({key: name});
        }
        self.entries.push(entry);
        let index = json!({"schemaVersion": 2, "manifests": self.entries});
        fs::write(self.dir.path().join("index.json"), index.to_string()).unwrap();
        digest
    }

    async fn import(
        &self,
        images: &[&str],
        name: Option<&str>,
    ) -> Result<Vec<Imported>, ArchiveError> {
        import(self.dir.path(), images, name).await
    }
}

/// Into a store of its own.
async fn import(
    archive: &Path,
    images: &[&str],
    name: Option<&str>,
) -> Result<Vec<Imported>, ArchiveError> {
    let dir = Scratch::new();
    let store = Store::open(dir.path()).unwrap();
    let options = ImportOptions {
        name: name.map(|name| Reference::parse(name).unwrap()),
        images: images.iter().map(|&image| image.to_owned()).collect(),
        ..ImportOptions::default()
    };
    store
        .import(Archive::Path(archive.to_owned()), options)
        .await
}

fn names(imported: &[Imported]) -> Vec<Reference> {
    let names = imported.iter().flat_map(|imported| &imported.names);
    names.cloned().collect()
}

/// In full.
fn full(names: &[&str]) -> Vec<Reference> {
    let parsed = names.iter().map(|name| Reference::parse(name));
    parsed.collect::<Result<_, _>>().unwrap()
}

/// Two named images, one that has only a tag, one without a name.
fn layout() -> (Writer, [String; 4]) {
    let mut layout = Writer::new();
    let one = layout.image("one", "amd64");
    let one = layout.add(one, FULL, "reg.test/one:1");
    let two = layout.image("two", "amd64");
    let two = layout.add(two, TAG, "team/two:2");
    let tagged = layout.image("tagged", "amd64");
    let tagged = layout.add(tagged, TAG, "latest");
    let bare = layout.image("bare", "amd64");
    let bare = layout.add(bare, TAG, "");
    (layout, [one, two, tagged, bare])
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_picked_by_name_and_by_digest() {
    let (layout, [one, two, tagged, bare]) = layout();
    let at_two = format!("@{two}");
    for (images, name, want) in [
        (vec!["reg.test/one:1"], None, vec!["reg.test/one:1"]),
        (
            vec!["team/two:2", "reg.test/one:1"],
            None,
            vec!["reg.test/one:1", "team/two:2"],
        ),
        (vec![&at_two], None, vec!["team/two:2"]),
        (vec![&one], Some("x:1"), vec!["x:1"]),
        (vec!["latest"], Some("x:2"), vec!["x:2"]),
        (vec![&tagged], Some("x:3"), vec!["x:3"]),
        (vec![&bare], Some("x:4"), vec!["x:4"]),
        (vec!["team/two:2", &two], None, vec!["team/two:2"]),
    ] {
        let imported = layout.import(&images, name).await;
        let imported = imported.unwrap_or_else(|error| panic!("{images:?}: {}", error.message()));
        assert_eq!(names(&imported), full(&want), "{images:?}");
    }
    let imported = layout.import(&[&two], Some("x:5")).await.unwrap();
    assert_eq!(imported[0].image.digest.to_string(), two);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_picked_says_what_there_is() {
    let (layout, [.., bare]) = layout();
    let missing = Digest::of(b"nothing").to_string();
    for (images, name, trouble, words) in [
        (
            vec!["nine:9"],
            None,
            Trouble::NotInArchive,
            "has no image nine:9; it has reg.test/one:1, team/two:2, latest",
        ),
        (
            vec![missing.as_str()],
            None,
            Trouble::NotInArchive,
            "it has reg.test/one:1",
        ),
        // A tag is not the name of an image, and nothing that was asked for may be left out.
        (vec!["latest"], None, Trouble::Unnamed, "image latest"),
        (vec![], None, Trouble::Unnamed, "image latest"),
        (
            vec!["reg.test/one:1", "nine:9"],
            None,
            Trouble::NotInArchive,
            "nine:9",
        ),
        (
            vec![],
            Some("x:1"),
            Trouble::Several,
            "reg.test/one:1, team/two:2",
        ),
        (
            vec![bare.as_str()],
            None,
            Trouble::Unnamed,
            "without a name",
        ),
    ] {
        let error = layout.import(&images, name).await.unwrap_err();
        let message = error.message();
        assert!(message.contains(words), "{images:?}: {message}");
        assert_eq!(error.trouble(), trouble, "{images:?}: {message}");
    }
}

/// Images for other machines and signatures may stand beside the one that is meant.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_for_this_node_is_passed_over_unless_it_is_asked_for() {
    let mut layout = Writer::new();
    let mut arm = layout.image("arm", "arm64");
    arm["platform"] = json!({"os": "linux", "architecture": "arm64"});
    let mut amd = layout.image("amd", "amd64");
    amd["platform"] = json!({"os": "linux", "architecture": "amd64"});
    let many = layout.index(&[arm.clone(), amd]);
    // Docker and containerd write the index of one image inside the layout's own.
    let nested = layout.index(&[many]);
    let index = layout.add(nested, FULL, "reg.test/many:1");
    let only_arm = layout.index(&[arm]);
    layout.add(only_arm, FULL, "reg.test/arm:1");
    let chart = json!({"schemaVersion": 2, "mediaType": MANIFEST, "layers": [],
        "config": {"mediaType": "application/vnd.cncf.helm.config.v1+json", "digest": Digest::of(b"c"), "size": 1}});
    let chart = chart.to_string().into_bytes();
    let chart = json!({"mediaType": MANIFEST, "digest": layout.blob(&chart), "size": chart.len()});
    layout.add(chart, FULL, "reg.test/chart:1");

    let all = layout.import(&[], None).await.unwrap();
    assert_eq!(names(&all), full(&["reg.test/many:1"]));
    let by_index = layout.import(&[&index], None).await.unwrap();
    assert_eq!(names(&by_index), full(&["reg.test/many:1"]));
    for (name, words) in [
        ("reg.test/arm:1", "linux/arm64"),
        ("reg.test/chart:1", "helm.config"),
    ] {
        let error = layout.import(&[name], None).await.unwrap_err().message();
        assert!(error.contains(name) && error.contains(words), "{error}");
    }
}

/// `docker save` of several images, one of which has two names.
#[tokio::test(flavor = "multi_thread")]
async fn a_docker_archive_of_several_images() {
    let dir = Scratch::new();
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    let mut manifest = Vec::new();
    for (number, tags) in [
        (1, vec!["a:1", "reg.test/a:latest"]),
        (2, vec!["b:2"]),
        (3, vec![]),
    ] {
        let tar = tar_of(&[("file", &[number; 100])]);
        let image = FakeImage::new(std::slice::from_ref(&tar));
        let (config, layer) = (format!("{number}.json"), format!("{number}/layer.tar"));
        manifest.push(json!({"Config": config, "RepoTags": tags, "Layers": [layer]}));
        files.push((config, image.config));
        files.push((layer, tar));
    }
    files.push((
        "manifest.json".into(),
        json!(manifest).to_string().into_bytes(),
    ));
    let path = dir.path().join("saved.tar");
    let borrowed: Vec<(&str, &[u8])> = files
        .iter()
        .map(|(name, file)| (name.as_str(), file.as_slice()))
        .collect();
    fs::write(&path, tar_of(&borrowed)).unwrap();
    let id = Digest::of(&files[4].1).to_string();
    for (images, name, want) in [
        (vec!["a:1"], None, vec!["a:1"]),
        (
            vec!["reg.test/a", "b:2"],
            None,
            vec!["reg.test/a:latest", "b:2"],
        ),
        (vec![id.as_str()], Some("c:3"), vec!["c:3"]),
    ] {
        let imported = import(&path, &images, name).await.unwrap();
        assert_eq!(names(&imported), full(&want), "{images:?}");
    }
    let error = import(&path, &[], None).await.unwrap_err();
    assert_eq!(error.trouble(), Trouble::Unnamed, "{}", error.message());
}

/// What people give by mistake is called what it is.
#[tokio::test(flavor = "multi_thread")]
async fn junk_is_named() {
    let dir = Scratch::new();
    let root = tar_of(&[("etc/passwd", b"root"), ("bin/sh", b"#!")]);
    let deep = tar_of(&[("image/oci-layout", b"{}"), ("image/index.json", b"{}")]);
    let skopeo = tar_of(&[("manifest.json", b"{}"), ("version", b"1"), ("00ff", b"")]);
    let other = tar_of(&[("a", b""), ("b", b""), ("c", b""), ("d", b"")]);
    for (bytes, words) in [
        (Vec::new(), "an empty file"),
        (b"hello\n".to_vec(), "text"),
        (b"hello\n".repeat(1000), "text"),
        (b"PK\x03\x04....".to_vec(), "zip"),
        (fs::read("/proc/self/exe").unwrap(), "a program"),
        (root, "root file system"),
        (deep, "\"image/oci-layout\" too deep"),
        (skopeo, "skopeo's dir:"),
        (other, "other files (\"a\", \"b\", \"c\", …)"),
        (crate::server::gzip(b"hello\n"), "text"),
    ] {
        let path = dir.path().join("junk");
        fs::write(&path, &bytes).unwrap();
        let error = import(&path, &[], None).await.unwrap_err();
        let message = error.message();
        assert_eq!(error.trouble(), Trouble::NotAnArchive, "{message}");
        assert!(message.contains(words), "{words}: {message}");
    }
}
