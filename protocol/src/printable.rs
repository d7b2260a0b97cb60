//! Names and texts from outside, made safe to print.

/// `text` with control characters, line ends and bidirectional overrides escaped, so that a name
/// from a database or a peer neither controls a terminal nor passes for a line of ours (fault L11).
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        let overrides = matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if character.is_control() || overrides {
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

    /// Fault L11.
    #[test]
    fn what_a_terminal_obeys_is_escaped() {
        assert_eq!(printable("a\u{1b}[2Jb\u{202e}c\r"), "a\\u{1b}[2Jb\\u{202e}c\\u{d}");
        assert_eq!(printable("a\nreceipt good\u{2028}"), "a\\u{a}receipt good\\u{2028}");
        assert_eq!(printable("Müller 山田"), "Müller 山田");
    }
}
