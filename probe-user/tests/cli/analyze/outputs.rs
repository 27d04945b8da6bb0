//! HTML, packets, redaction.

use super::*;

fn lab() -> Vec<String> {
    files("captures", &["lab-6.1-node-any.pcap", "lab-6.1-ip_vs.txt", "lab-6.1-trace.json"])
}

#[test]
fn html_is_one_page_with_the_hashes_of_its_inputs() {
    let output = portclash(&["analyze", "-o", "html"]).args(lab()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let page = String::from_utf8(output.stdout).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>") && page.trim_end().ends_with("</html>"));
    assert!(page.contains("10.23.77.129:36704") && page.contains("<svg"));
    let hash = ring::digest::digest(&ring::digest::SHA256, &fs::read(&lab()[0]).unwrap());
    let digits = hash.as_ref().iter().flat_map(|byte| [byte >> 4, byte & 15]);
    let hash: String = digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect();
    assert!(page.contains(&hash));
    for outside in ["<script", "src=\"http", "href=\"http", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
    let other = run(&["check", "-o", "html", "--local-port-range", "1 2"]);
    refused(&other, &["portclash analyze"]);
}

#[test]
fn written_packets_are_those_of_the_incident_and_give_it_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.pcapng").display().to_string();
    let found = analyze(&[lab(), vec!["--write".to_owned(), path.clone()]].concat());
    let again = analyze(std::slice::from_ref(&path));
    assert_eq!(again.only()["verdict"], found.only()["verdict"]);
    assert_eq!(again.only()["hijack"], found.only()["hijack"]);
    assert_eq!(again.summary["connects_seen"], 1, "the control is not in it");
    if let Ok(tshark) =
        Command::new("tshark").args(["-r", &path, "-T", "fields", "-e", "frame.comment"]).output()
        && tshark.status.success()
    {
        let comments = String::from_utf8(tshark.stdout).unwrap();
        assert!(comments.contains("36704"), "{comments}");
    }
}

#[test]
fn redacted_outputs_hold_no_name_and_no_address() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.pcapng").display().to_string();
    let seed = files(
        "seed",
        &["capture-listing.txt", "services.txt", "kubelet.log", "nginx-access.log", "ipvsadm.txt"],
    );
    for format in ["text", "json", "html"] {
        let args = [
            ["analyze", "--redact", "-o", format, "--write", path.as_str()].map(str::to_owned).to_vec(),
            lab(),
            seed.clone(),
        ]
        .concat();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let output = run(&args);
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("36704"), "ports stay: {text}");
        let written = fs::read(&path).unwrap();
        for secret in ["10.23.77", "nginx-5dfb7c896c", "3daea6ef", "kubernetes-dashboard", "captures/lab"] {
            assert!(!text.contains(secret), "{format}: {secret}\n{text}");
            assert!(!String::from_utf8_lossy(&written).contains(secret), "packets: {secret}");
        }
        assert!(!written.windows(3).any(|three| three == [10, 23, 77]), "an address in a packet");
    }
}

#[test]
fn drawings_are_ascii_where_the_locale_is() {
    let text = |locale: &str| {
        let output = portclash(&["analyze"]).args(lab()).env("LC_ALL", locale).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(text("C").is_ascii());
    assert!(text("C.UTF-8").contains('│'));
}

/// A closed port: the text and the page say so, and not only that it was not IPVS.
#[test]
fn the_reason_of_another_reset_is_told() {
    let listing = "\
14:00:00.000000 IP 10.0.0.1.40000 > 10.0.0.2.9: Flags [S], seq 424037006, win 64240, length 0
14:00:00.000100 IP 10.0.0.2.9 > 10.0.0.1.40000: Flags [R.], seq 0, ack 424037007, win 0, length 0
";
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), listing).unwrap();
    let path = file.path().display().to_string();
    for format in ["text", "html"] {
        let output = portclash(&["analyze", "-o", format, &path]).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        let text = String::from_utf8(output.stdout).unwrap();
        let words: Vec<&str> = text.split_whitespace().collect();
        let words = words.join(" ");
        assert!(words.contains("refused the connection: nobody listens there"), "{format}: {words}");
        assert!(!words.contains("still open"), "{format}: it is over");
    }
}

/// A port scan before a collision: the collision comes first, and the closed ports are one story.
#[test]
fn a_collision_is_told_before_a_thousand_closed_ports() {
    use std::fmt::Write;
    let mut listing = String::new();
    for n in 0..1000_u32 {
        let (seq, port) = (424_037_006 + n * 1000, 1000 + n);
        let time = format!("13:00:{:02}.{:06}", n / 100, n % 100 * 1000);
        writeln!(
            listing,
            "{time} IP 10.0.0.1.40000 > 10.0.0.2.{port}: Flags [S], seq {seq}, win 64240, length 0"
        )
        .unwrap();
        writeln!(
            listing,
            "{time} IP 10.0.0.2.{port} > 10.0.0.1.40000: Flags [R.], seq 0, ack {}, win 0, length 0",
            seq + 1
        )
        .unwrap();
    }
    let (syn, reply, own) = ("10.23.77.129.36704 > 10.23.77.138.80", "10.23.77.138.80", "10.23.77.129.36704");
    for at in ["14:00:00", "14:00:01"] {
        writeln!(listing, "{at}.100000 IP {syn}: Flags [S], seq 3142039474, win 64240, length 0").unwrap();
        writeln!(
            listing,
            "{at}.100100 IP {reply} > {own}: Flags [S.], seq 1523494022, ack 3142039475, win 65160, length 0"
        )
        .unwrap();
        writeln!(listing, "{at}.100200 IP {syn}: Flags [R], seq 3142039475, win 0, length 0").unwrap();
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), listing).unwrap();
    let path = file.path().display().to_string();
    let output = portclash(&["analyze", &path]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("COLLISION"), "{text}");
    assert!(text.contains("The same happened 999 more times"), "{text}");
    assert!(text.contains("from 10.0.0.1:40000 to 10.0.0.2:1001"), "{text}");
    assert!(text.lines().count() < 150, "{text}");
}
