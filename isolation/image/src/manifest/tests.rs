//! Tables of documents that are taken and refused.

use super::*;

const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const NODE: Platform = Platform::new("linux", "amd64");

fn descriptor(media_type: &str, size: u64) -> String {
    format!(r#"{{"mediaType":"{media_type}","digest":"{D}","size":{size}}}"#)
}

fn manifest(media_type: &str, config: &str, layers: &[String]) -> String {
    format!(
        r#"{{"schemaVersion":2,"mediaType":"{media_type}","config":{config},"layers":[{}]}}"#,
        layers.join(",")
    )
}

fn oci_config() -> String {
    descriptor("application/vnd.oci.image.config.v1+json", 7)
}

fn gzip() -> String {
    descriptor("application/vnd.oci.image.layer.v1.tar+gzip", 9)
}

fn read(text: &str, served: Option<&str>) -> Result<Document, ManifestError> {
    Document::parse(text.as_bytes(), served)
}

#[test]
fn both_families_are_read() {
    let oci = manifest(OCI_MANIFEST, &oci_config(), &[gzip()]);
    let docker = manifest(
        DOCKER_MANIFEST,
        &descriptor("application/vnd.docker.container.image.v1+json", 7),
        &[descriptor(
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
            9,
        )],
    );
    for (text, served) in [
        (&oci, Some(OCI_MANIFEST)),
        (&oci, None),
        (&oci, Some("application/json")),
        (&docker, Some(DOCKER_MANIFEST)),
    ] {
        let Ok(Document::Manifest(manifest)) = read(text, served) else {
            panic!("{text} was refused")
        };
        assert_eq!(manifest.config.size_bytes, 7);
        assert_eq!(manifest.layers[0].compression, Compression::Gzip);
        assert_eq!(manifest.layers[0].blob.size_bytes, 9);
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn refusals_of_manifests() {
    let oci = manifest(OCI_MANIFEST, &oci_config(), &[gzip()]);
    let many = vec![gzip(); MAX_LAYERS + 1];
    let both = format!(
        r#"{{"schemaVersion":2,"config":{},"layers":[{}],"manifests":[]}}"#,
        oci_config(),
        gzip()
    );
    let layer = |kind: &str| manifest(OCI_MANIFEST, &oci_config(), &[descriptor(kind, 9)]);
    for (text, served, says) in [
        (oci.clone(), Some(DOCKER_MANIFEST), "ambiguous"),
        (oci.clone(), Some(OCI_INDEX), "ambiguous"),
        (oci.clone(), Some("text/html"), "ambiguous"),
        (both.clone(), None, "ambiguous"),
        (both, Some(OCI_MANIFEST), "ambiguous"),
        (
            oci.clone(),
            Some("application/vnd.docker.distribution.manifest.v1+prettyjws"),
            "schema 1",
        ),
        (
            r#"{"schemaVersion":1,"fsLayers":[],"config":7}"#.into(),
            None,
            "schema 1",
        ),
        (r#"{"schemaVersion":3}"#.into(), None, "schema version"),
        (r#"{"schemaVersion":2}"#.into(), None, "ambiguous"),
        (
            r#"{"schemaVersion":2}"#.into(),
            Some("text/html"),
            "not a media type",
        ),
        ("<html>".into(), None, "not valid"),
        (String::new(), None, "not valid"),
        ("[".repeat(100_000), None, "not valid"),
        (
            manifest(OCI_MANIFEST, &oci_config(), &[]),
            None,
            "no layers",
        ),
        (
            manifest(OCI_MANIFEST, &oci_config(), &many),
            None,
            "128 layers",
        ),
        (
            manifest(
                OCI_MANIFEST,
                &descriptor("application/vnd.cncf.helm.config.v1+json", 1),
                &[gzip()],
            ),
            None,
            "not a container image",
        ),
        (
            manifest(
                OCI_MANIFEST,
                &descriptor("application/vnd.oci.image.config.v1+json", 9 << 20),
                &[gzip()],
            ),
            None,
            "config that is too large",
        ),
        (
            layer("application/vnd.oci.image.layer.v1.tar+br"),
            None,
            "not supported yet",
        ),
        (
            manifest(
                OCI_MANIFEST,
                &oci_config(),
                &[descriptor(
                    "application/vnd.oci.image.layer.v1.tar",
                    u64::MAX,
                )],
            ),
            None,
            "layer that is too large",
        ),
        (oci.replace(D, "sha256:../../etc"), None, "not valid"),
        (oci.replace("\"size\":9", "\"size\":-9"), None, "not valid"),
    ] {
        let error = read(&text, served).unwrap_err().to_string();
        assert!(error.contains(says), "{text:.200}: {error}");
    }
}

#[test]
fn what_is_elsewhere_or_no_image_or_ambiguous() {
    let oci = manifest(OCI_MANIFEST, &oci_config(), &[gzip()]);
    let layer = |kind: &str| manifest(OCI_MANIFEST, &oci_config(), &[descriptor(kind, 9)]);
    for (text, says) in [
        (
            layer("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"),
            "foreign layer",
        ),
        (
            layer("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"),
            "foreign layer",
        ),
        (
            oci.replace("\"size\":9", "\"size\":9,\"urls\":[\"https://evil.lan/\"]"),
            "foreign layer",
        ),
        (
            oci.replace("\"size\":7", "\"size\":7,\"urls\":[7]"),
            "foreign layer (its config)",
        ),
        (
            oci.replace("\"layers\"", "\"Layers\":[],\"layers\""),
            "ambiguous",
        ),
        (
            oci.replace("\"layers\"", "\"manife\\u017fts\":[],\"layers\""),
            "ambiguous",
        ),
        (
            oci.replace("\"layers\"", "\"layers\":[],\"layers\""),
            "not valid",
        ),
        (oci.replace(OCI_MANIFEST, OCI_ARTIFACT), "OCI artifact"),
        (
            manifest(
                OCI_MANIFEST,
                &descriptor("application/vnd.oci.empty.v1+json", 2),
                &[gzip()],
            )
            .replace("\"layers\"", "\"artifactType\":\"text/x-thing\",\"layers\""),
            "an OCI artifact (\"text/x-thing\")",
        ),
    ] {
        let error = read(&text, None).unwrap_err().to_string();
        assert!(error.contains(says), "{text:.200}: {error}");
    }
}

fn index(entries: &[(&str, &str, &str, &str)]) -> String {
    let entries: Vec<String> = entries
        .iter()
        .enumerate()
        .map(|(size, (kind, os, arch, variant))| {
            format!(
                r#"{{"mediaType":"{kind}","digest":"{D}","size":{size},"platform":{{"os":"{os}","architecture":"{arch}","variant":"{variant}"}}}}"#
            )
        })
        .collect();
    format!(
        r#"{{"schemaVersion":2,"manifests":[{}]}}"#,
        entries.join(",")
    )
}

fn pick(text: &str) -> Result<Blob, ManifestError> {
    let Ok(Document::Index(index)) = read(text, Some(OCI_INDEX)) else {
        panic!("{text} was refused")
    };
    index.pick(&NODE)
}

#[test]
fn the_platform_decides() {
    let m = OCI_MANIFEST;
    let several = index(&[
        (m, "windows", "amd64", ""),
        (m, "linux", "arm64", "v8"),
        (m, "linux", "amd64", "v3"),
        (m, "linux", "amd64", "v1"),
        (m, "linux", "amd64", ""),
        (m, "unknown", "unknown", ""),
    ]);
    assert_eq!(pick(&several).unwrap().size_bytes, 4);
    assert_eq!(
        pick(&index(&[(m, "linux", "amd64", "v1")]))
            .unwrap()
            .size_bytes,
        0
    );
    // A level that this CPU may have, if there is nothing else; never one that no CPU has.
    let newer = pick(&index(&[(m, "linux", "amd64", "v3")]));
    assert_eq!(newer.is_ok(), NODE.variants().contains(&"v3"));
    let error = pick(&index(&[
        (m, "linux", "arm64", "v8"),
        (m, "linux", "amd64", "v9"),
        (m, "unknown", "unknown", ""),
    ]));
    let error = error.unwrap_err().to_string();
    assert!(error.contains("linux/arm64/v8, linux/amd64/v9"), "{error}");
    assert!(!error.contains("unknown"), "{error}");
    assert!(matches!(
        pick(&index(&[])),
        Err(ManifestError::Platform { .. })
    ));
    // Whoever follows it counts how deep it goes.
    assert!(pick(&index(&[(OCI_INDEX, "linux", "amd64", "")])).is_ok());
    assert!(matches!(
        pick(&index(&[(OCI_ARTIFACT, "linux", "amd64", "")])),
        Err(ManifestError::Artifact(_))
    ));
}

#[test]
fn arm64_is_v8() {
    let node = Platform::new("linux", "arm64");
    let entry = |variant| (OCI_MANIFEST, "linux", "arm64", variant);
    for (entries, picked) in [
        (vec![entry("v8"), entry("")], Some(1)),
        (vec![entry("v9"), entry("v8")], Some(1)),
        (vec![entry("v9")], None),
        (vec![(OCI_MANIFEST, "linux", "arm", "v7")], None),
        (vec![(OCI_MANIFEST, "darwin", "arm64", "")], None),
    ] {
        let text = index(&entries);
        let Ok(Document::Index(index)) = read(&text, Some(OCI_INDEX)) else {
            panic!("{text} was refused")
        };
        let found = index.pick(&node).ok().map(|blob| blob.size_bytes);
        assert_eq!(found, picked, "{text}");
    }
}

#[test]
fn an_index_without_platforms() {
    let bare = format!(r#"{{"mediaType":"{OCI_MANIFEST}","digest":"{D}","size":5}}"#);
    let attestation = format!(
        r#"{{"mediaType":"{OCI_MANIFEST}","digest":"{D}","size":6,"platform":{{"os":"linux","architecture":"amd64"}},"annotations":{{"vnd.docker.reference.type":"attestation-manifest"}}}}"#
    );
    let of = |entries: &str| format!(r#"{{"schemaVersion":2,"manifests":[{entries}]}}"#);
    let single = of(&format!("{attestation},{bare}"));
    assert_eq!(pick(&single).unwrap().size_bytes, 5);
    let two = of(&format!("{bare},{bare}"));
    assert!(matches!(pick(&two), Err(ManifestError::Platform { .. })));
    let none = of(&attestation);
    assert!(matches!(pick(&none), Err(ManifestError::Platform { .. })));
}
