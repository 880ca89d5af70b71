//! A terminal over a console socket.

use std::io::Read;
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use serde_json::json;

use crate::bundle::Bundle;

/// Receives the one descriptor of a message, by Python: the standard library of Rust cannot.
const RECEIVE: &str = "import array,os,socket,sys
s=socket.socket(fileno=0)
m,a,f,_=s.recvmsg(64,socket.CMSG_SPACE(4))
fd=array.array('i',a[0][2])[0]
while True:
    try: b=os.read(fd,1024)
    except OSError: break
    if not b: break
    os.write(1,b)
";

#[test]
fn the_master_of_a_terminal_comes_over_the_console_socket() {
    let mut bundle = Bundle::new(
        "tty",
        &["sh", "-c", "tty; stty size; echo to >/dev/console"],
    );
    bundle.config["process"]["terminal"] = json!(true);
    bundle.config["process"]["consoleSize"] = json!({"height": 33, "width": 44});
    bundle.write();
    let path = bundle.path("console.sock");
    let listener = UnixListener::bind(&path).unwrap();
    bundle.ok(&["create", "--console-socket", &path, &bundle.id]);
    let (socket, _) = listener.accept().unwrap();
    let mut reader = std::process::Command::new("python3")
        .args(["-c", RECEIVE])
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(socket)))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    bundle.ok(&["start", &bundle.id]);
    let mut text = String::new();
    reader
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    reader.wait().unwrap();
    assert_eq!(text, "/dev/pts/0\r\n33 44\r\nto\r\n");
}
