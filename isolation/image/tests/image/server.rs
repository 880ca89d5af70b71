//! A tiny HTTP server that answers whatever a test tells it to, and remembers what it was asked;
//! and images made by hand to serve with it.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use gantry_image::Digest;

/// One request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    /// Names in lower case.
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: String,
}

type Answer = dyn Fn(&Request, &mut TcpStream) + Send + Sync;

/// Listens until the test ends.
pub(crate) struct Server {
    pub(crate) host: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub(crate) fn start(answer: impl Fn(&Request, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer): (_, Arc<Answer>) = (Arc::clone(&requests), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                std::thread::spawn(move || serve(stream, &seen, &*answer));
            }
        });
        Self { host, requests }
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    pub(crate) fn count(&self, part: &str) -> usize {
        self.requests()
            .iter()
            .filter(|request| request.path.contains(part))
            .count()
    }
}

fn serve(mut stream: TcpStream, seen: &Mutex<Vec<Request>>, answer: &Answer) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    if reader.read_line(&mut line).unwrap_or(0) == 0 {
        return;
    }
    let mut words = line.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap(), words.next().unwrap_or_default());
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
    let length = headers
        .get("content-length")
        .map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let request = Request {
        method,
        path,
        headers,
        body: String::from_utf8(body).unwrap(),
    };
    seen.lock().unwrap().push(request.clone());
    answer(&request, &mut stream);
}

/// Writes a whole answer; a client that hung up is its own affair.
pub(crate) fn reply(stream: &mut TcpStream, status: &str, headers: &[(&str, &str)], body: &[u8]) {
    let mut head = format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(body);
}

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// An image in memory.
#[derive(Clone)]
pub(crate) struct FakeImage {
    pub(crate) manifest: Vec<u8>,
    pub(crate) config: Vec<u8>,
    /// Compressed layers, bottom first.
    pub(crate) layers: Vec<Vec<u8>>,
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A tar with these files.
pub(crate) fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

impl FakeImage {
    /// An image of these uncompressed layers.
    pub(crate) fn new(tars: &[Vec<u8>]) -> Self {
        let ids: Vec<Digest> = tars.iter().map(|tar| Digest::of(tar)).collect();
        Self::with(
            &tars.iter().map(|tar| gzip(tar)).collect::<Vec<_>>(),
            &ids,
            "amd64",
        )
    }

    /// An image of these blobs that claims these diff ids.
    pub(crate) fn with(blobs: &[Vec<u8>], diff_ids: &[Digest], architecture: &str) -> Self {
        let config = serde_json::json!({
            "os": "linux", "architecture": architecture,
            "config": {"Cmd": ["/bin/true"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = config.to_string().into_bytes();
        let mut image = Self {
            manifest: Vec::new(),
            config,
            layers: blobs.to_vec(),
        };
        image.describe();
        image
    }

    fn describe(&mut self) {
        let descriptor = |kind: &str, blob: &[u8]| serde_json::json!({"mediaType": kind, "digest": Digest::of(blob), "size": blob.len()});
        let kind = |blob: &[u8]| match blob.get(..4) {
            Some([0x28, 0xb5, 0x2f, 0xfd]) => "application/vnd.oci.image.layer.v1.tar+zstd",
            _ => "application/vnd.oci.image.layer.v1.tar+gzip",
        };
        let layers: Vec<_> = self
            .layers
            .iter()
            .map(|blob| descriptor(kind(blob), blob))
            .collect();
        let config = descriptor("application/vnd.oci.image.config.v1+json", &self.config);
        let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
        self.manifest = manifest.to_string().into_bytes();
    }

    /// Answers as a registry that has only this image, under any tag.
    pub(crate) fn answer(&self, request: &Request, stream: &mut TcpStream) {
        let wanted = request.path.rsplit('/').next().unwrap_or_default();
        if request.path.contains("/manifests/") {
            if !wanted.starts_with("sha256:") || wanted == Digest::of(&self.manifest).to_string() {
                return reply(
                    stream,
                    "200 OK",
                    &[("Content-Type", MANIFEST)],
                    &self.manifest,
                );
            }
        } else {
            let blobs = self.layers.iter().chain([&self.config]);
            for blob in blobs {
                if wanted == Digest::of(blob).to_string() {
                    return reply(stream, "200 OK", &[], blob);
                }
            }
        }
        reply(stream, "404 Not Found", &[], b"{}");
    }
}
