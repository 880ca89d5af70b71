//! A small HTTP server that answers whatever a test tells it to, and remembers what it was asked.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// One request; names of headers in lower case.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) headers: HashMap<String, String>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// Where the range that is asked for begins.
    pub(crate) fn from(&self) -> Option<usize> {
        let range = self.header("range")?.strip_prefix("bytes=")?;
        range.strip_suffix('-')?.parse().ok()
    }
}

/// Listens until the test ends.
pub(crate) struct Server {
    /// `127.0.0.1:port`.
    pub(crate) host: String,
    seen: Arc<Mutex<Vec<Request>>>,
}

type Answer = dyn Fn(&Request, &mut TcpStream) + Send + Sync;

impl Server {
    pub(crate) fn start(answer: impl Fn(&Request, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (requests, answer): (_, Arc<Answer>) = (Arc::clone(&seen), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (requests, answer) = (Arc::clone(&requests), Arc::clone(&answer));
                std::thread::spawn(move || serve(stream, &requests, &*answer));
            }
        });
        Self { host, seen }
    }

    /// The same content for every path, with a tag.
    pub(crate) fn of(content: &'static [u8]) -> Self {
        Self::start(move |_, stream| whole(stream, content, "\"v1\""))
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.host)
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }
}

fn serve(mut stream: TcpStream, seen: &Mutex<Vec<Request>>, answer: &Answer) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    if reader.read_line(&mut line).unwrap_or(0) == 0 {
        return;
    }
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) <= 2 {
            break;
        }
        if let Some((name, value)) = line.trim_end().split_once(": ") {
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
    }
    let request = Request { path, headers };
    seen.lock().unwrap().push(request.clone());
    answer(&request, &mut stream);
}

/// One answer; the connection closes after it.
pub(crate) fn send(stream: &mut TcpStream, status: &str, headers: &[String], body: &[u8]) {
    let mut head = format!("HTTP/1.1 {status}\r\nconnection: close\r\n");
    for header in headers {
        head += header;
        head += "\r\n";
    }
    // Who asked may be gone.
    let _ = stream.write_all(format!("{head}\r\n").as_bytes());
    let _ = stream.write_all(body);
}

pub(crate) fn whole(stream: &mut TcpStream, content: &[u8], etag: &str) {
    let headers = [
        format!("content-length: {}", content.len()),
        format!("etag: {etag}"),
    ];
    send(stream, "200 OK", &headers, content);
}

pub(crate) fn status(stream: &mut TcpStream, status: &str) {
    send(stream, status, &["content-length: 0".into()], b"");
}

pub(crate) fn redirect(stream: &mut TcpStream, to: &str) {
    let headers = [format!("location: {to}"), "content-length: 0".into()];
    send(stream, "302 Found", &headers, b"");
}
