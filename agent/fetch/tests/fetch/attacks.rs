//! What a hostile archive, item or neighbour in the sandbox may try; each has a name.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use gantry_fetch::{Bounds, Item};
use tar::{EntryType, Header};

use crate::fixture::{Node, assert_owned, item, sh};

/// A tar archive of entries whose names no tool would write.
#[derive(Default)]
struct Made(Vec<u8>);

impl Made {
    fn entry(mut self, kind: EntryType, name: &[u8], link: &[u8], mode: u32, body: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        {
            let fields = header.as_gnu_mut().unwrap();
            fields.name[..name.len()].copy_from_slice(name);
            fields.linkname[..link.len()].copy_from_slice(link);
        }
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        header.set_size(body.len() as u64);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(body);
        self.0.resize(self.0.len().div_ceil(512) * 512, 0);
        self
    }

    fn file(self, name: &str) -> Self {
        self.entry(EntryType::Regular, name.as_bytes(), b"", 0o644, b"evil")
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

/// Extracts it beside a file of the node that nobody may touch.
fn attack(made: Made) -> (Node, Result<(), String>) {
    let node = Node::new(&[]);
    fs::write(node.dir.path().join("victim"), "good").unwrap();
    let name = node.file("evil.tar", &made.end());
    let result = node.run(&[item(name)]);
    unharmed(&node);
    (node, result)
}

fn unharmed(node: &Node) {
    let victim = node.dir.path().join("victim");
    let metadata = victim.metadata().unwrap();
    assert_eq!((metadata.uid(), metadata.nlink()), (0, 1));
    assert_eq!(fs::read_to_string(victim).unwrap(), "good");
    let mut top: Vec<_> = fs::read_dir(node.dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    top.sort();
    assert_eq!(top, ["fetch", "files", "sandbox", "victim"]);
}

fn refused(made: Made, why: &str) {
    let (_, result) = attack(made);
    let error = result.unwrap_err();
    assert!(error.contains(why), "{error}");
}

#[test]
fn dot_dot_in_a_name() {
    refused(Made::default().file("../victim"), "\"..\"");
    refused(Made::default().file("a/../../victim"), "\"..\"");
}

#[test]
fn an_absolute_name_lies_in_the_sandbox() {
    let victim = "/victim-of-the-fetcher";
    let (node, result) = attack(Made::default().file(victim));
    result.unwrap();
    assert!(!Path::new(victim).exists());
    assert_eq!(node.text("victim-of-the-fetcher"), "evil");
}

#[test]
fn a_file_through_a_symlink_of_the_archive() {
    for target in ["..", "/", "../../..", "."] {
        let made = Made::default()
            .entry(EntryType::Symlink, b"link", target.as_bytes(), 0o777, b"")
            .file("link/victim");
        refused(made, "through a symbolic link");
    }
}

#[test]
fn a_file_in_place_of_a_symlink_does_not_follow_it() {
    let made = Made::default()
        .entry(EntryType::Symlink, b"link", b"../victim", 0o777, b"")
        .file("link");
    let (node, result) = attack(made);
    result.unwrap();
    assert!(
        node.sandbox()
            .join("link")
            .symlink_metadata()
            .unwrap()
            .is_file()
    );
}

#[test]
fn a_directory_in_place_of_a_symlink() {
    let made = Made::default()
        .entry(EntryType::Symlink, b"link", b"..", 0o777, b"")
        .entry(EntryType::Directory, b"link/", b"", 0o777, b"");
    refused(made, "is a directory where a file is");
}

#[test]
fn a_hard_link_out_of_the_sandbox() {
    let link =
        |to: &str| Made::default().entry(EntryType::Link, b"hard", to.as_bytes(), 0o644, b"");
    refused(link("../victim"), "\"..\"");
    refused(link("/etc/passwd"), "not a file of the archive");
    let through = Made::default()
        .entry(EntryType::Symlink, b"up", b"..", 0o777, b"")
        .entry(EntryType::Link, b"hard", b"up/victim", 0o644, b"");
    refused(through, "not a file of the archive");
    let to_link = Made::default()
        .entry(EntryType::Symlink, b"up", b"../victim", 0o777, b"")
        .entry(EntryType::Link, b"hard", b"up", 0o644, b"");
    refused(to_link, "not a file of the archive");
}

#[test]
fn a_hard_link_to_a_file_of_somebody_else_in_the_sandbox() {
    let node = Node::new(&[]);
    fs::write(node.sandbox().join("theirs"), "x").unwrap();
    let made = Made::default().entry(EntryType::Link, b"mine", b"theirs", 0o644, b"");
    let name = node.file("evil.tar", &made.end());
    let error = node.run(&[item(name)]).unwrap_err();
    assert!(error.contains("not a file of the archive"), "{error}");
}

#[test]
fn devices_and_named_pipes() {
    for (kind, why) in [
        (EntryType::Char, "is a device"),
        (EntryType::Block, "is a device"),
        (EntryType::Fifo, "is a named pipe"),
    ] {
        refused(Made::default().entry(kind, b"node", b"", 0o666, b""), why);
    }
    let node = Node::new(&[]);
    let script = "python3 - <<'E'
import zipfile
for name, mode in (('fifo.zip', 0o010666), ('char.zip', 0o020666)):
    with zipfile.ZipFile(name, 'w') as z:
        i = zipfile.ZipInfo('node'); i.create_system = 3; i.external_attr = mode << 16
        z.writestr(i, '')
E";
    sh(&node.dir.path().join("files"), script);
    for name in ["fifo.zip", "char.zip"] {
        let error = node.run(&[item(name)]).unwrap_err();
        assert!(error.contains("is a device or a named pipe"), "{error}");
    }
}

#[test]
fn set_id_bits_owners_and_attributes_are_dropped() {
    let made = Made::default().entry(EntryType::Regular, b"su", b"", 0o6755, b"evil");
    let (node, result) = attack(made);
    result.unwrap();
    assert_owned(&node.sandbox());
    let script = "cp /bin/true su; setcap cap_net_raw+ep su 2>/dev/null || \
                  python3 -c \"import os; os.setxattr('su','security.capability',bytes.fromhex('0100000200200000000000000000000000000000'))\"
chmod 6755 su; tar --xattrs --xattrs-include='*' -czf su.tgz su; mkdir d; chmod 2777 d; cp su d; zip -qr su.zip d";
    sh(&node.dir.path().join("files"), script);
    fs::remove_dir_all(node.sandbox()).unwrap();
    fs::create_dir(node.sandbox()).unwrap();
    node.run(&[item("su.tgz"), item("su.zip")]).unwrap();
    assert_owned(&node.sandbox());
    let su = node.sandbox().join("su");
    let mut value = [0; 64];
    let attribute = rustix::fs::getxattr(&su, "security.capability", &mut value);
    assert_eq!(attribute, Err(rustix::io::Errno::NODATA));
}

#[test]
fn giant_names_and_depths() {
    let long = Made::default().entry(EntryType::Regular, &[b'a'; 100], b"", 0o644, b"");
    assert!(attack(long).1.is_ok());
    let node = Node::new(&[]);
    let script = "python3 - <<'E'
import io, tarfile, zipfile
def tar(name, entry):
    with tarfile.open(name, 'w') as t: t.addfile(tarfile.TarInfo(entry))
tar('component.tar', 'x' * 256)
tar('path.tar', 'y/' * 3000 + 'z')
tar('deep.tar', 'y/' * 300 + 'z')
tar('huge.tar', 'y' * 2000000)
with zipfile.ZipFile('component.zip', 'w') as z: z.writestr('x' * 300, '')
with zipfile.ZipFile('huge.zip', 'w') as z: z.writestr('x' * 60000, '')
E";
    sh(&node.dir.path().join("files"), script);
    for (name, why) in [
        ("component.tar", "too long"),
        ("path.tar", "too long"),
        ("deep.tar", "too deep"),
        ("huge.tar", "cannot be extracted"),
        ("component.zip", "too long"),
        ("huge.zip", "too long"),
    ] {
        let error = node.run(&[item(name)]).unwrap_err();
        assert!(
            error.contains(why) && error.len() < 1_000,
            "{name}: {error}"
        );
    }
}

#[test]
fn sparse_files_are_refused() {
    let node = Node::new(&[]);
    let script = "truncate -s 1G hole; printf x >>hole
tar --format=gnu -Sczf gnu.tgz hole; tar --format=pax -Sczf pax.tgz hole";
    sh(&node.dir.path().join("files"), script);
    for name in ["gnu.tgz", "pax.tgz"] {
        let error = node.run(&[item(name)]).unwrap_err();
        assert!(error.contains("unsupported type 'S'"), "{error}");
    }
}

#[test]
fn zip_slip_and_links_of_zips() {
    let node = Node::new(&[]);
    fs::write(node.dir.path().join("victim"), "good").unwrap();
    let script = "python3 - <<'E'
import zipfile
def entry(z, name, content, mode):
    i = zipfile.ZipInfo(name); i.create_system = 3; i.external_attr = mode << 16
    z.writestr(i, content)
with zipfile.ZipFile('slip.zip', 'w') as z: entry(z, '../victim', 'evil', 0o100644)
with zipfile.ZipFile('link.zip', 'w') as z:
    entry(z, 'up', '..', 0o120777); entry(z, 'up/victim', 'evil', 0o100644)
with zipfile.ZipFile('target.zip', 'w') as z: entry(z, 'l', 'x' * 9000, 0o120777)
with zipfile.ZipFile('nul.zip', 'w') as z: entry(z, 'l', 'a\\0b', 0o120777)
with zipfile.ZipFile('none.zip', 'w') as z: entry(z, './', 'x', 0o100644); entry(z, '/', 'x', 0o100644)
with zipfile.ZipFile('top.zip', 'w') as z: entry(z, '.', 'x', 0o100644)
E
printf x >s; zip -qP secret coded.zip s";
    sh(&node.dir.path().join("files"), script);
    for (name, why) in [
        ("slip.zip", "\"..\""),
        ("link.zip", "through a symbolic link"),
        ("target.zip", "create failed"),
        ("nul.zip", "link to nothing"),
        ("top.zip", "would replace the sandbox itself"),
        ("coded.zip", "is encrypted"),
    ] {
        let error = node.run(&[item(name)]).unwrap_err();
        assert!(error.contains(why), "{name}: {error}");
    }
    node.run(&[item("none.zip")]).unwrap();
    unharmed(&node);
}

#[test]
fn output_files_do_not_leave_the_sandbox() {
    let node = Node::new(&[]);
    fs::write(node.dir.path().join("victim"), "good").unwrap();
    let uri = node.file("f", b"evil");
    let to = |output: &str| Item {
        output_file: Some(output.into()),
        ..item(&uri)
    };
    for output in ["../victim", "a/../../victim", "/victim", "a/", ".", "a\0b"] {
        let error = node.run(&[to(output)]).unwrap_err();
        assert!(error.contains("the output file"), "{output}: {error}");
    }
    symlink("..", node.sandbox().join("up")).unwrap();
    symlink("../victim", node.sandbox().join("there")).unwrap();
    let error = node.run(&[to("up/victim")]).unwrap_err();
    assert!(error.contains("through a symbolic link"), "{error}");
    node.run(&[to("there")]).unwrap();
    assert_eq!(node.text("there"), "evil");
    unharmed(&node);
}

/// Another task of the same group swaps a directory for a link to the victim's while an archive is
/// written below it.
#[test]
fn a_neighbour_that_swaps_directories_for_links() {
    let node = Node::new(&[]);
    fs::write(node.dir.path().join("victim"), "good").unwrap();
    let mut content = Made::default();
    for n in 0..20_000 {
        content = content.file(&format!("x{}/victim", n % 2));
    }
    let name = node.file("many.tar", &content.end());
    let over = AtomicBool::new(false);
    let (sandbox, swapped) = (node.sandbox(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let _ = fs::rename(sandbox.join("x1"), sandbox.join("away"));
                let _ = symlink("..", sandbox.join("x1"));
                let _ = fs::remove_file(sandbox.join("x1"));
                if fs::rename(sandbox.join("away"), sandbox.join("x1")).is_err() {
                    let _ = fs::remove_dir_all(sandbox.join("away"));
                } else {
                    swapped.store(true, Ordering::Relaxed);
                }
            }
        });
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(120);
        let mut rounds = 0;
        // Until the neighbour came through as well, however the two are scheduled.
        while rounds < 20 || !swapped.load(Ordering::Relaxed) {
            // Whether it ends well depends on who is faster; what must not happen does not.
            let _ = node.run(&[item(&name)]);
            unharmed(&node);
            rounds += 1;
            if std::time::Instant::now() > deadline {
                break;
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    assert!(swapped.load(Ordering::Relaxed), "the neighbour did nothing");
}

#[test]
fn a_bomb_of_shared_bytes() {
    let node = Node::new(&[]);
    let script = "python3 - <<'E'
import struct, zlib
data = zlib.compressobj(9, zlib.DEFLATED, -15); body = data.compress(b'0' * 100000) + data.flush()
crc = zlib.crc32(b'0' * 100000)
local = struct.pack('<IHHHHHIIIHH', 0x04034b50, 20, 0, 8, 0, 33, crc, len(body), 100000, 1, 0) + b'a' + body
central = b''.join(struct.pack('<IHHHHHHIIIHHHHHII', 0x02014b50, 20, 20, 0, 8, 0, 33, crc, len(body), 100000,
    4, 0, 0, 0, 0, 0, 0) + b'%04d' % n for n in range(1000))
end = struct.pack('<IHHHHIIH', 0x06054b50, 0, 0, 1000, 1000, len(central), len(local), 0)
open('bomb.zip', 'wb').write(local + central + end)
E";
    sh(&node.dir.path().join("files"), script);
    let error = node.run(&[item("bomb.zip")]).unwrap_err();
    assert!(error.contains("shares its bytes"), "{error}");
}

#[test]
fn bombs_by_ratio_size_number_and_memory() {
    let node = Node::new(&[]);
    let script =
        "head -c 40000000 /dev/zero >z; mkdir many; cd many; seq 1 300 | xargs touch; cd ..
tar czf ratio.tgz z; zip -q ratio.zip z; bzip2 -k z; zstd -q z; xz -0k z; gzip -k z
tar czf many.tgz many; zip -qr many.zip many
xz --lzma2=dict=512MiB -c z >window.xz";
    sh(&node.dir.path().join("files"), script);
    let bounds = Bounds {
        entries: 200,
        bytes: 1 << 30,
        ratio: 10,
        ratio_floor_bytes: 1 << 20,
    };
    for name in ["ratio.tgz", "ratio.zip", "z.bz2", "z.zst", "z.xz", "z.gz"] {
        let error = node.run_within(&[item(name)], bounds, None).unwrap_err();
        assert!(
            error.contains("more than 10 times its own size"),
            "{name}: {error}"
        );
        let error = node.run_within(&[item(name)], Bounds::default(), Some(30_000_000));
        let error = error.unwrap_err();
        assert!(
            error.contains("more than the 30000000 bytes of disk"),
            "{name}: {error}"
        );
    }
    let small = Bounds {
        bytes: 1_000_000,
        ..Bounds::default()
    };
    let error = node
        .run_within(&[item("ratio.tgz")], small, None)
        .unwrap_err();
    assert!(error.contains("more than 1000000 bytes"), "{error}");
    for name in ["many.tgz", "many.zip"] {
        let error = node.run_within(&[item(name)], bounds, None).unwrap_err();
        assert!(error.contains("more than 200 files"), "{name}: {error}");
    }
    let error = node.run(&[item("window.xz")]).unwrap_err();
    assert!(error.contains("not a xz archive"), "{error}");
}

#[test]
fn a_task_that_is_not_wanted_any_more_stops_in_the_midst() {
    use std::os::fd::AsFd as _;
    let node = Node::new(&[]);
    sh(
        &node.dir.path().join("files"),
        "head -c 3000000000 /dev/zero | gzip -1 >z.gz",
    );
    let fetched = node.fetch(&[item("z.gz")]).unwrap();
    let (sandbox, cancel) = (File::open(node.sandbox()).unwrap(), AtomicBool::new(false));
    let to = gantry_fetch::Place {
        sandbox: sandbox.as_fd(),
        owner: crate::fixture::OWNER,
        limit_bytes: None,
        bounds: Bounds::default(),
        cancel: &cancel,
    };
    let error = std::thread::scope(|scope| {
        let placing = scope.spawn(|| gantry_fetch::place(&fetched, &to).unwrap_err());
        let path = node.sandbox().join("z");
        crate::fixture::wait_until("it began", || {
            path.metadata().is_ok_and(|metadata| metadata.len() > 0)
        });
        cancel.store(true, Ordering::Relaxed);
        placing.join().unwrap()
    });
    assert!(crate::fixture::words(&error).ends_with("it was cancelled"));
    assert!(node.sandbox().join("z").metadata().unwrap().len() < 3_000_000_000);
}
