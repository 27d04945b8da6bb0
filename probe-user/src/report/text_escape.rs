//! Strings from outside, made harmless for a terminal.

/// Longest string from outside that is printed, in characters.
pub(super) const MAX_CHARS: usize = 160;

/// Control characters, direction overrides and invisible characters as `\u{…}`; cut to [`MAX_CHARS`].
pub(crate) fn escape(text: &str) -> String {
    let mut characters = text.chars();
    let mut escaped: String = characters.by_ref().take(MAX_CHARS).map(Shown).map(|c| c.to_string()).collect();
    if characters.next().is_some() {
        escaped.push('…');
    }
    escaped
}

/// The same without the cut, for texts that lose their meaning by it: commands, sentences of our own.
pub(super) fn escape_all(text: &str) -> String {
    text.chars().map(Shown).map(|c| c.to_string()).collect()
}

struct Shown(char);

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            '\n' => f.write_str("\\n"),
            '\t' => f.write_str("\\t"),
            '\r' => f.write_str("\\r"),
            other if is_harmless(other) => write!(f, "{other}"),
            other => write!(f, "{}", other.escape_unicode()),
        }
    }
}

/// Neither a control character (C0, DEL, C1) nor one that is invisible or changes the direction of what follows.
fn is_harmless(c: char) -> bool {
    !c.is_control()
        && !matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_cannot_be_steered() {
        assert_eq!(escape("\u{1b}[31mred\u{7}"), "\\u{1b}[31mred\\u{7}");
        assert_eq!(escape("a\u{9b}31m"), "a\\u{9b}31m", "C1 CSI");
        assert_eq!(escape("x\u{202e}gpj.exe"), "x\\u{202e}gpj.exe");
        assert_eq!(escape("a\u{200b}b\u{feff}\u{2066}"), "a\\u{200b}b\\u{feff}\\u{2066}");
        assert_eq!(escape("two\nlines\r\t"), "two\\nlines\\r\\t");
        assert_eq!(escape("Grüße, 世界"), "Grüße, 世界");
    }

    #[test]
    fn length_is_bounded_in_characters() {
        assert_eq!(escape(&"ä".repeat(MAX_CHARS)), "ä".repeat(MAX_CHARS));
        let long = escape(&"ä".repeat(100_000));
        assert_eq!(long.chars().count(), MAX_CHARS + 1);
        assert!(long.ends_with('…'));
    }

    proptest::proptest! {
        #[test]
        fn no_control_character_survives(text in proptest::prelude::any::<String>()) {
            proptest::prop_assert!(!escape(&text).chars().any(char::is_control));
            proptest::prop_assert!(!escape_all(&text).chars().any(char::is_control));
        }
    }
}
