//! The kernel's side of FUSE, spoken to a client over a pair of sockets: what a mount would let be done, without one.
//!
//! The client reads requests from the descriptor that it is given, and does not ask what is behind it. So no `/dev/fuse`, no mount
//! and no privilege is needed, and nothing appears in any directory (decisions/0029). A session is used by one thread, one request
//! after the other. Numbers of the protocol are those of Linux' `fuse.h`; nodes have the numbers of JuiceFS' inodes, which are never
//! given twice.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};

/// The node of a file system's root.
pub(super) const ROOT: u64 = 1;

/// The version that is spoken, of which the client takes a lower one where it knows none so high.
const VERSION: [u32; 2] = [7, 31];
/// Directories are read with what is known of their entries.
const READDIRPLUS: u32 = 1 << 13;
/// The most of a file or a directory that is read at once. An answer has to fit into a socket's buffer.
const LARGEST_READ: u32 = 64 << 10;
/// Room for an answer with its header.
const BUFFER: usize = (LARGEST_READ as usize) + (4 << 10);
const REQUEST_HEADER: usize = 40;
const ANSWER_HEADER: usize = 16;
/// What an answer says of a node before its attributes, and those.
const ENTRY: usize = 40;
const ATTRIBUTES: usize = 88;
/// What a directory says of an entry before its name.
const ENTRY_IN_DIRECTORY: usize = 24;

const LOOKUP: u32 = 1;
const SETATTR: u32 = 4;
const MKNOD: u32 = 8;
const UNLINK: u32 = 10;
const LINK: u32 = 13;
const OPEN: u32 = 14;
const READ: u32 = 15;
const WRITE: u32 = 16;
const RELEASE: u32 = 18;
const INIT: u32 = 26;
const OPENDIR: u32 = 27;
const RELEASEDIR: u32 = 29;
const READ_DIRECTORY: u32 = 44;

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum FuseError {
    /// The client says so.
    #[error("{0}")]
    Refused(Errno),
    /// The client does not answer, or is gone.
    #[error("it does not answer: {0}")]
    Silent(io::Error),
    /// The client says something that is no answer.
    #[error("its answer cannot be read")]
    Unreadable,
}

/// What is known of a file, a directory or anything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Node {
    /// Its number.
    pub(super) id: u64,
    /// Its kind and permissions.
    pub(super) mode: u32,
    /// How many names it has.
    pub(super) links: u32,
    pub(super) user: u32,
    pub(super) group: u32,
    /// Which device it is, if it is one.
    pub(super) device: u32,
    /// When it was read and changed last, in seconds and nanoseconds.
    pub(super) read_at: (u64, u32),
    pub(super) changed_at: (u64, u32),
}

/// What a node is, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NodeKind {
    Directory,
    FileOrLink,
    /// A pipe, a socket or a device.
    Special,
}

impl Node {
    pub(super) fn kind(&self) -> NodeKind {
        match self.mode & 0o170_000 {
            0o040_000 => NodeKind::Directory,
            0o100_000 | 0o120_000 => NodeKind::FileOrLink,
            _ => NodeKind::Special,
        }
    }
}

/// An entry of a directory.
pub(super) type Named = (Vec<u8>, Node);

/// An open file or directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Handle {
    node: u64,
    handle: u64,
}

/// A client that is spoken to.
#[derive(Debug)]
pub(super) struct Session {
    socket: OwnedFd,
    unique: u64,
    answer: Vec<u8>,
}

/// A socket for Pith and the one for the client, which keeps messages apart and ends with either.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

impl Session {
    /// Begins to speak to a client that may still be starting, and waits for no answer longer than that.
    pub(super) fn begin(socket: OwnedFd, start: Duration, call: Duration) -> Result<Session, FuseError> {
        let patience = |time| {
            set_socket_timeout(&socket, Timeout::Recv, Some(time))?;
            set_socket_timeout(&socket, Timeout::Send, Some(time))
        };
        patience(start).map_err(silent)?;
        let mut session = Session { socket, unique: 0, answer: vec![0; BUFFER] };
        let [major, minor] = VERSION;
        let answer = session.ask(INIT, 0, &words(&[major, minor, LARGEST_READ, READDIRPLUS]))?;
        if Reader(answer).word() != Some(major) {
            return Err(FuseError::Unreadable);
        }
        for way in [Timeout::Recv, Timeout::Send] {
            set_socket_timeout(&session.socket, way, Some(call)).map_err(silent)?;
        }
        Ok(session)
    }

    /// What has this name in a directory; none where there is nothing.
    pub(super) fn look_up(&mut self, directory: u64, name: &[u8]) -> Result<Option<Node>, FuseError> {
        match self.ask(LOOKUP, directory, &named(Vec::new(), name)) {
            Ok(answer) => Reader(answer).entry().map(Some).ok_or(FuseError::Unreadable),
            Err(FuseError::Refused(Errno::NOENT)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What is at the end of these names; none where one of them is missing.
    pub(super) fn find<'a>(
        &mut self,
        from: Node,
        names: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Option<Node>, FuseError> {
        let mut node = from;
        for name in names {
            // A directory was replaced by something else.
            if node.kind() != NodeKind::Directory {
                return Ok(None);
            }
            match self.look_up(node.id, name)? {
                Some(next) => node = next,
                None => return Ok(None),
            }
        }
        Ok(Some(node))
    }

    /// Opens a file for reading and, where that is said, for writing.
    pub(super) fn open(&mut self, node: u64, writable: bool) -> Result<Handle, FuseError> {
        const READ_ONLY: u32 = 0;
        const READ_WRITE: u32 = 2;
        let flags = if writable { READ_WRITE } else { READ_ONLY };
        self.opened(OPEN, node, flags)
    }

    fn opened(&mut self, operation: u32, node: u64, flags: u32) -> Result<Handle, FuseError> {
        let answer = self.ask(operation, node, &words(&[flags, 0]))?;
        let handle = Reader(answer).long().ok_or(FuseError::Unreadable)?;
        Ok(Handle { node, handle })
    }

    /// What is in a file from there on, up to a bound.
    pub(super) fn read(&mut self, file: Handle, offset: u64) -> Result<&[u8], FuseError> {
        self.ask(READ, file.node, &part(file, offset, LARGEST_READ))
    }

    /// Writes this much into a file.
    pub(super) fn write(&mut self, file: Handle, bytes: &[u8]) -> Result<(), FuseError> {
        let size = u32::try_from(bytes.len()).map_err(|_| FuseError::Unreadable)?;
        let body = [&part(file, 0, size), bytes].concat();
        self.ask(WRITE, file.node, &body).map(|_| ())
    }

    pub(super) fn release(&mut self, file: Handle) -> Result<(), FuseError> {
        self.released(RELEASE, file)
    }

    fn released(&mut self, operation: u32, handle: Handle) -> Result<(), FuseError> {
        let body = [longs(&[handle.handle]), words(&[0, 0]), longs(&[0])].concat();
        self.ask(operation, handle.node, &body).map(|_| ())
    }

    /// Everything in a directory; nothing where the directory is not there any more.
    pub(super) fn list(&mut self, directory: u64) -> Result<Vec<Named>, FuseError> {
        let handle = match self.opened(OPENDIR, directory, 0) {
            Ok(handle) => handle,
            Err(FuseError::Refused(Errno::NOENT)) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let (mut entries, mut offset) = (Vec::new(), 0);
        loop {
            let answer = match self.ask(READ_DIRECTORY, directory, &part(handle, offset, LARGEST_READ)) {
                Ok(answer) => answer,
                Err(FuseError::Refused(Errno::NOENT)) => break,
                Err(error) => return Err(error),
            };
            let mut rest = Reader(answer);
            if rest.0.is_empty() {
                break;
            }
            while !rest.0.is_empty() {
                let (next, entry) = rest.directory_entry().ok_or(FuseError::Unreadable)?;
                offset = next;
                entries.extend(entry.filter(|(name, _)| !matches!(name.as_slice(), b"." | b"..")));
            }
        }
        self.released(RELEASEDIR, handle)?;
        Ok(entries)
    }

    /// Gives a node one more name.
    pub(super) fn link(&mut self, node: u64, directory: u64, name: &[u8]) -> Result<(), FuseError> {
        self.ask(LINK, directory, &named(longs(&[node]), name)).map(|_| ())
    }

    pub(super) fn unlink(&mut self, directory: u64, name: &[u8]) -> Result<(), FuseError> {
        self.ask(UNLINK, directory, &named(Vec::new(), name)).map(|_| ())
    }

    /// Makes what this is: a pipe, a socket or a device, with its owner and times.
    pub(super) fn make_special(&mut self, directory: u64, name: &[u8], like: &Node) -> Result<(), FuseError> {
        let body = named(words(&[like.mode, like.device, 0, 0]), name);
        let made = Reader(self.ask(MKNOD, directory, &body)?).entry().ok_or(FuseError::Unreadable)?;
        const USER: u32 = 1 << 1;
        const GROUP: u32 = 1 << 2;
        self.set(made.id, USER | GROUP | TIMES, like)
    }

    /// Gives a node the times of this one.
    pub(super) fn set_times(&mut self, node: u64, like: &Node) -> Result<(), FuseError> {
        self.set(node, TIMES, like)
    }

    fn set(&mut self, node: u64, what: u32, like: &Node) -> Result<(), FuseError> {
        let ((read_at, read_nanos), (changed_at, changed_nanos)) = (like.read_at, like.changed_at);
        let body = [
            words(&[what, 0]),
            // Handle, size and owner of locks, of which none is set.
            longs(&[0, 0, 0, read_at, changed_at, 0]),
            words(&[read_nanos, changed_nanos, 0, like.mode, 0, like.user, like.group, 0]),
        ];
        self.ask(SETATTR, node, &body.concat()).map(|_| ())
    }

    /// Asks as root, and waits for the answer.
    fn ask(&mut self, operation: u32, node: u64, body: &[u8]) -> Result<&[u8], FuseError> {
        // As the kernel counts: the lowest bit is its own.
        self.unique += 2;
        let size = u32::try_from(REQUEST_HEADER + body.len()).map_err(|_| FuseError::Unreadable)?;
        let (root, process) = (0, 1);
        let request =
            [words(&[size, operation]), longs(&[self.unique, node]), words(&[root, root, process, 0]), body.to_vec()];
        send(&self.socket, &request.concat(), SendFlags::NOSIGNAL).map_err(silent)?;
        loop {
            let (_, read) = recv(&self.socket, self.answer.as_mut_slice(), RecvFlags::empty()).map_err(silent)?;
            if read == 0 {
                return Err(silent(Errno::PIPE));
            }
            let mut header = Reader(self.answer.get(..ANSWER_HEADER.min(read)).unwrap_or_default());
            let (size, error, unique) = (header.word(), header.word(), header.long());
            // What the client tells of its own accord is for caches, of which there are none here.
            if unique != Some(self.unique) {
                continue;
            }
            return match error.map(u32::cast_signed) {
                Some(0) if size == u32::try_from(read).ok() => Ok(&self.answer[ANSWER_HEADER..read]),
                Some(error @ -4095..0) => Err(FuseError::Refused(Errno::from_raw_os_error(-error))),
                _ => Err(FuseError::Unreadable),
            };
        }
    }
}

/// Times of reading and of changing.
const TIMES: u32 = 1 << 4 | 1 << 5;

fn silent(error: Errno) -> FuseError {
    FuseError::Silent(error.into())
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn longs(longs: &[u64]) -> Vec<u8> {
    longs.iter().flat_map(|long| long.to_ne_bytes()).collect()
}

/// A body that ends with a name.
fn named(body: Vec<u8>, name: &[u8]) -> Vec<u8> {
    [&body, name, b"\0"].concat()
}

/// What reading and writing begin with.
fn part(handle: Handle, offset: u64, size: u32) -> Vec<u8> {
    [longs(&[handle.handle, offset]), words(&[size, 0]), longs(&[0]), words(&[0, 0])].concat()
}

/// What is left of an answer. Each question takes something from its front; none where there is not enough.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    fn word(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_ne_bytes)
    }

    fn long(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_ne_bytes)
    }

    fn entry(&mut self) -> Option<Node> {
        let (mut head, mut attributes) = (Reader(self.take(ENTRY)?), Reader(self.take(ATTRIBUTES)?));
        let id = head.long()?;
        // Its number again, size and blocks.
        attributes.take(24)?;
        let (read_at, changed_at, _) = (attributes.long()?, attributes.long()?, attributes.long()?);
        let (read_nanos, changed_nanos, _) = (attributes.word()?, attributes.word()?, attributes.word()?);
        Some(Node {
            id,
            mode: attributes.word()?,
            links: attributes.word()?,
            user: attributes.word()?,
            group: attributes.word()?,
            device: attributes.word()?,
            read_at: (read_at, read_nanos),
            changed_at: (changed_at, changed_nanos),
        })
    }

    /// An entry, and where the next one begins. Of one that went meanwhile only that is said.
    fn directory_entry(&mut self) -> Option<(u64, Option<Named>)> {
        let node = self.entry()?;
        let mut head = Reader(self.take(ENTRY_IN_DIRECTORY)?);
        let (_, next, length, _) = (head.long()?, head.long()?, head.word()?, head.word()?);
        let length = usize::try_from(length).ok()?;
        let name = self.take(length)?.to_vec();
        self.take((ENTRY_IN_DIRECTORY + length).next_multiple_of(8) - ENTRY_IN_DIRECTORY - length)?;
        Some((next, (node.id != 0).then_some((name, node))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client that gives these answers, one for each request, and says what it was asked.
    fn session(answers: Vec<(i32, Vec<u8>)>) -> (Session, std::thread::JoinHandle<Vec<Vec<u8>>>) {
        let (ours, theirs) = pair().expect("a pair");
        let client = std::thread::spawn(move || {
            let mut asked = Vec::new();
            let first = (0, words(&[7, 28, 0, 0]));
            for (error, body) in std::iter::once(first).chain(answers) {
                let mut request = vec![0; BUFFER];
                let (_, read) = recv(&theirs, request.as_mut_slice(), RecvFlags::empty()).expect("a request");
                request.truncate(read);
                let unique = request[8..16].to_vec();
                // What nobody asked for comes first.
                send(&theirs, &[words(&[16, 3]), longs(&[0])].concat(), SendFlags::empty()).expect("sent");
                let size = u32::try_from(ANSWER_HEADER + body.len()).expect("it is short");
                let answer = [words(&[size, error.cast_unsigned()]), unique, body].concat();
                send(&theirs, &answer, SendFlags::empty()).expect("sent");
                asked.push(request);
            }
            asked
        });
        let patience = Duration::from_secs(30);
        (Session::begin(ours, patience, patience).expect("it begins"), client)
    }

    fn node(id: u64, mode: u32) -> Vec<u8> {
        let times = [longs(&[11, 12, 13]), words(&[1, 2, 3])].concat();
        let rest = words(&[mode, 2, 1000, 1001, 5, 0, 0]);
        [longs(&[id, 0, 0, 0, 0]), longs(&[id, 0, 0]), times, rest].concat()
    }

    fn listed(id: u64, next: u64, name: &str) -> Vec<u8> {
        let length = u32::try_from(name.len()).expect("it is short");
        let mut entry = [node(id, 0o100_644), longs(&[id, next]), words(&[length, 0]), name.into()].concat();
        entry.resize(entry.len().next_multiple_of(8), 0);
        entry
    }

    #[test]
    fn a_node_is_read_as_the_client_describes_it() {
        let (mut session, client) = session(vec![(0, node(7, 0o104_640)), (-Errno::NOENT.raw_os_error(), Vec::new())]);
        let found = session.look_up(ROOT, b"a").expect("an answer");
        let expected = Node {
            id: 7,
            mode: 0o104_640,
            links: 2,
            user: 1000,
            group: 1001,
            device: 5,
            read_at: (11, 1),
            changed_at: (12, 2),
        };
        assert_eq!(found, Some(expected));
        assert_eq!(session.look_up(ROOT, b"b").expect("an answer"), None);
        let asked = client.join().expect("it ends");
        let body = [&words(&[42, LOOKUP]), &longs(&[4, ROOT])[..], &words(&[0, 0, 1, 0]), b"a\0"].concat();
        assert_eq!(asked[1], body);
    }

    #[test]
    fn a_directory_is_read_to_its_end() {
        let first = [listed(1, 1, "."), listed(1, 2, ".."), listed(7, 3, "a"), listed(0, 4, "gone")].concat();
        let answers = vec![
            (0, [longs(&[9]), words(&[0, 0])].concat()),
            (0, first),
            (0, listed(8, 5, "longer name")),
            (0, Vec::new()),
            (0, Vec::new()),
        ];
        let (mut session, client) = session(answers);
        let found = session.list(3).expect("it is read");
        let names: Vec<_> = found.iter().map(|(name, node)| (String::from_utf8_lossy(name), node.id)).collect();
        assert_eq!(names, [("a".into(), 7), ("longer name".into(), 8)]);
        let asked = client.join().expect("it ends");
        let offsets: Vec<u8> = asked[2..5].iter().map(|request| request[REQUEST_HEADER + 8]).collect();
        assert_eq!(offsets, [0, 4, 5]);
    }

    #[test]
    fn an_answer_that_is_none_is_an_error() {
        let check = |error, body: Vec<u8>, expected: &str| {
            let (mut session, client) = session(vec![(error, body)]);
            assert_eq!(session.look_up(ROOT, b"a").expect_err("no answer").to_string(), expected);
            client.join().expect("it ends");
            let gone = session.look_up(ROOT, b"a").expect_err("nobody is there").to_string();
            assert!(gone.starts_with("it does not answer"), "{gone}");
        };
        check(0, Vec::new(), "its answer cannot be read");
        check(0, node(7, 0)[1..].into(), "its answer cannot be read");
        check(5, Vec::new(), "its answer cannot be read");
        check(-5000, Vec::new(), "its answer cannot be read");
        check(-Errno::DQUOT.raw_os_error(), Vec::new(), &FuseError::Refused(Errno::DQUOT).to_string());
    }
}
