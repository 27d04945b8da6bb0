use super::*;

fn service_message(attributes: &[(u16, &[u8])]) -> Vec<u8> {
    nest(ATTR_SERVICE, attributes)
}

fn nest(kind: u16, attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut inner = Vec::new();
    for (kind, value) in attributes {
        put(&mut inner, *kind, value);
    }
    let mut out = Vec::new();
    put(&mut out, kind | NESTED, &inner);
    out
}

fn flags(flags: u32) -> Vec<u8> {
    [flags.to_ne_bytes(), u32::MAX.to_ne_bytes()].concat()
}

const V4: [u8; 16] = [10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

#[test]
fn services_of_every_protocol() {
    for (number, protocol) in [(6_u16, Protocol::Tcp), (17, Protocol::Udp), (132, Protocol::Sctp)] {
        let message = service_message(&[
            (SVC_AF, &AF_INET.to_ne_bytes()),
            (SVC_PROTOCOL, &number.to_ne_bytes()),
            (SVC_ADDR, &V4),
            (SVC_PORT, &443_u16.to_be_bytes()),
            (SVC_SCHED, b"rr\0"),
            (SVC_FLAGS, &flags(FLAG_PERSISTENT | FLAG_ONE_PACKET | 2)),
            (SVC_TIMEOUT, &10800_u32.to_ne_bytes()),
            (99, b"later"),
        ]);
        let service = parse_service(&message).unwrap();
        assert_eq!(service.id, ServiceId::Address(protocol, "10.0.0.1:443".parse().unwrap()));
        assert_eq!(service.scheduler.as_deref(), Some("rr"));
        assert_eq!((service.persistent_s, service.one_packet), (Some(10800), true));
    }
}

#[test]
fn a_mark_has_a_family_and_no_address() {
    let message = service_message(&[
        (SVC_AF, &AF_INET6.to_ne_bytes()),
        (SVC_FWMARK, &7_u32.to_ne_bytes()),
        (SVC_SCHED, b"rr\0"),
        (SVC_FLAGS, &flags(2)),
        (SVC_TIMEOUT, &0_u32.to_ne_bytes()),
    ]);
    let service = parse_service(&message).unwrap();
    assert_eq!(service.id, ServiceId::Mark { mark: 7, ipv6: true });
    assert_eq!((service.persistent_s, service.one_packet), (None, false));
}

#[test]
fn strange_services_say_why() {
    let protocol = service_message(&[
        (SVC_AF, &AF_INET.to_ne_bytes()),
        (SVC_PROTOCOL, &47_u16.to_ne_bytes()),
        (SVC_ADDR, &V4),
        (SVC_PORT, &0_u16.to_be_bytes()),
    ]);
    assert_eq!(parse_service(&protocol).unwrap_err(), "unknown protocol 47");
    assert_eq!(
        parse_service(&service_message(&[(SVC_AF, b"\x02")])).unwrap_err(),
        "address family has 1 bytes instead of 2"
    );
    assert_eq!(parse_service(b"").unwrap_err(), "the message holds no service");
}

#[test]
fn a_backend_takes_the_family_of_its_service_unless_it_says_another() {
    let ip = "fd00::2".parse::<Ipv6Addr>().unwrap().octets();
    let mut attributes: Vec<(u16, Vec<u8>)> = vec![
        (DEST_ADDR, ip.to_vec()),
        (DEST_PORT, 8443_u16.to_be_bytes().to_vec()),
        (DEST_FORWARD, 0x102_u32.to_ne_bytes().to_vec()),
        (DEST_WEIGHT, 3_u32.to_ne_bytes().to_vec()),
    ];
    let message = |attributes: &[(u16, Vec<u8>)]| {
        let borrowed: Vec<_> = attributes.iter().map(|(kind, value)| (*kind, value.as_slice())).collect();
        nest(ATTR_DEST, &borrowed)
    };
    let v6 = ServiceId::Mark { mark: 1, ipv6: true };
    let v4 = ServiceId::Mark { mark: 1, ipv6: false };
    let expected =
        Backend { address: "[fd00::2]:8443".parse().unwrap(), forward: Forward::Tunnel, weight: 3 };
    assert_eq!(parse_backend(&message(&attributes), v6), Ok(expected.clone()));
    assert!(parse_backend(&message(&attributes), v4).unwrap().address.is_ipv4());
    attributes.push((DEST_FAMILY, AF_INET6.to_ne_bytes().to_vec()));
    assert_eq!(parse_backend(&message(&attributes), v4), Ok(expected));
}

#[test]
fn a_request_names_its_service() {
    for id in [
        ServiceId::Mark { mark: 9, ipv6: true },
        ServiceId::Address(Protocol::Sctp, "10.0.0.1:443".parse().unwrap()),
        ServiceId::Address(Protocol::Tcp, "[fd00::1]:80".parse().unwrap()),
    ] {
        assert_eq!(parse_service(&backends_of(id)).unwrap().id, id);
    }
}
