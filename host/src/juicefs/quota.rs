//! Quotas, which the client sets and lists by a command only.

use std::collections::BTreeMap;

use pith_core::volume::Bound;

use super::JuiceFsError;
use super::dav::Path;
use super::source::FileSystem;
use super::worker::Workers;

impl Workers {
    /// Limits the space of a directory, in whole KiB, and how many files and directories it may have; what is not bound has no limit
    /// any more. It goes with the directory where that is moved, and ends with it.
    pub async fn set_quota(
        &self,
        file_system: &FileSystem,
        directory: &Path,
        Bound { bytes, inodes }: Bound,
    ) -> Result<(), JuiceFsError> {
        let (bytes, inodes) = (bytes.unwrap_or_default(), inodes.unwrap_or_default().to_string());
        let path = directory.to_string();
        // A number alone is in GiB, and older clients take no other.
        let capacity =
            if bytes.is_multiple_of(1 << 30) { (bytes >> 30).to_string() } else { format!("{}K", bytes >> 10) };
        let address = file_system.address();
        let arguments = ["quota", "set", address, "--path", &path, "--capacity", &capacity, "--inodes", &inodes];
        self.run(file_system, &arguments).await.map_err(|error| match error {
            JuiceFsError::Unavailable(sentence) if sentence.contains("no such file or directory") => {
                JuiceFsError::Refused(format!("the directory {path}, which is to get a quota, does not exist"))
            }
            other => other,
        })
    }

    /// The quota of a directory, as the client writes what it bounds ([`Bound`]); none where there is none.
    pub async fn quota(&self, file_system: &FileSystem, directory: &Path) -> Result<Option<String>, JuiceFsError> {
        let path = directory.to_string();
        let arguments = ["quota", "get", file_system.address(), "--path", &path];
        let table = self.ask(file_system, &arguments).await?;
        let unreadable =
            || JuiceFsError::Unavailable(format!("what the client says of the quota of {path} cannot be read"));
        Ok(parse(&table).ok_or_else(unreadable)?.remove(&path))
    }

    /// The quotas of all directories by path, as the client writes what they bound ([`Bound`]).
    pub async fn quotas(&self, file_system: &FileSystem) -> Result<BTreeMap<String, String>, JuiceFsError> {
        let table = self.ask(file_system, &["quota", "list", file_system.address()]).await?;
        parse(&table).ok_or_else(|| JuiceFsError::Unavailable("the client's list of quotas cannot be read".into()))
    }
}

/// What the client writes in the place of what has no bound.
const UNBOUNDED: &str = "unchanged";

/// The columns behind the path: size, used, use%, inodes, iused, iuse%.
const COLUMNS: usize = 6;
/// Where that of the inodes is, from the end.
const INODES: usize = 2;

/// Reads the client's table. What stands in the first column may have anything in it, and the others have no bar.
fn parse(table: &str) -> Option<BTreeMap<String, String>> {
    let rows = table.lines().filter_map(|line| line.trim_end().strip_prefix('|')?.strip_suffix('|'));
    let mut quotas = BTreeMap::new();
    for row in rows {
        let mut columns = row.rsplitn(COLUMNS + 1, '|').map(str::trim);
        let inodes = columns.nth(INODES)?;
        let (size, path) = (columns.nth(COLUMNS - INODES - 2)?, columns.next()?);
        let is_bound = |text: &&str| *text != UNBOUNDED;
        let bound = Bound::words(Some(size).filter(is_bound), Some(inodes).filter(is_bound));
        // Else it is the head of the table, or the quota of a user or a group.
        if let Some(bound) = bound.filter(|_| path.starts_with('/')) {
            quotas.insert(path.to_string(), bound);
        }
    }
    Some(quotas)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_the_client_is_read_whatever_a_directory_is_called() {
        let table = "\
            +---------+---------+---------+------+-----------+-------+-------+\n\
            | Path/ID |   Size  |   Used  | Use% |   Inodes  | IUsed | IUse% |\n\
            +---------+---------+---------+------+-----------+-------+-------+\n\
            | /a b    | 1.5 TiB | 4.0 KiB |   0% | unchanged |     1 |       |\n\
            | /x|y    | 1.0 GiB |     0 B |   0% |    12,345 |     0 |    0% |\n\
            | /i      | unchanged |   0 B |      |         5 |     0 |    0% |\n\
            | /none   | unchanged |   0 B |      | unchanged |     0 |       |\n\
            | uid:7   | 2.0 GiB |     0 B |   0% | unchanged |     0 |       |\n\
            +---------+---------+---------+------+-----------+-------+-------+\n";
        let expected = [("/a b", "1.5 TiB"), ("/i", "5 inodes"), ("/x|y", "1.0 GiB, 12,345 inodes")]
            .map(|(path, size)| (path.into(), size.into()));
        assert_eq!(parse(table), Some(expected.into()));
        assert_eq!(parse(""), Some(BTreeMap::new()));
        assert_eq!(parse("| /a | 1 |\n"), None);
    }
}
