//! A TCP proxy before a metadata engine, which takes its time.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};

/// A proxy on a free port of loopback. It ends with the process.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
}

impl Proxy {
    /// Starts one before a URL such as `redis://127.0.0.1:6379/1`: whatever goes through it is held up for so long, each way.
    pub fn start(url: &str, delay: Duration) -> Result<Proxy> {
        let target = authority(url)?.to_string();
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(&target) else { continue };
                let (Ok(other_client), Ok(other_server)) = (client.try_clone(), server.try_clone()) else { continue };
                std::thread::spawn(move || carry(client, server, delay));
                std::thread::spawn(move || carry(other_server, other_client, delay));
            }
        });
        Ok(Proxy { port })
    }

    /// The same URL through the proxy.
    pub fn url(&self, url: &str) -> Result<String> {
        Ok(url.replacen(authority(url)?, &format!("127.0.0.1:{}", self.port), 1))
    }
}

fn authority(url: &str) -> Result<&str> {
    let rest = url.split_once("://").context("a URL")?.1;
    rest.split('/').next().context("an authority")
}

fn carry(mut from: TcpStream, mut to: TcpStream, delay: Duration) {
    let mut buffer = [0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        std::thread::sleep(delay);
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
