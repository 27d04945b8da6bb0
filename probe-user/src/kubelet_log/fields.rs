//! klog's `key=value` fields: quoted, unquoted, or a block of lines (`key=<` … ` >`).

use std::ops::Range;

/// A record has about six; more than this is not looked at.
const MAX_FIELDS: usize = 64;

/// One field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Field<'a> {
    pub(super) key: &'a str,
    /// Without quotes and escapes.
    pub(super) value: String,
    /// The value is whole: its quote or its block ends.
    pub(super) whole: bool,
    /// Where the value is in the text, quotes included.
    pub(super) range: Range<usize>,
}

/// All fields of a text. What is no field is passed over.
pub(super) fn fields(text: &str) -> Vec<Field<'_>> {
    let mut found = Vec::new();
    let mut at = 0;
    while found.len() < MAX_FIELDS {
        let rest = text.get(at..).unwrap_or_default();
        let blank = rest.len() - rest.trim_start().len();
        at += blank;
        let rest = rest.trim_start();
        if rest.is_empty() {
            break;
        }
        if rest.starts_with('"') {
            at += quoted(rest).0;
            continue;
        }
        let key_end =
            rest.find(|c: char| !(c.is_ascii_alphanumeric() || "_-./".contains(c))).unwrap_or(rest.len());
        let (key, after) = rest.split_at(key_end);
        let Some(raw) = after.strip_prefix('=').filter(|_| !key.is_empty()) else {
            at += rest.find(char::is_whitespace).unwrap_or(rest.len());
            continue;
        };
        let (length, value, whole) = value(raw);
        let start = at + key_end + 1;
        found.push(Field { key, value, whole, range: start..start + length });
        at = start + length;
    }
    found
}

/// Bytes it takes, the value, and whether it is whole.
fn value(raw: &str) -> (usize, String, bool) {
    if raw.starts_with('"') {
        return quoted(raw);
    }
    if let Some(rest) =
        raw.strip_prefix("<\n").or_else(|| raw.strip_prefix('<').filter(|rest| rest.is_empty()))
    {
        return block(raw, rest);
    }
    let end = raw.find(char::is_whitespace).unwrap_or(raw.len());
    (end, raw.get(..end).unwrap_or_default().to_owned(), true)
}

/// `"…"` with Go's escapes.
fn quoted(raw: &str) -> (usize, String, bool) {
    let mut escaped = false;
    for (at, c) in raw.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return (at + 1, unescape(raw.get(1..at).unwrap_or_default()), true),
            _ => {}
        }
    }
    (raw.len(), unescape(raw.get(1..).unwrap_or_default()), false)
}

/// Lines that begin with a tab, up to one that is ` >`.
fn block(raw: &str, rest: &str) -> (usize, String, bool) {
    let opening = raw.len() - rest.len();
    let mut lines = Vec::new();
    let mut at = opening;
    for line in rest.split_inclusive('\n') {
        if line.starts_with(" >") {
            return (at + 2, lines.join("\n"), true);
        }
        at += line.len();
        let line = line.strip_suffix('\n').unwrap_or(line);
        lines.push(line.strip_prefix('\t').unwrap_or(line));
    }
    (raw.len(), lines.join("\n"), false)
}

/// Go's escapes (strconv.Quote). What is no escape stays as it is.
pub(super) fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        rest = if let Some((c, after)) = escape(after) {
            out.push(c);
            after
        } else {
            out.push('\\');
            after
        };
    }
    out.push_str(rest);
    out
}

fn escape(text: &str) -> Option<(char, &str)> {
    let mut characters = text.chars();
    let simple = match characters.next()? {
        'n' => '\n',
        't' => '\t',
        'r' => '\r',
        'a' => '\u{7}',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'v' => '\u{b}',
        c @ ('"' | '\'' | '\\') => c,
        'x' => return numbered(text, 2),
        'u' => return numbered(text, 4),
        'U' => return numbered(text, 8),
        _ => return None,
    };
    Some((simple, characters.as_str()))
}

fn numbered(text: &str, digits: usize) -> Option<(char, &str)> {
    let number = u32::from_str_radix(text.get(1..=digits)?, 16).ok()?;
    // A byte that is no character of its own was no UTF-8 to begin with.
    let c = if digits == 2 && number > 0x7f { char::REPLACEMENT_CHARACTER } else { char::from_u32(number)? };
    Some((c, text.get(digits + 1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(&str, String, bool)> {
        fields(text).into_iter().map(|field| (field.key, field.value, field.whole)).collect()
    }

    fn field(key: &'static str, value: &str) -> (&'static str, String, bool) {
        (key, value.to_owned(), true)
    }

    #[test]
    fn quoted_and_unquoted_in_any_order() {
        assert_eq!(
            read(
                "\"Probe failed\" podUID=3d-a probeType=\"Readiness\" x={a b} output=\"Get \\\"http://a:1/\\\": b\""
            ),
            [
                field("podUID", "3d-a"),
                field("probeType", "Readiness"),
                field("x", "{a"),
                field("output", "Get \"http://a:1/\": b")
            ]
        );
    }

    #[test]
    fn what_looks_like_a_field_inside_a_value_is_none() {
        assert_eq!(
            read("a=\"x pod=\\\"evil/pod\\\" y\" \"pod=evil\" b=c"),
            [field("a", "x pod=\"evil/pod\" y"), field("b", "c")]
        );
    }

    #[test]
    fn a_block_of_lines_ends_before_the_next_field() {
        assert_eq!(
            read("a=b output=<\n\tone pod=x\n\t two\n > c=d"),
            [field("a", "b"), field("output", "one pod=x\n two"), field("c", "d")]
        );
        assert_eq!(read("output=<"), [("output", String::new(), false)]);
        assert_eq!(read("output=<\n\tone"), [("output", "one".to_owned(), false)]);
    }

    #[test]
    fn a_quote_that_never_ends_is_not_whole() {
        assert_eq!(
            read("pod=\"ns/kube-apiserver-guard>"),
            [("pod", "ns/kube-apiserver-guard>".to_owned(), false)]
        );
        assert_eq!(read("pod=\"a\\"), [("pod", "a\\".to_owned(), false)]);
    }

    #[test]
    fn ranges_cover_the_value_with_its_quotes() {
        let text = "é a=\"b\" c=d";
        let ranges: Vec<&str> = fields(text).into_iter().map(|field| &text[field.range]).collect();
        assert_eq!(ranges, ["\"b\"", "d"]);
    }

    #[test]
    fn escapes_of_go() {
        assert_eq!(unescape(r#"a\n\t\"\\\x41\u00e9\U0001F600\xff\q\u12"#), "a\n\t\"\\Aé😀\u{fffd}\\q\\u12");
    }

    proptest::proptest! {
        #[test]
        fn any_text_has_ranges_within_it(text in "[ a=\"\\\\<>\n\té]{0,40}") {
            for field in fields(&text) {
                proptest::prop_assert!(text.get(field.range).is_some());
            }
        }
    }
}
