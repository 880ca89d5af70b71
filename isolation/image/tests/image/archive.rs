//! Images in and out of files: archives of skopeo and of Docker's kind, ours read by skopeo, and
//! archives that lie.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use gantry_image::{
    Archive, ArchiveError, ArchiveFormat, Digest, Image, ImportOptions, Imported, Prune,
    PullOptions, Reference, Store, Trouble,
};
use serde_json::{Value, json};

use crate::fixture::{Registry, Scratch, list_stacked, run, until};
use crate::hostile::assert_clean;
use crate::real::varied;
use crate::server::{FakeImage, Server, gzip, tar_of};

async fn import(store: &Store, path: &Path) -> Result<Vec<Imported>, ArchiveError> {
    store
        .import(Archive::Path(path.to_owned()), ImportOptions::default())
        .await
}

/// The id in the archive, and which layers were packed anew.
async fn export(
    store: &Store,
    name: &str,
    format: ArchiveFormat,
    to: &Path,
) -> (Digest, Vec<Digest>) {
    let reference = Reference::parse(name).unwrap();
    let exported = store.export(&reference, format).await.unwrap();
    let (id, repacked) = (exported.id, exported.repacked.clone());
    assert_eq!(id.is_some(), repacked.is_empty());
    let written = exported.write(File::create(to).unwrap()).unwrap();
    assert_eq!(written.bytes, fs::metadata(to).unwrap().len());
    assert_eq!(id.unwrap_or(written.id), written.id);
    (written.id, repacked)
}

fn skopeo(from: &str, to: &str) {
    run(
        "skopeo",
        &["copy", "-q", "--src-tls-verify=false", from, to],
    );
}

/// The id of an image as skopeo sees it.
fn id(image: &str) -> String {
    let raw = run("skopeo", &["inspect", "--raw", image]);
    let manifest: Value = serde_json::from_str(&raw).unwrap();
    manifest["config"]["digest"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_archive_that_skopeo_writes_is_taken() {
    let registry = Registry::start();
    let layout = varied(&registry, "archived");
    let source = format!("oci:{}", layout.image());
    let path = |name: &str| registry.scratch().join(name);
    let text = |name: &str| path(name).display().to_string();
    let name = "registry.test/team/app:1";
    skopeo(&source, &format!("oci:{}:{name}", text("dir")));
    skopeo(&source, &format!("oci-archive:{}:{name}", text("oci.tar")));
    skopeo(
        &source,
        &format!("docker-archive:{}:{name}", text("docker.tar")),
    );
    run(
        "sh",
        &[
            "-c",
            &format!("gzip -c {} >{}", text("docker.tar"), text("docker.tar.gz")),
        ],
    );
    let truth = layout.listing();
    for archive in ["dir", "oci.tar", "docker.tar", "docker.tar.gz"] {
        let store = Store::open(&path(&format!("store-{archive}"))).unwrap();
        let imported = import(&store, &path(archive)).await;
        let imported = imported.unwrap_or_else(|error| panic!("{archive}: {}", error.message()));
        assert_eq!(imported.len(), 1);
        let reference = Reference::parse(name).unwrap();
        assert_eq!(imported[0].names, std::slice::from_ref(&reference));
        let image = &imported[0].image;
        assert_eq!(
            list_stacked(&image.layers, registry.scratch()),
            truth,
            "{archive}"
        );
        assert_eq!(image.config.user.as_deref(), Some("app"));
        assert_eq!(store.local(&reference).await.as_ref(), Some(image));
    }
}

/// Out of one store and into another by way of skopeo: the id stays, whatever the format.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_exported_is_the_same_image_to_others() {
    let registry = Registry::start();
    let layout = varied(&registry, "exported");
    let name = registry.push(&layout, "team/exported:1");
    let store = Store::open(&registry.scratch().join("store")).unwrap();
    let reference = Reference::parse(&name).unwrap();
    drop(
        store
            .pull(&reference, PullOptions::default())
            .await
            .unwrap(),
    );
    let truth = layout.listing();
    let original = id(&format!("oci:{}", layout.image()));
    for (format, scheme) in [
        (ArchiveFormat::Oci, "oci-archive"),
        (ArchiveFormat::Docker, "docker-archive"),
    ] {
        let path = registry.scratch().join(format!("{scheme}.tar"));
        let (exported, repacked) = export(&store, &name, format, &path).await;
        assert_eq!(repacked, []);
        assert_eq!(exported.to_string(), original, "{scheme}");
        // By skopeo into a layout, which umoci then unpacks.
        let copied = registry.scratch().join(format!("{scheme}-copied"));
        let copied = format!("{}:latest", copied.display());
        skopeo(
            &format!("{scheme}:{}", path.display()),
            &format!("oci:{copied}"),
        );
        // skopeo writes the config of a Docker archive anew for a layout.
        assert_eq!(id(&format!("{scheme}:{}", path.display())), original);
        let bundle = registry.scratch().join(format!("{scheme}-bundle"));
        let bundle = bundle.display().to_string();
        run("umoci", &["unpack", "--image", &copied, &bundle]);
        let rootfs = Path::new(&bundle).join("rootfs");
        assert_eq!(crate::fixture::list(&rootfs), truth, "{scheme}");
        // And by ourselves.
        let other = Store::open(&registry.scratch().join(format!("{scheme}-store"))).unwrap();
        let imported = import(&other, &path).await.unwrap();
        assert_eq!(imported[0].names, std::slice::from_ref(&reference));
        let layers = &imported[0].image.layers;
        assert_eq!(list_stacked(layers, registry.scratch()), truth, "{scheme}");
    }
}

/// A layer that overwrites its own file, one that lists nothing of its directories, and one whose
/// recipe is gone.
#[tokio::test(flavor = "multi_thread")]
async fn layers_that_cannot_be_made_again_are_packed_anew() {
    let twice = tar_of(&[("a", b"first"), ("a", b"second"), ("d/.wh.gone", b"")]);
    let fine = tar_of(&[("d/e/f", b"deep"), ("g", &[7; 100_000])]);
    let image = FakeImage::new(&[fine.clone(), twice.clone()]);
    let server = Server::start(move |request, stream| image.answer(request, stream));
    let dir = Scratch::new();
    let store = Store::open(&dir.path().join("store")).unwrap();
    let name = format!("{}/a/b:1", server.host);
    let reference = Reference::parse(&name).unwrap();
    let image = store
        .pull(&reference, PullOptions::default())
        .await
        .unwrap();
    let truth = list_stacked(&image.layers, dir.path());
    let recipe = dir
        .path()
        .join("store/recipes")
        .join(format!("sha256-{}", Digest::of(&fine).hex()));
    let path = dir.path().join("a.tar");
    for broken in [false, true] {
        if broken {
            let bytes = fs::read(&recipe).unwrap();
            fs::write(&recipe, &bytes[..bytes.len() / 2]).unwrap();
        }
        let (_, repacked) = export(&store, &name, ArchiveFormat::Docker, &path).await;
        let mut want = vec![Digest::of(&twice)];
        if broken {
            want.insert(0, Digest::of(&fine));
        }
        assert_eq!(repacked, want);
        let other = Store::open(&dir.path().join(format!("other-{broken}"))).unwrap();
        let imported = import(&other, &path).await.unwrap();
        let seen = list_stacked(&imported[0].image.layers, dir.path());
        assert_eq!(seen, truth, "{broken}");
    }
}

/// The archive says what is in it before the files are read, so one that has other files now must
/// break off.
#[tokio::test(flavor = "multi_thread")]
async fn files_that_were_changed_are_not_exported_as_the_image() {
    let image = FakeImage::new(&[tar_of(&[("file", &[7; 100_000])])]);
    let server = Server::start(move |request, stream| image.answer(request, stream));
    let dir = Scratch::new();
    let store = Store::open(&dir.path().join("store")).unwrap();
    let reference = Reference::parse(&format!("{}/a/b:1", server.host)).unwrap();
    let pulled = store.pull(&reference, PullOptions::default()).await;
    let file = pulled.unwrap().layers[0].join("file");
    for content in [&[8; 100_000][..], &[7; 99_999]] {
        fs::write(&file, content).unwrap();
        let export = store.export(&reference, ArchiveFormat::Oci).await.unwrap();
        let error = export.write(std::io::sink()).unwrap_err();
        assert_eq!(error.trouble(), Trouble::Damaged, "{}", error.message());
    }
    fs::write(&file, [7; 100_000]).unwrap();
    let export = store.export(&reference, ArchiveFormat::Oci).await.unwrap();
    let layer_bytes = export.layer_bytes;
    let written = export.write(std::io::sink()).unwrap();
    assert!(layer_bytes > 100_000 && written.bytes > layer_bytes);
}

/// A Docker archive with these files.
fn archive(dir: &Path, files: &[(&str, &[u8])]) -> PathBuf {
    let path = dir.join("archive.tar");
    fs::write(&path, tar_of(files)).unwrap();
    path
}

struct Docker {
    layer: Vec<u8>,
    config: Vec<u8>,
}

impl Docker {
    fn new(layer: Vec<u8>) -> Self {
        let config = json!({
            "os": "linux", "architecture": "amd64", "config": {},
            "rootfs": {"type": "layers", "diff_ids": [Digest::of(&layer)]},
        });
        let config = config.to_string().into_bytes();
        Self { layer, config }
    }

    fn manifest(&self, layer: &str) -> Vec<u8> {
        let manifest = json!([{"Config": "c.json", "RepoTags": ["x:1"], "Layers": [layer]}]);
        manifest.to_string().into_bytes()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_that_lie_change_nothing() {
    let good = Docker::new(tar_of(&[("file", b"content")]));
    let other = tar_of(&[("file", b"other")]);
    let escape = Docker::new(tar_of(&[("ok", b"ok")]));
    let manifest = good.manifest("l.tar");
    type Case<'a> = (&'a str, Vec<(&'a str, &'a [u8])>, &'a str);
    let cases: Vec<Case<'_>> = vec![
        ("nothing", vec![], "not an OCI image layout"),
        ("another file", vec![("x", b"x")], "not an OCI image layout"),
        (
            "another layer",
            vec![
                ("manifest.json", &manifest),
                ("c.json", &good.config),
                ("l.tar", &other),
            ],
            "digest",
        ),
        (
            "no layer",
            vec![("manifest.json", &manifest), ("c.json", &good.config)],
            "has no \"l.tar\"",
        ),
        (
            "no config",
            vec![("manifest.json", &manifest), ("l.tar", &good.layer)],
            "has no \"c.json\"",
        ),
        ("no JSON", vec![("manifest.json", b"[")], "not valid"),
        (
            "twice the same name",
            vec![("manifest.json", &manifest), ("manifest.json", b"[]")],
            "two files of one name",
        ),
        (
            "a layout without index",
            vec![("oci-layout", b"{}")],
            "not an OCI image layout",
        ),
        (
            "a layout of nothing",
            vec![
                ("oci-layout", b"{}"),
                ("index.json", br#"{"manifests":[]}"#),
            ],
            "has no image",
        ),
    ];
    let dir = Scratch::new();
    let store_dir = dir.path().join("store");
    let store = Store::open(&store_dir).unwrap();
    for (what, files, why) in cases {
        let path = archive(dir.path(), &files);
        let error = import(&store, &path).await.unwrap_err();
        assert!(error.message().contains(why), "{what}: {}", error.message());
        assert_clean(&store_dir);
    }
    assert_eq!(store.list().await.unwrap(), []);
    // The same with nothing wrong, so that the cases fail for their own reason.
    let files: [(&str, &[u8]); 3] = [
        ("manifest.json", &escape.manifest("l.tar")),
        ("c.json", &escape.config),
        ("l.tar", &escape.layer),
    ];
    import(&store, &archive(dir.path(), &files)).await.unwrap();
}

/// Old Docker archives have a link in place of a layer that another image has too; a link may not
/// lead anywhere else.
#[tokio::test(flavor = "multi_thread")]
async fn links_in_an_archive_stay_in_it() {
    let docker = Docker::new(tar_of(&[("file", b"content")]));
    let dir = Scratch::new();
    fs::write(dir.path().join("outside.tar"), &docker.layer).unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    let absolute = dir.path().join("outside.tar").display().to_string();
    for (target, taken) in [
        ("../one/layer.tar", true),
        ("../../outside.tar", false),
        ("../../../../../../../../outside.tar", false),
        (absolute.as_str(), false),
        ("layer.tar", false),
        ("/proc/self/fd/0", false),
    ] {
        let mut builder = tar::Builder::new(Vec::new());
        let mut add = |name: &str, content: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, name, content).unwrap();
        };
        add("manifest.json", &docker.manifest("two/layer.tar"));
        add("c.json", &docker.config);
        add("one/layer.tar", &docker.layer);
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        builder
            .append_link(&mut header, "two/layer.tar", target)
            .unwrap();
        let path = dir.path().join("links.tar");
        fs::write(&path, builder.into_inner().unwrap()).unwrap();
        let imported = import(&store, &path).await;
        assert_eq!(imported.is_ok(), taken, "{target}");
        drop(imported);
        store.prune(Prune::Unused).await.unwrap();
    }
}

/// A layout on disk whose blobs are links to files outside, a FIFO, or a device.
#[tokio::test(flavor = "multi_thread")]
async fn a_layout_leads_to_no_other_file() {
    let dir = Scratch::new();
    let store = Store::open(&dir.path().join("store")).unwrap();
    for (number, target) in ["/etc/passwd", "../../../secret", "fifo"]
        .iter()
        .enumerate()
    {
        let layout = dir.path().join(format!("layout{number}"));
        fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
        fs::write(dir.path().join("secret"), "{}").unwrap();
        fs::write(layout.join("oci-layout"), "{}").unwrap();
        let digest = Digest::of(b"{}");
        let index = json!({"manifests": [{"mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest, "size": 2}]});
        fs::write(layout.join("index.json"), index.to_string()).unwrap();
        let blob = layout.join("blobs/sha256").join(digest.hex());
        if *target == "fifo" {
            run("mkfifo", &[&blob.display().to_string()]);
        } else {
            std::os::unix::fs::symlink(target, &blob).unwrap();
        }
        let error = import(&store, &layout).await.unwrap_err().message();
        let refused = error.contains("cannot open a file") || error.contains("not a file");
        assert!(refused, "{target}: {error}");
    }
}

/// Layers that climb out, and bombs, are refused in archives as they are from registries.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_layers_in_archives_are_refused() {
    let mut climbing = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.as_gnu_mut().unwrap().name[..12].copy_from_slice(b"../../escape");
    header.set_size(4);
    header.set_mode(0o644);
    header.set_cksum();
    climbing.append(&header, &b"evil"[..]).unwrap();
    let bomb = gzip(&tar_of(&[("zeros", &vec![0; 600 << 20])]));
    let bomb_id = Digest::of(b"not known before it is unpacked");
    let dir = Scratch::new();
    let store_dir = dir.path().join("store");
    let store = Store::open(&store_dir).unwrap();
    let climbing = Docker::new(climbing.into_inner().unwrap());
    let mut bomb = Docker::new(bomb);
    let config = String::from_utf8(bomb.config).unwrap();
    bomb.config = config
        .replace(&Digest::of(&bomb.layer).to_string(), &bomb_id.to_string())
        .into_bytes();
    for (docker, why) in [(climbing, "\"..\""), (bomb, "possible bomb")] {
        let files: [(&str, &[u8]); 3] = [
            ("manifest.json", &docker.manifest("l.tar")),
            ("c.json", &docker.config),
            ("l.tar", &docker.layer),
        ];
        let error = import(&store, &archive(dir.path(), &files))
            .await
            .unwrap_err();
        assert!(error.message().contains(why), "{}", error.message());
        assert_clean(&store_dir);
    }
    assert!(!dir.path().join("escape").exists() && !store_dir.join("escape").exists());
}

/// Half an archive, as an upload that broke off leaves it.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_archive_is_refused_and_the_whole_one_taken_from_a_file() {
    use std::io::Write as _;
    let docker = Docker::new(tar_of(&[("file", &[5; 300_000])]));
    let files: [(&str, &[u8]); 3] = [
        ("manifest.json", &docker.manifest("l.tar")),
        ("c.json", &docker.config),
        ("l.tar", &docker.layer),
    ];
    let whole = tar_of(&files);
    let dir = Scratch::new();
    let store = Store::open(&dir.path().join("store")).unwrap();
    for length in [0, 100, 512, 5000, whole.len() / 2, whole.len()] {
        let mut file = store.spool().unwrap();
        file.write_all(&whole[..length]).unwrap();
        let name = Reference::parse("given:name").unwrap();
        let options = ImportOptions {
            name: Some(name.clone()),
            ..ImportOptions::default()
        };
        let imported = store.import(Archive::File(file), options).await;
        assert_eq!(imported.is_ok(), length == whole.len(), "{length}");
        if let Ok(imported) = imported {
            assert_eq!(imported[0].names, [name]);
            let image: &Image = &imported[0].image;
            assert_eq!(
                fs::read(image.layers[0].join("file")).unwrap(),
                [5; 300_000]
            );
        }
    }
    until("no spool is left", || {
        fs::read_dir(dir.path().join("store/tmp"))
            .unwrap()
            .next()
            .is_none()
    });
}
