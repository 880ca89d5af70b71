//! What needs no container.

use super::*;

#[test]
fn only_maps_without_a_name_are_looked_at() {
    for (line, want) in [
        (
            &b"7f5b2cb92000-7f5b2cc87000 rw-s 00000000 00:2b 2195470                    /a/f (deleted)"[..],
            Some("map_files/7f5b2cb92000-7f5b2cc87000"),
        ),
        (b"00400000-00401000 r--p 0 fe:00 1 /x y\\012 (deleted)", Some("map_files/400000-401000")),
        (b"00400000-00401000 r--p 0 fe:00 1 /x (deleted) ", None),
        (b"00400000-00401000 r--p 0 fe:00 1 /x", None),
        (b"x-y r--p 0 fe:00 1 /x (deleted)", None),
        (b" (deleted)", None),
        (b"", None),
    ] {
        let found = deleted(line);
        let found = found.as_deref().map(|name| name.to_str().unwrap());
        assert_eq!(found, want, "{}", String::from_utf8_lossy(line));
    }
}

#[test]
fn threads_with_one_table_count_as_one() {
    let own = std::process::id().cast_signed();
    let (tell, told) = std::sync::mpsc::channel();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let other = std::thread::spawn(move || {
        tell.send(rustix::thread::gettid().as_raw_nonzero().get())
            .unwrap();
        // Until the other end is dropped.
        ended.recv().unwrap_err();
    });
    let thread = told.recv().unwrap();
    assert_eq!(tables(&[own, thread]), [own]);
    // Another process has its own.
    assert_eq!(tables(&[own, thread, 1]), [own, 1]);
    drop(end);
    other.join().unwrap();
}
