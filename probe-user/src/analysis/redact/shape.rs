//! What a word is by its shape alone: a number, a time, an interface, a link-layer address.

/// A link-layer address.
pub(super) fn mac(word: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = word.split([':', '-']);
    for byte in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2)?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

/// The name of a network interface as systems and network plugins give it: a kind and a number or hash.
pub(super) fn is_interface(word: &str) -> bool {
    let kinds = [
        "eth",
        "ens",
        "eno",
        "enp",
        "enx",
        "veth",
        "cali",
        "bond",
        "vlan",
        "vxlan",
        "flannel",
        "cni",
        "docker",
        "br-",
        "lxc",
        "tunl",
        "gre",
        "tap",
        "tun",
        "dummy",
        "wlan",
        "cilium_",
        "kube-ipvs",
        "nodelocaldns",
        "team",
        "ib",
    ];
    let rest = kinds.iter().find_map(|kind| word.strip_prefix(kind));
    rest.is_some_and(|rest| {
        word.len() <= 15
            && rest.bytes().any(|byte| byte.is_ascii_digit())
            && rest.bytes().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b'.' | b's' | b'p' | b'f'))
    })
}

/// A number, with sign and unit, a range of numbers, a time or a date. Not `10.23.77`, which is half an address.
pub(super) fn is_number(word: &str) -> bool {
    let digits =
        |text: &str| !text.is_empty() && text.len() <= 20 && text.bytes().all(|byte| byte.is_ascii_digit());
    let bare = word.strip_prefix(['+', '-', '#']).unwrap_or(word);
    if let Some(hex) = bare.strip_prefix("0x") {
        return !hex.is_empty() && hex.len() <= 8 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    }
    let bare = ["GiB", "MiB", "KiB", "MB", "kB", "ms", "us", "µs", "ns", "s", "h", "m", "d", "%", "B", "th"]
        .iter()
        .find_map(|unit| bare.strip_suffix(unit))
        .unwrap_or(bare);
    if digits(bare) {
        return true;
    }
    let two = |separator: char| bare.split_once(separator).is_some_and(|(a, b)| digits(a) && digits(b));
    two('.') || two('-') || is_clock(bare) || is_date(bare) || is_moment(word)
}

/// `19:09:02.533`
fn is_clock(text: &str) -> bool {
    let (time, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let mut parts = time.split(':');
    let mut below = |limit: u8| {
        parts.next().is_some_and(|part| part.len() == 2 && part.parse::<u8>().is_ok_and(|n| n < limit))
    };
    let whole = below(24) && below(60) && below(61);
    whole
        && parts.next().is_none()
        && fraction.len() <= 9
        && fraction.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_date(text: &str) -> bool {
    text.parse::<jiff::civil::Date>().is_ok() && text.len() == 10
}

/// RFC 3339, or `15/Sep/2022:11:08:42` of a web server.
fn is_moment(text: &str) -> bool {
    if text.parse::<jiff::Timestamp>().is_ok() || text.parse::<jiff::civil::DateTime>().is_ok() {
        return true;
    }
    let mut parts = text.splitn(3, '/');
    let day = parts.next().is_some_and(|day| day.len() == 2 && day.bytes().all(|byte| byte.is_ascii_digit()));
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = parts.next().is_some_and(|month| months.contains(&month));
    let rest = parts.next().and_then(|rest| rest.split_once(':'));
    let rest =
        rest.is_some_and(|(year, time)| year.len() == 4 && year.parse::<u16>().is_ok() && is_clock(time));
    day && month && rest
}
