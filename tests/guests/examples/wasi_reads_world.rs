//! Looks for everything that WASI could show it and says what it found: arguments, environment, clocks, random numbers, a
//! file, a folder, a socket and a name. The answer is the same every time and on every machine.

use std::hash::{BuildHasher, RandomState};
use std::time::{Instant, SystemTime};

#[expect(clippy::disallowed_methods, reason = "whether there is an environment is the question")]
fn world() -> String {
    let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let begun = Instant::now();
    let random = RandomState::new().hash_one(0);
    let found = [
        ("args", std::env::args().count().to_string()),
        ("env", std::env::vars().count().to_string()),
        ("seconds", seconds.to_string()),
        ("elapsed", begun.elapsed().as_nanos().to_string()),
        ("file", std::fs::read("/etc/passwd").is_ok().to_string()),
        ("folder", std::fs::read_dir("/").is_ok().to_string()),
        ("write", std::fs::write("/tmp/pith-was-here", "x").is_ok().to_string()),
        ("connect", std::net::TcpStream::connect("127.0.0.1:80").is_ok().to_string()),
        ("bind", std::net::UdpSocket::bind("127.0.0.1:0").is_ok().to_string()),
        ("name", std::net::ToSocketAddrs::to_socket_addrs("localhost:80").is_ok().to_string()),
        ("random", random.to_string()),
    ];
    found.map(|(what, found)| format!("{what} {found}")).join(", ")
}

pith_guests::guest!({ pith_guests::says(world()) });
