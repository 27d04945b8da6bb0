use proptest::prelude::*;

use super::*;

struct All {
    texts: Texts,
    names: Names,
    addresses: Addresses,
}

fn all() -> All {
    All { texts: Texts::new(), names: Names::default(), addresses: Addresses::new(&[7; 32]) }
}

impl All {
    fn outside(&mut self, text: &str) -> String {
        self.texts.rewrite(text, Trust::Outside, &mut self.names, &mut self.addresses)
    }

    fn address(&mut self, text: &str) -> String {
        self.addresses.ip(text.parse().unwrap()).to_string()
    }
}

#[test]
fn sentences_of_our_own_stay_but_for_addresses_and_names() {
    let mut all = all();
    let (a, b) = (all.address("10.23.77.138"), all.address("10.23.77.139"));
    assert_eq!(
        all.outside("IPVS handed the reply of 10.23.77.138:80 to backend 10.23.77.139:8443 as if it were a new connection"),
        format!("IPVS handed the reply of {a}:80 to backend {b}:8443 as if it were a new connection")
    );
    assert_eq!(
        all.outside("the stack of backend 10.23.77.139:8443 reset it: RST seq 4142039475 = ISN + 1 (namespace 4026532290)"),
        format!("the stack of backend {b}:8443 reset it: RST seq 4142039475 = ISN + 1 (namespace 4026532290)")
    );
    assert_eq!(all.texts.removed, 0);
}

#[test]
fn whatever_is_no_word_of_ours_becomes_an_alias_and_always_the_same() {
    let mut all = all();
    let text =
        all.outside("backend 10.23.77.139:8443 is pod shop/payments-7d8f5d5c4-l9k2m, container payments");
    let address = all.address("10.23.77.139");
    assert_eq!(text, format!("backend {address}:8443 is pod namespace-1/name-1, container name-2"));
    assert_eq!(all.outside("shop/payments-7d8f5d5c4-l9k2m:metrix"), "namespace-1/name-1:port-1");
    // A plain word is a name where the word before says so.
    assert_eq!(all.outside("it runs in container server"), "it runs in container name-3");
    assert_eq!(all.outside("no container runtime"), "no container runtime");
}

#[test]
fn a_known_name_gets_its_alias_wherever_it_stands() {
    let mut all = all();
    all.names.alias(Kind::Namespace, "default");
    all.names.alias(Kind::Pod, "nginx-5dfb7c896c-x2q2w");
    let file = all.names.file("my files/pod one.pcap.gz");
    assert_eq!(file, "file-1.pcap.gz");
    assert_eq!(all.names.file("sos.tar/var/log/Kubelet.acme.log"), "file-2.log");
    assert_eq!(
        all.outside("probe of default/nginx-5dfb7c896c-x2q2w: the default range"),
        "probe of namespace-1/pod-1: the default range"
    );
    assert_eq!(all.outside("my files/pod one.pcap.gz, packet 651"), "file-1.pcap.gz, packet 651");
    assert_eq!(all.outside("Kubelet.acme.log:12"), "file-2.log:12");
}

#[test]
fn addresses_in_every_form() {
    let mut all = all();
    let (v4, v6) = (all.address("10.23.77.129"), all.address("fd00:10:23::1"));
    for (text, expected) in [
        ("10.23.77.129", v4.clone()),
        ("(10.23.77.129),", format!("({v4}),")),
        ("10.23.77.129.36704:", format!("{v4}.36704:")),
        ("10.23.77.129:http", format!("{v4}:http")),
        ("10.23.77.129:36704->10.23.77.129:80", format!("{v4}:36704->{v4}:80")),
        ("[fd00:10:23::1]:80", format!("[{v6}]:80")),
        ("fd00:10:23::1", v6.clone()),
        ("[fd00:10:23::1]", format!("[{v6}]")),
        ("dst=10.23.77.129", format!("dst={v4}")),
        ("http://10.23.77.129:80/secret?token=x", format!("http://{v4}:80/…")),
        ("https://user:pass@10.23.77.129/", format!("https://{v4}/")),
    ] {
        assert_eq!(all.outside(text), expected, "{text}");
    }
    let network = all.outside("10.23.77.0/24");
    let inside: Vec<&str> = v4.rsplitn(2, '.').collect();
    assert_eq!(network, format!("{}.0/24", inside[1]));
    let mac = all.outside("26:ed:79:5c:ea:b5");
    assert!(mac.starts_with("02:") && !mac.contains("ed:79"));
    for half in ["10.23.77", "10.23.77.x", "10.23.77.129/healthz/x", "x10.23.77.129", "v10.23.77.129"] {
        assert!(!all.outside(half).contains("23.77"), "{half}: {}", all.outside(half));
    }
}

#[test]
fn interfaces_keep_their_usual_names_and_namespaces() {
    let mut all = all();
    assert_eq!(
        all.outside("on eth0, ens192 cali1a2b3c4d5e6 bond0.100"),
        "on eth0, ens192 cali1a2b3c4d5e6 bond0.100"
    );
    assert_eq!(all.outside("eth0@4026532125 acmelan@4026532125"), "eth0@4026532125 interface-1@4026532125");
}

#[test]
fn what_is_quoted_is_cut() {
    let mut all = all();
    assert_eq!(all.outside(r#"line 3: "a blank" is not allowed"#), r#"line 3: "…" is not allowed"#);
    assert_eq!(all.outside(r#"the output "was cut"#), r#"the output "…""#);
}

#[test]
fn numbers_and_times_stay() {
    for text in [
        "651",
        "+1.030",
        "-10.5",
        "2001ms",
        "0x1f",
        "30000-32767",
        "19:09:02.533940",
        "2022-09-15",
        "100%",
        "1.5s",
        "2022-09-15T19:09:02.533940000Z",
        "15/Sep/2022:11:08:42",
        "2022-09-15T19:09:02",
    ] {
        assert!(is_number(text), "{text}");
    }
    for text in
        ["10.23.77", "10.23.77.129", "fd00", "1a2b", "00:11:22:33", "deadbeef", "0x123456789", "x2q2w", ""]
    {
        assert!(!is_number(text), "{text}");
    }
}

proptest! {
    #[test]
    fn nothing_panics(text: String) {
        all().outside(&text);
    }

    #[test]
    fn no_unknown_word_and_no_address_survives(
        word in "[bcdfghjklmnpqrstvwxz]{7,20}",
        octets: [u8; 3],
        before in "[ ,;:()\\[\\]\"'./=<>|*-]{0,3}",
        after in "[ ,;:()\\[\\]\"'./=<>|*-]{0,3}",
        v6: [u16; 4],
    ) {
        let mut all = all();
        let text = all.outside(&format!("pod{before}{word}{after}failed"));
        prop_assert!(!text.contains(&word), "{}", text);
        let [a, b, c] = octets;
        let v4 = format!("10.{a}.{b}.{c}");
        // One address in many thousands is replaced by itself.
        prop_assume!(all.address(&v4) != v4);
        let text = all.outside(&format!("from{before}{v4}{after}80"));
        let whole = text.split(|c: char| !c.is_ascii_digit() && c != '.').any(|part| part.trim_matches('.') == v4);
        prop_assert!(!whole, "{}", text);
        let [a, b, c, d] = v6.map(|part| part | 0x1111);
        let v6 = format!("fd00:{a:x}:{b:x}:{c:x}:{d:x}::1");
        let text = all.outside(&format!("from [{v6}]:80 and {v6}, {v6}%eth0"));
        prop_assert!(!text.contains(&v6), "{}", text);
    }
}
