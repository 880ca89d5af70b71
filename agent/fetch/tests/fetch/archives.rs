//! Archives of each kind by the tools that people pack with, and what becomes of names and modes.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use gantry_fetch::Item;

use crate::fixture::{Node, assert_owned, item, sh};

/// A small tree: a program, a file deep down, links of both kinds, an empty directory, a name that
/// is no UTF-8.
const TREE: &str = "mkdir -p tree/bin tree/a/b/c tree/empty
printf '#!/bin/sh\\necho ran' >tree/bin/run
chmod 755 tree/bin/run
printf deep >tree/a/b/c/deep
printf secret >tree/private
chmod 600 tree/private
ln -s bin/run tree/link
ln tree/bin/run tree/hard
printf odd >\"tree/$(printf 'b\\377d')\"
head -c 300000 /dev/urandom >tree/big
touch -d 2001-02-03T04:05:06Z tree/a/b/c/deep";

fn check(node: &Node, has_hard_links: bool) {
    let top = node.sandbox().join("tree");
    let read = |name: &str| fs::read(top.join(name)).unwrap();
    assert_eq!(read("a/b/c/deep"), b"deep");
    assert_eq!(read("link"), read("bin/run"));
    assert_eq!(read("hard"), read("bin/run"));
    let odd = std::ffi::OsStr::from_bytes(b"b\xffd");
    assert_eq!(fs::read(top.join(odd)).unwrap(), b"odd");
    assert_eq!(
        read("big"),
        fs::read(node.dir.path().join("files/tree/big")).unwrap()
    );
    let mode = |name: &str| top.join(name).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("bin/run"), mode("private")), (0o755, 0o600));
    assert!(top.join("empty").is_dir());
    assert!(top.join("link").is_symlink());
    if has_hard_links {
        let inode = |name: &str| top.join(name).metadata().unwrap().ino();
        assert_eq!(inode("hard"), inode("bin/run"));
        assert_eq!(
            top.join("a/b/c/deep").metadata().unwrap().mtime(),
            981_173_106
        );
    }
    assert_owned(&node.sandbox());
}

#[test]
fn each_kind_is_extracted_into_the_top_and_stays_beside() {
    let made = [
        ("t.tar", "tar cf t.tar tree"),
        ("t.tar.gz", "tar czf t.tar.gz tree"),
        ("t.tgz", "tar czf t.tgz tree"),
        ("t.tar.bz2", "tar cjf t.tar.bz2 tree"),
        ("t.tbz2", "tar cjf t.tbz2 tree"),
        ("t.tar.xz", "tar cJf t.tar.xz tree"),
        ("t.txz", "tar cJf t.txz tree"),
        ("t.tar.zst", "tar --zstd -cf t.tar.zst tree"),
        ("pax.tar.gz", "tar --format=pax -czf pax.tar.gz tree"),
        ("t.zip", "zip -qry t.zip tree"),
        ("stored.zip", "zip -0qry stored.zip tree"),
        ("T.ZIP", "zip -qry T.ZIP tree"),
    ];
    for (name, script) in made {
        let node = Node::new(&[]);
        sh(&node.dir.path().join("files"), &format!("{TREE}\n{script}"));
        node.run(&[item(name)]).unwrap();
        check(&node, !name.to_lowercase().ends_with("zip"));
        assert!(node.sandbox().join(name).is_file(), "{name}");
    }
}

#[test]
fn single_files_are_unpacked_beside_theirs() {
    let node = Node::new(&[]);
    let files = node.dir.path().join("files");
    let script = "printf one >one; gzip -k one; bzip2 -k one; xz -k one; zstd -q one
gzip -c one >two.gz; gzip -c one >>two.gz";
    sh(&files, script);
    for (name, plain, content) in [
        ("one.gz", "one", "one"),
        ("one.bz2", "one", "one"),
        ("one.xz", "one", "one"),
        ("one.zst", "one", "one"),
        ("two.gz", "two", "oneone"),
    ] {
        let _ = fs::remove_file(node.sandbox().join(plain));
        node.run(&[item(name)]).unwrap();
        assert_eq!(node.text(plain), content, "{name}");
        assert!(node.sandbox().join(name).is_file());
    }
    assert_owned(&node.sandbox());
}

#[test]
fn names_modes_and_what_is_not_extracted() {
    let node = Node::new(&[]);
    sh(
        &node.dir.path().join("files"),
        "printf x >f; tar czf f.tgz f; cp f.tgz data",
    );
    let run = |item: Item| node.run(&[item]).unwrap();
    let mode = |name: &str| {
        let metadata = node.sandbox().join(name).metadata().unwrap();
        metadata.permissions().mode() & 0o7777
    };
    run(item("f"));
    assert_eq!(mode("f"), 0o644);
    run(Item {
        executable: true,
        output_file: Some("bin/deep/run".into()),
        ..item("f")
    });
    assert_eq!(
        (mode("bin/deep/run"), node.text("bin/deep/run").as_str()),
        (0o755, "x")
    );
    // Run, not extracted; kept, not extracted; called an archive, so extracted.
    fs::remove_file(node.sandbox().join("f")).unwrap();
    run(Item {
        executable: true,
        ..item("f.tgz")
    });
    run(Item {
        extract: false,
        output_file: Some("kept.tgz".into()),
        ..item("f.tgz")
    });
    run(Item {
        output_file: Some("plain".into()),
        ..item("f.tgz")
    });
    assert!(!node.sandbox().join("f").exists());
    run(Item {
        output_file: Some("sub/now.tgz".into()),
        ..item("data")
    });
    assert_eq!(node.text("f"), "x");
    // The same name again, and by an absolute name and a URL of the file.
    let path = node.dir.path().join("files/f").display().to_string();
    for uri in [
        path.clone(),
        format!("file://{path}"),
        format!("file://localhost{path}"),
    ] {
        run(item(uri));
    }
    assert_owned(&node.sandbox());
}

#[test]
fn what_is_no_archive_is_said() {
    let node = Node::new(&[]);
    let script = "head -c 9000 /dev/urandom >n; for k in tar tar.gz tar.bz2 tar.xz tar.zst zip gz
do cp n n.$k; done
mkdir d; head -c 500000 /dev/urandom >d/x
tar czf w.tgz d; head -c 300000 w.tgz >cut.tgz
tar cf w.tar d; head -c 200000 w.tar >cut.tar
zip -qr w.zip d; head -c 300000 w.zip >cut.zip
cp w.zip bad.zip; printf XXXX | dd of=bad.zip bs=1 seek=9000 conv=notrunc 2>/dev/null
cp w.tgz sum.tgz; printf XX | dd of=sum.tgz bs=1 seek=$(($(stat -c %s w.tgz) - 7)) conv=notrunc 2>/dev/null";
    sh(&node.dir.path().join("files"), script);
    for name in [
        "n.tar",
        "n.tar.gz",
        "n.tar.bz2",
        "n.tar.xz",
        "n.tar.zst",
        "n.zip",
        "n.gz",
    ]
    .into_iter()
    .chain(["cut.tgz", "cut.tar", "cut.zip", "bad.zip", "sum.tgz"])
    {
        let error = node.run(&[item(name)]).unwrap_err();
        let is_said = error.starts_with(&format!("fetching '{name}': it "));
        assert!(is_said && (error.contains("archive")), "{name}: {error}");
    }
}
