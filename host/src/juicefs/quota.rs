//! Quotas, which the client sets and lists by a command only.

use std::collections::BTreeMap;

use super::JuiceFsError;
use super::dav::Path;
use super::source::FileSystem;
use super::worker::Workers;

impl Workers {
    /// Limits the space of a directory to so many GiB; 0 lifts the limit. It goes with the directory where that is moved, and ends
    /// with it.
    pub async fn set_quota(&self, file_system: &FileSystem, directory: &Path, gib: u64) -> Result<(), JuiceFsError> {
        self.limit(file_system, directory, Some(gib), None).await
    }

    /// Limits the space of a directory, the number of its files and directories, or both. What is not said stays; 0 lifts a limit.
    pub async fn limit(
        &self,
        file_system: &FileSystem,
        directory: &Path,
        gib: Option<u64>,
        inodes: Option<u64>,
    ) -> Result<(), JuiceFsError> {
        let path = directory.to_string();
        let limits = [("--capacity", gib), ("--inodes", inodes)];
        let limits: Vec<(&str, String)> =
            limits.into_iter().filter_map(|(option, limit)| Some((option, limit?.to_string()))).collect();
        let mut arguments = vec!["--no-agent", "quota", "set", file_system.meta_url(), "--path", &path];
        arguments.extend(limits.iter().flat_map(|(option, limit)| [*option, limit]));
        self.run(file_system, &arguments).await.map_err(|error| match error {
            JuiceFsError::Unavailable(sentence) if sentence.contains("no such file or directory") => {
                JuiceFsError::Refused(format!("the directory {path}, which is to get a quota, does not exist"))
            }
            other => other,
        })
    }

    /// The quotas of all directories by path, as the client writes their sizes (`1.5 TiB`).
    pub async fn quotas(&self, file_system: &FileSystem) -> Result<BTreeMap<String, String>, JuiceFsError> {
        let table = self.ask(file_system, &["--no-agent", "quota", "list", file_system.meta_url()]).await?;
        parse(&table).ok_or_else(|| JuiceFsError::Unavailable("the client's list of quotas cannot be read".into()))
    }
}

/// The columns behind the path: size, used, use%, inodes, iused, iuse%.
const COLUMNS: usize = 6;

/// Reads the client's table. What stands in the first column may have anything in it, and the others have no bar.
fn parse(table: &str) -> Option<BTreeMap<String, String>> {
    let rows = table.lines().filter_map(|line| line.trim_end().strip_prefix('|')?.strip_suffix('|'));
    let mut quotas = BTreeMap::new();
    for row in rows {
        let mut columns = row.rsplitn(COLUMNS + 1, '|').map(str::trim);
        let (size, path) = (columns.nth(COLUMNS - 1)?, columns.next()?);
        // The head of the table, and the quotas of users and groups.
        if path.starts_with('/') {
            quotas.insert(path.to_string(), size.to_string());
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
            | /x|y    | 1.0 GiB |     0 B |   0% | unchanged |     0 |       |\n\
            | uid:7   | 2.0 GiB |     0 B |   0% | unchanged |     0 |       |\n\
            +---------+---------+---------+------+-----------+-------+-------+\n";
        let expected = [("/a b", "1.5 TiB"), ("/x|y", "1.0 GiB")].map(|(path, size)| (path.into(), size.into()));
        assert_eq!(parse(table), Some(expected.into()));
        assert_eq!(parse(""), Some(BTreeMap::new()));
        assert_eq!(parse("| /a | 1 |\n"), None);
    }
}
