//! Diagnostics: where log lines go, and how names from elsewhere are made safe to show.

/// `text` with everything a terminal could obey (control characters, bidirectional overrides) escaped, so that a name
/// from a database or a peer can be shown (fault-matrix L11).
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        let overrides =
            matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if (character.is_control() && character != '\n') || overrides {
            out.extend(character.escape_unicode());
        } else {
            out.push(character);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::printable;

    /// fault-matrix L11.
    #[test]
    fn what_a_terminal_obeys_is_escaped() {
        assert_eq!(printable("a\u{1b}[2Jb\u{202e}c\r"), "a\\u{1b}[2Jb\\u{202e}c\\u{d}");
        assert_eq!(printable("Müller\n山田"), "Müller\n山田");
    }
}
