//! What the commands print: headings with durations, colours on a terminal only.

use std::fmt::Display;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use crate::workspace;

/// The colours that are used, each for one meaning.
#[derive(Clone, Copy)]
pub(crate) enum Style {
    /// A heading.
    Heading,
    /// It worked, or it was added.
    Good,
    /// It failed, or it was removed.
    Bad,
    /// Less important.
    Faint,
}

/// Text in a style, or as it is where the output is no terminal or `NO_COLOR` is set.
pub(crate) fn paint(style: Style, text: impl Display) -> String {
    if !std::io::stdout().is_terminal() || workspace::variable("NO_COLOR").is_some() {
        return text.to_string();
    }
    let code = match style {
        Style::Heading => "1",
        Style::Good => "32",
        Style::Bad => "31",
        Style::Faint => "2",
    };
    format!("\u{1b}[{code}m{text}\u{1b}[0m")
}

/// Prints lines, set in under a heading.
pub(crate) fn indented(text: &str) {
    for line in text.lines() {
        println!("     {line}");
    }
}

/// A duration for people.
pub(crate) fn seconds(duration: Duration) -> String {
    match duration.as_secs_f64() {
        seconds if seconds < 1.0 => format!("{:.0} ms", seconds * 1000.0),
        seconds if seconds < 60.0 => format!("{seconds:.1} s"),
        seconds => format!("{:.0} min {:.0} s", (seconds / 60.0).floor(), seconds % 60.0),
    }
}

/// A size for people, without rounding.
pub(crate) fn bytes(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let unit = units.into_iter().find(|(size, _)| bytes > 0 && bytes.is_multiple_of(*size));
    match unit {
        Some((size, unit)) => format!("{} {unit}", bytes / size),
        None => format!("{bytes} bytes"),
    }
}

/// One step of several. Its end prints how long it took.
pub(crate) struct Step(Instant);

impl Step {
    /// Prints the heading.
    pub(crate) fn start(number: usize, of: usize, title: &str) -> Step {
        println!("\n{}", paint(Style::Heading, format!("{number}/{of}  {title}")));
        Step(Instant::now())
    }

    /// Prints the duration.
    pub(crate) fn end(self) {
        println!("     {}", paint(Style::Faint, format!("[{}]", seconds(self.0.elapsed()))));
    }
}

/// Rows in columns as wide as their widest cell.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..).map_while(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_string()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["field", "value"], ["a", "1"]].map(|row| row.map(String::from).to_vec());
        assert_eq!(table(&rows), "field  value\na      1");
    }

    #[test]
    fn durations_are_for_people() {
        for (duration, expected) in [(30, "30 ms"), (1_500, "1.5 s"), (61_000, "1 min 1 s")] {
            assert_eq!(seconds(Duration::from_millis(duration)), expected);
        }
    }

    #[test]
    fn sizes_are_exact() {
        for (size, expected) in [(0, "0 bytes"), (72, "72 bytes"), (1 << 30, "1 GiB"), (1023 << 20, "1023 MiB")] {
            assert_eq!(bytes(size), expected);
        }
    }
}
