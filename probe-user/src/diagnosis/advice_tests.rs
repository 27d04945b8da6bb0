use super::*;

fn node() -> NodeFacts {
    NodeFacts {
        reserved: Some(String::new()),
        local_port_range: Some((1024, 65_000)),
        node_port_range: None,
        service_ports: vec![443, 36_704, 20_869],
    }
}

fn collision(port: u16) -> Cause {
    let local = Some(SocketAddr::from(([10, 23, 77, 129], port)));
    Cause { verdict: Verdict::Collision, local, remote: "10.23.77.138:80".parse().ok() }
}

fn only(advice: Vec<Advice>) -> Advice {
    assert_eq!(advice.len(), 1, "{advice:?}");
    advice.into_iter().next().unwrap()
}

#[test]
fn what_is_reserved_already_is_kept_and_ranges_are_merged_as_the_kernel_prints_them() {
    let node = NodeFacts {
        reserved: Some("50000-50001,32768,8080\n".to_owned()),
        node_port_range: Some((30_000, 32_767)),
        service_ports: vec![31_055],
        ..node()
    };
    let advice = only(advise(&node, &collision(31_055)));
    assert_eq!(advice.value.as_deref(), Some("8080,30000-32768,50000-50001"));
    assert_eq!(
        advice.command.as_deref(),
        Some("sysctl -w net.ipv4.ip_local_reserved_ports=8080,30000-32768,50000-50001")
    );
    assert_eq!(
        advice.persist.as_deref(),
        Some(
            "/etc/sysctl.d/90-nodeports.conf: net.ipv4.ip_local_reserved_ports = 8080,30000-32768,50000-50001"
        )
    );
    assert!(advice.why.contains("bind()") && advice.why.contains("SNAT"), "{}", advice.why);
}

#[test]
fn without_a_known_node_port_range_exactly_the_exposed_service_ports_are_reserved() {
    let advice = only(advise(&node(), &collision(36_704)));
    assert_eq!(advice.value.as_deref(), Some("20869,36704"), "443 is no ephemeral port");
    assert!(advice.why.contains("2 service ports"), "{}", advice.why);
}

/// <https://github.com/awslabs/amazon-eks-ami/issues/1307>
#[test]
fn service_ports_that_all_lie_in_the_default_node_port_range_reserve_all_of_it_and_say_so() {
    let node = NodeFacts { service_ports: vec![443, 30_001, 32_767], ..node() };
    let advice = only(advise(&node, &collision(30_001)));
    assert_eq!(advice.value.as_deref(), Some("30000-32767"));
    assert!(advice.why.contains("default NodePort range"), "{}", advice.why);
    let one = NodeFacts { service_ports: vec![30_001], ..node };
    assert_eq!(only(advise(&one, &collision(30_001))).value.as_deref(), Some("30001"));
}

#[test]
fn an_unknown_reservation_is_never_overwritten() {
    for reserved in [None, Some("1024 15999".to_owned()), Some("9-1".to_owned())] {
        let advice = only(advise(&NodeFacts { reserved, ..node() }, &collision(36_704)));
        assert_eq!((advice.value, advice.persist), (None, None));
        assert_eq!(
            advice.command.as_deref(),
            Some(
                "r=$(sysctl -n net.ipv4.ip_local_reserved_ports) && sysctl -w \
                 net.ipv4.ip_local_reserved_ports=\"${r:+$r,}20869,36704\""
            )
        );
    }
}

#[test]
fn reserving_is_not_advised_against_a_program_that_binds_the_port() {
    let outside = NodeFacts { local_port_range: Some((32_768, 60_999)), ..node() };
    let advice = only(advise(&outside, &collision(31_055)));
    assert_eq!((advice.value, advice.command), (None, None));
    assert!(advice.why.contains("binds it explicitly") && advice.why.contains("32768 to 60999"));

    let reserved = NodeFacts { reserved: Some("30000-40000".to_owned()), ..node() };
    let advice = only(advise(&reserved, &collision(36_704)));
    assert!(advice.why.contains("already in net.ipv4.ip_local_reserved_ports"), "{}", advice.why);
}

#[test]
fn exhaustion_widens_the_range_only_where_that_gains_ports_and_stays_clear_of_node_ports() {
    let cause = Cause {
        verdict: Verdict::Exhaustion,
        local: None,
        remote: Some(SocketAddr::from(([10, 23, 77, 138], 80))),
    };
    let narrow = NodeFacts { local_port_range: Some((32_768, 60_999)), ..node() };
    let advice = advise(&narrow, &cause);
    assert_eq!(advice.len(), 2);
    assert_eq!(
        advice[0].command.as_deref(),
        Some("ss -Htan dst 10.23.77.138 dport = :80 | awk '{print $1}' | sort | uniq -c")
    );
    assert_eq!(advice[1].value.as_deref(), Some("32768 65535"));
    assert_eq!(advise(&node(), &cause).len(), 1, "1024 to 65000 is wide already");
}

#[test]
fn other_verdicts_get_no_advice() {
    let cause = Cause { verdict: Verdict::OtherReset, ..collision(36_704) };
    assert!(advise(&node(), &cause).is_empty());
}
