//! Command lines for people: joined, quoted, bounded, and with the values of secret options masked.
//!
//! Masking errs on the side of hiding: where an argument names a secret, the rest of that argument goes.

use std::borrow::Cow;

/// Longest rendered command line in bytes; a longer one ends with `…`.
pub const MAX_RENDERED: usize = 512;
const MASK: &str = "***";
const ELLIPSIS: char = '…';

/// Parts of names whose value is secret, without separators.
const SECRET: &[&str] = &[
    "token",
    "password",
    "passwd",
    "passphrase",
    "secret",
    "apikey",
    "accesskey",
    "privatekey",
    "credential",
    "authorization",
    "bearer",
];
/// Last words of names that only say where the secret is, or how it is checked.
const HARMLESS_END: &[&str] = &["file", "path", "dir", "mode", "ttl"];

/// Renders the first bytes of a command line as the kernel keeps it (arguments separated by NUL). `cut` = there
/// may be more, so the last argument may be a part. `None` if there is nothing (kernel threads, zombies).
pub fn masked_cmdline_from_bytes(bytes: &[u8], cut: bool) -> Option<String> {
    // The last NUL ends an argument; further ones are what a process that renames itself leaves behind.
    let end = bytes.iter().rposition(|&byte| byte != 0)? + 1;
    let ended = end < bytes.len();
    let args: Vec<&[u8]> = bytes.get(..end)?.split(|&byte| byte == 0).collect();
    let mut line = render(&args, cut && !ended);
    if cut && !line.ends_with(ELLIPSIS) {
        line.push(ELLIPSIS);
        line = bounded(line);
    }
    Some(line)
}

/// Renders arguments: blanks between them, quotes where needed, secrets as `***`, at most [`MAX_RENDERED`] bytes.
fn render<A: AsRef<[u8]>>(args: &[A], last_is_cut: bool) -> String {
    let mut line = String::new();
    let mut value_is_secret = false;
    let mut value_is_login = false;
    for (index, arg) in args.iter().enumerate() {
        let text = String::from_utf8_lossy(arg.as_ref());
        let cut = last_is_cut && index + 1 == args.len();
        let masked = if value_is_secret && !text.starts_with("--") {
            MASK.to_owned()
        } else if let Some((user, _)) = text.split_once(':').filter(|_| value_is_login && !is_uid_gid(&text))
        {
            format!("{user}:{MASK}")
        } else {
            mask_argument(&text, cut)
        };
        value_is_secret = text.starts_with('-') && !text.contains('=') && is_secret(&text);
        value_is_login = matches!(&*text, "-u" | "--user" | "-U" | "--proxy-user");
        if index > 0 {
            line.push(' ');
        }
        line.push_str(&quoted(&masked));
        if line.len() > MAX_RENDERED {
            break;
        }
    }
    bounded(line)
}

/// `1000:1000`, which `-u` of container tools takes where `-u` of curl takes `user:password`.
fn is_uid_gid(text: &str) -> bool {
    text.bytes().all(|byte| byte == b':' || byte.is_ascii_digit())
}

/// One argument with the part after the first secret name masked, and passwords in URLs.
fn mask_argument(text: &str, cut: bool) -> String {
    match secret_value_at(text) {
        Some(at) => {
            let (name, _) = text.split_at(at);
            format!("{}{MASK}", mask_urls(name, false))
        }
        None => mask_urls(text, cut).into_owned(),
    }
}

/// Where the value of the first secret name begins: `--token=…`, `TOKEN=…`, `Authorization: …`, `"password":…`,
/// and in shell text `--token …` and `Bearer …`.
fn secret_value_at(text: &str) -> Option<usize> {
    let mut start = 0;
    for run in text.split_inclusive(|c: char| !is_name_char(c)) {
        let end = start + run.len();
        let name = run.trim_end_matches(|c: char| !is_name_char(c));
        let separator = run.get(name.len()..).and_then(|rest| rest.chars().next());
        let value = text.get(end..).unwrap_or_default();
        if is_secret(name) && begins_value(separator, name) && !is_harmless_value(value) {
            let skipped = value.len() - value.trim_start_matches([' ', ':', '=', '"', '\'']).len();
            return Some(end + skipped);
        }
        start = end;
    }
    None
}

fn begins_value(separator: Option<char>, name: &str) -> bool {
    match separator {
        Some('=' | ':' | '"' | '\'') => true,
        Some(c) if c.is_whitespace() => name.starts_with('-') || name.eq_ignore_ascii_case("bearer"),
        _ => false,
    }
}

/// Nothing to hide, and worth showing: `--anonymous-token=false`.
fn is_harmless_value(value: &str) -> bool {
    matches!(value.trim_matches(['"', '\'']), "" | "true" | "false")
}

fn is_name_char(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '-' | '_' | '.')
}

fn is_secret(name: &str) -> bool {
    let name = name.to_lowercase();
    let last_word = name.rsplit(['-', '_', '.']).next().unwrap_or_default();
    if HARMLESS_END.contains(&last_word) {
        return false;
    }
    let squeezed = name.replace(['-', '_', '.'], "");
    SECRET.iter().any(|word| squeezed.contains(word))
}

/// Masks `user:password@` and `token@` in every URL; with `cut`, also what may become one.
fn mask_urls(text: &str, cut: bool) -> Cow<'_, str> {
    let Some(first) = text.find("://") else { return Cow::Borrowed(text) };
    let mut out = String::new();
    let mut rest = text;
    let mut next = Some(first);
    while let Some(at) = next {
        let (before, after) = rest.split_at(at + "://".len());
        out.push_str(before);
        let is_end = |c: char| c.is_whitespace() || matches!(c, '"' | '\'');
        let url_len = after.find(is_end).unwrap_or(after.len());
        let (url, tail) = after.split_at(url_len);
        let is_http = before.ends_with("http://") || before.ends_with("https://");
        mask_url(&mut out, url, is_http, cut && tail.is_empty());
        rest = tail;
        next = rest.find("://");
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// One URL, without its scheme.
fn mask_url(out: &mut String, url: &str, is_http: bool, cut: bool) {
    let authority = url.split(['/', '?', '#']).next().unwrap_or_default();
    let unescaped = authority.split_once(':').is_some_and(|(_, port)| {
        // A password with a raw '/' ends the authority too early; then no port follows the colon.
        !port.bytes().all(|byte| byte.is_ascii_digit()) && !authority.starts_with('[')
    });
    let user_info = if authority.contains('@') {
        authority.rsplit_once('@')
    } else if unescaped {
        url.rsplit_once('@')
    } else {
        None
    };
    match user_info {
        Some((info, _)) => {
            match info.split_once(':') {
                Some((user, _)) => out.extend([user, ":", MASK]),
                None if is_http => out.push_str(MASK),
                None => out.push_str(info),
            }
            out.push_str(url.get(info.len()..).unwrap_or_default());
        }
        None if cut && (unescaped || authority.len() == url.len()) => out.push_str(MASK),
        None => out.push_str(url),
    }
}

/// Quoted as a shell would need it; control characters are escaped, because terminals obey them.
fn quoted(arg: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./:=,@%+*…\u{fffd}".contains(c);
    if !arg.is_empty() && arg.chars().all(plain) {
        return arg.to_owned();
    }
    let mut out = String::from("'");
    for c in arg.chars() {
        match c {
            '\'' => out.push_str("'\\''"),
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out.push('\'');
    out
}

fn bounded(mut line: String) -> String {
    if line.len() > MAX_RENDERED {
        let mut end = MAX_RENDERED - ELLIPSIS.len_utf8();
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        line.truncate(end);
        line.push(ELLIPSIS);
    }
    line
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn shows(args: &[&str], expected: &str) {
        assert_eq!(render(args, false), expected);
    }

    #[test]
    fn both_forms_of_an_option_are_masked() {
        shows(&["kubelet", "--token=abc", "--v=2"], "kubelet --token=*** --v=2");
        shows(&["kubelet", "--token", "abc", "--v=2"], "kubelet --token *** --v=2");
        shows(
            &["x", "--api-key", "abc", "--apiKey=d", "-Ddb.password=e"],
            "x --api-key *** --apiKey=*** -Ddb.password=***",
        );
        shows(&["env", "DB_PASSWD=abc", "run"], "env DB_PASSWD=*** run");
    }

    #[test]
    fn paths_of_secrets_are_shown() {
        shows(
            &["kubelet", "--tls-private-key-file=/pki/k.pem", "--token-dir", "/run/t", "SECRET_FILE=/s"],
            "kubelet --tls-private-key-file=/pki/k.pem --token-dir /run/t SECRET_FILE=/s",
        );
        shows(&["cat", "/var/run/secrets/token"], "cat /var/run/secrets/token");
        shows(&["kubelet", "--authorization-mode=Webhook"], "kubelet --authorization-mode=Webhook");
        shows(
            &["kubelet", "--authentication-token-webhook=true"],
            "kubelet --authentication-token-webhook=true",
        );
    }

    #[test]
    fn an_option_after_a_secret_flag_is_not_its_value() {
        shows(&["x", "--use-token", "--password", "abc"], "x --use-token --password ***");
        shows(&["x", "--token", "-abc"], "x --token ***");
    }

    #[test]
    fn headers_json_and_shell_text_are_masked() {
        shows(&["curl", "-H", "Authorization: Bearer abc"], "curl -H 'Authorization: ***'");
        shows(&["x", r#"{"password":"abc"}"#], r#"x '{"password":"***'"#);
        shows(&["sh", "-c", "curl --token abc http://h/"], "sh -c 'curl --token ***'");
        shows(&["x", "http://h/?a=1&token=abc"], "x 'http://h/?a=1&token=***'");
    }

    #[test]
    fn logins_of_curl_are_masked() {
        shows(&["curl", "-u", "admin:abc", "h"], "curl -u admin:*** h");
        shows(&["runc", "exec", "-u", "1000:1000"], "runc exec -u 1000:1000");
    }

    #[test]
    fn passwords_in_urls_are_masked() {
        shows(&["x", "postgres://u:p@ss@db:5432/x"], "x postgres://u:***@db:5432/x");
        shows(&["x", "postgres://u:p/s@db"], "x postgres://u:***@db");
        shows(&["x", "https://tok@host/p"], "x https://***@host/p");
        shows(
            &["x", "ssh://git@host/p", "http://10.0.0.1:80/a@b"],
            "x ssh://git@host/p http://10.0.0.1:80/a@b",
        );
    }

    #[test]
    fn quotes_only_where_needed_and_escapes_control_characters() {
        shows(&["sh", "-c", "a b", "", "it's"], r"sh -c 'a b' '' 'it'\''s'");
        shows(&["x", "a\n\u{1b}[31m"], r"x 'a\n\u{1b}[31m'");
        assert_eq!(render(&[&b"a\xffb"[..]], false), "a\u{fffd}b");
    }

    #[test]
    fn long_lines_are_bounded() {
        let line = render(&["x".repeat(300), "é".repeat(300)], false);
        assert!(line.len() <= MAX_RENDERED && line.ends_with('…'), "{line}");
    }

    #[test]
    fn bytes_copied_at_connect_time() {
        assert_eq!(masked_cmdline_from_bytes(b"kubelet\0--v=2\0", false).as_deref(), Some("kubelet --v=2"));
        assert_eq!(masked_cmdline_from_bytes(b"a\0\0b\0\0\0", false).as_deref(), Some("a '' b"));
        assert_eq!(masked_cmdline_from_bytes(b"", false), None);
        assert_eq!(masked_cmdline_from_bytes(b"\0\0", true), None);
    }

    #[test]
    fn a_cut_last_argument_is_masked() {
        let shown = |bytes: &[u8]| masked_cmdline_from_bytes(bytes, true).unwrap();
        assert_eq!(shown(b"x\0--token=ab"), "x --token=***…");
        assert_eq!(shown(b"x\0--token\0ab"), "x --token ***…");
        assert_eq!(shown(b"x\0http://user:pa"), "x http://***…");
        assert_eq!(shown(b"x\0pg://user:pa/s"), "x pg://***…");
        assert_eq!(shown(b"x\0http://host/pa"), "x http://host/pa…");
        assert_eq!(shown(b"x\0http://host\0"), "x http://host…");
        assert_eq!(shown(b"x\0Authorization: Bearer a"), "x 'Authorization: ***'…");
    }

    proptest! {
        #[test]
        fn the_secret_never_shows(
            name in "(--|)(db-|)(token|PASSWORD|passwd|client_secret|api-key|credentials)",
            secret in "Q[A-Z0-9]{7,20}Q", split in any::<bool>(), keep in 0_usize..40,
        ) {
            let args = if split { format!("prog\0--{name}\0{secret}") } else { format!("prog\0{name}={secret}") };
            let cut = args.get(..args.len().saturating_sub(keep).max(1)).unwrap_or("p");
            let shown = masked_cmdline_from_bytes(cut.as_bytes(), true).unwrap_or_default();
            prop_assert!(!shown.contains('Q'), "{}", shown);
        }

        #[test]
        fn arbitrary_bytes_are_rendered_bounded(bytes in proptest::collection::vec(any::<u8>(), 0..700), cut in any::<bool>()) {
            if let Some(line) = masked_cmdline_from_bytes(&bytes, cut) {
                prop_assert!(line.len() <= MAX_RENDERED);
                prop_assert!(!line.chars().any(char::is_control));
            }
        }

        #[test]
        fn urls_do_not_panic(text in "[a-z:/@\\[\\]?# ]{0,40}", cut in any::<bool>()) {
            let _ = mask_urls(&text, cut);
        }
    }
}
