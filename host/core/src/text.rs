//! Text that somebody else wrote, made fit for a sentence.

/// Somebody else's text for people: one line, what is invisible or moves text about escaped, cut to `most` bytes at a character.
pub fn clean(text: &str, most: usize) -> String {
    let mut clean = String::with_capacity(text.len().min(most));
    for character in text.chars() {
        let start = clean.len();
        if character.is_control() || matches!(character, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
            clean.extend(character.escape_default());
        } else {
            clean.push(character);
        }
        if clean.len() > most {
            clean.truncate(start);
            cut(&mut clean, most.saturating_sub('…'.len_utf8()));
            clean.push('…');
            break;
        }
    }
    clean
}

fn cut(text: &mut String, most: usize) {
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_clean(text: &str, most: usize, expected: &str) {
        assert_eq!(clean(text, most), expected);
    }

    #[test]
    fn text_of_somebody_else_is_one_visible_line_of_bounded_length() {
        check_clean("plain", 100, "plain");
        check_clean("two\nlines\t\u{1b}[31m", 100, "two\\nlines\\t\\u{1b}[31m");
        check_clean("turned \u{202e}round", 100, "turned \\u{202e}round");
        check_clean("exactly", 7, "exactly");
        check_clean("one more", 7, "one …");
        check_clean("äöü", 5, "ä…");
        check_clean("", 0, "");
    }
}
