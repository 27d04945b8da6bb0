//! klog's text header: `I0915 19:09:04.534948  607529 prober.go:121] message`.

/// The header, and the message after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) stamp: Stamp,
    /// File without its folder.
    pub(super) file: &'a str,
    /// After `] `.
    pub(super) message: &'a str,
}

/// A local time without a year.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) month: i8,
    pub(super) day: i8,
    pub(super) hour: i8,
    pub(super) minute: i8,
    pub(super) second: i8,
    pub(super) micros: i32,
}

/// `None` if the text does not begin with such a header.
pub(super) fn parse(text: &str) -> Option<Record<'_>> {
    let rest = text.strip_prefix(['I', 'W', 'E', 'F'])?;
    let (date, rest) = rest.split_once(' ')?;
    let (time, rest) = rest.split_once(' ')?;
    let stamp = stamp(date, time)?;
    let rest = rest.trim_start_matches(' ');
    let (thread, rest) = rest.split_once(' ')?;
    if thread.is_empty() || !thread.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (place, message) = rest.split_once(']')?;
    let (file, line) = place.rsplit_once(':')?;
    if file.contains(char::is_whitespace) || line.is_empty() || !line.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let message = message.strip_prefix(' ').unwrap_or(message);
    Some(Record { stamp, file: base(file), message })
}

/// The last part of a path.
pub(super) fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// `0915` and `19:09:04.534948`.
fn stamp(date: &str, time: &str) -> Option<Stamp> {
    if date.len() != 4 || time.len() != 15 {
        return None;
    }
    let number = |text: &str, from: usize| -> Option<i8> {
        let digits = text.get(from..from + 2)?;
        if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None }
    };
    let separators = [(2, b':'), (5, b':'), (8, b'.')];
    let bytes = time.as_bytes();
    if !separators.iter().all(|(at, wanted)| bytes.get(*at) == Some(wanted)) {
        return None;
    }
    let micros = time.get(9..)?;
    if !micros.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(Stamp {
        month: number(date, 0)?,
        day: number(date, 2)?,
        hour: number(time, 0)?,
        minute: number(time, 3)?,
        second: number(time, 6)?,
        micros: micros.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_with_any_width_of_the_thread() {
        for line in [
            "I0915 19:09:04.534948  607529 prober.go:121] \"Probe failed\"",
            "E0915 19:09:04.534948       1 prober.go:121] \"Probe failed\"",
            "W0915 19:09:04.534948 1 pkg/kubelet/prober/prober.go:121] \"Probe failed\"",
        ] {
            let record = parse(line).unwrap();
            assert_eq!((record.file, record.message), ("prober.go", "\"Probe failed\""), "{line}");
            let Stamp { month, day, hour, minute, second, micros } = record.stamp;
            assert_eq!((month, day, hour, minute, second, micros), (9, 15, 19, 9, 4, 534_948));
        }
    }

    #[test]
    fn what_is_no_header() {
        for line in [
            "",
            "I",
            "Info 19:09:04.534948 1 a.go:1] x",
            "I0915 19:09:04.534948 1 a.go] x",
            "I0915 19:09:04.534948 x a.go:1] x",
            "I0915 19.09.04.534948 1 a.go:1] x",
            "I0915 19:09:04 1 a.go:1] x",
            "X0915 19:09:04.534948 1 a.go:1] x",
            "I0915 19:09:04.53494é 1 a.go:1] x",
            "\tI0915 19:09:04.534948 1 a.go:1] x",
        ] {
            assert_eq!(parse(line), None, "{line}");
        }
    }
}
