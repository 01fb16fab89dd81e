//! /proc/self/mountinfo: which FUSE file systems are mounted where.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::stand_in;

/// A mount in this process's mount namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) id: u32,
    /// The mount that it lies on.
    pub(crate) parent: u32,
    pub(crate) point: PathBuf,
    /// The number of its connection to a client, if it is of FUSE.
    pub(crate) connection: Option<u32>,
    /// Whether it is a stand-in.
    pub(crate) stand_in: bool,
}

/// The mounts of this process's mount namespace.
pub(crate) fn read() -> io::Result<Vec<Mount>> {
    fs::read("/proc/self/mountinfo").map(|table| parse(&table))
}

/// The mounts of a whole table. A line that is none is left out: there is nothing that could be done about it.
fn parse(table: &[u8]) -> Vec<Mount> {
    table.split(|byte| *byte == b'\n').filter_map(mount).collect()
}

/// `ID PARENT MAJOR:MINOR ROOT POINT OPTIONS [TAG…] - TYPE SOURCE OPTIONS`
fn mount(line: &[u8]) -> Option<Mount> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let number = |text: &[u8]| std::str::from_utf8(text).ok()?.parse::<u32>().ok();
    let kind = fields.iter().skip(6).skip_while(|field| **field != b"-").nth(1)?;
    let of_fuse = *kind == b"fuse" || kind.starts_with(b"fuse.");
    // Connections are numbered by the device, whose major number is 0. (`fuseblk` has one of a disk.)
    let minor = || number(fields[2].strip_prefix(b"0:")?);
    Some(Mount {
        id: number(fields[0])?,
        parent: number(fields[1])?,
        point: PathBuf::from(OsString::from_vec(unescaped(fields[4]))),
        connection: if of_fuse { minor() } else { None },
        stand_in: *kind == stand_in::KIND,
    })
}

/// The kernel writes a space, a tab, a line's end and a backslash as three octal digits.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                plain.push(byte);
                rest = &after[3..];
            }
            _ => {
                plain.push(*first);
                rest = after;
            }
        }
    }
    plain
}

/// The mounts of FUSE at these places, the outermost first.
///
/// One that lies in another goes with that, and the way to it would lead through a file system that may never answer.
pub(crate) fn of_fuse(mounts: &[Mount], included: impl Fn(&Path) -> bool) -> Vec<&Mount> {
    let mut found: Vec<&Mount> =
        mounts.iter().filter(|mount| mount.connection.is_some() && included(&mount.point)).collect();
    found.sort_by_key(|mount| mount.point.components().count());
    found
}

/// The mount that lies on this one at the same point, and hides it.
pub(crate) fn covers<'a>(mounts: &'a [Mount], mount: &Mount) -> Option<&'a Mount> {
    mounts.iter().find(|other| other.parent == mount.id && other.point == mount.point && other.id != mount.id)
}

/// The mount below this one, at the same point.
pub(crate) fn below<'a>(mounts: &'a [Mount], mount: &Mount) -> Option<&'a Mount> {
    mounts.iter().find(|other| other.id == mount.parent && other.point == mount.point)
}

/// The FUSE mount that is seen at a path.
pub(crate) fn top<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    let at_path = mounts.iter().filter(|mount| mount.point == path);
    at_path.into_iter().find(|mount| covers(mounts, mount).is_none()).filter(|mount| mount.connection.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the node of a test cluster has it: a client that was killed and came back, beside other mounts.
    const TABLE: &str = "\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
61 22 254:0 /pods/a /jfs/a rw,relatime shared:1 - ext4 /dev/vda rw
62 61 0:63 / /jfs/a rw,relatime shared:9 master:3 - fuse.juicefs JuiceFS:pods rw,user_id=0
63 62 0:64 / /jfs/a rw - fuse.juicefs JuiceFS:pods rw,user_id=0
64 22 0:65 / /jfs/a\\040b\\134 rw shared:7 - fuse sshfs rw
65 64 0:66 / /jfs/a\\040b\\134/in rw shared:7 - fuse.x y rw
66 22 8:1 / /disk rw - fuseblk /dev/sda1 rw
67 22 0:70 / /jfs/c rw - tmpfs fuse rw
68 22 0:71 / /jfs/d rw - fuse x rw
69 68 0:72 / /jfs/d rw - tmpfs tmpfs rw
70 22 254:0 /pods/e /jfs/e rw shared:1 - ext4 /dev/vda rw
71 70 0:73 / /jfs/e rw shared:2 - fuse.pith-guard pith-guard rw
72 71 0:74 / /jfs/e rw shared:3 - fuse.juicefs JuiceFS:pods rw

not a line
";

    fn ids(included: &[&str]) -> Vec<u32> {
        let mounts = parse(TABLE.as_bytes());
        of_fuse(&mounts, |point| included.iter().any(|path| point.starts_with(path))).iter().map(|it| it.id).collect()
    }

    #[test]
    fn a_line_says_what_is_mounted_where() {
        let mounts = parse(TABLE.as_bytes());
        assert_eq!(mounts.len(), 13);
        let expected = Mount { id: 62, parent: 61, point: "/jfs/a".into(), connection: Some(63), stand_in: false };
        assert_eq!(mounts[2], expected);
        assert_eq!(mounts[4].point, Path::new("/jfs/a b\\"));
        let connections: Vec<_> = mounts.iter().map(|mount| mount.connection).collect();
        let none = None;
        let expected = [none, none, Some(63), Some(64), Some(65), Some(66), none, none, Some(71), none];
        assert_eq!(connections[..10], expected);
        let stand_ins: Vec<u32> = mounts.iter().filter(|mount| mount.stand_in).map(|mount| mount.id).collect();
        assert_eq!(stand_ins, [71]);
    }

    #[test]
    fn the_outermost_come_first() {
        let cases: [(&[&str], &[u32]); 6] = [
            (&["/jfs/a"], &[62, 63]),
            (&["/jfs/a b\\"], &[64, 65]),
            (&["/jfs/b"], &[]),
            (&["/jfs/c"], &[]),
            (&["/disk"], &[]),
            (&["/jfs"], &[62, 63, 64, 68, 71, 72, 65]),
        ];
        for (places, expected) in cases {
            assert_eq!(ids(places), expected, "{places:?}");
        }
    }

    #[test]
    fn what_hides_a_mount_and_what_it_hides_is_found() {
        let mounts = parse(TABLE.as_bytes());
        let covering = |id: u32| {
            let mount = mounts.iter().find(|mount| mount.id == id).expect("it is in the table");
            covers(&mounts, mount).map(|it| it.id)
        };
        assert_eq!([61, 62, 63, 68].map(covering), [Some(62), Some(63), None, Some(69)]);
        let beneath = |id: u32| {
            let mount = mounts.iter().find(|mount| mount.id == id).expect("it is in the table");
            below(&mounts, mount).map(|it| it.id)
        };
        assert_eq!([61, 62, 63, 68, 72].map(beneath), [None, Some(61), Some(62), None, Some(71)]);
        let seen = |path: &str| top(&mounts, Path::new(path)).map(|it| it.id);
        assert_eq!(["/jfs/a", "/jfs/d", "/jfs/e", "/jfs", "/disk"].map(seen), [Some(63), None, Some(72), None, None]);
    }
}
