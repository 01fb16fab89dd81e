//! What the kernel says of a process.

use std::fs;

use anyhow::{Context, Result};

/// The processor time of a process so far, without that of its children.
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64> {
    // User and system time are the 12th and 13th field behind the name.
    seconds(pid, 11)
}

/// The processor time of the children that have ended.
pub(crate) fn cpu_seconds_of_ended_children(pid: u32) -> Result<f64> {
    seconds(pid, 13)
}

/// User time and the system time behind it, which the kernel counts in hundredths.
fn seconds(pid: u32, user: usize) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = fields(&stat)?;
    let ticks: u64 = fields[user].parse::<u64>()? + fields[user + 1].parse::<u64>()?;
    #[expect(clippy::cast_precision_loss, reason = "ticks of a short run are few")]
    Ok(ticks as f64 / 100.0)
}

/// A line of its memory, such as `Rss:`.
pub(crate) fn kibibytes(pid: u32, key: &str) -> Result<f64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = rollup.lines().find(|line| line.starts_with(key)).context("a line of smaps_rollup")?;
    Ok(line.split_whitespace().nth(1).context("a number")?.parse()?)
}

/// The most memory that was resident of it, in KiB.
pub(crate) fn largest_resident(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).context("a line of status")?;
    Ok(line.split_whitespace().nth(1).context("a number")?.parse()?)
}

/// The processes that it started and that run.
pub(crate) fn children(pid: u32) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(child) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // Others may end meanwhile.
        let Ok(stat) = fs::read_to_string(format!("/proc/{child}/stat")) else { continue };
        if fields(&stat)?[1] == pid.to_string() {
            found.push(child);
        }
    }
    Ok(found)
}

/// What stands behind the name, which is in parentheses and may hold spaces.
fn fields(stat: &str) -> Result<Vec<&str>> {
    Ok(stat.rsplit(')').next().context("a stat line")?.split_whitespace().collect())
}
