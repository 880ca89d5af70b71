//! A line to a registry that carries so many bytes a second and remembers what was asked over it.
//! A server that is away for a moment is waited for, as a client behind a balancer would see it.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Longest wait for a server that is away.
const AWAY_MAX: Duration = Duration::from_secs(30);

/// A line; it is there until the test ends.
pub struct Line {
    /// `127.0.0.1:port`.
    pub address: String,
    bytes_per_s: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Line {
    /// To the server at this address.
    pub fn to(server: &str, bytes_per_s: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let line = Self {
            address: listener.local_addr().expect("an address").to_string(),
            bytes_per_s: Arc::new(AtomicUsize::new(bytes_per_s)),
            requests: Arc::default(),
        };
        let (speed, requests) = (line.bytes_per_s.clone(), line.requests.clone());
        let server = server.to_owned();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (server, speed, requests) = (server.clone(), speed.clone(), requests.clone());
                std::thread::spawn(move || connect(&server, &client, &speed, &requests));
            }
        });
        line
    }

    /// From now on.
    pub fn set_speed(&self, bytes_per_s: usize) {
        self.bytes_per_s.store(bytes_per_s, Ordering::Relaxed);
    }

    /// The heads of all requests so far: those of which `part` is in the first line.
    pub fn requests(&self, part: &str) -> Vec<String> {
        let requests = self.requests.lock().expect("nothing panics with it");
        let fits = |head: &&String| head.lines().next().is_some_and(|line| line.contains(part));
        requests.iter().filter(fits).cloned().collect()
    }
}

fn connect(server: &str, client: &TcpStream, speed: &AtomicUsize, seen: &Mutex<Vec<String>>) {
    let began = Instant::now();
    let server = loop {
        match TcpStream::connect(server) {
            Ok(server) => break server,
            Err(_) if began.elapsed() > AWAY_MAX => return,
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    std::thread::scope(|threads| {
        threads.spawn(|| ask(client, &server, seen));
        answer(&server, client, speed);
        // Whoever still reads ends.
        let _ = client.shutdown(Shutdown::Both);
        let _ = server.shutdown(Shutdown::Both);
    });
}

/// Requests without bodies, as pulls have them.
fn ask(mut client: &TcpStream, mut server: &TcpStream, seen: &Mutex<Vec<String>>) {
    let (mut chunk, mut text) = (vec![0; 64 << 10], String::new());
    while let Ok(length @ 1..) = client.read(&mut chunk) {
        text.push_str(&String::from_utf8_lossy(&chunk[..length]));
        while let Some(end) = text.find("\r\n\r\n") {
            let head: String = text.drain(..end + 4).collect();
            seen.lock().expect("nothing panics with it").push(head);
        }
        if server.write_all(&chunk[..length]).is_err() {
            break;
        }
    }
    let _ = server.shutdown(Shutdown::Write);
}

fn answer(mut server: &TcpStream, mut client: &TcpStream, speed: &AtomicUsize) {
    let mut chunk = vec![0; 64 << 10];
    while let Ok(length @ 1..) = server.read(&mut chunk) {
        if client.write_all(&chunk[..length]).is_err() {
            break;
        }
        let micros = length.saturating_mul(1_000_000) / speed.load(Ordering::Relaxed);
        std::thread::sleep(Duration::from_micros(micros as u64));
    }
}
