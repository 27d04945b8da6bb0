//! What must not be kept of a log line: queries and passwords in URLs.

/// `text` in one line, at most `max` bytes, with `?…` for every query of a URL and without user and password in it.
pub(super) fn shown(text: &str, max: usize) -> String {
    let mut out = String::new();
    let mut rest = text;
    while out.len() < max
        && let Some(at) = rest.find("://")
    {
        let (before, after) = rest.split_at(at + 3);
        push_line(&mut out, before);
        let end = after.find(ends_url).unwrap_or(after.len());
        let (url, after) = after.split_at(end);
        let host_end = url.find(['/', '?', '#']).unwrap_or(url.len());
        let (authority, path) = url.split_at(host_end);
        let host = authority.rsplit('@').next().unwrap_or(authority);
        push_line(&mut out, host);
        match path.find('?') {
            Some(query) => {
                push_line(&mut out, path.get(..query).unwrap_or_default());
                out.push_str("?…");
                // The quote after the URL may be escaped.
                let tail = url.len() - url.trim_end_matches('\\').len();
                out.push_str(url.get(url.len() - tail..).unwrap_or_default());
            }
            None => push_line(&mut out, path),
        }
        rest = after;
    }
    push_line(&mut out, rest);
    cut(&mut out, max);
    out
}

fn ends_url(c: char) -> bool {
    c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>')
}

fn push_line(out: &mut String, text: &str) {
    out.extend(text.chars().map(|c| if matches!(c, '\n' | '\r' | '\t') { ' ' } else { c }));
}

/// Shortens to `max` bytes, at a character.
pub(super) fn cut(text: &mut String, max: usize) {
    if text.len() <= max {
        return;
    }
    let mut end = max.saturating_sub('…'.len_utf8());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text.push('…');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_and_passwords_are_left_out() {
        for (text, wanted) in [
            ("Get \"http://10.0.0.1:80/h?token=abc&x=1\": EOF", "Get \"http://10.0.0.1:80/h?…\": EOF"),
            ("output=\"Get \\\"http://a/h?token=abc\\\": EOF\"", "output=\"Get \\\"http://a/h?…\\\": EOF\""),
            ("Get http://u:secret@a/h?b http://c?d", "Get http://a/h?… http://c?…"),
            ("Get http://a/b: EOF", "Get http://a/b: EOF"),
            ("a\n\tb", "a  b"),
        ] {
            assert_eq!(shown(text, 1000), wanted);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_cut_in_one_line(text in proptest::prelude::any::<String>(), max in 3..50_usize) {
            let shown = shown(&text, max);
            proptest::prop_assert!(shown.len() <= max && !shown.contains('\n'), "{shown:?}");
        }

        #[test]
        fn no_query_survives(before in "[a-z:/\"\\\\ ]{0,20}", query in "[a-z&=\\\\]{1,20}") {
            let shown = shown(&format!("{before}http://h/?SECRET{query}"), 1000);
            proptest::prop_assert!(!shown.contains("SECRET"), "{shown:?}");
        }
    }
}
