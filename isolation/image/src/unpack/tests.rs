//! What layers become, and what hostile ones do not: real directories, root needed.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::*;

/// A directory with a layer root in it and something beside it that must not change.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "unpacking keeps owners: run this as root"
        );
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("layer")).unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        fs::write(dir.path().join("outside/canary"), "canary").unwrap();
        Self { dir }
    }

    fn layer(&self) -> PathBuf {
        self.dir.path().join("layer")
    }

    fn outside(&self) -> PathBuf {
        self.dir.path().join("outside")
    }

    fn unpack(&self, tar: &[u8]) -> Result<Unpacked, UnpackError> {
        self.unpack_within(tar, &Limits::default())
    }

    fn unpack_within(&self, tar: &[u8], limits: &Limits) -> Result<Unpacked, UnpackError> {
        let root = rustix::fs::open(self.layer(), OFlags::RDONLY, Mode::empty()).unwrap();
        unpack(tar, root, limits, tar.len() as u64, Notes::none())
    }

    /// Everything beside the layer, with what would show a change.
    fn beside(&self) -> Vec<String> {
        let mut seen = Vec::new();
        for dir in [self.dir.path().to_owned(), self.outside()] {
            for entry in fs::read_dir(dir).unwrap() {
                let entry = entry.unwrap();
                if entry.file_name() == "layer" {
                    continue;
                }
                let metadata = entry.metadata().unwrap();
                let content = fs::read_to_string(entry.path()).unwrap_or_default();
                seen.push(format!(
                    "{:?} {:o} {}:{} {} {} {content}",
                    entry.path(),
                    metadata.mode(),
                    metadata.uid(),
                    metadata.gid(),
                    metadata.nlink(),
                    metadata.mtime()
                ));
            }
        }
        seen.sort();
        seen
    }
}

/// A tar made of raw headers, so that names can be anything.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn raw(mut self, kind: u8, name: &[u8], link: &[u8], mode: u32, content: &[u8]) -> Self {
        let mut header = tar::Header::new_ustar();
        {
            let old = header.as_old_mut();
            old.name[..name.len()].copy_from_slice(name);
            old.linkname[..link.len()].copy_from_slice(link);
            old.linkflag = [kind];
        }
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &str, content: &str) -> Self {
        self.raw(b'0', name.as_bytes(), b"", 0o644, content.as_bytes())
    }

    fn dir(self, name: &str, mode: u32) -> Self {
        self.raw(b'5', name.as_bytes(), b"", mode, b"")
    }

    fn symlink(self, name: &str, target: &str) -> Self {
        self.raw(b'2', name.as_bytes(), target.as_bytes(), 0o777, b"")
    }

    fn hard_link(self, name: &str, target: &str) -> Self {
        self.raw(b'1', name.as_bytes(), target.as_bytes(), 0o644, b"")
    }

    fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut body = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while length != rest + length.to_string().len() {
                length = rest + length.to_string().len();
            }
            body.extend_from_slice(format!("{length} {key}=").as_bytes());
            body.extend_from_slice(value);
            body.push(b'\n');
        }
        self.raw(b'x', b"pax", b"", 0o644, &body)
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 256];
    let length = rustix::fs::lgetxattr(path, name, &mut value[..]).ok()?;
    value.truncate(length);
    Some(value)
}

fn is_whiteout(path: &Path) -> bool {
    let metadata = fs::symlink_metadata(path).unwrap();
    metadata.file_type().is_char_device() && metadata.rdev() == 0
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn an_ordinary_layer() {
    let place = Place::new();
    let capability: &[u8] = &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(200));
    let tar = Tar::default()
        .dir("./", 0o711)
        .dir("tmp/", 0o1777)
        .dir("bin", 0o755)
        .raw(b'0', b"bin/su", b"", 0o4755, b"#!su")
        .hard_link("bin/su2", "bin/su")
        .symlink("lib", "usr/lib")
        .symlink("abs", "/etc/passwd")
        .raw(b'6', b"fifo", b"", 0o622, b"")
        .raw(b'3', b"dev/null", b"", 0o666, b"")
        .raw(b'4', b"dev/sda", b"", 0o666, b"")
        .pax(&[
            ("SCHILY.xattr.security.capability", capability),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ("SCHILY.xattr.user.overlay.opaque", b"y"),
            ("SCHILY.xattr.user.colour", b"red\ngreen"),
            ("mtime", b"1234567890.25"),
            ("uid", b"3000000"),
            ("gid", b"70"),
        ])
        .file("ping", "x")
        .raw(
            b'L',
            b"././@LongLink",
            b"",
            0,
            format!("{long}\0").as_bytes(),
        )
        .file("cut", "long")
        .raw(
            b'g',
            b"pax_global_header",
            b"",
            0o644,
            b"16 comment=12345\n",
        )
        .file("implied/dir/file", "implied")
        .end();
    let unpacked = place.unpack(&tar).unwrap();
    assert_eq!(unpacked.digest, Digest::of(&tar));
    let long_dir = "d".repeat(120).into_bytes();
    assert_eq!(
        unpacked.implied,
        [long_dir, b"implied".to_vec(), b"implied/dir".to_vec()]
    );
    let at = |name: &str| place.layer().join(name);
    let mode = |name: &str| fs::symlink_metadata(at(name)).unwrap().mode() & 0o7777;
    assert_eq!(fs::metadata(place.layer()).unwrap().mode() & 0o7777, 0o711);
    assert_eq!(
        (mode("tmp"), mode("bin/su"), mode("fifo")),
        (0o1777, 0o4755, 0o622)
    );
    assert_eq!(
        fs::metadata(at("bin/su2")).unwrap().ino(),
        fs::metadata(at("bin/su")).unwrap().ino()
    );
    assert_eq!(fs::read_link(at("abs")).unwrap(), Path::new("/etc/passwd"));
    assert!(fs::metadata(at("fifo")).unwrap().file_type().is_fifo());
    assert!(
        !at("dev/null").exists() && !at("dev").exists(),
        "device nodes are left out"
    );
    let ping = fs::metadata(at("ping")).unwrap();
    assert_eq!(
        (ping.uid(), ping.gid(), ping.mtime(), ping.mtime_nsec()),
        (3_000_000, 70, 1_234_567_890, 250_000_000)
    );
    assert_eq!(
        xattr(&at("ping"), "security.capability").as_deref(),
        Some(capability)
    );
    assert_eq!(
        xattr(&at("ping"), "user.colour").as_deref(),
        Some(&b"red\ngreen"[..])
    );
    for dropped in [
        "trusted.overlay.redirect",
        "trusted.overlay.opaque",
        "user.overlay.opaque",
    ] {
        assert_eq!(xattr(&at("ping"), dropped), None);
    }
    assert_eq!(fs::read_to_string(at(&long)).unwrap(), "long");
    assert_eq!(mode("implied/dir"), 0o755);
    for directory in ["tmp", "bin"] {
        assert_eq!(
            fs::metadata(at(directory)).unwrap().mtime(),
            1_000_000_000,
            "{directory}"
        );
    }
}

#[test]
fn whiteouts() {
    let place = Place::new();
    let tar = Tar::default()
        .file("a/.wh.gone", "")
        .file(".wh.top", "")
        .dir("opaque", 0o700)
        .file("opaque/.wh..wh..opq", "")
        .file("opaque/new", "new")
        .file("implied/.wh..wh..opq", "")
        .file("x/.wh..wh.plnk", "")
        .file("x/.wh..wh.orph", "")
        // Replaced directories, in both orders, with and without an entry for the directory.
        .file(".wh.early", "")
        .dir("early", 0o755)
        .dir("late", 0o755)
        .file("late/f", "f")
        .file(".wh.late", "")
        .file(".wh.under", "")
        .file("under/f", "f")
        .file(".wh.file", "")
        .file("file", "new")
        .file("kept", "kept")
        .file(".wh.kept", "")
        .end();
    place.unpack(&tar).unwrap();
    let at = |name: &str| place.layer().join(name);
    assert!(is_whiteout(&at("a/gone")) && is_whiteout(&at("top")));
    for name in ["opaque", "implied", "early", "late", "under"] {
        assert_eq!(
            xattr(&at(name), "trusted.overlay.opaque").as_deref(),
            Some(&b"y"[..]),
            "{name}"
        );
    }
    assert_eq!(xattr(&at("a"), "trusted.overlay.opaque"), None);
    assert_eq!(fs::metadata(at("opaque")).unwrap().mode() & 0o777, 0o700);
    assert_eq!(fs::read_to_string(at("file")).unwrap(), "new");
    assert_eq!(fs::read_to_string(at("kept")).unwrap(), "kept");
    let names: Vec<_> = fs::read_dir(at("opaque"))
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(names, ["new"]);
    assert!(!at("x").exists(), "AUFS metadata is not content");
}

#[test]
fn later_entries_replace_earlier_ones() {
    let place = Place::new();
    let tar = Tar::default()
        .file("a", "1")
        .file("a", "2")
        .symlink("link", "/outside")
        .file("link", "plain")
        .dir("d", 0o755)
        .file("d", "was a directory")
        .symlink("s", "real")
        .dir("real", 0o755)
        .dir("s", 0o750)
        .dir("twice", 0o700)
        .file("twice/f", "f")
        .dir("twice", 0o711)
        .end();
    place.unpack(&tar).unwrap();
    let at = |name: &str| place.layer().join(name);
    assert_eq!(fs::read_to_string(at("a")).unwrap(), "2");
    assert_eq!(fs::read_to_string(at("link")).unwrap(), "plain");
    assert_eq!(fs::read_to_string(at("d")).unwrap(), "was a directory");
    assert!(fs::symlink_metadata(at("s")).unwrap().is_dir());
    assert_eq!(
        fs::metadata(at("twice")).unwrap().permissions().mode() & 0o777,
        0o711
    );
    assert!(at("twice/f").exists());
}

#[test]
fn symlinked_parents_stay_inside() {
    let place = Place::new();
    let before = place.beside();
    let absolute = place.outside().display().to_string();
    let tar = Tar::default()
        .dir("usr/lib", 0o755)
        .symlink("lib", "usr/lib")
        .file("lib/a.so", "a")
        .symlink("up", "../../../../../usr")
        .file("up/lib/b.so", "b")
        .symlink("abs", "/usr/lib")
        .file("abs/c.so", "c")
        .end();
    place.unpack(&tar).unwrap();
    for name in ["a.so", "b.so", "c.so"] {
        assert!(place.layer().join("usr/lib").join(name).is_file(), "{name}");
    }
    // A link to a directory of the host is a link to nothing inside the layer.
    let tar = Tar::default()
        .symlink("out", &absolute)
        .file("out/evil", "evil")
        .end();
    assert!(place.unpack(&tar).is_err());
    assert_eq!(place.beside(), before);
}

#[test]
fn hostile_links_and_places_are_refused() {
    let cases: Vec<(&str, Tar)> = vec![
        ("parent", Tar::default().file("../outside/canary", "evil")),
        (
            "parent inside",
            Tar::default().file("a/../../outside/canary", "evil"),
        ),
        ("parent at the end", Tar::default().dir("a/..", 0o777)),
        (
            "parent of a whiteout",
            Tar::default().file("../outside/.wh.canary", ""),
        ),
        ("whiteout of ..", Tar::default().file("a/.wh...", "")),
        ("whiteout of .", Tar::default().file("a/.wh..", "")),
        ("whiteout of nothing", Tar::default().file("a/.wh.", "")),
        (
            "hard link out",
            Tar::default().hard_link("a", "../outside/canary"),
        ),
        (
            "hard link to the host",
            Tar::default().hard_link("a", "/etc/passwd"),
        ),
        (
            "hard link through a symlink",
            Tar::default()
                .symlink("s", "../outside")
                .hard_link("a", "s/canary"),
        ),
        (
            "hard link to a directory",
            Tar::default().dir("d", 0o755).hard_link("a", "d"),
        ),
        (
            "hard link to a whiteout",
            Tar::default().file(".wh.d", "").hard_link("a", "d"),
        ),
        ("hard link to the root", Tar::default().hard_link("a", "/")),
        ("hard link to nothing", Tar::default().hard_link("a", "")),
        (
            "file as the root",
            Tar::default().file("./", "x").file(".", "x"),
        ),
        ("symlink as the root", Tar::default().symlink(".", "/")),
        (
            "dangling parent",
            Tar::default()
                .symlink("s", "../outside")
                .file("s/x", "evil"),
        ),
        (
            "parent is itself",
            Tar::default().symlink("s", "s").file("s/x", "evil"),
        ),
        (
            "parent is a file",
            Tar::default().file("f", "f").file("f/x", "evil"),
        ),
        (
            "magic link",
            Tar::default()
                .symlink("s", "/proc/self/root")
                .file("s/x", "evil"),
        ),
        ("empty symlink", Tar::default().symlink("s", "")),
        (
            "replaced full directory",
            Tar::default().file("d/f", "f").file("d", "x"),
        ),
    ];
    refuse(cases);
}

#[test]
fn hostile_names_and_numbers_are_refused() {
    let long = "x".repeat(99);
    let deep = "a/".repeat(300);
    let cases: Vec<(&str, Tar)> = vec![
        ("sparse", Tar::default().raw(b'S', b"s", b"", 0o644, b"")),
        (
            "unknown type",
            Tar::default().raw(b'Z', b"s", b"", 0o644, b""),
        ),
        (
            "NUL in a name",
            Tar::default().pax(&[("path", b"a\0b")]).file("x", "x"),
        ),
        (
            "NUL in a link",
            Tar::default()
                .pax(&[("linkpath", b"a\0b")])
                .symlink("x", "x"),
        ),
        (
            "long component",
            Tar::default()
                .pax(&[("path", long.repeat(3).as_bytes())])
                .file("x", "x"),
        ),
        (
            "deep",
            Tar::default()
                .pax(&[("path", deep.as_bytes())])
                .dir("x", 0o755),
        ),
        (
            "no owner (-1)",
            Tar::default().pax(&[("uid", b"4294967295")]).file("x", "x"),
        ),
        (
            "owner beyond 32 bits",
            Tar::default().pax(&[("uid", b"4294967296")]).file("x", "x"),
        ),
        (
            "pax says parent",
            Tar::default()
                .pax(&[("path", b"../outside/canary")])
                .file("x", "x"),
        ),
        (
            "pax says more than there is",
            Tar::default().pax(&[("size", b"99999999")]).file("x", "x"),
        ),
    ];
    refuse(cases);
}

fn refuse(cases: Vec<(&str, Tar)>) {
    for (name, tar) in cases {
        let place = Place::new();
        let before = place.beside();
        let result = place.unpack(&tar.end());
        assert!(result.is_err(), "{name}: was taken");
        assert_eq!(place.beside(), before, "{name}: changed something outside");
    }
}

#[test]
fn cut_archives_are_refused() {
    let tar = Tar::default()
        .file("a", &"x".repeat(2000))
        .file("b", "y")
        .end();
    for cut in [1, 511, 513, 1000, 2511, 2561, 2800, 3072] {
        let place = Place::new();
        let error = place.unpack(&tar[..cut]).unwrap_err();
        assert!(
            matches!(error, UnpackError::Tar(TarError::Read(_))),
            "{cut}: {error:?}"
        );
    }
    // Without padding and trailer, as umoci's insert leaves it.
    let place = Place::new();
    place.unpack(&tar[..3073]).unwrap();
    assert_eq!(fs::read(place.layer().join("b")).unwrap(), b"y");
}

#[test]
fn bombs_are_refused() {
    let limits = Limits {
        entries: 10,
        bytes: 100_000,
        ratio: 1_000_000,
        ratio_floor_bytes: 0,
    };
    let many = (0..11).fold(Tar::default(), |tar, n| tar.file(&format!("f{n}"), ""));
    let large = Tar::default().file("large", &"x".repeat(200_000));
    for tar in [many.end(), large.end()] {
        let result = Place::new().unpack_within(&tar, &limits);
        assert!(matches!(result, Err(UnpackError::Bomb(_))), "{result:?}");
    }
    let place = Place::new();
    let root = rustix::fs::open(place.layer(), OFlags::RDONLY, Mode::empty()).unwrap();
    let limits = Limits {
        ratio: 10,
        ratio_floor_bytes: 5000,
        ..Limits::default()
    };
    let tar = Tar::default().file("zeros", &"0".repeat(50_000)).end();
    let error = unpack(tar.as_slice(), root, &limits, 600, Notes::none()).unwrap_err();
    assert!(error.to_string().contains("10 times"), "{error}");
}

/// Layers of random nasty entries: whatever they do, nothing beside the layer changes.
#[test]
fn random_hostile_layers_stay_inside() {
    let place = Place::new();
    let before = place.beside();
    let absolute = place.outside().display().to_string();
    let names = [
        "a",
        "b",
        "a/b",
        "a/b/c",
        "/a",
        "./b/./c",
        "../outside",
        "a/../../outside/canary",
        "c",
        "c/canary",
        "c/d/canary",
        "a/canary",
        ".wh.a",
        "a/.wh.b",
        "c/.wh.canary",
        "c/.wh..wh..opq",
        ".wh..wh..opq",
        ".",
        "b/c/canary",
    ];
    let targets = [
        "a",
        "b",
        "..",
        "../outside",
        "../../..",
        "/",
        ".",
        absolute.as_str(),
        "c",
        "../layer/../outside",
        "/proc/self/cwd",
        "../outside/canary",
        "a/b/../../../outside",
    ];
    let kinds = [b'0', b'5', b'2', b'2', b'2', b'1', b'6', b'3'];
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut pick = |count: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % count as u64).unwrap()
    };
    let mut taken = 0;
    for round in 0..3000 {
        let mut tar = Tar::default();
        for _ in 0..2 + pick(6) {
            let (name, target) = (names[pick(names.len())], targets[pick(targets.len())]);
            let kind = kinds[pick(kinds.len())];
            let content: &[u8] = if kind == b'0' { b"evil" } else { b"" };
            tar = tar.raw(kind, name.as_bytes(), target.as_bytes(), 0o6777, content);
        }
        taken += u32::from(place.unpack(&tar.end()).is_ok());
        assert_eq!(place.beside(), before, "round {round}");
        if round % 10 == 0 {
            fs::remove_dir_all(place.layer()).unwrap();
            fs::create_dir(place.layer()).unwrap();
        }
    }
    assert!(
        taken > 100,
        "only {taken} layers got through: the generator tests nothing"
    );
}
