//! Builds markup in which nothing from outside can be anything but text.

use super::text_escape::escape_all;

/// Markup under construction. Names of elements and attributes are our own; everything else is escaped.
#[derive(Default)]
pub(super) struct Html {
    out: String,
}

/// Attributes of an element.
pub(super) type Attributes<'a> = &'a [(&'static str, &'a str)];

impl Html {
    pub(super) fn finish(self) -> String {
        self.out
    }

    /// Markup of our own.
    pub(super) fn literal(&mut self, markup: &'static str) {
        self.out.push_str(markup);
    }

    /// Markup that another builder made.
    pub(super) fn append(&mut self, other: &Self) {
        self.out.push_str(&other.out);
    }

    pub(super) fn open(&mut self, tag: &'static str, attributes: Attributes<'_>) {
        self.out.push('<');
        self.out.push_str(tag);
        for (name, value) in attributes {
            self.out.extend([" ", name, "=\""]);
            push_escaped(&mut self.out, value);
            self.out.push('"');
        }
        self.out.push('>');
    }

    pub(super) fn close(&mut self, tag: &'static str) {
        self.out.extend(["</", tag, ">\n"]);
    }

    pub(super) fn text(&mut self, text: &str) {
        push_escaped(&mut self.out, text);
    }

    /// An element with nothing but text in it.
    pub(super) fn element(&mut self, tag: &'static str, attributes: Attributes<'_>, text: &str) {
        self.open(tag, attributes);
        self.text(text);
        self.close(tag);
    }

    /// An element with other elements in it.
    pub(super) fn within(
        &mut self,
        tag: &'static str,
        attributes: Attributes<'_>,
        inside: impl FnOnce(&mut Self),
    ) {
        self.open(tag, attributes);
        inside(self);
        self.close(tag);
    }
}

/// The one place where text becomes markup: no sign with a meaning in HTML or SVG survives, in text or in a quoted
/// attribute, and control characters and direction overrides are shown as `\u{…}`.
fn push_escaped(out: &mut String, text: &str) {
    for c in escape_all(text).chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn text_stays_text(text in proptest::prelude::any::<String>()) {
            let mut html = Html::default();
            html.element("p", &[("title", &text)], &text);
            let out = html.finish();
            proptest::prop_assert_eq!(out.matches('<').count(), 2);
            proptest::prop_assert_eq!(out.matches('>').count(), 2);
            proptest::prop_assert_eq!(out.matches('"').count(), 2);
            proptest::prop_assert_eq!(out.matches('\'').count(), 0);
        }
    }
}
