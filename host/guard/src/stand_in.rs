//! The stand-in: a FUSE file system over the mount of a client that was killed, that answers nothing either.
//!
//! The container runtime looks at a directory before it makes a container there, and a dead mount refuses that. This one has
//! answered that question once, for as long as any node runs, before its connection was closed; everything else is refused as the
//! dead mount did. It lies on that mount and not in its place: the containers of the pod see what is mounted on what they saw
//! when they started, and would never see a mount below it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::thread::spawn;

use rustix::fs::{CWD, fstat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen, move_mount,
};

/// What mountinfo calls it: `fuse.` and the subtype.
pub(crate) const KIND: &[u8] = b"fuse.pith-guard";
const SUBTYPE: &str = "pith-guard";

/// The least that the kernel asks for: 8 KiB, or its largest request.
const BUFFER: usize = 1 << 16;
/// `struct fuse_in_header` of <linux/fuse.h>, whose names and numbers these are.
const HEADER: usize = 40;
const INIT: u32 = 26;
const GETATTR: u32 = 3;
const MAJOR: u32 = 7;
/// Of 2019, as are the calls that mount it: all that is needed is older.
const MINOR: u32 = 31;
/// A directory that everybody may write to: what the kubelet makes of an emptyDir, and repairs.
const MODE: u32 = 0o40777;
/// How long the kernel may believe it.
const VALID_SECONDS: u64 = 100 * 366 * 24 * 60 * 60;
/// Neither of these is what the client takes for a mount of its own, or for a broken one: an inode of at most 1, and no size.
const INODE: u64 = 0x7069_7468;
const SIZE: u64 = 4096;

/// Mounts one at a path. It is complete before anybody can see it.
pub(crate) fn mount(path: &Path) -> io::Result<()> {
    let mut device = OpenOptions::new().read(true).write(true).open("/dev/fuse")?;
    let context = fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let context = &context;
    for (option, value) in [
        ("source", SUBTYPE),
        ("subtype", SUBTYPE),
        ("fd", &device.as_raw_fd().to_string()),
        ("rootmode", &format!("{MODE:o}")),
        ("user_id", "0"),
        ("group_id", "0"),
    ] {
        fsconfig_set_string(context, option, value)?;
    }
    fsconfig_set_flag(context, "allow_other")?;
    fsconfig_create(context)?;
    let attributes =
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let mount = fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    let asked = mount.try_clone()?;
    let asking = spawn(move || fstat(asked));
    serve(&mut device)?;
    drop(device);
    asking.join().map_err(|_| io::Error::other("it could not be asked"))??;
    Ok(move_mount(&mount, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// Answers until it was told about the root.
fn serve(device: &mut File) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = device.read(&mut buffer)?;
        let (opcode, unique) = header(&buffer[..length]).ok_or(io::ErrorKind::UnexpectedEof)?;
        let answer = match opcode {
            INIT => init(),
            GETATTR => attributes(),
            other => return Err(io::Error::other(format!("the kernel asked something else first ({other})"))),
        };
        device.write_all(&reply(unique, &answer))?;
        if opcode == GETATTR {
            return Ok(());
        }
    }
}

/// What is asked, and the number of the request.
fn header(request: &[u8]) -> Option<(u32, u64)> {
    let header: &[u8; HEADER] = request.first_chunk()?;
    let (_, opcode, unique) = (&header[..4], &header[4..8], &header[8..16]);
    Some((u32::from_ne_bytes(opcode.try_into().ok()?), u64::from_ne_bytes(unique.try_into().ok()?)))
}

/// `struct fuse_out_header`, and what follows it.
fn reply(unique: u64, answer: &[u8]) -> Vec<u8> {
    let length = u32::try_from(16 + answer.len()).expect("answers are short");
    [&length.to_ne_bytes()[..], &0_i32.to_ne_bytes(), &unique.to_ne_bytes(), answer].concat()
}

/// `struct fuse_init_out`: no feature, and requests of a page at most.
fn init() -> Vec<u8> {
    let page = 4096;
    let words = [MAJOR, MINOR, page, 0, 0, page, 1];
    let mut answer: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    answer.resize(64, 0);
    answer
}

/// `struct fuse_attr_out`.
fn attributes() -> Vec<u8> {
    let [blocks, time] = [0_u64; 2];
    let [links, nobody] = [2_u32, 0];
    let long = [VALID_SECONDS, 0, INODE, SIZE, blocks, time, time, time];
    let short = [0, 0, 0, MODE, links, nobody, nobody, 0, 4096, 0];
    let long = long.iter().flat_map(|it: &u64| it.to_ne_bytes());
    long.chain(short.iter().flat_map(|it: &u32| it.to_ne_bytes())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_answered_in_the_sizes_that_it_asks_for() {
        assert_eq!(init().len(), 64);
        assert_eq!(attributes().len(), 16 + 88);
        let reply = reply(7, &attributes());
        assert_eq!(reply[..4], u32::try_from(reply.len()).unwrap().to_ne_bytes());
        assert_eq!(reply[8..16], 7_u64.to_ne_bytes());
    }

    #[test]
    fn a_request_begins_with_a_header() {
        let mut request = vec![0; HEADER];
        request[4..8].copy_from_slice(&GETATTR.to_ne_bytes());
        request[8..16].copy_from_slice(&7_u64.to_ne_bytes());
        assert_eq!(header(&request), Some((GETATTR, 7)));
        assert_eq!(header(&request[1..]), None);
        assert_eq!(header(&[]), None);
    }
}
