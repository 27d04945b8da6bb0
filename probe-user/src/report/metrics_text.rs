//! The two text formats that Prometheus reads. They agree on samples and differ in what surrounds them: see
//! <https://prometheus.io/docs/specs/om/open_metrics_spec/> and
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use std::fmt::Write as _;

use super::metrics::Flavour;
use crate::observation::Nanos;

/// What a family is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; its samples are named `…_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Says something in its labels; its samples are named `…_info` and are 1.
    Info,
}

impl Kind {
    /// What the names of samples have after the name of the family.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Counter => "_total",
            Self::Gauge => "",
            Self::Info => "_info",
        }
    }

    /// Name of the type.
    pub const fn name(self, flavour: Flavour) -> &'static str {
        match (self, flavour) {
            (Self::Counter, _) => "counter",
            (Self::Info, Flavour::OpenMetrics) => "info",
            (Self::Gauge | Self::Info, _) => "gauge",
        }
    }
}

/// A value of a sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value {
    Whole(u64),
    Real(f64),
    /// As seconds, exactly.
    Nanos(Nanos),
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Whole(value)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Whole(value.into())
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

impl Value {
    pub(super) fn push(self, out: &mut String) {
        let written = match self {
            Self::Whole(value) => write!(out, "{value}"),
            Self::Real(value) if value.is_nan() => out.write_str("NaN"),
            Self::Real(value) if value.is_infinite() => {
                out.write_str(if value > 0.0 { "+Inf" } else { "-Inf" })
            }
            Self::Real(value) => write!(out, "{value}"),
            Self::Nanos(nanos) => {
                let sign = if nanos < 0 { "-" } else { "" };
                let nanos = nanos.unsigned_abs();
                write!(out, "{sign}{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000)
            }
        };
        // A String takes everything.
        debug_assert!(written.is_ok());
    }
}

/// Text under construction.
pub(super) struct Page {
    out: String,
    flavour: Flavour,
}

impl Page {
    pub(super) const fn new(flavour: Flavour) -> Self {
        Self { out: String::new(), flavour }
    }

    /// Begins a family; `name` is without the suffix of its kind.
    pub(super) fn family(&mut self, name: &str, kind: Kind, unit: Option<&str>, help: &str) {
        // The older format knows a family by the name of its samples.
        let suffix = if self.flavour == Flavour::OpenMetrics { "" } else { kind.suffix() };
        let _ = writeln!(self.out, "# TYPE {name}{suffix} {}", kind.name(self.flavour));
        if let (Some(unit), Flavour::OpenMetrics) = (unit, self.flavour) {
            let _ = writeln!(self.out, "# UNIT {name} {unit}");
        }
        let _ = write!(self.out, "# HELP {name}{suffix} ");
        // Quotes are escaped in the help of OpenMetrics only.
        push_escaped(&mut self.out, help, self.flavour == Flavour::OpenMetrics);
        self.out.push('\n');
    }

    /// A sample of the family that was begun last. Labels without a value are left out, as the formats ask for.
    pub(super) fn sample<'a>(
        &mut self,
        (name, kind): (&str, Kind),
        labels: impl Iterator<Item = (&'static str, &'a str)>,
        value: Value,
    ) {
        self.out.extend([name, kind.suffix()]);
        let mut separator = '{';
        for (label, text) in labels.filter(|(_, text)| !text.is_empty()) {
            self.out.push(separator);
            self.out.extend([label, "=\""]);
            push_escaped(&mut self.out, text, true);
            self.out.push('"');
            separator = ',';
        }
        self.out.push_str(if separator == ',' { "} " } else { " " });
        value.push(&mut self.out);
        self.out.push('\n');
    }

    pub(super) fn finish(mut self) -> String {
        if self.flavour == Flavour::OpenMetrics {
            self.out.push_str("# EOF\n");
        }
        self.out
    }
}

fn push_escaped(out: &mut String, text: &str, quotes: bool) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quotes => out.push_str("\\\""),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(flavour: Flavour) -> String {
        let mut page = Page::new(flavour);
        page.family("a_seconds", Kind::Counter, Some("seconds"), "Say \"a\" \\ b\nc");
        let labels = [("x", "\"\\\n{},=é"), ("gone", ""), ("y", "1")];
        page.sample(("a_seconds", Kind::Counter), labels.into_iter(), Value::Whole(u64::MAX));
        page.family("b", Kind::Info, None, "b");
        page.sample(("b", Kind::Info), [("gone", "")].into_iter(), Value::from(true));
        page.finish()
    }

    #[test]
    fn what_has_a_meaning_is_escaped_where_it_has_one() {
        let sample = "a_seconds_total{x=\"\\\"\\\\\\n{},=é\",y=\"1\"} 18446744073709551615\n";
        assert_eq!(
            page(Flavour::OpenMetrics),
            format!(
                "# TYPE a_seconds counter\n# UNIT a_seconds seconds\n# HELP a_seconds Say \\\"a\\\" \\\\ b\\nc\n{sample}\
                 # TYPE b info\n# HELP b b\nb_info 1\n# EOF\n"
            )
        );
        assert_eq!(
            page(Flavour::Prometheus),
            format!(
                "# TYPE a_seconds_total counter\n# HELP a_seconds_total Say \"a\" \\\\ b\\nc\n{sample}\
                 # TYPE b_info gauge\n# HELP b_info b\nb_info 1\n"
            )
        );
    }

    #[test]
    fn values_are_written_as_the_formats_want_them() {
        let written = |value: Value| {
            let mut out = String::new();
            value.push(&mut out);
            out
        };
        assert_eq!(written(Value::Nanos(1_663_268_942_000_000_001)), "1663268942.000000001");
        assert_eq!(written(Value::Nanos(-1)), "-0.000000001");
        assert_eq!(written(Value::Real(0.000_01)), "0.00001");
        assert_eq!(written(Value::Real(f64::INFINITY)), "+Inf");
        assert_eq!(written(Value::Real(f64::NEG_INFINITY)), "-Inf");
        assert_eq!(written(Value::Real(f64::NAN)), "NaN");
    }
}
